//! Witnesses that nobody needs any more.
//!
//! A reveal carries what it publishes in its witness, almost 400 kB at most. The wallet knows reveals, since they
//! pay change to it, and would keep all that was ever published. A transaction's id does not depend on its
//! witness, and coins are found by inputs and outputs alone.

use super::Inner;
use bdk_wallet::chain::{BlockId, TxUpdate};
use bdk_wallet::{ChangeSet, Update};
use bitcoin::{Transaction, Txid, Witness};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks on top of a transaction after which its long witnesses go: no reorganisation is expected to take so
/// many back. One that did would leave it to whoever has the transaction to have it mined again.
const DEEP: u32 = 100;

/// Bytes of a witness that is left as it is: signatures and scripts of payments have less.
const SHORT: usize = 1_000;

impl Inner {
    /// Takes the long witnesses out of transactions that are deep in the chain. The change is staged.
    pub(super) fn slim(&mut self) {
        let chain = self.bdk.latest_checkpoint();
        let is_deep = |block: BlockId| {
            block.height.saturating_add(DEEP) <= chain.height()
                && chain.get(block.height).is_some_and(|it| it.hash() == block.hash)
        };
        let long = self.bdk.tx_graph().full_txs().filter(|tx| {
            is_long(&tx.tx) && tx.anchors.iter().any(|anchor| is_deep(anchor.block_id))
        });
        let mut update = TxUpdate::default();
        update.txs = long.map(|tx| Arc::new(without_long_witnesses(&tx.tx))).collect();
        if update.txs.is_empty() {
            return;
        }
        // Of two witnesses of the same input, BDK keeps the shorter one that is not empty.
        if let Err(error) = self.bdk.apply_update(Update { tx_update: update, ..Update::default() })
        {
            tracing::warn!(%error, "long witnesses stay in the wallet");
        }
    }
}

fn is_long(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| input.witness.size() > SHORT)
}

fn without_long_witnesses(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    for input in tx.input.iter_mut().filter(|input| input.witness.size() > SHORT) {
        input.witness = Witness::from_slice(&[[]; 1]);
    }
    tx
}

/// Leaves of each transaction the one with the shortest witness. True if there were others.
pub(super) fn keep_shortest(all: &mut ChangeSet) -> bool {
    let count = all.tx_graph.txs.len();
    let mut shortest: BTreeMap<Txid, Arc<Transaction>> = BTreeMap::new();
    for tx in std::mem::take(&mut all.tx_graph.txs) {
        let kept = shortest.entry(tx.compute_txid()).or_insert_with(|| tx.clone());
        if tx.total_size() < kept.total_size() {
            *kept = tx;
        }
    }
    all.tx_graph.txs = shortest.into_values().collect();
    all.tx_graph.txs.len() < count
}
