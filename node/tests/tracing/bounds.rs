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
