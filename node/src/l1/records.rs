//! What the wallet and the publisher keep: small records in a few tables. The node's store implements
//! this; so does [`MemoryRecords`] for tests.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordTable {
    /// Changesets of wallets.
    Wallet,
    /// Bitcoin transactions signed here, and what they are for.
    OwnTx,
    /// What the roles of a node have to remember.
    Roles,
}

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// One record to write, or to delete where there is no value.
pub type RecordWrite = (RecordTable, Vec<u8>, Option<Vec<u8>>);

/// A durable map from keys to values.
pub trait Records: Send + Sync {
    /// The records of a table whose key begins with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// When the storage fails.
    fn load(&self, table: RecordTable, prefix: &[u8]) -> anyhow::Result<Vec<Record>>;

    /// Writes all of it or nothing, durably: it is there after a crash once this returns.
    ///
    /// # Errors
    /// When the storage fails.
    fn write(&self, writes: Vec<RecordWrite>) -> anyhow::Result<()>;
}

/// Records that are forgotten with the process.
#[derive(Debug, Default)]
pub struct MemoryRecords(Mutex<Rows>);

type Rows = BTreeMap<(RecordTable, Vec<u8>), Vec<u8>>;

impl Records for MemoryRecords {
    fn load(&self, table: RecordTable, prefix: &[u8]) -> anyhow::Result<Vec<Record>> {
        let records = self.0.lock();
        Ok(records
            .range((table, prefix.to_vec())..)
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, writes: Vec<RecordWrite>) -> anyhow::Result<()> {
        let mut records = self.0.lock();
        for (table, key, value) in writes {
            match value {
                Some(value) => records.insert((table, key), value),
                None => records.remove(&(table, key)),
            };
        }
        Ok(())
    }
}
