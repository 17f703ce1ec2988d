use crate::world::{World, nobody};
use anyhow::{Context, Result};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid, XOnlyPublicKey};
use kedge::l1::{Bitcoin as _, Broadcast};
use kedge::signer::Peer;
use kedge_bridge::bond::{Bond, BondSpend, reward_script, reward_spend};
use kedge_fraud_proof::AssertionNode;
use kedge_genesis::{L1Height, Network, Params, Sats};
use kedge_store::{BondEnd, BondRows};

#[tokio::test]
async fn signers_give_the_bond_of_a_wrong_assertion_to_whoever_proved_it_wrong() -> Result<()> {
    let params = Params { finality_depth: 6, bond_margin: 12, ..*Network::Dev.params() };
    let world = World::with(2, params).await?;
    let wrong = world.lie(0).await?;
    world.prove(1, wrong.id).await?;
    let due = wrong.deadline.plus(world.params.finality_depth);
    while world.mine().await? < due {
        assert!(world.engine.slashable()?.is_empty());
        assert!(world.sign().await?.is_empty(), "the verdict is not final yet");
    }
    let sent = world.sign().await?;
    // One block is one signer's turn.
    let [slash] = sent.as_slice() else { anyhow::bail!("{} slashes", sent.len()) };
    let challenger = world.parties[1].key;
    let script = reward_script(&challenger.x_only_public_key().0);
    assert_eq!(slash.output[0].script_pubkey, script);
    assert!(world.sign().await?.is_empty(), "it waits for its block");
    let at = world.mine().await?;
    let spend = world.engine.store().reader().bond_spend(&wrong.bond)?.context("unspent")?;
    assert_eq!((spend.end, spend.l1.height), (BondEnd::Slashed, at));
    assert!(world.engine.slashable()?.is_empty());

    let reward = [(OutPoint::new(slash.compute_txid(), 0), Sats(slash.output[0].value.to_sat()))];
    let rate = FeeRate::from_sat_per_vb_u32(2);
    let take = reward_spend(&reward, nobody(), rate, &challenger).context("pays its fee")?;
    assert_eq!(world.chain.broadcast(&take).await?, Broadcast::Accepted);
    world.mine().await?;
    assert!(world.chain.unspent(&reward[0].0, true).is_none());

    // A reorganisation takes it all back.
    world.engine.disconnect_l1()?;
    world.engine.disconnect_l1()?;
    assert_eq!(world.end_of(&wrong.bond)?, None);
    assert_eq!(world.engine.slashable()?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_slash_that_does_not_confirm_is_replaced_and_outbids_a_return() -> Result<()> {
    let world = World::new(2).await?;
    let wrong = world.lie(0).await?;
    world.prove(1, wrong.id).await?;
    world.mine_to(wrong.deadline.plus(world.params.finality_depth)).await?;
    let first = world.sign().await?.pop().context("due")?;
    let paid = |tx: &Transaction| Amount::from_sat(wrong.bond_value.0) - tx.output[0].value;
    // Each signer has its turns, no block takes anything. One that has not made the spend that waits may bid
    // too little at first.
    for _ in 0..9 {
        world.mine_empty().await?;
        let _ = world.sign().await;
    }
    let waits = world.chain.pool_txids();
    let [latest] = waits.as_slice() else { anyhow::bail!("{} spends wait", waits.len()) };
    let latest = world.chain.pool_entry(latest).context("waits")?.tx;
    assert_eq!(latest.input[0].previous_output, wrong.bond);
    assert!(paid(&latest) > paid(&first), "never replaced");

    // Its proposer can take the bond by now and pays miners more.
    let liar = &world.parties[0];
    let bond = Bond::of(world.params, liar.key.x_only_public_key().0).context("signers")?;
    let rate = FeeRate::from_sat_per_vb_u32(3);
    world.chain.evict(&latest.compute_txid());
    let back = bond
        .return_spend(wrong.bond, wrong.bond_value, nobody(), rate, &liar.key)
        .context("pays its fee")?;
    assert_eq!(bond.spent_by(&back.input[0].witness), Some(BondSpend::Return));
    assert_eq!(world.chain.broadcast(&back).await?, Broadcast::Accepted);
    for _ in 0..3 {
        let _ = world.sign().await;
        world.mine_empty().await?;
    }
    world.mine().await?;
    assert_eq!(world.end_of(&wrong.bond)?, Some(BondEnd::Slashed));
    Ok(())
}

#[tokio::test]
async fn signers_sign_no_slash_that_their_own_node_does_not_back() -> Result<()> {
    let world = World::new(3).await?;
    let right = world.propose(2).await?;
    let wrong = world.lie(0).await?;
    world.prove(1, wrong.id).await?;
    let (liar, challenger) = (&world.parties[0], &world.parties[1]);
    let [liar, challenger] = [liar, challenger].map(|party| party.key.x_only_public_key().0);
    let slash = |node: &AssertionNode, to| -> Result<Transaction> {
        let proposer = XOnlyPublicKey::from_slice(&node.proposer)?;
        let bond = Bond::of(world.params, proposer).context("signers")?;
        let rate = FeeRate::from_sat_per_vb_u32(2);
        let plan = bond.slash_spend(node.bond, node.bond_value, to, rate).context("pays")?;
        Ok(plan.tx().clone())
    };
    let signer = &world.signers[0];
    let due = slash(&wrong, &challenger)?;
    assert!(signer.sign_slash(&due).await.is_err(), "before the verdict is final");
    world.mine_to(wrong.deadline.plus(world.params.finality_depth)).await?;
    assert!(signer.sign_slash(&due).await.is_ok());
    assert!(signer.sign_slash(&slash(&wrong, &liar)?).await.is_err(), "to somebody else");
    assert!(signer.sign_slash(&slash(&right, &challenger)?).await.is_err(), "of a right one");
    let mut burnt = due.clone();
    burnt.output[0].value = Amount::from_sat(1_000_000);
    assert!(signer.sign_slash(&burnt).await.is_err(), "all of it as a fee");
    Ok(())
}

#[tokio::test]
async fn a_turn_that_failed_or_was_missed_is_made_up_for() -> Result<()> {
    let world = World::new(2).await?;
    let wrong = world.lie(0).await?;
    world.prove(1, wrong.id).await?;
    // Everybody has had a turn when the slash falls due.
    world.sign().await?;
    let due = wrong.deadline.plus(world.params.finality_depth);
    while world.mine().await? < due {
        assert!(world.sign().await?.is_empty());
    }
    let turn = |height: L1Height| height.0 as usize % world.signers.len();
    let peers_of = |leader: usize| -> Vec<Peer> {
        let others = world.signers.iter().enumerate().filter(|(place, _)| *place != leader);
        others.map(|(_, signer)| Peer::Local(signer.clone())).collect()
    };
    let lost = |txid: Txid| world.chain.evict(&txid);

    // Nobody gives a share at the leader's turn; at the same block somebody does later.
    let (leader, next) = (turn(due), turn(due.next()));
    assert!(world.signers[next].step(&peers_of(next)).await?.is_empty(), "it is not its turn");
    assert!(world.signers[leader].step(&[]).await.is_err());
    let sent = world.signers[leader].step(&peers_of(leader)).await?;
    let [slash] = sent.as_slice() else { anyhow::bail!("{} slashes", sent.len()) };
    // A turn that was taken is over.
    lost(*slash);
    assert!(world.signers[leader].step(&peers_of(leader)).await?.is_empty());

    // The next one fails at its turn, and is away for as long as the others' turns last.
    world.mine_empty().await?;
    assert!(world.signers[next].step(&[]).await.is_err());
    let at = world.mine_empty().await?;
    assert_ne!(turn(at), next);
    let sent = world.signers[next].step(&peers_of(next)).await?;
    assert_eq!(sent.len(), 1);
    lost(sent[0]);

    // The third did not even see the block of its turn.
    let third = turn(at);
    world.mine_empty().await?;
    assert_eq!(world.signers[third].step(&peers_of(third)).await?.len(), 1);
    Ok(())
}
