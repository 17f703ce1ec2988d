//! Proofs that prove nothing, published on Bitcoin: none rejects, none keeps an honest one from doing so.

use super::{END, propose, settles, world};
use crate::life::{Case, case, chunked};
use crate::program::judge_both;
use crate::world::{Own, World, account, params};
use alloy_primitives::{Address, B256, Bytes, TxKind, keccak256};
use bitcoin::{Block, Transaction, Witness};
use kedge_bridge::deflate::{InflateFault, deflate};
use kedge_bridge::derive::L1Lookup;
use kedge_bridge::envelope::envelopes;
use kedge_fraud_proof::proof::{HEAD_BYTES, MAX_CONTENT_BYTES};
use kedge_fraud_proof::{
    AssertionEvent, AssertionStatus, Malformed, OwnBlock, Proof, ProofFault, ProofIgnored, Verdict,
};
use kedge_genesis::{L1Height, L2Number, Network, Params};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;

/// What becomes of these bytes as a proof against the case's assertion. It stands after them.
fn tried(case: &mut Case, bytes: &[u8]) -> Vec<AssertionEvent> {
    let reveals = case.world.publish(5, bytes);
    let events = case.world.mine(reveals);
    assert!(case.node().is_open(), "{events:?}");
    events
}

fn verdict(events: &[AssertionEvent]) -> Verdict {
    match events {
        [AssertionEvent::ProofFailed { verdict, .. }] => *verdict,
        events => panic!("{events:?}"),
    }
}

fn reason(events: &[AssertionEvent]) -> ProofIgnored {
    match events {
        [AssertionEvent::ProofIgnored { reason, .. }] => *reason,
        events => panic!("{events:?}"),
    }
}

fn malformed(reason: Malformed) -> Verdict {
    Verdict::Malformed { reason }
}

/// The honest proof wins, whatever came before it.
fn then_the_honest_proof_wins(mut case: Case) {
    let reveals = case.reveals(1);
    case.world.mine(reveals);
    assert!(case.node().is_rejected());
}

/// The good proof, altered.
fn altered(case: &Case, alter: impl Fn(&mut Proof)) -> Vec<u8> {
    let mut proof = Proof::decode(&case.proof).unwrap();
    alter(&mut proof);
    proof.encode()
}

#[test]
fn proof_for_right_assertion() {
    let mut world = world();
    let truth = world.truth(0, END);
    let right = propose(&mut world, END, &truth);
    for segment in 0..=truth.len() {
        let view = world.tracker.get(&right).unwrap().view();
        let mut proof = world.prove(&view, segment);
        // Without this a verifier would not even execute.
        if let Some(run) = &mut proof.run {
            run.post.output_root = B256::ZERO;
        }
        let verified = judge_both(&world.params, &world.chain, &view, &proof.encode());
        assert_eq!(verified, Verdict::NoFraud);
        if segment < 3 {
            let reveals = world.publish(5, &proof.encode());
            let events = world.mine(reveals);
            assert_eq!(verdict(&events), Verdict::NoFraud);
        }
    }
    settles(&mut world, right);
}

#[test]
fn proof_truncated() {
    for cut in [1, 40, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 2_000] {
        let mut case = case(params());
        let bytes = case.proof[..cut].to_vec();
        let events = tried(&mut case, &bytes);
        if cut < HEAD_BYTES {
            assert_eq!(reason(&events), ProofIgnored::Head(ProofFault::Short));
        } else {
            let fault = ProofFault::Compression(InflateFault::Stream);
            assert_eq!(verdict(&events), malformed(Malformed::Encoding(fault)));
        }
        then_the_honest_proof_wins(case);
    }
}

#[test]
fn proof_bit_flipped() {
    let mut case = case(params());
    let good = case.proof.clone();
    let view = case.node().view();
    let fraud = judge_both(&case.world.params, &case.world.chain, &view, &good);
    assert!(matches!(fraud, Verdict::Fraud { .. }));
    for at in (1..good.len()).step_by(13) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let verdict = judge_both(&case.world.params, &case.world.chain, &view, &bytes);
        assert!(matches!(verdict, Verdict::Malformed { .. }), "byte {at}: {verdict:?}");
    }
    let mut bytes = good.clone();
    bytes[HEAD_BYTES + 400] ^= 4;
    tried(&mut case, &bytes);
    then_the_honest_proof_wins(case);
}

#[test]
fn proof_with_extra_nodes() {
    let mut case = case(params());
    let bytes = altered(&case, |proof| {
        let node = Bytes::from(vec![0xee; 50]);
        proof.run.as_mut().unwrap().witness.nodes.insert(keccak256(&node), node);
    });
    assert_eq!(verdict(&tried(&mut case, &bytes)), malformed(Malformed::Excess));
    then_the_honest_proof_wins(case);
}

#[test]
fn proof_with_missing_node() {
    let mut case = case(params());
    let nodes = Proof::decode(&case.proof).unwrap().run.unwrap().witness.nodes;
    let view = case.node().view();
    for hash in nodes.keys() {
        let bytes = altered(&case, |proof| {
            proof.run.as_mut().unwrap().witness.nodes.remove(hash);
        });
        let found = judge_both(&case.world.params, &case.world.chain, &view, &bytes);
        assert_eq!(found, malformed(Malformed::Incomplete));
    }
    let bytes = altered(&case, |proof| {
        proof.run.as_mut().unwrap().witness.nodes.pop_first();
    });
    assert_eq!(verdict(&tried(&mut case, &bytes)), malformed(Malformed::Incomplete));
    then_the_honest_proof_wins(case);
}

#[test]
fn proof_over_size() {
    let mut case = case(chunked());
    // A chunk more than a channel has, and a chunk larger than one may be.
    let limits = case.world.params;
    let most = usize::from(limits.max_chunks) * limits.max_chunk_bytes as usize;
    let mut long = case.proof.clone();
    long.resize(most + 1, 0);
    let view = case.node().view();
    let found = judge_both(&limits, &case.world.chain, &view, &long);
    assert_eq!(found, malformed(Malformed::TooLarge));
    for (chunks, bytes) in [(limits.max_chunks + 1, limits.max_chunk_bytes), (12, 2_000)] {
        case.world.params = Params { max_chunks: chunks, max_chunk_bytes: bytes, ..limits };
        let reveals = case.world.publish(5, &long);
        case.world.params = limits;
        let count = reveals.len();
        let events = case.world.mine(reveals);
        let ignored = events.iter().filter(|event| {
            matches!(event, AssertionEvent::ProofIgnored { reason: ProofIgnored::NotOurs, .. })
        });
        // All of them, or all that are too large.
        assert!(ignored.count() >= count - 1, "{events:?}");
        assert!(case.node().is_open() && case.world.tracker.channels().is_empty());
    }
    then_the_honest_proof_wins(case);
}

#[test]
fn proof_decompression_bomb() {
    let mut case = case(params());
    let head = &case.proof[..HEAD_BYTES];
    let bomb = [head, &deflate(&vec![0; 64 << 20])].concat();
    let full = [head, &deflate(&vec![0; MAX_CONTENT_BYTES])].concat();
    assert!(bomb.len() < 100_000);
    let faults = [ProofFault::Compression(InflateFault::TooLarge), ProofFault::Content];
    for (bytes, fault) in [bomb, full].into_iter().zip(faults) {
        let found = verdict(&tried(&mut case, &bytes));
        assert_eq!(found, malformed(Malformed::Encoding(fault)));
    }
    then_the_honest_proof_wins(case);
}

#[test]
fn proof_for_other_chain() {
    let mut case = case(params());
    let other = Network::Signet.params();
    let bytes = altered(&case, |proof| proof.head.params = other.hash());
    assert_eq!(reason(&tried(&mut case, &bytes)), ProofIgnored::NotOurs);
    let view = case.node().view();
    let found = judge_both(&case.world.params, &case.world.chain, &view, &bytes);
    assert_eq!(found, malformed(Malformed::OtherChain));
    // The right bytes in an envelope of another chain.
    let limits = case.world.params;
    case.world.params.chain_id = other.chain_id;
    let reveals = case.reveals(5);
    case.world.params = limits;
    let events = case.world.mine(reveals);
    assert_eq!(reason(&events), ProofIgnored::NotOurs);
    then_the_honest_proof_wins(case);
}

#[test]
fn proof_in_last_block_of_window() {
    let mut case = case(chunked());
    let deadline = case.node().deadline;
    case.wait(deadline.0 - 1);
    let reveals = case.reveals(1);
    assert!(reveals.len() > 1);
    case.world.mine(reveals);
    assert_eq!(case.world.state.l1.height, deadline);
    assert!(case.node().is_rejected());
}

#[test]
fn proof_one_block_after_the_window() {
    let mut case = case(chunked());
    let deadline = case.node().deadline;
    case.wait(deadline.0 - 1);
    let mut reveals = case.reveals(1);
    let last = reveals.pop().unwrap();
    // All but the last chunk in time.
    case.world.mine(reveals);
    let id = case.id;
    let events = case.world.mine(vec![last]);
    let closed =
        matches!(events[..], [AssertionEvent::ProofIgnored { reason: ProofIgnored::Closed, .. }]);
    assert!(closed, "{events:?}");
    let node = case.world.tracker.get(&id).unwrap();
    let settled = AssertionStatus::Settled { at: deadline };
    assert_eq!((node.status, node.agrees), (settled, false));
    // Nobody follows: what settled is wrong, and moves no head.
    assert_eq!(case.world.tracker.settled().id, B256::ZERO);
}

/// Bitcoin blocks, and how many of them were read.
struct Counting<'a>(&'a World, Cell<usize>);

impl L1Lookup for Counting<'_> {
    type Error = Infallible;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Infallible> {
        self.1.set(self.1.get() + 1);
        self.0.chain.l1_block(height)
    }
}

#[test]
fn proof_repeated_many_times() {
    let mut case = case(params());
    let reveals = case.reveals(1);
    case.world.mine(reveals);
    let before = case.node().clone();
    let AssertionStatus::Rejected { proof: Some(first), .. } = before.status else {
        panic!("not rejected")
    };
    case.wait(before.deadline.0 - 1);
    // A hundred copies, none of which spends anything that can be found.
    let copies: Vec<_> = (0..100).flat_map(|copy| case.reveals(2 + copy % 50)).collect();
    let l1 = case.world.block(copies);
    let (mut tracker, lookup) = (case.world.tracker.clone(), Counting(&case.world, Cell::new(0)));
    let mut known = case.world.own.clone();
    known.insert(l1.at.height.0, OwnBlock { hash: l1.at.hash, claims: vec![] });
    let events = tracker.on_l1_block(&case.world.params, &l1, &Own(&known), &lookup).unwrap();
    assert_eq!(events.len(), 100);
    let late = |event: &AssertionEvent| {
        matches!(event, AssertionEvent::ProofIgnored { reason: ProofIgnored::Late, .. })
    };
    assert!(events.iter().all(late), "{events:?}");
    assert_eq!(tracker.get(&case.id), Some(&before));
    // Only blocks in which somebody can have committed earlier are searched, once for all of them.
    let blocks = first.committed.since(before.confirmed_at) as usize;
    assert!(blocks < l1.at.height.since(first.committed) as usize);
    assert!(lookup.1.get() <= blocks, "{} reads of {blocks} blocks", lookup.1.get());
}

/// A reveal whose script has the same header and other bytes in its body.
fn copied_header(reveal: &Transaction) -> Transaction {
    let mut copy = reveal.clone();
    copy.input[0].previous_output.vout += 1;
    let mut items: Vec<Vec<u8>> = copy.input[0].witness.to_vec();
    // The last byte before OP_ENDIF is the body's last.
    let script = &mut items[1];
    let at = script.len() - 2;
    script[at] ^= 1;
    copy.input[0].witness = Witness::from_slice(&items);
    assert!(envelopes(&copy).is_empty());
    copy
}

#[test]
fn chunk_with_copied_header() {
    // Of a proof: other bytes under its header are no envelope, and cannot take its chunk's place.
    let mut honest = case(chunked());
    let reveals = honest.reveals(1);
    let copies: Vec<_> = reveals.iter().map(copied_header).collect();
    let txs: Vec<_> = copies.into_iter().zip(reveals).flat_map(|(a, b)| [a, b]).collect();
    let events = honest.world.mine(txs);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(honest.node().is_rejected());
    // Of a batch, between its chunks.
    let mut world = World::new(Params { max_chunk_bytes: 100, ..params() });
    world.mine(vec![]);
    let to = TxKind::Call(Address::repeat_byte(7));
    let chunks = world.batch_chunks(vec![vec![account(1).send(0, to, 5, vec![])]]);
    assert!(chunks.len() > 1);
    let copies: Vec<_> = chunks.iter().map(copied_header).collect();
    world.mine(copies.into_iter().zip(chunks).flat_map(|(a, b)| [a, b]).collect());
    assert_eq!(world.state.cursor.number, L2Number(1));
}
