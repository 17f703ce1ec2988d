//! What an operator does with the store: checking it, rolling it back.

use super::*;
use kedge_store::Verification;

/// What there is of blocks before the latest, with the block's number in the keys.
const HISTORY: [Table; 3] = [Table::AccountHistory, Table::StorageHistory, Table::Tries];

/// How a key of such a table ends that is of that block.
fn end(table: Table, number: L2Number) -> Vec<u8> {
    match table {
        // Newest first, in seven bytes.
        Table::Tries => ((1_u64 << 56) - 1 - number.0).to_be_bytes()[1..].to_vec(),
        _ => number.0.to_be_bytes().to_vec(),
    }
}

/// Eight rounds with a transfer, a batch and a withdrawal among them, and two blocks that Bitcoin does not
/// have.
fn world() -> World {
    let mut world = funded();
    let script = ScriptBuf::from_bytes([&[0, 20][..], &[7; 20]].concat());
    for round in 0..8 {
        let transfer = world.transfer(Address::repeat_byte(round + 1), 1_000);
        let withdrawal = world.withdrawal(&script, 200_000);
        world.build(vec![transfer, withdrawal]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]);
    }
    for _ in 0..2 {
        let transfer = world.transfer(BOB, 500);
        world.build(vec![transfer]).unwrap();
    }
    world
}

fn verify(world: &World) -> Verification {
    world.store().verify(&mut |_, _| {}).unwrap()
}

/// Changes rows as a block that nobody knows of afterwards.
fn write(world: &World, domain: Domain, write: impl FnOnce(&mut Change<'_>)) {
    let mut change = world.store().change();
    if domain != Domain::Free {
        change.begin(domain, u64::MAX).unwrap();
    }
    write(&mut change);
    if domain != Domain::Free {
        change.end(domain).unwrap();
        change.forget(domain, u64::MAX);
    }
    change.commit(Durability::Synced).unwrap();
}

/// Changes a row behind the store's back.
fn damage(world: &World, table: Table, key: &[u8], value: Option<Vec<u8>>) {
    write(world, table.domain(), |change| match value {
        Some(value) => change.put(table, key, value).unwrap(),
        None => change.delete(table, key).unwrap(),
    });
    // What was there before went to the history.
    let reader = world.store().reader();
    for table in HISTORY {
        for (key, _) in reader.all(table).map(Result::unwrap) {
            if key.ends_with(&[0xff; 8]) {
                write(world, Domain::L2, |change| change.delete(table, &key).unwrap());
            }
        }
    }
}

#[test]
fn a_sound_store_is_found_sound_and_everything_in_it_was_looked_at() {
    let world = world();
    let mut seen = Vec::new();
    let mut progress = |step, _| {
        if seen.last() != Some(&step) {
            seen.push(step);
        }
    };
    let report = world.store().verify(&mut progress).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!(seen.len(), 4, "each step is told once: {seen:?}");
    let count = |tables: &[Table]| -> u64 {
        let reader = world.store().reader();
        tables.iter().map(|table| reader.all(*table).count() as u64).sum()
    };
    assert_eq!(report.blocks, count(&[Table::Headers]));
    assert_eq!(report.log_rows, count(&[Table::LogIndex]));
    assert_eq!(report.accounts, count(&[Table::Accounts]));
    assert_eq!(report.slots, count(&[Table::Storage]));
    let nodes: BTreeMap<Vec<u8>, bool> = {
        let reader = world.store().reader();
        let rows: Vec<_> = reader.all(Table::Tries).map(Result::unwrap).collect();
        // The newest of a node comes first, so last from behind.
        let rows = rows.into_iter().rev();
        rows.map(|(key, value)| (key[..key.len() - 7].to_vec(), !value.is_empty())).collect()
    };
    assert_eq!(report.trie_nodes, nodes.values().filter(|there| **there).count() as u64);
    assert_eq!(report.history, count(&HISTORY));
    assert_eq!(report.l1_blocks, count(&[Table::L1Rows]));
    assert!(report.log_rows > 0 && report.slots > 0 && report.history > 0);
}

/// Every row that is a function of the chain matters: one that is changed or missing is found.
#[test]
fn damage_to_any_table_that_can_be_computed_is_found() {
    let world = world();
    let tables = [
        Table::Codes,
        Table::Headers,
        Table::Hashes,
        Table::Numbers,
        Table::Payloads,
        Table::Receipts,
        Table::Blocks,
        Table::Transactions,
        Table::Accounts,
        Table::Storage,
        Table::Tries,
        Table::AccountHistory,
        Table::StorageHistory,
        Table::L1Blocks,
        Table::L1Heights,
        Table::L1Rows,
        Table::DeriveStates,
        Table::Claims,
    ];
    for table in tables {
        // Where nothing was before a change, nothing is read.
        let (key, value) = world
            .store()
            .reader()
            .down_from(table, &[0xff; 128])
            .map(Result::unwrap)
            .find(|(_, value)| table != Table::Tries || !value.is_empty())
            .unwrap();
        let mut other = value.to_vec();
        match other.last_mut() {
            Some(byte) => *byte ^= 1,
            None => other.push(1),
        }
        damage(&world, table, &key, Some(other));
        assert!(!verify(&world).is_sound(), "a changed row of {table:?} went unnoticed");
        damage(&world, table, &key, Some(value.to_vec()));
        assert_eq!(verify(&world).faults, []);
    }
    for table in
        [Table::LogIndex, Table::Transactions, Table::Accounts, Table::UndoL2, Table::Tries]
    {
        let (key, value) = world.store().reader().last(table).unwrap().unwrap();
        damage(&world, table, &key, None);
        assert!(!verify(&world).is_sound(), "a missing row of {table:?} went unnoticed");
        damage(&world, table, &key, Some(value.to_vec()));
    }
    damage(&world, Table::LogIndex, &[0; 29], Some(Vec::new()));
    assert!(!verify(&world).is_sound(), "a row too many of the log index went unnoticed");
}

/// What undo records need of the history, and that there is nothing more.
#[test]
fn a_change_too_few_or_too_many_for_an_undo_record_is_found() {
    let world = world();
    let latest = world.engine.heads().latest.number;
    for table in HISTORY {
        let end = end(table, latest);
        let rows = world.store().reader();
        let mut rows = rows.all(table).map(Result::unwrap);
        let (key, value) = rows.find(|(key, _)| key.ends_with(&end)).unwrap();
        drop(rows);
        damage(&world, table, &key, None);
        let faults = verify(&world).faults;
        assert!(faults.iter().any(|it| it.table == table.name() && it.what == "is missing"));
        assert!(faults.iter().any(|it| it.table == Table::UndoL2.name()));
        damage(&world, table, &key, Some(value.to_vec()));
        assert_eq!(verify(&world).faults, []);
    }
    damage(
        &world,
        Table::AccountHistory,
        &[&[0x99; 20], &latest.0.to_be_bytes()[..]].concat(),
        Some(Vec::new()),
    );
    let faults = verify(&world).faults;
    assert!(matches!(&faults[..], [fault] if fault.table == Table::UndoL2.name()), "{faults:?}");
}

#[test]
fn a_rollback_is_the_store_as_it_was_and_bitcoin_leads_back_to_the_same_chain() {
    let mut world = funded();
    let mut seen: Vec<(L2Number, Dump)> = Vec::new();
    for round in 0..6 {
        let transfer = world.transfer(Address::repeat_byte(round + 1), 1_000);
        world.build(vec![transfer]).unwrap();
        seen.push((world.engine.heads().latest.number, dump(world.store(), Domain::L2)));
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]);
    }
    let before = world.engine.heads();
    let l2 = dump(world.store(), Domain::L2);
    let finalized = before.finalized.number;
    assert!(finalized > L2Number(0) && before.safe.number > finalized);
    let undone = seen.iter().rev().filter(|(number, _)| *number >= finalized);
    assert!(undone.clone().count() >= 2);
    for (number, dumped) in undone {
        let heads = world.engine.roll_back_to(*number).unwrap();
        assert_eq!(heads.latest.number, *number);
        assert!(heads.safe.number <= *number);
        assert_eq!(&dump(world.store(), Domain::L2), dumped);
        world.check_heads();
        assert_eq!(verify(&world).faults, []);
    }
    world.reopen();
    let tip = world.engine.heads().l1_tip.height;
    assert!(tip < before.l1_tip.height);
    for (height, block) in (1..).map(L1Height).zip(&world.chain).filter(|(it, _)| *it > tip) {
        world.engine.connect_l1(height, block.clone()).unwrap();
    }
    assert_eq!(world.engine.heads().safe, before.safe);
    world.build(vec![]);
    assert_eq!(world.engine.heads().latest, before.latest);
    assert_eq!(dump(world.store(), Domain::L2), l2);
}

#[test]
fn a_rollback_of_unsafe_blocks_leaves_bitcoin_alone() {
    let world = world();
    let before = world.engine.heads();
    let heads = world.engine.roll_back_to(before.latest.number.prev().unwrap()).unwrap();
    assert_eq!(heads.l1_tip, before.l1_tip);
    assert_eq!(heads.safe, before.safe);
    assert_eq!(heads.latest.number.next(), before.latest.number);
}

#[test]
fn a_rollback_below_what_is_final_or_above_what_there_is_changes_nothing() {
    let world = world();
    let before = (world.engine.heads(), dump(world.store(), Domain::L2));
    let finalized = before.0.finalized.number;
    let error = world.engine.roll_back_to(finalized.prev().unwrap()).unwrap_err();
    assert!(matches!(error, EngineError::BelowFinal { .. }), "{error}");
    let error = world.engine.roll_back_to(before.0.latest.number.next()).unwrap_err();
    assert!(matches!(error, EngineError::NoBlock { .. }), "{error}");
    assert_eq!((world.engine.heads(), dump(world.store(), Domain::L2)), before);
    world.engine.roll_back_to(finalized).unwrap();
    assert_eq!(world.engine.heads().latest.number, finalized);
}
