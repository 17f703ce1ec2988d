//! Assertions that say something wrong.

use super::{END, overturn, overturned, propose, settles, world};
use crate::world::{World, hashes};
use alloy_primitives::{Address, B256, U256, keccak256};
use kedge_fraud_proof::{AssertionEvent, AssertionFault, Claim, FraudKind};
use kedge_genesis::{L1Height, predeploys};
use kedge_vm::{Payload, PayloadTx};

/// Asserts what a proposer claims who executes other payloads above block 1, and overturns it.
fn lie(world: &mut World, alter: &dyn Fn(&mut Payload)) -> Claim {
    let truth = world.truth(0, END);
    let mut claims = world.truth(0, 1);
    claims.extend(world.lie(1, END, alter).0);
    // The liar's chain goes on from the lie, so everything after it is wrong too.
    let first = truth.iter().zip(&claims).position(|(own, other)| own != other).unwrap();
    assert!(claims[first..].iter().all(|claim| !truth.contains(claim)));
    assert_eq!(overturned(world, &claims), (first, FraudKind::OutputRoot));
    truth[first]
}

/// Whether it mints coins.
fn is_deposit(tx: &PayloadTx) -> bool {
    matches!(tx, PayloadTx::System(deposit) if deposit.mint > 0)
}

#[test]
fn wrong_root() {
    let mut world = world();
    for segment in [0, 1] {
        let mut claims = world.truth(0, END);
        claims[segment].output_root = keccak256(claims[segment].output_root);
        assert_eq!(overturned(&mut world, &claims), (segment, FraudKind::OutputRoot));
    }
    let truth = world.truth(0, END);
    let right = propose(&mut world, END, &truth);
    settles(&mut world, right);
}

#[test]
fn wrong_root_in_middle_segment() {
    let mut world = world();
    let mut claims = world.truth(0, END);
    let middle = claims.iter().rposition(|claim| claim.offset > 0).unwrap();
    assert!(middle > 0 && middle + 1 < claims.len());
    claims[middle].output_root = B256::repeat_byte(1);
    assert_eq!(overturned(&mut world, &claims), (middle, FraudKind::OutputRoot));
}

#[test]
fn right_roots_wrong_final() {
    let mut world = world();
    let mut claims = world.truth(0, END);
    let last = claims.len() - 1;
    claims[last].output_root = claims[last - 1].output_root;
    assert_ne!(claims, world.truth(0, END));
    assert_eq!(overturned(&mut world, &claims), (last, FraudKind::OutputRoot));
}

#[test]
fn wrong_block_number() {
    let mut world = world();
    for (segment, up) in [(2, 1), (3, 0)] {
        let mut claims = world.truth(0, END);
        let number = &mut claims[segment].number.0;
        *number = *number + 2 * up - 1;
        assert_eq!(overturned(&mut world, &claims), (segment, FraudKind::BlockNumber));
    }
}

#[test]
fn agreed_root_at_wrong_height() {
    let mut world = world();
    let truth = world.truth(0, END);
    let last = truth.len() - 1;
    let before = world.last_claim(L1Height(END - 1));
    // The chain stood still in the last L1 block: its claim again, or its root under the right height.
    let mut claims = truth.clone();
    claims[last] = before;
    assert_eq!(overturned(&mut world, &claims).0, last);
    claims[last] = Claim { l1_height: truth[last].l1_height, ..before };
    assert_eq!(overturned(&mut world, &claims).0, last);
    let (number, output_root) = (before.number, before.output_root);
    claims[last] = Claim { number, output_root, ..truth[last] };
    assert_eq!(overturned(&mut world, &claims).0, last);
    // All of that L1 block's claims left out: the true end of the block before.
    let short = world.truth(0, END - 1);
    let missing = (short.len(), FraudKind::MissingSegments);
    assert_eq!(overturned(&mut world, &short), missing);
    // And with that end once more in their place.
    let claims: Vec<_> = short.iter().copied().chain([before]).collect();
    assert_eq!(overturned(&mut world, &claims).0, short.len());
    // The true end, and once more; the true claims of a block more.
    for more in [vec![truth[last]], world.truth(END, END + 1)] {
        let claims: Vec<_> = truth.iter().copied().chain(more).collect();
        assert_eq!(overturned(&mut world, &claims), (last + 1, FraudKind::ExtraSegments));
    }
}

#[test]
fn skipped_deposit() {
    let mut world = world();
    let at = lie(&mut world, &|payload| payload.transactions.retain(|tx| !is_deposit(tx)));
    assert_eq!(at.l1_height, L1Height(1));
}

#[test]
fn invented_deposit() {
    let mut world = world();
    // One that is there, a second time.
    lie(&mut world, &|payload| {
        let deposit = payload.transactions.iter().find(|tx| is_deposit(tx)).cloned();
        if let Some(PayloadTx::System(mut deposit)) = deposit {
            deposit.source_hash.0[0] ^= 1;
            payload.transactions.push(PayloadTx::System(deposit));
        }
    });
}

#[test]
fn invented_withdrawal() {
    let mut world = world();
    let withdrawals = |alter: &dyn Fn(&mut Payload)| world.lie(1, END, alter).1.withdrawals_root;
    let withdraw = |payload: &mut Payload| {
        let Some(PayloadTx::System(deposit)) =
            payload.transactions.iter().find(|tx| is_deposit(tx)).cloned()
        else {
            return;
        };
        // `withdraw(bytes)` of coins that come from nowhere, to a P2WPKH script.
        let selector = &keccak256("withdraw(bytes)")[..4];
        let script = [&[0, 20][..], &[9; 20], &[0; 10]].concat();
        let words = [U256::from(32), U256::from(22)].map(|word| word.to_be_bytes::<32>());
        let mut forged = deposit;
        forged.source_hash.0[0] ^= 1;
        forged.from = Address::repeat_byte(9);
        forged.to = predeploys::BITCOIN_BRIDGE.into();
        forged.mint = 1_000_000 * 10_000_000_000;
        forged.value = U256::from(forged.mint);
        forged.gas_limit = 1_000_000;
        forged.input = [selector, words.as_flattened(), &script].concat().into();
        payload.transactions.push(PayloadTx::System(forged));
    };
    // It is a withdrawal that signers would pay if they believed the root.
    assert_ne!(withdrawals(&withdraw), withdrawals(&|_| {}));
    lie(&mut world, &withdraw);
}

#[test]
fn wrong_l1_block() {
    let mut world = world();
    // An assertion about a block that is not there does not count.
    let claims = hashes(&world.truth(0, END));
    let right = world.own[&END].hash;
    world.own.get_mut(&END).unwrap().hash = B256::repeat_byte(4);
    let (_, tx) = world.assert(B256::ZERO, END, claims);
    world.own.get_mut(&END).unwrap().hash = right;
    let events = world.mine(vec![tx]);
    let ignored = matches!(events[..], [AssertionEvent::Ignored { fault: AssertionFault::L1, .. }]);
    assert!(ignored, "{events:?}");
    // A claim that names another height than its own does, and is wrong.
    let mut claims = world.truth(0, END);
    claims[2].l1_height = claims[2].l1_height.next();
    assert_eq!(overturned(&mut world, &claims), (2, FraudKind::L1Block));
    // So is one whose derive state follows from another block.
    let mut claims = world.truth(0, END);
    let segment = claims.iter().rposition(|claim| claim.offset == 0).unwrap();
    let mut state = world.derive_states[&END].clone();
    state.l1.hash = B256::repeat_byte(4);
    claims[segment].derive_state = state.hash();
    let id = propose(&mut world, END, &claims);
    // The challenger cannot guess the state, so the kind is the one that needs no guess.
    let proof = overturn(&mut world, id);
    assert_eq!((proof.segment as usize, proof.kind), (segment, FraudKind::OutputRoot));
}
