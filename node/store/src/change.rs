//! One atomic write, recording what it overwrites.
//!
//! Writes to a table that follows a chain happen inside a *recorded block* of that chain. The value
//! that a key had when the block was begun goes to the block's undo record, or to the history where the
//! table has one and the record names the key, so unwinding a block restores its domain exactly. Several
//! blocks, of both chains, may be recorded in one change.

use crate::cache::RowCache;
use crate::codec::{Codec, encode};
use crate::db::{Durability, Store};
use crate::error::{Result, StoreError};
use crate::history::change_key;
use crate::read::{Rows, corrupt, missing};
use crate::table::{Domain, Table};
use crate::tries::{NodeRows, version_key};
use crate::undo::{self, Before};
use alloy_primitives::Bytes;
use kedge_genesis::L2Number;
use rocksdb::WriteBatch;
use std::collections::BTreeMap;
use std::sync::Arc;

type Value = Option<Bytes>;

/// Rows to be written, by table.
type Written = Vec<BTreeMap<Vec<u8>, Value>>;

/// What a recorded block overwrote, by table.
#[derive(Debug)]
struct Recording {
    number: u64,
    before: Vec<undo::Rows>,
}

impl Recording {
    fn new(number: u64) -> Self {
        Self { number, before: Table::ALL.iter().map(|_| BTreeMap::new()).collect() }
    }

    /// Whether the block wrote the row already.
    fn has(&self, table: Table, key: &[u8]) -> bool {
        self.before.get(table.index()).is_some_and(|rows| rows.contains_key(key))
    }

    fn note(&mut self, table: Table, key: &[u8], before: Before) {
        if let Some(rows) = self.before.get_mut(table.index()) {
            rows.insert(key.to_vec(), before);
        }
    }
}

/// Pending writes on top of the store; nothing is visible to readers before [`Change::commit`].
#[derive(Debug)]
pub struct Change<'s> {
    store: &'s Store,
    pending: Written,
    /// What is written before this.
    before: Option<Arc<FinishedChange<'s>>>,
    l2: Option<Recording>,
    l1: Option<Recording>,
}

/// A change to which nothing is added any more. It can be written while others read and change
/// [on top of it](Change::after).
#[derive(Debug)]
pub struct FinishedChange<'s> {
    store: &'s Store,
    rows: Written,
}

impl Rows for Change<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let find = |rows: &Written| rows.get(table.index())?.get(key).cloned();
        if let Some(value) = find(&self.pending) {
            return Ok(value);
        }
        match &self.before {
            None => self.store.get(table, key),
            Some(before) => match find(&before.rows) {
                Some(value) => Ok(value),
                // The write that may be under way does not change this row.
                None => self.store.get_beside_write(table, key),
            },
        }
    }

    fn node_rows(&self) -> NodeRows<'_> {
        self.store.node_rows()
    }

    fn find_node(&self, stored: &mut NodeRows<'_>, node: &[u8]) -> Result<Option<Bytes>> {
        let layers = [Some(&self.pending), self.before.as_ref().map(|before| &before.rows)];
        let layers = || layers.iter().flatten().filter_map(|rows| rows.get(Table::Tries.index()));
        // Newest first, and what was taken back is none.
        let mut rows = BTreeMap::new();
        for layer in layers() {
            let versions = version_key(node, L2Number(u64::MAX))..=version_key(node, L2Number(0));
            for (key, value) in layer.range(versions) {
                rows.entry(key).or_insert(value);
            }
        }
        // What is written on top of the store is newer than what of the store is not taken back.
        if let Some(value) = rows.values().find_map(|value| value.as_ref()) {
            return Ok((!value.is_empty()).then(|| value.clone()));
        }
        let mut found = stored.seek(node, L2Number(u64::MAX))?;
        while found && stored.key().is_some_and(|key| rows.keys().any(|of| **of == *key)) {
            found = stored.older(node)?;
        }
        Ok(if found { stored.value() } else { None })
    }
}

impl<'s> Change<'s> {
    pub(crate) fn new(store: &'s Store) -> Self {
        let pending = Table::ALL.iter().map(|_| BTreeMap::new()).collect();
        Self { store, pending, before: None, l2: None, l1: None }
    }

    /// Starts a change on top of one that has been, is being or will be written: it must not be written before
    /// that is, and not at all where that fails.
    pub fn after(before: Arc<FinishedChange<'s>>) -> Self {
        Self { before: Some(before.clone()), ..Self::new(before.store) }
    }

    /// Starts recording the block `number` of `domain`.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when a block of that domain is being recorded already, or for
    /// the free domain, which has no blocks.
    pub fn begin(&mut self, domain: Domain, number: u64) -> Result<()> {
        let slot = match domain {
            Domain::L2 => &mut self.l2,
            Domain::L1 => &mut self.l1,
            Domain::Free => return Err(StoreError::NotRecording { table: Table::Meta }),
        };
        if slot.is_some() {
            return Err(StoreError::NotRecording { table: undo_table(domain) });
        }
        *slot = Some(Recording::new(number));
        Ok(())
    }

    /// Ends the block being recorded and adds its undo record to the change.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when there is none.
    pub fn end(&mut self, domain: Domain) -> Result<()> {
        let slot = match domain {
            Domain::L2 => &mut self.l2,
            Domain::L1 => &mut self.l1,
            Domain::Free => return Err(StoreError::NotRecording { table: Table::Meta }),
        };
        let table = undo_table(domain);
        let recording = slot.take().ok_or(StoreError::NotRecording { table })?;
        let record = undo::encode(Table::ALL.iter().copied().zip(&recording.before));
        self.set(table, recording.number.to_be_bytes().to_vec(), Some(record.into()));
        Ok(())
    }

    /// Takes the recorded block `number` back: every row that it wrote gets its value from before.
    /// Blocks must be undone latest first.
    ///
    /// # Errors
    /// [`StoreError::NoUndo`] when the record is not there (pruned), [`StoreError::Missing`] when the history
    /// lacks what the record names, and what reading reports.
    pub fn undo(&mut self, domain: Domain, number: u64) -> Result<()> {
        let table = undo_table(domain);
        let key = number.to_be_bytes();
        let record = self.get(table, &key)?.ok_or(StoreError::NoUndo { domain, number })?;
        for (of, row, before) in undo::decode(&record).ok_or_else(|| corrupt(table, &key))? {
            let value = match before {
                Before::Absent => None,
                Before::Value(value) => Some(value.into()),
                Before::InHistory => {
                    let (history, change) = change_key(of, &row, L2Number(number))
                        .ok_or_else(|| corrupt(table, &key))?;
                    let value = self.get(history, &change)?;
                    let value = value.ok_or_else(|| missing(history, &change))?;
                    self.set(history, change, None);
                    (!value.is_empty()).then_some(value)
                }
            };
            self.set(of, row, value);
        }
        self.set(table, key.to_vec(), None);
        Ok(())
    }

    /// Drops the undo record of a block that will never be undone.
    pub fn forget(&mut self, domain: Domain, number: u64) {
        self.set(undo_table(domain), number.to_be_bytes().to_vec(), None);
    }

    /// Writes a row. Where the table has a history, what was there before the recorded block goes there, and an
    /// empty value stands for no row.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when the table follows a chain and no block of it is being
    /// recorded, and what reading the previous value reports.
    pub fn put(&mut self, table: Table, key: &[u8], value: impl Into<Bytes>) -> Result<()> {
        self.replace(table, key, Some(value.into()))
    }

    /// Deletes a row, if it is there.
    ///
    /// # Errors
    /// As [`Change::put`].
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.replace(table, key, None)
    }

    /// Writes a row, or deletes it.
    ///
    /// # Errors
    /// As [`Change::put`].
    pub(crate) fn replace(&mut self, table: Table, key: &[u8], value: Value) -> Result<()> {
        self.replace_known(table, key, None, value)
    }

    /// The same where it may be known what the row was before the recorded block, which has not written it.
    ///
    /// # Errors
    /// As [`Change::put`].
    pub(crate) fn replace_known(
        &mut self,
        table: Table,
        key: &[u8],
        previous: Option<Value>,
        value: Value,
    ) -> Result<()> {
        let recording = self.recording(table)?;
        let number = recording.filter(|it| !it.has(table, key)).map(|it| it.number);
        if let Some(number) = number {
            let previous = match previous {
                Some(previous) => previous,
                None => self.get(table, key)?,
            };
            let before = match change_key(table, key, L2Number(number)) {
                Some((history, change)) => {
                    self.set(history, change, Some(previous.unwrap_or_default()));
                    Before::InHistory
                }
                None => previous.map_or(Before::Absent, |it| Before::Value(it.to_vec())),
            };
            if let Some(recording) = self.recording(table)? {
                recording.note(table, key, before);
            }
        }
        self.set(table, key.to_vec(), value);
        Ok(())
    }

    /// Writes a row whose key ends in the number of the block that is recorded, so that nothing is there.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] as [`Change::put`].
    pub(crate) fn add(
        &mut self,
        table: Table,
        key: Vec<u8>,
        value: impl Into<Bytes>,
    ) -> Result<()> {
        if let Some(recording) = self.recording(table)? {
            recording.note(table, &key, Before::Absent);
        }
        self.set(table, key, Some(value.into()));
        Ok(())
    }

    /// Writes a row of a type that has an encoding.
    ///
    /// # Errors
    /// As [`Change::put`].
    pub(crate) fn put_row<T: Codec>(&mut self, table: Table, key: &[u8], row: &T) -> Result<()> {
        self.put(table, key, encode(row))
    }

    /// Makes all of it visible and durable at once, or nothing.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when a block is still being recorded, and what RocksDB reports.
    pub fn commit(self, durability: Durability) -> Result<()> {
        self.finish()?.commit(durability)
    }

    /// Ends the change.
    ///
    /// # Errors
    /// [`StoreError::NotRecording`] when a block is still being recorded.
    pub fn finish(self) -> Result<FinishedChange<'s>> {
        for (domain, slot) in [(Domain::L2, &self.l2), (Domain::L1, &self.l1)] {
            if slot.is_some() {
                return Err(StoreError::NotRecording { table: undo_table(domain) });
            }
        }
        Ok(FinishedChange { store: self.store, rows: self.pending })
    }

    /// What records the tables of that table's domain; none for the free domain.
    fn recording(&mut self, table: Table) -> Result<Option<&mut Recording>> {
        let slot = match table.domain() {
            Domain::Free => return Ok(None),
            Domain::L2 => &mut self.l2,
            Domain::L1 => &mut self.l1,
        };
        slot.as_mut().map(Some).ok_or(StoreError::NotRecording { table })
    }

    /// Writes a row, or deletes it, as something that nothing undoes.
    pub(crate) fn set(&mut self, table: Table, key: Vec<u8>, value: Value) {
        if let Some(rows) = self.pending.get_mut(table.index()) {
            rows.insert(key, value);
        }
    }

    /// Deletes a row as something that nothing undoes. False where this change has done so.
    pub(crate) fn drop_row(&mut self, table: Table, key: &[u8]) -> bool {
        let rows = self.pending.get_mut(table.index());
        rows.is_some_and(|rows| !matches!(rows.insert(key.to_vec(), None), Some(None)))
    }
}

impl FinishedChange<'_> {
    /// Makes all of it visible and durable at once, or nothing.
    ///
    /// # Errors
    /// What RocksDB reports.
    pub fn commit(&self, durability: Durability) -> Result<()> {
        let tables = || Table::ALL.iter().copied().zip(&self.rows);
        let mut batch = WriteBatch::default();
        for (table, rows) in tables() {
            let family = self.store.family(table);
            for (key, value) in rows {
                match value {
                    Some(value) => batch.put_cf(family, key, value),
                    None => batch.delete_cf(family, key),
                }
            }
        }
        let write = || self.store.write(batch, durability);
        let mut held = tables()
            .filter(|(table, _)| RowCache::holds(*table))
            .flat_map(|(table, rows)| rows.iter().map(move |(key, value)| (table, key, value)))
            .map(|(table, key, value)| (table, key.clone(), value.clone()))
            .peekable();
        if held.peek().is_none() { write() } else { self.store.cache.write(held, write) }
    }
}

const fn undo_table(domain: Domain) -> Table {
    match domain {
        Domain::L1 => Table::UndoL1,
        Domain::L2 | Domain::Free => Table::UndoL2,
    }
}
