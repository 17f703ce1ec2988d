//! The whole loop in one process, on the embedded Bitcoin.

use anyhow::{Result, ensure};
use kedge_tests::{
    chain::{Chain, fresh_address, wei},
    kedge::{Dev, Node, STOP},
    wallet::Wallet,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sends_deposits_withdraws_and_a_second_node_agrees() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=1"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let [rich, other, ..] = &dev.ready.accounts[..] else { anyhow::bail!("no accounts") };
    ensure!(dev.ready.accounts.len() == 10, "{} accounts", dev.ready.accounts.len());

    chain.clients(rich, other, dir.path()).await?;
    chain.deposit(&fresh_address("deposited to"), 50_000_000).await?;

    let user = Wallet::new();
    let to = user.address().to_string();
    let withdrawn = chain.withdraw(rich, &to, 10_000_000, dir.path()).await?;
    let payout = chain.paid_out(&user.script(), withdrawn.paid).await?;
    chain.knows_payout(withdrawn.index, &payout).await?;
    chain.is_sound().await?;

    let l1 = format!("--l1-rpc={}", dev.ready.l1_rpc);
    let follower = Node::start(dir.path(), "follower", &["--network=dev", &l1]).await?;
    chain.agrees(&follower.client(), withdrawn.block).await?;

    dev.process.interrupt(STOP).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_has_its_receipt_at_once_and_no_empty_blocks_pile_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let from = &dev.ready.accounts[0];
    let to = fresh_address("at once");
    let before = chain.client.head("latest").await?.number;
    let mut times = Vec::new();
    for nonce in 0..20 {
        let nonce = nonce.to_string();
        let raw = chain.sign(from, &["--nonce", &nonce, "--value", "1", &to]).await?;
        times.push(chain.latency(&raw).await?);
    }
    times.sort();
    // Half of them, because the machine may run other things beside.
    ensure!(times[9] <= Duration::from_millis(100), "the times of twenty receipts: {times:?}");
    let after = chain.client.head("latest").await?.number;
    ensure!(after == before + 20, "{} blocks for 20 transactions", after - before);
    ensure!(chain.client.balance(&to).await? == 20, "{to} has not all of it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_funded_by_deposits_and_the_vault_covers_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let vault = dev.ready.vault.parse::<bitcoin::Address<_>>()?.assume_checked().script_pubkey();
    let in_vault: u64 = chain.paid(&vault).await?.iter().map(|(_, value)| value).sum();
    let mut supply = 0;
    for account in &dev.ready.accounts {
        let balance = chain.client.balance(&account.address).await?;
        ensure!(balance > 0, "{} has nothing", account.address);
        supply += balance;
    }
    ensure!(wei(in_vault) >= supply, "{in_vault} sat in the vault for {supply} wei");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_bitcoin_blocks_brings_a_batch() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let from = &dev.ready.accounts[0];
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let to = fresh_address("before many Bitcoin blocks");
    for nonce in 0..5 {
        let raw = chain.sign(from, &["--nonce", &nonce.to_string(), "--value", "1", &to]).await?;
        chain.latency(&raw).await?;
        dev.client().kedge(&["l1", "mine", "20"]).await?;
        let (latest, safe) = (chain.client.head("latest").await?, chain.client.head("safe").await?);
        // What came with the last block is on its way.
        ensure!(
            latest.number <= safe.number + 1,
            "latest is {}, safe {}",
            latest.number,
            safe.number
        );
    }
    ensure!(chain.client.balance(&to).await? == 5, "{to} has not all of it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bitcoin_blocks_come_on_demand() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let height = async || -> Result<u64> {
        let info = dev.bitcoin().call("getblockchaininfo", serde_json::json!([])).await?;
        Ok(info["blocks"].as_u64().unwrap_or_default())
    };
    let before = height().await?;
    dev.client().kedge(&["l1", "mine", "3"]).await?;
    ensure!(height().await? == before + 3, "not three more blocks");
    Ok(())
}
