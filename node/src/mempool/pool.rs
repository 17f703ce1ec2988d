//! All senders together: limits, replacement, eviction.

use super::{
    BestTransactions, MempoolConfig, PoolError, PoolStatus, PooledTransaction, SenderState,
    sender::{Place, Sender, SubPool},
};
use alloy_consensus::Transaction;
use alloy_primitives::{Address, B256, U256};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

/// How a transaction comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// For the first time.
    New,
    /// From a block that was taken back or from the journal. It was admitted once, so only the limits of the
    /// whole pool hold, and what the balance does not cover beside others waits.
    Again,
}

/// What an insertion that was checked is going to displace.
#[derive(Debug, Default)]
pub(super) struct Plan {
    evict: Vec<B256>,
}

/// What an insertion did.
#[derive(Debug)]
pub(super) struct Inserted {
    /// What it displaced.
    pub(super) removed: Vec<B256>,
    /// What can be executed now and could not before, the inserted one included.
    pub(super) promoted: Vec<Arc<PooledTransaction>>,
}

/// The balance has to cover a transaction besides all that can be executed.
fn check_funds(
    tx: &PooledTransaction,
    account: SenderState,
    sender: &Sender,
) -> Result<(), PoolError> {
    let (queued, cost, balance) = (sender.cost_without(tx.nonce()), tx.cost(), account.balance);
    if queued.saturating_add(cost) > balance {
        return Err(PoolError::InsufficientFundsForAll { balance, queued, cost });
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct Pool {
    config: MempoolConfig,
    /// Base fee of the next block, wei per gas, by which transactions are ranked.
    base_fee: u64,
    senders: HashMap<Address, Sender>,
    by_hash: HashMap<B256, (Address, u64)>,
    /// The last transaction of every sender.
    tails: BTreeSet<Place>,
    /// How many transactions carry an EIP-7702 authorisation of an account.
    authorities: HashMap<Address, usize>,
    bytes: usize,
    queued: usize,
    arrivals: u64,
}

impl Pool {
    pub(super) fn new(config: MempoolConfig) -> Self {
        Self {
            base_fee: config.min_base_fee,
            config,
            senders: HashMap::new(),
            by_hash: HashMap::new(),
            tails: BTreeSet::new(),
            authorities: HashMap::new(),
            bytes: 0,
            queued: 0,
            arrivals: 0,
        }
    }

    /// Ranks transactions by this base fee from now on.
    pub(super) fn set_base_fee(&mut self, base_fee: u64) {
        if base_fee == self.base_fee {
            return;
        }
        self.base_fee = base_fee;
        self.tails.clear();
        for (address, sender) in &mut self.senders {
            sender.place = sender.place(*address, base_fee);
            self.tails.extend(sender.place);
        }
    }

    pub(super) const fn base_fee(&self) -> u64 {
        self.base_fee
    }

    pub(super) fn contains(&self, hash: &B256) -> bool {
        self.by_hash.contains_key(hash)
    }

    pub(super) fn get(&self, hash: &B256) -> Option<Arc<PooledTransaction>> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        self.senders.get(sender)?.at(*nonce).cloned()
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

    /// Checks a transaction against the others. Changes nothing.
    pub(super) fn check(
        &self,
        tx: &PooledTransaction,
        account: SenderState,
        arrival: Arrival,
    ) -> Result<Plan, PoolError> {
        let empty = Sender::new(account, Instant::now());
        let sender = self.senders.get(&tx.sender).unwrap_or(&empty);
        let replaced = sender.at(tx.nonce());
        if arrival == Arrival::New {
            check_funds(tx, account, sender)?;
            self.check_delegation(tx, account, sender)?;
        }
        if let Some(old) = replaced {
            self.check_replacement(old, tx)?;
        } else if arrival == Arrival::New {
            self.check_sender_limits(tx, sender)?;
        }
        self.room_for(tx, sender, replaced)
    }

    /// An account that is delegated (EIP-7702), or about to be, can be emptied by others. It has one
    /// transaction here at a time, lest they void many at once.
    fn check_delegation(
        &self,
        tx: &PooledTransaction,
        account: SenderState,
        sender: &Sender,
    ) -> Result<(), PoolError> {
        let many = |authority| self.senders.get(authority).is_some_and(|other| other.len() > 1);
        if tx.authorities.iter().any(many) {
            return Err(PoolError::AuthorityReserved);
        }
        if !account.is_delegated && !self.authorities.contains_key(&tx.sender) {
            return Ok(());
        }
        if sender.executable().next().is_none() {
            return match tx.nonce() == account.nonce {
                true => Ok(()),
                false => Err(PoolError::GappedFromDelegated),
            };
        }
        if sender.at(tx.nonce()).is_some() && sender.is_executable(tx.nonce()) {
            return Ok(());
        }
        Err(PoolError::InFlightLimit)
    }

    fn check_replacement(
        &self,
        old: &PooledTransaction,
        new: &PooledTransaction,
    ) -> Result<(), PoolError> {
        let percent = 100_u128.saturating_add(self.config.limits.replacement_percent);
        // Wide enough for any fee, and rounded down as go-ethereum does.
        let raised = |old: u128, new: u128| {
            let threshold = U256::from(old) * U256::from(percent) / U256::from(100);
            new > old && U256::from(new) >= threshold
        };
        if raised(old.tx.max_fee_per_gas(), new.tx.max_fee_per_gas())
            && raised(old.tx.priority_fee_or_price(), new.tx.priority_fee_or_price())
        {
            Ok(())
        } else {
            Err(PoolError::ReplacementUnderpriced)
        }
    }

    fn check_sender_limits(
        &self,
        tx: &PooledTransaction,
        sender: &Sender,
    ) -> Result<(), PoolError> {
        let limits = &self.config.limits;
        let queues = tx.nonce() > sender.executable_end();
        if sender.len() >= limits.max_per_sender
            || queues && sender.queued() >= limits.max_queued_per_sender
        {
            return Err(PoolError::SenderLimit { pooled: sender.len() });
        }
        Ok(())
    }

    /// Which last transactions of other senders give way: those that are worth the least, as long as they
    /// are worth less than `tx`.
    fn room_for(
        &self,
        tx: &PooledTransaction,
        sender: &Sender,
        replaced: Option<&Arc<PooledTransaction>>,
    ) -> Result<Plan, PoolError> {
        let limits = &self.config.limits;
        let mut plan = Plan::default();
        let mut count = self.by_hash.len() + usize::from(replaced.is_none());
        let mut bytes = self.bytes + tx.encoded.len() - replaced.map_or(0, |old| old.encoded.len());
        // One that closes a gap leaves fewer of them.
        let queues = replaced.is_none() && tx.nonce() > sender.executable_end();
        let mut queued = self.queued + usize::from(queues);
        let too_many = |count, bytes, queued| {
            count > limits.max_transactions
                || bytes > limits.max_bytes
                || queues && queued > limits.max_queued
        };
        if !too_many(count, bytes, queued) {
            return Ok(plan);
        }
        let worth = sender.worth_of(tx, self.base_fee);
        let mut tails = self.tails.iter().filter(|place| place.sender != tx.sender);
        while too_many(count, bytes, queued) {
            let place = tails.next().ok_or(PoolError::Full)?;
            if place.worth >= worth {
                return Err(match worth.sub_pool {
                    SubPool::Queued if place.worth.sub_pool > SubPool::Queued => {
                        PoolError::FutureReplacesPending
                    }
                    _ => PoolError::UnderpricedForFull,
                });
            }
            let last = self.senders.get(&place.sender).and_then(Sender::last);
            let last = last.ok_or(PoolError::Full)?;
            plan.evict.push(last.hash);
            count -= 1;
            bytes -= last.encoded.len();
            queued -= usize::from(place.worth.sub_pool == SubPool::Queued);
        }
        Ok(plan)
    }

    /// Carries out a checked insertion.
    pub(super) fn insert(
        &mut self,
        mut tx: PooledTransaction,
        account: SenderState,
        plan: Plan,
    ) -> Inserted {
        let now = Instant::now();
        let mut removed = plan.evict;
        for hash in &removed {
            self.remove(hash);
        }
        let (nonce, address) = (tx.nonce(), tx.sender);
        self.arrivals += 1;
        tx.arrival = self.arrivals;
        let tx = Arc::new(tx);
        self.enter(&tx);
        self.unlist(address);
        let sender = self.senders.entry(address).or_insert_with(|| Sender::new(account, now));
        let (before, waited) = (sender.executable_end(), sender.queued() > 0);
        let old = sender.insert(account, tx.clone());
        let mut promoted = sender.executable_from(before);
        if nonce < before && sender.is_executable(nonce) {
            promoted.insert(0, tx);
        }
        if !promoted.is_empty() || !waited {
            sender.touch(now);
        }
        if let Some(old) = old {
            self.leave(&old);
            removed.push(old.hash);
        }
        self.list(address);
        Inserted { removed, promoted }
    }

    /// Counts a transaction in.
    fn enter(&mut self, tx: &PooledTransaction) {
        self.bytes += tx.encoded.len();
        self.by_hash.insert(tx.hash, (tx.sender, tx.nonce()));
        for authority in &tx.authorities {
            *self.authorities.entry(*authority).or_default() += 1;
        }
    }

    /// Counts a transaction out.
    fn leave(&mut self, tx: &PooledTransaction) {
        self.bytes -= tx.encoded.len();
        self.by_hash.remove(&tx.hash);
        for authority in &tx.authorities {
            if let Some(count) = self.authorities.get_mut(authority) {
                *count -= 1;
                if *count == 0 {
                    self.authorities.remove(authority);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, hash: &B256) -> bool {
        let Some((address, nonce)) = self.by_hash.get(hash).copied() else { return false };
        self.change(address, |sender| sender.remove(nonce).into_iter().collect());
        true
    }

    /// Takes over an account at a new head. Returns what can be executed now and could not before.
    pub(super) fn update_sender(
        &mut self,
        address: Address,
        account: SenderState,
        removed: &mut Vec<B256>,
    ) -> Vec<Arc<PooledTransaction>> {
        let Some(sender) = self.senders.get(&address) else { return Vec::new() };
        let before = sender.executable_end();
        removed.extend(self.change(address, |sender| sender.update(account)));
        let Some(sender) = self.senders.get_mut(&address) else { return Vec::new() };
        let promoted = sender.executable_from(before);
        if !promoted.is_empty() {
            sender.touch(Instant::now());
        }
        promoted
    }

    /// Removes what has been queued for longer than it may be.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<B256> {
        let lifetime = self.config.limits.queued_lifetime;
        let old: Vec<Address> = self
            .senders
            .iter()
            .filter(|(_, sender)| sender.queued() > 0)
            .filter(|(_, sender)| now.saturating_duration_since(sender.since()) > lifetime)
            .map(|(address, _)| *address)
            .collect();
        old.into_iter().flat_map(|address| self.change(address, Sender::remove_queued)).collect()
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> Vec<B256> {
        let hashes = self.by_hash.keys().copied().collect();
        *self = Self { arrivals: self.arrivals, ..Self::new(self.config.clone()) };
        hashes
    }

    /// Has `remove` take transactions out of a sender, and counts them out.
    fn change(
        &mut self,
        address: Address,
        remove: impl FnOnce(&mut Sender) -> Vec<Arc<PooledTransaction>>,
    ) -> Vec<B256> {
        self.unlist(address);
        let mut removed = Vec::new();
        if let Some(sender) = self.senders.get_mut(&address) {
            let waited = sender.queued() > 0;
            removed = remove(sender);
            if !waited {
                sender.touch(Instant::now());
            }
        }
        for tx in &removed {
            self.leave(tx);
        }
        self.list(address);
        removed.iter().map(|tx| tx.hash).collect()
    }

    /// Takes a sender out of the order of eviction, before it changes.
    fn unlist(&mut self, address: Address) {
        if let Some(sender) = self.senders.get_mut(&address) {
            self.queued -= sender.queued();
            if let Some(place) = sender.place.take() {
                self.tails.remove(&place);
            }
        }
    }

    /// Puts a sender back into the order of eviction after it changed; forgets an empty one.
    fn list(&mut self, address: Address) {
        let Some(sender) = self.senders.get_mut(&address) else { return };
        self.queued += sender.queued();
        sender.place = sender.place(address, self.base_fee);
        match sender.place {
            Some(place) => {
                self.tails.insert(place);
            }
            None => {
                self.senders.remove(&address);
            }
        }
    }

    /// Bytes of all encoded transactions.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
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
            let run = sender.len() - sender.queued();
            let pays = sender.executable().take_while(|tx| tx.tip(base_fee).is_some()).count();
            status.pending += pays;
            status.base_fee += run - pays;
            status.queued += sender.queued();
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
            content.extend(sender.all().enumerate().map(|(at, tx)| (at < run, tx.clone())));
        }
        content
    }

    pub(super) fn find(&self, sender: &Address, nonce: u64) -> Option<Arc<PooledTransaction>> {
        self.senders.get(sender)?.at(nonce).cloned()
    }

    /// Recomputes what is kept incrementally.
    #[cfg(test)]
    pub(super) fn check_invariants(&mut self) {
        let limits = self.config.limits;
        let all = || self.senders.values().flat_map(Sender::all);
        assert_eq!(all().count(), self.by_hash.len());
        assert_eq!(all().map(|tx| tx.encoded.len()).sum::<usize>(), self.bytes);
        let mut authorities = HashMap::new();
        for authority in all().flat_map(|tx| &tx.authorities) {
            *authorities.entry(*authority).or_default() += 1;
        }
        assert_eq!(authorities, self.authorities);
        assert_eq!(self.senders.values().map(Sender::queued).sum::<usize>(), self.queued);
        assert_eq!(self.tails.len(), self.senders.len());
        assert!(self.by_hash.len() <= limits.max_transactions);
        assert!(self.bytes <= limits.max_bytes);
        for (address, sender) in &mut self.senders {
            sender.check_invariants();
            let place = sender.place(*address, self.base_fee);
            assert_eq!(place, sender.place);
            assert!(self.tails.contains(&place.expect("no sender without transactions")));
            assert!(sender.all().all(|tx| tx.sender == *address));
        }
    }
}
