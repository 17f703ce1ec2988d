//! Signed blocks on a second node, which has the same Bitcoin.

use super::world::{World, open, params, sequencer_key};
use super::*;
use crate::engine::{Adoption, InvalidBlock, NotAdopted};
use crate::stream::{SignedBlock, VerifiedBlock};
use alloy_primitives::Bytes;
use kedge_bridge::derive::BlockFault;
use kedge_genesis::L1Height;
use tempfile::TempDir;

/// A sequencer and a node that follows it.
struct Pair {
    sequencer: World,
    follower: Arc<Engine>,
    dir: TempDir,
}

const FRIEND: Address = Address::repeat_byte(0xf1);

impl Pair {
    /// Both know of a Bitcoin block with a deposit, whose epoch the sequencer has begun.
    fn new() -> Self {
        let mut sequencer = World::new();
        let deposit = sequencer.deposit(world::account().address(), 100_000_000);
        sequencer.mine(vec![deposit]);
        let dir = TempDir::new().unwrap();
        let follower = open(&dir, sequencer.params);
        let mut pair = Self { sequencer, follower, dir };
        pair.connect();
        let first = pair.build(vec![]);
        assert_eq!(pair.adopt(&[first]), all(1));
        pair
    }

    /// The sequencer's next block, signed.
    fn build(&mut self, user: Vec<Bytes>) -> VerifiedBlock {
        let engine = &self.sequencer.engine;
        let position = engine.position().unwrap();
        let step = position.cursor.epoch_complete
            && position.cursor.origin.height < position.l1_tip.height;
        let listed = user.len();
        let (payload, cursor) = engine.plan(step, None, user).unwrap().unwrap();
        let block = engine.preview(&payload, &kedge_vm::Senders::default()).unwrap();
        let (id, key) = (self.sequencer.params.chain_id, sequencer_key());
        let parent = block.header.parent_hash;
        let signature = SignedBlock::sign(id, &key, &payload, listed, block.hash, parent);
        engine.append(payload, cursor, block, Some(&signature)).unwrap();
        self.read(engine, engine.heads().latest.number).unwrap()
    }

    /// The sequencer's next block, with a payment.
    fn pay(&mut self) -> VerifiedBlock {
        let tx = self.sequencer.plain_transfer(FRIEND, U256::ONE);
        self.build(vec![tx])
    }

    fn read(&self, engine: &Engine, number: L2Number) -> Option<VerifiedBlock> {
        let block = SignedBlock::read(&engine.store().reader(), number).unwrap()?;
        Some(block.verify(self.sequencer.params).unwrap())
    }

    fn adopt(&self, blocks: &[VerifiedBlock]) -> Adoption {
        self.follower.adopt(blocks).unwrap()
    }

    /// The follower processes the Bitcoin blocks that the sequencer has.
    fn connect(&self) {
        let next = self.follower.heads().l1_tip.height.0;
        for (height, block) in (next + 1..).zip(&self.sequencer.chain[next as usize..]) {
            self.follower.connect_l1(L1Height(height), block.clone()).unwrap();
        }
    }

    /// The sequencer forgets what it made above a block, as after the loss of its disk.
    fn forget(&mut self, above: L2Number, nonce: u64) {
        self.sequencer.engine.unwind_unsafe_to(above).unwrap();
        self.sequencer.nonce = nonce;
    }

    fn latest(&self) -> BlockRef {
        self.follower.heads().latest
    }

    fn agree(&self) {
        let (ours, theirs) = (self.follower.heads(), self.sequencer.engine.heads());
        assert_eq!(ours, theirs);
        let dump = |engine: &Engine| world::dump(engine.store(), Domain::L2);
        assert_eq!(dump(&self.follower), dump(&self.sequencer.engine));
    }
}

fn all(added: usize) -> Adoption {
    Adoption { added, rest: None }
}

fn nothing(rest: NotAdopted) -> Adoption {
    Adoption { added: 0, rest: Some(rest) }
}

/// The block with something changed, signed again with the sequencer's key.
fn forged(block: &VerifiedBlock, change: impl FnOnce(&mut SignedBlock)) -> VerifiedBlock {
    let params = params();
    let mut block = block.block().clone();
    change(&mut block);
    block.signed(params.chain_id, &sequencer_key()).verify(params).unwrap()
}

#[test]
fn signed_blocks_are_latest_with_the_same_state_and_can_be_passed_on_until_they_are_final() {
    let mut pair = Pair::new();
    let blocks = [pair.pay(), pair.pay(), pair.pay()];
    assert_eq!(pair.adopt(&blocks[..1]), all(1));
    assert_eq!(pair.adopt(&blocks), all(2), "what is known is passed over");
    assert_eq!(pair.adopt(&blocks), nothing(NotAdopted::Known));
    pair.agree();
    for block in &blocks {
        assert_eq!(pair.read(&pair.follower, block.number()).as_ref(), Some(block));
    }

    let reveal = pair.sequencer.batch().unwrap();
    pair.sequencer.mine(vec![reveal]);
    let mut events = pair.follower.subscribe();
    pair.connect();
    let outcome = std::iter::from_fn(|| events.try_recv().ok()).find_map(|event| match event {
        EngineEvent::L1Connected(outcome) => Some(outcome),
        _ => None,
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.promoted, outcome.appended.len(), outcome.removed.len()), (4, 0, 0));
    assert!(pair.read(&pair.follower, blocks[2].number()).is_some(), "safe, not final");
    for _ in 0..4 {
        pair.sequencer.mine(vec![]);
    }
    pair.connect();
    assert!(pair.follower.heads().finalized.number >= blocks[2].number());
    assert_eq!(pair.read(&pair.follower, blocks[2].number()), None);
}

#[test]
fn a_signed_block_survives_the_end_of_the_process() {
    let mut pair = Pair::new();
    let block = pair.pay();
    assert_eq!(pair.adopt(std::slice::from_ref(&block)), all(1));
    pair.follower = open(&TempDir::new().unwrap(), params());
    pair.follower = open(&pair.dir, pair.sequencer.params);
    assert_eq!(pair.latest().hash, block.block().hash);
    assert_eq!(pair.read(&pair.follower, block.number()), Some(block));
}

#[test]
fn a_block_waits_for_its_origin_and_the_blocks_before_it_do_not() {
    let mut pair = Pair::new();
    let before = pair.pay();
    pair.sequencer.mine(vec![]);
    let step = pair.build(vec![]);
    let origin = step.origin();
    assert_eq!(origin, pair.sequencer.engine.heads().l1_tip);
    let run = [before, step];
    let waits = NotAdopted::WaitsForOrigin(origin);
    assert_eq!(pair.adopt(&run), Adoption { added: 1, rest: Some(waits) });
    assert_eq!(pair.adopt(&run), nothing(waits));
    pair.connect();
    assert_eq!(pair.adopt(&run), all(1));
    pair.agree();
}

#[test]
fn what_the_rules_do_not_allow_is_refused_although_it_is_signed_and_changes_nothing() {
    let mut pair = Pair::new();
    let latest = pair.latest();
    let block = pair.pay();
    let later = pair.pay();
    let number = block.number();
    let other = B256::repeat_byte(1);

    assert_eq!(pair.adopt(std::slice::from_ref(&later)), nothing(NotAdopted::Gap));
    let invalid = |bad: VerifiedBlock| match pair.adopt(&[bad]) {
        Adoption { added: 0, rest: Some(NotAdopted::Invalid(reason)) } => reason,
        adoption => panic!("{adoption:?}"),
    };
    let wrong_hash = invalid(forged(&block, |it| it.hash = other));
    let expected = InvalidBlock::Execution { number, expected: other, found: block.block().hash };
    assert_eq!(wrong_hash, expected);
    let without = invalid(forged(&block, |it| it.transactions.clear()));
    assert!(matches!(without, InvalidBlock::Rule(_, BlockFault::Timestamp { .. })), "{without}");
    let future = invalid(forged(&block, |it| it.timestamp += 1_000_000));
    assert!(matches!(future, InvalidBlock::Rule(_, BlockFault::Timestamp { .. })), "{future}");
    let nonsense = invalid(forged(&block, |it| it.transactions.push(vec![1, 2].into())));
    assert_eq!(nonsense, InvalidBlock::Rule(number, BlockFault::Transaction { index: 1 }));
    let old_origin = invalid(forged(&block, |it| it.l1_origin.height -= 1));
    assert_eq!(old_origin, InvalidBlock::Origin(number));
    let step = pair.adopt(&[forged(&block, |it| it.epoch_start = true)]);
    assert_eq!(step, nothing(NotAdopted::WaitsForOrigin(block.origin())));
    let elsewhere = pair.adopt(&[forged(&block, |it| it.parent_hash = other)]);
    assert_eq!(elsewhere, nothing(NotAdopted::Fork));
    assert_eq!(pair.latest(), latest);

    let unlinked = forged(&later, |it| it.parent_hash = other);
    let order = NotAdopted::Invalid(InvalidBlock::Order(later.number()));
    let adoption = pair.adopt(&[block, unlinked]);
    assert_eq!(adoption, Adoption { added: 1, rest: Some(order) });
    assert_eq!(pair.adopt(&[later]), all(1));
    pair.agree();
}

#[test]
fn the_longest_chain_that_the_sequencer_signed_is_latest_and_of_two_as_long_the_first() {
    let mut pair = Pair::new();
    let (start, nonce) = (pair.latest().number, pair.sequencer.nonce);
    let first = [pair.pay(), pair.pay()];
    assert_eq!(pair.adopt(&first), all(2));
    let held = pair.latest();

    pair.forget(start, nonce);
    pair.sequencer.nonce += 1;
    let skipped = pair.sequencer.plain_transfer(Address::repeat_byte(0xf2), U256::ONE);
    pair.sequencer.nonce = nonce;
    let second = [pair.build(vec![skipped]), pair.pay(), pair.pay()];
    assert_ne!(second[0].block().hash, first[0].block().hash);
    assert_eq!(pair.adopt(&second[..1]), nothing(NotAdopted::Conflict));
    assert_eq!(pair.adopt(&second[..2]), nothing(NotAdopted::Conflict));
    let bad = forged(&second[0], |it| it.timestamp += 1_000_000);
    assert_eq!(pair.adopt(&[bad]), nothing(NotAdopted::Conflict), "too few are not executed");
    assert_eq!(pair.adopt(&second[2..]), nothing(NotAdopted::Fork));
    assert_eq!(pair.latest(), held);
    // Longer, but for a block that is none.
    let bad = forged(&second[2], |it| it.timestamp += 1_000_000);
    let refused = pair.adopt(&[second[0].clone(), second[1].clone(), bad]);
    assert!(matches!(refused, Adoption { added: 0, rest: Some(NotAdopted::Invalid(_)) }));
    assert_eq!(pair.latest(), held);

    let mut events = pair.follower.subscribe();
    assert_eq!(pair.adopt(&second), all(3));
    pair.agree();
    let removed: Vec<_> = std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            EngineEvent::Removed(block) => Some(block.hash),
            _ => None,
        })
        .collect();
    assert_eq!(removed, [first[1].block().hash, first[0].block().hash]);
    assert_eq!(pair.read(&pair.follower, second[0].number()).as_ref(), Some(&second[0]));
}

#[test]
fn what_bitcoin_says_is_never_given_up_for_a_signed_block() {
    let mut pair = Pair::new();
    let (start, nonce) = (pair.latest().number, pair.sequencer.nonce);
    let first = [pair.pay(), pair.pay()];
    assert_eq!(pair.adopt(&first), all(2));
    let reveal = pair.sequencer.batch().unwrap();

    // The sequencer goes another way, which the follower takes, and posts the first.
    pair.forget(start, nonce);
    let other = pair.sequencer.plain_transfer(Address::repeat_byte(0xf2), U256::ONE);
    let mut second = vec![pair.build(vec![other]), pair.pay(), pair.pay()];
    assert_eq!(pair.adopt(&second), all(3));
    pair.sequencer.mine(vec![reveal]);
    pair.connect();
    assert_eq!(pair.latest().hash, first[1].block().hash);
    assert_eq!(pair.follower.heads().safe, pair.latest());
    let derived = pair.follower.heads();
    assert_eq!(pair.adopt(&second), nothing(NotAdopted::Contradicted));
    assert_eq!(pair.adopt(&second.split_off(2)), nothing(NotAdopted::Contradicted));
    assert_eq!(pair.follower.heads(), derived);
    assert_eq!(pair.read(&pair.follower, first[1].number()), None, "derived, so not signed here");
}

#[test]
fn after_a_reorganisation_of_bitcoin_the_sequencer_s_new_blocks_take_the_place_of_the_old() {
    let mut pair = Pair::new();
    pair.sequencer.mine(vec![]);
    let old = [pair.build(vec![]), pair.pay()];
    pair.connect();
    assert_eq!(pair.adopt(&old), all(2));
    let nonce = pair.sequencer.nonce - 1;

    pair.sequencer.orphan();
    pair.sequencer.nonce = nonce;
    pair.sequencer.mine(vec![]);
    let new = [pair.build(vec![]), pair.pay(), pair.pay()];
    assert_ne!(old[0].origin(), new[0].origin());
    // The sequencer's Bitcoin is ahead.
    let waits = NotAdopted::WaitsForOrigin(new[0].origin());
    assert_eq!(pair.adopt(&new), nothing(waits));
    assert_eq!(pair.latest().hash, old[1].block().hash);
    pair.follower.disconnect_l1().unwrap();
    assert_eq!(pair.latest().number.next(), old[0].number(), "unwound with its origin");
    pair.connect();
    assert_eq!(pair.adopt(&old), nothing(NotAdopted::WaitsForOrigin(old[0].origin())));
    assert_eq!(pair.adopt(&new), all(3));
    pair.agree();
}

/// Of each write how many blocks it removed and added.
fn writes(events: &mut broadcast::Receiver<EngineEvent>) -> Vec<(usize, usize)> {
    let mut writes = Vec::new();
    let mut write = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            EngineEvent::Removed(_) => write.0 += 1,
            EngineEvent::NewBlock(_) => write.1 += 1,
            EngineEvent::Heads(_) => writes.push(std::mem::take(&mut write)),
            EngineEvent::L1Connected(_) | EngineEvent::L1Disconnected(_) => {}
        }
    }
    writes
}

#[test]
fn a_long_run_is_added_in_portions_and_what_replaces_blocks_in_one_write() {
    let mut pair = Pair::new();
    let (start, nonce) = (pair.latest().number, pair.sequencer.nonce);
    let first: Vec<_> = (0..10).map(|_| pair.pay()).collect();
    let mut events = pair.follower.subscribe();
    assert_eq!(pair.adopt(&first), all(10));
    assert_eq!(writes(&mut events), [(0, 8), (0, 2)]);

    pair.forget(start, nonce);
    let other = pair.sequencer.plain_transfer(Address::repeat_byte(0xf2), U256::ONE);
    let mut second = vec![pair.build(vec![other])];
    second.extend((0..19).map(|_| pair.pay()));
    assert_eq!(pair.adopt(&second), all(20));
    assert_eq!(writes(&mut events), [(10, 11), (0, 8), (0, 1)]);
    pair.agree();
}

#[test]
fn what_does_not_hold_in_a_later_portion_leaves_those_before_it() {
    let mut pair = Pair::new();
    let mut run: Vec<_> = (0..10).map(|_| pair.pay()).collect();
    let good = run[9].clone();
    run[9] = forged(&good, |it| it.timestamp += 1_000_000);
    let adoption = pair.adopt(&run);
    assert!(matches!(adoption, Adoption { added: 9, rest: Some(NotAdopted::Invalid(_)) }));
    assert_eq!(pair.adopt(&[good]), all(1));
    pair.agree();
}

#[test]
fn blocks_full_of_gas_make_smaller_portions() {
    let mut pair = Pair::new();
    let run: Vec<_> = (0..3)
        .map(|_| {
            // What calldata costs at least is more than half of a block's gas.
            let input = vec![1; 240_000].into();
            let tx = pair.sequencer.user_tx_of(10_000_000, FRIEND, U256::ZERO, input);
            pair.build(vec![tx])
        })
        .collect();
    let mut events = pair.follower.subscribe();
    assert_eq!(pair.adopt(&run), all(3));
    assert_eq!(writes(&mut events), [(0, 2), (0, 1)]);
}
