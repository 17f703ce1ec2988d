//! `trace_*`.

use crate::{
    setup::{FRIEND, Traces},
    world::{hex, refused, signer},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use anyhow::Context;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};

fn key(address: Address) -> String {
    format!("{address:#x}")
}

#[tokio::test]
async fn traces_of_a_transaction_are_found_by_hash_place_and_block() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let traces = t.world.ask("trace_transaction", rpc_params![t.call]).await?;
    let all = traces.as_array().context("a list")?;
    let places: Vec<_> = all.iter().map(|trace| trace["traceAddress"].clone()).collect();
    assert_eq!(places, [json!([]), json!([0]), json!([1]), json!([2])]);
    let receipt = t.world.ask("eth_getTransactionReceipt", rpc_params![t.call]).await?;
    assert_eq!(all[0]["result"]["gasUsed"], receipt["gasUsed"]);
    assert_eq!(all[0]["transactionPosition"], 0);
    assert_eq!(all[1]["action"]["value"], "0x5");
    assert_eq!(all[2]["error"], "Reverted");
    assert_eq!(all[3]["action"]["callType"], "delegatecall");
    for (place, expected) in [(json!([]), 0), (json!(["0x0"]), 1), (json!(["0x2"]), 3)] {
        assert_eq!(t.world.ask("trace_get", rpc_params![t.call, place]).await?, all[expected]);
    }
    let none = t.world.ask("trace_get", rpc_params![t.call, ["0x3"]]).await?;
    assert_eq!(none, Value::Null);
    assert_eq!(t.world.ask("trace_transaction", rpc_params![B256::ZERO]).await?, Value::Null);

    let block = t.world.ask("trace_block", rpc_params!["0x3"]).await?;
    let block = block.as_array().context("a list")?;
    assert_eq!(block.len(), 6);
    assert_eq!(&block[..4], &all[..]);
    assert_eq!(block[4]["error"], "Reverted");
    assert_eq!(block[5]["action"]["to"], json!(FRIEND));
    assert_eq!(t.world.ask("trace_block", rpc_params!["0x63"]).await?, Value::Null);
    assert_eq!(t.world.ask("trace_block", rpc_params!["0x0"]).await?, json!([]));
    let creation = t.world.ask("trace_transaction", rpc_params![t.create[0]]).await?;
    assert_eq!(creation[0]["type"], "create");
    assert_eq!(creation[0]["result"]["address"], json!(t.inner));
    Ok(())
}

#[tokio::test]
async fn replays_show_the_kinds_that_are_asked_for() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let replay =
        |hash: B256, kinds: Value| t.world.ask("trace_replayTransaction", rpc_params![hash, kinds]);
    let all = replay(t.call, json!(["trace", "vmTrace", "stateDiff"])).await?;
    assert_eq!(all["output"], json!(B256::with_last_byte(9)));
    assert_eq!(all["trace"].as_array().map(Vec::len), Some(4));
    let code = t.world.ask("eth_getCode", rpc_params![t.outer, "latest"]).await?;
    assert_eq!(all["vmTrace"]["code"], code);
    let ops = all["vmTrace"]["ops"].as_array().context("ops")?;
    assert_eq!(ops.iter().filter(|op| !op["sub"].is_null()).count(), 3);
    let inside = ops.iter().find_map(|op| op["sub"]["ops"].as_array()).context("a call")?;
    let store = inside.iter().find(|op| op["op"] == "SSTORE").context("a store")?;
    assert_eq!(
        (&store["ex"]["store"]["key"], &store["ex"]["store"]["val"]),
        (&json!("0x0"), &json!("0x5"))
    );
    let change = &all["stateDiff"][key(t.outer)]["storage"][B256::ZERO.to_string()]["*"];
    assert_eq!(change["to"], json!(B256::with_last_byte(9)));
    assert_eq!(
        all["stateDiff"][key(signer().address())]["nonce"]["*"],
        json!({ "from": "0x2", "to": "0x3" })
    );

    let lean = replay(t.call, json!(["trace"])).await?;
    assert_eq!((&lean["vmTrace"], &lean["stateDiff"]), (&Value::Null, &Value::Null));
    assert_eq!(lean["trace"], all["trace"]);

    let block = t.world.ask("trace_replayBlockTransactions", rpc_params!["0x3", ["trace"]]).await?;
    let block = block.as_array().context("a list")?;
    for (found, hash) in block.iter().zip([t.call, t.revert, t.transfer]) {
        assert_eq!(found["transactionHash"], json!(hash));
        assert_eq!(found["trace"], replay(hash, json!(["trace"])).await?["trace"]);
    }
    assert_eq!(block.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_filter_s_pages_put_together_are_the_whole() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let ask = |filter: Value| t.world.ask("trace_filter", rpc_params![filter]);
    let whole = ask(json!({})).await?;
    let mut blocks = Vec::new();
    for number in ["0x1", "0x2", "0x3"] {
        let traces = t.world.ask("trace_block", rpc_params![number]).await?;
        blocks.extend(traces.as_array().context("a list")?.clone());
    }
    assert_eq!(whole, json!(blocks));
    let mut pages = Vec::new();
    for after in (0..).step_by(4) {
        let page = ask(json!({ "after": after, "count": 4 })).await?;
        let page = page.as_array().context("a list")?;
        pages.extend(page.clone());
        if page.len() < 4 {
            break;
        }
    }
    assert_eq!(pages, blocks);
    let to = ask(json!({ "toAddress": [t.inner] })).await?;
    let to = to.as_array().context("a list")?;
    let expected = blocks.iter().filter(|trace| {
        trace["action"]["to"] == json!(t.inner) || trace["result"]["address"] == json!(t.inner)
    });
    assert_eq!(to.iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(to.len(), 5, "created, called three times by the other, and once from outside");
    let both = json!({ "fromAddress": [t.outer], "toAddress": [t.inner], "fromBlock": "0x3", "after": 1, "count": 1 });
    let both = ask(both).await?;
    assert_eq!(both.as_array().map(Vec::len), Some(1));
    assert_eq!(both[0]["traceAddress"], json!([1]));
    assert_eq!(
        ask(json!({ "fromBlock": "0x2", "toBlock": "0x2" })).await?.as_array().map(Vec::len),
        Some(2)
    );
    let tags = json!({ "fromBlock": "earliest", "toBlock": "latest" });
    assert_eq!(ask(tags).await?, whole);
    let last = ask(json!({ "fromBlock": "latest" })).await?;
    assert_eq!(last, t.world.ask("trace_block", rpc_params!["latest"]).await?);
    assert_eq!(ask(json!({ "toBlock": 2 })).await?, ask(json!({ "toBlock": "0x2" })).await?);
    for bad in [
        json!({ "fromBlock": "0x3", "toBlock": "0x2" }),
        json!({ "fromBlock": "latest", "toBlock": "earliest" }),
        json!({ "toBlock": "0x63" }),
        json!({ "toBlock": "newest" }),
        json!({ "address": t.inner }),
    ] {
        assert_eq!(refused(ask(bad).await).0, -32602);
    }
    Ok(())
}

#[tokio::test]
async fn calls_run_alone_one_after_the_other_or_signed() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let me = signer().address();
    let call = json!({ "from": me, "to": t.outer, "value": "0x9" });
    let one =
        t.world.ask("trace_call", rpc_params![&call, ["trace", "stateDiff"], "latest"]).await?;
    assert_eq!(one["trace"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        one["stateDiff"][key(t.inner)]["balance"]["*"],
        json!({ "from": "0x5", "to": "0xa" })
    );
    // Slot 0 of `inner`, read by code in its place.
    let read = Bytes::from_static(&[0x5f, 0x54, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3]);
    let state = json!({ t.inner.to_string(): { "code": read } });
    let seen = t
        .world
        .ask("trace_call", rpc_params![json!({ "to": t.inner }), ["trace"], "latest", state])
        .await?;
    assert_eq!(seen["output"], json!(B256::with_last_byte(5)));

    let send = json!({ "from": me, "to": t.inner, "value": "0x7" });
    let many = json!([[send, ["trace"]], [send, ["stateDiff"]], [call, ["stateDiff"]]]);
    let many = t.world.ask("trace_callMany", rpc_params![many, "latest"]).await?;
    assert_eq!(
        many[1]["stateDiff"][key(t.inner)]["balance"]["*"],
        json!({ "from": "0xc", "to": "0x13" })
    );
    assert_eq!(
        many[2]["stateDiff"][key(t.inner)]["balance"]["*"],
        json!({ "from": "0x13", "to": "0x18" })
    );
    assert_eq!(many[0]["stateDiff"], Value::Null);

    let raw = t.world.signed(5, 100_000, t.inner, U256::from(3), Bytes::new());
    let traced =
        t.world.ask("trace_rawTransaction", rpc_params![&raw, ["trace", "stateDiff"]]).await?;
    assert_eq!(traced["trace"][0]["action"]["value"], "0x3");
    let paid = &traced["stateDiff"][key(me)]["balance"]["*"];
    let hash = t.world.send(&raw).await?;
    t.world.make_block(false)?;
    let receipt = t.world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?;
    assert!(hex(&receipt["l1Fee"]) > U256::ZERO);
    let replayed = t.world.ask("trace_replayTransaction", rpc_params![hash, ["stateDiff"]]).await?;
    let spent = &replayed["stateDiff"][key(me)]["balance"]["*"];
    let cost = hex(&spent["from"]) - hex(&spent["to"]);
    let fee =
        hex(&receipt["gasUsed"]) * hex(&receipt["effectiveGasPrice"]) + hex(&receipt["l1Fee"]);
    assert_eq!(cost, fee + U256::from(3), "the L1 fee is part of what a transaction costs");
    assert!(
        hex(&paid["from"]) - hex(&paid["to"]) > fee / U256::from(2),
        "and of what it would cost"
    );
    let used = t.world.ask("trace_rawTransaction", rpc_params![&raw, ["trace"]]).await;
    assert_eq!(refused(used).0, -32000, "its nonce is used");
    assert_eq!(
        refused(t.world.ask("trace_rawTransaction", rpc_params!["0x7e", ["trace"]]).await).0,
        -32602
    );
    Ok(())
}
