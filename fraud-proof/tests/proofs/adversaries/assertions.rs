//! Assertions that should not count, too many, and on the wrong parent.

use super::{END, overturn, propose, settles, wait, world};
use crate::world::{World, hashes, publisher};
use alloy_primitives::B256;
use bitcoin::{OutPoint, Transaction};
use kedge_bridge::assertion::assertion_id;
use kedge_bridge::bond::Bond;
use kedge_fraud_proof::{AssertionEvent, AssertionFault, AssertionStatus};
use kedge_genesis::Sats;

fn faults(events: &[AssertionEvent]) -> Vec<AssertionFault> {
    let fault = |event: &AssertionEvent| match event {
        AssertionEvent::Ignored { fault, .. } => Some(*fault),
        _ => None,
    };
    events.iter().filter_map(fault).collect()
}

/// A right assertion up to `to` on `parent`, which ends at block `from`, on Bitcoin.
fn extend(world: &mut World, parent: B256, from: u32, to: u32) -> (B256, Vec<AssertionEvent>) {
    let claims = hashes(&world.truth(from, to));
    let (id, tx) = world.assert(parent, to, claims);
    let events = world.mine(vec![tx]);
    (id, events)
}

#[test]
fn stale_parent() {
    let mut world = world();
    let mut claims = world.truth(0, END);
    claims[1].output_root = B256::ZERO;
    let wrong = propose(&mut world, END, &claims);
    overturn(&mut world, wrong);
    // One that was rejected.
    let (_, events) = extend(&mut world, wrong, END, END + 1);
    assert_eq!(faults(&events), [AssertionFault::Rejected]);
    // One that was settled and continued is a parent still, and leads nowhere.
    let (first, _) = extend(&mut world, B256::ZERO, 0, END);
    let (second, _) = extend(&mut world, first, END, END + 4);
    settles(&mut world, first);
    settles(&mut world, second);
    let head = world.tracker.settled();
    assert_eq!(head.id, second);
    let (late, events) = extend(&mut world, first, END, END + 2);
    assert_eq!(events, [AssertionEvent::Proposed { id: late, agrees: true }]);
    settles(&mut world, late);
    assert_eq!(world.tracker.settled(), head);
    // Until it is forgotten, four windows after its deadline.
    let forgotten = world.tracker.get(&first).unwrap().deadline.plus(4 * 6);
    wait(&mut world, forgotten);
    let (_, events) = extend(&mut world, first, END, END + 2);
    assert_eq!(faults(&events), [AssertionFault::Parent]);
    // And one that never was.
    let (_, events) = extend(&mut world, B256::repeat_byte(9), END, END + 2);
    assert_eq!(faults(&events), [AssertionFault::Parent]);
}

#[test]
fn fork_of_assertions() {
    let mut world = world();
    wait(&mut world, kedge_genesis::L1Height(7));
    let (parent, _) = extend(&mut world, B256::ZERO, 0, 2);
    let wrong = |world: &World| {
        let mut claims = hashes(&world.truth(2, 4));
        claims[1] = B256::repeat_byte(3);
        claims
    };
    // Two branches on one parent, the wrong one first, each continued.
    let claims = wrong(&world);
    let (left, tx) = world.assert(parent, 4, claims);
    world.mine(vec![tx]);
    let (left_child, _) = extend(&mut world, left, 4, 6);
    let (right, _) = extend(&mut world, parent, 2, 4);
    let (right_child, _) = extend(&mut world, right, 4, 6);
    // Whoever proposes next goes on with the right branch.
    assert_eq!(world.build_assertion().unwrap().parent, right_child);
    overturn(&mut world, left);
    assert!(world.tracker.get(&left_child).unwrap().is_rejected());
    for id in [parent, right, right_child] {
        settles(&mut world, id);
    }
    assert_eq!(world.tracker.settled().id, right_child);
    assert_eq!(world.build_assertion().unwrap().parent, right_child);
}

#[test]
fn assertion_flood() {
    let mut world = world();
    let truth = world.truth(0, END);
    let mut floods: Vec<(B256, Transaction)> = (0..100usize)
        .map(|number| {
            let mut claims = hashes(&truth);
            let at = number % claims.len();
            claims[at] = B256::with_last_byte(number as u8);
            world.assert(B256::ZERO, END, claims)
        })
        .collect();
    let right = world.assert(B256::ZERO, END, hashes(&truth));
    let right_id = right.0;
    floods.insert(50, right);
    let (ids, txs): (Vec<_>, Vec<_>) = floods.into_iter().unzip();
    let events = world.mine(txs);
    assert_eq!(events.len(), 101);
    assert_eq!(world.build_assertion().unwrap().parent, right_id);
    let mut reveals = Vec::new();
    for id in ids.iter().filter(|id| **id != right_id) {
        let proof = world.refute(*id).unwrap().encode();
        reveals.extend(world.publish(1, &proof));
    }
    // One block has room for the proofs of all.
    world.mine(reveals);
    for id in ids.iter().filter(|id| **id != right_id) {
        assert!(world.tracker.get(id).unwrap().is_rejected());
    }
    settles(&mut world, right_id);
    assert_eq!(world.tracker.settled().id, right_id);
}

#[test]
fn assertion_without_bond() {
    let mut world = world();
    let claims = hashes(&world.truth(0, END));
    type Spoil = fn(&World, &mut Transaction);
    let spoils: [(&str, Spoil); 5] = [
        ("no output", |_, tx| tx.output.clear()),
        ("a satoshi too little", |world, tx| {
            let bond = Sats(world.params.proposer_bond.0 - 1);
            tx.output[0] = Bond::of(&world.params, publisher(9)).unwrap().tx_out(bond);
        }),
        ("the bond of another proposer", |world, tx| {
            let bond = world.params.proposer_bond;
            tx.output[0] = Bond::of(&world.params, publisher(8)).unwrap().tx_out(bond);
        }),
        ("an output of the proposer's own", |world, tx| {
            tx.output[0].script_pubkey = world.state.vault.current.clone();
        }),
        ("at another index", |_, tx| {
            let change = bitcoin::TxOut { value: bitcoin::Amount::ZERO, ..tx.output[0].clone() };
            tx.output.insert(0, change);
        }),
    ];
    for (name, spoil) in spoils {
        let (_, mut tx) = world.assert(B256::ZERO, END, claims.clone());
        spoil(&world, &mut tx);
        let events = world.mine(vec![tx]);
        assert_eq!(faults(&events), [AssertionFault::Bond], "{name}");
    }
    assert!(world.tracker.nodes().is_empty());
}

#[test]
fn bond_reused() {
    let mut world = world();
    let claims = hashes(&world.truth(0, END));
    // Two assertions in one reveal with one bond: the second has none.
    let (first, mut tx) = world.assert(B256::ZERO, END, claims.clone());
    let (_, other) = world.assert(B256::ZERO, END, claims.clone());
    tx.input.extend(other.input.clone());
    let first_of_two = assertion_id(&OutPoint::new(tx.compute_txid(), 0));
    assert_ne!(first, first_of_two);
    let bond = OutPoint::new(tx.compute_txid(), 0);
    let events = world.mine(vec![tx]);
    assert_eq!(faults(&events), [AssertionFault::Bond]);
    assert_eq!(world.tracker.nodes().len(), 1);
    assert_eq!(world.tracker.nodes()[0].id, first_of_two);
    // A later reveal that spends the bond of an earlier one needs one of its own.
    let (_, mut tx) = world.assert(B256::ZERO, END, claims);
    tx.input[0].previous_output = bond;
    tx.output.clear();
    let events = world.mine(vec![tx]);
    assert_eq!(faults(&events), [AssertionFault::Bond]);
    assert_eq!(world.tracker.nodes()[0].status, AssertionStatus::Proposed);
}
