//! Reading rows: through a snapshot ([`Reader`]) or on top of a pending [`crate::Change`].

use crate::cache::Version;
use crate::codec::{Codec, decode};
use crate::db::Store;
use crate::error::{Result, StoreError};
use crate::table::Table;
use crate::tries::{NodeRows, one_node};
use alloy_primitives::{Bytes, hex};
use kedge_genesis::L2Number;
use rocksdb::{Direction, IteratorMode, ReadOptions, Snapshot};
use std::sync::LazyLock;

/// Something that rows can be read from.
pub trait Rows: Sync {
    /// The value at `key`.
    ///
    /// # Errors
    /// What RocksDB reports.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// Looks nodes of tries up.
    fn node_rows(&self) -> NodeRows<'_>;

    /// The node of a trie at the latest block, by the key that names it; `rows` are [these](Self::node_rows).
    ///
    /// # Errors
    /// What RocksDB reports.
    fn find_node(&self, rows: &mut NodeRows<'_>, node: &[u8]) -> Result<Option<Bytes>> {
        rows.find(node, L2Number(u64::MAX))
    }
}

/// Fewer reads than this are not worth another thread.
const AT_ONCE: usize = 32;

static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// Nodes at the latest block, in the order of their keys here, read on all cores.
pub(crate) fn find_nodes(
    rows: &(impl Rows + ?Sized),
    nodes: &[Vec<u8>],
) -> Result<Vec<Option<Bytes>>> {
    let read = |nodes: &[Vec<u8>]| {
        let mut of = rows.node_rows();
        nodes.iter().map(|node| rows.find_node(&mut of, node)).collect::<Result<Vec<_>>>()
    };
    if nodes.len() <= AT_ONCE {
        return read(nodes);
    }
    let each = nodes.len().div_ceil(*CORES).max(AT_ONCE);
    let Some((first, others)) = nodes.split_at_checked(each) else { return read(nodes) };
    std::thread::scope(|scope| {
        let others: Vec<_> = others.chunks(each).map(|part| scope.spawn(|| read(part))).collect();
        let mut all = read(first)?;
        for other in others {
            match other.join() {
                Ok(part) => all.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// The decoded row at `key`.
pub(crate) fn row<T: Codec>(
    rows: &(impl Rows + ?Sized),
    table: Table,
    key: &[u8],
) -> Result<Option<T>> {
    rows.get(table, key)?.map(|value| decode(table, key, &value)).transpose()
}

/// A row that does not decode.
pub(crate) fn corrupt(table: Table, key: &[u8]) -> StoreError {
    StoreError::Corrupt { table: table.name(), key: hex::encode(key) }
}

/// A row that must exist and does not.
pub(crate) fn missing(table: Table, key: &[u8]) -> StoreError {
    StoreError::Missing { table: table.name(), key: hex::encode(key) }
}

/// A key and its value.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// A consistent view of the store at one moment: later writes do not show.
pub struct Reader<'s> {
    pub(crate) store: &'s Store,
    pub(crate) snapshot: Snapshot<'s>,
    /// The moment of the snapshot, where the cache knows it.
    version: Option<Version>,
}

impl core::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader").field("store", &self.store.path()).finish_non_exhaustive()
    }
}

impl Rows for Reader<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let read = || {
            let row = self.snapshot.get_pinned_cf(self.store.family(table), key);
            self.store.owned(row)
        };
        match self.version {
            Some(version) => self.store.cache.get(version, table, key, read),
            None => read(),
        }
    }

    fn node_rows(&self) -> NodeRows<'_> {
        let rows = self.snapshot.raw_iterator_cf_opt(self.store.family(Table::Tries), one_node());
        NodeRows { store: self.store, rows }
    }
}

impl<'s> Reader<'s> {
    pub(crate) fn new(store: &'s Store, snapshot: Snapshot<'s>, version: Option<Version>) -> Self {
        Self { store, snapshot, version }
    }

    /// The rows from `key` on, in key order.
    pub fn from<'r>(
        &'r self,
        table: Table,
        key: &[u8],
    ) -> impl Iterator<Item = Result<Row>> + use<'r, 's> {
        self.iterate(table, IteratorMode::From(key, Direction::Forward), None)
    }

    /// The rows from `key` on downwards, in reverse key order.
    pub fn down_from<'r>(
        &'r self,
        table: Table,
        key: &[u8],
    ) -> impl Iterator<Item = Result<Row>> + use<'r, 's> {
        self.iterate(table, IteratorMode::From(key, Direction::Reverse), None)
    }

    /// All rows whose key starts with `prefix`, in key order.
    pub fn prefixed<'r>(
        &'r self,
        table: Table,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Row>> + use<'r, 's> {
        let prefix = prefix.to_vec();
        self.iterate(table, IteratorMode::From(&prefix, Direction::Forward), successor(&prefix))
    }

    /// All rows of a table, in key order.
    pub fn all<'r>(&'r self, table: Table) -> impl Iterator<Item = Result<Row>> + use<'r, 's> {
        self.iterate(table, IteratorMode::Start, None)
    }

    /// The last row of a table.
    ///
    /// # Errors
    /// What RocksDB reports.
    pub fn last(&self, table: Table) -> Result<Option<Row>> {
        self.iterate(table, IteratorMode::End, None).next().transpose()
    }

    /// The first row at or after `from` whose key is below `end`.
    pub(crate) fn first_between(
        &self,
        table: Table,
        from: &[u8],
        end: Option<Vec<u8>>,
    ) -> Result<Option<Row>> {
        self.iterate(table, IteratorMode::From(from, Direction::Forward), end).next().transpose()
    }

    /// The last row at or before `from` whose key begins with `prefix`.
    pub(crate) fn last_with_prefix(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
    ) -> Result<Option<Row>> {
        let row = self.down_from(table, from).next().transpose()?;
        Ok(row.filter(|(key, _)| key.starts_with(prefix)))
    }

    fn iterate<'r>(
        &'r self,
        table: Table,
        mode: IteratorMode<'_>,
        end: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<Row>> + use<'r, 's> {
        let mut options = ReadOptions::default();
        // All of them, also where the table tells RocksDB of prefixes.
        options.set_total_order_seek(true);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        self.snapshot
            .iterator_cf_opt(self.store.family(table), options, mode)
            .map(|row| row.map_err(|source| self.store.error(source)))
    }
}

/// The smallest key above every key with this prefix; none when there is no such key.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
