//! The waiting transactions of one sender.

use super::{PooledTransaction, SenderState};
use alloy_consensus::Transaction;
use alloy_primitives::{Address, U256};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Instant};

/// The three sub-pools, from what is given up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SubPool {
    /// Waits for a nonce or for funds.
    Queued,
    /// Its turn, but it pays less than the base fee.
    BaseFee,
    /// The next block can take it.
    Pending,
}

/// What a transaction is worth to the pool: first the sub-pool, then what it pays above the base fee, then
/// the most that it can pay.
///
/// No block takes a transaction before those of its sender with lower nonces, so it is worth no more than the
/// cheapest of them. Otherwise one well-paid transaction at the end would keep any number of cheap ones in a
/// full pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    pub(super) sub_pool: SubPool,
    tip: u128,
    fee_cap: u128,
}

/// The last transaction of each sender in the order of eviction: the least worth, then the youngest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) worth: Worth,
    arrival: Reverse<u64>,
    pub(super) sender: Address,
}

/// The lowest fees among transactions, wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lowest {
    tip: u128,
    fee_cap: u128,
}

impl Lowest {
    const NONE: Self = Self { tip: u128::MAX, fee_cap: u128::MAX };

    fn with(self, tx: &PooledTransaction) -> Self {
        Self {
            tip: self.tip.min(tx.tx.priority_fee_or_price()),
            fee_cap: self.fee_cap.min(tx.tx.max_fee_per_gas()),
        }
    }

    fn worth(self, executable: bool, base_fee: u64) -> Worth {
        let base_fee = u128::from(base_fee);
        let sub_pool = match executable {
            false => SubPool::Queued,
            true if self.fee_cap < base_fee => SubPool::BaseFee,
            true => SubPool::Pending,
        };
        let tip = self.tip.min(self.fee_cap.saturating_sub(base_fee));
        Worth { sub_pool, tip, fee_cap: self.fee_cap }
    }
}

/// One sender: the account at the head and its transactions by nonce, none below the account's.
#[derive(Debug)]
pub(super) struct Sender {
    account: SenderState,
    txs: BTreeMap<u64, Arc<PooledTransaction>>,
    /// The nonce after the unbroken run from the account's on.
    next: u64,
    /// How many of that run the balance surely covers: those that can be executed.
    executable: usize,
    /// What they cost at most, wei.
    cost: U256,
    lowest: Lowest,
    /// The last time when nothing was queued, or a transaction became executable.
    since: Instant,
    /// Where the pool has listed it.
    pub(super) place: Option<Place>,
}

impl Sender {
    pub(super) fn new(account: SenderState, now: Instant) -> Self {
        Self {
            account,
            txs: BTreeMap::new(),
            next: account.nonce,
            executable: 0,
            cost: U256::ZERO,
            lowest: Lowest::NONE,
            since: now,
            place: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.txs.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.txs.len() - self.executable
    }

    pub(super) fn at(&self, nonce: u64) -> Option<&Arc<PooledTransaction>> {
        self.txs.get(&nonce)
    }

    pub(super) fn last(&self) -> Option<&Arc<PooledTransaction>> {
        self.txs.last_key_value().map(|(_, tx)| tx)
    }

    /// All transactions in the order of their nonces, the executable ones first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<PooledTransaction>> {
        self.txs.values()
    }

    /// The unbroken run from the account's nonce, as far as the balance surely covers it.
    pub(super) fn executable(&self) -> impl Iterator<Item = &Arc<PooledTransaction>> {
        self.txs.values().take(self.executable)
    }

    /// The nonce after the unbroken run.
    pub(super) const fn next_nonce(&self) -> u64 {
        self.next
    }

    /// The nonce after the executable transactions.
    pub(super) const fn executable_end(&self) -> u64 {
        self.account.nonce.saturating_add(self.executable as u64)
    }

    pub(super) const fn is_executable(&self, nonce: u64) -> bool {
        nonce < self.executable_end()
    }

    /// The most that the executable transactions cost, without the one at `nonce`.
    pub(super) fn cost_without(&self, nonce: u64) -> U256 {
        let own = self.txs.get(&nonce).filter(|_| self.is_executable(nonce));
        self.cost.saturating_sub(own.map_or(U256::ZERO, |tx| tx.cost()))
    }

    /// What `tx` would be worth here.
    pub(super) fn worth_of(&self, tx: &PooledTransaction, base_fee: u64) -> Worth {
        let before = self.txs.range(..tx.nonce()).fold(Lowest::NONE, |low, (_, tx)| low.with(tx));
        before.with(tx).worth(tx.nonce() <= self.executable_end(), base_fee)
    }

    /// The last transaction's place in the order of eviction; none without transactions.
    pub(super) fn place(&self, sender: Address, base_fee: u64) -> Option<Place> {
        let last = self.last()?;
        let worth = self.lowest.worth(self.queued() == 0, base_fee);
        Some(Place { worth, arrival: Reverse(last.arrival), sender })
    }

    /// Adds a transaction and takes over the account. Returns the one with its nonce that was there.
    pub(super) fn insert(
        &mut self,
        account: SenderState,
        tx: Arc<PooledTransaction>,
    ) -> Option<Arc<PooledTransaction>> {
        let continues = self.account == account
            && tx.nonce() == self.next
            && self.last().is_none_or(|last| last.nonce() < tx.nonce());
        self.account = account;
        let old = self.txs.insert(tx.nonce(), tx.clone());
        if continues {
            self.take(&tx, self.txs.len() - 1);
        } else {
            self.measure();
        }
        old
    }

    pub(super) fn remove(&mut self, nonce: u64) -> Option<Arc<PooledTransaction>> {
        let old = self.txs.remove(&nonce);
        self.measure();
        old
    }

    /// Removes what is not executable.
    pub(super) fn remove_queued(&mut self) -> Vec<Arc<PooledTransaction>> {
        let queued = self.txs.split_off(&self.executable_end());
        self.measure();
        queued.into_values().collect()
    }

    /// Takes over the account at a new head and removes what it made void: used nonces, and
    /// transactions that the balance cannot pay even alone.
    pub(super) fn update(&mut self, account: SenderState) -> Vec<Arc<PooledTransaction>> {
        self.account = account;
        let mut removed = Vec::new();
        self.txs.retain(|nonce, tx| {
            let keep =
                *nonce >= account.nonce && tx.cost() <= account.balance && !account.is_contract;
            if !keep {
                removed.push(tx.clone());
            }
            keep
        });
        self.measure();
        removed
    }

    /// The executable transactions from `nonce` on.
    pub(super) fn executable_from(&self, nonce: u64) -> Vec<Arc<PooledTransaction>> {
        self.executable().filter(|tx| tx.nonce() >= nonce).cloned().collect()
    }

    pub(super) const fn touch(&mut self, now: Instant) {
        self.since = now;
    }

    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Computes what is kept about the transactions from all of them.
    fn measure(&mut self) {
        self.next = self.account.nonce;
        self.executable = 0;
        self.cost = U256::ZERO;
        self.lowest = Lowest::NONE;
        let txs = std::mem::take(&mut self.txs);
        for (index, tx) in txs.values().enumerate() {
            self.take(tx, index);
        }
        self.txs = txs;
    }

    /// Counts the transaction at `index`, after those before it.
    fn take(&mut self, tx: &PooledTransaction, index: usize) {
        self.lowest = self.lowest.with(tx);
        if tx.nonce() != self.next {
            return;
        }
        self.next = self.next.saturating_add(1);
        let cost = self.cost.saturating_add(tx.cost());
        if self.executable == index && cost <= self.account.balance {
            self.executable += 1;
            self.cost = cost;
        }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&mut self) {
        let kept = (self.next, self.executable, self.cost, self.lowest);
        self.measure();
        assert_eq!(kept, (self.next, self.executable, self.cost, self.lowest));
        for (nonce, tx) in &self.txs {
            assert_eq!(*nonce, tx.nonce());
            assert!(*nonce >= self.account.nonce);
            assert!(tx.cost() <= self.account.balance);
        }
    }
}
