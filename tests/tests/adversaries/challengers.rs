//! Challengers that meet each other, and one that ends at every moment.

use crate::Result;
use alloy_primitives::B256;
use anyhow::{bail, ensure};
use bitcoin::Amount;
use kedge::challenger::{Abandonment, ChallengerEvent};
use kedge_bridge::envelope::{Kind, envelopes};
use kedge_fraud_proof::{AssertionStatus, FraudKind};
use kedge_genesis::{L1Height, L2Number};
use kedge_tests::adversary::{Arena, End, Fuse, FusedBitcoin, FusedRecords, Ground, Role, key};
use std::sync::Arc;

/// A wrong assertion that was just confirmed, and the segment that is wrong.
async fn lie(arena: &mut Arena) -> Result<(B256, usize)> {
    let lie = arena.lie_about(L2Number(2))?;
    let (id, hand) = arena.assertion(&key("liar"), &lie.body)?;
    arena.mine(&hand.all()).await?;
    Ok((id, lie.segment))
}

/// How many proofs a role has in Bitcoin's blocks from `from` on.
async fn published(arena: &Arena, by: &Role, from: L1Height) -> Result<usize> {
    let own = by.key().x_only_public_key().0;
    let mut count = 0;
    for height in from.0..=arena.tip().0 {
        let block = arena.block(L1Height(height)).await?;
        let found = block.txdata.iter().flat_map(envelopes);
        let proofs = found.filter(|(_, it)| it.kind == Kind::Proof && it.publisher == own);
        count += proofs.count();
    }
    Ok(count)
}

/// Both start at once: one proof wins, whichever is first in the block, and the other changes nothing. Then one
/// starts a block later: it sees the other's proof confirmed before it has revealed its own, and takes what it
/// had committed back.
pub(crate) async fn two_challengers(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let roles = [Role::new("first challenger"), Role::new("second challenger")];
    for role in &roles {
        arena.fund_role(role, 3).await?;
    }
    let (first, _) = roles[0].challenger(&arena, roles[0].records(), arena.client())?;
    let (second, wallet) = roles[1].challenger(&arena, roles[1].records(), arena.client())?;

    let (both, segment) = lie(&mut arena).await?;
    for _ in 0..2 {
        first.step().await?;
        second.step().await?;
        arena.mine_waiting().await?;
    }
    let AssertionStatus::Rejected { proof: Some(won), .. } = arena.node(both)?.status else {
        bail!("neither proof rejected it")
    };
    let place = roles
        .iter()
        .position(|role| role.key().x_only_public_key().0.serialize() == won.challenger);
    let Some(place) = place else { bail!("somebody else won") };
    let rejected = |segment, by: &Role| End::rejected(segment, FraudKind::OutputRoot, &by.key());
    let mut ends = vec![(both, rejected(segment, &roles[place]))];
    first.step().await?;
    second.step().await?;

    let (one, segment) = lie(&mut arena).await?;
    let (from, held) = (arena.tip(), wallet.balance().confirmed);
    first.step().await?;
    arena.mine_waiting().await?;
    first.step().await?;
    second.step().await?;
    arena.mine_waiting().await?;
    ends.push((one, rejected(segment, &roles[0])));
    let events = second.step().await?;
    let stopped =
        ChallengerEvent::Abandoned { assertion: one, reason: Abandonment::ProvenByOthers };
    ensure!(events.contains(&stopped), "{events:?}");
    let committed = wallet.balance().confirmed;
    arena.mine_waiting().await?;
    second.step().await?;
    // What was committed is back, but for the fees of committing and of taking it back.
    let back = wallet.balance().confirmed;
    ensure!(
        back > committed && back + Amount::from_sat(20_000) > held,
        "{held} {committed} {back}"
    );
    assert_eq!(published(&arena, &roles[1], from).await?, 0);
    arena.mine_past_deadlines().await?;
    arena.ends(&ends).await?;
    arena.bonds_pay(&ends).await
}

/// The challenger's process ends before each thing that it does to the world, from the first record of a wrong
/// assertion to its reward in the wallet, and starts again with what is left. Whenever that is, the assertion is
/// rejected in time by one proof of its own, and the reward is taken.
pub(crate) async fn challenger_crash_at_every_point(ground: Ground) -> Result {
    let mut arena = Arena::busy_with(ground, |params| params.challenge_window = 4).await?;
    let role = Role::new("mortal challenger");
    arena.fund_role(&role, 3).await?;
    let bond = Amount::from_sat(arena.params.proposer_bond.0);
    for effects in 0.. {
        let (id, segment) = lie(&mut arena).await?;
        let from = arena.tip();
        let fuse = Fuse::after(effects);
        let records = Arc::new(FusedRecords(role.records(), fuse.clone()));
        let bitcoin = Arc::new(FusedBitcoin(arena.client(), fuse.clone()));
        let mut running = role.challenger(&arena, records, bitcoin).ok();
        let mut restarted = false;
        loop {
            let mut said = match &running {
                Some((challenger, _)) => challenger.step().await,
                None => Ok(Vec::new()),
            };
            if fuse.is_blown() && !restarted {
                // What it said last nobody has heard.
                drop(running.take());
                let again = role.challenger(&arena, role.records(), arena.client())?;
                said = again.0.step().await;
                running = Some(again);
                restarted = true;
            }
            let is_reward = |event: &ChallengerEvent| matches!(event, ChallengerEvent::RewardTaken { assertion, .. } if *assertion == id);
            if said?.iter().any(is_reward) {
                break;
            }
            ensure!(arena.tip() < L1Height(from.0 + 30), "no reward after an end at {effects}");
            arena.step_signers().await?;
            arena.mine_waiting().await?;
        }
        let rejected = End::rejected(segment, FraudKind::OutputRoot, &role.key());
        assert_eq!(arena.end_of(id)?, rejected);
        assert_eq!(published(&arena, &role, from).await?, 1, "the end was before effect {effects}");
        let held = running.map_or(Amount::ZERO, |(_, wallet)| wallet.balance().confirmed);
        ensure!(held > bond / 10 * 9 * u64::from(effects + 1), "{held} after {effects} rewards");
        if !fuse.is_blown() {
            ensure!(effects > 10, "{effects} effects are few");
            break;
        }
    }
    arena.fresh_node_agrees().await
}
