//! What assertions come to is what the branch of Bitcoin says that they are on, whatever another said before.

use crate::life::{chunked, commit};
use crate::world::{World, hashes};
use alloy_primitives::B256;
use bitcoin::Transaction;
use kedge_fraud_proof::{AssertionStatus, AssertionTracker};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::LazyLock;

const END: u32 = 4;

/// A chain to fork, and all that its branches may hold: assertions, commits and reveals of proofs.
struct Fork {
    world: World,
    right: [B256; 2],
    wrong: [B256; 3],
    pool: Vec<Transaction>,
    /// Where in the pool each proof begins.
    proofs: Vec<usize>,
}

static FORK: LazyLock<Fork> = LazyLock::new(|| {
    let mut world = World::busy(chunked(), 3);
    let truth = world.truth(0, END);
    let next = hashes(&world.truth(END, END + 1));
    let mut pool = Vec::new();
    let mut propose = |world: &mut World, parent: B256, to: u32, claims: &[B256]| {
        let (id, tx) = world.assert(parent, to, claims.to_vec());
        pool.push(tx);
        id
    };
    let right = propose(&mut world, B256::ZERO, END, &hashes(&truth));
    let child = propose(&mut world, right, END + 1, &next);
    let lies = [1, truth.len() - 2].map(|segment| {
        let mut claims = hashes(&truth);
        claims[segment] = B256::repeat_byte(segment as u8);
        (propose(&mut world, B256::ZERO, END, &claims), claims, segment)
    });
    let wrong = [lies[0].0, propose(&mut world, lies[0].0, END + 1, &next), lies[1].0];
    let mut proofs = Vec::new();
    for (id, claims, segment) in &lies {
        let view = world.view(*id, END, claims);
        let proof = world.prove(&view, *segment).encode();
        for by in [1, 2] {
            proofs.push(pool.len());
            for mut reveal in world.publish(by, &proof) {
                pool.push(commit(&mut world, &mut reveal, true));
                pool.push(reveal);
            }
        }
    }
    Fork { world, right: [right, child], wrong, pool, proofs }
});

/// The transactions of some blocks: places in the pool, mostly in its order, without what is there already.
fn history() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let assertions = (0..3usize, 1..6usize);
    let proofs = (prop::sample::select(FORK.proofs.clone()), 1..16usize);
    let rests = (5..FORK.pool.len(), 1..16usize);
    let run = prop_oneof![3 => assertions, 4 => proofs, 1 => rests, 2 => Just((0, 0))];
    let block = (run, prop::bool::weighted(0.1)).prop_map(|((from, count), backwards)| {
        let mut places: Vec<_> = (from..(from + count).min(FORK.pool.len())).collect();
        if backwards {
            places.reverse();
        }
        places
    });
    prop::collection::vec(block, 1..16).prop_map(|mut blocks| {
        let mut seen = BTreeSet::new();
        for block in &mut blocks {
            block.retain(|place| seen.insert(*place));
        }
        blocks
    })
}

/// Mines them; gives what the tracker is after each block, as it is stored.
fn mine(world: &mut World, blocks: &[Vec<usize>]) -> Vec<Vec<u8>> {
    blocks
        .iter()
        .map(|places| {
            world.mine(places.iter().map(|place| FORK.pool[*place].clone()).collect());
            world.tracker.encode()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_branch_says_the_same_whatever_another_said_before(
        first in history(),
        second in history(),
        fork in any::<prop::sample::Index>(),
    ) {
        // One node follows the first branch, goes back to some block of it, and follows the second.
        let mut node = FORK.world.clone();
        let mut kept = vec![node.tracker.encode()];
        kept.extend(mine(&mut node, &first));
        let fork = fork.index(kept.len());
        let shared = &first[..fork];
        node.rewind(FORK.world.state.l1.height.plus(fork as u32));
        node.tracker = AssertionTracker::decode(&kept[fork]).unwrap();
        // Another sees nothing but the branch that stays.
        let mut fresh = FORK.world.clone();
        mine(&mut fresh, shared);
        prop_assert_eq!(&fresh.tracker, &node.tracker);
        let mut used: Vec<usize> = shared.concat();
        used.sort_unstable();
        let rest: Vec<Vec<usize>> = second
            .iter()
            .map(|block| block.iter().copied().filter(|at| used.binary_search(at).is_err()).collect())
            .collect();
        node.counter = fresh.counter;
        prop_assert_eq!(mine(&mut fresh, &rest), mine(&mut node, &rest));
        // And whatever happened, what is right was not rejected.
        for id in FORK.right {
            prop_assert!(fresh.tracker.get(&id).is_none_or(|node| !node.is_rejected()));
        }
    }
}

/// The strategy reaches what it is about.
#[test]
fn random_histories_reject_challenge_and_settle() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut rejected, mut fell, mut settled, mut challenged) = (0, 0, 0, 0);
    for _ in 0..60 {
        let mut world = FORK.world.clone();
        for block in history().new_tree(&mut runner).unwrap().current() {
            mine(&mut world, &[block]);
            for node in world.tracker.nodes() {
                match node.status {
                    AssertionStatus::Proposed => {}
                    AssertionStatus::Challenged => challenged += 1,
                    AssertionStatus::Rejected { proof: Some(_), .. } => rejected += 1,
                    AssertionStatus::Rejected { proof: None, .. } => fell += 1,
                    AssertionStatus::Settled { .. } => settled += 1,
                }
                assert_eq!(FORK.wrong.contains(&node.id), !node.agrees);
            }
        }
    }
    let seen = (rejected, fell, settled, challenged);
    assert!(rejected > 20 && fell > 2 && settled > 20 && challenged > 20, "{seen:?}");
}
