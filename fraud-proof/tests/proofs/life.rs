//! Proofs on Bitcoin: channels, deadlines, rejection, whom the bond pays.

use crate::world::{World, hashes, params, publisher};
use alloy_primitives::B256;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use kedge_fraud_proof::{
    AssertionEvent, AssertionFault, AssertionNode, AssertionStatus, FraudKind, Malformed,
    ProofFault, ProofIgnored, Verdict,
};
use kedge_genesis::{L1Height, Params};

const END: u32 = 4;

/// A chain with a wrong assertion up to block 4, confirmed in block 6, deadline in block 12.
pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) id: B256,
    segment: u32,
    pub(crate) proof: Vec<u8>,
}

pub(crate) fn case(params: Params) -> Case {
    let mut world = World::busy(params, 3);
    assert_eq!(world.state.l1.height, L1Height(5));
    let mut claims = hashes(&world.truth(0, END));
    let segment = claims.len() - 2;
    claims[segment] = B256::repeat_byte(3);
    let (id, tx) = world.assert(B256::ZERO, END, claims);
    assert_eq!(world.mine(vec![tx]), [AssertionEvent::Proposed { id, agrees: false }]);
    let proof = world.prove(&world.tracker.get(&id).unwrap().view(), segment).encode();
    Case { world, id, segment: segment as u32, proof }
}

/// Small chunks, so that proofs have several.
pub(crate) fn chunked() -> Params {
    Params { max_chunk_bytes: 1_200, ..params() }
}

impl Case {
    pub(crate) fn node(&self) -> &AssertionNode {
        self.world.tracker.get(&self.id).unwrap()
    }

    pub(crate) fn wait(&mut self, height: u32) {
        while self.world.state.l1.height.0 < height {
            self.world.mine(vec![]);
        }
    }

    pub(crate) fn reveals(&mut self, by: u8) -> Vec<Transaction> {
        let proof = self.proof.clone();
        self.world.publish(by, &proof)
    }

    pub(crate) fn winner(&self) -> Option<[u8; 32]> {
        match self.node().status {
            AssertionStatus::Rejected { proof, .. } => proof.map(|proof| proof.challenger),
            _ => None,
        }
    }
}

/// Makes a reveal spend an output of a transaction that is there to be mined first.
pub(crate) fn commit(world: &mut World, reveal: &mut Transaction, taproot: bool) -> Transaction {
    let script = if taproot {
        world.state.vault.current.clone()
    } else {
        // A witness version that nobody has given a meaning: its spends commit to nothing.
        ScriptBuf::from_bytes([&[0x52, 32][..], &[1; 32]].concat())
    };
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: script };
    let tx = world.tx(bitcoin::Witness::new(), vec![output]);
    reveal.input[0].previous_output = OutPoint::new(tx.compute_txid(), 0);
    tx
}

#[test]
fn a_proof_rejects_the_assertion_and_all_that_continue_it() {
    let mut case = case(params());
    let l1 = case.world.own[&5].claims.clone();
    let (child, tx) = case.world.assert(case.id, 5, l1.clone());
    let (grandchild, tx2) = case.world.assert(child, 6, case.world.own[&6].claims.clone());
    let (right, tx3) = {
        let claims = hashes(&case.world.truth(0, 5));
        case.world.assert(B256::ZERO, 5, claims)
    };
    case.world.mine(vec![tx, tx2, tx3]);
    let reveals = case.reveals(1);
    assert_eq!(reveals.len(), 1);
    let events = case.world.mine(reveals);
    let AssertionStatus::Rejected { at, proof: Some(proof) } = case.node().status else {
        panic!("{:?}", case.node().status)
    };
    assert_eq!(at, L1Height(8));
    assert_eq!((proof.segment, proof.kind), (case.segment, FraudKind::OutputRoot));
    assert_eq!(proof.challenger, publisher(1).serialize());
    assert_eq!(
        events,
        [
            AssertionEvent::Rejected { id: case.id, proof: Some(proof) },
            AssertionEvent::Rejected { id: child, proof: None },
            AssertionEvent::Rejected { id: grandchild, proof: None },
        ]
    );
    // Nothing continues it any more, neither others nor ourselves.
    let (_, tx) = case.world.assert(case.id, 5, l1);
    let events = case.world.mine(vec![tx]);
    let [AssertionEvent::Ignored { fault: AssertionFault::Rejected, .. }] = events[..] else {
        panic!("{events:?}")
    };
    case.wait(13);
    assert_eq!(case.world.tracker.settled().id, right);
    assert!(case.node().is_rejected());
    // No proof against it counts any more, and nothing continues it.
    assert_eq!(case.node().claims.len(), 1);
    // Forgotten four windows after its deadline.
    case.wait(12 + 4 * case.world.params.challenge_window);
    assert_eq!(case.world.tracker.get(&case.id), None);
}

#[test]
fn a_proof_counts_in_the_last_block_of_the_window_and_not_in_the_next() {
    for (height, rejected) in [(12, true), (13, false)] {
        let mut case = case(params());
        assert_eq!(case.node().deadline, L1Height(12));
        case.wait(height - 1);
        let reveals = case.reveals(1);
        let events = case.world.mine(reveals);
        assert_eq!(case.node().is_rejected(), rejected, "{events:?}");
        let closed = matches!(
            events[..],
            [AssertionEvent::ProofIgnored { reason: ProofIgnored::Closed, .. }]
        );
        assert_eq!(closed, !rejected, "{events:?}");
    }
}

#[test]
fn all_chunks_have_to_be_there_by_the_deadline_in_order() {
    for (last, rejected) in [(12, true), (13, false)] {
        let mut case = case(chunked());
        case.wait(9);
        let mut reveals = case.reveals(1);
        assert!(reveals.len() > 2, "{}", case.proof.len());
        let end = reveals.pop().unwrap();
        let events = case.world.mine(reveals);
        assert_eq!(events, [AssertionEvent::Challenged { id: case.id }]);
        assert_eq!(case.node().status, AssertionStatus::Challenged);
        assert_eq!(case.world.tracker.channels().len(), 1);
        case.wait(last - 1);
        case.world.mine(vec![end]);
        assert_eq!(case.node().is_rejected(), rejected);
    }
    let mut case = case(chunked());
    let mut reveals = case.reveals(1);
    reveals.swap(0, 1);
    let events = case.world.mine(reveals);
    let first = ProofIgnored::Chunk { expected: 0, found: 1 };
    assert!(
        matches!(events[0], AssertionEvent::ProofIgnored { reason, .. } if reason == first),
        "{events:?}"
    );
    assert!(!case.node().is_rejected());
}

#[test]
fn a_channel_times_out_and_can_be_opened_again() {
    let mut case = case(chunked());
    let mut reveals = case.reveals(1);
    let rest = reveals.split_off(1);
    case.world.mine(reveals);
    assert_eq!(case.node().status, AssertionStatus::Challenged);
    case.wait(10);
    assert_eq!(case.node().status, AssertionStatus::Challenged);
    let events = case.world.mine(rest);
    assert_eq!(events.last(), Some(&AssertionEvent::Unchallenged { id: case.id }));
    assert_eq!(case.node().status, AssertionStatus::Proposed);
    assert!(case.world.tracker.channels().is_empty());
    let reveals = case.reveals(1);
    case.world.mine(reveals);
    assert!(case.node().is_rejected());
}

#[test]
fn others_chunks_neither_help_nor_harm() {
    let mut case = case(chunked());
    let mine = case.reveals(1);
    let copied = case.reveals(2);
    // A copier is a chunk ahead all the time, and stops before the last.
    let mut txs = Vec::new();
    for (mine, copied) in mine.into_iter().zip(copied) {
        txs.extend([copied, mine]);
    }
    let last = txs.len() - 2;
    txs.remove(last);
    case.world.mine(txs);
    assert_eq!(case.winner(), Some(publisher(1).serialize()));
    assert_eq!(case.world.tracker.channels().len(), 1);
}

#[test]
fn chunks_before_the_last_are_of_full_size() {
    let mut case = case(params());
    let proof = case.proof.clone();
    let small = Params { max_chunk_bytes: 1_000, ..case.world.params };
    let full = std::mem::replace(&mut case.world.params, small);
    let reveals = case.world.publish(1, &proof);
    case.world.params = full;
    let events = case.world.mine(reveals);
    assert!(
        matches!(events[0], AssertionEvent::ProofIgnored { reason: ProofIgnored::Size, .. }),
        "{events:?}"
    );
    assert!(case.world.tracker.channels().is_empty());
}

#[test]
fn the_bond_pays_who_committed_first() {
    let mut case = case(params());
    let mut honest = case.reveals(1).remove(0);
    let mut copier = case.reveals(2).remove(0);
    let mut cheat = case.reveals(3).remove(0);
    // The cheat's output was there all along, but commits to nothing.
    let early = commit(&mut case.world, &mut cheat, false);
    let first = commit(&mut case.world, &mut honest, true);
    case.world.mine(vec![early, first]);
    let second = commit(&mut case.world, &mut copier, true);
    // The copier saw the honest reveal waiting, commits, and gets his own reveal confirmed before it.
    case.world.mine(vec![second]);
    case.world.mine(vec![cheat]);
    assert_eq!(case.winner(), Some(publisher(3).serialize()));
    case.world.mine(vec![copier]);
    assert_eq!(case.winner(), Some(publisher(2).serialize()));
    let events = case.world.mine(vec![honest]);
    assert_eq!(case.winner(), Some(publisher(1).serialize()));
    assert_eq!(events.len(), 1);
    let AssertionStatus::Rejected { at, proof: Some(proof) } = case.node().status else {
        panic!("not rejected")
    };
    // Rejected when the first proof was there, whosever it was.
    assert_eq!((at, proof.committed), (L1Height(9), L1Height(7)));
}

/// Nobody can commit earlier than whoever makes the assertion. The verdict is the same.
#[test]
fn a_liar_who_proves_himself_wrong_can_take_his_bond_back() {
    let mut world = World::busy(params(), 3);
    let mut claims = hashes(&world.truth(0, END));
    let segment = claims.len() - 2;
    claims[segment] = B256::repeat_byte(3);
    let (id, tx) = world.assert(B256::ZERO, END, claims);
    let script_pubkey = world.state.vault.current.clone();
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey };
    let beside = world.tx(bitcoin::Witness::new(), vec![output]);
    let committed = OutPoint::new(beside.compute_txid(), 0);
    world.mine(vec![tx, beside]);
    let proof = world.prove(&world.tracker.get(&id).unwrap().view(), segment).encode();
    let mut case = Case { world, id, segment: segment as u32, proof };
    let mut honest = case.reveals(1).remove(0);
    let commit = commit(&mut case.world, &mut honest, true);
    case.world.mine(vec![commit]);
    case.world.mine(vec![honest]);
    assert_eq!(case.winner(), Some(publisher(1).serialize()));
    let mut own = case.reveals(2).remove(0);
    own.input[0].previous_output = committed;
    let deadline = case.node().deadline;
    case.wait(deadline.0 - 1);
    case.world.mine(vec![own]);
    assert_eq!(case.winner(), Some(publisher(2).serialize()));
}

#[test]
fn proofs_that_prove_nothing_are_counted_and_change_nothing() {
    let mut case = case(params());
    let claims = hashes(&case.world.truth(0, END));
    let (right, tx) = case.world.assert(B256::ZERO, END, claims);
    case.world.mine(vec![tx]);
    let view = case.world.tracker.get(&right).unwrap().view();
    let no_fraud = case.world.prove(&view, 1).encode();
    let mut cut = case.proof.clone();
    cut.truncate(cut.len() - 1);
    let mut unknown = case.proof.clone();
    unknown[40] ^= 1;
    let mut foreign = case.proof.clone();
    foreign[5] ^= 1;
    let mut head = case.proof.clone();
    head[0] = 9;
    let mut txs = Vec::new();
    for proof in [&no_fraud, &cut, &unknown, &foreign, &head] {
        txs.extend(case.world.publish(4, proof));
    }
    let events = case.world.mine(txs);
    let [
        AssertionEvent::ProofFailed { id: first, verdict: Verdict::NoFraud, .. },
        AssertionEvent::ProofFailed {
            verdict: Verdict::Malformed { reason: Malformed::Encoding(ProofFault::Compression(_)) },
            ..
        },
        AssertionEvent::ProofIgnored { reason: ProofIgnored::Unknown, .. },
        AssertionEvent::ProofIgnored { reason: ProofIgnored::NotOurs, .. },
        AssertionEvent::ProofIgnored { reason: ProofIgnored::Head(_), .. },
    ] = events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(first, right);
    assert!(case.node().is_open());
    // Somebody's nonsense does not keep anybody from proving.
    let reveals = case.reveals(1);
    case.world.mine(reveals);
    assert!(case.node().is_rejected());
    case.wait(13);
    assert_eq!(case.world.tracker.settled().id, right);
}
