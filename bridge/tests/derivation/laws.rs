//! Laws over random chains.

use crate::world::{Plan, World, params, user_tx};
use alloy_primitives::{Address, B256, Bytes};
use bitcoin::Transaction;
use kedge_bridge::derive::{BatchDrop, BatchOutcome, BlockFault, DeriveState, Derived, Note};
use kedge_bridge::envelope::{Kind, parse_input};
use kedge_genesis::L1Ref;
use kedge_vm::{Payload, PayloadTx};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What happens next.
#[derive(Clone, Debug)]
enum Op {
    Deposit(usize),
    Force(Vec<u64>, bool),
    Build {
        step: bool,
        later: u64,
        lower: bool,
        user: Vec<usize>,
    },
    /// Closes a batch; `fault` 0 to 3 leaves it intact.
    Close {
        fault: u8,
    },
    /// Mines the first `take` waiting transactions, sequencing ones with `shuffle` in another order.
    Mine {
        take: usize,
        shuffle: u64,
        seconds: u32,
        fees: u64,
    },
    /// Repeats an old reveal, perhaps with a byte of its witness changed.
    Replay {
        which: usize,
        byte: Option<usize>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1usize..9).prop_map(Op::Deposit),
        2 => (prop::collection::vec(21_200u64..120_000, 1..4), prop::bool::weighted(0.8))
            .prop_map(|(gas, pays)| Op::Force(gas, pays)),
        16 => (prop::bool::weighted(0.3), 0u64..4_000, any::<bool>(), prop::collection::vec(0usize..120, 0..4))
            .prop_map(|(step, later, lower, user)| Op::Build { step, later, lower, user }),
        3 => (0u8..16).prop_map(|fault| Op::Close { fault }),
        6 => (1usize..12, prop_oneof![4 => Just(0), 1 => any::<u64>()], 0u32..2_000, 0u64..100_000)
            .prop_map(|(take, shuffle, seconds, fees)| Op::Mine { take, shuffle, seconds, fees }),
        1 => (any::<usize>(), prop::option::of(any::<usize>()))
            .prop_map(|(which, byte)| Op::Replay { which, byte }),
    ]
}

struct Run {
    world: World,
    time: u32,
    mined: Vec<Transaction>,
    accepted: usize,
    /// Batches of several chunks among them.
    chunked: usize,
}

impl Run {
    fn apply(&mut self, op: Op) {
        let world = &mut self.world;
        match op {
            // Deposits and forced messages are mined at once: the model names them by height.
            Op::Deposit(count) => {
                let tx = world.deposit(count);
                self.mine(vec![tx], 600, 0);
            }
            Op::Force(gas, pays) => {
                let tx = world.force(&gas, pays);
                self.mine(vec![tx], 600, 0);
            }
            Op::Build { step, later, lower, user } => {
                // A batch has its limit of chunks.
                let pending: usize = world.unsafe_blocks.iter().map(|b| b.transactions.len()).sum();
                let user: Vec<Bytes> = if pending > 7 { vec![] } else { user }
                    .into_iter()
                    .map(|data| {
                        world.counter += 1;
                        user_tx(world.counter, 100_000, data)
                    })
                    .collect();
                let timestamp = (!lower).then(|| world.cursor.timestamp + later);
                let before = world.cursor;
                match world.build(step, timestamp, user.clone()) {
                    Ok(()) => {}
                    // What the bounds say is possible is possible.
                    Err(BlockFault::Timestamp { found, lower, upper }) => {
                        assert!(found < lower || found > upper);
                        world.build(step, Some(found.clamp(lower, upper)), user).unwrap();
                    }
                    Err(BlockFault::EpochIncomplete { .. }) => {
                        assert!(step && !before.epoch_complete)
                    }
                    Err(BlockFault::NoNextOrigin { .. }) => {
                        assert!(step && before.origin == world.state.l1);
                    }
                    Err(BlockFault::UnknownOrigin { origin }) => {
                        assert!(world.epoch(origin).is_none());
                    }
                    Err(fault) => panic!("{fault}"),
                }
            }
            Op::Close { fault } => {
                if world.unsafe_blocks.is_empty() {
                    return;
                }
                let reveals = match fault {
                    4 => world.close(|batch| batch.last_origin[3] ^= 1, 0),
                    5 => world.close(|batch| batch.first = batch.first.next(), 0),
                    6 => world.close(|_| {}, 1),
                    7 => world
                        .close(|batch| batch.blocks.last_mut().unwrap().timestamp += 1_000_000, 0),
                    _ => world.close(|_| {}, 0),
                };
                world.mempool.extend(reveals);
            }
            Op::Mine { take, shuffle, seconds, fees } => {
                let take = take.min(world.mempool.len());
                let mut txs: Vec<_> = world.mempool.drain(..take).collect();
                if shuffle != 0 && !txs.is_empty() {
                    let at = shuffle as usize % txs.len();
                    txs.rotate_left(at);
                }
                self.mine(txs, seconds, fees);
            }
            Op::Replay { which, byte } => {
                if self.mined.is_empty() {
                    return;
                }
                let mut tx = self.mined[which % self.mined.len()].clone();
                world.counter += 1;
                tx.input[0].previous_output.vout = world.counter as u32;
                if let Some(byte) = byte {
                    let mut items: Vec<Vec<u8>> =
                        tx.input[0].witness.iter().map(<[u8]>::to_vec).collect();
                    let at = byte % items[1].len();
                    items[1][at] ^= 1;
                    tx.input[0].witness = bitcoin::Witness::from_slice(&items);
                }
                // Neither deposits nor forced messages: the model counts those once.
                let kind = parse_input(&tx.input[0].witness).map(|envelope| envelope.kind);
                if matches!(kind, Some(Kind::Batch)) {
                    world.mempool.insert(which % (world.mempool.len() + 1), tx);
                }
            }
        }
    }

    fn mine(&mut self, txs: Vec<Transaction>, seconds: u32, fees: u64) {
        self.time += seconds;
        self.mined.extend(txs.iter().filter(|tx| !tx.input[0].witness.is_empty()).cloned());
        let pre = self.world.state.clone();
        let (_, derived) = self.world.mine(txs, self.time, fees);
        self.check_block(&pre, &derived);
        // A sequencer whose blocks are not what was derived starts over.
        let world = &mut self.world;
        let kept = world.payloads.len() as u64 == world.state.cursor.number.0;
        assert!(kept);
        let stale = world.base.number < world.state.cursor.number
            || world.next_batch < world.state.next_batch
            || world.epoch(world.cursor.origin).is_none()
            || derived
                .batches
                .iter()
                .any(|batch| matches!(batch.outcome, BatchOutcome::Dropped(_)))
            || derived.notes.iter().any(|note| matches!(note, Note::BatchCut { .. }))
            || derived
                .batches
                .iter()
                .any(|b| world.plans.get(&b.channel).is_none_or(|p| !p.intact));
        // The derived blocks at the sequencer's numbers must be its own.
        let same = world
            .unsafe_at(world.state.cursor.number.0)
            .is_none_or(|id| world.payloads.last().map(Payload::id) == Some(id));
        if stale || !same {
            world.reset();
        }
    }

    fn check_block(&mut self, pre: &DeriveState, derived: &Derived) {
        let post = &derived.post;
        assert_eq!(DeriveState::decode(&post.encode()).unwrap(), *post);
        assert!(post.is_shaped(&self.world.params));
        assert_eq!(post.epochs[0].at, post.cursor.origin);
        assert!(post.epochs.len() <= self.world.params.sequencing_window as usize + 1);
        assert!(post.epochs.windows(2).all(|two| two[0].at.height.next() == two[1].at.height));
        assert_eq!(post.epochs.last().unwrap().at, post.l1);
        assert_eq!(derived.payloads.len(), derived.cursors.len());
        assert_eq!(derived.cursors.last().copied().unwrap_or(pre.cursor), post.cursor);
        // What the sequencer built on the same cursor is what is derived.
        let mut at = 0usize;
        let mut cursor = pre.cursor;
        // A batch that does not decode takes the budget of those after it in the L1 block.
        let mut budget = true;
        for batch in &derived.batches {
            let plan: &Plan = &self.world.plans[&batch.channel];
            // The batches of an L1 block read so many Bitcoin blocks and no more: from there on, epochs wait.
            let reads = BatchOutcome::Dropped(BatchDrop::Block(BlockFault::EpochReads));
            let cut = derived.notes.iter().find_map(|note| match note {
                Note::BatchCut { index, number, fault: BlockFault::EpochReads }
                    if *index == batch.index =>
                {
                    Some(*number)
                }
                _ => (batch.outcome == reads).then(|| plan.payloads[0].number),
            });
            if plan.base == cursor && plan.intact && budget {
                let first = plan.payloads[0].number;
                let taken = cut.map_or(plan.payloads.len(), |cut| (cut.0 - first.0) as usize);
                if let Some(beyond) = plan.payloads.get(taken) {
                    assert_eq!(beyond.sequence_number, 0, "only a new epoch has Bitcoin read");
                }
                if taken > 0 {
                    let last = plan.payloads[taken - 1].number;
                    assert_eq!(batch.outcome, BatchOutcome::Accepted { first, last });
                }
                assert_eq!(derived.payloads[at..at + taken], plan.payloads[..taken]);
                if taken == plan.payloads.len() {
                    assert_eq!(derived.cursors[at + taken - 1], plan.end);
                }
                self.accepted += taken;
                self.chunked += usize::from(batch.txids.len() > 1);
            }
            match &batch.outcome {
                BatchOutcome::Accepted { first, last } => {
                    assert_eq!(derived.payloads[at].number, *first);
                    at += (last.0 - first.0) as usize + 1;
                    cursor = derived.cursors[at - 1];
                    assert_eq!(cursor.number, *last);
                }
                BatchOutcome::Dropped(reason) => {
                    let intact = plan.base == cursor && plan.intact && budget;
                    budget &= !matches!(reason, BatchDrop::Body(_));
                    assert!(!intact || batch.outcome == reads, "{reason}");
                    if plan.base == cursor && matches!(reason, BatchDrop::WrongOrigin) {
                        assert!(!plan.intact);
                    }
                }
            }
        }
    }

    /// The laws of the whole derived chain.
    fn check_chain(&self) {
        let world = &self.world;
        let mut time = u64::from(world.params.l1_start_time);
        let mut origin = world.params.l1_start;
        let mut deposits = Vec::new();
        let mut forced = Vec::new();
        let known: BTreeSet<&Bytes> = world.forced.iter().map(|(_, tx)| tx).collect();
        for (number, payload) in (1u64..).zip(&world.payloads) {
            assert_eq!(payload.number.0, number);
            assert!(payload.timestamp >= time);
            time = payload.timestamp;
            if payload.origin != origin {
                assert_eq!(payload.origin.height, origin.height.next());
                assert_eq!(payload.sequence_number, 0);
            }
            origin = payload.origin;
            for (index, tx) in payload.transactions.iter().enumerate() {
                match tx {
                    PayloadTx::System(tx) if tx.mint == 0 => {
                        assert_eq!((index, payload.sequence_number), (0, 0));
                    }
                    PayloadTx::System(tx) => {
                        let to = Address::from_slice(&tx.input[16..36]);
                        let sats = (tx.mint / 10_000_000_000) as u64;
                        deposits.push((payload.origin.height.0, to, sats));
                    }
                    PayloadTx::User(tx) if known.contains(tx) => forced.push(tx.clone()),
                    PayloadTx::User(_) => {}
                }
            }
        }
        // Deposits: once, in order, in the epoch of their block.
        assert_eq!(deposits, world.deposits[..deposits.len()]);
        let owed = world.deposits.iter().filter(|(height, ..)| {
            *height < origin.height.0 + u32::from(world.state.cursor.epoch_complete)
        });
        assert!(deposits.len() >= owed.count());
        // Forced transactions: once, in order.
        let expected: Vec<_> = world.forced.iter().map(|(_, tx)| tx.clone()).collect();
        assert_eq!(forced, expected[..forced.len()]);
        // Nothing is later than the window allows.
        let L1Ref { height, .. } = world.state.l1;
        assert!(height.since(origin.height) <= world.params.sequencing_window);
    }
}

impl World {
    /// Id of the sequencer's own block of that number, if it has not been posted.
    fn unsafe_at(&self, number: u64) -> Option<B256> {
        self.unsafe_payloads.iter().find(|p| p.number.0 == number).map(Payload::id)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_the_sequencer_builds_is_what_is_derived(ops in prop::collection::vec(op(), 1..90)) {
        let mut run = Run { world: World::new(params()), time: 0, mined: Vec::new(), accepted: 0, chunked: 0 };
        for op in ops {
            run.apply(op);
        }
        run.check_chain();
        // With nobody left to sequence, every deposit and forced transaction still arrives.
        for _ in 0..run.world.forced.len() + 12 {
            run.mine(Vec::new(), 600, 0);
        }
        run.check_chain();
        let forced = run.world.payloads.iter().flat_map(|p| &p.transactions).filter(|tx| {
            matches!(tx, PayloadTx::User(tx) if run.world.forced.iter().any(|(_, f)| f == tx))
        });
        prop_assert_eq!(forced.count(), run.world.forced.len());
    }
}

/// The strategy reaches what it is about: batches are taken in most runs.
#[test]
fn random_chains_accept_batches() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut chunked) = (0, 0);
    for _ in 0..20 {
        let ops = prop::collection::vec(op(), 60..90).new_tree(&mut runner).unwrap().current();
        let mut run = Run {
            world: World::new(params()),
            time: 0,
            mined: Vec::new(),
            accepted: 0,
            chunked: 0,
        };
        ops.into_iter().for_each(|op| run.apply(op));
        accepted += run.accepted;
        chunked += run.chunked;
    }
    assert!(accepted > 60 && chunked > 10, "{accepted} blocks, {chunked} batches of chunks");
}
