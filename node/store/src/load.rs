//! A state larger than memory, for a new database.

use crate::db::{Durability, Store};
use crate::error::{Result, StoreError};
use crate::l2::{L2Rows, node_rows, state_rows};
use crate::table::Table;
use kedge_genesis::L2Number;
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
        for (table, key, value) in state_rows(state) {
            if let Some(value) = value {
                batch.put_cf(self.family(table), key, value);
            }
        }
        for (key, node) in node_rows(trie, L2Number(0)) {
            batch.put_cf(self.family(Table::Tries), key, node);
        }
        self.write(batch, Durability::Buffered)
    }
}
