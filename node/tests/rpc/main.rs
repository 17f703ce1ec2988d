//! JSON-RPC over a real engine and store: a deposit from a Bitcoin block, then transactions through
//! `eth_sendRawTransaction`, asked for over HTTP and WebSocket as wallets do.

mod at_hand;
mod surface;
mod world;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent};
use anyhow::Context;
use jsonrpsee::{
    RpcModule,
    core::{
        client::{ClientT, Subscription, SubscriptionClientT},
        params::{ArrayParams, BatchRequestBuilder},
    },
    http_client::HttpClientBuilder,
    rpc_params,
    ws_client::WsClientBuilder,
};
use kedge::rpc::{
    KedgeApiClient, NodeHandle, RpcConfig, Sequencer, ServerHandle, Submission, serve,
    types::{DepositStage, Roles, WithdrawalStage},
};
use kedge_genesis::{
    L2Number, Sats,
    abi::{BitcoinBridge, GasPriceOracle},
    predeploys::{BITCOIN_BRIDGE, GAS_PRICE_ORACLE, L1_BLOCK},
};
use serde_json::{Value, json};
use world::{ONE_BTC, World, hex, refused, signer};

#[tokio::test]
async fn a_deposit_is_seen_by_every_method() -> anyhow::Result<()> {
    let world = World::new().await?;
    let me = signer().address();
    assert_eq!(world.ask("eth_chainId", rpc_params![]).await?, json!("0x5357"));
    assert_eq!(world.ask("net_version", rpc_params![]).await?, json!("21335"));
    assert_eq!(world.ask("eth_blockNumber", rpc_params![]).await?, json!("0x1"));
    assert_eq!(world.ask("eth_accounts", rpc_params![]).await?, json!([]));
    let balance = world.quantity("eth_getBalance", rpc_params![me, "latest"]).await?;
    assert_eq!(balance, ONE_BTC.to_wei());
    let before = world.quantity("eth_getBalance", rpc_params![me, "0x0"]).await?;
    assert_eq!(before, U256::ZERO, "the state of past blocks is at hand");

    let block = world.ask("eth_getBlockByNumber", rpc_params!["latest", true]).await?;
    let transactions = block["transactions"].as_array().context("whole")?;
    assert_eq!(transactions.len(), 2);
    assert!(transactions.iter().all(|tx| tx["type"] == "0x7e"));
    assert_eq!(hex(&transactions[1]["mint"]), ONE_BTC.to_wei());
    let same = world.ask("eth_getBlockByHash", rpc_params![&block["hash"], false]).await?;
    assert_eq!(same["hash"], block["hash"]);
    assert_eq!(same["transactions"][1], transactions[1]["hash"]);
    assert_eq!(world.ask("eth_getBlockByNumber", rpc_params!["0x63", false]).await?, Value::Null);

    let receipts = world.ask("eth_getBlockReceipts", rpc_params!["latest"]).await?;
    assert_eq!(receipts[1]["status"], "0x1");
    assert_eq!(receipts[1]["depositNonce"], "0x0");
    assert!(receipts[1].get("l1Fee").is_none(), "deposits pay no fee");
    let logs = world
        .ask("eth_getLogs", rpc_params![json!({ "address": BITCOIN_BRIDGE, "fromBlock": "0x0" })])
        .await?;
    assert_eq!(logs[0]["topics"][0], json!(BitcoinBridge::DepositCredited::SIGNATURE_HASH));
    assert_eq!(logs[0]["transactionHash"], transactions[1]["hash"]);

    let status = world.http.bridge_status().await?;
    assert!(status.solvent);
    assert_eq!((status.supply_sats, status.vault_sats), (ONE_BTC.0, ONE_BTC.0));
    assert_eq!(status.deposits[0].stage, DepositStage::Credited);
    assert_eq!(status.deposits[0].block, Some(1));
    assert_eq!(json!(status.deposits[0].transaction), transactions[1]["hash"]);
    let sync = world.http.sync_status().await?;
    assert_eq!((sync.latest.number, sync.safe.number, sync.l1_tip.height), (1, 0, 1));
    assert_eq!(json!(sync.latest.hash), block["hash"]);
    assert_eq!(json!(sync.latest.state_root), block["stateRoot"]);
    assert!(world.http.health().await?);
    world.server.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_transfer_costs_exactly_what_its_receipt_says() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (me, other) = (signer().address(), Address::repeat_byte(9));
    let value = U256::from(12_345);
    let gas: U256 = world
        .quantity(
            "eth_estimateGas",
            rpc_params![json!({ "from": me, "to": other, "value": value })],
        )
        .await?;
    assert_eq!(gas, U256::from(21_000));
    let encoded = world.signed(0, 21_000, other, value, Bytes::new());
    let hash = world.send(&encoded).await?;
    assert_eq!(hash, keccak256(&encoded));

    let pending = world.ask("eth_getTransactionByHash", rpc_params![hash]).await?;
    assert_eq!((&pending["blockHash"], &pending["nonce"]), (&Value::Null, &json!("0x0")));
    assert_eq!(world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?, Value::Null);
    let nonce = |tag: &'static str| world.quantity("eth_getTransactionCount", rpc_params![me, tag]);
    assert_eq!((nonce("latest").await?, nonce("pending").await?), (U256::ZERO, U256::ONE));
    assert_eq!(refused(world.ask("eth_sendRawTransaction", rpc_params![&encoded]).await).0, 1000);

    world.make_block(false)?;
    let receipt = world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?;
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(receipt["type"], "0x2");
    assert_eq!(receipt["gasUsed"], "0x5208");
    let fee = hex(&receipt["gasUsed"]) * hex(&receipt["effectiveGasPrice"]);
    let l1_fee = hex(&receipt["l1Fee"]);
    assert!(l1_fee > U256::ZERO);
    let left = world.quantity("eth_getBalance", rpc_params![me, "latest"]).await?;
    assert_eq!(left, ONE_BTC.to_wei() - value - fee - l1_fee);
    let got = world.quantity("eth_getBalance", rpc_params![other, "latest"]).await?;
    assert_eq!(got, value);
    let mined = world.ask("eth_getTransactionByHash", rpc_params![hash]).await?;
    assert_eq!(mined["blockNumber"], "0x2");
    assert_eq!(mined["from"], json!(me));
    assert_eq!(world.ask("eth_getRawTransactionByHash", rpc_params![hash]).await?, json!(encoded));
    let (code, message, _) =
        refused(world.ask("eth_sendRawTransaction", rpc_params![&encoded]).await);
    assert_eq!((code, message.as_str()), (1, "nonce too low: next nonce 1, tx nonce 0"));

    let history = world.ask("eth_feeHistory", rpc_params!["0x2", "latest", [50.0]]).await?;
    assert_eq!(history["oldestBlock"], "0x1");
    assert_eq!(history["baseFeePerGas"].as_array().map(Vec::len), Some(3));
    assert_eq!(hex(&history["reward"][1][0]), U256::from(1_000_000));
    Ok(())
}

#[tokio::test]
async fn calls_answer_revert_data_and_estimates_are_enough() -> anyhow::Result<()> {
    let world = World::new().await?;
    let me = signer().address();
    let base_fee = GasPriceOracle::baseFeeCall {}.abi_encode();
    let call = json!({ "to": GAS_PRICE_ORACLE, "input": Bytes::from(base_fee) });
    let answer: Bytes = world.http.request("eth_call", rpc_params![call]).await?;
    let block = world.ask("eth_getBlockByNumber", rpc_params!["latest", false]).await?;
    assert_eq!(U256::from_be_slice(&answer), hex(&block["baseFeePerGas"]));

    // 20,000 sat to a P2WPKH script.
    let script = [&[0x00, 0x14][..], &[5; 20]].concat();
    let input: Bytes =
        BitcoinBridge::withdrawCall { scriptPubKey: script.into() }.abi_encode().into();
    let value = Sats(20_000).to_wei();
    let odd =
        json!({ "from": me, "to": BITCOIN_BRIDGE, "input": input, "value": value + U256::ONE });
    for method in ["eth_call", "eth_estimateGas"] {
        let (code, message, data) = refused(world.ask(method, rpc_params![&odd, "latest"]).await);
        assert_eq!((code, message.as_str()), (3, "execution reverted"), "{method}");
        assert_eq!(data, Some(selector::<BitcoinBridge::NotWholeSats>()), "{method}");
    }
    let poor = json!({ "from": Address::repeat_byte(8), "to": me, "value": "0x1" });
    let (code, message, _) = refused(world.ask("eth_call", rpc_params![poor]).await);
    assert_eq!(code, -32000);
    assert!(message.contains("insufficient funds for gas * price + value"), "{message}");

    let good = json!({ "from": me, "to": BITCOIN_BRIDGE, "input": input, "value": value });
    let gas: U256 = world.quantity("eth_estimateGas", rpc_params![&good]).await?;
    let list = world.ask("eth_createAccessList", rpc_params![&good]).await?;
    let touched = list["accessList"].as_array().context("a list")?;
    assert!(touched.iter().any(|item| item["address"] == json!(L1_BLOCK)), "{list}");
    let encoded = world.signed(0, gas.to(), BITCOIN_BRIDGE, value, input);
    let hash = world.send(&encoded).await?;
    world.make_block(false)?;
    let receipt = world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?;
    assert_eq!(receipt["status"], "0x1", "the estimate {gas} is enough: {receipt}");
    assert!(gas < hex(&receipt["gasUsed"]) * U256::from(3) / U256::from(2), "and not far above");

    let withdrawals = world.http.withdrawals(None).await?;
    assert_eq!(withdrawals.len(), 1);
    assert_eq!(withdrawals[0].amount_sats + withdrawals[0].fee_sats, 20_000);
    assert_eq!(withdrawals[0].stage, WithdrawalStage::Queued);
    assert_eq!((withdrawals[0].sender, withdrawals[0].transaction), (me, hash));
    let bridge = world.http.bridge_status().await?;
    assert_eq!(bridge.supply_sats, ONE_BTC.0 - 20_000, "what is withdrawn leaves the supply");
    assert!(bridge.solvent);

    let overrides = json!({ me.to_string(): { "balance": "0x0" } });
    let (code, ..) = refused(world.ask("eth_call", rpc_params![good, "latest", overrides]).await);
    assert_eq!(code, -32000);
    Ok(())
}

fn selector<E: alloy_sol_types::SolError>() -> String {
    Bytes::from(E::SELECTOR).to_string()
}

#[tokio::test]
async fn proofs_hash_to_the_state_root() -> anyhow::Result<()> {
    let world = World::new().await?;
    let proof = world.ask("eth_getProof", rpc_params![L1_BLOCK, ["0x1"], "latest"]).await?;
    let block = world.ask("eth_getBlockByNumber", rpc_params!["latest", false]).await?;
    let root: Bytes = serde_json::from_value(proof["accountProof"][0].clone())?;
    assert_eq!(json!(keccak256(root)), block["stateRoot"]);
    let slot = &proof["storageProof"][0];
    let node: Bytes = serde_json::from_value(slot["proof"][0].clone())?;
    assert_eq!(json!(keccak256(node)), proof["storageHash"]);
    let stored = world.quantity("eth_getStorageAt", rpc_params![L1_BLOCK, "0x1", "latest"]).await?;
    assert_eq!(hex(&slot["value"]), stored);
    Ok(())
}

#[tokio::test]
async fn subscribers_see_blocks_logs_and_what_is_taken_back() -> anyhow::Result<()> {
    let world = World::new().await?;
    let client =
        WsClientBuilder::default().build(format!("ws://{}", world.server.address())).await?;
    let subscribe = |params: ArrayParams| {
        client.subscribe::<Value, _>("eth_subscribe", params, "eth_unsubscribe")
    };
    let mut heads: Subscription<Value> = subscribe(rpc_params!["newHeads"]).await?;
    let filter = json!({ "address": BITCOIN_BRIDGE });
    let mut logs = subscribe(rpc_params!["logs", filter]).await?;
    let mut arrivals = subscribe(rpc_params!["newPendingTransactions"]).await?;
    let mut syncing = subscribe(rpc_params!["syncing"]).await?;
    assert_eq!(syncing.next().await.context("a status")??, json!(false));
    assert!(subscribe(rpc_params!["nonsense"]).await.is_err());
    let mut batch = BatchRequestBuilder::new();
    batch.insert("eth_chainId", rpc_params![])?;
    batch.insert("eth_subscribe", rpc_params!["newHeads"])?;
    let answers: Vec<_> = client.batch_request::<Value>(batch).await?.into_iter().collect();
    assert_eq!(answers[0].as_ref().unwrap(), &json!("0x5357"));
    let refusal = answers[1].as_ref().unwrap_err();
    assert_eq!(refusal.code(), -32600);
    assert!(refusal.message().contains("cannot be part of a batch"), "{refusal}");

    let script = [&[0x00, 0x14][..], &[5; 20]].concat();
    let input = BitcoinBridge::withdrawCall { scriptPubKey: script.into() }.abi_encode();
    let value = Sats(20_000).to_wei();
    let encoded = world.signed(0, 500_000, BITCOIN_BRIDGE, value, input.into());
    let hash = world.send(&encoded).await?;
    assert_eq!(arrivals.next().await.context("an arrival")??, json!(hash));
    world.make_block(false)?;
    let head = heads.next().await.context("a head")??;
    assert_eq!(head["number"], "0x2");
    let log = logs.next().await.context("a log")??;
    assert_eq!((&log["transactionHash"], &log["removed"]), (&json!(hash), &json!(false)));
    assert_eq!(log["blockHash"], head["hash"]);

    world.engine.unwind_unsafe_to(L2Number(1))?;
    let gone = logs.next().await.context("the log again")??;
    assert_eq!((&gone["transactionHash"], &gone["removed"]), (&json!(hash), &json!(true)));
    assert_eq!(world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?, Value::Null);
    assert_eq!(world.mempool.on_reorg([encoded]), 1);
    world.make_block(false)?;
    assert_eq!(heads.next().await.context("the new head")??["number"], "0x2");
    world.server.stop().await;
    Ok(())
}

#[tokio::test]
async fn subscribers_get_the_receipts_of_new_blocks_or_of_the_transactions_that_they_name()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let client =
        WsClientBuilder::default().build(format!("ws://{}", world.server.address())).await?;
    let subscribe = |params: Value| {
        client.subscribe::<Value, _>(
            "eth_subscribe",
            rpc_params!["transactionReceipts", params],
            "eth_unsubscribe",
        )
    };
    let other = Address::repeat_byte(9);
    let first = world.signed(0, 21_000, other, U256::ONE, Bytes::new());
    let second = world.signed(1, 21_000, other, U256::ONE, Bytes::new());
    let named = json!({ "transactionHashes": [keccak256(&second), B256::ZERO] });
    let mut all = Vec::new();
    for params in [Value::Null, json!({}), json!({ "transactionHashes": [] })] {
        all.push(subscribe(params).await?);
    }
    let mut one = subscribe(named).await?;
    for bad in [
        json!({ "address": other }),
        json!(true),
        json!({ "transactionHashes": vec![B256::ZERO; 201] }),
    ] {
        assert!(subscribe(bad.clone()).await.is_err(), "{bad}");
    }
    for (encoded, number) in [(first, "0x2"), (second.clone(), "0x3")] {
        world.send(&encoded).await?;
        world.make_block(false)?;
        let receipts = world.ask("eth_getBlockReceipts", rpc_params![number]).await?;
        assert!(!receipts[0]["l1Fee"].is_null(), "{receipts}");
        for subscription in &mut all {
            assert_eq!(subscription.next().await.context("receipts")??, receipts);
        }
    }
    let hash = keccak256(&second);
    let receipt = world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?;
    assert_eq!(one.next().await.context("a receipt")??, json!([receipt]), "and not the first");

    // What comes again in another block has another receipt.
    world.engine.unwind_unsafe_to(L2Number(2))?;
    world.mempool.on_reorg([]);
    let third = world.signed(1, 22_000, other, U256::ONE, Bytes::new());
    world.send(&third).await?;
    world.make_block(false)?;
    let receipts = world.ask("eth_getBlockReceipts", rpc_params!["0x3"]).await?;
    assert_eq!(receipts[0]["transactionHash"], json!(keccak256(&third)));
    for subscription in &mut all {
        assert_eq!(subscription.next().await.context("receipts")??, receipts);
    }
    world.server.stop().await;
    Ok(())
}

#[tokio::test]
async fn bad_requests_get_the_right_codes() -> anyhow::Result<()> {
    let world = World::new().await?;
    let table: Vec<(&str, ArrayParams, i32)> = vec![
        ("eth_nonsense", rpc_params![], -32601),
        ("eth_sendTransaction", rpc_params![json!({})], -32601),
        ("admin_peers", rpc_params![], -32601),
        ("eth_getBalance", rpc_params!["0x12"], -32602),
        ("eth_getBalance", rpc_params![], -32602),
        ("eth_getBalance", rpc_params![BITCOIN_BRIDGE, "0x63"], -32000),
        ("eth_getBalance", rpc_params![BITCOIN_BRIDGE, "newest"], -32602),
        ("eth_sendRawTransaction", rpc_params!["0x"], -32000),
        ("eth_sendRawTransaction", rpc_params!["0x03c0"], -32003),
        ("eth_sendRawTransaction", rpc_params!["zz"], -32602),
        ("eth_getLogs", rpc_params![json!({ "fromBlock": "0x2", "toBlock": "0x1" })], -32602),
        ("eth_getLogs", rpc_params![json!({ "fromBlock": "0x0", "toBlock": "0x63" })], -32602),
        ("eth_feeHistory", rpc_params!["0x1", "latest", [120.0]], -32602),
    ];
    for (method, params, expected) in table {
        let (code, message, _) = refused(world.ask(method, params).await);
        assert_eq!(code, expected, "{method}: {message}");
    }
    let url = format!("http://{}", world.server.address());
    let post = |body: String| {
        let request = reqwest::Client::new().post(&url).header("content-type", "application/json");
        async move { anyhow::Ok(request.body(body).send().await?.text().await?) }
    };
    assert!(post("{".into()).await?.contains("-32700"));
    for body in ["{}", "[{}]", r#"{"jsonrpc":"2.0","id":3}"#] {
        assert!(post(body.into()).await?.contains("-32600"), "{body}");
    }
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    let batch = |count: usize| format!("[{}]", vec![one; count].join(","));
    assert!(post(batch(3)).await?.contains("0x5357"));
    assert!(post(batch(4)).await?.contains("error"));
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#;
    for body in [subscribe.to_owned(), format!("[{one},{subscribe}]")] {
        let answer = post(body).await?;
        assert!(answer.contains("-32601") && answer.contains("notifications not supported"));
    }
    let health = reqwest::get(format!("{url}/health")).await?;
    assert!(health.status().is_success());
    Ok(())
}

#[tokio::test]
async fn a_validator_forwards_transactions_or_says_where_to_send_them() -> anyhow::Result<()> {
    let world = World::new().await?;
    let validator = |submission| {
        let node = NodeHandle {
            params: world.params,
            store: world.engine.store().clone(),
            engine: world.engine.clone(),
            submission,
            roles: Roles::default(),
            follower: None,
        };
        serve(RpcConfig::new(([127, 0, 0, 1], 0).into()), node, RpcModule::new(()))
    };
    let client = |server: &ServerHandle| {
        HttpClientBuilder::default().build(format!("http://{}", server.address()))
    };
    let encoded = world.signed(0, 21_000, Address::repeat_byte(9), U256::ONE, Bytes::new());
    let send = "eth_sendRawTransaction";

    let alone = validator(Submission::Refused).await?;
    let answer = client(&alone)?.request(send, rpc_params![&encoded]).await;
    let (code, message, _) = refused(answer);
    assert_eq!(code, -32004);
    assert!(message.contains("--sequencer-rpc"), "{message}");

    let url = format!("http://{}", world.server.address());
    let forwarding = validator(Submission::Forward(Sequencer::new(&[url])?)).await?;
    let hash: B256 = client(&forwarding)?.request(send, rpc_params![&encoded]).await?;
    assert!(world.mempool.get(&hash).is_some());
    let again = client(&forwarding)?.request(send, rpc_params![&encoded]).await;
    assert_eq!(refused(again), (1000, "already known".into(), None), "the sequencer's own words");

    world.server.stop().await;
    let gone = client(&forwarding)?.request(send, rpc_params![&encoded]).await;
    assert_eq!(refused(gone).0, -32002);
    assert!(Sequencer::new(&["ftp://nowhere".to_owned()]).is_err());
    Ok(())
}
