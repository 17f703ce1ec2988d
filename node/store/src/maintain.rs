//! What an operator does with a whole database: sizes, compaction, copies.

use crate::db::{Durability, Store};
use crate::error::Result;
use crate::table::Table;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{WriteBatch, properties};
use std::path::Path;

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// Rows, about: rows that were overwritten or deleted count until compaction.
    pub rows: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// The tables that hold what this node did and not what the chain is.
const OWN: [Table; 5] =
    [Table::OwnTxs, Table::Wallet, Table::Publications, Table::Mempool, Table::Roles];

impl Store {
    /// How large a table is.
    ///
    /// # Errors
    /// When the database fails.
    pub fn table_size(&self, table: Table) -> Result<TableSize> {
        let get = |name| {
            let value = self.db.property_int_value_cf(self.family(table), name);
            value.map(Option::unwrap_or_default).map_err(|source| self.error(source))
        };
        Ok(TableSize {
            rows: get(properties::ESTIMATE_NUM_KEYS)?,
            bytes: get(properties::TOTAL_SST_FILES_SIZE)?,
        })
    }

    /// Rewrites a table without what was overwritten or deleted.
    ///
    /// # Errors
    /// When the database fails.
    pub fn compact(&self, table: Table) -> Result<()> {
        let family = self.family(table);
        self.db.flush_cf(family).map_err(|source| self.error(source))?;
        self.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Makes a copy of the database as it is now in the new directory `to`. Files are shared by hard links
    /// where both are in one file system.
    ///
    /// # Errors
    /// When the database fails, or `to` exists.
    pub fn checkpoint(&self, to: &Path) -> Result<()> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|source| self.error(source))?;
        checkpoint.create_checkpoint(to).map_err(|source| self.error(source))
    }

    /// Removes for good what this node did and not what the chain is: its Bitcoin transactions, wallets,
    /// publications, waiting transactions, what its roles remember.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_own_records(&self) -> Result<()> {
        for table in OWN {
            let mut batch = WriteBatch::default();
            for row in self.reader().all(table) {
                batch.delete_cf(self.family(table), row?.0);
            }
            self.write(batch, Durability::Synced)?;
            self.compact(table)?;
        }
        Ok(())
    }
}
