//! `debug_*`.

use crate::{
    setup::{FRIEND, Traces},
    world::{hex, refused, signer},
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Decodable;
use anyhow::Context;
use jsonrpsee::rpc_params;
use kedge_genesis::L2Number;
use kedge_store::L2Rows;
use kedge_vm::{Header, Witness, execute_on_witness};
use serde_json::{Value, json};

impl Traces {
    async fn trace(&self, hash: B256, options: Value) -> anyhow::Result<Value> {
        Ok(self.world.ask("debug_traceTransaction", rpc_params![hash, options]).await?)
    }
}

#[tokio::test]
async fn the_call_tracer_shows_calls_reverts_and_logs() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let me = signer().address();
    let config = json!({ "tracer": "callTracer", "tracerConfig": { "withLog": true } });
    let root = t.trace(t.call, config).await?;
    let receipt = t.world.ask("eth_getTransactionReceipt", rpc_params![t.call]).await?;
    assert_eq!(
        (&root["type"], &root["from"], &root["to"]),
        (&json!("CALL"), &json!(me), &json!(t.outer))
    );
    assert_eq!((&root["value"], &root["input"]), (&json!("0x9"), &json!("0x0102030405")));
    assert_eq!(root["gas"], json!(U256::from(500_000)), "the transaction's limit");
    assert_eq!(root["gasUsed"], receipt["gasUsed"]);
    assert_eq!(root["output"], json!(B256::with_last_byte(9)));
    let calls = root["calls"].as_array().context("calls")?;
    let kinds: Vec<_> = calls.iter().map(|call| call["type"].clone()).collect();
    assert_eq!(kinds, ["CALL", "CALL", "DELEGATECALL"]);
    assert!(
        calls.iter().all(|call| call["from"] == json!(t.outer) && call["to"] == json!(t.inner))
    );
    assert_eq!(calls[0]["value"], "0x5");
    assert_eq!(calls[1]["error"], "execution reverted");
    assert_eq!(calls[1]["output"], json!(B256::with_last_byte(7)));
    assert_eq!(calls[0]["logs"][0]["address"], json!(t.inner));
    assert_eq!(calls[2]["logs"][0]["address"], json!(t.outer), "a delegate logs for its caller");
    assert_eq!(calls[2]["logs"][0]["topics"], json!([B256::with_last_byte(0x2a)]));
    assert!(calls[1].get("logs").is_none());

    let without = t.trace(t.call, json!({ "tracer": "callTracer" })).await?;
    assert!(without["calls"][0].get("logs").is_none());
    let top = json!({ "tracer": "callTracer", "tracerConfig": { "onlyTopCall": true } });
    assert!(t.trace(t.call, top).await?.get("calls").is_none());

    let failed = t.trace(t.revert, json!({ "tracer": "callTracer" })).await?;
    assert_eq!(failed["error"], "execution reverted");
    assert_eq!(failed["output"], json!(B256::with_last_byte(7)));
    Ok(())
}

#[tokio::test]
async fn the_flat_call_tracer_shows_where_each_call_is() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let flat = t.trace(t.call, json!({ "tracer": "flatCallTracer" })).await?;
    let flat = flat.as_array().context("a list")?;
    let places: Vec<_> = flat.iter().map(|call| call["traceAddress"].clone()).collect();
    assert_eq!(places, [json!([]), json!([0]), json!([1]), json!([2])]);
    assert_eq!(flat[0]["subtraces"], 3);
    assert_eq!(flat[2]["error"], "execution reverted");
    assert_eq!(flat[3]["action"]["callType"], "delegatecall");
    assert!(flat.iter().all(|call| call["transactionHash"] == json!(t.call)));
    assert!(flat.iter().all(|call| call["blockNumber"] == 3));
    let config = json!({ "convertParityErrors": true });
    let options = json!({ "tracer": "flatCallTracer", "tracerConfig": config });
    assert_eq!(t.trace(t.call, options).await?[2]["error"], "Reverted");
    Ok(())
}

#[tokio::test]
async fn the_prestate_tracer_shows_what_was_and_what_changed() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let me = signer().address();
    let prestate = |config: Value| {
        t.trace(t.call, json!({ "tracer": "prestateTracer", "tracerConfig": config }))
    };
    let before = prestate(json!({})).await?;
    let key = |address: alloy_primitives::Address| format!("{address:#x}");
    let balance = t.world.quantity("eth_getBalance", rpc_params![me, "0x2"]).await?;
    assert_eq!(hex(&before[key(me)]["balance"]), balance);
    assert_eq!(before[key(me)]["nonce"], 2);
    let code = t.world.ask("eth_getCode", rpc_params![t.outer, "latest"]).await?;
    assert_eq!(before[key(t.outer)]["code"], code);
    let zero = B256::ZERO.to_string();
    assert_eq!(before[key(t.outer)]["storage"][&zero], json!(B256::ZERO));
    let lean = prestate(json!({ "disableCode": true, "disableStorage": true })).await?;
    assert!(lean[key(t.outer)].get("code").is_none());
    assert!(lean[key(t.outer)].get("storage").is_none());

    let diff = prestate(json!({ "diffMode": true })).await?;
    assert_eq!(diff["post"][key(t.outer)]["storage"][&zero], json!(B256::with_last_byte(9)));
    assert_eq!(diff["post"][key(t.inner)]["storage"][&zero], json!(B256::with_last_byte(5)));
    assert_eq!(diff["post"][key(t.inner)]["balance"], "0x5");
    assert_eq!(diff["pre"][key(me)]["nonce"], 2);
    assert_eq!(diff["post"][key(me)]["nonce"], 3);
    Ok(())
}

#[tokio::test]
async fn small_tracers_answer_alone_and_through_the_mux() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let selectors = t.trace(t.call, json!({ "tracer": "4byteTracer" })).await?;
    assert_eq!(selectors, json!({ "0x01020304-1": 1 }));
    assert_eq!(t.trace(t.call, json!({ "tracer": "noopTracer" })).await?, json!({}));
    let calls = t.trace(t.call, json!({ "tracer": "callTracer" })).await?;
    let config = json!({ "4byteTracer": null, "callTracer": {}, "prestateTracer": {} });
    let mux = t.trace(t.call, json!({ "tracer": "muxTracer", "tracerConfig": config })).await?;
    assert_eq!(mux["4byteTracer"], selectors);
    assert_eq!(mux["callTracer"], calls);
    let prestate = t.trace(t.call, json!({ "tracer": "prestateTracer" })).await?;
    assert_eq!(mux["prestateTracer"], prestate);
    Ok(())
}

#[tokio::test]
async fn struct_logs_show_what_the_options_ask_for() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let whole = t.trace(t.call, json!({})).await?;
    let receipt = t.world.ask("eth_getTransactionReceipt", rpc_params![t.call]).await?;
    assert_eq!(U256::from(whole["gas"].as_u64().context("gas")?), hex(&receipt["gasUsed"]));
    assert_eq!(whole["failed"], false);
    assert_eq!(whole["returnValue"], json!(B256::with_last_byte(9)));
    let steps = whole["structLogs"].as_array().context("steps")?;
    let ops = |op: &str| steps.iter().filter(|step| step["op"] == op).collect::<Vec<_>>();
    assert_eq!(
        (&steps[0]["pc"], &steps[0]["op"], &steps[0]["depth"]),
        (&json!(0), &json!("PUSH0"), &json!(1))
    );
    assert_eq!(ops("CALL").len(), 2);
    assert_eq!((ops("DELEGATECALL").len(), ops("REVERT").len(), ops("RETURN").len()), (1, 1, 1));
    assert!(steps.iter().any(|step| step["depth"] == 2));
    let store = ops("SSTORE")[0];
    assert_eq!(store["stack"], json!(["0x5", "0x0"]));
    assert_eq!(store["storage"][B256::ZERO.to_string()], json!(B256::with_last_byte(5)));
    assert!(
        steps.iter().all(|step| step.get("memory").is_none() && step.get("returnData").is_none())
    );

    let lean = json!({ "disableStack": true, "disableStorage": true });
    let lean = t.trace(t.call, lean).await?;
    let lean = lean["structLogs"].as_array().context("steps")?;
    assert_eq!(lean.len(), steps.len());
    assert!(lean.iter().all(|step| step.get("stack").is_none() && step.get("storage").is_none()));

    for memory in [json!({ "enableMemory": true }), json!({ "disableMemory": false })] {
        let fat = t.trace(t.call, memory).await?;
        let fat = fat["structLogs"].as_array().context("steps")?;
        let end = fat.last().context("a last step")?;
        assert_eq!(end["memory"], json!([B256::with_last_byte(9)]));
    }
    let data = t.trace(t.call, json!({ "enableReturnData": true })).await?;
    let data = data["structLogs"].as_array().context("steps")?;
    assert!(data.iter().any(|step| step["returnData"] == json!(B256::with_last_byte(7))));

    let first = t.trace(t.call, json!({ "limit": 3 })).await?;
    assert_eq!(first["structLogs"], json!(&steps[..3]));
    assert_eq!((&first["gas"], &first["returnValue"]), (&whole["gas"], &whole["returnValue"]));
    let none = t.trace(t.call, json!({ "limit": 0 })).await?;
    assert_eq!(none, whole, "zero is no limit");
    assert_eq!(t.trace(t.revert, json!({ "tracer": "" })).await?["failed"], true);
    Ok(())
}

#[tokio::test]
async fn a_block_s_traces_are_those_of_its_transactions() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let block = t.world.ask("eth_getBlockByNumber", rpc_params!["0x3", false]).await?;
    let raw = t.world.ask("debug_getRawBlock", rpc_params!["0x3"]).await?;
    for options in [json!({}), json!({ "tracer": "callTracer" }), json!({ "limit": 2 })] {
        let traces = t.world.ask("debug_traceBlockByNumber", rpc_params!["0x3", &options]).await?;
        let all = traces.as_array().context("a list")?;
        assert_eq!(all.len(), 3);
        for (trace, hash) in all.iter().zip([t.call, t.revert, t.transfer]) {
            assert_eq!(trace["txHash"], json!(hash));
            assert_eq!(trace["result"], t.trace(hash, options.clone()).await?);
        }
        let hash = &block["hash"];
        let same = t.world.ask("debug_traceBlockByHash", rpc_params![hash, &options]).await?;
        assert_eq!(same, traces);
        assert_eq!(t.world.ask("debug_traceBlock", rpc_params![&raw, &options]).await?, traces);
    }
    let deposits = t
        .world
        .ask("debug_traceBlockByNumber", rpc_params!["0x1", json!({ "tracer": "callTracer" })]);
    let deposits = deposits.await?;
    let receipts = t.world.ask("eth_getBlockReceipts", rpc_params!["0x1"]).await?;
    assert_eq!(deposits.as_array().map(Vec::len), Some(2));
    for (trace, receipt) in
        deposits.as_array().into_iter().flatten().zip(receipts.as_array().context("receipts")?)
    {
        assert_eq!(
            trace["result"]["gasUsed"], receipt["gasUsed"],
            "deposits are traced as they ran"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_traced_is_refused_with_a_reason() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let script = json!({ "tracer": "{ step: function(log) {}, result: function() { return 1 } }" });
    let genesis = t.world.ask("eth_getBlockByNumber", rpc_params!["0x0", false]).await?;
    let nowhere = B256::repeat_byte(1);
    let far = json!({ "txIndex": "0x4" });
    let call = json!({ "to": t.inner });
    let table = [
        (
            "debug_traceTransaction",
            rpc_params![t.call, script],
            -32602,
            "JavaScript tracers are not supported",
        ),
        (
            "debug_traceTransaction",
            rpc_params![t.call, json!({ "tracer": "x" })],
            -32602,
            "tracer x does not exist",
        ),
        (
            "debug_traceTransaction",
            rpc_params![t.call, json!({ "timeout": "soon" })],
            -32602,
            "timeout",
        ),
        ("debug_traceTransaction", rpc_params![nowhere], -32000, "transaction not found"),
        (
            "debug_traceBlockByHash",
            rpc_params![&genesis["hash"]],
            -32000,
            "genesis is not traceable",
        ),
        ("debug_traceBlockByNumber", rpc_params!["0x63"], -32000, "not found"),
        ("debug_traceBlockByNumber", rpc_params!["3"], -32602, ""),
        ("debug_traceBlock", rpc_params!["0x00"], -32602, "could not decode block"),
        ("debug_traceCall", rpc_params![&call, "0x3", far], -32602, "out of range"),
        ("debug_intermediateRoots", rpc_params![nowhere], -32000, "not found"),
        ("debug_executionWitness", rpc_params!["0x0"], -32000, "genesis has no witness"),
    ];
    for (method, params, code, words) in table {
        let (found, message, _) = refused(t.world.ask(method, params).await);
        assert_eq!(found, code, "{method}: {message}");
        assert!(message.contains(words), "{method}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_traced_call_sees_overrides_and_the_place_within_a_block() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let trace = |request: Value, block: &'static str, options: Value| {
        t.world.ask("debug_traceCall", rpc_params![request, block, options])
    };
    let call = json!({ "from": signer().address(), "to": t.outer, "value": "0x9" });
    let plain = trace(call.clone(), "latest", json!({ "tracer": "callTracer" })).await?;
    assert_eq!(plain["output"], json!(B256::with_last_byte(9)));
    assert_eq!(plain["calls"].as_array().map(Vec::len), Some(3));

    // NUMBER, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN
    let code = Bytes::from_static(&[0x43, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3]);
    let options = json!({
        "tracer": "callTracer",
        "stateOverrides": { t.outer.to_string(): { "code": code } },
        "blockOverrides": { "number": "0x1234" },
    });
    let pretended = trace(call, "latest", options).await?;
    assert_eq!(pretended["output"], json!(B256::from(U256::from(0x1234))));

    // SLOAD of slot 0 of `inner`, before and after the first transaction of block 3.
    let read = Bytes::from_static(&[0x5f, 0x54, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3]);
    for (index, expected) in [("0x0", 0), ("0x1", 5), ("0x3", 5)] {
        let options = json!({
            "tracer": "callTracer",
            "txIndex": index,
            "stateOverrides": { t.inner.to_string(): { "code": read } },
        });
        let seen = trace(json!({ "to": t.inner }), "0x3", options).await?;
        assert_eq!(seen["output"], json!(B256::with_last_byte(expected)), "at {index}");
    }
    // The identity precompile, somewhere else.
    let options = json!({
        "tracer": "callTracer",
        "stateOverrides": {
            Address::with_last_byte(4).to_string(): { "movePrecompileToAddress": FRIEND },
        },
    });
    let moved = trace(json!({ "to": FRIEND, "input": "0x0102" }), "latest", options).await?;
    assert_eq!(moved["output"], json!("0x0102"));

    let (code, message, _) = refused(
        trace(json!({ "from": FRIEND, "to": t.inner, "value": "0x64" }), "latest", json!({})).await,
    );
    assert_eq!(code, -32000);
    assert!(message.contains("insufficient funds"), "{message}");
    Ok(())
}

#[tokio::test]
async fn raw_data_hashes_to_what_the_block_says() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let block = t.world.ask("eth_getBlockByNumber", rpc_params!["0x3", false]).await?;
    let bytes = |value: Value| serde_json::from_value::<Bytes>(value);
    let header = bytes(t.world.ask("debug_getRawHeader", rpc_params![&block["hash"]]).await?)?;
    assert_eq!(json!(keccak256(&header)), block["hash"]);
    let raw = bytes(t.world.ask("debug_getRawBlock", rpc_params!["0x3"]).await?)?;
    assert_eq!(U256::from(raw.len()), hex(&block["size"]));
    assert!(
        raw.windows(header.len()).any(|part| part == &header[..]),
        "a block begins with its header"
    );
    let transactions = t.world.ask("debug_getRawTransactions", rpc_params!["0x3"]).await?;
    for (index, hash) in [t.call, t.revert, t.transfer].into_iter().enumerate() {
        let raw = t.world.ask("debug_getRawTransaction", rpc_params![hash]).await?;
        assert_eq!(raw, transactions[index]);
        assert_eq!(keccak256(bytes(raw)?), hash);
    }
    let receipts = t.world.ask("debug_getRawReceipts", rpc_params!["0x3"]).await?;
    let receipts: Vec<Bytes> = serde_json::from_value(receipts)?;
    let root = alloy_consensus::proofs::ordered_trie_root_with_encoder(&receipts, |item, out| {
        out.extend_from_slice(item);
    });
    assert_eq!(json!(root), block["receiptsRoot"]);
    let waiting = t.world.signed(5, 21_000, FRIEND, U256::ONE, Bytes::new());
    let hash = t.world.send(&waiting).await?;
    assert_eq!(t.world.ask("debug_getRawTransaction", rpc_params![hash]).await?, json!(waiting));
    let none = t.world.ask("debug_getRawTransaction", rpc_params![B256::ZERO]).await?;
    assert_eq!(none, Value::Null);
    assert_eq!(t.world.ask("debug_getBadBlocks", rpc_params![]).await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn roots_end_at_the_header_s_and_a_witness_is_enough_to_execute() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    for number in 1..=3u64 {
        let at = format!("{number:#x}");
        let block = t.world.ask("eth_getBlockByNumber", rpc_params![&at, false]).await?;
        let roots = t.world.ask("debug_intermediateRoots", rpc_params![&block["hash"]]).await?;
        let roots = roots.as_array().context("a list")?;
        assert_eq!(roots.len(), block["transactions"].as_array().context("hashes")?.len());
        assert_eq!(roots.last(), Some(&block["stateRoot"]));

        let witness = t.world.ask("debug_executionWitness", rpc_params![&at]).await?;
        let same =
            t.world.ask("debug_executionWitnessByBlockHash", rpc_params![&block["hash"]]).await?;
        assert_eq!(same, witness);
        let list = |name: &str| serde_json::from_value::<Vec<Bytes>>(witness[name].clone());
        let by_hash = |name: &str| -> anyhow::Result<_> {
            Ok(list(name)?.into_iter().map(|bytes| (keccak256(&bytes), bytes)).collect())
        };
        let headers: Vec<Header> = list("headers")?
            .iter()
            .map(|bytes| Header::decode(&mut &bytes[..]))
            .collect::<Result<_, _>>()?;
        let parent = headers.last().context("the parent's")?.clone();
        assert_eq!(parent.number + 1, number);
        let read = Witness { nodes: by_hash("state")?, codes: by_hash("codes")?, headers };
        let payload =
            t.world.engine.store().reader().payload(L2Number(number))?.context("payload")?;
        let executed = execute_on_witness(t.world.engine.evm(), &parent, &payload, &read)?;
        assert_eq!(json!(executed.hash), block["hash"]);
        let keys = list("keys")?;
        assert!(
            keys.contains(&Bytes::copy_from_slice(kedge_genesis::predeploys::L1_BLOCK.as_slice()))
        );
        assert!(keys.iter().all(|key| key.len() == 20 || key.len() == 32));
    }
    Ok(())
}
