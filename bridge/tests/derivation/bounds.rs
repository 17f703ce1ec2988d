//! What one Bitcoin block can have a node do.

use crate::cases::{altered, away, mine, reasons, with_blocks, world};
use crate::world::{World, params, user_tx};
use alloy_primitives::b256;
use bitcoin::Transaction;
use kedge_bridge::batch::{BatchBlock, BatchFault};
use kedge_bridge::derive::{
    BatchDrop, BatchOutcome, BatchSeen, BlockFault, Ignored, Note, Reads, derive,
};
use kedge_genesis::{
    BATCH_EPOCH_READS, BATCH_SIGNATURES, FORCED_BLOCKS_PER_EPOCH, L2Number, MAX_L1_READS,
};

/// One batch of as many epochs, made whatever the limit.
fn batch_of_epochs(world: &mut World, epochs: usize) -> Vec<Transaction> {
    for _ in 0..epochs {
        world.build(true, None, vec![]).unwrap();
    }
    world.close(|_| {}, 0)
}

fn origin(world: &World) -> u32 {
    world.state.cursor.origin.height.0
}

#[test]
fn batches_of_one_l1_block_begin_six_epochs_together() {
    let cut = |index, number| {
        let fault = BlockFault::EpochReads;
        Note::BatchCut { index, number: L2Number(number), fault }
    };
    let mut world = away(14);
    let reveals = batch_of_epochs(&mut world, 8);
    let derived = mine(&mut world, reveals);
    assert_eq!((derived.notes, origin(&world)), (vec![cut(0, 7)], 6));
    // The known state of such a chain.
    let known = b256!("f031fa8ac3b0eba607b2e0289f7f4a5ac16bb9daef7935a121db1ec3e6f4b0ac");
    assert_eq!(world.state.hash(), known);
    // The next L1 block has as many again, however many batches there are.
    world.reset();
    let mut reveals = batch_of_epochs(&mut world, 4);
    reveals.extend(batch_of_epochs(&mut world, 3));
    let derived = mine(&mut world, reveals);
    assert_eq!((derived.notes, origin(&world)), (vec![cut(2, 13)], 12));
    // What is left, and what came meanwhile.
    world.reset();
    let reveals = batch_of_epochs(&mut world, 4);
    let derived = mine(&mut world, reveals);
    assert_eq!((derived.notes, origin(&world)), (vec![], 16));
}

#[test]
fn one_l1_block_has_so_many_signatures_of_batches_checked() {
    for (forged, taken) in [(BATCH_SIGNATURES - 1, 1), (BATCH_SIGNATURES, 0)] {
        let mut world = with_blocks(0, 0);
        let good = world.close(|_| {}, 0).remove(0);
        let forgery = altered(&mut world, &good, |header| {
            header.signature = header.signature.map(|signature| signature.map(|byte| !byte));
        });
        let mut reveals: Vec<_> = (0..forged)
            .map(|number| {
                let mut forgery = forgery.clone();
                forgery.lock_time = bitcoin::absolute::LockTime::from_consensus(number);
                forgery
            })
            .collect();
        reveals.push(good);
        let derived = mine(&mut world, reveals);
        assert_eq!(derived.batches.len(), taken);
        let last = if taken == 1 { Ignored::Signature } else { Ignored::Signatures };
        assert_eq!(reasons(&derived).last(), Some(&last));
        let unchecked = reasons(&derived).iter().filter(|it| **it == Ignored::Signatures).count();
        assert_eq!(unchecked, 1 - taken);
    }
}

#[test]
fn a_batch_goes_on_with_the_epoch_that_reached_the_limit() {
    let mut world = away(5);
    // Three deposits to a block: three blocks for the last epoch.
    let deposits = world.deposit(9);
    mine(&mut world, vec![deposits]);
    mine(&mut world, vec![]);
    for _ in 0..6 {
        world.build(true, None, vec![]).unwrap();
    }
    for _ in 0..2 {
        assert!(!world.cursor.epoch_complete);
        world.build(false, None, vec![]).unwrap();
    }
    assert!(world.cursor.epoch_complete);
    let reveals = world.close(|_| {}, 0);
    let derived = mine(&mut world, reveals);
    assert_eq!((derived.notes, derived.payloads.len(), origin(&world)), (vec![], 8, 6));
}

#[test]
fn a_queue_that_is_held_up_leaves_a_batch_fewer_epochs() {
    let mut world = away(40);
    // As if full blocks had held it up: epoch 21 and later ones.
    world.state.cursor.origin = world.state.epochs[20].at;
    world.state.epochs.drain(..20);
    world.reset();
    let pre = world.state.clone();
    let reveals = batch_of_epochs(&mut world, 8);
    let (l1, derived) = world.mine(reveals, 60_000, 1_000);
    // Each reads its own block and four of the queue.
    assert_eq!(origin(&world), 22);
    let fault = BlockFault::EpochReads;
    assert_eq!(derived.notes, [Note::BatchCut { index: 0, number: L2Number(3), fault }]);
    let reads = Reads::new(&world.chain);
    derive(&world.params, &pre, &l1, &reads).unwrap();
    assert_eq!(reads.count(), 10);
    assert!(reads.count() < MAX_L1_READS);
    assert_eq!(reads.count(), BATCH_EPOCH_READS + FORCED_BLOCKS_PER_EPOCH);
}

#[test]
fn at_most_one_epoch_is_due_whatever_state_has_the_shape_of_one() {
    let mut world = world();
    for _ in 0..12 {
        mine(&mut world, vec![]);
    }
    let pre = world.state.clone();
    let window = world.params.sequencing_window as usize;
    assert!(pre.is_shaped(&world.params) && pre.cursor.epoch_complete);
    assert_eq!(pre.epochs.len(), window + 1);
    let derived = mine(&mut world, vec![]);
    assert_eq!(derived.payloads.len(), 1);
    // One that should have been finished before, and one more that should have been.
    let mut late = pre.clone();
    late.cursor.epoch_complete = false;
    assert!(!late.is_shaped(&world.params));
    let mut early = pre;
    let mut epoch = early.epochs[0].clone();
    epoch.at.height = epoch.at.height.prev().unwrap();
    early.cursor.origin = epoch.at;
    early.cursor.forced.height = epoch.at.height;
    early.epochs.insert(0, epoch);
    assert!(!early.is_shaped(&world.params));
}

#[test]
fn batches_of_one_l1_block_share_one_budget_of_blocks() {
    // Two blocks and one are just what an L1 block may make of its batches.
    let mut params = params();
    params.max_batch_blocks = 3;
    let mut world = World::new(params);
    mine(&mut world, vec![]);
    world.build(true, None, vec![]).unwrap();
    world.build(false, None, vec![user_tx(0, 100_000, 10)]).unwrap();
    let mut reveals = world.close(|_| {}, 0);
    for nonce in 1..3 {
        world.build(false, None, vec![user_tx(nonce, 100_000, 10)]).unwrap();
        reveals.extend(world.close(|_| {}, 0));
    }
    let derived = mine(&mut world, reveals);
    let outcomes: Vec<_> = derived.batches.iter().map(|batch| batch.outcome.clone()).collect();
    let accepted =
        |first, last| BatchOutcome::Accepted { first: L2Number(first), last: L2Number(last) };
    let dropped = BatchOutcome::Dropped(BatchDrop::Budget);
    assert_eq!(outcomes, [accepted(1, 2), accepted(3, 3), dropped]);
    assert_eq!(derived.payloads.len(), 3);
    assert_eq!(derived.notes, [Note::BatchDropped { index: 2, reason: BatchDrop::Budget }]);
    assert_eq!(derived.notes[0].label(), "batch_budget");
    // Its index is consumed as ever, and the next L1 block has a budget of its own.
    assert_eq!(world.state.next_batch, 3);
    world.reset();
    world.build(false, None, vec![user_tx(2, 100_000, 10)]).unwrap();
    let again = world.close(|_| {}, 0);
    assert_eq!(mine(&mut world, again).batches[0].outcome, accepted(4, 4));
}

#[test]
fn batches_of_one_l1_block_share_one_budget_of_bytes() {
    for (room, taken) in [(0, 2), (1, 1)] {
        let mut world = with_blocks(1, 10);
        let size = |world: &World| {
            world.unsafe_blocks.iter().map(BatchBlock::decoded_size).sum::<usize>() as u32
        };
        let mut bytes = size(&world);
        let mut reveals = world.close(|_| {}, 0);
        world.build(false, None, vec![user_tx(3, 100_000, 10)]).unwrap();
        bytes += size(&world);
        reveals.extend(world.close(|_| {}, 0));
        world.params.max_batch_bytes = bytes - room;
        let derived = mine(&mut world, reveals);
        let accepted = |batch: &&BatchSeen| matches!(batch.outcome, BatchOutcome::Accepted { .. });
        assert_eq!(derived.batches.iter().filter(accepted).count(), taken, "{derived:?}");
        let last = &derived.batches[1].outcome;
        assert_eq!(*last == BatchOutcome::Dropped(BatchDrop::Budget), taken == 1);
    }
}

#[test]
fn a_batch_too_large_for_a_whole_budget_is_no_batch() {
    let mut world = with_blocks(1, 10);
    let reveals = world.close(|_| {}, 0);
    world.params.max_batch_bytes = 100;
    let derived = mine(&mut world, reveals);
    let fault = BatchDrop::Body(BatchFault::TooLarge);
    assert_eq!(derived.batches[0].outcome, BatchOutcome::Dropped(fault));
}

#[test]
fn a_batch_that_does_not_decode_leaves_nothing_of_the_budget() {
    let mut world = with_blocks(0, 0);
    let mut reveals = world.close(|_| {}, 3);
    // The sequencer knows, and makes the blocks again.
    world.base = world.state.cursor;
    world.cursor = world.state.cursor;
    world.build(true, None, vec![]).unwrap();
    reveals.extend(world.close(|_| {}, 0));
    let derived = mine(&mut world, reveals);
    let labels: Vec<_> = derived.notes.iter().map(Note::label).collect();
    assert_eq!(labels, ["batch_body", "batch_budget"]);
    assert_eq!((derived.payloads.len(), world.state.next_batch), (0, 2));
    // What is dropped for another reason takes its size.
    world.reset();
    world.build(true, None, vec![]).unwrap();
    let mut reveals = world.close(|batch| batch.last_origin[0] ^= 1, 0);
    world.base = world.state.cursor;
    world.cursor = world.state.cursor;
    world.build(true, None, vec![]).unwrap();
    reveals.extend(world.close(|_| {}, 0));
    let derived = mine(&mut world, reveals.clone());
    let labels: Vec<_> = derived.notes.iter().map(Note::label).collect();
    assert_eq!((labels, derived.payloads.len()), (vec!["batch_wrong_origin"], 1));
}
