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
mod error;
mod pool;
mod sender;
#[cfg(test)]
mod tests;
mod validate;

pub use best::BestTransactions;
pub use error::PoolError;
pub use validate::PooledTransaction;

use alloy_primitives::{Address, B256, Bytes, U256};
use kedge_vm::EvmConfig;
use op_revm::{L1BlockInfo, OpSpecId};
use parking_lot::Mutex;
use pool::Pool;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Limits and constants of the pool.
#[derive(Clone, Debug)]
pub struct MempoolConfig {
    /// EIP-155 chain id that signatures must name.
    pub chain_id: u64,
    /// The rules that transactions will be executed by.
    pub spec: OpSpecId,
    /// Most gas that a transaction can declare and still fit an otherwise empty block.
    pub max_gas: u64,
    /// Largest data footprint of a block, in gas (Jovian).
    pub max_footprint: u64,
    /// Lowest base fee that there can be, wei per gas: less never gets in.
    pub min_base_fee: u64,
    /// Most transactions in the pool.
    pub max_transactions: usize,
    /// Most bytes of all encoded transactions in the pool.
    pub max_bytes: usize,
    /// Most transactions of one sender.
    pub max_per_sender: usize,
    /// Largest encoded transaction, bytes.
    pub max_transaction_bytes: usize,
    /// By how many percent a replacement must raise both fees.
    pub replacement_percent: u128,
}

impl MempoolConfig {
    /// The defaults for a network.
    pub fn new(evm: &EvmConfig) -> Self {
        Self {
            chain_id: evm.chain_id,
            spec: evm.spec,
            max_gas: evm.max_transaction_gas(),
            max_footprint: evm.gas_limit,
            min_base_fee: evm.fees.min_base_fee,
            max_transactions: 16_384,
            max_bytes: 128 * 1024 * 1024,
            max_per_sender: 1_024,
            max_transaction_bytes: 128 * 1024,
            replacement_percent: 10,
        }
    }
}

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
    fn fees(&self) -> anyhow::Result<HeadFees>;
}

/// Where admitted transactions survive the death of the process.
pub trait Journal: Send + Sync {
    /// Keeps a transaction.
    ///
    /// # Errors
    /// When it cannot be written; the transaction is then not admitted.
    fn put(&self, hash: B256, encoded: &[u8]) -> anyhow::Result<()>;

    /// Forgets transactions; unknown ones are no error.
    ///
    /// # Errors
    /// When it cannot be written.
    fn delete(&self, hashes: &[B256]) -> anyhow::Result<()>;

    /// Everything that is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> anyhow::Result<Vec<Bytes>>;
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
    journal: Option<Arc<dyn Journal>>,
    pool: Mutex<Pool>,
    closed: Mutex<Option<String>>,
    wake: watch::Sender<u64>,
    pending: broadcast::Sender<Arc<PooledTransaction>>,
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
            journal,
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
        if let Some(reason) = self.closed.lock().clone() {
            return Err(PoolError::Closed { reason });
        }
        self.admit(encoded)
    }

    fn admit(&self, encoded: Bytes) -> Result<B256, PoolError> {
        let mut tx = validate::stateless(&self.config, encoded)?;
        let hash = tx.hash;
        let mut pool = self.pool.lock();
        if pool.get(&hash).is_some() {
            return Err(PoolError::AlreadyKnown);
        }
        // Under the lock: a block that comes in between calls `on_block` after this.
        let fees = self.state.fees().map_err(PoolError::State)?;
        let account = self.state.account(tx.sender).map_err(PoolError::State)?;
        validate::at_head(&self.config, &mut tx, &account, &fees)?;
        let plan = pool.check(&tx, account)?;
        if let Some(journal) = &self.journal {
            journal.put(hash, &tx.encoded).map_err(PoolError::State)?;
        }
        let (tx, removed) = pool.insert(tx, account, plan);
        self.forget(&removed);
        let executable = pool.is_executable(&tx);
        drop(pool);
        if executable {
            self.wake.send_modify(|version| *version = version.wrapping_add(1));
        }
        // Nobody listening is no error.
        let _ = self.pending.send(tx);
        Ok(hash)
    }

    /// Admits what the journal holds and forgets what no longer is valid. Returns how many
    /// transactions came back.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn restore(&self) -> anyhow::Result<usize> {
        let Some(journal) = &self.journal else { return Ok(0) };
        Ok(self.reinsert(journal.load()?))
    }

    /// Admits transactions again that an unwound block had held, whatever the admission policy is.
    /// Returns how many were still valid.
    pub fn reinsert(&self, transactions: impl IntoIterator<Item = Bytes>) -> usize {
        let mut waiting: Vec<Bytes> = transactions.into_iter().collect();
        let mut admitted = 0;
        // Nonce order is not the order they come in, and a cumulative balance check can depend on it.
        waiting.sort_by_key(validate::nonce_hint);
        for encoded in waiting {
            let hash = alloy_primitives::keccak256(&encoded);
            match self.admit(encoded) {
                Ok(_) => admitted += 1,
                Err(PoolError::AlreadyKnown) => {}
                Err(error) => {
                    tracing::debug!(%hash, %error, "transaction did not return to the mempool");
                    self.forget(&[hash]);
                }
            }
        }
        admitted
    }

    /// Takes note of a new head. `changed` are the accounts whose nonce, balance or code it changed;
    /// others are not read.
    pub fn on_block(&self, changed: impl IntoIterator<Item = Address>) {
        let mut pool = self.pool.lock();
        let mut removed = Vec::new();
        for address in changed {
            if pool.has_sender(&address) {
                self.refresh(&mut pool, address, &mut removed);
            }
        }
        drop(pool);
        self.forget(&removed);
    }

    /// Takes note of a head that is no child of the last: reads every sender again and admits the
    /// transactions of the unwound blocks.
    pub fn on_reorg(&self, unwound: impl IntoIterator<Item = Bytes>) -> usize {
        let mut pool = self.pool.lock();
        let mut removed = Vec::new();
        for address in pool.senders() {
            self.refresh(&mut pool, address, &mut removed);
        }
        drop(pool);
        self.forget(&removed);
        let returned = self.reinsert(unwound);
        self.wake.send_modify(|version| *version = version.wrapping_add(1));
        returned
    }

    fn refresh(&self, pool: &mut Pool, address: Address, removed: &mut Vec<B256>) {
        match self.state.account(address) {
            Ok(account) => pool.update_sender(address, account, removed),
            // The entry stays as it is; the next block that touches the sender repairs it.
            Err(error) => tracing::warn!(%address, %error, "mempool could not read an account"),
        }
    }

    /// Drops a transaction that execution skipped. Later ones of its sender become queued.
    pub fn discard(&self, hash: &B256) {
        if self.pool.lock().remove(hash) {
            self.forget(&[*hash]);
        }
    }

    fn forget(&self, hashes: &[B256]) {
        if hashes.is_empty() {
            return;
        }
        if let Some(journal) = &self.journal
            && let Err(error) = journal.delete(hashes)
        {
            // Harmless: what is stale is refused when the journal is read again.
            tracing::warn!(%error, "mempool journal could not be written");
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

    /// How many transactions are in each sub-pool at that base fee.
    pub fn status(&self, base_fee: u64) -> PoolStatus {
        self.pool.lock().status(base_fee)
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

    /// Every transaction that is admitted from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<PooledTransaction>> {
        self.pending.subscribe()
    }

    /// Stops admitting transactions and says why, or admits them again. What is in the pool stays.
    pub fn set_closed(&self, reason: Option<String>) {
        *self.closed.lock() = reason;
    }
}
