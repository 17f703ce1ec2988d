//! Cases of single rules, and vectors.

use crate::world::{Chain, World, params, user_tx};
use alloy_primitives::{B256, b256};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use kedge_bridge::deposit::{deposit_outputs, vault_script_tx};
use kedge_bridge::derive::{
    BatchDrop, BatchOutcome, BlockFault, DeriveError, DeriveState, Derived, ForcedCursor, Ignored,
    L2Cursor, Note, derive, derive_part, median_time, next_payload, subsidy, time_bounds,
};
use kedge_bridge::envelope::{EnvelopeHeader, Kind, chunk_hash, parse_input};
use kedge_bridge::forced;
use kedge_bridge::op_return::Tagged;
use kedge_genesis::{BitcoinNetwork, L1Height, L1Ref, L2Number, Network, Params};
use kedge_vm::PayloadTx;
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn world() -> World {
    World::new(params())
}

pub(crate) fn mine(world: &mut World, txs: Vec<Transaction>) -> Derived {
    let time = world.next_height() * 600;
    world.mine(txs, time, 1_000).1
}

pub(crate) fn reasons(derived: &Derived) -> Vec<Ignored> {
    derived
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Ignored { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .collect()
}

/// A world with blocks to batch: one epoch block and one with so many bytes of data in each of so many
/// transactions.
pub(crate) fn with_blocks(txs: usize, data: usize) -> World {
    let mut world = world();
    mine(&mut world, vec![]);
    world.build(true, None, vec![]).unwrap();
    let user = (0..txs).map(|nonce| user_tx(nonce as u64, 100_000, data)).collect();
    world.build(false, None, user).unwrap();
    world
}

/// The envelope in a reveal's first input, altered and revealed again.
pub(crate) fn altered(
    world: &mut World,
    reveal: &Transaction,
    f: impl Fn(&mut EnvelopeHeader),
) -> Transaction {
    let mut envelope = parse_input(&reveal.input[0].witness).unwrap();
    f(&mut envelope.header);
    world.reveal(Kind::Batch, &envelope.header, &envelope.body)
}

#[test]
fn subsidy_halves_as_bitcoin_does() {
    for (network, height, sats) in [
        (BitcoinNetwork::Main, 0, 5_000_000_000),
        (BitcoinNetwork::Main, 209_999, 5_000_000_000),
        (BitcoinNetwork::Main, 210_000, 2_500_000_000),
        (BitcoinNetwork::Main, 840_000, 312_500_000),
        (BitcoinNetwork::Regtest, 149, 5_000_000_000),
        (BitcoinNetwork::Regtest, 150, 2_500_000_000),
        (BitcoinNetwork::Regtest, 33 * 150, 0),
        (BitcoinNetwork::Regtest, u32::MAX, 0),
    ] {
        assert_eq!(subsidy(network, L1Height(height)), sats, "{height}");
    }
}

#[test]
fn median_time_is_bitcoins() {
    for (times, median) in [
        (&[][..], 0),
        (&[5], 5),
        (&[1, 9], 9),
        (&[9, 1, 5], 5),
        (&[11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6], 6),
    ] {
        assert_eq!(median_time(times), median);
    }
}

#[test]
fn state_keeps_the_last_eleven_header_times() {
    let mut world = world();
    for _ in 0..15 {
        mine(&mut world, vec![]);
    }
    let start = world.params.l1_start_time;
    let expected: Vec<u32> = (5..=15).map(|height| start + height * 600).collect();
    assert_eq!(world.state.times, expected);
    assert_eq!(world.state.epochs.last().unwrap().median_time, u64::from(start + 10 * 600));
}

#[test]
fn fee_rate_is_what_the_block_paid_per_size_within_limits() {
    let mut world = world();
    let (l1, derived) = world.mine(vec![], 600, 0);
    assert_eq!(derived.post.epochs[1].fee_rate, world.params.fees.min_l1_fee_rate);
    // Twice the minimum: sat per 1,000 vB = fees * 4,000 / weight.
    let weight = l1.block.weight().to_wu();
    let (_, derived) = world.mine(vec![], 1200, weight * 2 * 1_000 / 4_000 + 1);
    assert!((2_000..2_020).contains(&derived.post.epochs[2].fee_rate));
    let (_, derived) = world.mine(vec![], 1800, 1_000_000_000_000);
    assert_eq!(derived.post.epochs[3].fee_rate, world.params.fees.max_l1_fee_rate);
}

#[test]
fn timestamps_are_bounded_by_parent_and_origin() {
    let world = world();
    let mut epoch = world.state.epochs[0].clone();
    let drift = world.params.max_time_drift;
    for (parent, median, empty, bounds) in [
        (100, 100, false, (100, 100 + drift)),
        (100, 100, true, (101, 100 + drift)),
        (100, 200, true, (200, 200 + drift)),
        (200, 100, false, (200, 100 + drift)),
        (100 + drift, 100, false, (100 + drift, 101 + drift)),
        (100 + drift, 100, true, (101 + drift, 101 + drift)),
        (u64::MAX, 100, true, (u64::MAX, u64::MAX)),
    ] {
        epoch.median_time = median;
        let cursor = L2Cursor { timestamp: parent, ..world.state.cursor };
        assert_eq!(time_bounds(&world.params, &cursor, &epoch, empty), bounds);
    }
}

#[test]
fn an_empty_block_is_later_than_its_parent_and_a_full_one_need_not_be() {
    let mut world = with_blocks(1, 0);
    let now = world.cursor.timestamp;
    assert!(matches!(world.build(false, Some(now), vec![]), Err(BlockFault::Timestamp { .. })));
    world.build(false, Some(now + 1), vec![]).unwrap();
    world.build(false, Some(now + 1), vec![user_tx(9, 100_000, 0)]).unwrap();
}

#[test]
fn a_block_whose_intrinsic_gas_exceeds_the_limit_is_dropped_with_the_rest() {
    let mut params = params();
    params.max_chunk_bytes = 100_000;
    let mut world = World::new(params);
    mine(&mut world, vec![]);
    world.build(true, None, vec![]).unwrap();
    // 800 transactions of 21,000 gas exceed 16,777,216; a sequencer cannot build it.
    let many: Vec<_> = (0..800).map(|nonce| user_tx(nonce, 100_000, 0)).collect();
    assert!(matches!(
        world.build(false, None, many.clone()),
        Err(BlockFault::IntrinsicGas { limit: 16_777_216, .. })
    ));
    world.build(false, None, many[..2].to_vec()).unwrap();
    let reveals = world.close(|batch| batch.blocks[1].transactions = many.clone(), 0);
    let derived = mine(&mut world, reveals);
    let first = L2Number(1);
    assert_eq!(derived.batches[0].outcome, BatchOutcome::Accepted { first, last: first });
    assert!(matches!(
        derived.notes[..],
        [Note::BatchCut { index: 0, number: L2Number(2), fault: BlockFault::IntrinsicGas { .. } }]
    ));
}

#[test]
fn an_epoch_is_derived_when_its_window_ends_and_not_before() {
    let mut world = world();
    let window = world.params.sequencing_window;
    for height in 1..=window {
        assert!(mine(&mut world, vec![]).payloads.is_empty(), "{height}");
    }
    let derived = mine(&mut world, vec![]);
    assert_eq!(derived.payloads.len(), 1);
    assert_eq!(derived.payloads[0].origin.height, L1Height(1));
    assert_eq!(derived.payloads[0].transactions.len(), 1);
    assert_eq!(mine(&mut world, vec![]).payloads.len(), 1);
}

#[test]
fn an_epoch_left_incomplete_is_completed_when_its_window_ends() {
    let mut world = world();
    let deposits = world.deposit(7);
    mine(&mut world, vec![deposits]);
    world.build(true, None, vec![]).unwrap();
    assert!(matches!(world.build(true, None, vec![]), Err(BlockFault::EpochIncomplete { .. })));
    let reveals = world.close(|_| {}, 0);
    let derived = mine(&mut world, reveals);
    assert_eq!(derived.payloads.len(), 1);
    assert_eq!(world.state.cursor.deposits_taken, 3);
    let mut sizes = vec![];
    for _ in 0..world.params.sequencing_window - 1 {
        assert!(sizes.is_empty());
        sizes.extend(mine(&mut world, vec![]).payloads.iter().map(|p| p.transactions.len()));
    }
    assert_eq!(sizes, [3, 1]);
    assert!(world.state.cursor.epoch_complete);
}

#[test]
fn forced_transactions_come_with_the_block_that_completes_the_deposits() {
    let mut world = world();
    let (deposits, forced) = (world.deposit(4), world.force(&[100_000], true));
    mine(&mut world, vec![deposits, forced]);
    world.build(true, None, vec![]).unwrap();
    world.build(false, None, vec![]).unwrap();
    let kinds: Vec<Vec<bool>> = world
        .unsafe_payloads
        .iter()
        .map(|p| p.transactions.iter().map(|tx| matches!(tx, PayloadTx::User(_))).collect())
        .collect();
    assert_eq!(kinds, [vec![false; 4], vec![false, true]]);
}

#[test]
fn what_the_sequencer_lists_does_not_take_the_room_of_forced_transactions() {
    let mut world = world();
    let forced = world.force(&[200_000], true);
    mine(&mut world, vec![forced]);
    // Their intrinsic gas alone fits the block with that of the forced one, which declares more.
    let room = world.params.block_gas_limit
        - world.params.block_overhead_gas
        - world.params.attributes_gas;
    let many = |gas: u64| (0..gas / 21_000).map(|nonce| user_tx(nonce, 21_000, 0)).collect();
    let full = world.build(true, None, many(room - 100_000));
    assert!(matches!(full, Err(BlockFault::IntrinsicGas { .. })));
    world.build(true, None, many(room - 200_000)).unwrap();
}

#[test]
fn forced_messages_queue_in_order_when_an_epoch_is_full() {
    let mut world = world();
    // 250,000 declared gas fit an epoch: the third message waits, and the fourth behind it.
    let txs: Vec<_> = [100_000, 100_000, 60_000, 30_000]
        .into_iter()
        .map(|gas| world.force(&[gas], true))
        .collect();
    mine(&mut world, txs);
    mine(&mut world, vec![]);
    world.build(true, None, vec![]).unwrap();
    assert_eq!(world.cursor.forced.skip, 2);
    world.build(true, None, vec![]).unwrap();
    assert_eq!(world.cursor.forced.height, L1Height(3));
    let counts: Vec<_> = world.unsafe_payloads.iter().map(|p| p.transactions.len()).collect();
    assert_eq!(counts, [3, 3]);
}

#[test]
fn an_epoch_takes_forced_messages_of_four_l1_blocks_at_most() {
    let mut world = world();
    for _ in 0..19 {
        mine(&mut world, vec![]);
    }
    let forced = world.force(&[100_000], true);
    mine(&mut world, vec![forced]);
    for _ in 0..15 {
        mine(&mut world, vec![]);
    }
    // As if full blocks had held the queue up since the start.
    let mut cursor = world.state.cursor;
    cursor.forced = ForcedCursor { height: L1Height(1), skip: 0 };
    let epochs = &world.state.epochs;
    for (height, transactions) in [(5, 1), (9, 1), (13, 1), (17, 1), (21, 2)] {
        let made = next_payload(&world.params, &cursor, epochs, &world.chain, true, None, vec![]);
        let (payload, next) = made.unwrap().unwrap();
        assert_eq!(next.forced, ForcedCursor { height: L1Height(height), skip: 0 });
        assert_eq!(payload.transactions.len(), transactions);
        cursor = next;
    }
}

/// A world whose sequencer was away for so many L1 blocks, short of its window.
pub(crate) fn away(blocks: u32) -> World {
    let mut world = World::new(Params { sequencing_window: blocks + 8, ..params() });
    for _ in 0..blocks {
        mine(&mut world, vec![]);
    }
    world
}

#[test]
fn a_part_of_a_blocks_payloads_is_that_part_of_all_of_them() {
    let mut world = away(5);
    let txs = vec![world.deposit(9), world.force(&[100_000], true)];
    mine(&mut world, txs);
    mine(&mut world, vec![]);
    let pre = world.state.clone();
    for epoch in 1..=6 {
        world.build(true, None, vec![user_tx(epoch, 100_000, 3)]).unwrap();
    }
    for block in 7..=8 {
        world.build(false, None, vec![user_tx(block, 100_000, 3)]).unwrap();
    }
    let reveals = world.close(|_| {}, 0);
    let (l1, all) = world.mine(reveals, 60_000, 1_000);
    assert_eq!(all.payloads.len(), 8);
    for from in 0..=8 {
        for to in from..=9 {
            let part = derive_part(&world.params, &pre, &l1, &world.chain, from..to).unwrap();
            assert_eq!(part.payloads, all.payloads[from..to.min(8)]);
            assert_eq!(Derived { payloads: all.payloads.clone(), ..part }, all);
        }
    }
}

#[test]
fn forced_messages_that_are_none_are_noted_and_passed_over() {
    let mut world = world();
    let cheap = world.force(&[100_000], false);
    let large = world.force(&[250_001], true);
    let small = world.force(&[20_999], true);
    world.forced.clear();
    let fine = world.force(&[100_000], true);
    let body = forced::encode(&[user_tx(1, 100_000, 0)]);
    let header = EnvelopeHeader {
        chain_id: world.params.chain_id + 1,
        index: 0,
        prev_body: B256::ZERO,
        chunk: 0,
        chunks: vec![chunk_hash(&body)],
        signature: None,
    };
    let foreign = world.reveal(Kind::Forced, &header, &body);
    let derived = mine(&mut world, vec![cheap, large, small, foreign, fine]);
    let labels: Vec<_> = derived.notes.iter().map(Note::label).collect();
    assert_eq!(labels, ["forced", "forced", "forced_gas", "not_ours"]);
    world.build(true, None, vec![]).unwrap();
    assert_eq!(
        world.unsafe_payloads[0].transactions[1..],
        [PayloadTx::User(world.forced[0].1.clone())]
    );
}

#[test]
fn a_channel_is_complete_in_time_or_not_at_all() {
    for (wait, complete) in [(2, true), (3, false)] {
        let mut world = with_blocks(1, 300);
        let mut reveals = world.close(|_| {}, 0);
        let last = reveals.pop().unwrap();
        assert!(!reveals.is_empty());
        mine(&mut world, reveals);
        assert!(world.state.channel.is_some());
        for _ in 0..wait {
            mine(&mut world, vec![]);
        }
        let derived = mine(&mut world, vec![last]);
        assert_eq!(derived.batches.len(), usize::from(complete));
        assert_eq!(derived.payloads.len(), if complete { 2 } else { 0 });
        assert!(world.state.channel.is_none());
        let timed_out = derived.notes.iter().any(|n| matches!(n, Note::ChannelTimedOut { .. }));
        assert_eq!(timed_out, !complete);
    }
}

#[test]
fn chunks_of_other_channels_and_out_of_order_are_ignored() {
    let mut world = with_blocks(1, 700);
    let a = world.close(|_| {}, 0);
    assert!(a.len() >= 3);
    // The same sequencer signs another channel of the same index.
    world.reset();
    world.build(true, None, vec![user_tx(5, 100_000, 700)]).unwrap();
    let b = world.close(|_| {}, 0);
    let derived = mine(
        &mut world,
        vec![a[1].clone(), a[0].clone(), b[0].clone(), a[0].clone(), a[2].clone(), a[1].clone()],
    );
    assert_eq!(
        reasons(&derived),
        [
            Ignored::Chunk { expected: 0, found: 1 },
            Ignored::Channel,
            Ignored::Chunk { expected: 1, found: 0 },
            Ignored::Chunk { expected: 1, found: 2 },
        ]
    );
    let rest = a[2..].to_vec();
    let derived = mine(&mut world, rest);
    assert!(matches!(derived.batches[0].outcome, BatchOutcome::Accepted { .. }));
    assert_eq!(derived.batches[0].txids.len(), a.len());
}

#[test]
fn a_batch_of_one_chunk_counts_while_a_channel_is_open() {
    let mut world = with_blocks(1, 700);
    let a = world.close(|_| {}, 0);
    world.reset();
    world.build(true, None, vec![]).unwrap();
    let b = world.close(|_| {}, 0);
    assert_eq!(b.len(), 1);
    let derived = mine(&mut world, vec![a[0].clone(), b[0].clone(), a[1].clone()]);
    assert_eq!(derived.payloads.len(), 1);
    assert!(world.state.channel.is_none());
    assert_eq!(reasons(&derived), [Ignored::Index { expected: 1, found: 0 }]);
}

#[test]
fn only_the_next_batch_of_the_sequencer_counts() {
    let mut world = with_blocks(0, 0);
    let good = world.close(|_| {}, 0).remove(0);
    let forgeries = vec![
        altered(&mut world, &good, |header| header.signature.as_mut().unwrap()[5] ^= 1),
        altered(&mut world, &good, |header| header.signature = Some([0; 64])),
        altered(&mut world, &good, |header| header.chain_id += 1),
        altered(&mut world, &good, |header| header.index += 1),
        altered(&mut world, &good, |header| header.prev_body = B256::repeat_byte(1)),
    ];
    let derived = mine(&mut world, forgeries);
    assert_eq!(
        reasons(&derived),
        [
            Ignored::Signature,
            Ignored::Signature,
            Ignored::NotOurs,
            Ignored::Index { expected: 0, found: 1 },
            Ignored::PreviousBody,
        ]
    );
    assert_eq!(mine(&mut world, vec![good]).payloads.len(), 2);
}

#[test]
fn a_dropped_batch_consumes_its_index_and_is_named_by_the_next() {
    type Spoil = fn(&mut kedge_bridge::batch::Batch);
    type Expected = fn(&BatchDrop) -> bool;
    let cases: [(Spoil, usize, Expected); 4] = [
        (|batch| batch.last_origin[0] ^= 1, 0, |drop| matches!(drop, BatchDrop::WrongOrigin)),
        (|batch| batch.first = L2Number(2), 0, |drop| matches!(drop, BatchDrop::NotNext { .. })),
        (|_| {}, 3, |drop| matches!(drop, BatchDrop::Body(_))),
        (|batch| batch.blocks[0].timestamp = 0, 0, |drop| matches!(drop, BatchDrop::Block(_))),
    ];
    for (spoil, cut, expected) in cases {
        let mut world = with_blocks(0, 0);
        let bad = world.close(spoil, cut);
        let derived = mine(&mut world, bad);
        let [batch] = &derived.batches[..] else { panic!("one batch") };
        assert!(matches!(&batch.outcome, BatchOutcome::Dropped(drop) if expected(drop)));
        assert!(derived.payloads.is_empty());
        assert_eq!((world.state.next_batch, world.state.prev_body), (1, batch.body_hash));
        world.reset();
        world.build(true, None, vec![]).unwrap();
        let good = world.close(|_| {}, 0);
        assert_eq!(mine(&mut world, good).payloads.len(), 1);
    }
}

#[test]
fn several_batches_in_one_block_are_taken_in_order() {
    let mut world = with_blocks(1, 10);
    let mut reveals = world.close(|_| {}, 0);
    world.build(false, None, vec![user_tx(3, 100_000, 1)]).unwrap();
    reveals.extend(world.close(|_| {}, 0));
    let derived = mine(&mut world, reveals);
    let indices: Vec<_> = derived.batches.iter().map(|batch| batch.index).collect();
    assert_eq!(indices, [0, 1]);
    assert_eq!(derived.payloads.len(), 3);
}

#[test]
fn the_head_follows_its_spends_and_a_rotation_reaches_the_next_epoch() {
    let mut world = world();
    let deposit = world.deposit(2);
    let head = OutPoint::new(deposit.compute_txid(), 0);
    mine(&mut world, vec![deposit.clone()]);
    assert_eq!(world.state.vault_head, Some(head));
    let old = world.vault();
    let next = ScriptBuf::from_bytes([&[0x51, 0x20][..], &[2; 32]].concat());
    let mut spend = deposit.clone();
    spend.input[0].previous_output = head;
    spend.output = vec![
        TxOut { value: Amount::from_sat(5_000), script_pubkey: next.clone() },
        Tagged::Rotation(next.clone()).tx_out(),
    ];
    let derived = mine(&mut world, vec![spend.clone()]);
    let post = derived.post;
    assert_eq!(post.vault_head, Some(OutPoint::new(spend.compute_txid(), 0)));
    assert_eq!(post.vault.current, next);
    let until = L1Height(2 + world.params.rotation_grace);
    assert_eq!(post.vault.previous, Some((old.clone(), until)));
    // Deposits to both scripts count in the grace time.
    let to = alloy_primitives::Address::repeat_byte(1);
    let mut pays_old = deposit;
    pays_old.input[0].previous_output = OutPoint::new(bitcoin::Txid::all_zeros(), 5);
    pays_old.output = deposit_outputs(&old, &[(to, kedge_genesis::Sats(20_000))]);
    mine(&mut world, vec![pays_old]);
    for _ in 0..3 {
        world.build(true, None, vec![]).unwrap();
    }
    let rotation = &world.unsafe_payloads[1];
    let hash = bitcoin::BlockHash::from_byte_array(rotation.origin.hash.0);
    let told = PayloadTx::System(vault_script_tx(hash, &next, &world.params));
    assert_eq!(rotation.transactions[1..], [told]);
    assert_eq!(world.unsafe_payloads[2].transactions.len(), 2);
}

#[test]
fn a_block_of_another_chain_is_this_machines_failure() {
    let mut world = world();
    let pre = world.state.clone();
    let (l1, _) = world.mine(vec![], 600, 0);
    let (second, _) = world.mine(vec![], 600, 0);
    let wrong = |height| Err(DeriveError::WrongBlock { height: L1Height(height) });
    assert_eq!(derive(&world.params, &pre, &second, &world.chain), wrong(2));
    assert_eq!(derive(&world.params, &world.state, &l1, &world.chain), wrong(1));
    let mut lie = l1.clone();
    lie.at.hash = B256::repeat_byte(3);
    assert_eq!(derive(&world.params, &pre, &lie, &world.chain), wrong(1));
    // A lookup that answers with another block.
    let mut forked = Chain::default();
    forked.0.insert(1, Arc::clone(&second.block));
    world.chain = forked;
    let made = kedge_bridge::derive::next_payload(
        &world.params,
        &world.cursor,
        &world.state.epochs,
        &world.chain,
        true,
        None,
        vec![],
    );
    assert!(matches!(made, Err(DeriveError::WrongBlock { height: L1Height(1) })));
}

#[test]
fn an_origin_of_another_chain_is_a_fault() {
    let mut world = world();
    world.cursor.origin = L1Ref { height: L1Height(0), hash: B256::repeat_byte(1) };
    let origin = world.cursor.origin;
    assert_eq!(world.build(false, None, vec![]), Err(BlockFault::UnknownOrigin { origin }));
}

#[test]
fn networks_that_are_not_launched_have_no_state() {
    assert_eq!(DeriveState::genesis(Network::Mainnet.params()), None);
    assert!(DeriveState::genesis(Network::Regtest.params()).is_some());
}

/// The chain of the vectors: a deposit, a forced message, an open channel and a batch.
fn vector_world() -> World {
    let mut world = World::new(params());
    let txs = vec![world.deposit(2), world.force(&[100_000], true)];
    mine(&mut world, txs);
    world.build(true, None, vec![user_tx(1, 100_000, 3)]).unwrap();
    let batch = world.close(|_| {}, 0);
    mine(&mut world, batch);
    world.build(true, None, vec![user_tx(2, 100_000, 700)]).unwrap();
    let chunk = world.close(|_| {}, 0).remove(0);
    mine(&mut world, vec![chunk]);
    world
}

#[test]
fn known_chain_has_known_states() {
    let genesis = DeriveState::genesis(&params()).unwrap();
    let world = vector_world();
    let last = world.payloads.last().unwrap();
    assert_eq!(
        [genesis.hash(), world.state.hash(), last.id()],
        [
            b256!("fc14c63e52fb90ec68989330c07fbb30a4c0be303feb6b2f626f41b93216fd08"),
            b256!("12b41fd36ff75e8503ced89d244c9c158aca8c1aa8df83b1702ec5dba5809145"),
            b256!("ca39c2dc441008e98eb1df0f3dfbcebaeaf8815a24ac8bbc584c4241886bcfdf"),
        ]
    );
}

proptest! {
    /// Decoding is total and canonical: what it accepts is what encoding writes.
    #[test]
    fn states_have_one_encoding(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let state = vector_world().state;
        let bytes = state.encode();
        prop_assert_eq!(&DeriveState::decode(&bytes).unwrap(), &state);
        prop_assert!(DeriveState::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let mut longer = bytes.clone();
        longer.push(byte);
        prop_assert!(DeriveState::decode(&longer).is_err());
        let mut other = bytes.clone();
        other[at.index(bytes.len())] = byte;
        if let Ok(decoded) = DeriveState::decode(&other) {
            prop_assert_eq!(decoded.encode(), other);
        }
        let cursor = state.cursor.encode();
        prop_assert_eq!(L2Cursor::decode(&cursor).unwrap(), state.cursor);
    }

    /// Whatever a block's transactions hold, derivation neither fails nor panics.
    #[test]
    fn any_witness_is_derived(witness in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let mut world = with_blocks(1, 50);
        let mut reveal = world.close(|_| {}, 0).remove(0);
        let mut script = reveal.input[0].witness.nth(1).unwrap().to_vec();
        let from = at.index(script.len());
        script.splice(from.., witness);
        let control = reveal.input[0].witness.nth(2).unwrap().to_vec();
        reveal.input[0].witness = bitcoin::Witness::from_slice(&[vec![], script, control]);
        mine(&mut world, vec![reveal]);
    }
}
