//! The rows that requests and blocks read most, in memory: as they are now.
//!
//! What is here belongs to one moment, known by a version that every write to these tables raises. A reader
//! sees one moment too, and uses what is here only where that is the same one:
//!
//! * the version is odd from before such a write until after it, and a reader that begins meanwhile does
//!   without;
//! * a row counts as found only if the version is still the reader's after the look-up: a write puts its
//!   rows here while the version is odd, so nobody takes a newer row for theirs;
//! * a row that was read is put here while the version is held, so that no write comes in between and what
//!   was before it stays.

use crate::error::Result;
use crate::table::Table;
use alloy_primitives::{Bytes, map::DefaultHashBuilder};
use parking_lot::{Mutex, RwLock};
use quick_cache::{
    Equivalent, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a row takes besides its bytes, about.
const ROW_BYTES: usize = 128;

/// A row, or that there is none.
type Row = Option<Bytes>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    table: Table,
    key: Box<[u8]>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyRef<'k> {
    table: Table,
    key: &'k [u8],
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, other: &Key) -> bool {
        self.table == other.table && *self.key == *other.key
    }
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, Row> for Weight {
    fn weight(&self, key: &Key, row: &Row) -> u64 {
        (ROW_BYTES + key.key.len() + row.as_ref().map_or(0, |row| row.len())) as u64
    }
}

/// A moment between two writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(u64);

/// Rows as they are now.
#[derive(Debug)]
pub(crate) struct RowCache {
    rows: Cache<Key, Row, Weight, DefaultHashBuilder>,
    version: AtomicU64,
    /// Held shared by whoever puts a row in, exclusively by a write that begins.
    filling: RwLock<()>,
    /// Held by a write from beginning to end.
    writing: Mutex<()>,
}

impl RowCache {
    /// An empty one that takes so many bytes at most.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            rows: Cache::with(
                bytes / (2 * ROW_BYTES),
                bytes as u64,
                Weight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            version: AtomicU64::new(0),
            filling: RwLock::new(()),
            writing: Mutex::new(()),
        }
    }

    /// Whether rows of that table are kept here: the latest state, and what finds it and a block.
    pub(crate) const fn holds(table: Table) -> bool {
        matches!(
            table,
            Table::Meta
                | Table::L2Meta
                | Table::Headers
                | Table::Hashes
                | Table::Numbers
                | Table::Accounts
                | Table::Storage
                | Table::Codes
        )
    }

    /// The moment that this is; none while a write is under way.
    pub(crate) fn version(&self) -> Option<Version> {
        let version = self.version.load(Ordering::SeqCst);
        version.is_multiple_of(2).then_some(Version(version))
    }

    /// The row at that moment: from here, or what `read` gives, which is kept if it is still that moment.
    pub(crate) fn get(
        &self,
        version: Version,
        table: Table,
        key: &[u8],
        read: impl FnOnce() -> Result<Row>,
    ) -> Result<Row> {
        if !Self::holds(table) {
            return read();
        }
        if let Some(row) = self.rows.get(&KeyRef { table, key })
            && self.version() == Some(version)
        {
            return Ok(row);
        }
        let row = read()?;
        // Where a write begins right now, it is the next reader who puts the row in.
        if let Some(_filling) = self.filling.try_read()
            && self.version() == Some(version)
        {
            self.rows.insert(Key { table, key: key.into() }, row.clone());
        }
        Ok(row)
    }

    /// The row that is here, whatever the moment: it is the current one unless a write of it is under way.
    pub(crate) fn current(&self, table: Table, key: &[u8]) -> Option<Row> {
        if Self::holds(table) { self.rows.get(&KeyRef { table, key }) } else { None }
    }

    /// Runs a write that makes these rows of tables that are kept here what they are. They are kept if it
    /// succeeds.
    pub(crate) fn write(
        &self,
        rows: impl Iterator<Item = (Table, Vec<u8>, Row)>,
        write: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let _writing = self.writing.lock();
        let version = self.version.load(Ordering::SeqCst);
        let odd = version | 1;
        {
            let _filling = self.filling.write();
            self.version.store(odd, Ordering::SeqCst);
        }
        if version == odd {
            // An earlier write did not come to its end.
            self.rows.clear();
        }
        let out = write();
        for (table, key, row) in rows {
            let key = Key { table, key: key.into() };
            match out {
                Ok(()) => self.rows.insert(key, row),
                Err(_) => drop(self.rows.remove(&key)),
            }
        }
        self.version.store(odd + 1, Ordering::SeqCst);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::corrupt;
    use std::collections::HashMap;

    const TABLE: Table = Table::Accounts;

    fn read(cache: &RowCache, version: Version, value: &[u8]) -> Option<Vec<u8>> {
        let value = Bytes::copy_from_slice(value);
        let row = cache.get(version, TABLE, b"key", || Ok(Some(value))).unwrap();
        row.map(|row| row.to_vec())
    }

    /// Writes `new`.
    fn write(cache: &RowCache, outcome: Result<()>) -> Result<()> {
        let row = (TABLE, b"key".to_vec(), Some(Bytes::from_static(b"new")));
        cache.write(std::iter::once(row), || outcome)
    }

    #[test]
    fn a_row_is_read_once_between_two_writes() {
        let cache = RowCache::new(1 << 20);
        let version = cache.version().unwrap();
        assert_eq!(read(&cache, version, b"old").unwrap(), b"old");
        assert_eq!(read(&cache, version, b"not asked").unwrap(), b"old");
        write(&cache, Ok(())).unwrap();
        let version = cache.version().unwrap();
        assert_eq!(read(&cache, version, b"not asked").unwrap(), b"new");
    }

    #[test]
    fn of_a_write_that_failed_nothing_is_kept() {
        let cache = RowCache::new(1 << 20);
        assert_eq!(read(&cache, cache.version().unwrap(), b"old").unwrap(), b"old");
        write(&cache, Err(corrupt(TABLE, b"key"))).unwrap_err();
        assert_eq!(read(&cache, cache.version().unwrap(), b"read").unwrap(), b"read");
    }

    #[test]
    fn a_reader_from_before_a_write_neither_sees_nor_leaves_a_row() {
        let cache = RowCache::new(1 << 20);
        let before = cache.version().unwrap();
        let rows = || {
            assert_eq!(cache.version(), None);
            assert_eq!(read(&cache, before, b"old").unwrap(), b"old");
            (TABLE, b"key".to_vec(), Some(Bytes::from_static(b"new")))
        };
        cache.write(std::iter::once_with(rows), || Ok(())).unwrap();
        let after = cache.version().unwrap();
        assert_eq!(read(&cache, before, b"old").unwrap(), b"old");
        assert_eq!(read(&cache, after, b"not asked").unwrap(), b"new");
        assert_eq!(read(&cache, before, b"old").unwrap(), b"old");
        assert_eq!(read(&cache, after, b"not asked").unwrap(), b"new");
    }

    #[test]
    fn after_a_write_that_panicked_nothing_is_kept_until_the_next() {
        let cache = RowCache::new(1 << 20);
        assert_eq!(read(&cache, cache.version().unwrap(), b"old").unwrap(), b"old");
        let write = || cache.write(std::iter::empty(), || panic!("as a bug would"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).unwrap_err();
        assert_eq!(cache.version(), None);
        cache.write(std::iter::empty(), || Ok(())).unwrap();
        assert_eq!(read(&cache, cache.version().unwrap(), b"read").unwrap(), b"read");
    }

    #[test]
    fn that_there_is_no_row_is_kept_too() {
        let cache = RowCache::new(1 << 20);
        let version = cache.version().unwrap();
        assert_eq!(cache.get(version, TABLE, b"key", || Ok(None)).unwrap(), None);
        assert_eq!(read(&cache, version, b"not asked"), None);
    }

    #[test]
    fn no_more_bytes_are_kept_than_allowed() {
        let cache = RowCache::new(1 << 16);
        let version = cache.version().unwrap();
        for number in 0..10_000u32 {
            let value = number.to_be_bytes().into();
            cache.get(version, TABLE, &number.to_be_bytes(), || Ok(Some(value))).unwrap();
        }
        assert!(cache.rows.weight() <= 1 << 16);
        assert!(!cache.rows.is_empty());
    }

    #[test]
    fn readers_beside_a_writer_see_their_own_moment() {
        // Two rows that every write changes together, in a database of versions.
        let cache = RowCache::new(1 << 20);
        let database = RwLock::new(HashMap::from([(b"a", 0u64), (b"b", 0)]));
        let snapshot = || {
            let before = cache.version();
            let snapshot = database.read().clone();
            (before.filter(|version| cache.version() == Some(*version)), snapshot)
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut hits = 0u32;
                        loop {
                            let (version, snapshot) = snapshot();
                            let Some(version) = version else { continue };
                            let [a, b] = [b"a", b"b"].map(|key| {
                                let row = || Ok(Some(snapshot[key].to_be_bytes().into()));
                                cache.get(version, TABLE, key, row).unwrap().unwrap().to_vec()
                            });
                            assert_eq!(a, snapshot[b"a"].to_be_bytes());
                            assert_eq!(a, b);
                            hits += 1;
                            if snapshot[b"a"] == 2_000 && hits > 100 {
                                return;
                            }
                        }
                    })
                })
                .collect();
            for number in 1..=2_000u64 {
                let value = Some(Bytes::copy_from_slice(&number.to_be_bytes()));
                let changed = [b"a", b"b"].map(|key| (TABLE, key.to_vec(), value.clone()));
                let write = || {
                    database.write().values_mut().for_each(|value| *value = number);
                    Ok(())
                };
                cache.write(changed.into_iter(), write).unwrap();
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }
}
