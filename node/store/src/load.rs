//! A state larger than memory, for a new database.

use crate::codec::encode;
use crate::db::{Durability, Store};
use crate::error::{Result, StoreError};
use crate::l2::{AccountRow, L2Rows, slot_key, trie_key};
use crate::table::Table;
use kedge_vm::{StateDiff, TrieDiff};
use rocksdb::WriteBatch;

impl Store {
    /// Writes a part of the state after block 0 into a database that has no block yet. All parts, together
    /// with the state of the block that [`Change::write_genesis`](crate::Change::write_genesis) adds then, are
    /// the state that its header commits to. On disk with that block.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when there are blocks, and what RocksDB reports.
    pub fn load_state(&self, state: &StateDiff, trie: &TrieDiff) -> Result<()> {
        if self.latest()?.is_some() {
            return Err(StoreError::NotRecording { table: Table::Accounts });
        }
        let mut batch = WriteBatch::default();
        let mut put = |table, key: &[u8], value: &[u8]| {
            batch.put_cf(self.family(table), key, value);
        };
        for (hash, code) in &state.codes {
            put(Table::Codes, hash.as_slice(), code);
        }
        for (address, account) in &state.accounts {
            if let Some(account) = account {
                put(Table::Accounts, address.as_slice(), &encode(&AccountRow(*account)));
            }
        }
        for ((address, slot), value) in &state.storage {
            if !value.is_zero() {
                put(Table::Storage, &slot_key(*address, *slot), &encode(value));
            }
        }
        for ((owner, path), node) in &trie.nodes {
            if let Some(node) = node {
                let (table, key) = trie_key(*owner, path);
                put(table, &key, node);
            }
        }
        self.write(batch, Durability::Buffered)
    }
}
