//! SIGKILL at random moments loses nothing that was acknowledged and repeats nothing.

use anyhow::{Context, Result, bail, ensure};
use bitcoin::{Amount, consensus::encode::serialize_hex};
use kedge_bridge::{deposit::deposit_outputs, vault};
use kedge_genesis::{Network, Sats};
use kedge_tests::{
    bitcoind::block,
    chain::{Chain, WEI_PER_SAT, Withdrawn, fresh_address, wei},
    kedge::{Account, Client, Dev, Node},
    regtest::Regtest,
    wallet::Wallet,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{collections::BTreeSet, path::Path, time::Duration};
use tokio::time::timeout;

const KILLS: u32 = 20;

/// Where the random moments come from: `KEDGE_SEED` repeats those of another run.
fn random() -> Result<StdRng> {
    let seed = match std::env::var("KEDGE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::rng().random(),
    };
    eprintln!("KEDGE_SEED={seed} repeats the moments");
    Ok(StdRng::seed_from_u64(seed))
}

/// A moment somewhere in the work that a transaction and a deposit cause, Bitcoin blocks included.
fn moment(random: &mut StdRng) -> Duration {
    Duration::from_millis(random.random_range(0..2_500))
}

/// What was begun before the kills and must have become true after them.
struct Work {
    /// Transfers, signed before, so that sending one again is the same transaction.
    transfers: Vec<String>,
    /// Those that a node acknowledged.
    sent: Vec<String>,
    receiver: String,
    withdrawer: Account,
    withdrawn: Withdrawn,
    balance: u128,
    user: Wallet,
}

impl Work {
    async fn begin(
        chain: &Chain,
        sender: &Account,
        withdrawer: &Account,
        scratch: &Path,
    ) -> Result<Self> {
        let receiver = fresh_address("transfers between kills");
        let mut transfers = Vec::new();
        for nonce in 0..KILLS {
            let (nonce, value) = (nonce.to_string(), WEI_PER_SAT.to_string());
            let rest = ["--nonce", &nonce, "--value", &value, "--gas-limit", "21000", &receiver];
            transfers.push(chain.sign(sender, &rest).await?);
        }
        let user = Wallet::new();
        let to = user.address().to_string();
        let withdrawn = chain.withdraw(withdrawer, &to, 10_000_000, scratch).await?;
        let balance = chain.client.balance(&withdrawer.address).await?;
        let withdrawer = withdrawer.clone();
        Ok(Self { transfers, sent: Vec::new(), receiver, withdrawer, withdrawn, balance, user })
    }

    async fn send(&mut self, client: &Client, kill: u32) -> Result<()> {
        let raw = &self.transfers[kill as usize];
        let hash = client.rpc.call("eth_sendRawTransaction", json!([raw])).await?;
        self.sent.push(hash.as_str().context("a hash")?.to_owned());
        Ok(())
    }

    /// Every acknowledged transaction and deposit counts once, the withdrawal is paid once, every other deposit counts
    /// at most once, and a node that saw none of it derives the same chain from Bitcoin.
    async fn verify(
        &self,
        chain: &Chain,
        deposited: &BTreeSet<u32>,
        follower: &Client,
    ) -> Result<()> {
        for hash in &self.sent {
            let receipt = chain.client.receipt(hash).await?;
            ensure!(receipt["status"] == "0x1", "{hash} failed");
        }
        chain.credited(&self.receiver, wei(KILLS.into())).await?;

        let payout = chain.paid_out(&self.user.script(), self.withdrawn.paid).await?;
        chain.knows_payout(self.withdrawn.index, &payout).await?;
        chain.is_sound().await?;
        let balance = chain.client.balance(&self.withdrawer.address).await?;
        ensure!(balance == self.balance, "the withdrawal was undone or repeated");
        let kept = chain.client.block(self.withdrawn.block).await?;
        let first = &self.withdrawn.receipt["blockHash"];
        ensure!(first == kept.hash.as_str(), "the withdrawal's block was replaced");

        for kill in 0..KILLS {
            let (to, sats) = deposit_of(kill);
            if deposited.contains(&kill) {
                chain.credited(&to, wei(sats)).await?;
            }
            let balance = chain.client.balance(&to).await?;
            ensure!(balance == 0 || balance == wei(sats), "{to} has {balance} wei");
        }
        let latest = chain.client.head("latest").await?.number;
        chain.agrees(follower, latest).await
    }
}

/// Deposits of different amounts to different addresses: what became of each can be seen afterwards.
fn deposit_of(kill: u32) -> (String, u64) {
    (fresh_address(&format!("deposit {kill}")), 100_000 + u64::from(kill))
}

/// What waits in the mempool, by sender and nonce, without what a block would add.
async fn waiting(client: &Client) -> Result<serde_json::Value> {
    client.rpc.call("txpool_content", json!([])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_waits_survives_a_kill_right_after_it_was_acknowledged() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let sender = dev.ready.accounts.first().context("no accounts")?.clone();
    let receiver = fresh_address("waits for a nonce");
    let sign = async |nonce: &str, price: &str| {
        let rest = ["--nonce", nonce, "--value", "1", "--gas-limit", "21000", "--gas-price"];
        chain
            .sign(
                &sender,
                &[&rest[..], &[price, "--priority-gas-price", price, &receiver]].concat(),
            )
            .await
    };
    // Without the one before them no block takes them.
    let replaced = sign("1", "1000000000").await?;
    let last = sign("1", "2000000000").await?;
    for raw in [&replaced, &last] {
        chain.client.rpc.call("eth_sendRawTransaction", json!([raw])).await?;
    }
    let before = waiting(&chain.client).await?;
    dev.restart().await?;
    ensure!(waiting(&dev.client()).await? == before, "the mempool is another one");
    let queued = before["queued"].as_object().context("queued")?;
    ensure!(queued.values().all(|nonces| nonces["1"]["maxFeePerGas"] == "0x77359400"), "{before}");
    // The missing one comes, both are in a block, and no later process finds them waiting.
    let first = sign("0", "1000000000").await?;
    chain.client.rpc.call("eth_sendRawTransaction", json!([first])).await?;
    chain.credited(&receiver, 2).await?;
    dev.restart().await?;
    let nothing = json!({ "pending": {}, "queued": {} });
    ensure!(waiting(&dev.client()).await? == nothing, "what was mined waits again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_change_nothing_about_the_result() -> Result<()> {
    let mut random = random()?;
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=1"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let [sender, withdrawer, ..] = &dev.ready.accounts[..] else { bail!("no accounts") };
    let mut work = Work::begin(&chain, sender, withdrawer, dir.path()).await?;
    let mut deposited = BTreeSet::new();
    for kill in 0..KILLS {
        work.send(&chain.client, kill).await?;
        let (to, sats) = deposit_of(kill);
        let amount = format!("{sats}sat");
        let arguments = ["bridge", "deposit", "--to", &to, "--amount", &amount];
        let _ = timeout(moment(&mut random), async {
            // It was acknowledged if this ends well; the kill still comes at its moment.
            if chain.client.kedge(&arguments).await.is_ok() {
                deposited.insert(kill);
            }
            std::future::pending::<()>().await;
        })
        .await;
        if kill % 4 == 3 {
            dev.stumble(Duration::from_millis(random.random_range(0..500))).await?;
            dev.reopen().await?;
        } else {
            dev.restart().await?;
        }
    }
    let l1 = format!("--l1-rpc={}", dev.ready.l1_rpc);
    let follower = Node::start(dir.path(), "follower", &["--network=dev", &l1]).await?;
    work.verify(&chain, &deposited, &follower.client()).await?;
    bitcoin_is_valid(&chain).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_of_separate_processes_change_nothing_about_the_result() -> Result<()> {
    let mut random = random()?;
    let dir = tempfile::tempdir()?;
    let mut net = Regtest::start(dir.path()).await?;
    let chain = net.chain();
    let [sender, withdrawer] = Account::tests();
    net.fund(&sender, 100_000_000).await?;
    net.fund(&withdrawer, 100_000_000).await?;
    let script = vault::vault_script(Network::Regtest.params()).context("regtest has a vault")?;
    let mut work = Work::begin(&chain, &sender, &withdrawer, dir.path()).await?;
    let mut deposited = BTreeSet::new();
    for kill in 0..KILLS {
        work.send(&chain.client, kill).await?;
        let (to, sats) = deposit_of(kill);
        let outputs = deposit_outputs(&script, &[(to.parse()?, Sats(sats))]);
        let tx = net.coins.pay(outputs, Amount::from_sat(1_000))?;
        chain.bitcoin.call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
        deposited.insert(kill);
        let _ = timeout(moment(&mut random), std::future::pending::<()>()).await;
        // Half of them hit the sequencer, the others the signers.
        match random.random_range(0..6) {
            signer @ 0..3 => net.signers[signer].restart().await?,
            _ => net.sequencer.restart().await?,
        }
    }
    let follower = Node::start(dir.path(), "follower", &net.options()).await?;
    work.verify(&chain, &deposited, &follower.client()).await
}

/// The embedded Bitcoin's blocks form one chain up to its tip.
async fn bitcoin_is_valid(chain: &Chain) -> Result<()> {
    let tip = chain.bitcoin.call("getbestblockhash", json!([])).await?;
    let genesis = chain.bitcoin.call("getblockhash", json!([0])).await?;
    let mut hash = tip.as_str().context("a hash")?.to_owned();
    while genesis != hash.as_str() {
        let block = block(&chain.bitcoin, &hash).await?;
        ensure!(block.block_hash().to_string() == hash, "another block under {hash}");
        hash = block.header.prev_blockhash.to_string();
    }
    Ok(())
}
