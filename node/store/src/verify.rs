//! Checking a whole database: nothing is believed that can be computed.
//!
//! * Every header hashes to its hash and to the next one's parent, and commits to the body and receipts that
//!   are stored with it; every index leads where it should, and holds nothing else.
//! * The state at `latest` is the one that the last header commits to: every node of the tries has the hash
//!   by which its parent knows it, every account and slot is in them, and nothing more is.
//! * Every value in the history is proven against the header of the block before its change, on the nodes of
//!   that block. The undo record of a block that may be unwound names the changes and the nodes that there are
//!   for it, and no others.
//! * Bitcoin's blocks are a chain with the bodies that their headers commit to, and what was derived from
//!   them fits the L2 blocks.

mod blocks;
mod history;
mod l1;
mod state;

use crate::db::Store;
use crate::error::{Result, StoreError};
use crate::read::Reader;
use crate::table::Table;
use alloy_primitives::hex;

/// Faults that are listed; more are counted only.
const LISTED: usize = 100;

/// What is being checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyStep {
    /// L2 blocks with their indexes.
    Blocks,
    /// Accounts, slots and tries at `latest`.
    State,
    /// Values from before changes.
    History,
    /// Bitcoin's blocks and what was derived from them.
    Bitcoin,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the table.
    pub table: &'static str,
    /// The row's key, hex; empty where it is about the table.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// L2 blocks checked.
    pub blocks: u64,
    /// Rows of the log index checked.
    pub log_rows: u64,
    /// Accounts checked.
    pub accounts: u64,
    /// Slots checked.
    pub slots: u64,
    /// Trie nodes checked.
    pub trie_nodes: u64,
    /// Rows of the history checked.
    pub history: u64,
    /// Bitcoin blocks checked.
    pub l1_blocks: u64,
    /// What is wrong, the first hundred.
    pub faults: Vec<Fault>,
    /// How much more is wrong.
    pub more_faults: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    pub const fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A check under way.
struct Verifier<'v, 's> {
    reader: Reader<'s>,
    found: Verification,
    /// Changes that undo records of blocks above the last final one name.
    recorded: u64,
    progress: &'v mut dyn FnMut(VerifyStep, u64),
}

impl Store {
    /// Checks the database. `progress` is told of every step how far it is: blocks, rows, Bitcoin blocks.
    ///
    /// # Errors
    /// When the database cannot be read. What is wrong with its content is in the answer.
    pub fn verify(&self, progress: &mut dyn FnMut(VerifyStep, u64)) -> Result<Verification> {
        let reader = self.reader();
        let mut verifier =
            Verifier { reader, found: Verification::default(), recorded: 0, progress };
        verifier.blocks()?;
        verifier.state()?;
        verifier.history()?;
        verifier.bitcoin()?;
        Ok(verifier.found)
    }
}

impl Verifier<'_, '_> {
    fn fault(&mut self, table: Table, key: &[u8], what: impl Into<String>) {
        if self.found.faults.len() < LISTED {
            let (table, key) = (table.name(), hex::encode(key));
            self.found.faults.push(Fault { table, key, what: what.into() });
        } else {
            self.found.more_faults = self.found.more_faults.saturating_add(1);
        }
    }

    /// A fault unless `holds`.
    fn check(&mut self, holds: bool, table: Table, key: &[u8], what: &str) {
        if !holds {
            self.fault(table, key, what);
        }
    }

    /// What a row holds; a fault where it is missing or damaged.
    fn row<T>(&mut self, read: Result<Option<T>>, table: Table, key: &[u8]) -> Result<Option<T>> {
        match self.readable(read, table, key)? {
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => {
                self.fault(table, key, "is missing");
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// What was read; a fault where what is stored is damaged or lacks something.
    fn readable<T>(&mut self, read: Result<T>, table: Table, key: &[u8]) -> Result<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { table: of, key: row }) => {
                self.fault(table, key, format!("row {row} of table {of} is damaged"));
                Ok(None)
            }
            Err(StoreError::Missing { table: of, key: row }) => {
                self.fault(table, key, format!("row {row} of table {of} is missing"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A fault unless the table has that many rows.
    fn check_rows(&mut self, table: Table, expected: u64) -> Result<()> {
        let mut found = 0_u64;
        for row in self.reader.all(table) {
            row?;
            found = found.saturating_add(1);
        }
        if found != expected {
            self.fault(table, &[], format!("has {found} rows, expected {expected}"));
        }
        Ok(())
    }
}
