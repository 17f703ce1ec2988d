//! Following the chain, block by block, and keeping our own transactions in the mempool.

use super::{Inner, TxPlace, Wallet, WalletError};
use crate::l1::{Bitcoin, Broadcast};
use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, ChainPosition, CheckPoint};
use bitcoin::Transaction;
use kedge_genesis::L1Height;
use std::collections::BTreeSet;

/// Blocks between two writes while catching up.
const BLOCKS_PER_WRITE: u32 = 200;

impl Wallet {
    /// Follows the node to its best block, through reorgs. Answers its height.
    ///
    /// # Errors
    /// When the node does not answer or the storage fails; what was seen before is kept.
    pub async fn sync(&self, bitcoin: &dyn Bitcoin) -> Result<L1Height, WalletError> {
        let _one = self.syncing.lock().await;
        let mut base = self.base(bitcoin).await?;
        let mut unwritten = 0;
        loop {
            let height = L1Height(base.height).next();
            let Some(hash) = bitcoin.block_hash(height).await? else { break };
            let block = bitcoin.block(&hash).await?;
            if block.header.prev_blockhash != base.hash {
                // A reorg overtook us.
                base = self.base(bitcoin).await?;
                continue;
            }
            let mut inner = self.inner.lock();
            inner
                .bdk
                .apply_block_connected_to(&block, height.0, base)
                .map_err(|_| WalletError::Disconnected { height })?;
            base = BlockId { height: height.0, hash };
            unwritten += 1;
            if unwritten >= BLOCKS_PER_WRITE {
                self.persist(&mut inner, Vec::new())?;
                unwritten = 0;
            }
        }
        let mut inner = self.inner.lock();
        inner.slim();
        self.persist(&mut inner, Vec::new())?;
        Ok(L1Height(base.height))
    }

    /// The last block that both the wallet and the node's best chain have. A wallet that has seen no
    /// block starts before its birthday.
    async fn base(&self, bitcoin: &dyn Bitcoin) -> Result<BlockId, WalletError> {
        let known = self.inner.lock().bdk.latest_checkpoint();
        let fresh = known.height() == 0;
        for checkpoint in known.iter() {
            let height = L1Height(checkpoint.height());
            if bitcoin.block_hash(height).await? == Some(checkpoint.hash()) {
                let start = self.birthday.prev().filter(|start| fresh && start.0 > 0);
                let Some(start) = start else { return Ok(checkpoint.block_id()) };
                let Some(hash) = bitcoin.block_hash(start).await? else {
                    return Ok(checkpoint.block_id());
                };
                let block = BlockId { height: start.0, hash };
                let chain: CheckPoint = checkpoint
                    .push(block)
                    .map_err(|_| WalletError::Disconnected { height: start })?;
                let update = Update { chain: Some(chain), ..Update::default() };
                self.inner
                    .lock()
                    .bdk
                    .apply_update(update)
                    .map_err(|_| WalletError::Disconnected { height: start })?;
                return Ok(block);
            }
        }
        Err(WalletError::Disconnected { height: L1Height(0) })
    }

    /// Hands every unconfirmed transaction of ours that the mempool lost to the node again, parents
    /// first, and gives up those whose inputs are gone for good. Answers those it gave up.
    ///
    /// # Errors
    /// When the node does not answer or the storage fails.
    pub async fn rebroadcast(
        &self,
        bitcoin: &dyn Bitcoin,
    ) -> Result<Vec<Transaction>, WalletError> {
        let mut given_up = Vec::new();
        let waiting = self.inner.lock().unconfirmed();
        for tx in waiting {
            let txid = tx.compute_txid();
            if bitcoin.in_mempool(&txid).await? {
                continue;
            }
            match bitcoin.broadcast(&tx).await? {
                Broadcast::Accepted => tracing::info!(%txid, "broadcast again"),
                Broadcast::AlreadyKnown => {}
                Broadcast::Rejected { code, reason } => {
                    tracing::debug!(%txid, code, reason, "a transaction of ours is refused");
                    if code == crate::l1::MISSING_INPUTS
                        && self.place(txid) == Some(TxPlace::Unconfirmed)
                        && self.inputs_gone(bitcoin, &tx).await?
                    {
                        tracing::warn!(%txid, reason, "a transaction of ours has lost its inputs");
                        self.forget(txid)?;
                        given_up.push(tx);
                    }
                }
            }
        }
        Ok(given_up)
    }

    /// Whether an input neither exists on the chain nor comes from a transaction that waits.
    pub(crate) async fn inputs_gone(
        &self,
        bitcoin: &dyn Bitcoin,
        tx: &Transaction,
    ) -> Result<bool, WalletError> {
        for input in &tx.input {
            let outpoint = &input.previous_output;
            let waits = self.place(outpoint.txid) == Some(TxPlace::Unconfirmed);
            if !waits && bitcoin.tx_out(outpoint, false).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Inner {
    /// Our unconfirmed transactions, parents first.
    fn unconfirmed(&self) -> Vec<Transaction> {
        let mut waiting: Vec<Transaction> = self
            .bdk
            .transactions()
            .filter(|tx| matches!(tx.chain_position, ChainPosition::Unconfirmed { .. }))
            .map(|tx| tx.tx_node.tx.as_ref().clone())
            .collect();
        // BDK's order is that of a hash map.
        waiting.sort_by_cached_key(Transaction::compute_txid);
        let mut ordered = Vec::new();
        let mut left: BTreeSet<_> = waiting.iter().map(Transaction::compute_txid).collect();
        while !waiting.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|tx| {
                tx.input.iter().all(|input| !left.contains(&input.previous_output.txid))
            });
            if ready.is_empty() {
                break;
            }
            for tx in &ready {
                left.remove(&tx.compute_txid());
            }
            ordered.extend(ready);
            waiting = rest;
        }
        ordered
    }
}
