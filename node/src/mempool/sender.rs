//! The waiting transactions of one sender.

use super::{PooledTransaction, SenderState};
use alloy_primitives::{Address, B256, U256};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// Orders senders by how little is lost when the last transaction of each is evicted: queued before
/// executable, then the lowest fee cap, then the youngest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EvictionKey {
    executable: bool,
    pub(super) fee_cap: u128,
    arrival: Reverse<u64>,
    pub(super) sender: Address,
}

/// One sender: the account at the head and its transactions by nonce, none below the account's.
#[derive(Debug, Default)]
pub(super) struct Sender {
    pub(super) account: SenderState,
    pub(super) txs: BTreeMap<u64, Arc<PooledTransaction>>,
}

impl Sender {
    /// The unbroken run from the account's nonce, as far as the balance surely covers it.
    pub(super) fn executable(&self) -> impl Iterator<Item = &Arc<PooledTransaction>> {
        let balance = self.account.balance;
        let mut expected = Some(self.account.nonce);
        let mut spent = U256::ZERO;
        self.txs
            .values()
            .take_while(move |tx| {
                let in_order = expected == Some(tx.nonce());
                expected = tx.nonce().checked_add(1);
                in_order
            })
            .take_while(move |tx| {
                spent = spent.saturating_add(tx.cost());
                spent <= balance
            })
    }

    /// The nonce after the unbroken run.
    pub(super) fn next_nonce(&self) -> u64 {
        let mut next = self.account.nonce;
        for nonce in self.txs.keys() {
            if *nonce != next {
                break;
            }
            next = next.saturating_add(1);
        }
        next
    }

    /// What all transactions cost at most, without the one at `nonce`.
    pub(super) fn cost_without(&self, nonce: u64) -> U256 {
        self.txs
            .iter()
            .filter(|(other, _)| **other != nonce)
            .fold(U256::ZERO, |sum, (_, tx)| sum.saturating_add(tx.cost()))
    }

    /// The last transaction's place in the order of eviction; none without transactions.
    pub(super) fn eviction_key(&self, sender: Address) -> Option<EvictionKey> {
        let (nonce, last) = self.txs.last_key_value()?;
        Some(EvictionKey {
            executable: *nonce < self.next_nonce(),
            fee_cap: alloy_consensus::Transaction::max_fee_per_gas(&last.tx),
            arrival: Reverse(last.arrival),
            sender,
        })
    }

    /// Takes over the account at a new head and removes what it made void: used nonces, and
    /// transactions that the balance cannot pay even alone.
    pub(super) fn update(&mut self, account: SenderState) -> Vec<B256> {
        self.account = account;
        let mut removed = Vec::new();
        self.txs.retain(|nonce, tx| {
            let keep =
                *nonce >= account.nonce && tx.cost() <= account.balance && !account.is_contract;
            if !keep {
                removed.push(tx.hash);
            }
            keep
        });
        removed
    }
}
