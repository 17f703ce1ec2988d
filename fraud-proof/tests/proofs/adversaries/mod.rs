//! What dishonest proposers, challengers and sequencers try, and what comes of it.

mod assertions;
mod chain;
mod claims;
mod proofs;

use crate::program::judge_both;
use crate::world::{World, hashes, params};
use alloy_primitives::B256;
use kedge_fraud_proof::{
    AssertionStatus, AssertionView, Claim, FraudKind, Rejection, Verdict, genesis_claim,
};
use kedge_genesis::L1Height;

/// The last L1 block that assertions here are about; the world stands one block above it.
const END: u32 = 4;

fn world() -> World {
    World::busy(params(), 3)
}

/// Puts an assertion of these claims from the network's start up to `to` on Bitcoin.
fn propose(world: &mut World, to: u32, claims: &[Claim]) -> B256 {
    let (id, tx) = world.assert(B256::ZERO, to, hashes(claims));
    world.mine(vec![tx]);
    assert!(world.tracker.get(&id).unwrap().is_open());
    id
}

/// Proves an assertion wrong on Bitcoin.
fn overturn(world: &mut World, id: B256) -> Rejection {
    let proof = world.refute(id).expect("a wrong assertion").encode();
    let reveals = world.publish(1, &proof);
    world.mine(reveals);
    match world.tracker.get(&id).unwrap().status {
        AssertionStatus::Rejected { proof: Some(proof), .. } => proof,
        status => panic!("{status:?}"),
    }
}

/// Asserts these claims up to `END`, proves them wrong and says where and how.
fn overturned(world: &mut World, claims: &[Claim]) -> (usize, FraudKind) {
    let id = propose(world, END, claims);
    let Rejection { segment, kind, .. } = overturn(world, id);
    (segment as usize, kind)
}

/// Mines to the deadline of an assertion, which nobody can prove wrong, and sees it settle.
fn settles(world: &mut World, id: B256) {
    assert_eq!(world.refute(id), None);
    let deadline = world.tracker.get(&id).unwrap().deadline;
    wait(world, deadline);
    let status = world.tracker.get(&id).unwrap().status;
    assert_eq!(status, AssertionStatus::Settled { at: deadline });
}

fn wait(world: &mut World, height: L1Height) {
    while world.state.l1.height < height {
        world.mine(vec![]);
    }
}

/// A wrong root after any segment of the L1 block at `height` can be proven, a right one after none.
fn provable(world: &World, height: u32) {
    let start = world.truth(0, height - 1).len();
    let truth = world.truth(0, height);
    let base = genesis_claim(&world.params).unwrap().hash();
    for segment in start..truth.len() {
        let mut wrong = truth.clone();
        wrong[segment].output_root = B256::repeat_byte(7);
        for (claims, is_wrong) in [(hashes(&wrong), true), (hashes(&truth), false)] {
            let (id, l1) = (B256::repeat_byte(1), world.at(height));
            let view = AssertionView { id, base, l1, claims: &claims };
            let mut proof = world.prove(&view, segment);
            if !is_wrong {
                // Says that it is, so that the verifier has to see for itself.
                proof.run.as_mut().unwrap().post.output_root = B256::ZERO;
            }
            let verdict = judge_both(&world.params, &world.chain, &view, &proof.encode());
            let (segment, kind) = (segment as u32, FraudKind::OutputRoot);
            let expected =
                if is_wrong { Verdict::Fraud { segment, kind } } else { Verdict::NoFraud };
            assert_eq!(verdict, expected, "segment {segment}");
        }
    }
}
