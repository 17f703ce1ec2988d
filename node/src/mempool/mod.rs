//! Transactions that wait for a block.
//!
//! Per sender they are ordered by nonce; between senders by what they pay above the base fee, then
//! by arrival. A transaction is in one of three sub-pools, which are computed and not stored:
//! *pending* (the next block can take it), *base fee* (its turn, but it pays less than the base fee
//! of the next block) and *queued* (a nonce before it is missing, or the balance does not reach).
//!
//! What is admitted is what execution would not skip at the head: rules and messages are those of
//! go-ethereum's pool (wallets match on them), plus the cost of Bitcoin space in the balance check.
//! The signature is checked once, at entry.

mod best;
mod config;
mod error;
mod journal;
mod pool;
mod sender;
#[cfg(test)]
mod tests;
mod validate;

pub use best::BestTransactions;
pub use config::{MempoolConfig, PoolLimits};
pub use error::PoolError;
pub use journal::{Journal, JournalChange, Journaled};
pub use validate::PooledTransaction;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bytes, U256};
use journal::{JournalQueue, Written};
use op_revm::{L1BlockInfo, OpSpecId};
use parking_lot::{Mutex, MutexGuard};
use pool::{Arrival, Pool};
use std::{sync::Arc, time::Instant};
use tokio::sync::{broadcast, watch};

/// An account as far as sending transactions is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderState {
    /// The nonce that its next transaction must have.
    pub nonce: u64,
    /// Wei that it can spend.
    pub balance: U256,
    /// Whether it is a contract, which cannot send transactions (EIP-3607). An EIP-7702 delegation
    /// is no contract.
    pub is_contract: bool,
    /// Whether it is delegated to a contract (EIP-7702).
    pub is_delegated: bool,
}

/// What a transaction in the next block is charged, besides its own gas and value.
#[derive(Clone, Debug, Default)]
pub struct HeadFees {
    /// Base fee of the next block, wei per gas.
    pub base_fee: u64,
    /// The inputs of the fee for Bitcoin space and of the operator fee.
    pub l1: L1BlockInfo,
}

impl HeadFees {
    /// Wei for the Bitcoin space of an encoded transaction, operator fee included.
    pub fn data_fee(&self, encoded: &[u8], gas_limit: u64, spec: OpSpecId) -> U256 {
        self.l1.clone().tx_cost(encoded, U256::from(gas_limit), spec)
    }

    /// The data footprint of an encoded transaction, which a block's gas limit bounds (Jovian).
    pub fn footprint(&self, encoded: &[u8]) -> u64 {
        let scalar = u64::from(self.l1.da_footprint_gas_scalar.unwrap_or(0));
        let size = op_revm::transaction::estimate_tx_compressed_size(encoded) / 1_000_000;
        size.saturating_mul(scalar)
    }
}

/// The state at the head. Each call reads the head of that moment.
pub trait StateView: Send + Sync {
    /// The account at `address`; all zero when there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn account(&self, address: Address) -> anyhow::Result<SenderState>;

    /// What the next block charges.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn fees(&self) -> anyhow::Result<Arc<HeadFees>>;
}

/// How many transactions are in each sub-pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// The next block can take them.
    pub pending: usize,
    /// They wait for a lower base fee.
    pub base_fee: usize,
    /// They wait for a transaction or for funds before them.
    pub queued: usize,
}

/// The pool. Cheap to share; every method takes one short lock.
pub struct Mempool {
    config: MempoolConfig,
    state: Arc<dyn StateView>,
    journal: Arc<JournalQueue>,
    pool: Mutex<Pool>,
    closed: Mutex<Option<String>>,
    wake: watch::Sender<u64>,
    pending: broadcast::Sender<Arc<PooledTransaction>>,
}

/// What a new head did to the pool.
#[derive(Debug, Default)]
struct Changes {
    removed: Vec<B256>,
    promoted: Vec<Arc<PooledTransaction>>,
}

/// What became of transactions that had been admitted before.
#[derive(Debug, Default)]
struct Again {
    admitted: usize,
    /// How many the pool had.
    known: usize,
    /// How many were no transactions of this chain.
    strange: usize,
    /// What this machine failed at last.
    failure: Option<anyhow::Error>,
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mempool").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Mempool {
    /// An empty pool over the state at the head. With a journal, [`Self::restore`] brings back what
    /// an earlier process had admitted.
    pub fn new(
        config: MempoolConfig,
        state: Arc<dyn StateView>,
        journal: Option<Arc<dyn Journal>>,
    ) -> Self {
        Self {
            pool: Mutex::new(Pool::new(config.clone())),
            config,
            state,
            journal: Arc::new(JournalQueue::new(journal)),
            closed: Mutex::new(None),
            wake: watch::Sender::new(0),
            pending: broadcast::Sender::new(1_024),
        }
    }

    /// Checks an encoded transaction (EIP-2718) and admits it. Once this returns `Ok` the
    /// transaction is in the journal.
    ///
    /// # Errors
    /// The rule that it breaks, or [`PoolError::State`] when this machine failed.
    pub fn add(&self, encoded: Bytes) -> Result<B256, PoolError> {
        self.check_open()?;
        let (hash, mut written) = self.admit(encoded, Arrival::New)?;
        self.journal.flush();
        self.kept(hash, written.try_recv().ok())
    }

    /// The same for async code: takes no longer at a time than checking a signature does.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn submit(self: &Arc<Self>, encoded: Bytes) -> Result<B256, PoolError> {
        self.check_open()?;
        let (hash, written) = if validate::takes_long(&encoded) {
            let this = self.clone();
            let admit = move || this.admit(encoded, Arrival::New);
            let failed = |error: tokio::task::JoinError| PoolError::State(error.into());
            tokio::task::spawn_blocking(admit).await.map_err(failed)??
        } else {
            self.admit(encoded, Arrival::New)?
        };
        self.journal.flush_soon();
        self.kept(hash, written.await.ok())
    }

    fn check_open(&self) -> Result<(), PoolError> {
        match self.closed.lock().clone() {
            Some(reason) => Err(PoolError::Closed { reason }),
            None => Ok(()),
        }
    }

    /// Takes a transaction out again that did not get into the journal.
    fn kept(
        &self,
        hash: B256,
        written: Option<Result<(), Arc<anyhow::Error>>>,
    ) -> Result<B256, PoolError> {
        let cause = match written {
            Some(Ok(())) => return Ok(hash),
            Some(Err(error)) => format!("{error:#}"),
            None => "it was not written".to_owned(),
        };
        self.pool.lock().remove(&hash);
        Err(PoolError::State(anyhow::anyhow!("the mempool's journal cannot be written: {cause}")))
    }

    /// Puts a transaction into the pool and into the queue of its journal.
    fn admit(&self, encoded: Bytes, arrival: Arrival) -> Result<(B256, Written), PoolError> {
        if self.pool.lock().contains(&alloy_primitives::keccak256(&encoded)) {
            return Err(PoolError::AlreadyKnown);
        }
        // All that takes long comes before the lock.
        let mut tx = validate::stateless(&self.config, encoded)?;
        let hash = tx.hash;
        let fees = self.state.fees().map_err(PoolError::State)?;
        validate::charge(&self.config, &mut tx, &fees)?;
        if tx.tx.authorization_list().is_some() {
            // Each of what may be hundreds takes as long as the sender's, so only who can pay has them checked.
            let account = self.state.account(tx.sender).map_err(PoolError::State)?;
            validate::at_head(&tx, &account)?;
            tx.authorities = validate::authorities(&self.config, &tx.tx);
        }

        let mut pool = self.pool.lock();
        // It may have come twice at once.
        if pool.contains(&hash) {
            return Err(PoolError::AlreadyKnown);
        }
        // Under the lock: a block that comes in between calls `on_block` after this.
        let account = self.state.account(tx.sender).map_err(PoolError::State)?;
        validate::at_head(&tx, &account)?;
        // Another head may have come since the first reading. What the transaction is charged for its Bitcoin space is
        // then that of the head before, as with those that came before it.
        pool.set_base_fee(self.state.fees().map_err(PoolError::State)?.base_fee);
        let plan = pool.check(&tx, account, arrival)?;
        // All changes of the pool are queued for its journal under its lock, hence in their order.
        let written = self.journal.put(hash, tx.encoded.clone());
        let inserted = pool.insert(tx, account, plan);
        self.journal.delete(&inserted.removed);
        drop(pool);
        self.announce(inserted.promoted);
        Ok((hash, written))
    }

    /// Lets everybody know of what can be executed from now on.
    fn announce(&self, promoted: Vec<Arc<PooledTransaction>>) {
        if promoted.is_empty() {
            return;
        }
        self.wake.send_modify(|version| *version = version.wrapping_add(1));
        for tx in promoted {
            // Nobody listening is no error.
            let _ = self.pending.send(tx);
        }
    }

    /// Admits what the journal holds and forgets what no longer is valid. Returns how many
    /// transactions came back.
    ///
    /// # Errors
    /// When the journal or the state cannot be read. The journal then keeps what it holds.
    pub fn restore(&self) -> anyhow::Result<usize> {
        let Journaled { transactions, damaged } = self.journal.load()?;
        let kept = transactions.len();
        let again = self.admit_again(transactions);
        let strange = again.strange + damaged;
        if strange > 0 {
            tracing::warn!(
                rows = strange,
                "the mempool's journal held rows that are no transactions of this chain; they are removed"
            );
        }
        if let Some(error) = again.failure {
            return Err(error.context("the mempool cannot be restored"));
        }
        if kept > 0 {
            let stale = kept - again.admitted - again.known - again.strange;
            tracing::info!(restored = again.admitted, stale, "restored the mempool");
        }
        Ok(again.admitted)
    }

    /// Admits transactions again that an unwound block had held, whatever the admission policy is.
    /// Returns how many were still valid.
    pub fn reinsert(&self, transactions: impl IntoIterator<Item = Bytes>) -> usize {
        let again = self.admit_again(transactions.into_iter().collect());
        if let Some(error) = again.failure {
            // What the journal holds comes back with the next process.
            tracing::warn!("transactions did not return to the mempool: {error:#}");
        }
        again.admitted
    }

    fn admit_again(&self, mut waiting: Vec<Bytes>) -> Again {
        let mut again = Again::default();
        // Nonce order is not the order they come in, and a cumulative balance check can depend on it.
        waiting.sort_by_cached_key(validate::nonce_hint);
        for encoded in waiting {
            let hash = alloy_primitives::keccak256(&encoded);
            match self.admit(encoded, Arrival::Again) {
                Ok(_) => again.admitted += 1,
                Err(PoolError::AlreadyKnown) => again.known += 1,
                // It says nothing about the transaction.
                Err(PoolError::State(error)) => again.failure = Some(error),
                Err(error) => {
                    tracing::debug!(%hash, %error, "transaction did not return to the mempool");
                    again.strange += usize::from(error.is_about_the_bytes());
                    // Somebody may have sent it again.
                    let pool = self.pool.lock();
                    if !pool.contains(&hash) {
                        self.journal.delete(&[hash]);
                    }
                }
            }
        }
        self.journal.flush();
        again
    }

    /// Takes note of a new head. `changed` are the accounts whose nonce, balance or code it changed;
    /// others are not read.
    pub fn on_block(&self, changed: impl IntoIterator<Item = Address>) {
        let mut pool = self.pool.lock();
        let mut changes = Changes::default();
        for address in changed {
            if pool.has_sender(&address) {
                self.refresh(&mut pool, address, &mut changes);
            }
        }
        self.finish(pool, changes);
    }

    /// Takes note of a head that is no child of the last: reads every sender again and admits the
    /// transactions of the unwound blocks.
    pub fn on_reorg(&self, unwound: impl IntoIterator<Item = Bytes>) -> usize {
        let mut pool = self.pool.lock();
        let mut changes = Changes::default();
        for address in pool.senders() {
            self.refresh(&mut pool, address, &mut changes);
        }
        self.finish(pool, changes);
        let returned = self.reinsert(unwound);
        self.wake.send_modify(|version| *version = version.wrapping_add(1));
        returned
    }

    fn refresh(&self, pool: &mut Pool, address: Address, changes: &mut Changes) {
        match self.state.account(address) {
            Ok(account) => {
                let promoted = pool.update_sender(address, account, &mut changes.removed);
                changes.promoted.extend(promoted);
            }
            // The entry stays as it is; the next block that touches the sender repairs it.
            Err(error) => tracing::warn!(%address, %error, "mempool could not read an account"),
        }
    }

    /// Ranks by the new head's base fee and lets everybody know what changed.
    fn finish(&self, mut pool: MutexGuard<'_, Pool>, changes: Changes) {
        match self.state.fees() {
            Ok(fees) => pool.set_base_fee(fees.base_fee),
            // The next one sets it.
            Err(error) => tracing::warn!(%error, "mempool could not read the base fee"),
        }
        self.journal.delete(&changes.removed);
        drop(pool);
        self.journal.flush();
        self.announce(changes.promoted);
    }

    /// Drops what has waited too long for a nonce or for funds, as of `now`. Returns how many.
    pub fn expire(&self, now: Instant) -> usize {
        let mut pool = self.pool.lock();
        let removed = pool.expire(now);
        self.journal.delete(&removed);
        drop(pool);
        self.journal.flush();
        removed.len()
    }

    /// Drops everything. Returns how many transactions there were.
    pub fn clear(&self) -> usize {
        let mut pool = self.pool.lock();
        let removed = pool.clear();
        self.journal.delete(&removed);
        drop(pool);
        self.journal.flush();
        removed.len()
    }

    /// Drops a transaction that execution skipped. Later ones of its sender become queued.
    pub fn discard(&self, hash: &B256) {
        let mut pool = self.pool.lock();
        if pool.remove(hash) {
            self.journal.delete(&[*hash]);
            drop(pool);
            self.journal.flush();
        }
    }

    /// The transactions that the next block can take at that base fee, best first.
    pub fn best(&self, base_fee: u64) -> BestTransactions {
        self.pool.lock().best(base_fee)
    }

    /// Whether there are transactions whose turn it is and which only the base fee holds back.
    pub fn waits_for_base_fee(&self, base_fee: u64) -> bool {
        self.pool.lock().status(base_fee).base_fee > 0
    }

    /// Bytes of all encoded transactions.
    pub fn bytes(&self) -> usize {
        self.pool.lock().bytes()
    }

    /// How many transactions are in each sub-pool at that base fee.
    pub fn status(&self, base_fee: u64) -> PoolStatus {
        self.pool.lock().status(base_fee)
    }

    /// How many transactions are in each sub-pool at the head's base fee.
    pub fn status_at_head(&self) -> PoolStatus {
        let pool = self.pool.lock();
        pool.status(pool.base_fee())
    }

    /// The transaction with that hash.
    pub fn get(&self, hash: &B256) -> Option<Arc<PooledTransaction>> {
        self.pool.lock().get(hash)
    }

    /// The transaction of `sender` that waits with that nonce.
    pub fn at_nonce(&self, sender: &Address, nonce: u64) -> Option<Arc<PooledTransaction>> {
        self.pool.lock().find(sender, nonce)
    }

    /// Every transaction, or those of one sender, by sender and nonce: whether the next block can take it
    /// at that base fee, and itself.
    pub fn content(
        &self,
        base_fee: u64,
        only: Option<Address>,
    ) -> Vec<(bool, Arc<PooledTransaction>)> {
        self.pool.lock().content(base_fee, only)
    }

    /// The nonce after the unbroken run of waiting transactions of `sender`, none when there are
    /// none (then the account's own nonce is the next).
    pub fn next_nonce(&self, sender: &Address) -> Option<u64> {
        self.pool.lock().next_nonce(sender)
    }

    /// Changes whenever a transaction arrives that a block can take at once.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// Every transaction that can be executed from now on and could not before.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<PooledTransaction>> {
        self.pending.subscribe()
    }

    /// Stops admitting transactions and says why, or admits them again. What is in the pool stays.
    pub fn set_closed(&self, reason: Option<String>) {
        *self.closed.lock() = reason;
    }
}
