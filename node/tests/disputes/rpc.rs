use crate::world::{World, nobody};
use alloy_primitives::B256;
use anyhow::{Context, Result};
use jsonrpsee::{
    RpcModule,
    core::client::{ClientT, Error, Subscription},
    http_client::HttpClientBuilder,
    rpc_params,
    ws_client::{WsClient, WsClientBuilder},
};
use kedge::{
    follow::follow_to_tip,
    rpc::{
        KedgeApiClient, KedgeSubscribeApiClient, NodeHandle, RpcConfig, ServerHandle, Submission,
        serve,
        types::{
            AssertionChange, AssertionStage, AssertionStatus, AssertionUpdate, BondStage, Roles,
            Topic,
        },
    },
};
use kedge_genesis::{Network, Params};
use std::time::Duration;

async fn server(world: &World) -> Result<(ServerHandle, WsClient)> {
    let handle = NodeHandle {
        params: world.params,
        store: world.engine.store().clone(),
        engine: world.engine.clone(),
        submission: Submission::Refused,
        roles: Roles::default(),
        follower: None,
    };
    let config = RpcConfig::new(([127, 0, 0, 1], 0).into());
    let server = serve(config, handle, RpcModule::new(())).await?;
    let client = WsClientBuilder::default().build(format!("ws://{}", server.address())).await?;
    Ok((server, client))
}

async fn status(client: &WsClient, id: B256) -> Result<AssertionStatus> {
    let all = client.assertions().await?;
    all.into_iter().find(|one| one.id == id).context("not listed")
}

async fn next(updates: &mut Subscription<AssertionUpdate>) -> Result<AssertionUpdate> {
    let update = tokio::time::timeout(Duration::from_secs(30), updates.next()).await?;
    Ok(update.context("the subscription ended")??)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_shows_stage_deadline_bond_branches_and_what_is_wrong() -> Result<()> {
    let world = World::new(3).await?;
    let (_server, client) = server(&world).await?;
    let right = world.propose(0).await?;
    world.mine().await?;
    world.mine().await?;
    let wrong = world.lie(1).await?;
    let next = world.propose(0).await?;

    let parent = status(&client, right.id).await?;
    assert_eq!((parent.children, parent.competing), (vec![wrong.id, next.id], vec![]));
    let one = status(&client, wrong.id).await?;
    assert_eq!((one.stage, one.best, one.agrees), (AssertionStage::Proposed, false, false));
    assert_eq!((one.parent, one.competing), (right.id, vec![next.id]));
    assert_eq!(one.wrong_segment, Some(1));
    assert_eq!(one.blocks_left, Some(world.params.challenge_window - 1));
    assert_eq!((one.bond_stage, one.bond_txid), (BondStage::Locked, None));
    let other = status(&client, next.id).await?;
    assert_eq!((other.best, other.wrong_segment), (true, None));

    world.prove(2, wrong.id).await?;
    let one = status(&client, wrong.id).await?;
    assert_eq!((one.stage, one.rejected_segment), (AssertionStage::Rejected, Some(1)));
    assert_eq!(one.rejected_for.as_deref(), Some("output_root"));
    assert_eq!((one.blocks_left, one.seconds_left), (None, None));
    let challenger = world.parties[2].key.x_only_public_key().0.serialize();
    assert_eq!(one.challenger, Some(B256::new(challenger)));
    let (committed, revealed) = (one.committed_at.context("proven")?, one.rejected_at);
    assert_eq!(Some(committed + 1), revealed);
    assert!(one.proof_txid.is_some());

    world.mine_to(wrong.deadline.plus(world.params.finality_depth)).await?;
    let slash = world.sign().await?.pop().context("due")?;
    let at = world.mine().await?;
    let one = status(&client, wrong.id).await?;
    assert_eq!(one.bond_stage, BondStage::Slashed);
    assert_eq!(one.bond_txid, Some(slash.compute_txid()));
    assert_eq!(one.bond_spent_in.map(|block| block.height), Some(at.0));
    assert_eq!(status(&client, next.id).await?.stage, AssertionStage::Settled);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_see_every_change_and_its_unwind() -> Result<()> {
    let params = Params { finality_depth: 6, ..*Network::Dev.params() };
    let world = World::with(2, params).await?;
    let (_server, client) = server(&world).await?;
    let mut updates = client.updates(Topic::Assertions).await?;
    let fork = world.chain.tip().1;
    let wrong = world.lie(0).await?;
    let update = next(&mut updates).await?;
    assert_eq!((update.change, update.assertion.id), (AssertionChange::Added, wrong.id));
    assert_eq!(update.l1_tip.height, wrong.confirmed_at.0);
    world.prove(1, wrong.id).await?;
    let update = next(&mut updates).await?;
    let stage = update.assertion.stage;
    assert_eq!((update.change, stage), (AssertionChange::Changed, AssertionStage::Rejected));

    // First the block with the proof goes, then that with the assertion.
    let proven = world.chain.header_now(&world.chain.tip().1)?.prev_blockhash;
    world.chain.mine_on(proven, 2, &nobody())?;
    follow_to_tip(&*world.chain, &world.engine).await?;
    let update = next(&mut updates).await?;
    let stage = update.assertion.stage;
    assert_eq!((update.change, stage), (AssertionChange::Changed, AssertionStage::Proposed));
    world.chain.mine_on(fork, 6, &nobody())?;
    follow_to_tip(&*world.chain, &world.engine).await?;
    let update = next(&mut updates).await?;
    assert_eq!((update.change, update.assertion.id), (AssertionChange::Removed, wrong.id));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_over_plain_http_is_refused_with_a_hint() -> Result<()> {
    let world = World::new(0).await?;
    let (server, _client) = server(&world).await?;
    let http = HttpClientBuilder::default().build(format!("http://{}", server.address()))?;
    let asked: Result<String, _> = http.request("kedge_subscribe", rpc_params!["assertions"]).await;
    let Err(Error::Call(refusal)) = asked else { anyhow::bail!("{asked:?}") };
    assert!(refusal.message().contains("WebSocket"), "{refusal}");
    Ok(())
}
