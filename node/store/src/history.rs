//! The state after old blocks, and what is dropped of it.
//!
//! For each change of an account, slot or trie node the value from before it is kept under the key and the
//! number of the block that changed it. So the state after block `n` is the first change after `n`. Pruning
//! drops the changes up to a block; states after earlier blocks are gone then. Which block may be pruned to
//! is for the node to decide: proofs need the states at which open assertions begin.

use crate::change::recorded;
use crate::codec::{decode, encode};
use crate::db::{Durability, Store};
use crate::error::Result;
use crate::l1::finalized;
use crate::l2::{AccountRow, L2Rows, slot_key, trie_history_key};
use crate::read::{Reader, Rows, row, successor};
use crate::table::Table;
use alloy_primitives::{Address, B256, Bytes, U256};
use kedge_genesis::L2Number;
use kedge_vm::AccountInfo;
use rocksdb::WriteBatch;

/// The tables that hold what was before changes, each with the block number at the end of its keys.
pub(crate) const HISTORY: [Table; 3] =
    [Table::AccountHistory, Table::StorageHistory, Table::TrieHistory];

/// The oldest block after which the state is kept.
const PRUNED: &[u8] = b"pruned";

/// There while a scan of the whole history has not ended.
const PRUNING: &[u8] = b"pruning";

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
    /// The undo record of a block tells which changes are its own, so where these are there still the work
    /// follows the blocks that are pruned. From the first one on that is not, the whole history is read.
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
        let done = oldest_state(self)?;
        let oldest = oldest.min(finalized(self)?).max(done);
        let mut dropped = 0;
        let begun = self.get(Table::Meta, PRUNING)?.is_some();
        if begun || !self.prune_by_records(done.next(), oldest, &mut dropped, &mut go_on)? {
            self.prune_by_scan(oldest, &mut dropped, &mut go_on)?;
        }
        Ok(dropped)
    }

    /// Drops what the blocks from `first` to `last` changed, each together with its undo record. False where
    /// a record is not there.
    fn prune_by_records(
        &self,
        first: L2Number,
        last: L2Number,
        dropped: &mut u64,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<bool> {
        let mut batch = WriteBatch::default();
        for number in first.0..=last.0 {
            let key = number.to_be_bytes();
            let Some(record) = self.get(Table::UndoL2, &key)? else {
                self.write(batch, Durability::Buffered)?;
                return Ok(false);
            };
            for (table, row, _) in recorded(Table::UndoL2, &key, &record)? {
                if HISTORY.contains(&table) {
                    self.drop_change(&mut batch, table, &row);
                    *dropped += 1;
                }
            }
            batch.delete_cf(self.family(Table::UndoL2), key);
            // In one write with the rows, so that nobody reads what is half dropped.
            batch.put_cf(self.family(Table::Meta), PRUNED, encode(&L2Number(number)));
            if batch.len() >= PRUNED_AT_ONCE {
                self.write(std::mem::take(&mut batch), Durability::Buffered)?;
                if !go_on(*dropped) {
                    return Ok(true);
                }
            }
        }
        self.write(batch, Durability::Buffered)?;
        Ok(true)
    }

    /// Drops all changes up to block `oldest`, and undo records that are left of such blocks.
    fn prune_by_scan(
        &self,
        oldest: L2Number,
        dropped: &mut u64,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<()> {
        // First, so that nobody reads what is half dropped, and that it is not forgotten if it is not finished.
        let mut change = self.change();
        change.put(Table::Meta, PRUNED, encode(&oldest))?;
        change.put(Table::Meta, PRUNING, Vec::new())?;
        change.commit(Durability::Synced)?;
        for table in HISTORY.into_iter().chain([Table::UndoL2]) {
            let reader = self.reader();
            let mut batch = WriteBatch::default();
            for key in reader.keys(table) {
                let key = key?;
                if split_at(&key).is_some_and(|(_, number)| number <= oldest) {
                    self.drop_change(&mut batch, table, &key);
                    *dropped += u64::from(table != Table::UndoL2);
                }
                if batch.len() >= PRUNED_AT_ONCE {
                    self.write(std::mem::take(&mut batch), Durability::Buffered)?;
                    if !go_on(*dropped) {
                        return Ok(());
                    }
                }
            }
            self.write(batch, Durability::Buffered)?;
        }
        self.delete(Table::Meta, PRUNING, Durability::Buffered)
    }

    fn drop_change(&self, batch: &mut WriteBatch, table: Table, key: &[u8]) {
        batch.delete_cf(self.family(table), key);
        if table == Table::AccountHistory {
            // Which blocks touched an account stays known.
            batch.put_cf(self.family(Table::AccountReads), key, []);
        }
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
        match self.change_after(Table::AccountHistory, address.as_slice(), number)? {
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
        match self.change_after(Table::StorageHistory, &slot_key(address, slot), number)? {
            None => self.slot(address, slot),
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
        let key = trie_history_key(owner, path);
        match self.change_after(Table::TrieHistory, &key, number)? {
            None => self.trie_node(owner, path),
            Some((_, value)) if value.is_empty() => Ok(None),
            Some((_, value)) => Ok(Some(value.into_vec().into())),
        }
    }

    /// The first change of a key after a block: its value is the one from before that change.
    fn change_after(
        &self,
        table: Table,
        prefix: &[u8],
        number: L2Number,
    ) -> Result<Option<crate::Row>> {
        self.first_between(table, &at(prefix, number.next()), successor(prefix))
    }
}
