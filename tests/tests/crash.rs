//! SIGKILL at random moments loses nothing that was acknowledged and repeats nothing.

use anyhow::{Context, Result, bail, ensure};
use kedge_tests::{
    bitcoind::block,
    chain::{Chain, WEI_PER_SAT, fresh_address, wei},
    kedge::{Dev, Node},
    until,
    wallet::Wallet,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

const KILLS: u32 = 20;

/// Sends transactions, deposits and a withdrawal while the process is killed; every acknowledged one must count once
/// and every other one at most once.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_change_nothing_about_the_result() -> Result<()> {
    let seed = match std::env::var("KEDGE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::rng().random(),
    };
    println!("KEDGE_SEED={seed} repeats the moments");
    let mut random = StdRng::seed_from_u64(seed);

    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=1"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let [sender, withdrawer, ..] = &dev.ready.accounts[..] else { bail!("no accounts") };
    let (sender, withdrawer) = (sender.clone(), withdrawer.clone());
    let before = chain.client.balance(&withdrawer.address).await?;

    // All transactions are signed now, so that sending one again is the same transaction.
    let receiver = fresh_address("transfers between kills");
    let mut raws = Vec::new();
    for nonce in 0..KILLS {
        let (nonce, value) = (nonce.to_string(), WEI_PER_SAT.to_string());
        let arguments = ["--nonce", &nonce, "--value", &value, "--gas-limit", "21000", &receiver];
        raws.push(chain.sign(&sender, &arguments).await?);
    }
    let user = Wallet::new();
    let script = user.script();
    let to = user.address().to_string();
    let withdrawal = chain.withdraw(&withdrawer, &to, 10_000_000, dir.path()).await?;
    let after_withdrawal = chain.client.balance(&withdrawer.address).await?;
    ensure!(after_withdrawal < before, "the withdrawal took nothing");

    // Deposits of different amounts to different addresses: what became of each can be seen afterwards.
    let mut acknowledged = BTreeMap::new();
    let mut hashes = Vec::new();
    for kill in 0..KILLS {
        let hash =
            chain.client.rpc.call("eth_sendRawTransaction", json!([raws[kill as usize]])).await?;
        hashes.push(hash.as_str().context("a hash")?.to_owned());
        let (to, sats) = deposit_of(kill);
        let amount = format!("{sats}sat");
        let arguments = ["bridge", "deposit", "--to", &to, "--amount", &amount];
        // A moment somewhere in the work that the transaction and the deposit cause, Bitcoin blocks included.
        let moment = Duration::from_millis(random.random_range(0..2_500));
        let _ = timeout(moment, async {
            // It was acknowledged if this ends well; the kill still comes at its moment.
            if chain.client.kedge(&arguments).await.is_ok() {
                acknowledged.insert(to.clone(), sats);
            }
            std::future::pending::<()>().await;
        })
        .await;
        dev = dev.restart().await?;
    }

    // Every acknowledged transaction is in a block, each once.
    for hash in &hashes {
        let receipt = chain.client.receipt(hash).await?;
        ensure!(receipt["status"] == "0x1", "{hash} failed");
    }
    chain.credited(&receiver, wei(KILLS.into())).await?;

    // The withdrawal is paid, exactly once and exactly.
    let payout = chain.paid_out(&script, withdrawal.paid).await?;
    chain.knows_payout(withdrawal.index, &payout).await?;
    chain.is_sound().await?;
    ensure!(
        chain.client.balance(&withdrawer.address).await? == after_withdrawal,
        "the withdrawal was undone or repeated"
    );

    // Acknowledged deposits arrive once, the others once or never.
    for (to, sats) in &acknowledged {
        chain.credited(to, wei(*sats)).await?;
    }
    for kill in 0..KILLS {
        let (to, sats) = deposit_of(kill);
        let balance = chain.client.balance(&to).await?;
        ensure!(balance == 0 || balance == wei(sats), "{to} has {balance} wei");
    }

    // What one node kept through twenty kills, another one derives from Bitcoin alone.
    let latest = chain.client.head("latest").await?.number;
    let l1 = format!("--l1-rpc={}", dev.ready.l1_rpc);
    let follower = Node::start(dir.path(), "follower", &["--network=dev", &l1]).await?;
    chain.agrees(&follower.client(), latest).await?;
    let kept = chain.client.block(withdrawal.block).await?;
    let first = &withdrawal.receipt["blockHash"];
    ensure!(first == kept.hash.as_str(), "the withdrawal's block was replaced");
    bitcoin_is_valid(&chain).await
}

fn deposit_of(kill: u32) -> (String, u64) {
    (fresh_address(&format!("deposit {kill}")), 100_000 + u64::from(kill))
}

/// The embedded Bitcoin's blocks form one chain up to its tip.
async fn bitcoin_is_valid(chain: &Chain) -> Result<()> {
    let mut hash = until("the tip", || async {
        Ok(chain.bitcoin.call("getbestblockhash", json!([])).await?.as_str().map(str::to_owned))
    })
    .await?;
    let genesis = chain.bitcoin.call("getblockhash", json!([0])).await?;
    while genesis != hash.as_str() {
        let block = block(&chain.bitcoin, &hash).await?;
        ensure!(block.block_hash().to_string() == hash, "another block under {hash}");
        hash = block.header.prev_blockhash.to_string();
    }
    Ok(())
}
