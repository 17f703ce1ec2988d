//! `kedge_*` by item: where a block stands on Bitcoin; one batch, deposit, withdrawal or assertion.

use super::{
    assertions,
    chain::View,
    error::RpcError,
    kedge::{Kedge, batch_status, deposit_status},
    types::{
        AssertionStatus, BatchFilter, BatchStatus, BlockStatus, DepositStatus, HeadKind, L1BlockId,
        WithdrawalStatus,
    },
};
use crate::engine::Heads;
use alloy_eips::BlockId;
use alloy_primitives::B256;
use anyhow::Context as _;
use bitcoin::OutPoint;
use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use kedge_genesis::{L1Height, L2Number};
use kedge_store::{BatchRow, L1Rows, L2Rows};

/// Most batches of one answer.
const MAX_BATCHES: u64 = 1_000;
/// Most deposits of one answer.
const MAX_DEPOSITS: u64 = 1_000;

/// `kedge_*` by item.
#[rpc(server, client, namespace = "kedge")]
pub trait KedgeItemsApi {
    /// Where an L2 block stands on Bitcoin; null when there is no such block.
    #[method(name = "block", blocking)]
    fn block(&self, block: BlockId) -> RpcResult<Option<BlockStatus>>;

    /// Batches, newest first.
    #[method(name = "batches", blocking)]
    fn batches(&self, filter: Option<BatchFilter>) -> RpcResult<Vec<BatchStatus>>;

    /// One batch; null when there is none with that index.
    #[method(name = "batch", blocking)]
    fn batch(&self, index: u64) -> RpcResult<Option<BatchStatus>>;

    /// The newest deposits, newest first: 100, or as many as asked for up to 1,000.
    #[method(name = "deposits", blocking)]
    fn deposits(&self, count: Option<u64>) -> RpcResult<Vec<DepositStatus>>;

    /// One deposit by the vault output that pays it (`txid:vout`); null when there is none.
    #[method(name = "deposit", blocking)]
    fn deposit(&self, outpoint: OutPoint) -> RpcResult<Option<DepositStatus>>;

    /// One withdrawal by its place in the queue; null when there is none.
    #[method(name = "withdrawal", blocking)]
    fn withdrawal(&self, index: u64) -> RpcResult<Option<WithdrawalStatus>>;

    /// One assertion; null when there is none with that id.
    #[method(name = "assertion", blocking)]
    fn assertion(&self, id: B256) -> RpcResult<Option<AssertionStatus>>;
}

impl KedgeItemsApiServer for Kedge {
    fn block(&self, block: BlockId) -> RpcResult<Option<BlockStatus>> {
        let heads = self.chain.engine.heads();
        let view = self.chain.view();
        match view.find(block)? {
            Some(number) => {
                Ok(Some(view.position(number, &heads, self.chain.params.l1_start.height)?))
            }
            None => Ok(None),
        }
    }

    fn batches(&self, filter: Option<BatchFilter>) -> RpcResult<Vec<BatchStatus>> {
        let filter = filter.unwrap_or_default();
        let count = filter.count.unwrap_or(100).min(MAX_BATCHES) as usize;
        let last = filter.last.unwrap_or(u64::MAX);
        let rows = self.chain.view().reader.batches_to(last, count).map_err(RpcError::from)?;
        Ok(rows.into_iter().map(batch_status).collect())
    }

    fn batch(&self, index: u64) -> RpcResult<Option<BatchStatus>> {
        let row = self.chain.view().reader.batch(index).map_err(RpcError::from)?;
        Ok(row.map(batch_status))
    }

    fn deposits(&self, count: Option<u64>) -> RpcResult<Vec<DepositStatus>> {
        let count = count.unwrap_or(100).min(MAX_DEPOSITS) as usize;
        let view = self.chain.view();
        let rows = view.reader.latest_deposits(count).map_err(RpcError::from)?;
        let status = |row| deposit_status(&view, row);
        Ok(rows.into_iter().map(status).collect::<Result<_, _>>()?)
    }

    fn deposit(&self, outpoint: OutPoint) -> RpcResult<Option<DepositStatus>> {
        let view = self.chain.view();
        let row = view.reader.deposit(&outpoint).map_err(RpcError::from)?;
        Ok(row.map(|row| deposit_status(&view, row)).transpose()?)
    }

    fn withdrawal(&self, index: u64) -> RpcResult<Option<WithdrawalStatus>> {
        let row = self.chain.view().reader.withdrawal(index).map_err(RpcError::from)?;
        Ok(self.withdrawal_statuses(row.into_iter().collect())?.pop())
    }

    fn assertion(&self, id: B256) -> RpcResult<Option<AssertionStatus>> {
        let all = assertions::list(&self.chain)?.1;
        Ok(all.into_iter().find(|assertion| assertion.id == id))
    }
}

impl View<'_> {
    fn position(
        &self,
        number: L2Number,
        heads: &Heads,
        start: L1Height,
    ) -> Result<BlockStatus, RpcError> {
        let info = self.info(number)?;
        let tip = self.reader.l1_tip()?.context("no L1 block is processed")?.height;
        let derived = self.derived_in(number, start, tip)?;
        let head = if number <= heads.settled.number {
            HeadKind::Settled
        } else if number <= heads.finalized.number {
            HeadKind::Finalized
        } else if derived.is_some() {
            HeadKind::Safe
        } else {
            HeadKind::Latest
        };
        let batch = match derived {
            Some((height, _)) => self.batch_of(number, height)?,
            None => None,
        };
        let mut covering = None;
        for row in self.reader.assertions()? {
            if row.agrees && self.reader.safe_at(row.l1.height)? >= number {
                covering = Some(row);
                break;
            }
        }
        Ok(BlockStatus {
            number: number.0,
            hash: self.hash(number)?,
            timestamp: info.cursor.timestamp,
            output_root: info.output_root,
            l1_origin: info.cursor.origin.into(),
            sequence_number: info.cursor.sequence_number,
            skipped: info.skipped,
            head,
            derived_in: derived.map(|(_, block)| block),
            confirmations: derived.map_or(0, |(height, _)| tip.since(height).saturating_add(1)),
            batch: batch.map(|batch| batch.index),
            assertion: covering.as_ref().map(|row| row.id),
            settles_at: covering.map(|row| row.deadline.0),
        })
    }

    /// The first Bitcoin block from which on an L2 block is derived, by bisection.
    fn derived_in(
        &self,
        number: L2Number,
        start: L1Height,
        tip: L1Height,
    ) -> Result<Option<(L1Height, L1BlockId)>, RpcError> {
        if self.reader.safe_at(tip)? < number {
            return Ok(None);
        }
        let (mut low, mut high) = (start.0, tip.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.reader.safe_at(L1Height(middle))? >= number {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let height = L1Height(high);
        let hash = self.reader.l1_row(height)?.context("no such L1 block")?.hash;
        Ok(Some((height, kedge_genesis::L1Ref { height, hash }.into())))
    }

    /// The batch that an L2 block derived in that Bitcoin block is from: batches complete in the order of
    /// their indices, so the first of that height is found by bisection.
    fn batch_of(&self, number: L2Number, height: L1Height) -> Result<Option<BatchRow>, RpcError> {
        let batches = self.reader.latest_batches(1)?.pop().map_or(0, |last| last.index + 1);
        let at = |index: u64| -> Result<BatchRow, RpcError> {
            Ok(self.reader.batch(index)?.context("batches have no gaps")?)
        };
        let (mut low, mut high) = (0, batches);
        while low < high {
            let middle = low + (high - low) / 2;
            if at(middle)?.l1.height < height { low = middle + 1 } else { high = middle }
        }
        for index in low..batches {
            let batch = at(index)?;
            if batch.l1.height != height {
                break;
            }
            if batch.blocks.is_some_and(|(first, last)| first <= number && number <= last) {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}
