//! The heads: where the chain stands.

use super::EngineError;
use alloy_primitives::B256;
use kedge_genesis::{L1Ref, L2Number};
use kedge_store::{L1Rows, L2Rows, Rows, StoreError, Table, finalized};

/// An L2 block as the heads show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockRef {
    /// Its number.
    pub number: L2Number,
    /// Its hash.
    pub hash: B256,
    /// State root after it.
    pub state_root: B256,
    /// Output root after it.
    pub output_root: B256,
    /// Its L1 origin.
    pub origin: L1Ref,
    /// Unix seconds.
    pub timestamp: u64,
}

/// Where the chain stands. Always `latest ≥ safe ≥ finalized ≥ settled` as block numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The newest block, from the sequencer.
    pub latest: BlockRef,
    /// The newest block derived from Bitcoin.
    pub safe: BlockRef,
    /// The newest block whose batch is finality-deep. Never goes back.
    pub finalized: BlockRef,
    /// The newest block covered by a settled assertion that equals this node's own derivation.
    pub settled: BlockRef,
    /// The last processed L1 block.
    pub l1_tip: L1Ref,
    /// The tip that the Bitcoin node last reported, processed or not.
    pub l1_best: L1Ref,
}

/// The block with that number.
pub(super) fn block_ref(rows: &impl Rows, number: L2Number) -> Result<BlockRef, EngineError> {
    let missing =
        |table: Table| StoreError::Missing { table: table.name(), key: number.to_string() };
    let header = rows.header(number)?.ok_or_else(|| missing(Table::Headers))?;
    let info = rows.block_info(number)?.ok_or_else(|| missing(Table::Blocks))?;
    let hash = rows.hash(number)?.ok_or_else(|| missing(Table::Hashes))?;
    Ok(BlockRef {
        number,
        hash,
        state_root: header.state_root,
        output_root: info.output_root,
        origin: info.cursor.origin,
        timestamp: header.timestamp,
    })
}

/// The heads as the store has them, together with what the Bitcoin node reported.
pub(super) fn load(rows: &impl Rows, l1_best: L1Ref) -> Result<Heads, EngineError> {
    let missing =
        |key: &str| StoreError::Missing { table: Table::Meta.name(), key: key.to_owned() };
    let l1_tip = rows.l1_tip()?.ok_or_else(|| missing("tip"))?;
    let latest = rows.latest()?.ok_or_else(|| missing("latest"))?;
    let safe = rows.safe_at(l1_tip.height)?.min(latest);
    let finalized = finalized(rows)?.min(safe);
    let settled = rows.safe_at(rows.tracker()?.settled().l1.height)?.min(finalized);
    Ok(Heads {
        latest: block_ref(rows, latest)?,
        safe: block_ref(rows, safe)?,
        finalized: block_ref(rows, finalized)?,
        settled: block_ref(rows, settled)?,
        l1_tip,
        l1_best,
    })
}
