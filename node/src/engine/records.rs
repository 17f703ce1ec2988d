//! The wallet's and the publisher's records in the node's store.

use crate::l1::records::{RecordTable, RecordWrite, Records};
use kedge_store::{Durability, Store, Table};

const fn table_of(table: RecordTable) -> Table {
    match table {
        RecordTable::Wallet => Table::Wallet,
        RecordTable::OwnTx => Table::OwnTxs,
        RecordTable::Roles => Table::Roles,
    }
}

impl Records for Store {
    fn load(&self, table: RecordTable, prefix: &[u8]) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let reader = self.reader();
        let rows = reader.prefixed(table_of(table), prefix);
        Ok(rows
            .map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())))
            .collect::<Result<_, _>>()?)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> anyhow::Result<()> {
        let mut change = self.change();
        for (table, key, value) in writes {
            match value {
                Some(value) => change.put(table_of(table), &key, value)?,
                None => change.delete(table_of(table), &key)?,
            }
        }
        Ok(change.commit(Durability::Synced)?)
    }
}
