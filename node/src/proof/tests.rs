//! Proofs against a real chain, judged from folders of its Bitcoin blocks.

mod compare;
mod files;

use super::*;
use crate::engine::tests::world::{World, account};
use alloy_primitives::{Address, B256};
use bitcoin::consensus::serialize;
use bitcoin::{Block, Transaction};
use kedge_fraud_proof::{AssertionEvent, AssertionStatus, FraudKind, Malformed, Proof, Verdict};
use kedge_genesis::L1Ref;
use std::path::Path;
use tempfile::TempDir;

const BOB: Address = Address::repeat_byte(0xb0);

/// Dev's chain with several segments and an assertion whose claim 1 is wrong.
struct Case {
    world: World,
    id: B256,
}

impl Case {
    fn new() -> Self {
        let mut world = World::of(Network::Dev.params());
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        for round in 0..5 {
            let tx = world.transfer(BOB, 1_000 + round);
            world.build(vec![tx]).unwrap();
            let batch = world.batch().unwrap();
            world.mine(vec![batch]);
            world.build(vec![]);
        }
        let lie = world.assertion_with(|claims| claims[1] = B256::repeat_byte(1)).unwrap();
        let outcome = world.mine(vec![lie]);
        let [AssertionEvent::Proposed { id, agrees: false }] = outcome.assertions[..] else {
            panic!("{:?}", outcome.assertions)
        };
        Self { world, id }
    }

    /// The right assertion.
    fn right(&mut self) -> B256 {
        let right = self.world.assertion().unwrap();
        let outcome = self.world.mine(vec![right]);
        let [AssertionEvent::Proposed { id, agrees: true }] = outcome.assertions[..] else {
            panic!("{:?}", outcome.assertions)
        };
        id
    }

    fn proof(&self, id: B256, segment: Option<u32>) -> Proof {
        self.world.engine.prove(id, segment).unwrap().unwrap()
    }

    /// A folder with the chain's blocks, every other in hexadecimal, under names in no order.
    fn folder(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        for block in &self.world.chain {
            write(dir.path(), block);
        }
        dir
    }

    fn judge(&self, proof: &[u8], dir: &Path) -> Result<Judged, JudgeError> {
        let file = ProofFile::parse(proof.to_vec(), None).unwrap().unwrap();
        let folder = Folder::open(dir, file.params)?;
        judge(&file, &mut BitcoinChain::new(file.params, Box::new(folder)), &mut |_| {})
    }

    fn tip(&self) -> L1Ref {
        self.world.engine.heads().l1_tip
    }
}

fn write(dir: &Path, block: &Block) {
    let (hash, bytes) = (block.block_hash().to_string(), serialize(block));
    // What a hash ends with is random.
    if hash.ends_with(|digit: char| digit.is_ascii_digit()) {
        std::fs::write(dir.join(&hash[50..]), bytes).unwrap();
    } else {
        std::fs::write(dir.join(&hash[50..]), format!("{}\n", hex::encode(bytes))).unwrap();
    }
}

fn fraud(segment: u32) -> Verdict {
    Verdict::Fraud { segment, kind: FraudKind::OutputRoot }
}

#[test]
fn a_folder_of_blocks_is_enough_to_judge_and_says_what_became_of_the_assertion() {
    let mut case = Case::new();
    let proof = case.proof(case.id, None).encode();
    let judged = case.judge(&proof, case.folder().path()).unwrap();
    assert_eq!(judged.verdict, fraud(1));
    assert_eq!((judged.assertion.id, judged.read), (case.id, case.tip()));
    assert_eq!(judged.assertion.status, AssertionStatus::Proposed);
    assert!(judged.seen.is_empty());

    let reveals: Vec<Transaction> = case.world.proof(&proof);
    let txid = reveals[0].compute_txid();
    case.world.mine(reveals);
    let judged = case.judge(&proof, case.folder().path()).unwrap();
    assert_eq!(judged.verdict, fraud(1));
    let AssertionStatus::Rejected { at, proof: Some(rejection) } = judged.assertion.status else {
        panic!("{:?}", judged.assertion.status)
    };
    let [Seen { at: place, chunk: 0, total: 1, ignored: None, .. }] = judged.seen[..] else {
        panic!("{:?}", judged.seen)
    };
    assert_eq!((place.txid, place.height, at), (txid, case.world.height(), case.world.height()));
    assert_eq!(rejection.reveal, place);
}

#[test]
fn reading_ends_with_the_block_that_decides() {
    let mut case = Case::new();
    let right = case.right();
    let proof = case.proof(right, Some(0)).encode();
    let deadline = case.world.engine.tracker().unwrap().get(&right).unwrap().deadline;
    while case.world.height() < deadline.plus(3) {
        case.world.mine(vec![]);
    }
    let judged = case.judge(&proof, case.folder().path()).unwrap();
    assert_eq!(judged.verdict, Verdict::NoFraud);
    assert_eq!(judged.read.height, deadline);
    // These blocks say nothing of whether it is right, and it settled.
    assert_eq!(judged.assertion.status, AssertionStatus::Settled { at: deadline });
    assert!(!judged.assertion.agrees);
}

#[test]
fn a_proof_that_came_to_nothing_on_bitcoin_is_found_there() {
    let mut case = Case::new();
    let right = case.right();
    let proof = case.proof(right, Some(0)).encode();
    let reveals = case.world.proof(&proof);
    case.world.mine(reveals);
    let other = case.proof(right, Some(1)).encode();
    let judged = case.judge(&proof, case.folder().path()).unwrap();
    assert_eq!((judged.verdict, judged.seen.len()), (Verdict::NoFraud, 1));
    let judged = case.judge(&other, case.folder().path()).unwrap();
    assert_eq!((judged.verdict, judged.seen.len()), (Verdict::NoFraud, 0));
}

#[test]
fn what_proves_nothing_is_malformed() {
    let case = Case::new();
    let proof = case.proof(case.id, None);
    let bytes = proof.encode();
    let parse = |bytes: &[u8], network| ProofFile::parse(bytes.to_vec(), network).unwrap();
    let mut cut = bytes.clone();
    cut.pop();
    assert!(matches!(parse(&cut, None), Err(Malformed::Encoding(_))));
    assert!(matches!(parse(&[], None), Err(Malformed::Encoding(_))));
    assert_eq!(parse(&bytes, Some(Network::Regtest)), Err(Malformed::OtherChain));
    let params = Network::Dev.params();
    let most = params.max_chunk_bytes as usize * usize::from(params.max_chunks);
    let mut long = bytes.clone();
    long.resize(most + 1, 0);
    assert_eq!(parse(&long, None), Err(Malformed::TooLarge));
    let mut unknown = bytes.clone();
    unknown[1] ^= 1;
    let error = ProofFile::parse(unknown, None).unwrap_err();
    assert!(matches!(error, JudgeError::Network { .. }), "{error}");

    let mut post = proof.clone();
    post.run.as_mut().unwrap().post.output_root = B256::repeat_byte(9);
    let judged = case.judge(&post.encode(), case.folder().path()).unwrap();
    assert_eq!(judged.verdict, Verdict::Malformed { reason: Malformed::Post });
    let mut excess = proof;
    excess
        .run
        .as_mut()
        .unwrap()
        .witness
        .codes
        .insert(alloy_primitives::keccak256([0xfe]), alloy_primitives::Bytes::from_static(&[0xfe]));
    let judged = case.judge(&excess.encode(), case.folder().path()).unwrap();
    assert_eq!(judged.verdict, Verdict::Malformed { reason: Malformed::Excess });
}

#[test]
fn an_assertion_that_is_not_there_or_counts_for_nothing_gets_no_verdict() {
    let mut case = Case::new();
    let mut proof = case.proof(case.id, None);
    // Up to the block before it.
    let dir = case.folder();
    let last = case.world.chain.last().unwrap().block_hash().to_string();
    std::fs::remove_file(dir.path().join(&last[50..])).unwrap();
    let error = case.judge(&proof.encode(), dir.path()).unwrap_err();
    assert!(
        matches!(error, JudgeError::Unknown { id, read } if id == case.id && read.height.next() == case.world.height()),
        "{error}"
    );
    // One whose bond is too small.
    let mut poor = case.world.assertion().unwrap();
    poor.output[0].value = bitcoin::Amount::from_sat(1_000);
    let bond = bitcoin::OutPoint::new(poor.compute_txid(), 0);
    case.world.mine(vec![poor]);
    proof.head.assertion = kedge_bridge::assertion::assertion_id(&bond);
    let error = case.judge(&proof.encode(), case.folder().path()).unwrap_err();
    assert!(error.to_string().contains("bond"), "{error}");
}

#[test]
fn why_there_is_no_proof_is_told() {
    use crate::engine::NoProof;
    let mut case = Case::new();
    let engine = case.world.engine.clone();
    let prove = |id, segment| engine.prove(id, segment).unwrap().map(|proof| proof.head.segment);
    let count = case.world.engine.tracker().unwrap().get(&case.id).unwrap().claims.len();
    assert_eq!(prove(case.id, None), Ok(1));
    assert_eq!(prove(case.id, Some(0)), Ok(0));
    assert_eq!(prove(case.id, Some(2)), Err(NoProof::Later { segment: 2, first: 1 }));
    let nobody = B256::repeat_byte(5);
    let tip = case.tip().height;
    assert_eq!(prove(nobody, None), Err(NoProof::Unknown { id: nobody, tip }));
    // A child of it, and a child of that.
    let child = case.world.child_of(case.id);
    let outcome = case.world.mine(vec![child]);
    let [AssertionEvent::Proposed { id: child, .. }] = outcome.assertions[..] else {
        panic!("{:?}", outcome.assertions)
    };
    let grandchild = case.world.child_of(child);
    let outcome = case.world.mine(vec![grandchild]);
    let [AssertionEvent::Proposed { id: grandchild, .. }] = outcome.assertions[..] else {
        panic!("{:?}", outcome.assertions)
    };
    for id in [child, grandchild] {
        assert_eq!(prove(id, None), Err(NoProof::Parent { id, wrong: case.id }));
    }
    let right = case.right();
    assert_eq!(prove(right, None), Err(NoProof::Right { id: right }));
    let claims = case.world.engine.tracker().unwrap().get(&right).unwrap().claims.len() as u32;
    assert!(claims as usize >= count);
    for segment in 0..=claims {
        assert_eq!(prove(right, Some(segment)), Ok(segment));
    }
    let none = NoProof::Segment { segment: claims + 1, count: claims as usize };
    assert_eq!(prove(right, Some(claims + 1)), Err(none));
}

#[test]
fn a_replay_shows_the_blocks_as_the_node_has_them() {
    use kedge_store::L2Rows as _;
    let case = Case::new();
    let file = ProofFile::parse(case.proof(case.id, None).encode(), None).unwrap().unwrap();
    let dir = case.folder();
    let folder = Folder::open(dir.path(), file.params).unwrap();
    let mut chain = BitcoinChain::new(file.params, Box::new(folder));
    let judged = judge(&file, &mut chain, &mut |_| {}).unwrap();
    let end = judged.assertion.l1.height;
    let replayed = inspect::replayed(&file, &chain, end).unwrap().unwrap();
    assert_eq!(replayed.reached, Ok(file.proof.run.as_ref().unwrap().post));
    assert!(!replayed.blocks.is_empty());
    let reader = case.world.store().reader();
    for block in &replayed.blocks {
        let number = kedge_genesis::L2Number(block.header.number);
        assert_eq!(reader.hash(number).unwrap(), Some(block.hash));
    }
    let weight = inspect::weight(&file);
    assert_eq!((weight.encoded, weight.reveals), (file.bytes.len(), 1));
    // An envelope is a quarter of its bytes in vB, and a reveal has little besides.
    let envelope = weight.envelopes as u64 / 4;
    assert!((envelope..envelope + 200).contains(&weight.reveal_vsize), "{weight:?}");
}
