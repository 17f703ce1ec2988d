//! `txpool_*`, in go-ethereum's format.

use super::{block::pending_transaction, chain::Chain, error::RpcError, submit::Submission};
use crate::mempool::{PoolStatus, PooledTransaction};
use alloy_consensus::Transaction as _;
use alloy_primitives::Address;
use alloy_rpc_types_txpool::{TxpoolContent, TxpoolContentFrom, TxpoolStatus};
use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use op_alloy_rpc_types::Transaction;
use std::{collections::BTreeMap, sync::Arc};

/// `txpool_*`. *Pending* are the transactions that the next block can take, *queued* those that wait for
/// a nonce, for funds or for a lower base fee. All is empty on a node that is not the sequencer.
#[rpc(server, namespace = "txpool")]
pub trait TxPoolApi {
    /// Every waiting transaction by sender and nonce.
    #[method(name = "content", blocking)]
    fn content(&self) -> RpcResult<TxpoolContent<Transaction>>;

    /// One sender's waiting transactions by nonce.
    #[method(name = "contentFrom", blocking)]
    fn content_from(&self, sender: Address) -> RpcResult<TxpoolContentFrom<Transaction>>;

    /// Every waiting transaction in a line of text.
    #[method(name = "inspect", blocking)]
    fn inspect(&self) -> RpcResult<TxpoolContent<String>>;

    /// How many there are.
    #[method(name = "status", blocking)]
    fn status(&self) -> RpcResult<TxpoolStatus>;
}

/// Implements [`TxPoolApiServer`] on the mempool.
#[derive(Clone, Debug)]
pub(super) struct TxPool {
    pub(super) chain: Arc<Chain>,
    pub(super) submission: Submission,
}

/// A transaction in go-ethereum's line of text.
fn summary(tx: &PooledTransaction) -> String {
    let tx = &tx.tx;
    let to = tx.to().map_or("contract creation".to_owned(), |to| to.to_checksum(None));
    let (value, gas, price) = (tx.value(), tx.gas_limit(), tx.max_fee_per_gas());
    format!("{to}: {value} wei + {gas} gas × {price} wei")
}

/// Transactions by sender and nonce.
type ByNonce<T> = BTreeMap<Address, BTreeMap<String, T>>;

impl TxPool {
    /// What `show` makes of the pending and of the queued transactions.
    fn all<T>(
        &self,
        only: Option<Address>,
        show: impl Fn(&PooledTransaction) -> T,
    ) -> Result<(ByNonce<T>, ByNonce<T>), RpcError> {
        let (mut pending, mut queued) = (ByNonce::new(), ByNonce::new());
        if let Some(mempool) = self.submission.mempool() {
            let base_fee = self.chain.view().next_base_fee()?;
            for (is_pending, tx) in mempool.content(base_fee, only) {
                let part = if is_pending { &mut pending } else { &mut queued };
                let shown = show(&tx);
                part.entry(tx.sender).or_default().insert(tx.nonce().to_string(), shown);
            }
        }
        Ok((pending, queued))
    }
}

impl TxPoolApiServer for TxPool {
    fn content(&self) -> RpcResult<TxpoolContent<Transaction>> {
        let (pending, queued) = self.all(None, pending_transaction)?;
        Ok(TxpoolContent { pending, queued })
    }

    fn content_from(&self, sender: Address) -> RpcResult<TxpoolContentFrom<Transaction>> {
        let (pending, queued) = self.all(Some(sender), pending_transaction)?;
        Ok(TxpoolContent { pending, queued }.remove_from(&sender))
    }

    fn inspect(&self) -> RpcResult<TxpoolContent<String>> {
        let (pending, queued) = self.all(None, summary)?;
        Ok(TxpoolContent { pending, queued })
    }

    fn status(&self) -> RpcResult<TxpoolStatus> {
        let status = match self.submission.mempool() {
            Some(mempool) => mempool.status(self.chain.view().next_base_fee()?),
            None => PoolStatus::default(),
        };
        let (pending, queued) = (status.pending, status.base_fee + status.queued);
        Ok(TxpoolStatus { pending: pending as u64, queued: queued as u64 })
    }
}
