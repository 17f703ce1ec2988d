//! The verifier as a program on the RISC-V machine: says what native code says, and takes nothing on trust.

use crate::world::{Chain, World, account, hashes, params};
use alloy_primitives::{Address, B256, TxKind, keccak256};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Block, Witness};
use kedge_bridge::assertion::AssertionBody;
use kedge_bridge::derive::L1Lookup;
use kedge_bridge::derive::codec::{Reader, Writer};
use kedge_bridge::envelope::chunk_hash;
use kedge_fraud_proof::riscv::{
    InputFault, Machine, Outcome, Program, Stop, Subject, judge, record_input,
};
use kedge_fraud_proof::{
    AssertionView, FraudKind, Malformed, Proof, Verdict, genesis_claim, verify,
};
use kedge_genesis::params::MAX_DISPUTE_STEPS;
use kedge_genesis::{L1Height, L2Number, Network, Params, Sats};
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

const ELF: &[u8] = include_bytes!("../../program/kedge-program.elf");
/// `unimp`, the one word that is no instruction by intent: compilers put it where the program cannot come.
const UNIMP: u32 = 0xc000_1073;

pub(crate) static PROGRAM: LazyLock<Program> = LazyLock::new(|| Program::from_elf(ELF).unwrap());

const PARENT: B256 = B256::repeat_byte(0x77);

/// Runs the program to its end.
pub(crate) fn run(input: &[u8]) -> Machine {
    let mut machine = Machine::new(&PROGRAM.clone().with_input(input).unwrap());
    assert!(matches!(machine.run(MAX_DISPUTE_STEPS), Stop::Halt(_)), "no end after 2^36 steps");
    machine
}

/// What the program finds, which is also what its source finds as native code.
pub(crate) fn outcome(input: &[u8]) -> Outcome {
    let machine = run(input);
    let outcome = Outcome::of(&machine).unwrap_or_else(|| panic!("{:?}", machine.halt()));
    assert_eq!(outcome, judge(input));
    outcome
}

/// Native code's verdict on a proof, which is also the program's.
pub(crate) fn judge_both<L: L1Lookup<Error = Infallible>>(
    params: &Params,
    l1: &L,
    view: &AssertionView<'_>,
    proof: &[u8],
) -> Verdict {
    let verdict = verify(params, l1, view, proof).unwrap();
    let (recorded, input) = record_input(params, l1, view, PARENT, proof).unwrap();
    assert_eq!(recorded, verdict);
    let (params_hash, claims) = (params.hash(), view.claims.to_vec());
    let body = AssertionBody { parent: PARENT, params_hash, l1: view.l1, claims }.encode();
    let subject = Subject { id: view.id, base: view.base, body: chunk_hash(&body) };
    assert_eq!(outcome(&input), Outcome::Verdict { subject, verdict });
    verdict
}

/// An input and its verdict: fraud in a segment with a deposit and transactions in it.
struct Case {
    world: World,
    input: Vec<u8>,
}

static CASE: LazyLock<Case> = LazyLock::new(|| {
    let world = World::busy(params(), 3);
    let truth = world.truth(0, 5);
    let segment = truth.iter().position(|claim| (claim.l1_height.0, claim.offset) == (4, 0));
    let segment = segment.unwrap();
    let mut claims = hashes(&truth);
    claims[segment] = B256::repeat_byte(1);
    let base = genesis_claim(&world.params).unwrap().hash();
    let view = AssertionView { id: B256::repeat_byte(2), base, l1: world.at(5), claims: &claims };
    let proof = world.prove(&view, segment).encode();
    let (verdict, input) =
        record_input(&world.params, &world.chain, &view, PARENT, &proof).unwrap();
    assert_eq!(verdict, Verdict::Fraud { segment: segment as u32, kind: FraudKind::OutputRoot });
    Case { input, world }
});

/// The parts of an input.
#[derive(Clone, Debug, PartialEq)]
struct Parts {
    params: Vec<u8>,
    id: B256,
    base: B256,
    body: Vec<u8>,
    headers: Vec<u8>,
    blocks: Vec<(u32, Vec<u8>)>,
    chunks: Vec<Vec<u8>>,
    proof: Vec<u8>,
}

impl Parts {
    fn of(input: &[u8]) -> Self {
        Reader::record(input, |r| {
            Ok(Self {
                params: r.bytes()?.to_vec(),
                id: r.item()?,
                base: r.item()?,
                body: r.bytes()?.to_vec(),
                headers: r.bytes()?.to_vec(),
                blocks: r
                    .each(usize::MAX, |r| r.list(|r| Ok((r.height()?.0, r.bytes()?.to_vec()))))?,
                chunks: r.each(usize::MAX, |r| Ok(r.bytes()?.to_vec()))?,
                proof: r.bytes()?.to_vec(),
            })
        })
        .unwrap()
    }

    fn encode(&self) -> Vec<u8> {
        Writer::record(|w| {
            w.item(&self.params.as_slice());
            w.item(&self.id);
            w.item(&self.base);
            w.item(&self.body.as_slice());
            w.item(&self.headers.as_slice());
            w.each(&self.blocks, |w, (height, transactions)| {
                w.list(|w| {
                    w.item(height);
                    w.item(&transactions.as_slice());
                });
            });
            w.each(&self.chunks, |w, chunk| w.item(&chunk.as_slice()));
            w.item(&self.proof.as_slice());
        })
    }

    /// Changes the transactions of a block.
    fn edit(&mut self, block: usize, change: impl FnOnce(&mut Vec<bitcoin::Transaction>)) {
        let bytes = &mut self.blocks[block].1;
        let mut transactions = deserialize(bytes).unwrap();
        change(&mut transactions);
        *bytes = serialize(&transactions);
    }
}

#[test]
fn the_program_is_plain_rv32im_and_has_no_symbols() {
    let others: Vec<_> = PROGRAM.illegal().filter(|(_, word)| *word != UNIMP).collect();
    assert_eq!(others, []);
    assert!(ELF.len() < 4 << 20, "{} bytes", ELF.len());
    // Neither names of its functions nor paths of the machine that built it.
    for needle in ["/root/", "/home/", ".cargo/", "native_keccak256"] {
        let found = ELF.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!found, "{needle}");
    }
}

#[test]
fn an_input_has_only_the_blocks_that_the_verdict_reads() {
    let parts = Parts::of(&CASE.input);
    assert_eq!(parts.encode(), CASE.input);
    let heights: Vec<_> = parts.blocks.iter().map(|(height, _)| *height).collect();
    assert!(heights.is_sorted() && heights.len() < 4, "{heights:?}");
    let chain: Vec<u8> = (heights[0]..=5)
        .flat_map(|height| serialize(&CASE.world.chain.0[&height].header))
        .collect();
    assert_eq!(parts.headers, chain);
    assert_eq!(Params::decode(&parts.params), Ok(CASE.world.params));
    let Outcome::Verdict { verdict: Verdict::Fraud { .. }, .. } = outcome(&CASE.input) else {
        panic!("no fraud")
    };
}

#[test]
fn nothing_in_an_input_can_be_another_than_the_assertion_says() {
    let good = Parts::of(&CASE.input);
    let other = {
        // Blocks of the same heights in another chain.
        let mut world = World::new(params());
        (0..4).for_each(|_| drop(world.mine(vec![])));
        world
    };
    let last = good.blocks.len() - 1;
    assert_eq!(good.blocks[last].0, 4);
    let block = |world: &World, height| Arc::clone(&world.chain.0[&height]);
    type Edit<'a> = (&'a str, InputFault, Box<dyn Fn(&mut Parts) + 'a>);
    let cases: Vec<Edit<'_>> = vec![
        ("no body", InputFault::Record, Box::new(|p| p.body.truncate(100))),
        (
            "params cut",
            InputFault::Params,
            Box::new(|p| {
                p.params.pop();
            }),
        ),
        (
            "other params",
            InputFault::Params,
            Box::new(|p| p.params = Network::Dev.params().encode()),
        ),
        ("body for other params", InputFault::Params, Box::new(|p| p.body[40] ^= 1)),
        ("other l1 block", InputFault::Headers, Box::new(|p| p.body[80] ^= 1)),
        (
            "header cut",
            InputFault::Headers,
            Box::new(|p| {
                p.headers.pop();
            }),
        ),
        ("last header gone", InputFault::Headers, Box::new(|p| p.headers.truncate(80))),
        ("no headers", InputFault::Headers, Box::new(|p| p.headers.clear())),
        (
            "first header gone",
            InputFault::Headers,
            Box::new(|p| drop(p.headers.drain(..p.headers.len() - 80))),
        ),
        ("header changed", InputFault::Headers, Box::new(|p| p.headers[70] ^= 1)),
        ("more headers than blocks", InputFault::Headers, {
            Box::new(|p| p.headers = [&[0; 80 * 9][..], &p.headers].concat())
        }),
        ("no block", InputFault::Missing, Box::new(|p| p.blocks.clear())),
        ("block elsewhere", InputFault::Missing, Box::new(|p| p.blocks[last].0 = 2)),
        (
            "block of another chain",
            InputFault::Block,
            Box::new(|p| p.blocks[last].1 = serialize(&block(&other, 4).txdata)),
        ),
        (
            "block of another height",
            InputFault::Block,
            Box::new(|p| p.blocks[last].1 = serialize(&block(&CASE.world, 5).txdata)),
        ),
        (
            "block cut",
            InputFault::Block,
            Box::new(|p| {
                p.blocks[last].1.pop();
            }),
        ),
        ("block longer", InputFault::Block, Box::new(|p| p.blocks[last].1.push(0))),
        ("empty block", InputFault::Block, Box::new(|p| p.edit(last, |txs| txs.clear()))),
        (
            "transaction left out",
            InputFault::Block,
            Box::new(|p| p.edit(last, |txs| drop(txs.pop()))),
        ),
        (
            "transaction changed",
            InputFault::Block,
            Box::new(|p| p.edit(last, |txs| txs[1].version.0 ^= 1)),
        ),
        (
            // The same merkle root (CVE-2012-2459).
            "last transactions twice",
            InputFault::Block,
            Box::new(|p| {
                p.edit(last, |txs| {
                    assert_eq!(txs.len(), 3);
                    txs.push(txs[2].clone());
                });
            }),
        ),
        (
            "witness changed",
            InputFault::Block,
            Box::new(|p| p.edit(last, |txs| txs[1].input[0].witness.push([1]))),
        ),
        (
            "witness left out",
            InputFault::Block,
            Box::new(|p| p.edit(last, |txs| txs[1].input[0].witness = Witness::new())),
        ),
        (
            "all witnesses left out",
            InputFault::Block,
            Box::new(|p| {
                p.edit(last, |txs| {
                    for tx in txs {
                        tx.input[0].witness = Witness::new();
                    }
                });
            }),
        ),
    ];
    for (name, fault, change) in cases {
        let mut parts = good.clone();
        change(&mut parts);
        assert_ne!(parts, good, "{name}");
        assert_eq!(outcome(&parts.encode()), Outcome::Refused(fault), "{name}");
    }
    for bad in [&[][..], &[0xc0], &CASE.input[..40], &[&CASE.input[..], &[0]].concat()] {
        assert_eq!(outcome(bad), Outcome::Refused(InputFault::Record));
    }
}

#[test]
fn a_chunk_of_a_batch_is_read_without_the_block_around_it() {
    let mut world = World::new(Params { max_chunk_bytes: 2_000, ..params() });
    let alice = account(1);
    let deposit = world.deposit(&[(alice.address(), Sats(100_000_000))]);
    world.mine(vec![deposit]);
    let noise = (0..100u8).flat_map(|number| keccak256([number]).0).collect();
    let tx = alice.send(0, TxKind::Call(Address::ZERO), 0, noise);
    let mut reveals = world.batch_chunks(vec![vec![tx]]);
    assert_eq!(reveals.len(), 2);
    let last = reveals.pop().unwrap();
    world.mine(reveals);
    world.mine(vec![last]);
    let truth = world.truth(0, 3);
    assert_eq!(truth[2].number, L2Number(1));
    let mut claims = hashes(&truth);
    claims[2] = B256::repeat_byte(1);
    let base = genesis_claim(&world.params).unwrap().hash();
    let view = AssertionView { id: B256::repeat_byte(2), base, l1: world.at(3), claims: &claims };
    let proof = world.prove(&view, 2);
    let verdict = judge_both(&world.params, &world.chain, &view, &proof.encode());
    assert_eq!(verdict, Verdict::Fraud { segment: 2, kind: FraudKind::OutputRoot });

    let (_, input) =
        record_input(&world.params, &world.chain, &view, PARENT, &proof.encode()).unwrap();
    let good = Parts::of(&input);
    let heights: Vec<_> = good.blocks.iter().map(|(height, _)| *height).collect();
    assert_eq!((heights, good.chunks.len()), (vec![1, 3], 1));
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        change(&mut parts);
        outcome(&parts.encode())
    };
    let missing = Outcome::Refused(InputFault::Missing);
    assert_eq!(changed(&|parts| parts.chunks.clear()), missing);
    assert_eq!(changed(&|parts| parts.chunks[0][7] ^= 1), missing);
    // The block around it does as well.
    let around = (2, serialize(&world.chain.0[&2].txdata));
    let whole = changed(&|parts| {
        parts.chunks.clear();
        parts.blocks.insert(1, around.clone());
    });
    assert_eq!(whole, outcome(&input));

    // A state that a liar made up, whose chunk is nowhere: the block shows that.
    let mut proof = proof;
    let run = proof.run.as_mut().unwrap();
    run.state.channel.as_mut().unwrap().chunks[0].input = 7;
    proof.pre.derive_state = run.state.hash();
    let mut lie = claims.clone();
    lie[1] = proof.pre.hash();
    let view = AssertionView { claims: &lie, ..view };
    let verdict = judge_both(&world.params, &world.chain, &view, &proof.encode());
    assert_eq!(verdict, Verdict::Malformed { reason: Malformed::Chain });
}

#[test]
fn what_a_verdict_rests_on_is_in_the_output() {
    let good = outcome(&CASE.input);
    let Outcome::Verdict { subject, verdict } = good else { panic!("{good:?}") };
    // The body's parent is nothing that the verdict depends on, but part of what it is about.
    let mut parts = Parts::of(&CASE.input);
    parts.body[0] ^= 1;
    let body = chunk_hash(&parts.body);
    assert_ne!(body, subject.body);
    let subject = Subject { body, ..subject };
    assert_eq!(outcome(&parts.encode()), Outcome::Verdict { subject, verdict });
    // Another id or base: the proof is not about that assertion, and the output says which it was.
    let mut parts = Parts::of(&CASE.input);
    parts.id = B256::ZERO;
    let Outcome::Verdict { subject, verdict: Verdict::Malformed { .. } } = outcome(&parts.encode())
    else {
        panic!("a verdict about another assertion")
    };
    assert_eq!(subject.id, B256::ZERO);
}

#[test]
fn a_block_without_witnesses_needs_no_commitment_to_them() {
    let mut world = World::new(params());
    world.mine(vec![]);
    let mut bare = (*world.chain.0[&1]).clone();
    bare.txdata[0].output.pop();
    bare.txdata[0].input[0].witness = Witness::new();
    let rooted = |mut block: Block| {
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        block
    };
    let mut uncommitted = bare.clone();
    uncommitted.txdata[0].input[0].witness.push([0; 32]);
    for (block, whole) in [(rooted(bare), true), (rooted(uncommitted), false)] {
        let mut chain = Chain::default();
        let l1 = kedge_bridge::derive::L1Block::new(L1Height(1), Arc::new(block));
        chain.0.insert(1, Arc::clone(&l1.block));
        let claims = [B256::ZERO];
        let claim = genesis_claim(&world.params).unwrap();
        let view = AssertionView { id: B256::ZERO, base: claim.hash(), l1: l1.at, claims: &claims };
        let (pre, db) = world.pre(&claim);
        let proof =
            kedge_fraud_proof::build_proof(&world.params, &chain, &view, 0, &pre, db).unwrap();
        let proof = Proof::encode(&proof);
        let (verdict, input) = record_input(&world.params, &chain, &view, PARENT, &proof).unwrap();
        assert!(matches!(verdict, Verdict::Fraud { .. }), "{verdict:?}");
        let refused = outcome(&input) == Outcome::Refused(InputFault::Block);
        assert_eq!(refused, !whole);
    }
}
