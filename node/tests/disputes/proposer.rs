use crate::world::{World, nobody};
use alloy_primitives::B256;
use anyhow::{Context, Result};
use kedge::follow::follow_to_tip;
use kedge_bridge::assertion::AssertionBody;
use kedge_fraud_proof::AssertionStatus;
use kedge_genesis::{Network, Params};
use kedge_store::OwnClaims;

#[tokio::test]
async fn a_proposer_continues_the_furthest_right_assertion_whoever_made_it() -> Result<()> {
    let world = World::new(2).await?;
    let first = world.propose(0).await?;
    world.mine().await?;
    let second = world.propose(1).await?;
    assert_eq!(second.parent, first.id);
    world.mine().await?;
    // Whose settles first does not matter.
    world.mine_to(second.deadline).await?;
    let third = world.propose(0).await?;
    assert_eq!((third.parent, third.agrees), (second.id, true));
    Ok(())
}

#[tokio::test]
async fn a_proposer_waits_for_no_wrong_assertion_and_continues_none() -> Result<()> {
    let world = World::new(3).await?;
    let right = world.propose(0).await?;
    world.mine().await?;
    world.mine().await?;
    let wrong = world.lie(1).await?;
    assert_eq!(wrong.parent, right.id);
    let beyond = world.continue_wrong(2, &wrong).await?;
    // The wrong branch speaks of more L1 blocks than any right one.
    assert!(beyond.l1.height > right.l1.height);
    let next = world.propose(0).await?;
    assert_eq!((next.parent, next.agrees), (right.id, true));
    world.prove(2, wrong.id).await?;
    assert!(world.node(beyond.id)?.is_rejected());
    let after = world.propose(0).await?;
    assert_eq!((after.parent, after.agrees), (next.id, true));
    world.mine_to(after.deadline).await?;
    assert_eq!(world.engine.tracker()?.settled().id, after.id);
    Ok(())
}

#[tokio::test]
async fn a_bond_returns_to_its_proposers_wallet_as_soon_as_bitcoin_allows_it() -> Result<()> {
    let world = World::new(1).await?;
    let node = world.propose(0).await?;
    let due = node.confirmed_at.plus(world.params.challenge_window + 6);
    let height = world.returned_by(0, &node.bond, due).await?;
    assert_eq!(height, due);
    let wallet = &world.parties[0].wallet;
    wallet.sync(&*world.chain).await?;
    // Other bonds of its are out by now: that one is back, less fees.
    let out = world.engine.store().reader().bonds()?.len() as u64;
    let held = wallet.balance().confirmed.to_sat() + out * world.params.proposer_bond.0;
    assert!((4_999_000_000..5_000_000_000).contains(&held), "{held}");
    Ok(())
}

#[tokio::test]
async fn the_bond_of_an_assertion_that_fell_with_a_wrong_parent_returns() -> Result<()> {
    let world = World::new(3).await?;
    let wrong = world.lie(1).await?;
    world.mine().await?;
    let child = world.continue_wrong(0, &wrong).await?;
    world.prove(2, wrong.id).await?;
    let fallen = world.node(child.id)?.status;
    assert!(matches!(fallen, AssertionStatus::Rejected { proof: None, .. }), "{fallen:?}");
    let due = child.deadline.plus(u32::from(world.params.bond_margin));
    assert_eq!(world.returned_by(0, &child.bond, due).await?, due);
    Ok(())
}

#[tokio::test]
async fn the_bond_of_an_assertion_that_does_not_count_returns() -> Result<()> {
    let world = World::new(1).await?;
    let own = world.engine.store().reader();
    let body = world.engine.tracker()?.build_assertion(world.params, &OwnClaims(&own))?;
    drop(own);
    let body = AssertionBody { parent: B256::repeat_byte(1), ..body.context("the first")? };
    world.post(0, &body).await?;
    let at = world.mine().await?;
    assert_eq!(world.nodes()?.len(), 0);
    let bonds = world.engine.store().reader().bonds()?;
    assert_eq!((bonds.len(), bonds[0].height), (1, at));
    let due = at.plus(world.params.challenge_window + u32::from(world.params.bond_margin));
    assert_eq!(world.returned_by(0, &bonds[0].outpoint, due).await?, due);
    Ok(())
}

#[tokio::test]
async fn a_bond_whose_reveal_was_replaced_after_a_reorganisation_returns() -> Result<()> {
    let world = World::with(1, Params { finality_depth: 6, ..*Network::Dev.params() }).await?;
    let before = world.nodes()?;
    world.parties[0].proposer.step().await?.context("nothing is due")?;
    let fork = world.chain.tip().1;
    let first = world.only_new(&before).await?;
    // Two empty blocks instead of the one with the assertion.
    world.chain.mine_on(fork, 2, &nobody())?;
    follow_to_tip(&*world.chain, &world.engine).await?;
    assert_eq!(world.nodes()?.len(), 0);
    assert_eq!(world.engine.store().reader().bonds()?.len(), 0);
    let wallet = &world.parties[0].wallet;
    wallet.sync(&*world.chain).await?;
    world.parties[0].proposer.step().await?;
    let second = world.only_new(&before).await?;
    // It waited so long that another reveal, with another bond, pays more.
    assert_ne!(second.bond, first.bond);
    let bonds = world.engine.store().reader().bonds()?;
    assert_eq!(bonds.iter().map(|bond| bond.outpoint).collect::<Vec<_>>(), [second.bond]);
    let due = second.deadline.plus(u32::from(world.params.bond_margin));
    assert_eq!(world.returned_by(0, &second.bond, due).await?, due);
    Ok(())
}

#[tokio::test]
async fn a_proposer_that_was_proven_wrong_leaves_its_bond_to_the_challenger() -> Result<()> {
    let world = World::new(2).await?;
    let wrong = world.lie(0).await?;
    world.prove(1, wrong.id).await?;
    let returnable = wrong.deadline.plus(u32::from(world.params.bond_margin));
    world.mine_to(returnable.plus(2)).await?;
    world.parties[0].proposer.step().await?;
    world.mine().await?;
    assert_eq!(world.end_of(&wrong.bond)?, None);
    Ok(())
}
