//! All senders together: limits, replacement, eviction.

use super::{
    BestTransactions, MempoolConfig, PoolError, PoolStatus, PooledTransaction, SenderState,
    sender::{EvictionKey, Sender},
};
use alloy_consensus::Transaction;
use alloy_primitives::{Address, B256};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// What an insertion that was checked is going to displace.
#[derive(Debug, Default)]
pub(super) struct Plan {
    evict: Vec<B256>,
}

#[derive(Debug)]
pub(super) struct Pool {
    config: MempoolConfig,
    senders: HashMap<Address, Sender>,
    by_hash: HashMap<B256, (Address, u64)>,
    tails: BTreeSet<EvictionKey>,
    bytes: usize,
    arrivals: u64,
}

impl Pool {
    pub(super) fn new(config: MempoolConfig) -> Self {
        Self {
            config,
            senders: HashMap::new(),
            by_hash: HashMap::new(),
            tails: BTreeSet::new(),
            bytes: 0,
            arrivals: 0,
        }
    }

    pub(super) fn get(&self, hash: &B256) -> Option<Arc<PooledTransaction>> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        self.senders.get(sender)?.txs.get(nonce).cloned()
    }

    pub(super) fn has_sender(&self, sender: &Address) -> bool {
        self.senders.contains_key(sender)
    }

    pub(super) fn senders(&self) -> Vec<Address> {
        self.senders.keys().copied().collect()
    }

    pub(super) fn next_nonce(&self, sender: &Address) -> Option<u64> {
        self.senders.get(sender).map(Sender::next_nonce)
    }

    pub(super) fn is_executable(&self, tx: &PooledTransaction) -> bool {
        self.senders.get(&tx.sender).is_some_and(|sender| tx.nonce() < sender.next_nonce())
    }

    /// Checks a transaction against the others. Changes nothing.
    pub(super) fn check(
        &self,
        tx: &PooledTransaction,
        account: SenderState,
    ) -> Result<Plan, PoolError> {
        let empty = Sender::default();
        let sender = self.senders.get(&tx.sender).unwrap_or(&empty);
        let queued = sender.cost_without(tx.nonce());
        let replaced = sender.txs.get(&tx.nonce());
        if let Some(old) = replaced {
            let percent = 100_u128.saturating_add(self.config.replacement_percent);
            let raised = |old: u128, new: u128| {
                new > old && new.saturating_mul(100) >= old.saturating_mul(percent)
            };
            if !raised(old.tx.max_fee_per_gas(), tx.tx.max_fee_per_gas())
                || !raised(old.tx.priority_fee_or_price(), tx.tx.priority_fee_or_price())
            {
                return Err(PoolError::ReplacementUnderpriced);
            }
        } else if sender.txs.len() >= self.config.max_per_sender {
            return Err(PoolError::SenderLimit);
        }
        let cost = tx.cost();
        if queued.saturating_add(cost) > account.balance {
            return Err(PoolError::InsufficientFundsForAll {
                balance: account.balance,
                queued,
                cost,
            });
        }
        self.room_for(tx, replaced)
    }

    /// Which last transactions of other senders give way.
    fn room_for(
        &self,
        tx: &PooledTransaction,
        replaced: Option<&Arc<PooledTransaction>>,
    ) -> Result<Plan, PoolError> {
        let mut plan = Plan::default();
        let mut count = self.by_hash.len() + usize::from(replaced.is_none());
        let mut bytes = self.bytes + tx.encoded.len() - replaced.map_or(0, |old| old.encoded.len());
        let mut tails = self.tails.iter().filter(|key| key.sender != tx.sender);
        while count > self.config.max_transactions || bytes > self.config.max_bytes {
            let key = tails.next().ok_or(PoolError::Full)?;
            if key.fee_cap >= tx.tx.max_fee_per_gas() {
                return Err(PoolError::Full);
            }
            let last = self.senders.get(&key.sender).and_then(|s| s.txs.last_key_value());
            let (_, last) = last.ok_or(PoolError::Full)?;
            plan.evict.push(last.hash);
            count -= 1;
            bytes -= last.encoded.len();
        }
        Ok(plan)
    }

    /// Carries out a checked insertion and returns what it displaced.
    pub(super) fn insert(
        &mut self,
        mut tx: PooledTransaction,
        account: SenderState,
        plan: Plan,
    ) -> (Arc<PooledTransaction>, Vec<B256>) {
        let mut removed = plan.evict;
        for hash in &removed {
            self.remove(hash);
        }
        let nonce = tx.nonce();
        let address = tx.sender;
        self.arrivals += 1;
        tx.arrival = self.arrivals;
        let tx = Arc::new(tx);
        self.unlist(address);
        self.bytes += tx.encoded.len();
        self.by_hash.insert(tx.hash, (address, nonce));
        let sender = self.senders.entry(address).or_default();
        sender.account = account;
        if let Some(old) = sender.txs.insert(nonce, tx.clone()) {
            self.bytes -= old.encoded.len();
            self.by_hash.remove(&old.hash);
            removed.push(old.hash);
        }
        self.list(address);
        (tx, removed)
    }

    pub(super) fn remove(&mut self, hash: &B256) -> bool {
        let Some((address, nonce)) = self.by_hash.remove(hash) else { return false };
        self.unlist(address);
        if let Some(sender) = self.senders.get_mut(&address)
            && let Some(old) = sender.txs.remove(&nonce)
        {
            self.bytes -= old.encoded.len();
        }
        self.list(address);
        true
    }

    pub(super) fn update_sender(
        &mut self,
        address: Address,
        account: SenderState,
        removed: &mut Vec<B256>,
    ) {
        self.unlist(address);
        if let Some(sender) = self.senders.get_mut(&address) {
            let before: usize = sender.txs.values().map(|tx| tx.encoded.len()).sum();
            let void = sender.update(account);
            let after: usize = sender.txs.values().map(|tx| tx.encoded.len()).sum();
            self.bytes -= before - after;
            for hash in &void {
                self.by_hash.remove(hash);
            }
            removed.extend(void);
        }
        self.list(address);
    }

    /// Takes a sender out of the order of eviction, before it changes.
    fn unlist(&mut self, address: Address) {
        if let Some(key) = self.senders.get(&address).and_then(|s| s.eviction_key(address)) {
            self.tails.remove(&key);
        }
    }

    /// Puts a sender back into the order of eviction after it changed; forgets an empty one.
    fn list(&mut self, address: Address) {
        match self.senders.get(&address).map(|sender| sender.eviction_key(address)) {
            Some(Some(key)) => {
                self.tails.insert(key);
            }
            Some(None) => {
                self.senders.remove(&address);
            }
            None => {}
        }
    }

    pub(super) fn best(&self, base_fee: u64) -> BestTransactions {
        BestTransactions::new(
            base_fee,
            self.senders.values().map(|sender| sender.executable().cloned().collect()),
        )
    }

    pub(super) fn status(&self, base_fee: u64) -> PoolStatus {
        let mut status = PoolStatus::default();
        for sender in self.senders.values() {
            let run = sender.executable().count();
            let pays = sender.executable().take_while(|tx| tx.tip(base_fee).is_some()).count();
            status.pending += pays;
            status.base_fee += run - pays;
            status.queued += sender.txs.len() - run;
        }
        status
    }

    pub(super) fn content(
        &self,
        base_fee: u64,
        only: Option<Address>,
    ) -> Vec<(bool, Arc<PooledTransaction>)> {
        let mut content = Vec::new();
        for (address, sender) in &self.senders {
            if only.is_some_and(|only| only != *address) {
                continue;
            }
            let run = sender.executable().take_while(|tx| tx.tip(base_fee).is_some()).count();
            content.extend(sender.txs.values().enumerate().map(|(at, tx)| (at < run, tx.clone())));
        }
        content
    }

    pub(super) fn find(&self, sender: &Address, nonce: u64) -> Option<Arc<PooledTransaction>> {
        self.senders.get(sender)?.txs.get(&nonce).cloned()
    }

    /// Recomputes what is kept incrementally.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let all = || self.senders.values().flat_map(|sender| sender.txs.values());
        assert_eq!(all().count(), self.by_hash.len());
        assert_eq!(all().map(|tx| tx.encoded.len()).sum::<usize>(), self.bytes);
        assert_eq!(self.tails.len(), self.senders.len());
        assert!(self.by_hash.len() <= self.config.max_transactions);
        for (address, sender) in &self.senders {
            let key = sender.eviction_key(*address).expect("no sender without transactions");
            assert!(self.tails.contains(&key));
            assert!(sender.txs.len() <= self.config.max_per_sender);
            for (nonce, tx) in &sender.txs {
                assert_eq!((*nonce, *address), (tx.nonce(), tx.sender));
                assert!(*nonce >= sender.account.nonce);
                assert!(tx.cost() <= sender.account.balance);
            }
        }
    }
}
