//! What can go wrong with a store. Nothing here is about what a chain says.

use crate::table::{Domain, Table};
use std::path::PathBuf;

/// This machine failed, or the directory is not the one that was meant.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// RocksDB reports an error: disk full, permission.
    #[error("database at {path}: {reason}")]
    Database {
        /// Directory of the database.
        path: PathBuf,
        /// What RocksDB says. Not a source, since the message has it.
        reason: rocksdb::Error,
    },
    /// Files of the database are damaged or missing.
    #[error(
        "the database at {path} is damaged: {reason}; restore that folder from a copy, or remove it and \
         the node derives the chain again from Bitcoin"
    )]
    Damaged {
        /// Directory of the database.
        path: PathBuf,
        /// What RocksDB says.
        reason: rocksdb::Error,
    },
    /// The directory cannot be created.
    #[error("cannot create {path}: {reason}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// Another process (or another part of this one) has the database open.
    #[error("{path} is in use by another process; stop it or choose another --datadir")]
    Locked {
        /// Directory of the database.
        path: PathBuf,
    },
    /// The database holds another chain.
    #[error(
        "{path} holds another chain: its {what} is {found}, expected {expected}; choose another --datadir"
    )]
    OtherChain {
        /// Directory of the database.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What this program was started for.
        expected: String,
        /// What the database says.
        found: String,
    },
    /// The database was written by a later version of the program.
    #[error(
        "{path} was written by a newer kedge: schema {found}, this version knows {supported}; upgrade kedge"
    )]
    NewerSchema {
        /// Directory of the database.
        path: PathBuf,
        /// What the database says.
        found: String,
        /// The highest schema that this program reads.
        supported: u32,
    },
    /// The database was written by an older version whose layout this one cannot read.
    #[error(
        "{path} was written by an older kedge: schema {found}, this version needs {supported}; sync again \
         into an empty --datadir, or run the version that wrote it"
    )]
    OlderSchema {
        /// Directory of the database.
        path: PathBuf,
        /// What the database says.
        found: u32,
        /// The schema that this program reads.
        supported: u32,
    },
    /// A row does not decode: the database is damaged.
    #[error(
        "row {key} of table {table} is damaged; restore the store folder from a copy, or remove it and the \
         node derives the chain again from Bitcoin"
    )]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key, hex.
        key: String,
    },
    /// A row that must exist does not.
    #[error(
        "row {key} of table {table} is missing; restore the store folder from a copy, or remove it and the \
         node derives the chain again from Bitcoin"
    )]
    Missing {
        /// The table.
        table: &'static str,
        /// The key, hex.
        key: String,
    },
    /// The undo record of that block has been pruned or was never written.
    #[error("no undo record for {domain:?} block {number}")]
    NoUndo {
        /// Whose block.
        domain: Domain,
        /// Number or height.
        number: u64,
    },
    /// A write to a recorded table outside of a block, or blocks that are not nested properly.
    #[error("write to {table:?} outside of a recorded block")]
    NotRecording {
        /// The table.
        table: Table,
    },
    /// There is no database in the directory.
    #[error("there is no database at {path}; check --datadir")]
    NoDatabase {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The state after that block has been pruned.
    #[error(
        "state of block {number} has been pruned; the oldest one kept is that of block {oldest}"
    )]
    StatePruned {
        /// The block's number.
        number: u64,
        /// The oldest block after which the state is kept.
        oldest: u64,
    },
    /// The state at that block is not at hand.
    #[error("state of block {number} is not available")]
    StateUnavailable {
        /// The block's number.
        number: u64,
    },
}

/// Result of a store operation.
pub type Result<T, E = StoreError> = core::result::Result<T, E>;
