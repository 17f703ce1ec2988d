//! `kedge dev --dishonest-proposer`: a wrong assertion from its posting to the challenger's reward.

use anyhow::{Context, Result, ensure};
use kedge_tests::{
    chain::Chain,
    kedge::{Dev, STOP},
    wallet::Wallet,
};
use serde_json::Value;

/// Blocks that two minutes have at the default interval of five seconds.
const TWO_MINUTES: u64 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_watches_the_challenger_win_and_withdrawals_are_not_held_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=1", "--dishonest-proposer"]).await?;
    let chain = Chain { client: dev.client(), bitcoin: dev.bitcoin() };
    let start = chain.client.kedge(&["status"]).await?["l1Tip"]["height"].as_u64();
    let user = Wallet::new();
    let to = user.address().to_string();
    let rich = dev.ready.accounts.first().context("an account")?.clone();
    let withdrawn = chain.withdraw(&rich, &to, 10_000_000, dir.path()).await?;

    let mut last = Value::Null;
    let story = ["lying", "wrong_assertion", "proof_published", "rejected", "slashed", "rewarded"];
    for expected in story {
        // Several disputes may run beside each other later on; the first one is told in this order.
        while last["event"] != expected {
            last = serde_json::from_str(&dev.process.line().await?)?;
        }
    }
    let (start, end) = (start.context("a tip")?, last["height"].as_u64().context("a height")?);
    ensure!(end - start <= TWO_MINUTES, "from block {start} to {end}");

    let all = chain.client.kedge(&["assertions"]).await?;
    let all = all.as_array().context("a list")?;
    let lie = all.iter().find(|one| one["id"] == last["id"]).context("the wrong one")?;
    ensure!(lie["stage"] == "rejected" && lie["bondStage"] == "slashed", "{lie}");
    ensure!(lie["best"] == false && lie["wrongSegment"] == lie["rejectedSegment"], "{lie}");
    let settled = |one: &&Value| one["stage"] == "settled";
    ensure!(all.iter().filter(settled).all(|one| one["agrees"] == true), "a lie settled");

    let payout = chain.paid_out(&user.script(), withdrawn.paid).await?;
    chain.knows_payout(withdrawn.index, &payout).await?;
    chain.is_sound().await?;
    dev.process.interrupt(STOP).await
}
