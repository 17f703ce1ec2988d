//! Kedge's store: RocksDB tables declared in [one list](Table), one atomic write per block, exact undo.
//!
//! * [`Store`] opens the database and refuses one that belongs to another chain or a newer version.
//! * [`Change`] is one atomic write. Inside it, blocks of the L2 chain and of Bitcoin are *recorded*:
//!   what they overwrite goes to their undo record, so each forward write has an exact unwind.
//! * [`Reader`] is a consistent view, cheap enough for one per request.

mod change;
mod codec;
mod db;
mod error;
mod read;
mod table;

pub use change::Change;
pub use db::{Durability, Identity, SCHEMA, Store};
pub use error::{Result, StoreError};
pub use read::{Reader, Row, Rows};
pub use table::{Domain, Table};
