//! Opening the database, checking that it is the one meant, and the atomic write.

use crate::cache::RowCache;
use crate::change::Change;
use crate::codec::{decode, encode};
use crate::error::{Result, StoreError};
use crate::read::{Reader, Rows};
use crate::table::Table;
use crate::tries::{NodeRows, node_of_key, one_node};
use alloy_primitives::{B256, Bytes};
use kedge_genesis::Network;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, DBPinnableSlice, ErrorKind, Options, WriteBatch, WriteBufferManager,
    WriteOptions,
};
use std::path::{Path, PathBuf};

/// The layout that this version reads and writes. Raised with every incompatible change.
pub const SCHEMA: u32 = 6;

/// Which chain a database belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The named network.
    pub network: Network,
    /// Hash of the consensus parameters.
    pub params: B256,
    /// Hash of L2 block 0.
    pub genesis: B256,
}

/// The database of one node. Shared as `Arc<Store>`; one process at a time.
#[derive(Debug)]
pub struct Store {
    pub(crate) db: DB,
    pub(crate) cache: RowCache,
    path: PathBuf,
}

/// How far a write has to get before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk (the write-ahead log is synchronised): survives loss of power.
    Synced,
    /// With the operating system: survives the end of the process.
    Buffered,
}

/// What an operator can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes for all caches together: a quarter of it for rows of the latest state, the rest for RocksDB's: blocks
    /// of tables, their indexes and filters, and a quarter of that for writes that are not in tables yet.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20 }
    }
}

/// What an entry of the cache takes: a block of a table, or a part of an index or filter.
const BLOCK_BYTES: usize = 4 << 10;

pub(crate) const SCHEMA_KEY: &[u8] = b"schema";
const NETWORK_KEY: &[u8] = b"network";
const PARAMS_KEY: &[u8] = b"params";
const GENESIS_KEY: &[u8] = b"genesis";

impl Store {
    /// Opens the database in directory `path`, creating it when there is none, and checks that it
    /// belongs to the chain `identity`. A database that is refused is left as it was.
    ///
    /// # Errors
    /// [`StoreError::OtherChain`], [`StoreError::NewerSchema`], [`StoreError::OlderSchema`],
    /// [`StoreError::Locked`], and what RocksDB reports.
    pub fn open(path: impl AsRef<Path>, identity: &Identity) -> Result<Self> {
        Self::open_with(path, identity, &StoreOptions::default())
    }

    /// The same for a database that must be there.
    ///
    /// # Errors
    /// [`StoreError::NoDatabase`], and as [`Store::open`].
    pub fn open_existing(path: impl AsRef<Path>, identity: &Identity) -> Result<Self> {
        let path = path.as_ref();
        if !path.join("CURRENT").exists() {
            return Err(StoreError::NoDatabase { path: path.to_owned() });
        }
        Self::open(path, identity)
    }

    /// As [`Store::open`], with what an operator chose.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        path: impl AsRef<Path>,
        identity: &Identity,
        options: &StoreOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        std::fs::create_dir_all(path)
            .map_err(|reason| StoreError::Directory { path: path.to_owned(), reason })?;
        if path.join("CURRENT").exists() {
            check_unopened(path, identity)?;
        }
        let store = Self::open_files(path, options)?;
        if store.get(Table::Meta, SCHEMA_KEY)?.is_none() {
            let mut change = store.change();
            change.put(Table::Meta, SCHEMA_KEY, encode(&SCHEMA))?;
            change.put(Table::Meta, NETWORK_KEY, identity.network.name().as_bytes().to_vec())?;
            change.put(Table::Meta, PARAMS_KEY, identity.params.to_vec())?;
            change.put(Table::Meta, GENESIS_KEY, identity.genesis.to_vec())?;
            change.commit(Durability::Synced)?;
        }
        check_identity(path, identity, |key| store.get(Table::Meta, key))?;
        Ok(store)
    }

    fn open_files(path: &Path, chosen: &StoreOptions) -> Result<Self> {
        // Where indexes and filters do not fit into the rest, each read costs several.
        let rows = chosen.cache_bytes / 4;
        let blocks = chosen.cache_bytes - rows;
        // Many threads look things up in it.
        let cache = Cache::new_hyper_clock_cache(blocks, BLOCK_BYTES);
        // Counted as part of the cache, so that one number bounds both.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            blocks / 4,
            false,
            cache.clone(),
        );
        let mut options = Options::default();
        options.set_write_buffer_manager(&buffers);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_total_wal_size(256 << 20);
        options.set_keep_log_file_num(2);
        options.set_max_background_jobs(2);
        options.set_max_open_files(512);
        let families = Table::ALL.iter().map(|table| {
            let mut table_options = BlockBasedOptions::default();
            table_options.set_block_cache(&cache);
            table_options.set_bloom_filter(10.0, false);
            table_options.set_cache_index_and_filter_blocks(true);
            table_options.set_pin_l0_filter_and_index_blocks_in_cache(true);
            // In parts, of which those are in the cache that are used: all of them are larger than it.
            table_options.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
            table_options.set_partition_filters(true);
            table_options.set_pin_top_level_index_and_filter(true);
            let mut options = Options::default();
            let mut compression = DBCompressionType::Lz4;
            if *table == Table::Tries {
                // A look-up goes to a node and not to a row, and hashes do not become shorter.
                table_options.set_whole_key_filtering(false);
                options.set_prefix_extractor(node_of_key());
                compression = DBCompressionType::None;
            }
            options.set_block_based_table_factory(&table_options);
            options.set_compression_type(compression);
            options.set_write_buffer_size(16 << 20);
            if matches!(table, Table::Accounts | Table::Storage | Table::Tries) {
                // Most of what is looked up there has not changed for long.
                options.set_memtable_prefix_bloom_ratio(0.05);
                options.set_memtable_whole_key_filtering(*table != Table::Tries);
            }
            // Most tables get few writes; the default would take a megabyte for each.
            options.set_arena_block_size(64 << 10);
            ColumnFamilyDescriptor::new(table.name(), options)
        });
        let default = ColumnFamilyDescriptor::new("default", Options::default());
        let db = DB::open_cf_descriptors(&options, path, families.chain([default]))
            .map_err(|source| database_error(path, source))?;
        Ok(Self { db, cache: RowCache::new(rows), path: path.to_owned() })
    }

    /// Directory of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A consistent view of the database at this moment. Cheap; hold it for one request.
    pub fn reader(&self) -> Reader<'_> {
        let before = self.cache.version();
        let snapshot = self.db.snapshot();
        // Where it is the same before and after, it is what the snapshot shows.
        let version = before.filter(|version| self.cache.version() == Some(*version));
        Reader::new(self, snapshot, version)
    }

    /// Starts an atomic change. Tables that follow a chain may be changed by one writer at a time
    /// only (the engine); free tables by anybody.
    pub fn change(&self) -> Change<'_> {
        Change::new(self)
    }

    /// Writes one row of a free table at once.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when the table follows a chain, and what RocksDB reports.
    pub fn put(
        &self,
        table: Table,
        key: &[u8],
        value: Vec<u8>,
        durability: Durability,
    ) -> Result<()> {
        let mut change = self.change();
        change.put(table, key, value)?;
        change.commit(durability)
    }

    /// Deletes one row of a free table at once.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn delete(&self, table: Table, key: &[u8], durability: Durability) -> Result<()> {
        let mut change = self.change();
        change.delete(table, key)?;
        change.commit(durability)
    }

    /// Whether a block is being written: another write may have to wait until it is on disk.
    pub fn is_writing(&self) -> bool {
        self.cache.version().is_none()
    }

    pub(crate) fn family(&self, table: Table) -> &ColumnFamily {
        // `open_files` names every table, and RocksDB opens all that are named or fails.
        self.db.cf_handle(table.name()).expect("every table is opened with the database")
    }

    /// Puts everything that was written on disk.
    ///
    /// # Errors
    /// What RocksDB reports.
    pub fn sync(&self) -> Result<()> {
        self.db.flush_wal(true).map_err(|source| self.error(source))
    }

    /// A row that no write which is under way changes.
    pub(crate) fn get_beside_write(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        match self.cache.current(table, key) {
            Some(row) => Ok(row),
            None => self.get(table, key),
        }
    }

    pub(crate) fn error(&self, source: rocksdb::Error) -> StoreError {
        database_error(&self.path, source)
    }

    /// A row as RocksDB gives it, for longer than that has it.
    pub(crate) fn owned(
        &self,
        row: std::result::Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>,
    ) -> Result<Option<Bytes>> {
        let row = row.map_err(|source| self.error(source))?;
        Ok(row.map(|row| Bytes::copy_from_slice(&row)))
    }

    pub(crate) fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db.write_opt(batch, &options).map_err(|source| self.error(source))
    }
}

impl Rows for Store {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let read = || self.owned(self.db.get_pinned_cf(self.family(table), key));
        match self.cache.version() {
            Some(version) => self.cache.get(version, table, key, read),
            None => read(),
        }
    }

    fn node_rows(&self) -> NodeRows<'_> {
        let rows = self.db.raw_iterator_cf_opt(self.family(Table::Tries), one_node());
        NodeRows { store: self, rows }
    }
}

fn database_error(path: &Path, reason: rocksdb::Error) -> StoreError {
    let (path, text) = (path.to_owned(), reason.to_string());
    if text.contains("/LOCK") && text.contains("lock") {
        StoreError::Locked { path }
    } else if reason.kind() == ErrorKind::Corruption || text.contains("No such file") {
        StoreError::Damaged { path, reason }
    } else {
        StoreError::Database { path, reason }
    }
}

/// Reads schema and identity without taking the lock or writing anything.
fn check_unopened(path: &Path, identity: &Identity) -> Result<()> {
    let options = Options::default();
    let names = DB::list_cf(&options, path).map_err(|source| database_error(path, source))?;
    if !names.iter().any(|name| name == Table::Meta.name()) {
        return Ok(());
    }
    let db = DB::open_cf_for_read_only(&options, path, &names, false)
        .map_err(|source| database_error(path, source))?;
    let Some(meta) = db.cf_handle(Table::Meta.name()) else { return Ok(()) };
    let read = |key: &[u8]| db.get_cf(meta, key).map_err(|source| database_error(path, source));
    if read(SCHEMA_KEY)?.is_none() {
        return Ok(());
    }
    check_identity(path, identity, |key| Ok(read(key)?.map(Into::into)))?;
    let known = |name: &&String| {
        *name != "default" && !Table::ALL.iter().any(|table| table.name() == name.as_str())
    };
    match names.iter().find(known) {
        None => Ok(()),
        Some(name) => Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found: format!("with table {name}"),
            supported: SCHEMA,
        }),
    }
}

fn check_identity(
    path: &Path,
    identity: &Identity,
    read: impl Fn(&[u8]) -> Result<Option<Bytes>>,
) -> Result<()> {
    let get = |key: &[u8]| {
        read(key)?.ok_or_else(|| StoreError::Missing {
            table: Table::Meta.name(),
            key: String::from_utf8_lossy(key).into_owned(),
        })
    };
    let found: u32 = decode(Table::Meta, SCHEMA_KEY, &get(SCHEMA_KEY)?)?;
    if found > SCHEMA {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found: found.to_string(),
            supported: SCHEMA,
        });
    }
    if found < SCHEMA {
        return Err(StoreError::OlderSchema { path: path.to_owned(), found, supported: SCHEMA });
    }
    let other = |what, expected: String, found: String| StoreError::OtherChain {
        path: path.to_owned(),
        what,
        expected,
        found,
    };
    let network = String::from_utf8_lossy(&get(NETWORK_KEY)?).into_owned();
    if network != identity.network.name() {
        return Err(other("network", identity.network.name().to_owned(), network));
    }
    for (what, key, expected) in [
        ("parameter hash", PARAMS_KEY, identity.params),
        ("genesis hash", GENESIS_KEY, identity.genesis),
    ] {
        let found = get(key)?;
        if *found != *expected.as_slice() {
            return Err(other(
                what,
                expected.to_string(),
                alloy_primitives::hex::encode_prefixed(found),
            ));
        }
    }
    Ok(())
}
