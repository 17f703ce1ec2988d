//! Dropping old states, on a node that is not to be an archive.
//!
//! Blocks, receipts and indexes stay. What goes is what the accounts, slots and tries were before changes
//! long past. Three things bound how far:
//!
//! * what is not final may have to be unwound;
//! * an assertion that can still be proven wrong is judged from the state at the end of the one that it
//!   continues, and so will be the next assertion that continues the settled chain;
//! * the operator's number of blocks.
//!
//! An assertion may also continue a settled one of long ago, or the genesis. So a node that challenges keeps
//! everything.

use crate::engine::{Engine, EngineError};
use anyhow::bail;
use kedge_genesis::{L1Height, L2Number, Params};
use kedge_store::{L1Rows, L2Rows, Reader, Rows, finalized, oldest_state};
use std::{str::FromStr, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Which states a node keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prune {
    /// All.
    #[default]
    Archive,
    /// Those after the last so many blocks, and what else must stay.
    Keep(u64),
}

impl FromStr for Prune {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "archive" => Ok(Self::Archive),
            "minimal" => Ok(Self::Keep(0)),
            number => number
                .parse()
                .map(Self::Keep)
                .map_err(|_| "expected archive, minimal or a number of blocks"),
        }
    }
}

/// Fewest blocks for which the whole history is read, where it takes that to prune them.
const SCAN: u64 = 256;

/// Refuses a challenger without the whole history.
///
/// # Errors
/// When states are to be pruned or have been, and when the store fails.
pub fn check_challenger(prune: Prune, rows: &impl Rows) -> anyhow::Result<()> {
    let oldest = oldest_state(rows)?;
    if prune != Prune::Archive {
        bail!("a challenger needs the state at every block; leave out --prune");
    }
    if oldest > L2Number(0) {
        bail!(
            "the states before block {oldest} have been pruned here, and a challenger needs them; sync again \
             into an empty --datadir"
        );
    }
    Ok(())
}

/// The oldest block after which the state has to be kept where the operator wants the last `keep` blocks.
///
/// # Errors
/// When the store fails.
pub fn oldest_to_keep(
    reader: &Reader<'_>,
    params: &Params,
    keep: u64,
) -> Result<L2Number, EngineError> {
    let latest = reader.latest()?.unwrap_or_default();
    let tracker = reader.tracker()?;
    let depth = params.finality_depth;
    let settled =
        tracker.settled_since(depth).map_or(params.l1_start.height, |node| node.l1.height);
    // A reorganisation may bring back what was decided in the last blocks.
    let open = tracker
        .nodes()
        .iter()
        .filter(|node| node.deadline.plus(depth) > tracker.l1_height())
        .map(|node| node.from);
    let base: L1Height = open.fold(settled, L1Height::min);
    let wanted = L2Number(latest.0.saturating_sub(keep));
    Ok(wanted.min(finalized(reader)?).min(reader.safe_at(base)?))
}

/// Prunes what there is to prune; where that takes a scan of the history, if it is at least `scan` blocks.
/// Gives the number of rows dropped.
fn prune(
    engine: &Engine,
    keep: u64,
    scan: u64,
    stop: &CancellationToken,
) -> Result<u64, EngineError> {
    let store = engine.store();
    let oldest = oldest_to_keep(&store.reader(), engine.params(), keep)?;
    let dropped = store.prune_states(oldest, scan, |_| !stop.is_cancelled())?;
    if dropped > 0 {
        tracing::info!(oldest = oldest.0, dropped, "pruned old states");
    }
    Ok(dropped)
}

/// Prunes whenever more has become final, until `stop`.
///
/// # Errors
/// When the store fails.
pub async fn run(engine: Arc<Engine>, keep: u64, stop: CancellationToken) -> anyhow::Result<()> {
    let mut heads = engine.watch_heads();
    // Blocks that became final on an archive have no records. With a scan for an eighth of what is kept, each row of
    // the history is read a constant number of times.
    let scan = SCAN.max(keep / 8);
    loop {
        let seen = heads.borrow_and_update().finalized.number;
        let (work, halt) = (engine.clone(), stop.clone());
        tokio::task::spawn_blocking(move || prune(&work, keep, scan, &halt)).await??;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = heads.wait_for(|heads| heads.finalized.number > seen) => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::{Dump, World, account, dump};
    use alloy_primitives::{Address, B256};
    use kedge_fraud_proof::{AssertionEvent, Verdict, verify};
    use kedge_store::{Domain, StoreError, Table};

    const BOB: Address = Address::repeat_byte(0xb0);

    fn world() -> World {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        world
    }

    /// A block with a transfer, its batch in the next Bitcoin block.
    fn round(world: &mut World) {
        let tx = world.transfer(BOB, 1_000);
        world.build(vec![tx]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]);
    }

    /// An assertion about everything, settled and finality-deep.
    fn settle(world: &mut World) {
        let assertion = world.assertion().unwrap();
        world.mine(vec![assertion]);
        for _ in 0..world.params.challenge_window + world.params.finality_depth {
            round(world);
        }
    }

    fn prune_all(world: &World, keep: u64) -> u64 {
        prune(&world.engine, keep, 1, &CancellationToken::new()).unwrap()
    }

    fn oldest(world: &World) -> L2Number {
        oldest_state(world.store()).unwrap()
    }

    #[test]
    fn modes_are_read_from_the_command_line() {
        assert_eq!("archive".parse(), Ok(Prune::Archive));
        assert_eq!("minimal".parse(), Ok(Prune::Keep(0)));
        assert_eq!("128".parse(), Ok(Prune::Keep(128)));
        assert!("full".parse::<Prune>().is_err());
        assert!("-1".parse::<Prune>().is_err());
    }

    #[test]
    fn pruned_states_are_refused_and_the_others_are_as_they_were() {
        let mut world = world();
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        let latest = world.engine.heads().latest.number;
        let balances = |world: &World, from: L2Number| -> Vec<_> {
            let reader = world.store().reader();
            (from.0..=latest.0)
                .map(|number| reader.state_at(L2Number(number)).unwrap().account(BOB).unwrap())
                .collect()
        };
        let wanted = oldest_to_keep(&world.store().reader(), world.params, 0).unwrap();
        assert!(L2Number(2) < wanted && wanted < latest, "{wanted}");
        let before = balances(&world, wanted);
        assert!(prune_all(&world, 0) > 0);
        assert_eq!(oldest(&world), wanted);
        assert_eq!(balances(&world, wanted), before);
        let reader = world.store().reader();
        let number = wanted.prev().unwrap();
        let error = reader.state_at(number).unwrap_err();
        let StoreError::StatePruned { number: found, oldest } = error else { panic!("{error}") };
        assert_eq!((found, oldest), (number.0, wanted.0));
        // What is left is what some state that is kept needs.
        for table in [Table::AccountHistory, Table::StorageHistory] {
            for (key, _) in reader.all(table).map(Result::unwrap) {
                let number = u64::from_be_bytes(*key.last_chunk().unwrap());
                assert!(number > wanted.0);
            }
        }
        drop(reader);
        let report = world.store().verify(&mut |_, _| {}).unwrap();
        assert_eq!(report.faults, []);
        assert_eq!(prune_all(&world, 0), 0, "nothing is left to do");
    }

    /// The first block whose undo record is there.
    fn first_record(world: &World) -> u64 {
        let (key, _) = world.store().reader().all(Table::UndoL2).next().unwrap().unwrap();
        u64::from_be_bytes(*key.last_chunk().unwrap())
    }

    #[test]
    fn undo_records_stay_until_their_blocks_are_pruned_and_drop_what_a_scan_does() {
        let [scanned, recorded] = [false, true].map(|records| {
            let mut world = World::new();
            if records {
                world.reopen_to_prune();
            }
            let deposit = world.deposit(account().address(), 100_000_000);
            world.mine(vec![deposit]);
            world.build(vec![]).unwrap();
            for _ in 0..2 {
                (0..8).for_each(|_| round(&mut world));
                settle(&mut world);
                let finalized = world.engine.heads().finalized.number;
                let kept = if records { oldest(&world) } else { finalized };
                assert_eq!(first_record(&world), kept.0 + 1);
                assert!(prune_all(&world, 0) > 0);
            }
            world
        });
        assert_eq!(oldest(&recorded), oldest(&scanned));
        assert_eq!(dump(recorded.store(), Domain::L2), dump(scanned.store(), Domain::L2));
        assert_eq!(first_record(&recorded), oldest(&recorded).0 + 1);
        assert_eq!(recorded.store().verify(&mut |_, _| {}).unwrap().faults, []);
    }

    #[test]
    fn what_became_final_on_an_archive_is_dropped_too() {
        let mut world = world();
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        world.reopen_to_prune();
        for _ in 0..3 {
            assert!(prune_all(&world, 0) > 0);
            let oldest = oldest(&world);
            let reader = world.store().reader();
            for (key, _) in reader.all(Table::AccountHistory).map(Result::unwrap) {
                assert!(u64::from_be_bytes(*key.last_chunk().unwrap()) > oldest.0);
            }
            assert!(first_record(&world) > oldest.0);
            drop(reader);
            settle(&mut world);
        }
        assert_eq!(world.store().verify(&mut |_, _| {}).unwrap().faults, []);
    }

    #[test]
    fn the_operators_number_of_blocks_stays() {
        let mut world = world();
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        let latest = world.engine.heads().latest.number;
        let keep = latest.0 - 2;
        assert!(prune_all(&world, keep) > 0);
        assert_eq!(oldest(&world), L2Number(2));
    }

    #[test]
    fn a_wrong_assertion_can_be_proven_wrong_after_everything_else_was_pruned() {
        let mut world = world();
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        let lie = world.assertion_with(|claims| claims[1] = B256::repeat_byte(1)).unwrap();
        let outcome = world.mine(vec![lie]);
        let [AssertionEvent::Proposed { id, agrees: false }] = outcome.assertions[..] else {
            panic!("{:?}", outcome.assertions)
        };
        (1..world.params.challenge_window).for_each(|_| round(&mut world));
        assert!(prune_all(&world, 0) > 0);
        assert!(oldest(&world) < world.engine.heads().finalized.number);
        let proof = world.engine.build_proof(id).unwrap().unwrap();
        let node = world.engine.tracker().unwrap().get(&id).unwrap().clone();
        let verdict = verify(world.params, world.store(), &node.view(), &proof.encode()).unwrap();
        assert!(matches!(verdict, Verdict::Fraud { segment: 1, .. }), "{verdict:?}");
    }

    #[test]
    fn what_an_open_assertion_continues_stays_although_more_has_settled() {
        let mut world = world();
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        let first = world.engine.tracker().unwrap().settled();
        settle(&mut world);
        let second = world.engine.tracker().unwrap().settled();
        let wanted =
            |world: &World| oldest_to_keep(&world.store().reader(), world.params, 0).unwrap();
        let safe_at = |world: &World, height| world.store().safe_at(height).unwrap();
        assert_eq!(wanted(&world), safe_at(&world, second.l1.height));
        let late = world.child_of(first.id);
        world.mine(vec![late]);
        assert_eq!(wanted(&world), safe_at(&world, first.l1.height));
        assert!(first.l1.height < second.l1.height);
    }

    #[test]
    fn what_was_pruned_does_not_matter_to_a_reorganisation() {
        let mut world = world();
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        let kept = |world: &World| -> Dump {
            let mut rows = dump(world.store(), Domain::L2);
            rows.retain(|(table, _), _| {
                !matches!(
                    table,
                    Table::AccountHistory
                        | Table::AccountReads
                        | Table::StorageHistory
                        | Table::Tries
                )
            });
            rows
        };
        let touches = |world: &World| -> std::collections::BTreeSet<_> {
            let reader = world.store().reader();
            let tables = [Table::AccountHistory, Table::AccountReads];
            let rows = tables.into_iter().flat_map(|table| reader.all(table));
            rows.map(|entry| entry.unwrap().0).collect()
        };
        let (before, touched) = (kept(&world), touches(&world));
        prune_all(&world, 0);
        assert_eq!(kept(&world), before, "blocks and the latest state stay");
        assert_eq!(touches(&world), touched, "which blocks touched an account stays");
        let finalized = world.engine.heads().finalized.number;
        world.engine.roll_back_to(finalized).unwrap();
        assert_eq!(world.engine.heads().latest.number, finalized);
        assert_eq!(world.store().verify(&mut |_, _| {}).unwrap().faults, []);
    }

    #[test]
    fn a_challenger_is_refused_where_states_are_or_were_pruned() {
        let mut world = world();
        let refused = |prune, world: &World| check_challenger(prune, world.store()).is_err();
        assert!(!refused(Prune::Archive, &world));
        assert!(refused(Prune::Keep(1_000_000), &world));
        (0..8).for_each(|_| round(&mut world));
        settle(&mut world);
        prune_all(&world, 0);
        assert!(refused(Prune::Archive, &world));
    }
}
