//! `forge script` and `forge test` on a live chain.

use anyhow::{Context, Result, ensure};
use kedge_tests::{
    chain::fresh_address,
    clients::{Foundry, Live},
    kedge::quantity,
    tools::Cast,
};
use serde_json::{Value, json};

/// The receipts of what a run of the deploy script sent.
async fn deploy(foundry: &Foundry, live: &Live, to: &str) -> Result<Vec<Value>> {
    let ready = &live.dev.ready;
    let arguments = [
        "script",
        "script/Deploy.s.sol",
        "--sig",
        "run(address)",
        to,
        "--rpc-url",
        &ready.rpc,
        "--private-key",
        &ready.accounts[0].key,
        "--broadcast",
        // Each in a block of its own.
        "--slow",
    ];
    let (done, told) = foundry.forge(&arguments, &[]).await?;
    ensure!(done, "forge script: {told}");
    let run = format!("broadcast/Deploy.s.sol/{}/run-latest.json", ready.chain_id);
    let run: Value = serde_json::from_slice(&std::fs::read(foundry.root().join(run))?)?;
    Ok(run["receipts"].as_array().context("no receipts")?.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_deploys_and_calls_and_sends_nothing_when_it_would_revert() -> Result<()> {
    let live = Live::start().await?;
    let foundry = Foundry::new(live.scratch())?;
    let client = live.dev.client();
    let from = &live.dev.ready.accounts[0];
    let cast = Cast::new(client.rpc.url());
    let nonce = || client.rpc.call("eth_getTransactionCount", json!([from.address, "latest"]));

    // Twice: a second run is no resumption of the first.
    for _ in 0..2 {
        let to = fresh_address(&format!("shared out {}", nonce().await?));
        let receipts = deploy(&foundry, &live, &to).await?;
        ensure!(receipts.len() == 4, "{} receipts instead of four", receipts.len());
        for receipt in &receipts {
            ensure!(receipt["status"] == "0x1", "failed: {receipt}");
            let hash = receipt["transactionHash"].as_str().context("no hash")?;
            let found = client.receipt(hash).await?;
            ensure!(found["blockHash"] == receipt["blockHash"], "{found} is not {receipt}");
            ensure!(quantity(&found["l1Fee"])? > 0, "no fee for Bitcoin space: {found}");
        }
        let token = receipts[0]["contractAddress"].as_str().context("no contract")?;
        let held = cast.run(&["call", token, "balanceOf(address)(uint256)", &to]).await?;
        ensure!(held == "10", "{to} holds {held}");
        let supply = cast.run(&["call", token, "totalSupply()(uint256)"]).await?;
        ensure!(supply.starts_with("1005"), "the supply is {supply}");
        ensure!(client.balance(&to).await? == 7, "{to} has not the coins");

        let before = nonce().await?;
        let arguments = [
            "script",
            "script/Deploy.s.sol",
            "--sig",
            "overspend(address,address)",
            token,
            &to,
            "--rpc-url",
            client.rpc.url(),
            "--private-key",
            &from.key,
            "--broadcast",
        ];
        let (done, told) = foundry.forge(&arguments, &[]).await?;
        ensure!(!done && told.contains("InsufficientBalance"), "overspending: {told}");
        ensure!(nonce().await? == before, "something was sent");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_on_a_fork_read_the_chain_at_latest_and_at_a_pinned_block() -> Result<()> {
    let live = Live::start().await?;
    let foundry = Foundry::new(live.scratch())?;
    let ready = &live.dev.ready;
    let client = live.dev.client();
    let holder = fresh_address("holder on a fork");
    let receipts = deploy(&foundry, &live, &holder).await?;
    let token = receipts[0]["contractAddress"].as_str().context("no contract")?;
    let pinned = u64::try_from(quantity(&receipts[3]["blockNumber"])?)?;
    let send = |arguments: &[&str]| {
        let all = [&["send", "--private-key", &ready.accounts[0].key], arguments].concat();
        let all: Vec<_> = all.into_iter().map(str::to_owned).collect();
        async move {
            let cast = Cast::new(&ready.rpc);
            cast.json(&all.iter().map(String::as_str).collect::<Vec<_>>()).await
        }
    };
    send(&[token, "transfer(address,uint256)", &holder, "30"]).await?;
    send(&[&holder, "--value", "4"]).await?;
    let latest = client.head("latest").await?.number;
    ensure!(latest > pinned, "nothing after the pinned block");

    for (number, balance, coins) in [(latest, "40", "11"), (pinned, "10", "7")] {
        let tag = format!("{number:#x}");
        let block = client.rpc.call("eth_getBlockByNumber", json!([tag, false])).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
        let code = Cast::new(&ready.rpc).run(&["codehash", token]).await?;
        let environment = [
            ("TOKEN", token.to_owned()),
            ("HOLDER", holder.clone()),
            ("BALANCE", balance.to_owned()),
            ("COINS", coins.to_owned()),
            ("NUMBER", number.to_string()),
            ("CHAIN", ready.chain_id.to_string()),
            ("TIMESTAMP", quantity(&block["timestamp"])?.to_string()),
            ("PARENT", text(&block["parentHash"])?),
            ("CODE_HASH", code),
            ("DEPLOYED", quantity(&receipts[0]["blockNumber"])?.to_string()),
            ("TRANSFER", text(&receipts[1]["transactionHash"])?),
            ("RPC", ready.rpc.clone()),
        ];
        let pin = number.to_string();
        let mut arguments = vec!["test", "--fork-url", &ready.rpc, "--json", "-vvv"];
        if number != latest {
            arguments.extend(["--fork-block-number", &pin]);
        }
        let (_, told) = foundry.forge(&arguments, &environment).await?;
        let json = told.find('{').and_then(|start| told.get(start..)).context("no JSON")?;
        let mut answers = serde_json::Deserializer::from_str(json).into_iter::<Value>();
        let results = answers.next().with_context(|| told.clone())??;
        let results = &results["test/Live.t.sol:LiveTest"]["test_results"];
        let results = results.as_object().with_context(|| format!("no results: {told}"))?;
        ensure!(results.len() == 7, "{} tests instead of seven at {number}", results.len());
        for (name, result) in results {
            ensure!(result["status"] == "Success", "{name} at block {number}: {result}");
        }
    }
    Ok(())
}
