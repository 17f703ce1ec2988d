//! The state after old blocks, and what is dropped of it.
//!
//! For each change of an account or slot the value from before it is kept under the key and the number of the
//! block that changed it. So the state after block `n` is the first change after `n`; of the tries each node is
//! kept under the block that made it. Pruning drops the changes up to a block, and the nodes that were replaced
//! up to it; states after earlier blocks are gone then. Which block may be pruned to is for the node to decide:
//! proofs need the states at which open assertions begin.

use crate::codec::{decode, encode};
use crate::db::{Durability, Store};
use crate::error::Result;
use crate::l1::finalized;
use crate::l2::{AccountRow, L2Rows, SlotRow, slot_key};
use crate::read::{Reader, Rows, corrupt, row, successor};
use crate::table::Table;
use crate::undo::{self, Before};
use alloy_primitives::{Address, Bytes, U256};
use kedge_genesis::L2Number;
use kedge_vm::AccountInfo;
use rocksdb::WriteBatch;

/// The tables that hold what was before changes, each with the block number at the end of its keys.
pub(crate) const HISTORY: [Table; 2] = [Table::AccountHistory, Table::StorageHistory];

/// The oldest block after which the state is kept.
const PRUNED: &[u8] = b"pruned";

/// There while a scan of the whole history has not come to its end.
const SCANNING: &[u8] = b"pruning";

/// Rows that pruning deletes in one write.
const PRUNED_AT_ONCE: usize = 4_096;

/// Key of a change of `prefix` in block `number`.
pub(crate) fn at(prefix: &[u8], number: L2Number) -> Vec<u8> {
    [prefix, &number.0.to_be_bytes()].concat()
}

/// Key without block number, and block number, of a row of a history table.
pub(crate) fn split_at(key: &[u8]) -> Option<(&[u8], L2Number)> {
    let (prefix, number) = key.split_last_chunk::<8>()?;
    Some((prefix, L2Number(u64::from_be_bytes(*number))))
}

/// Table and key, without block number, of what a row of the state was before changes of it. None for the
/// other tables.
fn history_of(table: Table, key: &[u8]) -> Option<(Table, Vec<u8>)> {
    match table {
        Table::Accounts => Some((Table::AccountHistory, key.to_vec())),
        Table::Storage => Some((Table::StorageHistory, key.to_vec())),
        _ => None,
    }
}

/// Table and key of what a row of the state was before block `number` changed it. None for the other tables.
pub(crate) fn change_key(table: Table, key: &[u8], number: L2Number) -> Option<(Table, Vec<u8>)> {
    history_of(table, key).map(|(history, prefix)| (history, at(&prefix, number)))
}

/// The oldest block after which the state is kept; genesis where nothing was pruned.
///
/// # Errors
/// When the database fails.
pub fn oldest_state(rows: &(impl Rows + ?Sized)) -> Result<L2Number> {
    Ok(row(rows, Table::Meta, PRUNED)?.unwrap_or_default())
}

impl Store {
    /// Drops the states after blocks below `oldest`, or below the last final block if that is lower: what
    /// is not final may be unwound. Undo records tell what each block changed, and go with it. Where they are
    /// missing the whole history is read, if that drops the states after at least `scan` blocks. `go_on` is
    /// asked now and then, with the rows dropped so far; where it says no, the rest waits for the next call.
    /// Returns how many rows were dropped.
    ///
    /// May run while the engine writes: no later block touches these rows, and readers keep what their
    /// snapshot has.
    ///
    /// # Errors
    /// When the database fails.
    pub fn prune_states(
        &self,
        oldest: L2Number,
        scan: u64,
        go_on: impl FnMut(u64) -> bool,
    ) -> Result<u64> {
        self.prune(oldest, scan, PRUNED_AT_ONCE, go_on)
    }

    fn prune(
        &self,
        oldest: L2Number,
        scan: u64,
        at_once: usize,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<u64> {
        let oldest = oldest.min(finalized(self)?).max(oldest_state(self)?);
        let mut dropped = 0;
        let scanning = self.get(Table::Meta, SCANNING)?.is_some();
        if !scanning && self.prune_by_records(oldest, at_once, &mut dropped, &mut go_on)? {
            return Ok(dropped);
        }
        if scanning || oldest.0 - oldest_state(self)?.0 >= scan {
            self.prune_by_scan(oldest, at_once, &mut dropped, &mut go_on)?;
        }
        Ok(dropped)
    }

    /// Drops what blocks up to `oldest` changed, block by block. False where a record is missing.
    fn prune_by_records(
        &self,
        oldest: L2Number,
        at_once: usize,
        dropped: &mut u64,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<bool> {
        let (mut change, mut nodes) = (self.change(), self.node_rows());
        let mut rows = 0;
        for number in (oldest_state(self)?.next().0..=oldest.0).map(L2Number) {
            let key = number.0.to_be_bytes();
            let Some(record) = self.get(Table::UndoL2, &key)? else {
                change.commit(Durability::Buffered)?;
                return Ok(false);
            };
            let damaged = || corrupt(Table::UndoL2, &key);
            for (table, row, before) in undo::decode(&record).ok_or_else(damaged)? {
                if before == Before::InHistory {
                    let (history, row) = change_key(table, &row, number).ok_or_else(damaged)?;
                    if history == Table::AccountHistory {
                        change.set(Table::AccountReads, row.clone(), Some(Bytes::new()));
                    }
                    change.set(history, row, None);
                    rows += 1;
                } else if table == Table::Tries {
                    rows += Self::prune_node(&mut nodes, &mut change, &row)?;
                }
            }
            // In one write with the rows, so that nobody reads what is half dropped.
            change.set(Table::UndoL2, key.to_vec(), None);
            change.set(Table::Meta, PRUNED.to_vec(), Some(encode(&number).into()));
            if rows >= at_once {
                change.commit(Durability::Buffered)?;
                *dropped += rows as u64;
                if !go_on(*dropped) {
                    return Ok(true);
                }
                (change, nodes, rows) = (self.change(), self.node_rows(), 0);
            }
        }
        change.commit(Durability::Buffered)?;
        *dropped += rows as u64;
        Ok(true)
    }

    /// Drops what blocks up to `oldest` changed, and undo records of such blocks, wherever they are.
    fn prune_by_scan(
        &self,
        oldest: L2Number,
        at_once: usize,
        dropped: &mut u64,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<()> {
        // First, so that nobody reads what is half dropped, and the rest is not forgotten.
        let mut change = self.change();
        change.put(Table::Meta, PRUNED, encode(&oldest))?;
        change.put(Table::Meta, SCANNING, Vec::new())?;
        change.commit(Durability::Synced)?;
        for table in HISTORY.into_iter().chain([Table::UndoL2]) {
            let (reader, family) = (self.reader(), self.family(table));
            let mut batch = WriteBatch::default();
            for entry in reader.all(table) {
                let (key, _) = entry?;
                if split_at(&key).is_some_and(|(_, number)| number <= oldest) {
                    batch.delete_cf(family, &key);
                    if table == Table::AccountHistory {
                        // Which blocks touched an account stays known.
                        batch.put_cf(self.family(Table::AccountReads), &key, []);
                    }
                    *dropped += u64::from(table != Table::UndoL2);
                }
                if batch.len() >= at_once {
                    self.write(std::mem::take(&mut batch), Durability::Buffered)?;
                    if !go_on(*dropped) {
                        return Ok(());
                    }
                }
            }
            self.write(batch, Durability::Buffered)?;
        }
        if !self.prune_nodes(oldest, at_once, dropped, go_on)? {
            return Ok(());
        }
        self.delete(Table::Meta, SCANNING, Durability::Buffered)
    }
}

impl Reader<'_> {
    /// An account as it was after block `number`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn account_at(
        &self,
        address: Address,
        number: L2Number,
    ) -> Result<Option<AccountInfo>> {
        match self.change_after(Table::Accounts, address.as_slice(), number)? {
            None => self.account(address),
            Some((_, value)) if value.is_empty() => Ok(None),
            Some((key, value)) => {
                decode::<AccountRow>(Table::AccountHistory, &key, &value).map(|it| Some(it.0))
            }
        }
    }

    /// A slot as it was after block `number`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn slot_at(&self, address: Address, slot: U256, number: L2Number) -> Result<U256> {
        match self.change_after(Table::Storage, &slot_key(address, slot), number)? {
            None => self.slot(address, slot),
            Some((key, value)) => {
                decode::<SlotRow>(Table::StorageHistory, &key, &value).map(|it| it.0)
            }
        }
    }

    /// The first change of a row of the state after a block: its value is the one from before that change.
    fn change_after(
        &self,
        table: Table,
        key: &[u8],
        number: L2Number,
    ) -> Result<Option<crate::Row>> {
        let Some((history, prefix)) = history_of(table, key) else { return Ok(None) };
        self.first_between(history, &at(&prefix, number.next()), successor(&prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Identity;
    use crate::table::Domain;
    use crate::tries::{node_key, split_version, version_key};
    use alloy_primitives::B256;
    use kedge_genesis::Network;
    use kedge_vm::Nibbles;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use tempfile::{TempDir, tempdir};

    const BLOCKS: u64 = 20;
    const FINAL: u64 = 17;
    const STATE: [Table; 2] = [Table::Accounts, Table::Storage];

    fn open(path: &Path) -> Store {
        let identity = Identity { network: Network::Dev, params: B256::ZERO, genesis: B256::ZERO };
        Store::open(path, &identity).unwrap()
    }

    /// Blocks that change rows of every table of the state. Of final ones, those from `recorded` on have undo
    /// records.
    fn chain(recorded: u64) -> (TempDir, Store) {
        let dir = tempdir().unwrap();
        let store = open(dir.path());
        for number in 1..=BLOCKS {
            let mut change = store.change();
            change.begin(Domain::L2, number).unwrap();
            for table in STATE {
                for byte in (0..20_u8).filter(|byte| (u64::from(*byte) + number) % 3 == 0) {
                    change.put(table, &[byte; 40], vec![number as u8]).unwrap();
                }
            }
            // Some end, and some of these begin again.
            for byte in (0..15_u8).filter(|byte| (u64::from(*byte) + number) % 3 == 0) {
                let gone = (u64::from(byte) + number) % 4 == 0;
                let value = if gone { Vec::new() } else { vec![number as u8] };
                change
                    .add(Table::Tries, version_key(&node(byte), L2Number(number)), value)
                    .unwrap();
            }
            change.end(Domain::L2).unwrap();
            if number < recorded.min(FINAL + 1) {
                change.forget(Domain::L2, number);
            }
            change.put_finalized(L2Number(number.min(FINAL))).unwrap();
            change.commit(Durability::Buffered).unwrap();
        }
        (dir, store)
    }

    /// Everything that there is of the chain and of pruning.
    fn dump(store: &Store) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
        let reader = store.reader();
        let tables =
            Table::ALL.iter().filter(|it| it.domain() == Domain::L2 || **it == Table::Meta);
        let rows = tables.flat_map(|table| reader.all(*table).map(|row| (*table, row.unwrap())));
        rows.map(|(table, (key, value))| ((table, key.to_vec()), value.to_vec())).collect()
    }

    fn records(store: &Store) -> Vec<u64> {
        let reader = store.reader();
        let keys = reader.all(Table::UndoL2).map(|row| row.unwrap().0);
        keys.map(|key| u64::from_be_bytes(*key.last_chunk().unwrap())).collect()
    }

    /// The nodes: some on the way to others, and some of an account's storage.
    fn node(byte: u8) -> Vec<u8> {
        let owner = (byte % 2 == 1).then_some(B256::ZERO);
        node_key(owner, &Nibbles::from_nibbles(vec![1; usize::from(byte / 2)]))
    }

    /// The nodes after each block from `oldest` on.
    fn nodes(store: &Store, oldest: u64) -> Vec<Option<Bytes>> {
        let reader = store.reader();
        let find = |number, byte| reader.node_rows().find(&node(byte), L2Number(number)).unwrap();
        let all = (oldest..=BLOCKS).flat_map(|number| (0..15).map(move |byte| (number, byte)));
        all.map(|(number, byte)| find(number, byte)).collect()
    }

    fn prune(store: &Store, oldest: u64) -> u64 {
        store.prune_states(L2Number(oldest), 1, |_| true).unwrap()
    }

    #[test]
    fn by_records_the_same_is_dropped_as_by_a_scan() {
        let ((_one, recorded), (_other, scanned)) = (chain(1), chain(BLOCKS));
        // In files, where the others are in memory.
        scanned.compact(Table::Tries).unwrap();
        assert_eq!(records(&scanned), [18, 19, 20]);
        for (oldest, reached) in [(3, 3), (4, 4), (11, 11), (2, 11), (BLOCKS, FINAL)] {
            let before = nodes(&recorded, reached);
            assert_eq!(prune(&recorded, oldest), prune(&scanned, oldest));
            assert_eq!(oldest_state(&recorded).unwrap(), L2Number(reached));
            assert!(dump(&recorded) == dump(&scanned), "after pruning to {oldest}");
            assert_eq!(nodes(&recorded, reached), before);
            let reader = recorded.reader();
            let mut kept = BTreeSet::new();
            for (key, value) in reader.all(Table::Tries).map(Result::unwrap) {
                let (node, number) = split_version(&key).unwrap();
                let needed = number.0 > reached || !value.is_empty() && kept.insert(node.to_vec());
                assert!(needed, "a row of block {number} is left");
            }
            assert_eq!(records(&recorded), Vec::from_iter(reached + 1..=BLOCKS));
            for table in HISTORY {
                for (key, _) in recorded.reader().all(table).map(Result::unwrap) {
                    assert!(split_at(&key).unwrap().1 > L2Number(reached));
                }
            }
        }
        assert_eq!(prune(&recorded, BLOCKS), 0, "nothing is left to do");
    }

    #[test]
    fn what_was_interrupted_between_two_writes_is_continued() {
        // Row by row there are hundreds of writes, of which some are tried.
        for (recorded, at_once) in [(1, 50), (6, 50), (BLOCKS, 50), (BLOCKS, 1)] {
            let (_dir, whole) = chain(recorded);
            prune(&whole, 15);
            for writes in (1..).step_by(if at_once == 1 { 5 } else { 1 }) {
                let (dir, store) = chain(recorded);
                let mut left = writes;
                let go_on = |_| {
                    left -= 1;
                    left > 0
                };
                store.prune(L2Number(15), 1, at_once, go_on).unwrap();
                drop(store);
                let store = open(dir.path());
                prune(&store, 15);
                assert!(dump(&store) == dump(&whole), "after {writes} writes");
                assert_eq!(records(&store), records(&whole));
                if left > 0 {
                    assert!(writes > 3);
                    break;
                }
            }
        }
    }

    #[test]
    fn without_records_nothing_is_read_for_fewer_blocks_than_asked() {
        let (_dir, store) = chain(9);
        let prune = |oldest, scan| store.prune_states(L2Number(oldest), scan, |_| true).unwrap();
        assert_eq!(prune(4, 5), 0);
        assert_eq!(oldest_state(&store).unwrap(), L2Number(0));
        assert!(prune(5, 5) > 0);
        assert_eq!(prune(8, 5), 0);
        assert!(prune(8, 3) > 0);
        // From here on there are records.
        assert!(prune(9, 1_000) > 0);
        assert_eq!(oldest_state(&store).unwrap(), L2Number(9));
        assert_eq!(records(&store), Vec::from_iter(10..=BLOCKS));
    }

    #[test]
    fn what_is_left_can_be_unwound() {
        let (_dir, store) = chain(1);
        let last_final = nodes(&store, FINAL)[..15].to_vec();
        prune(&store, BLOCKS);
        let mut change = store.change();
        for number in (FINAL + 1..=BLOCKS).rev() {
            change.undo(Domain::L2, number).unwrap();
        }
        change.commit(Durability::Buffered).unwrap();
        let rows = STATE.into_iter().flat_map(|table| {
            let reader = store.reader();
            let rows: Vec<_> = reader.all(table).map(|row| row.unwrap().1[0]).collect();
            rows
        });
        assert_eq!(rows.max(), Some(FINAL as u8));
        assert_eq!(nodes(&store, BLOCKS), last_final);
        for table in HISTORY {
            assert!(store.reader().all(table).next().is_none());
        }
    }
}
