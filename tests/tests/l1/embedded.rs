//! The embedded chain: what survives a kill, and its RPC as Bitcoin Core's clients see it.

use crate::{
    Result,
    chain::{Chain, Node, nobody, open_wallet, output, vb},
    wallet::a_payment_goes_through_mempool_and_block,
};
use kedge::l1::{Auth, Bitcoin, Embedded, L1Error, MemoryRecords, RpcClient, check_ready, facade};
use kedge_genesis::{BitcoinNetwork, L1Height};
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_embedded_chain_is_ready_within_a_second_and_reopens_as_it_was() -> Result {
    let dir = tempfile::tempdir()?;
    let started = Instant::now();
    let chain = Embedded::open(dir.path())?;
    chain.mine(120, &nobody().script_pubkey())?;
    println!("opened and mined 120 blocks in {:?}", started.elapsed());
    let tip = chain.tip();
    assert!(matches!(Embedded::open(dir.path()), Err(L1Error::Locked { .. })));

    let records = Arc::new(MemoryRecords::default());
    let wallet = open_wallet(&records)?;
    chain.mine(1, &wallet.address()?.script_pubkey())?;
    chain.mine(100, &nobody().script_pubkey())?;
    wallet.sync(&*chain).await?;
    let paid = wallet.send(&*chain, &[output(50_000)], vb(2)).await?.compute_txid();

    // What a process that is killed leaves: the files as they are, nothing closed.
    let killed = tempfile::tempdir()?;
    copy(dir.path(), killed.path())?;
    let started = Instant::now();
    let again = Embedded::open(killed.path())?;
    println!("reopened after a kill in {:?}", started.elapsed());
    assert_eq!(again.tip(), chain.tip());
    assert_eq!(again.pool_txids(), [paid]);
    again.mine(1, &nobody().script_pubkey())?;
    assert!(again.pool_txids().is_empty());

    let last = chain.tip();
    drop(chain);
    let started = Instant::now();
    let closed = Embedded::open(dir.path())?;
    println!("reopened after closing in {:?}", started.elapsed());
    assert_eq!(closed.tip(), last);
    assert_eq!(closed.pool_txids(), [paid]);
    assert!(closed.hash_at(tip.0) == Some(tip.1));
    Ok(())
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

struct Served {
    chain: Arc<Embedded>,
    port: u16,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Served {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let chain = Embedded::open(dir.path())?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        tokio::spawn(facade::serve(chain.clone(), listener, stop.clone()));
        Ok(Self { chain, port, stop, _dir: dir })
    }

    fn client(&self) -> Result<RpcClient> {
        Ok(RpcClient::new(&format!("http://127.0.0.1:{}", self.port), Auth::None)?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_chain_is_served_like_bitcoin_core() -> Result {
    let served = Served::start().await?;
    let client = served.client()?;
    served.chain.mine(3, &nobody().script_pubkey())?;
    let (height, best) = served.chain.tip();
    let info = check_ready(&client, BitcoinNetwork::Regtest, L1Height(1)).await?;
    assert_eq!((info.height, info.best), (height, best));
    assert_eq!(client.block(&best).await?, served.chain.block_now(&best)?);
    assert_eq!(client.header(&best).await?, served.chain.header_now(&best)?);
    assert_eq!(client.block_hash(height.next()).await?, None);
    assert!(client.fee_rate(6).await?.is_some());

    // The wallet and the publisher through the wire.
    let chain = Chain {
        bitcoin: Arc::new(served.client()?),
        node: Node::Embedded(served.chain.clone(), tempfile::tempdir()?),
    };
    a_payment_goes_through_mempool_and_block(chain).await?;

    for (method, params, code) in [
        ("getblockhash", json!([1_000_000]), -8),
        ("getblock", json!(["00"]), -8),
        ("getblock", json!(["00".repeat(32)]), -5),
        ("getblockhash", json!(["one"]), -3),
        ("getblockhash", json!([]), -1),
        ("sendrawtransaction", json!(["zz"]), -22),
        ("getmempoolentry", json!(["00".repeat(32)]), -5),
        ("nosuch", json!([]), -32601),
    ] {
        let answer = client.call::<Value>(method_name(method), params).await;
        let Err(L1Error::Rpc { code: found, .. }) = answer else { panic!("{method}: {answer:?}") };
        assert_eq!(found, code, "{method}");
    }
    Ok(())
}

fn method_name(name: &str) -> &'static str {
    ["getblockhash", "getblock", "sendrawtransaction", "getmempoolentry", "nosuch"]
        .into_iter()
        .find(|known| *known == name)
        .expect("listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn bitcoin_cli_talks_to_the_embedded_chain() -> Result {
    let served = Served::start().await?;
    let cli = kedge_tests::bitcoind::executable("bitcoin-cli")?;
    let run = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&cli);
        command.arg("-regtest").arg(format!("-rpcport={}", served.port));
        command.args(["-rpcuser=any", "-rpcpassword=thing"]).args(arguments);
        async move {
            let output = command.output().await?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            anyhow::Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
        }
    };
    let to = nobody().to_string();
    let (status, _, error) = run(&["generatetoaddress", "2", &to]).await?;
    assert_eq!((status, error.as_str()), (Some(0), ""));
    let best = served.chain.tip().1.to_string();
    assert_eq!(run(&["getbestblockhash"]).await?.1, best);
    assert_eq!(run(&["getblockcount"]).await?.1, "2");
    let header: Value = serde_json::from_str(&run(&["getblockheader", &best]).await?.1)?;
    assert_eq!((&header["height"], &header["confirmations"]), (&json!(2), &json!(1)));
    let info: Value = serde_json::from_str(
        &run(&["-named", "getblock", &format!("blockhash={best}"), "verbosity=1"]).await?.1,
    )?;
    assert_eq!(info["nTx"], json!(1));
    let (status, _, error) = run(&["getblockhash", "9"]).await?;
    assert_eq!(status, Some(8));
    assert!(error.contains("Block height out of range"), "{error}");
    assert!(run(&["-getinfo"]).await?.1.contains("Blocks: 2"));
    Ok(())
}
