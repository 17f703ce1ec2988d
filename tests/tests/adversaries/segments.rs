//! Where segments end, and batches that are made to be hard to judge.

use crate::Result;
use alloy_primitives::{Address, Bytes, U256};
use anyhow::Context;
use kedge_bridge::envelope::Kind;
use kedge_bridge::{batch::BatchFault, derive::BatchDrop};
use kedge_fraud_proof::{Claim, FraudKind};
use kedge_genesis::{L1Height, L2Number};
use kedge_tests::adversary::{Arena, Ground, Lie, sequencer};

/// What a block of one transfer meters: the block's overhead and 21,000.
const METERED: u64 = 71_000;

/// Four blocks of one transfer each, after another batch in the same L1 block; the claims of that block.
async fn four_transfers(ground: Ground, target: u64) -> Result<(Arena, Vec<Claim>)> {
    let mut arena = Arena::bare(ground, |params| params.segment_target_gas = target).await?;
    assert_eq!(METERED, arena.params.block_overhead_gas + 21_000);
    arena.fund().await?;
    let to = Address::repeat_byte(0xee);
    for _ in 0..4 {
        let transfer = arena.alice.transfer(to, 1)?;
        let block = arena.build(vec![transfer])?;
        assert_eq!(block.metered_gas, METERED);
    }
    let (one, two) = (L2Number(1), L2Number(5));
    let state = arena.derive_state()?;
    let first = arena.batch_body(one, one)?;
    let first = arena.signed_batch(state.next_batch, state.prev_body, &first)?;
    let second = arena.batch_body(one.next(), two)?;
    let second = arena.signed_batch(state.next_batch + 1, first[0].header.body_hash(), &second)?;
    let hand = arena.envelopes(&sequencer()?, Kind::Batch, &[first, second].concat())?;
    arena.mine(&hand.all()).await?;
    assert_eq!(arena.engine.heads().safe.number, two);
    let tip = arena.tip();
    let claims = arena.claims(L1Height(tip.0 - 1), tip)?;
    arena.mine(&[]).await?;
    Ok((arena, claims))
}

/// The target is reached by the last unit of gas of the second block: the segment ends there and not a block
/// later, which is where it would end if the target were a unit higher.
pub(crate) async fn segment_at_target_exactly(ground: Ground) -> Result {
    let target = 2 * METERED;
    let offsets = |claims: &[Claim]| claims.iter().map(|claim| claim.offset).collect::<Vec<_>>();
    let (_, beyond) = four_transfers(ground, target + 1).await?;
    assert_eq!(offsets(&beyond), [1, 4, 0]);
    let (arena, exact) = four_transfers(ground, target).await?;
    assert_eq!(offsets(&exact), [1, 3, 0]);

    let body = arena.truth()?;
    let before = body.claims.len() - exact.len();
    let segment = before + 1;
    let lie = |claim: Claim, kind| {
        let mut body = body.clone();
        body.claims[segment] = claim.hash();
        Lie { body, segment, kind }
    };
    // Where the block after ends, with its root; and the right root one block earlier and later.
    let root = arena.output_root(L2Number(4))?;
    let whole = Claim { offset: 4, number: L2Number(4), output_root: root, ..exact[1] };
    let lies = vec![
        lie(whole, FraudKind::OutputRoot),
        lie(Claim { offset: 4, ..exact[1] }, FraudKind::SegmentBoundary),
        lie(Claim { offset: 2, ..exact[1] }, FraudKind::SegmentBoundary),
    ];
    arena.overturns(lies).await
}

/// Blocks that list only what cannot be executed: wrong nonces, no funds, too little for the base fee, too much
/// gas. They are blocks all the same, with nothing in them; the liar executes one of the transactions.
pub(crate) async fn batch_of_invalid_transactions_only(ground: Ground) -> Result {
    let mut arena = Arena::bare(ground, |_| {}).await?;
    arena.fund().await?;
    let bob = arena.bob.address();
    let alice = &arena.alice;
    let much = U256::MAX >> 8;
    let transfer = |nonce, gas, wei| alice.signed(nonce, bob.into(), gas, wei, Bytes::new());
    let right = transfer(0, 21_000, U256::ONE)?;
    let invalid = vec![
        transfer(7, 21_000, U256::ONE)?,
        transfer(0, 21_000, much)?,
        transfer(0, 20_999, U256::ONE)?,
        transfer(0, 30_000_000, U256::ONE)?,
    ];
    let mut last = L2Number(0);
    for _ in 0..3 {
        let block = arena.build(invalid.clone())?;
        assert_eq!(block.skipped.len(), invalid.len());
        assert!(block.transactions.iter().all(|tx| tx.is_deposit()));
        // Nothing is free: a skipped transaction meters its intrinsic gas.
        assert_eq!(block.metered_gas, arena.params.block_overhead_gas + 4 * 21_000);
        last = L2Number(block.header.number);
    }
    arena.post().await?;
    assert_eq!(arena.engine.heads().safe.number, last);

    let body = arena.truth()?;
    let start = arena.params.l1_start.height;
    let altered = arena.claims_if(start, body.l1.height, |payload| {
        if payload.number == last {
            payload.transactions.push(kedge_vm::PayloadTx::User(right.clone()));
        }
    })?;
    let claims = arena.claims(start, body.l1.height)?;
    let segment = claims.iter().position(|claim| claim.number >= last).context("it is final")?;
    let body = kedge_bridge::assertion::AssertionBody {
        claims: altered.iter().map(Claim::hash).collect(),
        ..body
    };
    arena.overturns(vec![Lie { body, segment, kind: FraudKind::OutputRoot }]).await
}

/// A million empty blocks are a hundred batches of the most that one may have, 10,000, and as many Bitcoin
/// blocks, since a Bitcoin block has one such batch's worth at most. An empty block meters 50,000 gas, so 40 of
/// them fill a segment of 2,000,000: a batch is 250 segments and a million blocks are 25,000, of which one
/// assertion of one chunk holds the claims of 48 batches. What anybody has to execute for a verdict is one
/// segment, so this has one such batch, with a lie in the middle of it. Whatever lists more than the limit is no
/// batch, and a batch of one block more in the same Bitcoin block is dropped.
pub(crate) async fn million_empty_blocks(ground: Ground) -> Result {
    let adjust = |params: &mut kedge_genesis::Params| params.segment_target_gas = 2_000_000;
    let mut arena = Arena::bare(ground, adjust).await?;
    arena.fund().await?;
    arena.post().await?;
    let most = u64::from(arena.params.max_batch_blocks);
    let segments = most * arena.params.block_overhead_gas / arena.params.segment_target_gas;
    assert_eq!((most, segments), (10_000, 250));
    let before = arena.engine.heads().safe.number;

    arena.empty_blocks(most + 1).await?;
    let drops = arena.engine.store().reader().latest_batches(1)?;
    let dropped = BatchDrop::Body(BatchFault::TooManyBlocks).to_string();
    assert_eq!(drops[0].dropped, Some(dropped));
    assert_eq!(arena.engine.heads().safe.number, before);

    let state = arena.derive_state()?;
    let whole = arena.empty_body(0, most)?;
    let whole = arena.signed_batch(state.next_batch, state.prev_body, &whole)?;
    let prev = whole.last().context("a batch has a chunk")?.header.body_hash();
    let more = arena.empty_body(most, 1)?;
    let more = arena.signed_batch(state.next_batch + 1, prev, &more)?;
    let hand = arena.envelopes(&sequencer()?, Kind::Batch, &[whole, more].concat())?;
    arena.mine(&hand.all()).await?;
    let last = L2Number(before.0 + most);
    assert_eq!(arena.engine.heads().safe.number, last);
    let drops = arena.engine.store().reader().latest_batches(1)?;
    assert_eq!(drops[0].dropped, Some(BatchDrop::Budget.to_string()));
    let tip = arena.tip();
    let claims = arena.claims(L1Height(tip.0 - 1), tip)?;
    assert_eq!(claims.len() as u64, segments);
    arena.mine(&[]).await?;
    let lies = vec![arena.lie_about(L2Number(before.0 + most / 2))?, arena.lie_about(last)?];
    arena.overturns(lies).await
}
