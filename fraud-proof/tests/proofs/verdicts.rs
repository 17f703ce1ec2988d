//! Building, encoding, judging.

use crate::program::judge_both;
use crate::world::{World, hashes, params};
use alloy_primitives::{B256, Bytes, b256, keccak256};
use kedge_bridge::deflate::{InflateFault, deflate};
use kedge_bridge::derive::{DeriveState, L1Lookup};
use kedge_fraud_proof::proof::{HEAD_BYTES, MAX_CONTENT_BYTES, PROOF_VERSION};
use kedge_fraud_proof::{
    AssertionView, Claim, FraudKind, Malformed, Proof, ProofFault, ProofHead, Run, Verdict,
    first_divergence, genesis_claim, replay, verify,
};
use kedge_genesis::{L1Height, L2Number, Network, Params};
use kedge_vm::{Header, Witness};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

const ID: B256 = B256::repeat_byte(0xa5);
const END: u32 = 7;

static WORLD: LazyLock<World> = LazyLock::new(|| World::busy(params(), 7));

fn base() -> B256 {
    genesis_claim(&WORLD.params).unwrap().hash()
}

fn view(claims: &[B256]) -> AssertionView<'_> {
    AssertionView { id: ID, base: base(), l1: WORLD.at(END), claims }
}

/// Native code's verdict, which is also the program's.
fn judge(claims: &[B256], bytes: &[u8]) -> Verdict {
    judge_both(&WORLD.params, &WORLD.chain, &view(claims), bytes)
}

fn malformed(reason: Malformed) -> Verdict {
    Verdict::Malformed { reason }
}

/// The proof about one segment and its claims.
fn proven(claims: &[Claim], segment: usize, asserted: Option<Claim>) -> Verdict {
    let claims = hashes(claims);
    assert_eq!(first_divergence(&hashes(&WORLD.truth(0, END)), &claims), Some(segment as u32));
    let mut proof = WORLD.prove(&view(&claims), segment);
    if asserted.is_some() {
        proof.asserted = asserted;
    }
    let bytes = proof.encode();
    assert_eq!(Proof::decode(&bytes).unwrap(), proof);
    judge(&claims, &bytes)
}

fn fraud(segment: usize, kind: FraudKind) -> Verdict {
    Verdict::Fraud { segment: segment as u32, kind }
}

#[test]
fn the_chain_has_segments_of_all_kinds() {
    let truth = WORLD.truth(0, END);
    assert_eq!(first_divergence(&hashes(&truth), &hashes(&truth)), None);
    assert!(truth.len() > 12, "{}", truth.len());
    assert!(truth.iter().any(|claim| claim.offset > 0));
    let mut numbers: Vec<_> = truth.iter().map(|claim| claim.number).collect();
    numbers.dedup();
    assert!(numbers.len() < truth.len(), "one segment has no L2 block");
    assert_eq!(numbers.last(), Some(&L2Number(15)));
}

#[test]
fn every_wrong_claim_can_be_proven_wrong_and_is_named() {
    let truth = WORLD.truth(0, END);
    for segment in 0..truth.len() {
        let right = truth[segment];
        let change = |wrong: Claim| {
            let mut claims = truth.clone();
            claims[segment] = wrong;
            claims
        };
        let root = Claim { output_root: B256::repeat_byte(1), ..right };
        assert_eq!(proven(&change(root), segment, None), fraud(segment, FraudKind::OutputRoot));
        let number = Claim { number: right.number.next(), ..right };
        assert_eq!(proven(&change(number), segment, None), fraud(segment, FraudKind::BlockNumber));
        let state = Claim { derive_state: B256::ZERO, ..right };
        assert_eq!(proven(&change(state), segment, None), fraud(segment, FraudKind::DeriveState));
        let l1 = Claim { l1_height: right.l1_height.next(), ..right };
        assert_eq!(proven(&change(l1), segment, None), fraud(segment, FraudKind::L1Block));
        let offset = Claim { offset: right.offset + 1, ..right };
        let verdict = proven(&change(offset), segment, None);
        assert_eq!(verdict, fraud(segment, FraudKind::SegmentBoundary));
        // Two segments made one.
        if right.offset > 0 {
            let mut claims = truth.clone();
            claims.remove(segment);
            let verdict = proven(&claims, segment, Some(truth[segment + 1]));
            assert_eq!(verdict, fraud(segment, FraudKind::SegmentBoundary));
        }
        // The claim before, or the one after, in its place.
        if segment > 0 {
            let verdict = proven(&change(truth[segment - 1]), segment, None);
            assert!(matches!(verdict, Verdict::Fraud { .. }), "{verdict:?}");
        }
    }
}

#[test]
fn segments_too_few_and_too_many_are_proven_without_execution() {
    let truth = WORLD.truth(0, END);
    let count = truth.len();
    let shorter = &truth[..count - 1];
    assert_eq!(proven(shorter, count - 1, None), fraud(count - 1, FraudKind::MissingSegments));
    let longer = WORLD.truth(0, END - 1);
    let at = longer.len();
    assert_eq!(proven(&longer, at, None), fraud(at, FraudKind::MissingSegments));
    for extra in [truth[count - 1], genesis_claim(&WORLD.params).unwrap()] {
        let claims: Vec<_> = truth.iter().copied().chain([extra]).collect();
        assert_eq!(proven(&claims, count, None), fraud(count, FraudKind::ExtraSegments));
    }
    // The true claims of one block more, said to be those up to END.
    if let Some(more) = WORLD.claims.get(&(END + 1)) {
        let claims: Vec<_> = truth.iter().chain(more).copied().collect();
        assert_eq!(proven(&claims, count, None), fraud(count, FraudKind::ExtraSegments));
    }
    let right = hashes(&truth);
    assert_eq!(judge(&right, &WORLD.prove(&view(&right), count).encode()), Verdict::NoFraud);
}

#[test]
fn no_segment_of_a_right_assertion_can_be_proven_wrong() {
    let claims = hashes(&WORLD.truth(0, END));
    for segment in 0..claims.len() {
        let proof = WORLD.prove(&view(&claims), segment);
        assert_eq!(judge(&claims, &proof.encode()), Verdict::NoFraud);
        // A lie about what comes after does not help, and makes the verifier execute.
        let mut lie = proof.clone();
        lie.asserted = None;
        lie.run.as_mut().unwrap().post.output_root = B256::ZERO;
        assert_eq!(judge(&claims, &lie.encode()), Verdict::NoFraud);
        // Nor does leaving out any of what the execution reads.
        let witness = lie.run.clone().unwrap().witness;
        for hash in witness.nodes.keys().step_by(7) {
            let mut less = lie.clone();
            less.run.as_mut().unwrap().witness.nodes.remove(hash);
            assert_eq!(judge(&claims, &less.encode()), malformed(Malformed::Incomplete));
        }
        for hash in witness.codes.keys() {
            let mut less = lie.clone();
            less.run.as_mut().unwrap().witness.codes.remove(hash);
            assert_eq!(judge(&claims, &less.encode()), malformed(Malformed::Incomplete));
        }
    }
}

/// A wrong assertion, the number of its wrong segment with blocks in it, and the proof.
fn wrong() -> (Vec<B256>, usize, Proof) {
    let truth = WORLD.truth(0, END);
    let segment = truth.len() - 3;
    let mut claims = hashes(&truth);
    claims[segment] = B256::repeat_byte(9);
    let proof = WORLD.prove(&view(&claims), segment);
    assert!(!proof.run.as_ref().unwrap().witness.nodes.is_empty());
    (claims, segment, proof)
}

#[test]
fn a_proof_that_is_not_exact_proves_nothing() {
    let (claims, segment, good) = wrong();
    assert_eq!(judge(&claims, &good.encode()), fraud(segment, FraudKind::OutputRoot));
    let truth = WORLD.truth(0, END);
    let edit = |change: &dyn Fn(&mut Proof)| {
        let mut proof = good.clone();
        change(&mut proof);
        judge(&claims, &proof.encode())
    };
    let run = |change: &dyn Fn(&mut Run)| edit(&|proof| change(proof.run.as_mut().unwrap()));
    type Edit<'a> = (&'a str, Verdict, Malformed);
    let node = Bytes::from(vec![0xee; 50]);
    let cases: Vec<Edit<'_>> = vec![
        (
            "chain",
            edit(&|p| p.head.params = Network::Signet.params().hash()),
            Malformed::OtherChain,
        ),
        ("assertion", edit(&|p| p.head.assertion = B256::ZERO), Malformed::OtherAssertion),
        ("segment", edit(&|p| p.head.segment += 1), Malformed::Pre),
        ("far segment", edit(&|p| p.head.segment = u32::MAX), Malformed::Segment),
        ("past the end", edit(&|p| p.head.segment = claims.len() as u32 + 1), Malformed::Segment),
        ("pre", edit(&|p| p.pre.number = L2Number(1)), Malformed::Pre),
        ("asserted", edit(&|p| p.asserted = Some(truth[segment])), Malformed::Asserted),
        ("no run", edit(&|p| p.run = None), Malformed::Run),
        ("post", run(&|r| r.post.output_root = B256::ZERO), Malformed::Post),
        ("state", run(&|r| r.state.next_batch += 1), Malformed::State),
        ("header", run(&|r| r.header.gas_used += 1), Malformed::Header),
        (
            "header kind",
            run(&|r| r.header.withdrawals_root = None),
            Malformed::Encoding(ProofFault::Content),
        ),
        (
            "node",
            run(&|r| drop(r.witness.nodes.insert(keccak256(&node), node.clone()))),
            Malformed::Excess,
        ),
        (
            "code",
            run(&|r| drop(r.witness.codes.insert(keccak256(&node), node.clone()))),
            Malformed::Excess,
        ),
        ("no node", run(&|r| drop(r.witness.nodes.pop_last())), Malformed::Incomplete),
        ("no code", run(&|r| drop(r.witness.codes.pop_last())), Malformed::Incomplete),
    ];
    for (name, found, reason) in cases {
        assert_eq!(found, malformed(reason), "{name}");
    }
    // A segment that has no execution to show.
    let end = hashes(&truth[..truth.len() - 1]);
    let mut proof = WORLD.prove(&view(&end), end.len());
    proof.run = good.run.clone();
    assert_eq!(judge(&end, &proof.encode()), malformed(Malformed::Run));
}

#[test]
fn bytes_that_are_no_proof_are_refused() {
    let (claims, _, good) = wrong();
    let bytes = good.encode();
    let encoding = |fault| malformed(Malformed::Encoding(fault));
    for cut in 0..HEAD_BYTES {
        assert_eq!(judge(&claims, &bytes[..cut]), encoding(ProofFault::Short));
    }
    for cut in (HEAD_BYTES..bytes.len()).step_by(97) {
        let verdict = judge(&claims, &bytes[..cut]);
        assert_eq!(verdict, encoding(ProofFault::Compression(InflateFault::Stream)));
    }
    let mut other = bytes.clone();
    other[0] = 1;
    assert_eq!(judge(&claims, &other), encoding(ProofFault::Version { found: 1 }));
    let mut longer = bytes.clone();
    longer.push(0);
    let stream = encoding(ProofFault::Compression(InflateFault::Stream));
    assert_eq!(judge(&claims, &longer), stream);
    let with = |content: &[u8]| [&bytes[..HEAD_BYTES], &deflate(content)].concat();
    // A bomb inflates a thousandfold.
    let bomb = with(&vec![0; MAX_CONTENT_BYTES + 1]);
    assert!(bomb.len() < 20_000);
    assert_eq!(judge(&claims, &bomb), encoding(ProofFault::Compression(InflateFault::TooLarge)));
    assert_eq!(judge(&claims, &with(&vec![0; 1_000])), encoding(ProofFault::Content));
    assert_eq!(judge(&claims, &with(&[])), encoding(ProofFault::Content));
    // A hundred thousand lists within each other.
    assert_eq!(judge(&claims, &with(&vec![0xc1; 100_000])), encoding(ProofFault::Content));
    let most = usize::from(WORLD.params.max_chunks) * WORLD.params.max_chunk_bytes as usize;
    assert_eq!(judge(&claims, &vec![0; most + 1]), malformed(Malformed::TooLarge));
}

#[test]
fn another_compression_of_the_same_content_is_the_same_proof() {
    let (claims, segment, good) = wrong();
    let bytes = good.encode();
    // One stored block (RFC 1951, 3.2.4) after the other.
    let content = good.content();
    let mut stored = Vec::new();
    let blocks: Vec<_> = content.chunks(60_000).collect();
    for (at, block) in blocks.iter().enumerate() {
        stored.push(u8::from(at + 1 == blocks.len()));
        stored.extend((block.len() as u16).to_le_bytes());
        stored.extend((!(block.len() as u16)).to_le_bytes());
        stored.extend_from_slice(block);
    }
    let other = [&bytes[..HEAD_BYTES], &stored].concat();
    assert_ne!(other, bytes);
    assert_eq!(judge(&claims, &other), fraud(segment, FraudKind::OutputRoot));
    assert_eq!(Proof::decode(&other).unwrap().id(), good.id());
    let sizes = good.sizes();
    assert_eq!((sizes.encoded, sizes.content), (bytes.len(), content.len()));
    assert_eq!(sizes.node_count, good.run.as_ref().unwrap().witness.nodes.len());
    assert!(sizes.packed_nodes < sizes.nodes);
}

#[test]
fn a_false_claim_that_goes_on_consistently_is_bounded() {
    // A liar's derive state that would have derivation read anything: refused for its shape.
    let params = &WORLD.params;
    let truth = WORLD.truth(0, END);
    let at = truth.iter().position(|claim| claim.offset == 0 && claim.l1_height.0 == 3).unwrap();
    let (pre, _) = WORLD.pre(&truth[at]);
    type Spoil = fn(&mut DeriveState);
    let spoil: [(&str, Spoil); 7] = [
        ("forced below the start", |s| s.cursor.forced.height = L1Height(0)),
        ("forced far above", |s| s.cursor.forced.height = L1Height(u32::MAX)),
        ("no epochs", |s| s.epochs.clear()),
        ("gap", |s| s.epochs.insert(0, s.epochs[0].clone())),
        ("no times", |s| s.times.clear()),
        ("origin", |s| s.cursor.origin.hash = B256::ZERO),
        ("many epochs", |s| {
            let epoch = s.epochs[0].clone();
            s.epochs.extend(vec![epoch; 200]);
        }),
    ];
    for (name, spoil) in spoil {
        let mut state = pre.state.clone();
        spoil(&mut state);
        assert!(!state.is_shaped(params), "{name}");
        let claim = Claim { derive_state: state.hash(), ..pre.claim };
        let mut claims = hashes(&truth);
        claims[at] = claim.hash();
        let run = Run {
            post: truth[at + 1],
            state,
            header: pre.header.clone(),
            witness: Witness::default(),
        };
        let run = Run { post: Claim { output_root: B256::ZERO, ..run.post }, ..run };
        let head = ProofHead { params: params.hash(), assertion: ID, segment: at as u32 + 1 };
        let proof = Proof { head, pre: claim, asserted: None, run: Some(run) };
        assert_eq!(judge(&claims, &proof.encode()), malformed(Malformed::State), "{name}");
    }
}

#[test]
fn only_a_missing_bitcoin_block_is_this_machines_failure() {
    #[derive(Debug, PartialEq)]
    struct Gone;
    struct Nothing;
    impl L1Lookup for Nothing {
        type Error = Gone;
        fn l1_block(&self, _: L1Height) -> Result<Arc<bitcoin::Block>, Gone> {
            Err(Gone)
        }
    }
    let (claims, _, proof) = wrong();
    assert_eq!(verify(&WORLD.params, &Nothing, &view(&claims), &proof.encode()), Err(Gone));
    // Other blocks are another chain, which is a verdict.
    let mut chain = WORLD.chain.clone();
    let height = proof.pre.l1_height.0 + 1;
    let mut other = (*chain.0[&height]).clone();
    other.header.prev_blockhash = other.block_hash();
    chain.0.insert(height, Arc::new(other));
    let verdict = verify(&WORLD.params, &chain, &view(&claims), &proof.encode()).unwrap();
    assert_eq!(verdict, malformed(Malformed::Chain));
}

#[test]
fn the_encoding_is_this() {
    let claim = |fill: u8| Claim {
        l1_height: L1Height(7),
        offset: 3,
        derive_state: B256::repeat_byte(fill),
        number: L2Number(300),
        output_root: B256::repeat_byte(fill + 1),
    };
    let params: &Params = Network::Dev.params();
    let leaf = Bytes::from(vec![0x33; 40]);
    let inner = Bytes::from([&[0xf8, 0x21, 0xa0][..], keccak256(&leaf).as_slice()].concat());
    let code = Bytes::from_static(&[0x5f, 0x5f, 0xfd]);
    let nodes = [leaf, inner].map(|node| (keccak256(&node), node)).into();
    let witness = Witness { nodes, codes: [(keccak256(&code), code)].into(), headers: vec![] };
    let state = DeriveState::genesis(params).unwrap();
    let run = Run { post: claim(4), state, header: Header::default(), witness };
    let head = ProofHead { params: params.hash(), assertion: ID, segment: 5 };
    let proof = Proof { head, pre: claim(1), asserted: Some(claim(2)), run: Some(run) };
    let bytes = proof.encode();
    assert_eq!(bytes[0], PROOF_VERSION);
    assert_eq!(bytes[1..33], params.hash()[..]);
    assert_eq!(bytes[33..65], ID[..]);
    assert_eq!(bytes[65..69], [0, 0, 0, 5]);
    assert_eq!(Proof::decode(&bytes).unwrap(), proof);
    assert_eq!((keccak256(proof.content()), proof.id()), (VECTOR_CONTENT, VECTOR_ID));
    let packed = [&[0, 40][..], &[0x33; 40], &[1, 2, 0xf8, 0x21, 0]].concat();
    assert!(proof.content().windows(packed.len()).any(|window| window == packed));
    assert_eq!(FraudKind::ALL.map(FraudKind::wire), [0, 1, 2, 3, 4, 5, 6]);
}

const VECTOR_CONTENT: B256 =
    b256!("94f966eca0198c48741347d539756b984ab99fa55338e849ade9729bc586c1d8");
const VECTOR_ID: B256 = b256!("42d9220d26f8727ea7eb747707319ec67a74b0482a7ae4a449aaa4472008ebd4");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_verdict_is_that_of_full_execution(
        seed in any::<prop::sample::Index>(),
        edit in 0u8..7,
        judged in any::<prop::sample::Index>(),
    ) {
        let truth = WORLD.truth(0, END);
        let at = seed.index(truth.len());
        let mut claims = truth.clone();
        match edit {
            0 => claims[at].output_root = keccak256(claims[at].output_root),
            1 => claims[at].number = L2Number(claims[at].number.0 + 1),
            2 => drop(claims.remove(at)),
            3 => claims.insert(at, truth[at]),
            4 => claims.swap(at, 0),
            5 => claims.truncate(at.max(1)),
            _ => {}
        }
        let claims = hashes(&claims);
        let own = hashes(&truth);
        match first_divergence(&own, &claims) {
            None => {
                let segment = judged.index(own.len() + 1);
                let proof = WORLD.prove(&view(&claims), segment);
                prop_assert_eq!(judge(&claims, &proof.encode()), Verdict::NoFraud);
            }
            Some(first) => {
                // Before the first wrong segment there is nothing to prove, in it there is.
                let segment = judged.index(first as usize + 1);
                let proof = WORLD.prove(&view(&claims), segment);
                let is_fraud = matches!(judge(&claims, &proof.encode()), Verdict::Fraud { .. });
                prop_assert_eq!(is_fraud, segment == first as usize);
            }
        }
    }

    #[test]
    fn flipped_bits_never_reject_a_right_assertion_and_never_panic(
        segment in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        inside in any::<bool>(),
    ) {
        let claims = hashes(&WORLD.truth(0, END));
        let mut proof = WORLD.prove(&view(&claims), segment.index(claims.len()));
        proof.run.as_mut().unwrap().post.output_root = B256::ZERO;
        let mut bytes = proof.encode();
        if inside {
            // In the content, under a compression that is right.
            let mut content = proof.content();
            for (at, bits) in &flips {
                let at = at.index(content.len());
                content[at] ^= bits;
            }
            bytes.truncate(HEAD_BYTES);
            bytes.extend(deflate(&content));
        } else {
            for (at, bits) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
        }
        let verdict = judge(&claims, &bytes);
        prop_assert!(!matches!(verdict, Verdict::Fraud { .. }), "{:?}", verdict);
        if let Ok(decoded) = Proof::decode(&bytes) {
            prop_assert_eq!(Proof::decode(&decoded.encode()).unwrap(), decoded);
        }
    }

    #[test]
    fn what_a_proof_about_a_right_assertion_says_besides_does_not_matter(
        segment in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        part in 0u8..6,
    ) {
        // Parts of the proof about another segment in its place.
        let claims = hashes(&WORLD.truth(0, END));
        let mut proof = WORLD.prove(&view(&claims), segment.index(claims.len()));
        let strange = WORLD.prove(&view(&claims), other.index(claims.len()));
        let (run, from) = (proof.run.as_mut().unwrap(), strange.run.unwrap());
        match part {
            0 => proof.pre = strange.pre,
            1 => run.post = from.post,
            2 => run.state = from.state,
            3 => run.header = from.header,
            4 => run.witness = from.witness,
            _ => proof.head.segment = strange.head.segment,
        }
        let verdict = judge(&claims, &proof.encode());
        prop_assert!(!matches!(verdict, Verdict::Fraud { .. }), "{:?}", verdict);
    }
}

#[test]
fn a_proof_for_one_assertion_says_nothing_about_another() {
    let (claims, _, proof) = wrong();
    let right = hashes(&WORLD.truth(0, END));
    let bytes = proof.encode();
    let other = AssertionView { id: B256::ZERO, ..view(&claims) };
    let verdict = judge_both(&WORLD.params, &WORLD.chain, &other, &bytes);
    assert_eq!(verdict, malformed(Malformed::OtherAssertion));
    assert_eq!(judge(&right, &bytes), Verdict::NoFraud);
    // The same claims, said to end one block earlier or later: an agreed root at a wrong height.
    for end in [END - 1, END + 1] {
        let wrong = AssertionView { l1: WORLD.at(end), ..view(&right) };
        let truth = hashes(&WORLD.truth(0, END.min(end)));
        let kind = if end < END { FraudKind::ExtraSegments } else { FraudKind::MissingSegments };
        let proof = WORLD.prove(&wrong, truth.len()).encode();
        assert_eq!(
            judge_both(&WORLD.params, &WORLD.chain, &wrong, &proof),
            fraud(truth.len(), kind)
        );
    }
}

#[test]
fn a_replay_shows_the_blocks_of_the_segment_and_reaches_its_claim_right_or_wrong() {
    let truth = WORLD.truth(0, END);
    for wrong in [false, true] {
        let mut claims = hashes(&truth);
        let segment = claims.len() - 2;
        if wrong {
            claims[segment] = B256::repeat_byte(3);
        }
        let proof = WORLD.prove(&view(&claims), segment);
        let mut shown = Vec::new();
        let end = L1Height(END);
        let reached = replay(&WORLD.params, &WORLD.chain, end, &proof, &mut |payload, block| {
            assert_eq!(payload.number.0, block.header.number);
            shown.push((block.header.number, block.output_root));
        });
        assert_eq!(reached.unwrap(), Ok(truth[segment]));
        let numbers = truth[segment - 1].number.0 + 1..=truth[segment].number.0;
        assert!(shown.iter().map(|(number, _)| *number).eq(numbers), "{shown:?}");
        assert_eq!(shown.last().unwrap().1, truth[segment].output_root);
    }
    let mut cut = WORLD.prove(&view(&hashes(&truth)), 1);
    cut.run.as_mut().unwrap().witness.nodes.pop_first();
    let reached = replay(&WORLD.params, &WORLD.chain, L1Height(END), &cut, &mut |_, _| {});
    assert_eq!(reached.unwrap(), Err(Malformed::Incomplete));
    cut.run = None;
    let reached = replay(&WORLD.params, &WORLD.chain, L1Height(END), &cut, &mut |_, _| {});
    assert_eq!(reached.unwrap(), Err(Malformed::Run));
}
