//! The state while a block executes: what it read, what it changed, and the witness meter.

use crate::{AccountInfo, StateDiff, config::WITNESS_BYTES_PER_KEY, state::DbError};
use alloc::{
    collections::{BTreeMap, btree_map::Entry},
    vec::Vec,
};
use alloy_eips::eip2935::{HISTORY_SERVE_WINDOW, HISTORY_STORAGE_ADDRESS};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, map::AddressMap};
use core::{error::Error, fmt};
use revm::{
    Database, DatabaseCommit,
    database_interface::DBErrorMarker,
    primitives::eip170::MAX_CODE_SIZE,
    state::{Account, Bytecode},
};

/// No account has a longer code (EIP-170), bytes.
const LARGEST_CODE: u64 = MAX_CODE_SIZE as u64;

/// Why the cache does not answer.
#[derive(Debug, thiserror::Error)]
pub enum CacheError<E: Error> {
    /// The database failed.
    #[error(transparent)]
    Database(E),
    /// The transaction's reads do not fit the block's witness limit.
    #[error("witness limit")]
    WitnessLimit,
}

impl<E: Error + Send + Sync + 'static> DBErrorMarker for CacheError<E> {}

/// A value before the block and now.
#[derive(Clone, Copy, Debug)]
struct Tracked<T> {
    before: T,
    now: T,
}

/// The values of those keys whose values changed.
fn changed<'t, K: Copy + Ord, T: Copy + Eq>(
    tracked: &'t BTreeMap<K, Tracked<T>>,
    value: impl Fn(&Tracked<T>) -> T + 't,
) -> impl Iterator<Item = (K, T)> + 't {
    let changed = tracked.iter().filter(|(_, it)| it.before != it.now);
    changed.map(move |(key, it)| (*key, value(it)))
}

/// The state before the block with the block's changes on top: what execution reads and commits to.
pub struct Cache<'a, DB: Database> {
    db: &'a mut DB,
    accounts: BTreeMap<Address, Tracked<Option<AccountInfo>>>,
    storage: BTreeMap<(Address, U256), Tracked<U256>>,
    codes: BTreeMap<B256, Bytecode>,
    /// Codes that accounts received in this block.
    created: BTreeMap<B256, Bytes>,
    history_from_state: bool,
    witness_bytes: u64,
    /// In force while a user's transaction executes.
    pub(crate) witness_limit: Option<u64>,
}

impl<DB: Database> fmt::Debug for Cache<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("accounts", &self.accounts.len())
            .field("storage", &self.storage.len())
            .field("codes", &self.codes.len())
            .field("witness_bytes", &self.witness_bytes)
            .finish_non_exhaustive()
    }
}

impl<'a, DB: Database> Cache<'a, DB> {
    /// Nothing changed yet. For `history_from_state` see [`crate::EvmConfig::history_from_state`].
    pub fn new(db: &'a mut DB, history_from_state: bool) -> Self {
        Self {
            db,
            accounts: BTreeMap::new(),
            storage: BTreeMap::new(),
            codes: BTreeMap::new(),
            created: BTreeMap::new(),
            history_from_state,
            witness_bytes: 0,
            witness_limit: None,
        }
    }

    /// Bytes by the witness meter so far.
    pub fn witness_bytes(&self) -> u64 {
        self.witness_bytes
    }

    /// What the block changed so far.
    pub fn diff(&self) -> StateDiff {
        StateDiff {
            accounts: changed(&self.accounts, |it| it.now).collect(),
            storage: changed(&self.storage, |it| it.now).collect(),
            codes: self.created.clone(),
        }
    }

    /// What was before where [`Cache::diff`] says what is now, without codes.
    pub(crate) fn overwritten(&self) -> StateDiff {
        StateDiff {
            accounts: changed(&self.accounts, |it| it.before).collect(),
            storage: changed(&self.storage, |it| it.before).collect(),
            codes: BTreeMap::new(),
        }
    }

    /// The accounts that were loaded and are as they were, ascending.
    pub(crate) fn unchanged(&self) -> Vec<Address> {
        let unchanged = self.accounts.iter().filter(|(_, account)| account.before == account.now);
        unchanged.map(|(address, _)| *address).collect()
    }

    /// The state before the block.
    pub(crate) fn before(&mut self) -> &mut DB {
        self.db
    }

    /// The meter with so many more bytes. What does not fit must not be loaded: a transaction that is
    /// stopped pays in gas alone, and many of them could load something each.
    fn with(&self, bytes: u64) -> Result<u64, CacheError<DbError<DB>>> {
        let bytes = self.witness_bytes.saturating_add(bytes);
        if self.witness_limit.is_some_and(|limit| bytes > limit) {
            return Err(CacheError::WitnessLimit);
        }
        Ok(bytes)
    }

    /// Touches an account that the block reads in any case.
    pub(crate) fn touch(&mut self, address: Address) -> Result<(), CacheError<DbError<DB>>> {
        self.account(address).map(drop)
    }

    fn account(
        &mut self,
        address: Address,
    ) -> Result<Option<AccountInfo>, CacheError<DbError<DB>>> {
        if let Some(account) = self.accounts.get(&address) {
            return Ok(account.now);
        }
        self.witness_bytes = self.with(WITNESS_BYTES_PER_KEY)?;
        let info = self.db.basic(address).map_err(CacheError::Database)?;
        let info = info.as_ref().map(AccountInfo::from);
        self.accounts.insert(address, Tracked { before: info, now: info });
        Ok(info)
    }
}

impl<DB: Database> Database for Cache<'_, DB> {
    type Error = CacheError<DbError<DB>>;

    /// Without the code, whatever the database gives, so that every database is metered alike.
    fn basic(&mut self, address: Address) -> Result<Option<revm::state::AccountInfo>, Self::Error> {
        Ok(self.account(address)?.map(Into::into))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.get(&code_hash) {
            return Ok(code.clone());
        }
        // Its size is not known before it is loaded.
        self.with(LARGEST_CODE)?;
        let code = self.db.code_by_hash(code_hash).map_err(CacheError::Database)?;
        let length = u64::try_from(code.original_byte_slice().len()).unwrap_or(u64::MAX);
        self.witness_bytes = self.witness_bytes.saturating_add(length);
        self.codes.insert(code_hash, code.clone());
        Ok(code)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        if let Some(slot) = self.storage.get(&(address, slot)) {
            return Ok(slot.now);
        }
        self.account(address)?;
        let existed = self.accounts.get(&address).is_some_and(|account| account.before.is_some());
        let value = if existed {
            self.witness_bytes = self.with(WITNESS_BYTES_PER_KEY)?;
            self.db.storage(address, slot).map_err(CacheError::Database)?
        } else {
            U256::ZERO
        };
        self.storage.insert((address, slot), Tracked { before: value, now: value });
        Ok(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        if self.history_from_state {
            let slot = number.checked_rem(HISTORY_SERVE_WINDOW as u64).unwrap_or_default();
            return Ok(self.storage(HISTORY_STORAGE_ADDRESS, U256::from(slot))?.into());
        }
        self.db.block_hash(number).map_err(CacheError::Database)
    }
}

impl<DB: Database> DatabaseCommit for Cache<'_, DB> {
    fn commit(&mut self, changes: AddressMap<Account>) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            let gone = account.is_selfdestructed();
            if gone || account.is_created() {
                // What a new account's address holds in storage is zero (EIP-7610), and only an
                // account created in the same transaction is destroyed (EIP-6780).
                for slot in self.storage.range_mut((address, U256::ZERO)..=(address, U256::MAX)) {
                    slot.1.now = U256::ZERO;
                }
            }
            // EIP-161: a touched account that is empty does not exist.
            let info = AccountInfo::from(&account.info);
            let now = (!gone && !account.info.is_empty()).then_some(info);
            let before = match self.accounts.entry(address) {
                Entry::Occupied(mut entry) => core::mem::replace(&mut entry.get_mut().now, now),
                Entry::Vacant(entry) => {
                    entry.insert(Tracked { before: None, now });
                    None
                }
            };
            if let Some(info) = now
                && before.is_none_or(|before| before.code_hash != info.code_hash)
                && let Some(code) = &account.info.code
                && !code.is_empty()
            {
                self.created.insert(info.code_hash, code.original_bytes());
                self.codes.entry(info.code_hash).or_insert_with(|| code.clone());
            }
            if !gone {
                for (slot, value) in account.changed_storage_slots() {
                    self.storage
                        .entry((address, *slot))
                        .or_insert(Tracked { before: U256::ZERO, now: U256::ZERO })
                        .now = value.present_value();
                }
            }
        }
    }
}
