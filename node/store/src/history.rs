//! The state after old blocks, and what is dropped of it.
//!
//! For each change of an account, slot or trie node the value from before it is kept under the key and the
//! number of the block that changed it. So the state after block `n` is the first change after `n`. Pruning
//! drops the changes up to a block; states after earlier blocks are gone then. Which block may be pruned to
//! is for the node to decide: proofs need the states at which open assertions begin.

use crate::codec::decode;
use crate::db::{Durability, Store};
use crate::error::Result;
use crate::l1::finalized;
use crate::l2::{AccountRow, L2Rows, slot_key, trie_key};
use crate::read::{Reader, Rows, row, successor};
use crate::table::Table;
use alloy_primitives::{Address, B256, Bytes, U256};
use kedge_genesis::L2Number;
use kedge_vm::AccountInfo;
use rocksdb::WriteBatch;

/// The tables that hold what was before changes, each with the block number at the end of its keys.
pub(crate) const HISTORY: [Table; 3] =
    [Table::AccountHistory, Table::StorageHistory, Table::TrieHistory];

const PRUNED: &[u8] = b"pruned";

/// Rows that pruning deletes in one write.
const PRUNED_AT_ONCE: usize = 4_096;

/// Key of a change of `prefix` in block `number`.
pub(crate) fn at(prefix: &[u8], number: L2Number) -> Vec<u8> {
    [prefix, &number.0.to_be_bytes()].concat()
}

/// Key without block number, and block number, of a row of a history table.
pub(crate) fn split_at(key: &[u8]) -> Option<(&[u8], L2Number)> {
    let (prefix, number) = key.split_last_chunk::<8>()?;
    Some((prefix, L2Number(u64::from_be_bytes(*number))))
}

/// Table and key, without block number, of what a row of the state was before changes of it. None for the
/// other tables.
fn history_of(table: Table, key: &[u8]) -> Option<(Table, Vec<u8>)> {
    // Length of what names the trie.
    let owner = match table {
        Table::Accounts => return Some((Table::AccountHistory, key.to_vec())),
        Table::Storage => return Some((Table::StorageHistory, key.to_vec())),
        Table::AccountTrie => 0,
        Table::StorageTrie => key.len().min(32),
        _ => return None,
    };
    let (owner, path) = key.split_at(owner);
    // The length keeps paths apart that begin alike. A path has at most 64 nibbles.
    let (owned, length) = ([u8::from(!owner.is_empty())], [path.len() as u8]);
    Some((Table::TrieHistory, [&owned, owner, &length, path].concat()))
}

/// Table and key of what a row of the state was before block `number` changed it. None for the other tables.
pub(crate) fn change_key(table: Table, key: &[u8], number: L2Number) -> Option<(Table, Vec<u8>)> {
    history_of(table, key).map(|(history, prefix)| (history, at(&prefix, number)))
}

/// The oldest block after which the state is kept; genesis where nothing was pruned.
///
/// # Errors
/// When the database fails.
pub fn oldest_state(rows: &(impl Rows + ?Sized)) -> Result<L2Number> {
    Ok(row(rows, Table::Meta, PRUNED)?.unwrap_or_default())
}

impl Store {
    /// Drops the states after blocks below `oldest`, or below the last final block if that is lower: what
    /// is not final may be unwound. `go_on` is asked now and then, with the rows dropped so far; where it
    /// says no, the rest waits for the next call. Returns how many rows were dropped.
    ///
    /// May run while the engine writes: no later block touches these rows, and readers keep what their
    /// snapshot has.
    ///
    /// # Errors
    /// When the database fails.
    pub fn prune_states(
        &self,
        oldest: L2Number,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<u64> {
        let oldest = oldest.min(finalized(self)?).max(oldest_state(self)?);
        let mut dropped = 0;
        // First, so that nobody reads what is half dropped.
        let mut change = self.change();
        change.put(Table::Meta, PRUNED, crate::codec::encode(&oldest))?;
        change.commit(Durability::Synced)?;
        for table in HISTORY {
            let (reader, family) = (self.reader(), self.family(table));
            let mut batch = WriteBatch::default();
            for entry in reader.all(table) {
                let (key, _) = entry?;
                if split_at(&key).is_some_and(|(_, number)| number <= oldest) {
                    batch.delete_cf(family, &key);
                    if table == Table::AccountHistory {
                        // Which blocks touched an account stays known.
                        batch.put_cf(self.family(Table::AccountReads), &key, []);
                    }
                    dropped += 1;
                }
                if batch.len() >= PRUNED_AT_ONCE {
                    self.write(std::mem::take(&mut batch), Durability::Buffered)?;
                    if !go_on(dropped) {
                        return Ok(dropped);
                    }
                }
            }
            self.write(batch, Durability::Buffered)?;
        }
        Ok(dropped)
    }
}

impl Reader<'_> {
    /// An account as it was after block `number`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn account_at(
        &self,
        address: Address,
        number: L2Number,
    ) -> Result<Option<AccountInfo>> {
        match self.change_after(Table::Accounts, address.as_slice(), number)? {
            None => self.account(address),
            Some((_, value)) if value.is_empty() => Ok(None),
            Some((key, value)) => {
                decode::<AccountRow>(Table::AccountHistory, &key, &value).map(|it| Some(it.0))
            }
        }
    }

    /// A slot as it was after block `number`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn slot_at(&self, address: Address, slot: U256, number: L2Number) -> Result<U256> {
        match self.change_after(Table::Storage, &slot_key(address, slot), number)? {
            None => self.slot(address, slot),
            Some((_, value)) if value.is_empty() => Ok(U256::ZERO),
            Some((key, value)) => decode(Table::StorageHistory, &key, &value),
        }
    }

    /// The node of a trie as it was after block `number`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn trie_node_at(
        &self,
        owner: Option<B256>,
        path: &kedge_vm::Nibbles,
        number: L2Number,
    ) -> Result<Option<Bytes>> {
        let (table, key) = trie_key(owner, path);
        match self.change_after(table, &key, number)? {
            None => self.trie_node(owner, path),
            Some((_, value)) if value.is_empty() => Ok(None),
            Some((_, value)) => Ok(Some(value.into_vec().into())),
        }
    }

    /// The first change of a row of the state after a block: its value is the one from before that change.
    fn change_after(
        &self,
        table: Table,
        key: &[u8],
        number: L2Number,
    ) -> Result<Option<crate::Row>> {
        let Some((history, prefix)) = history_of(table, key) else { return Ok(None) };
        self.first_between(history, &at(&prefix, number.next()), successor(&prefix))
    }
}
