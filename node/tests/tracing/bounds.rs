//! What a trace may take, and that nothing else waits for it.

use crate::{
    setup::Traces,
    world::{refused, signer},
};
use alloy_primitives::Bytes;
use jsonrpsee::{
    RpcModule,
    core::client::ClientT,
    http_client::{HttpClient, HttpClientBuilder},
    rpc_params,
};
use kedge::rpc::{HeavyPool, NodeHandle, RpcConfig, ServerHandle, Submission, serve, types::Roles};
use serde_json::{Value, json};
use std::{sync::mpsc, time::Duration};

/// Another server on the same chain.
async fn server(t: &Traces, config: RpcConfig) -> anyhow::Result<(ServerHandle, HttpClient)> {
    let node = NodeHandle {
        params: t.world.params,
        store: t.world.engine.store().clone(),
        engine: t.world.engine.clone(),
        submission: Submission::Mempool(t.world.mempool.clone()),
        roles: Roles::default(),
        follower: None,
    };
    let server = serve(config, node, RpcModule::new(())).await?;
    let client = HttpClientBuilder::default().build(format!("http://{}", server.address()))?;
    Ok((server, client))
}

fn config() -> RpcConfig {
    RpcConfig::new(([127, 0, 0, 1], 0).into())
}

#[tokio::test]
async fn light_calls_answer_while_heavy_ones_fill_their_pool() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let heavy = HeavyPool::new(2);
    let (_server, client) = server(&t, RpcConfig { heavy: heavy.clone(), ..config() }).await?;
    let mut release = Vec::new();
    let mut blocked = Vec::new();
    for _ in 0..2 {
        let (sender, receiver) = mpsc::channel::<()>();
        release.push(sender);
        let pool = heavy.clone();
        blocked
            .push(tokio::spawn(async move { pool.run(move || Ok(receiver.recv().is_ok())).await }));
    }
    while heavy.free() > 0 {
        tokio::task::yield_now().await;
    }
    let me = signer().address();
    let heavy_calls = [
        ("debug_traceTransaction", rpc_params![t.call, json!({ "tracer": "callTracer" })]),
        ("trace_block", rpc_params!["0x3"]),
        ("ots_traceTransaction", rpc_params![t.call]),
        ("eth_getLogs", rpc_params![json!({ "fromBlock": "0x0" })]),
        ("eth_getProof", rpc_params![me, [""; 0], "latest"]),
    ];
    let mut waiting: Vec<_> = heavy_calls
        .into_iter()
        .map(|(method, params)| {
            let client = client.clone();
            tokio::spawn(async move { client.request::<Value, _>(method, params).await })
        })
        .collect();
    // Both places are taken until `release`, so none of these has an answer however long it takes.
    for _ in 0..20 {
        let light = [
            ("eth_blockNumber", rpc_params![]),
            ("eth_getBalance", rpc_params![me, "latest"]),
            ("eth_getBlockByNumber", rpc_params!["latest", true]),
            ("eth_call", rpc_params![json!({ "from": me, "to": t.outer, "value": "0x9" })]),
            ("eth_getTransactionReceipt", rpc_params![t.call]),
        ];
        for (method, params) in light {
            client.request::<Value, _>(method, params).await?;
        }
    }
    assert!(waiting.iter().all(|call| !call.is_finished()));
    drop(release);
    for call in &mut waiting {
        call.await??;
    }
    for call in blocked {
        assert!(!call.await??, "it was let go");
    }
    Ok(())
}

#[tokio::test]
async fn a_trace_ends_when_its_time_is_over() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    // JUMPDEST, PUSH0, JUMP
    let forever = json!({
        "stateOverrides": { t.outer.to_string(): { "code": Bytes::from_static(&[0x5b, 0x5f, 0x56]) } },
        "tracer": "callTracer",
    });
    let long = Duration::from_secs(3_600);
    let limits = RpcConfig { call_gas: u64::MAX, ..config() };
    let call = json!({ "to": t.outer });
    let server_s = RpcConfig { trace_time: Duration::from_millis(50), ..limits.clone() };
    let (_short, client) = server(&t, server_s).await?;
    let answer = client.request("debug_traceCall", rpc_params![&call, "latest", &forever]).await;
    let (code, message, _) = refused(answer);
    assert_eq!(code, -32005);
    assert!(message.starts_with("execution timeout"), "{message}");

    let mut own = forever.clone();
    own["timeout"] = json!("50ms");
    let (_long, client) = server(&t, RpcConfig { trace_time: long, ..limits }).await?;
    let answer = client.request("debug_traceCall", rpc_params![&call, "latest", &own]).await;
    assert!(
        refused(answer).1.starts_with("execution timeout"),
        "the request's own time counts too"
    );
    Ok(())
}

#[tokio::test]
async fn a_trace_ends_when_it_records_too_much() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let (_server, client) = server(&t, RpcConfig { trace_bytes: 2_000, ..config() }).await?;
    let ask = |options: Value| {
        client.request::<Value, _>("debug_traceTransaction", rpc_params![t.call, options])
    };
    let (code, message, _) = refused(ask(json!({})).await);
    assert_eq!(code, -32005);
    assert!(message.contains("2000 bytes"), "{message}");
    let few = ask(json!({ "limit": 3 })).await?;
    assert_eq!(few["structLogs"].as_array().map(Vec::len), Some(3), "fewer steps fit");
    assert!(ask(json!({ "tracer": "callTracer" })).await.is_ok(), "no steps, no limit");
    Ok(())
}

/// What a call of `code` is answered by a server whose traces hold 100,000 bytes.
async fn traced(t: &Traces, code: Vec<u8>, mut options: Value) -> anyhow::Result<Option<String>> {
    let (_server, client) = server(t, RpcConfig { trace_bytes: 100_000, ..config() }).await?;
    options["stateOverrides"] = json!({ t.outer.to_string(): { "code": Bytes::from(code) } });
    let call = json!({ "to": t.outer, "gas": "0xf4240" });
    let answer =
        client.request::<Value, _>("debug_traceCall", rpc_params![call, "latest", options]);
    Ok(match answer.await {
        Ok(_) => None,
        error => {
            let (code, message, _) = refused(error);
            assert_eq!(code, -32005, "{message}");
            Some(message)
        }
    })
}

#[tokio::test]
async fn what_is_shown_of_memory_and_storage_with_each_step_counts_each_time() -> anyhow::Result<()>
{
    let t = Traces::new().await?;
    // mstore(4096, 0), and 50 times something else, which leaves the memory as it is.
    let memory = [&[0x5f, 0x61, 0x10, 0x00, 0x52][..], &[0x5f, 0x50].repeat(25)].concat();
    let small = json!({ "disableStack": true, "disableStorage": true });
    let mut large = small.clone();
    large["enableMemory"] = json!(true);
    assert_eq!(traced(&t, memory.clone(), small).await?, None);
    let message = traced(&t, memory, large).await?.unwrap_or_default();
    assert!(message.starts_with("the trace records more than 100000 bytes"), "{message}");

    // sload(0), sload(1), … sload(59)
    let storage: Vec<u8> = (0..60).flat_map(|slot| [0x60, slot, 0x54, 0x50]).collect();
    let without = json!({ "disableStack": true, "disableStorage": true });
    assert_eq!(traced(&t, storage.clone(), without).await?, None);
    let message = traced(&t, storage, json!({ "disableStack": true })).await?.unwrap_or_default();
    assert!(message.starts_with("the trace records more than 100000 bytes"), "{message}");
    Ok(())
}

#[tokio::test]
async fn what_calls_return_and_the_code_of_accounts_count() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let call_tracer = json!({ "tracer": "callTracer" });
    // Calls the identity precompile with that many bytes, again and again.
    let identity = |bytes: u8| {
        let call = [0x5f, 0x5f, 0x61, bytes, 0x00, 0x5f, 0x60, 4, 0x5a, 0xfa, 0x50];
        call.repeat(20)
    };
    assert_eq!(traced(&t, identity(0), call_tracer.clone()).await?, None);
    let message = traced(&t, identity(0x20), call_tracer).await?.unwrap_or_default();
    assert_eq!(message, "the trace records more than 100000 bytes");

    let prestate = json!({ "tracer": "prestateTracer" });
    let long = vec![0; 10_000];
    assert_eq!(traced(&t, long.clone(), prestate.clone()).await?, None);
    let longer = vec![0; 48_000];
    let message = traced(&t, longer.clone(), prestate).await?.unwrap_or_default();
    assert!(message.starts_with("the trace records more than 100000 bytes"), "{message}");
    assert!(message.ends_with("disableCode or disableStorage"), "{message}");
    let without = json!({ "tracer": "prestateTracer", "tracerConfig": { "disableCode": true } });
    assert_eq!(traced(&t, longer, without).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_traced_call_gets_no_more_gas_than_the_server_gives() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let (_server, client) = server(&t, RpcConfig { call_gas: 100_000, ..config() }).await?;
    let call = json!({ "to": t.inner, "gas": "0xffffffff" });
    let options = json!({ "tracer": "callTracer" });
    let trace: Value =
        client.request("debug_traceCall", rpc_params![&call, "latest", options]).await?;
    assert_eq!(trace["gas"], "0x186a0");
    let traces: Value =
        client.request("trace_call", rpc_params![&call, ["trace"], "latest"]).await?;
    let gas = traces["trace"][0]["action"]["gas"].as_str().unwrap_or_default();
    assert!(u64::from_str_radix(gas.trim_start_matches("0x"), 16)? < 100_000, "{gas}");
    Ok(())
}

#[tokio::test]
async fn traces_of_many_transactions_end_where_their_answer_would_be_too_large()
-> anyhow::Result<()> {
    let t = Traces::new().await?;
    let (_server, client) = server(&t, RpcConfig { max_response_bytes: 1_000, ..config() }).await?;
    let calls = json!([[{ "to": t.outer }, ["trace"]], [{ "to": t.outer }, ["trace"]]]);
    for (method, params) in [
        ("debug_traceBlockByNumber", rpc_params!["0x3", json!({ "tracer": "callTracer" })]),
        ("trace_block", rpc_params!["0x3"]),
        ("trace_replayBlockTransactions", rpc_params!["0x3", ["trace"]]),
        ("trace_filter", rpc_params![json!({ "fromBlock": "0x3", "toBlock": "0x3" })]),
        ("trace_callMany", rpc_params![calls]),
    ] {
        let (code, message, _) = refused(client.request::<Value, _>(method, params).await);
        assert_eq!(code, -32005, "{method}: {message}");
        assert!(message.starts_with("the answer is larger than 1000 bytes"), "{method}: {message}");
    }
    Ok(())
}
