//! Kedge's store: RocksDB tables declared in [one list](Table), one atomic write per block, exact undo.
//!
//! * [`Store`] opens the database and refuses one that belongs to another chain or a newer version.
//! * [`Change`] is one atomic write. Inside it, blocks of the L2 chain and of Bitcoin are *recorded*:
//!   what they overwrite goes to their undo record, so each forward write has an exact unwind.
//! * [`Reader`] is a consistent view, cheap enough for one per request. [`L2Rows`] and [`L1Rows`] read
//!   rows by key from either; [`Reader`] adds what needs a scan, and [`StateAt`], the state after any
//!   block.
//!
//! Accounts and slots are kept at `latest`, and for each change of one the value from before it, keyed by
//! account (and slot) and block number. The state after block `n` is the first change after `n`, or the
//! latest value where there is none. Of the nodes of the tries each that there was is kept under the block that
//! made it. So the state after every block is at hand, unless [`Store::prune_states`] dropped old ones. With the
//! accounts that a block loaded and left as they were, which are noted too, the history of accounts tells every
//! block that touched an address.

mod bonds;
mod cache;
mod change;
mod codec;
mod db;
mod error;
mod history;
mod l1;
mod l2;
mod load;
mod logs;
mod maintain;
mod read;
mod signatures;
mod state;
mod table;
mod tries;
mod undo;
mod verify;

pub use bonds::{BondEnd, BondRow, BondRows, BondSpendRow};
pub use change::{Change, FinishedChange};
pub use db::{Durability, Identity, SCHEMA, Store, StoreOptions};
pub use error::{Result, StoreError};
pub use history::oldest_state;
pub use l1::{
    AssertionRow, BatchRow, DepositRow, L1Row, L1Rows, L1Sums, NoteRow, OwnClaims, PayoutRow,
    RejectionRow, Solvency, UnattributedRow, VaultUtxo, finalized,
};
pub use l2::{BlockInfo, L2Rows, L2Sums, QueuedWithdrawal};
pub use logs::{LogBlocks, LogTerms};
pub use maintain::TableSize;
pub use read::{Reader, Row, Rows};
pub use signatures::{SignatureRow, SignatureRows};
pub use state::{LatestState, StateAt};
pub use table::{Domain, Table};
pub use tries::NodeRows;
pub use verify::{Fault, Verification, VerifyStep};
