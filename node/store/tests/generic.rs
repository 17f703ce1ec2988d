//! The generic layer: identity checks, atomic changes, exact undo.

use alloy_primitives::B256;
use kedge_genesis::Network;
use kedge_store::{
    Change, Domain, Durability, FinishedChange, Identity, Rows, SCHEMA, Store, StoreError,
    StoreOptions, Table,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use tempfile::tempdir;

const IDENTITY: Identity =
    Identity { network: Network::Dev, params: B256::repeat_byte(1), genesis: B256::repeat_byte(2) };

type Dump = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Every row of every table of `domain`.
fn dump(store: &Store, domain: Domain) -> Dump {
    let reader = store.reader();
    let tables = Table::ALL.iter().filter(|table| table.domain() == domain);
    tables
        .flat_map(|table| reader.all(*table).map(|row| (*table, row.unwrap())))
        .map(|(table, (key, value))| ((table, key.to_vec()), value.to_vec()))
        .collect()
}

#[test]
fn a_change_on_top_of_one_that_is_being_written_counts_on() {
    type Writing<'scope, 's> =
        (Arc<FinishedChange<'s>>, ScopedJoinHandle<'scope, Result<(), StoreError>>);
    const ROUNDS: u64 = 300;
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let count = |rows: &dyn Rows, key: u8| {
        let row = rows.get(Table::Headers, &[key]).unwrap();
        row.map_or(0, |row| u64::from_be_bytes(row[..].try_into().unwrap()))
    };
    // Each round adds one to every third row, from what it reads while the round before is written.
    thread::scope(|scope| {
        let mut before: Option<Writing<'_, '_>> = None;
        for round in 0..ROUNDS {
            let mut change = match &before {
                Some((finished, _)) => Change::after(finished.clone()),
                None => store.change(),
            };
            change.begin(Domain::L2, round).unwrap();
            for key in (0..60_u8).filter(|key| u64::from(*key) % 3 == round % 3) {
                let next = count(&change, key) + 1;
                change.put(Table::Headers, &[key], next.to_be_bytes().to_vec()).unwrap();
            }
            change.end(Domain::L2).unwrap();
            let finished = Arc::new(change.finish().unwrap());
            if let Some((_, writing)) = before.take() {
                writing.join().unwrap().unwrap();
            }
            let write = finished.clone();
            before = Some((finished, scope.spawn(move || write.commit(Durability::Buffered))));
        }
    });
    for key in 0..60 {
        assert_eq!(count(&store, key), ROUNDS / 3, "row {key}");
    }
}

#[test]
fn a_database_of_another_chain_is_refused() {
    let dir = tempdir().unwrap();
    drop(Store::open(dir.path(), &IDENTITY).unwrap());
    for (other, what) in [
        (Identity { network: Network::Regtest, ..IDENTITY }, "network"),
        (Identity { params: B256::ZERO, ..IDENTITY }, "parameter hash"),
        (Identity { genesis: B256::ZERO, ..IDENTITY }, "genesis hash"),
    ] {
        match Store::open(dir.path(), &other).unwrap_err() {
            StoreError::OtherChain { what: found, .. } => assert_eq!(found, what),
            error => panic!("{error}"),
        }
    }
    Store::open(dir.path(), &IDENTITY).unwrap();
}

#[test]
fn a_database_in_use_is_refused() {
    let dir = tempdir().unwrap();
    let _store = Store::open(dir.path(), &IDENTITY).unwrap();
    let error = Store::open(dir.path(), &IDENTITY).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    store.put(Table::Meta, b"schema", vec![0, 0, 0, 99], Durability::Synced).unwrap();
    drop(store);
    for _ in 0..2 {
        let error = Store::open(dir.path(), &IDENTITY).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { .. }), "{error}");
    }
}

#[test]
fn an_older_schema_is_refused_and_says_what_to_do() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let older = (SCHEMA - 1).to_be_bytes().to_vec();
    store.put(Table::Meta, b"schema", older, Durability::Synced).unwrap();
    drop(store);
    let error = Store::open(dir.path(), &IDENTITY).unwrap_err();
    assert!(matches!(error, StoreError::OlderSchema { supported: SCHEMA, .. }), "{error}");
    assert!(error.to_string().contains("older kedge"), "{error}");
    assert!(error.to_string().contains("empty --datadir"), "{error}");
}

#[test]
fn a_database_works_with_the_smallest_cache() {
    let dir = tempdir().unwrap();
    let options = StoreOptions { cache_bytes: 1 << 20 };
    let store = Store::open_with(dir.path(), &IDENTITY, &options).unwrap();
    let value = |number: u32| number.to_be_bytes().repeat(256);
    for number in 0..8_192_u32 {
        let key = number.to_be_bytes();
        store.put(Table::Roles, &key, value(number), Durability::Buffered).unwrap();
    }
    for number in 0..8_192_u32 {
        let found = store.get(Table::Roles, &number.to_be_bytes()).unwrap();
        assert_eq!(found, Some(value(number).into()));
    }
}

#[test]
fn a_table_of_a_newer_version_is_refused() {
    let dir = tempdir().unwrap();
    drop(Store::open(dir.path(), &IDENTITY).unwrap());
    let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), dir.path()).unwrap();
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path(), &names).unwrap();
    db.create_cf("from_the_future", &rocksdb::Options::default()).unwrap();
    drop(db);
    let error = Store::open(dir.path(), &IDENTITY).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { .. }), "{error}");
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path(), &IDENTITY).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
}

#[test]
fn a_damaged_database_says_so_once_and_what_to_do() {
    use std::error::Error as _;
    for damage in [&b"nonsense"[..], b"MANIFEST-999999\n"] {
        let dir = tempdir().unwrap();
        drop(Store::open(dir.path(), &IDENTITY).unwrap());
        std::fs::write(dir.path().join("CURRENT"), damage).unwrap();
        let error = Store::open(dir.path(), &IDENTITY).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("remove it"), "{error}");
        assert!(error.source().is_none(), "the message has the cause already");
    }
}

#[test]
fn writes_to_a_chain_table_need_a_recorded_block() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let mut change = store.change();
    assert!(change.put(Table::Accounts, b"a", vec![1]).is_err());
    change.begin(Domain::L1, 1).unwrap();
    assert!(change.put(Table::Accounts, b"a", vec![1]).is_err());
    assert!(change.begin(Domain::L1, 2).is_err());
    assert!(change.commit(Durability::Synced).is_err(), "a block is still being recorded");
}

#[test]
fn an_uncommitted_change_leaves_nothing() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let mut change = store.change();
    change.begin(Domain::L2, 1).unwrap();
    change.put(Table::Accounts, b"a", vec![1]).unwrap();
    assert_eq!(change.get(Table::Accounts, b"a").unwrap(), Some(vec![1].into()));
    assert_eq!(store.get(Table::Accounts, b"a").unwrap(), None);
    drop(change);
    drop(store);
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    assert_eq!(store.get(Table::Accounts, b"a").unwrap(), None);
}

#[test]
fn a_reader_does_not_see_later_writes() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let reader = store.reader();
    store.put(Table::Roles, b"k", vec![7], Durability::Buffered).unwrap();
    assert_eq!(reader.get(Table::Roles, b"k").unwrap(), None);
    assert_eq!(store.reader().get(Table::Roles, b"k").unwrap(), Some(vec![7].into()));
}

#[test]
fn what_the_history_has_is_not_in_the_undo_record_and_is_restored_from_there() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let value = |byte: u8| vec![byte; 10_000];
    let mut change = store.change();
    for (number, written) in [(1, &[1][..]), (2, &[2, 3])] {
        change.begin(Domain::L2, number).unwrap();
        for byte in written {
            change.put(Table::Accounts, b"a", value(*byte)).unwrap();
        }
        change.end(Domain::L2).unwrap();
    }
    change.commit(Durability::Synced).unwrap();
    let record = store.get(Table::UndoL2, &2_u64.to_be_bytes()).unwrap().unwrap();
    assert!(record.len() < 16);
    let key = [&b"a"[..], &2_u64.to_be_bytes()].concat();
    assert_eq!(store.get(Table::AccountHistory, &key).unwrap(), Some(value(1).into()));
    let mut change = store.change();
    change.undo(Domain::L2, 2).unwrap();
    assert_eq!(change.get(Table::Accounts, b"a").unwrap(), Some(value(1).into()));
    assert_eq!(change.get(Table::AccountHistory, &key).unwrap(), None);
    // And again in the same change, the other way round.
    change.begin(Domain::L2, 2).unwrap();
    change.delete(Table::Accounts, b"a").unwrap();
    change.end(Domain::L2).unwrap();
    change.undo(Domain::L2, 2).unwrap();
    change.undo(Domain::L2, 1).unwrap();
    change.commit(Durability::Synced).unwrap();
    assert_eq!(dump(&store, Domain::L2), Dump::new());
}

#[test]
fn a_record_whose_history_is_gone_is_not_undone() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path(), &IDENTITY).unwrap();
    let mut change = store.change();
    change.begin(Domain::L2, 1).unwrap();
    change.put(Table::Accounts, b"a", vec![1]).unwrap();
    change.delete(Table::AccountHistory, &[&b"a"[..], &1_u64.to_be_bytes()].concat()).unwrap();
    change.end(Domain::L2).unwrap();
    let error = change.undo(Domain::L2, 1).unwrap_err();
    assert!(matches!(error, StoreError::Missing { table: "account_history", .. }), "{error}");
}

#[derive(Clone, Debug)]
enum Op {
    Put(bool, u8, u8),
    Delete(bool, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (any::<bool>(), 0..12u8, any::<u8>()).prop_map(|(l1, key, value)| Op::Put(l1, key, value)),
        (any::<bool>(), 0..12u8).prop_map(|(l1, key)| Op::Delete(l1, key)),
    ]
}

fn apply(change: &mut Change<'_>, ops: &[Op], with_l1: bool) {
    for op in ops {
        let table = |l1: bool, key: u8| match (l1 && with_l1, key % 2) {
            (true, 0) => Table::Deposits,
            (true, _) => Table::VaultUtxos,
            (false, 0) => Table::Accounts,
            (false, _) => Table::Storage,
        };
        match *op {
            Op::Put(l1, key, value) => change.put(table(l1, key), &[key], vec![value]).unwrap(),
            Op::Delete(l1, key) => change.delete(table(l1, key), &[key]).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any sequence of L2 and L1 blocks, several to a write, undone one by one in one write or in
    /// many: each undo restores exactly the dump of its domain from before that block.
    #[test]
    fn undo_restores_every_row(
        blocks in proptest::collection::vec(proptest::collection::vec(op(), 0..12), 1..8),
        l1_every in 1..4usize,
        one_write in any::<bool>(),
    ) {
        let dir = tempdir().unwrap();
        let store = Store::open(dir.path(), &IDENTITY).unwrap();
        let mut l2_dumps = Vec::new();
        let mut l1_dumps = Vec::new();
        for (index, ops) in blocks.iter().enumerate() {
            let number = index as u64;
            let with_l1 = index % l1_every == 0;
            l2_dumps.push(dump(&store, Domain::L2));
            let mut change = store.change();
            if with_l1 {
                l1_dumps.push((number, dump(&store, Domain::L1)));
                change.begin(Domain::L1, number).unwrap();
            }
            change.begin(Domain::L2, number).unwrap();
            apply(&mut change, ops, with_l1);
            change.end(Domain::L2).unwrap();
            if with_l1 {
                change.end(Domain::L1).unwrap();
            }
            change.commit(Durability::Buffered).unwrap();
        }
        // The two domains unwind independently of each other.
        for (number, before) in l1_dumps.iter().rev() {
            let l2 = dump(&store, Domain::L2);
            let mut change = store.change();
            change.undo(Domain::L1, *number).unwrap();
            change.commit(Durability::Buffered).unwrap();
            prop_assert_eq!(&dump(&store, Domain::L1), before);
            prop_assert_eq!(dump(&store, Domain::L2), l2);
        }
        if one_write {
            let mut change = store.change();
            for number in (0..blocks.len()).rev() {
                change.undo(Domain::L2, number as u64).unwrap();
            }
            change.commit(Durability::Buffered).unwrap();
        } else {
            for (number, before) in l2_dumps.iter().enumerate().rev() {
                let mut change = store.change();
                change.undo(Domain::L2, number as u64).unwrap();
                change.commit(Durability::Buffered).unwrap();
                prop_assert_eq!(&dump(&store, Domain::L2), before);
            }
        }
        prop_assert_eq!(&dump(&store, Domain::L2), &l2_dumps[0]);
        prop_assert!(store.reader().all(Table::UndoL2).next().is_none());
        prop_assert!(store.reader().all(Table::UndoL1).next().is_none());
        let mut change = store.change();
        prop_assert!(
            matches!(change.undo(Domain::L2, 0), Err(StoreError::NoUndo { number: 0, .. })),
            "undone twice"
        );
    }
}
