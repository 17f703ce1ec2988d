//! `optimism_*`: what an OP Stack rollup node answers, with Bitcoin as the L1.
//!
//! L1 blocks are named as the `L1Block` contract names them: by height, and by hash in internal byte order.

use super::{
    chain::{Chain, View},
    error::RpcError,
};
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B64, B256};
use anyhow::Context as _;
use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use kedge_genesis::{L1Height, L1Ref, L2Number};
use kedge_store::L1Rows;
use serde::Serialize;
use std::sync::Arc;

/// What an OP Stack rollup node answers.
#[rpc(server, namespace = "optimism")]
pub trait OptimismApi {
    /// The output root after a block, and what it commits to.
    #[method(name = "outputAtBlock", blocking)]
    fn output_at_block(&self, number: BlockNumberOrTag) -> RpcResult<OutputAtBlock>;

    /// The heads of both chains.
    #[method(name = "syncStatus", blocking)]
    fn sync_status(&self) -> RpcResult<RollupSyncStatus>;

    /// The rollup's parameters, as far as the OP Stack has them.
    #[method(name = "rollupConfig")]
    fn rollup_config(&self) -> RpcResult<RollupConfig>;
}

/// A block's number and hash.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct BlockId {
    hash: B256,
    number: u64,
}

impl From<L1Ref> for BlockId {
    fn from(at: L1Ref) -> Self {
        Self { hash: at.hash, number: at.height.0.into() }
    }
}

/// A Bitcoin block. The parent of the network's start is not known here, and zero.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct L1BlockRef {
    hash: B256,
    number: u64,
    parent_hash: B256,
    timestamp: u64,
}

/// An L2 block.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct L2BlockRef {
    hash: B256,
    number: u64,
    parent_hash: B256,
    timestamp: u64,
    #[serde(rename = "l1origin")]
    l1_origin: BlockId,
    sequence_number: u64,
}

/// What `optimism_outputAtBlock` answers.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputAtBlock {
    version: B256,
    output_root: B256,
    block_ref: L2BlockRef,
    withdrawal_storage_root: B256,
    state_root: B256,
    sync_status: RollupSyncStatus,
}

/// What `optimism_syncStatus` answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RollupSyncStatus {
    /// The Bitcoin block up to which the chain is derived.
    current_l1: L1BlockRef,
    /// The last Bitcoin block of which the rest of the chain is final.
    current_l1_finalized: L1BlockRef,
    /// The tip of Bitcoin, as far as it is processed.
    head_l1: L1BlockRef,
    /// The same: Bitcoin has no such notion.
    safe_l1: L1BlockRef,
    /// The Bitcoin block at finality depth.
    finalized_l1: L1BlockRef,
    unsafe_l2: L2BlockRef,
    safe_l2: L2BlockRef,
    finalized_l2: L2BlockRef,
    pending_safe_l2: L2BlockRef,
}

/// What `optimism_rollupConfig` answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RollupConfig {
    genesis: RollupGenesis,
    /// Blocks are made when they are needed: there is no fixed interval.
    block_time: u64,
    max_sequencer_drift: u64,
    seq_window_size: u64,
    channel_timeout: u64,
    /// Bitcoin has no chain id.
    l1_chain_id: u64,
    l2_chain_id: u64,
    regolith_time: u64,
    canyon_time: u64,
    delta_time: u64,
    ecotone_time: u64,
    fjord_time: u64,
    granite_time: u64,
    holocene_time: u64,
    isthmus_time: u64,
    jovian_time: u64,
    karst_time: u64,
    /// Batches are in Bitcoin transactions: no account receives them.
    batch_inbox_address: Address,
    /// Deposits are outputs of the vault: no contract takes them.
    deposit_contract_address: Address,
    /// Parameters are fixed: no contract on L1 holds them.
    l1_system_config_address: Address,
}

/// Where the rollup begins.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct RollupGenesis {
    l1: BlockId,
    l2: BlockId,
    l2_time: u64,
    system_config: SystemConfig,
}

/// The parameters that other OP Stack chains keep in a contract on L1.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SystemConfig {
    batcher_addr: Address,
    overhead: B256,
    scalar: B256,
    gas_limit: u64,
    eip1559_params: B64,
    operator_fee_params: B256,
    min_base_fee: u64,
}

/// Implements [`OptimismApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct Optimism(pub(super) Arc<Chain>);

impl View<'_> {
    fn l1_ref(&self, height: L1Height) -> Result<L1BlockRef, RpcError> {
        let row = self.reader.l1_row(height)?.context("no such L1 block")?;
        let parent = match height.0.checked_sub(1) {
            Some(before) => self.reader.l1_row(L1Height(before))?.map(|row| row.hash),
            None => None,
        };
        Ok(L1BlockRef {
            hash: row.hash,
            number: height.0.into(),
            parent_hash: parent.unwrap_or_default(),
            timestamp: row.time.into(),
        })
    }

    fn l2_ref(&self, number: L2Number) -> Result<L2BlockRef, RpcError> {
        let header = self.header(number)?;
        let info = self.info(number)?;
        Ok(L2BlockRef {
            hash: self.hash(number)?,
            number: number.0,
            parent_hash: header.parent_hash,
            timestamp: header.timestamp,
            l1_origin: info.cursor.origin.into(),
            sequence_number: info.cursor.sequence_number,
        })
    }
}

impl Optimism {
    fn status(&self, view: &View<'_>) -> Result<RollupSyncStatus, RpcError> {
        let params = self.0.params;
        let heads = self.0.engine.heads();
        let latest = view.latest()?;
        let tip = view.reader.l1_tip()?.context("no L1 block is processed")?.height;
        // Depth 1 is the tip itself.
        let depth = params.finality_depth.saturating_sub(1);
        let deep = L1Height(tip.0.saturating_sub(depth)).max(params.l1_start.height);
        let (tip, deep) = (view.l1_ref(tip)?, view.l1_ref(deep)?);
        // A reorg between two reads may have shortened the chain.
        let safe = view.l2_ref(heads.safe.number.min(latest))?;
        Ok(RollupSyncStatus {
            current_l1: tip,
            current_l1_finalized: deep,
            head_l1: tip,
            safe_l1: tip,
            finalized_l1: deep,
            unsafe_l2: view.l2_ref(latest)?,
            safe_l2: safe,
            finalized_l2: view.l2_ref(heads.finalized.number.min(latest))?,
            pending_safe_l2: safe,
        })
    }
}

/// The L1 fee's scalars as the OP Stack packs them since Ecotone: version 1, no blob scalar.
fn fee_scalar(scalar: u32) -> B256 {
    let mut packed = [0; 32];
    packed[0] = 1;
    packed[28..].copy_from_slice(&scalar.to_be_bytes());
    packed.into()
}

impl OptimismApiServer for Optimism {
    fn output_at_block(&self, number: BlockNumberOrTag) -> RpcResult<OutputAtBlock> {
        let view = self.0.view();
        let number = view.number(Some(number.into()))?;
        let header = view.header(number)?;
        let info = view.info(number)?;
        Ok(OutputAtBlock {
            version: kedge_genesis::tags::OUTPUT_ROOT_VERSION,
            output_root: info.output_root,
            block_ref: view.l2_ref(number)?,
            withdrawal_storage_root: header.withdrawals_root.unwrap_or_default(),
            state_root: header.state_root,
            sync_status: self.status(&view)?,
        })
    }

    fn sync_status(&self) -> RpcResult<RollupSyncStatus> {
        Ok(self.status(&self.0.view())?)
    }

    fn rollup_config(&self) -> RpcResult<RollupConfig> {
        let view = self.0.view();
        let params = self.0.params;
        let fees = &params.fees;
        let eip1559 = (u64::from(fees.denominator) << 32) | u64::from(fees.elasticity);
        Ok(RollupConfig {
            genesis: RollupGenesis {
                l1: params.l1_start.into(),
                l2: BlockId { hash: view.hash(L2Number(0))?, number: 0 },
                l2_time: params.l1_start_time.into(),
                system_config: SystemConfig {
                    batcher_addr: Address::ZERO,
                    overhead: B256::ZERO,
                    scalar: fee_scalar(fees.l1_fee_scalar),
                    gas_limit: params.block_gas_limit,
                    eip1559_params: B64::from(eip1559),
                    operator_fee_params: B256::ZERO,
                    min_base_fee: fees.min_base_fee,
                },
            },
            block_time: 0,
            max_sequencer_drift: params.max_time_drift,
            seq_window_size: params.sequencing_window.into(),
            channel_timeout: params.channel_timeout.into(),
            l1_chain_id: 0,
            l2_chain_id: params.chain_id,
            regolith_time: 0,
            canyon_time: 0,
            delta_time: 0,
            ecotone_time: 0,
            fjord_time: 0,
            granite_time: 0,
            holocene_time: 0,
            isthmus_time: 0,
            jovian_time: 0,
            karst_time: 0,
            batch_inbox_address: Address::ZERO,
            deposit_contract_address: Address::ZERO,
            l1_system_config_address: Address::ZERO,
        })
    }
}
