//! `kedge challenger` as a process beside the rollup that it watches.

use anyhow::{Context, Result, ensure};
use kedge_tests::{
    kedge::{Client, Dev, STOP, binary, output},
    process::{Process, read},
};
use serde_json::{Value, json};
use std::path::Path;

/// A challenger and its ready line.
async fn challenger(dir: &Path, dev: &Dev, more: &[&str]) -> Result<(Process, Value)> {
    let mut arguments = vec![
        "challenger".to_owned(),
        "--json".to_owned(),
        "--network=dev".to_owned(),
        format!("--datadir={}", dir.join("challenger").display()),
        format!("--l1-rpc={}", dev.ready.l1_rpc),
    ];
    arguments.extend(more.iter().map(|option| (*option).to_owned()));
    let mut process = Process::start("challenger", &binary(), &arguments, dir)?;
    let line = process.line().await?;
    let ready: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(ready["event"] == "ready", "not ready: {line}");
    Ok((process, ready))
}

/// The next event of that name, past others.
async fn event(process: &mut Process, name: &str) -> Result<Value> {
    loop {
        let line = process.line().await?;
        let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if event["event"] == name {
            return Ok(event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenger_reports_judges_and_says_what_keeps_it_from_acting() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    // A key of its own, whose wallet has no coins: the public one belongs to the challenger of `kedge dev`.
    let key = dir.path().join("key").display().to_string();
    read(&binary(), ["key", "new", "--out", &key]).await?;
    let own = format!("--wallet-key-file={key}");
    let (mut process, ready) =
        challenger(dir.path(), &dev, &["--metrics-port=0", "--rpc-port=0", &own]).await?;

    // Its key and wallet are those that the command line shows.
    let shown =
        read(&binary(), ["key", "show", "--network=dev", "--key-file", &key, "--json"]).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(ready["challenger"]["publicKey"] == shown["publicKey"], "{ready} {shown}");
    ensure!(ready["challenger"]["wallet"] == shown["walletAddress"], "{ready} {shown}");
    let alert = event(&mut process, "alert").await?;
    ensure!(alert["alert"] == "no_funds" && alert["address"] == shown["walletAddress"], "{alert}");

    let rpc = Client::new(ready["rpc"].as_str().context("no rpc")?);
    let status = rpc.rpc.call("kedge_syncStatus", json!([])).await?;
    ensure!(status["roles"]["challenger"] == true, "{status}");

    // The rollup's proposer asserts what is right.
    dev.client().kedge(&["l1", "mine", "20"]).await?;
    event(&mut process, "assertion_right").await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let metrics = ready["metrics"].as_str().context("no metrics")?;
    let text = http.get(metrics).send().await?.text().await?;
    for line in [
        "kedge_challenger_alerts{alert=\"no_funds\"} 1",
        "kedge_challenger_open_wrong_assertions 0",
        "kedge_challenger_blocks_to_deadline -1",
        "kedge_challenger_events_total{event=\"alert\"} 1",
    ] {
        ensure!(text.lines().any(|found| found == line), "no {line} in {text}");
    }

    // Bitcoin goes away and comes back.
    dev.process.kill().await?;
    let alert = event(&mut process, "alert").await?;
    ensure!(alert["alert"] == "bitcoin_unreachable", "{alert}");
    dev.reopen().await?;
    let over = event(&mut process, "alert_over").await?;
    ensure!(over["alert"] == "bitcoin_unreachable", "{over}");
    process.interrupt(STOP).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_challenges_in_a_dry_run_and_refuses_such_options_without() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let l1 = format!("--l1-rpc={}", dev.ready.l1_rpc);
    let datadir = format!("--datadir={}", dir.path().join("node").display());
    let node = ["node", "--json", "--rpc-port=0", &l1, &datadir];
    let refused = output(&[&node[..], &["--dry-run"]].concat()).await?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && error.contains("add --challenger"), "{error}");

    let all = [&node[..], &["--challenger", "--dry-run"]].concat();
    let mut process = Process::start("node", &binary(), all, dir.path())?;
    let ready: Value = serde_json::from_str(&process.line().await?)?;
    ensure!(ready["challenger"] == json!({ "dryRun": true }), "{ready}");
    dev.client().kedge(&["l1", "mine", "20"]).await?;
    event(&mut process, "assertion_right").await?;
    process.interrupt(STOP).await
}
