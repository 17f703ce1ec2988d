//! The step's segments and the life of assertions, on made-up Bitcoin blocks and a made-up executor.

use alloy_primitives::{B256, b256, keccak256};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, XOnlyPublicKey, transaction,
};
use kedge_bridge::assertion::{AssertionBody, assertion_id};
use kedge_bridge::bond::Bond;
use kedge_bridge::derive::{DeriveState, L1Block, L1Lookup, L2Cursor};
use kedge_bridge::envelope::{EnvelopeHeader, Kind, chunk_hash, leaf_script};
use kedge_fraud_proof::{
    Applied, AssertionEvent, AssertionFault, AssertionStatus, AssertionTracker, Claim, Executor,
    OwnBlock, OwnChain, StepError, StepOutput, step,
};
use kedge_genesis::{L1Height, L1Ref, L2Number, Network, Params, Sats};
use kedge_vm::Payload;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Epochs are derived two blocks late, deposits go one to a block.
fn params() -> Params {
    Params {
        sequencing_window: 2,
        deposits_gas_per_block: 100_000,
        challenge_window: 4,
        max_assertion_span: 5,
        finality_depth: 2,
        ..*Network::Dev.params()
    }
}

/// Meters what it is told, by number; the output root is a hash of all payloads so far.
struct Fake {
    root: B256,
    gas: u64,
    witness: u64,
}

impl Executor for Fake {
    type Error = &'static str;

    fn apply(&mut self, payload: &Payload, cursor: &L2Cursor) -> Result<Applied, Self::Error> {
        assert_eq!(cursor.number, payload.number);
        self.root = keccak256([self.root, payload.id()].concat());
        let (number, output_root) = (payload.number, self.root);
        Ok(Applied { number, output_root, metered_gas: self.gas, witness_bytes: self.witness })
    }
}

struct World {
    params: Params,
    blocks: BTreeMap<u32, Arc<Block>>,
    own: BTreeMap<u32, OwnBlock>,
    state: DeriveState,
    executor: Fake,
    tracker: AssertionTracker,
    counter: u32,
}

struct Blocks<'a>(&'a BTreeMap<u32, Arc<Block>>);

impl L1Lookup for Blocks<'_> {
    type Error = Infallible;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Infallible> {
        Ok(Arc::clone(&self.0[&height.0]))
    }
}

struct Own<'a>(&'a BTreeMap<u32, OwnBlock>);
impl OwnChain for Own<'_> {
    type Error = Infallible;
    fn own_block(&self, height: L1Height) -> Result<Option<OwnBlock>, Infallible> {
        Ok(self.0.get(&height.0).cloned())
    }
}

fn publisher() -> XOnlyPublicKey {
    XOnlyPublicKey::from_slice(&Network::Dev.params().keys.unwrap().recovery).unwrap()
}

impl World {
    fn new(params: Params) -> Self {
        Self {
            blocks: BTreeMap::new(),
            own: BTreeMap::new(),
            state: DeriveState::genesis(&params).unwrap(),
            executor: Fake { root: B256::ZERO, gas: 50_000, witness: 0 },
            tracker: AssertionTracker::genesis(&params),
            counter: 0,
            params,
        }
    }

    fn tx(&mut self, witness: Witness, output: Vec<TxOut>) -> Transaction {
        self.counter += 1;
        let previous_output = OutPoint::new(Txid::hash(&self.counter.to_le_bytes()), 0);
        let (script_sig, sequence) = (ScriptBuf::new(), Sequence::MAX);
        let input = vec![TxIn { previous_output, script_sig, sequence, witness }];
        Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
    }

    fn deposits(&mut self, count: usize) -> Transaction {
        let to = (alloy_primitives::Address::repeat_byte(1), Sats(20_000));
        let outputs =
            kedge_bridge::deposit::deposit_outputs(&self.state.vault.current, &vec![to; count]);
        self.tx(Witness::new(), outputs)
    }

    fn assertion(&mut self, body: &[u8], bond: Sats) -> Transaction {
        let header = EnvelopeHeader {
            chain_id: self.params.chain_id,
            index: 0,
            prev_body: B256::ZERO,
            chunk: 0,
            chunks: vec![chunk_hash(body)],
            signature: None,
        };
        let leaf = leaf_script(&publisher(), Kind::Assertion, &header, body).unwrap();
        let control = [&[0xc0][..], &publisher().serialize()].concat();
        let witness = Witness::from_slice(&[&[1; 64][..], leaf.as_bytes(), &control]);
        let output = Bond::of(&self.params, publisher()).unwrap().tx_out(bond);
        self.tx(witness, vec![output])
    }

    fn propose(&mut self) -> (B256, Transaction) {
        let body = self.tracker.build_assertion(&self.params, &Own(&self.own)).unwrap().unwrap();
        let tx = self.assertion(&body.encode(), self.params.proposer_bond);
        (id_of(&tx), tx)
    }

    fn mine(&mut self, txs: Vec<Transaction>) -> (StepOutput, Vec<AssertionEvent>) {
        let height = self.state.l1.height.next();
        let mut coinbase = self.tx(Witness::new(), vec![]);
        coinbase.input[0].previous_output = OutPoint::null();
        coinbase.output =
            vec![TxOut { value: Amount::ZERO, script_pubkey: vec![height.0 as u8].into() }];
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::from_byte_array(self.state.l1.hash.0),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.params.l1_start_time + height.0 * 600,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let mut block = Block { header, txdata: std::iter::once(coinbase).chain(txs).collect() };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let l1 = L1Block::new(height, Arc::new(block));
        let lookup = Blocks(&self.blocks);
        let root = self.executor.root;
        let output =
            step(&self.params, &self.state, root, &l1, &lookup, &mut self.executor).unwrap();
        self.blocks.insert(height.0, Arc::clone(&l1.block));
        self.state = output.post.clone();
        let claims = output.claims.iter().map(Claim::hash).collect();
        self.own.insert(height.0, OwnBlock { hash: l1.at.hash, claims });
        let events = self
            .tracker
            .on_l1_block(&self.params, &l1, &Own(&self.own), &Blocks(&self.blocks))
            .unwrap();
        assert_eq!(AssertionTracker::decode(&self.tracker.encode()).unwrap(), self.tracker);
        (output, events)
    }

    fn events(&mut self, txs: Vec<Transaction>) -> Vec<AssertionEvent> {
        self.mine(txs).1
    }

    fn faults(&mut self, txs: Vec<Transaction>) -> Vec<AssertionFault> {
        self.events(txs)
            .into_iter()
            .map(|event| match event {
                AssertionEvent::Ignored { fault, .. } => fault,
                event => panic!("{event:?}"),
            })
            .collect()
    }
}

fn id_of(reveal: &Transaction) -> B256 {
    assertion_id(&OutPoint::new(reveal.compute_txid(), 0))
}

#[test]
fn a_block_without_payloads_has_one_claim() {
    let mut world = World::new(params());
    let pre = world.state.clone();
    let (output, _) = world.mine(vec![]);
    let expected = Claim {
        l1_height: L1Height(1),
        offset: 0,
        derive_state: output.post.hash(),
        number: L2Number(0),
        output_root: B256::ZERO,
    };
    assert_eq!(output.claims, [expected]);
    assert_ne!(pre.hash(), output.post.hash());
}

#[test]
fn segments_end_where_the_meter_reaches_the_target_and_at_the_end_of_the_block() {
    // Five deposits, one per payload: five payloads in L1 block 3.
    for (gas, offsets) in [
        (50_000, vec![0]),
        (1_000_000, vec![2, 4, 0]),
        (2_000_000, vec![1, 2, 3, 4, 0]),
        (1_999_999, vec![2, 4, 0]),
        (700_000, vec![3, 0]),
    ] {
        let mut world = World::new(params());
        world.executor.gas = gas;
        let deposits = world.deposits(5);
        world.mine(vec![deposits]);
        let (before, _) = world.mine(vec![]);
        assert_eq!(before.claims.len(), 1);
        let (output, _) = world.mine(vec![]);
        assert_eq!(output.derived.payloads.len(), 5);
        assert_eq!(output.claims.iter().map(|c| c.offset).collect::<Vec<_>>(), offsets, "{gas}");
        for claim in &output.claims {
            let end = claim.offset == 0;
            let number = if end { 5 } else { u64::from(claim.offset) };
            assert_eq!(claim.number, L2Number(number));
            assert_eq!(claim.l1_height, L1Height(if end { 3 } else { 2 }));
            let state = if end { output.post.hash() } else { before.post.hash() };
            assert_eq!(claim.derive_state, state);
        }
    }
}

#[test]
fn segments_end_where_the_witness_meter_reaches_its_target() {
    for (witness, offsets) in
        [(100_000, vec![0]), (250_000, vec![2, 4, 0]), (500_000, vec![1, 2, 3, 4, 0])]
    {
        let mut world = World::new(params());
        assert_eq!(world.params.segment_witness_target(), 500_000);
        world.executor.witness = witness;
        let deposits = world.deposits(5);
        world.mine(vec![deposits]);
        world.mine(vec![]);
        let (output, _) = world.mine(vec![]);
        assert_eq!(output.claims.iter().map(|c| c.offset).collect::<Vec<_>>(), offsets);
    }
}

#[test]
fn an_executor_that_fails_or_lies_is_this_machines_failure() {
    struct Bad(Result<Applied, &'static str>);
    impl Executor for Bad {
        type Error = &'static str;
        fn apply(&mut self, _: &Payload, _: &L2Cursor) -> Result<Applied, Self::Error> {
            self.0
        }
    }
    let mut world = World::new(params());
    world.mine(vec![]);
    world.mine(vec![]);
    let pre = world.state.clone();
    world.mine(vec![]);
    let l1 = L1Block::new(L1Height(3), Arc::clone(&world.blocks[&3]));
    let lookup = Blocks(&world.blocks);
    let lie =
        Applied { number: L2Number(7), output_root: B256::ZERO, metered_gas: 0, witness_bytes: 0 };
    for (result, error) in [
        (Err("disk"), StepError::Execute("disk")),
        (Ok(lie), StepError::WrongBlock { expected: L2Number(1), found: L2Number(7) }),
    ] {
        let found = step(&world.params, &pre, B256::ZERO, &l1, &lookup, &mut Bad(result));
        assert_eq!(found, Err(error));
    }
}

#[test]
fn a_true_assertion_settles_when_its_window_has_passed() {
    let mut world = World::new(params());
    assert_eq!(world.tracker.build_assertion(&world.params, &Own(&world.own)), Ok(None));
    for _ in 0..3 {
        world.mine(vec![]);
    }
    // Finality depth 2: block 2 is the newest that is deep enough.
    let (id, tx) = world.propose();
    assert_eq!(world.events(vec![tx]), [AssertionEvent::Proposed { id, agrees: true }]);
    let node = world.tracker.get(&id).unwrap().clone();
    assert_eq!(
        (node.l1.height, node.confirmed_at, node.deadline),
        (L1Height(2), L1Height(4), L1Height(8))
    );
    assert_eq!(node.claims.len(), 2);
    assert_eq!(node.proposer, publisher().serialize());
    for _ in 5..8 {
        assert_eq!(world.events(vec![]), []);
        assert_eq!(world.tracker.settled().id, B256::ZERO);
    }
    assert_eq!(world.events(vec![]), [AssertionEvent::Settled { id, agrees: true }]);
    assert_eq!(world.tracker.settled().l1, node.l1);
    assert_eq!(
        world.tracker.get(&id).unwrap().status,
        AssertionStatus::Settled { at: L1Height(8) }
    );
    assert_eq!(world.tracker.settled_since(0).map(|node| node.id), Some(id));
    assert_eq!(world.tracker.settled_since(1), None);
    world.mine(vec![]);
    assert_eq!(world.tracker.settled_since(1).map(|node| node.id), Some(id));
}

#[test]
fn a_settled_assertion_keeps_the_claim_that_its_children_continue() {
    let mut world = World::new(params());
    for _ in 0..3 {
        world.mine(vec![]);
    }
    let (id, tx) = world.propose();
    for txs in [vec![tx], vec![], vec![], vec![], vec![]] {
        world.mine(txs);
    }
    let node = world.tracker.get(&id).unwrap().clone();
    assert_eq!(node.status, AssertionStatus::Settled { at: L1Height(8) });
    // The block that settles it still has all of them.
    assert_eq!(node.claims.len(), 2);
    world.mine(vec![]);
    assert_eq!(world.tracker.get(&id).unwrap().claims, node.claims[1..]);
    let (child, tx) = world.propose();
    assert_eq!(world.events(vec![tx]), [AssertionEvent::Proposed { id: child, agrees: true }]);
    let child = world.tracker.get(&child).unwrap();
    assert_eq!((child.parent, child.base), (id, node.claims[1]));
}

#[test]
fn a_false_assertion_settles_without_moving_the_settled_head() {
    let mut world = World::new(params());
    for _ in 0..3 {
        world.mine(vec![]);
    }
    let mut body = world.tracker.build_assertion(&world.params, &Own(&world.own)).unwrap().unwrap();
    body.claims[1] = B256::repeat_byte(9);
    let lie = world.assertion(&body.encode(), world.params.proposer_bond);
    let lie_id = id_of(&lie);
    assert_eq!(world.events(vec![lie]), [AssertionEvent::Proposed { id: lie_id, agrees: false }]);
    // Proposers build on what they agree with; a child of a lie is a lie.
    let (truth, tx) = world.propose();
    let claims = world.own[&3].claims.clone();
    let l1 = L1Ref { height: L1Height(3), hash: world.own[&3].hash };
    let child = AssertionBody { parent: lie_id, claims, l1, params_hash: world.params.hash() };
    let child = world.assertion(&child.encode(), world.params.proposer_bond);
    let child_id = id_of(&child);
    assert_eq!(
        world.events(vec![tx, child]),
        [
            AssertionEvent::Proposed { id: truth, agrees: true },
            AssertionEvent::Proposed { id: child_id, agrees: false },
        ]
    );
    for _ in 6..8 {
        world.mine(vec![]);
    }
    assert_eq!(world.events(vec![]), [AssertionEvent::Settled { id: lie_id, agrees: false }]);
    assert_eq!(world.tracker.settled().id, B256::ZERO);
    assert_eq!(
        world.events(vec![]),
        [
            AssertionEvent::Settled { id: truth, agrees: true },
            AssertionEvent::Settled { id: child_id, agrees: false },
        ]
    );
    assert_eq!(world.tracker.settled().id, truth);
}

#[test]
fn a_missing_or_additional_segment_disagrees() {
    let mut world = World::new(params());
    for _ in 0..3 {
        world.mine(vec![]);
    }
    let body = world.tracker.build_assertion(&world.params, &Own(&world.own)).unwrap().unwrap();
    let mut fewer = body.clone();
    fewer.claims.remove(0);
    let mut more = body;
    more.claims.push(B256::ZERO);
    let txs = [fewer, more].map(|body| world.assertion(&body.encode(), world.params.proposer_bond));
    let agrees: Vec<_> = world
        .events(txs.to_vec())
        .into_iter()
        .map(|event| matches!(event, AssertionEvent::Proposed { agrees: true, .. }))
        .collect();
    assert_eq!(agrees, [false, false]);
}

#[test]
fn what_does_not_count_is_ignored_with_its_reason() {
    let mut world = World::new(params());
    for _ in 0..7 {
        world.mine(vec![]);
    }
    let good = world.tracker.build_assertion(&world.params, &Own(&world.own)).unwrap().unwrap();
    // The span of the parameters ends it at block 5.
    assert_eq!(good.l1.height, L1Height(5));
    let bond = world.params.proposer_bond;
    let at = |world: &World, height: u32| {
        let hash = world.own.get(&height).map_or(B256::ZERO, |own| own.hash);
        L1Ref { height: L1Height(height), hash }
    };
    let span = |to| AssertionFault::Span { from: L1Height(0), to: L1Height(to) };
    let l1 = |height| at(&world, height);
    let cases = [
        (
            AssertionBody { parent: B256::repeat_byte(1), ..good.clone() },
            bond,
            AssertionFault::Parent,
        ),
        (AssertionBody { params_hash: B256::ZERO, ..good.clone() }, bond, AssertionFault::Params),
        (AssertionBody { l1: l1(0), ..good.clone() }, bond, span(0)),
        (AssertionBody { l1: l1(6), ..good.clone() }, bond, span(6)),
        (
            AssertionBody { l1: L1Ref { hash: B256::ZERO, ..l1(4) }, ..good.clone() },
            bond,
            AssertionFault::L1,
        ),
        (good.clone(), Sats(bond.0 - 1), AssertionFault::Bond),
    ];
    for (body, bond, fault) in cases {
        let tx = world.assertion(&body.encode(), bond);
        assert_eq!(world.faults(vec![tx]), [fault]);
    }
    let mut no_bond = world.assertion(&good.encode(), bond);
    no_bond.output[0].script_pubkey = ScriptBuf::new();
    assert_eq!(world.faults(vec![no_bond]), [AssertionFault::Bond]);
    let short = world.assertion(&good.encode()[1..], bond);
    assert_eq!(world.faults(vec![short]), [AssertionFault::Body]);
    world.params.chain_id += 1;
    let foreign = world.assertion(&good.encode(), bond);
    world.params.chain_id -= 1;
    assert_eq!(world.faults(vec![foreign]), [AssertionFault::NotOurs]);
}

#[test]
fn an_assertion_about_its_own_block_or_a_later_one_does_not_count() {
    let mut world = World::new(params());
    world.mine(vec![]);
    let l1 = L1Ref { height: L1Height(2), hash: B256::ZERO };
    let params_hash = world.params.hash();
    let body = AssertionBody { parent: B256::ZERO, params_hash, l1, claims: vec![B256::ZERO] };
    let tx = world.assertion(&body.encode(), world.params.proposer_bond);
    assert_eq!(world.faults(vec![tx]), [AssertionFault::L1]);
}

#[test]
fn assertions_form_a_chain_and_old_ones_are_forgotten() {
    let mut world = World::new(params());
    let mut first = None;
    let mut most = 0;
    for _ in 0..120 {
        let proposal = world.tracker.build_assertion(&world.params, &Own(&world.own)).unwrap();
        let txs = proposal
            .map(|body| world.assertion(&body.encode(), world.params.proposer_bond))
            .into_iter()
            .collect::<Vec<_>>();
        if let Some(tx) = txs.first() {
            first.get_or_insert(id_of(tx));
        }
        for event in world.events(txs) {
            assert!(!matches!(event, AssertionEvent::Ignored { .. }), "{event:?}");
        }
        most = most.max(world.tracker.nodes().len());
    }
    assert_eq!(world.tracker.get(&first.unwrap()), None);
    // One a block, remembered for the window and four more.
    assert!(most <= 5 * 4 + 2, "{most}");
    assert!(world.tracker.settled().l1.height >= L1Height(110));
}

/// Five windows without a new assertion: long enough for everything decided to be forgotten.
fn wait(world: &mut World) {
    for _ in 0..5 * world.params.challenge_window + 1 {
        world.mine(vec![]);
    }
}

#[test]
fn a_right_assertion_that_only_a_wrong_one_continues_can_be_continued_after_any_time() {
    let mut world = World::new(params());
    for _ in 0..3 {
        world.mine(vec![]);
    }
    let (right, tx) = world.propose();
    world.mine(vec![tx]);
    let mut body = world.tracker.build_assertion(&world.params, &Own(&world.own)).unwrap().unwrap();
    assert_eq!(body.parent, right);
    body.claims[0] = B256::repeat_byte(9);
    let wrong = world.assertion(&body.encode(), world.params.proposer_bond);
    let wrong_id = id_of(&wrong);
    assert_eq!(
        world.events(vec![wrong]),
        [AssertionEvent::Proposed { id: wrong_id, agrees: false }]
    );
    wait(&mut world);
    // Nobody proved the wrong one wrong. It is gone, and what it continued is not.
    assert_eq!(world.tracker.get(&wrong_id), None);
    assert_eq!(world.tracker.settled().id, right);
    let (next, tx) = world.propose();
    assert_eq!(world.events(vec![tx]), [AssertionEvent::Proposed { id: next, agrees: true }]);
    assert_eq!(world.tracker.get(&next).unwrap().parent, right);
    wait(&mut world);
    assert_eq!(world.tracker.settled().id, next);
    assert_eq!(world.tracker.nodes().iter().map(|node| node.id).collect::<Vec<_>>(), [next]);
}

#[test]
fn assertions_catch_up_span_by_span_when_nobody_made_any_for_long() {
    let mut world = World::new(params());
    for _ in 0..10 * world.params.max_assertion_span {
        world.mine(vec![]);
    }
    let mut parent = B256::ZERO;
    // One assertion a block, each of the whole span, before the first of them settles.
    for _ in 0..11 {
        let (id, tx) = world.propose();
        assert_eq!(world.events(vec![tx])[0], AssertionEvent::Proposed { id, agrees: true });
        assert_eq!(world.tracker.get(&id).unwrap().parent, parent);
        parent = id;
    }
    wait(&mut world);
    assert_eq!(world.tracker.settled().id, parent);
    assert!(world.tracker.settled().l1.height >= L1Height(50));
}

#[test]
fn claims_have_known_hashes() {
    let claim = Claim {
        l1_height: L1Height(7),
        offset: 3,
        derive_state: B256::repeat_byte(1),
        number: L2Number(300),
        output_root: B256::repeat_byte(2),
    };
    assert_eq!(Claim::decode(&claim.encode()), Ok(claim));
    assert_eq!(
        claim.hash(),
        b256!("f5e92f35b0c8a80a32a4a0e6f585cbf509f32c8d1061cccaeb04e69ddefe4dbb")
    );
}

proptest! {
    #[test]
    fn trackers_have_one_encoding(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut world = World::new(params());
        for _ in 0..3 {
            world.mine(vec![]);
        }
        let (_, tx) = world.propose();
        for txs in [vec![tx], vec![], vec![], vec![], vec![]] {
            world.mine(txs);
        }
        let mut bytes = world.tracker.encode();
        prop_assert!(AssertionTracker::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = AssertionTracker::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }
}
