//! Nodes that take `latest` from the sequencer or from each other, before Bitcoin has it.

use anyhow::{Context, Result, ensure};
use bitcoin::key::Keypair;
use jsonrpsee::{
    RpcModule, SubscriptionMessage,
    server::{Server, ServerConfig, ServerHandle},
    types::ErrorObjectOwned,
};
use kedge::{keys, stream::SignedBlock};
use kedge_genesis::{Network, params::dev_secrets};
use kedge_tests::{
    bitcoind::Bitcoind,
    chain::{Chain, fresh_address},
    kedge::{Account, Client, Dev, Head, Node, quantity},
    until,
    wallet::Wallet,
};
use serde_json::{Value, json};
use std::path::Path;

/// A `kedge dev` whose Bitcoin stands still.
async fn dev(dir: &Path) -> Result<(Dev, Chain)> {
    let dev = Dev::start(dir, &["--l1-block-time=0"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    Ok((dev, chain))
}

fn websocket(client: &Client) -> String {
    client.rpc.url().replacen("http", "ws", 1)
}

/// A node on the Bitcoin of a `kedge dev` that follows nodes at these addresses.
async fn follower(dir: &Path, name: &str, dev: &Dev, sources: &[&str]) -> Result<Node> {
    let mut options = vec!["--network=dev".to_owned(), format!("--l1-rpc={}", dev.ready.l1_rpc)];
    options.extend(sources.iter().map(|source| format!("--follow={source}")));
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    Node::start(dir, name, &options).await
}

/// A payment that is signed and not sent.
async fn payment(chain: &Chain, from: &Account, nonce: u64) -> Result<String> {
    let (nonce, to) = (nonce.to_string(), fresh_address("paid"));
    chain.sign(from, &["--nonce", &nonce, "--gas-limit", "21000", "--value", "1", &to]).await
}

/// Has the sequencer make a block.
async fn pay(chain: &Chain, from: &Account, nonce: u64) -> Result<()> {
    let raw = payment(chain, from, nonce).await?;
    let hash = chain.client.rpc.call("eth_sendRawTransaction", json!([raw])).await?;
    chain.client.receipt(hash.as_str().context("no hash")?).await.map(drop)
}

/// Waits until the node's latest block is this one.
async fn arrives(node: &Client, head: &Head) -> Result<()> {
    until(&format!("block {} arrives", head.number), || async {
        Ok((node.head("latest").await? == *head).then_some(()))
    })
    .await
}

/// What the node says of the node that it follows, by its place on the command line.
async fn source(node: &Client, place: usize) -> Result<Value> {
    Ok(node.rpc.call("kedge_syncStatus", json!([])).await?["sources"][place].take())
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_have_the_sequencer_s_latest_from_it_or_from_each_other_before_bitcoin_does()
-> Result<()> {
    let dir = tempfile::tempdir()?;
    let (dev, chain) = dev(dir.path()).await?;
    let from = &dev.ready.accounts[0];
    pay(&chain, from, 0).await?;
    let sequencer = websocket(&chain.client);
    let first = follower(dir.path(), "first", &dev, &[&sequencer]).await?;
    let relay = websocket(&first.client());
    let second = follower(dir.path(), "second", &dev, &[&relay]).await?;
    let third =
        follower(dir.path(), "third", &dev, &[&websocket(&second.client()), &relay]).await?;
    let nodes = [first.client(), second.client(), third.client()];
    let tip = chain.bitcoin.call("getbestblockhash", json!([])).await?;
    for nonce in 1..6 {
        pay(&chain, from, nonce).await?;
    }
    let head = chain.client.head("latest").await?;
    for node in &nodes {
        arrives(node, &head).await?;
        for number in head.number - 5..=head.number {
            ensure!(node.block(number).await? == chain.client.block(number).await?);
        }
        ensure!(node.head("safe").await?.number + 6 <= head.number, "it is not from Bitcoin");
    }
    ensure!(tip == chain.bitcoin.call("getbestblockhash", json!([])).await?);
    let shown = source(&nodes[1], 0).await?;
    ensure!(shown["url"] == relay.as_str() && shown["connected"] == true, "{shown}");
    ensure!(shown["latest"] == head.number, "{shown}");
    ensure!(shown["verdicts"]["adopted"].as_u64() >= Some(6), "{shown}");

    // Once Bitcoin has them, all of them are where they were.
    chain.client.kedge(&["l1", "mine", "2"]).await?;
    for node in &nodes {
        let safe = node.reaches("safe", head.number).await?;
        ensure!(node.block(head.number).await? == head && safe.number >= head.number);
        arrives(node, &chain.client.head("latest").await?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_fills_its_gap_and_passes_on_what_it_had_before() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (dev, chain) = dev(dir.path()).await?;
    let from = &dev.ready.accounts[0];
    let mut node = follower(dir.path(), "node", &dev, &[&websocket(&chain.client)]).await?;
    for nonce in 0..3 {
        pay(&chain, from, nonce).await?;
    }
    arrives(&node.client(), &chain.client.head("latest").await?).await?;
    node.process.kill().await?;
    // More than one answer holds.
    for nonce in 3..70 {
        pay(&chain, from, nonce).await?;
    }
    let head = chain.client.head("latest").await?;
    node.restart().await?;
    arrives(&node.client(), &head).await?;
    let child = follower(dir.path(), "child", &dev, &[&websocket(&node.client())]).await?;
    arrives(&child.client(), &head).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_a_follower_waits_at_the_sequencer_and_is_in_its_blocks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (dev, chain) = dev(dir.path()).await?;
    let from = &dev.ready.accounts[0];
    let first = follower(dir.path(), "first", &dev, &[&websocket(&chain.client)]).await?;
    let second = follower(dir.path(), "second", &dev, &[&websocket(&first.client())]).await?;
    let rpc = second.client().rpc;
    let (gap, later) = (payment(&chain, from, 0).await?, payment(&chain, from, 1).await?);

    let waits = rpc.call("eth_sendRawTransaction", json!([later])).await?;
    let shown = rpc.call("eth_getTransactionByHash", json!([waits])).await?;
    ensure!(shown["hash"] == waits && shown["blockHash"].is_null(), "{shown}");
    let raw = rpc.call("eth_getRawTransactionByHash", json!([waits])).await?;
    ensure!(raw == later.as_str(), "{raw}");
    let refused = rpc.call("eth_sendRawTransaction", json!([later])).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("already known")));

    // Answers when the block is here.
    let receipt = rpc.call("eth_sendRawTransactionSync", json!([gap])).await?;
    ensure!(receipt["status"] == "0x1", "{receipt}");
    second.client().receipt(waits.as_str().context("no hash")?).await?;
    for tag in ["latest", "pending"] {
        let nonce = rpc.call("eth_getTransactionCount", json!([from.address, tag])).await?;
        ensure!(quantity(&nonce)? == 2, "{tag}: {nonce}");
    }
    arrives(&second.client(), &chain.client.head("latest").await?).await
}

/// What a node does that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    WrongSignature,
    OtherTransaction,
    WrongParent,
    FutureTime,
    Oversized,
    Endless,
    Silence,
    Nonsense,
}

impl Lie {
    /// Every lie, and what it is counted as: an endless stream by what it exceeds first, the follower's speed or
    /// its patience.
    const ALL: [(Self, &[&str]); 8] = [
        (Self::WrongSignature, &["signature"]),
        (Self::OtherTransaction, &["signature"]),
        (Self::WrongParent, &["unresolved"]),
        (Self::FutureTime, &["invalid"]),
        (Self::Oversized, &["disconnected"]),
        (Self::Endless, &["lagged", "repeats"]),
        (Self::Silence, &["silent"]),
        (Self::Nonsense, &["malformed"]),
    ];

    /// What it pushes, made of the sequencer's latest block. The sequencer's key is known on dev.
    fn message(self, latest: &SignedBlock, key: &Keypair) -> Option<Value> {
        let chain_id = Network::Dev.params().chain_id;
        let mut block =
            SignedBlock { number: latest.number + 1, parent_hash: latest.hash, ..latest.clone() };
        match self {
            Self::WrongSignature => {}
            Self::OtherTransaction => {
                block = latest.clone();
                block.transactions[0] = vec![2, 0xc0].into();
            }
            Self::WrongParent => {
                block.parent_hash.0[0] ^= 1;
                block = block.signed(chain_id, key);
            }
            Self::FutureTime => {
                block.timestamp += 100_000_000;
                block = block.signed(chain_id, key);
            }
            Self::Endless => block = latest.clone(),
            Self::Oversized => return Some("0".repeat(13 << 20).into()),
            Self::Nonsense => return Some(json!({"number": -1})),
            Self::Silence => return None,
        }
        serde_json::to_value(block).ok()
    }
}

/// A node that tells this lie to everybody who follows it.
async fn liar(lie: Lie, latest: &SignedBlock) -> Result<(ServerHandle, String)> {
    let message = lie.message(latest, &keys::keypair(&secret()?));
    let mut module = RpcModule::new(message);
    module.register_async_method("kedge_signedBlocks", move |params, message, _| async move {
        if lie == Lie::Silence {
            std::future::pending::<()>().await;
        }
        let (from, _): (u64, u64) = params.parse()?;
        let message = message.as_ref().clone();
        let asked = matches!(lie, Lie::WrongParent | Lie::FutureTime);
        let page = message.filter(|block| asked && block["number"] == from);
        Ok::<Vec<Value>, ErrorObjectOwned>(page.into_iter().collect())
    })?;
    module.register_subscription(
        "kedge_subscribe",
        "kedge_subscription",
        "kedge_unsubscribe",
        move |_, pending, message, _| async move {
            let sink = pending.accept().await?;
            if let Some(message) = message.as_ref() {
                let id = sink.subscription_id();
                let push = SubscriptionMessage::new(sink.method_name(), id, message)?;
                while sink.send(push.clone()).await.is_ok() && lie == Lie::Endless {}
            }
            sink.closed().await;
            Ok(())
        },
    )?;
    let config = ServerConfig::builder().max_response_body_size(1 << 30).build();
    let server = Server::builder().set_config(config).build("127.0.0.1:0").await?;
    let url = format!("ws://{}", server.local_addr()?);
    Ok((server.start(module), url))
}

fn secret() -> Result<bitcoin::secp256k1::SecretKey> {
    Ok(bitcoin::secp256k1::SecretKey::from_slice(&dev_secrets::SEQUENCER)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn dishonest_sources_change_nothing_are_counted_and_do_not_stop_an_honest_one() -> Result<()>
{
    let dir = tempfile::tempdir()?;
    let (dev, chain) = dev(dir.path()).await?;
    let from = &dev.ready.accounts[0];
    pay(&chain, from, 0).await?;
    let head = chain.client.head("latest").await?;
    let page = chain.client.rpc.call("kedge_signedBlocks", json!([head.number, 1])).await?;
    let latest: SignedBlock = serde_json::from_value(page[0].clone())?;
    ensure!(latest.hash.to_string() == head.hash && latest.transactions.len() == 1);

    let mut servers = Vec::new();
    let mut sources = vec![websocket(&chain.client)];
    for (lie, _) in Lie::ALL {
        let (server, url) = liar(lie, &latest).await?;
        servers.push(server);
        sources.push(url);
    }
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let mut node = follower(dir.path(), "node", &dev, &sources).await?;
    arrives(&node.client(), &head).await?;
    for (place, (lie, verdicts)) in (1..).zip(Lie::ALL) {
        until(&format!("{lie:?} is counted"), || async {
            let shown = source(&node.client(), place).await?;
            ensure!(shown["verdicts"]["adopted"].as_u64().is_none_or(|count| count <= 1));
            Ok(verdicts.iter().find_map(|verdict| shown["verdicts"][verdict].as_u64()))
        })
        .await?;
    }
    ensure!(node.client().head("latest").await? == head, "a lie changed the chain");
    for nonce in 1..4 {
        pay(&chain, from, nonce).await?;
    }
    arrives(&node.client(), &chain.client.head("latest").await?).await?;
    ensure!(node.process.is_running());
    let honest = source(&node.client(), 0).await?;
    ensure!(honest["connected"] == true && honest["problem"].is_null(), "{honest}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_of_bitcoin_takes_the_sequencer_and_its_followers_to_the_same_blocks()
-> Result<()> {
    let dir = tempfile::tempdir()?;
    let bitcoind = Bitcoind::start().await?;
    let to = Wallet::new().address();
    bitcoind.mine(5, &to).await?;
    let (l1, cookie) = (bitcoind.url(), bitcoind.cookie());
    let l1 = [format!("--l1-rpc={l1}"), format!("--l1-cookie-file={}", cookie.display())];
    let shared = ["--network=regtest", &l1[0], &l1[1]];
    // Without bitcoin for fees it posts nothing: all of its blocks are unsafe.
    let sequencer =
        Node::start(dir.path(), "sequencer", &[&shared[..], &["--sequencer"]].concat()).await?;
    let source = format!("--follow={}", websocket(&sequencer.client()));
    let first = Node::start(dir.path(), "first", &[&shared[..], &[&source]].concat()).await?;
    let source = format!("--follow={}", websocket(&first.client()));
    let second = Node::start(dir.path(), "second", &[&shared[..], &[&source]].concat()).await?;
    let nodes = [sequencer.client(), first.client(), second.client()];

    // Each node's latest block has this origin, and it is the same block.
    let agree = async |origin: String| -> Result<Head> {
        until("the nodes agree", || async {
            let mut heads = Vec::new();
            for node in &nodes {
                let status = node.rpc.call("kedge_syncStatus", json!([])).await?;
                ensure!(status["latest"]["l1Origin"]["hash"] == origin.as_str(), "{status}");
                heads.push(node.head("latest").await?);
            }
            Ok((heads[0] == heads[1] && heads[1] == heads[2]).then(|| heads[0].clone()))
        })
        .await
    };
    let mined = bitcoind.mine(4, &to).await?;
    let old = agree(mined[3].to_string()).await?;
    bitcoind.rpc().call("invalidateblock", json!([mined[2].to_string()])).await?;
    let other = Wallet::new().address();
    let mined = bitcoind.mine(3, &other).await?;
    let new = agree(mined[2].to_string()).await?;
    ensure!(new.number == old.number + 1, "{new:?} after {old:?}");
    for number in 0..=new.number {
        let block = nodes[0].block(number).await?;
        ensure!(block == nodes[1].block(number).await? && block == nodes[2].block(number).await?);
    }
    ensure!(nodes[2].block(old.number).await? != old, "nothing was reorganised");
    Ok(())
}
