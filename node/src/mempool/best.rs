//! The order in which a block takes transactions.

use super::PooledTransaction;
use alloy_primitives::Address;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    sync::Arc,
    vec,
};

/// A snapshot of what the next block can take, best first: the highest tip, then the earliest
/// arrival, and each sender's in nonce order.
#[derive(Debug)]
pub struct BestTransactions {
    base_fee: u64,
    runs: Vec<vec::IntoIter<Arc<PooledTransaction>>>,
    /// The next transaction of each run: tip, arrival, run.
    heads: BinaryHeap<(u128, Reverse<u64>, usize)>,
    skipped: HashSet<Address>,
}

impl BestTransactions {
    pub(super) fn new(
        base_fee: u64,
        runs: impl IntoIterator<Item = Vec<Arc<PooledTransaction>>>,
    ) -> Self {
        let mut best = Self {
            base_fee,
            runs: runs.into_iter().map(Vec::into_iter).collect(),
            heads: BinaryHeap::new(),
            skipped: HashSet::new(),
        };
        for run in 0..best.runs.len() {
            best.queue(run);
        }
        best
    }

    fn queue(&mut self, run: usize) {
        if let Some(tx) = self.runs.get(run).and_then(|txs| txs.as_slice().first())
            && let Some(tip) = tx.tip(self.base_fee)
        {
            self.heads.push((tip, Reverse(tx.arrival), run));
        }
    }

    /// Yields nothing more of this sender: one of its transactions did not fit, so later nonces
    /// cannot be executed.
    pub fn skip_sender(&mut self, sender: Address) {
        self.skipped.insert(sender);
    }
}

impl Iterator for BestTransactions {
    type Item = Arc<PooledTransaction>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((_, _, run)) = self.heads.pop() {
            let Some(tx) = self.runs.get_mut(run).and_then(Iterator::next) else { continue };
            if self.skipped.contains(&tx.sender) {
                continue;
            }
            self.queue(run);
            return Some(tx);
        }
        None
    }
}
