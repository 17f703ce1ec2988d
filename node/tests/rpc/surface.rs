//! Methods beyond those of simple wallets: filters, the pool's content, filled-in transactions, proofs of old
//! blocks, heads and positions.

use crate::world::{ONE_BTC, World, hex, refused, signer};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use anyhow::Context;
use jsonrpsee::{core::params::ArrayParams, rpc_params};
use kedge::rpc::{KedgeItemsApiClient, types::HeadKind};
use kedge_genesis::{
    L2Number, Sats,
    abi::BitcoinBridge,
    predeploys::{BITCOIN_BRIDGE, L1_BLOCK},
};
use serde_json::{Value, json};

/// Polls a filter until it has something.
async fn poll(world: &World, filter: &Value) -> anyhow::Result<Vec<Value>> {
    loop {
        let found = world.ask("eth_getFilterChanges", rpc_params![filter]).await?;
        let found = found.as_array().context("a list")?.clone();
        if !found.is_empty() {
            return Ok(found);
        }
        tokio::task::yield_now().await;
    }
}

fn withdrawal(world: &World, nonce: u64) -> Bytes {
    let script = [&[0x00, 0x14][..], &[5; 20]].concat();
    let input = BitcoinBridge::withdrawCall { scriptPubKey: script.into() }.abi_encode();
    world.signed(nonce, 500_000, BITCOIN_BRIDGE, Sats(20_000).to_wei(), input.into())
}

#[tokio::test]
async fn filters_tell_what_came_since_the_last_question_and_what_was_taken_back()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let install = |method: &'static str, params: ArrayParams| world.ask(method, params);
    let logs = install("eth_newFilter", rpc_params![json!({ "address": BITCOIN_BRIDGE })]).await?;
    let blocks = install("eth_newBlockFilter", rpc_params![]).await?;
    let arrivals = install("eth_newPendingTransactionFilter", rpc_params![]).await?;
    let whole = install("eth_newPendingTransactionFilter", rpc_params![true]).await?;

    let encoded = withdrawal(&world, 0);
    let hash = world.send(&encoded).await?;
    assert_eq!(poll(&world, &arrivals).await?, [json!(hash)]);
    assert_eq!(poll(&world, &whole).await?[0]["hash"], json!(hash));
    world.make_block(false)?;
    let head = world.ask("eth_getBlockByNumber", rpc_params!["latest", false]).await?;
    assert_eq!(poll(&world, &blocks).await?, [head["hash"].clone()]);
    let found = poll(&world, &logs).await?;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["transactionHash"], &found[0]["removed"]), (&json!(hash), &json!(false)));
    let nothing = world.ask("eth_getFilterChanges", rpc_params![&logs]).await?;
    assert_eq!(nothing, json!([]), "told once");

    world.engine.unwind_unsafe_to(L2Number(1))?;
    let gone = poll(&world, &logs).await?;
    assert_eq!((&gone[0]["transactionHash"], &gone[0]["removed"]), (&json!(hash), &json!(true)));
    let all = world.ask("eth_getFilterLogs", rpc_params![&logs]).await?;
    let places: Vec<_> =
        all.as_array().context("a list")?.iter().map(|log| &log["blockNumber"]).collect();
    assert_eq!(
        places,
        ["0x1"],
        "the range of the filter is the latest block, which has the deposit's log"
    );

    let refusal = refused(world.ask("eth_getFilterLogs", rpc_params![&blocks]).await);
    assert_eq!(refusal, (-32000, "filter not found".into(), None), "no filter for logs");
    assert_eq!(world.ask("eth_uninstallFilter", rpc_params![&logs]).await?, json!(true));
    assert_eq!(world.ask("eth_uninstallFilter", rpc_params![&logs]).await?, json!(false));
    let refusal = refused(world.ask("eth_getFilterChanges", rpc_params![&logs]).await);
    assert_eq!(refusal, (-32000, "filter not found".into(), None));
    Ok(())
}

#[tokio::test]
async fn there_are_only_so_many_filters() -> anyhow::Result<()> {
    let world = World::with(|config| config.max_filters = 1).await?;
    let install = || world.ask("eth_newBlockFilter", rpc_params![]);
    let filter = install().await?;
    assert_eq!(refused(install().await).0, -32005);
    world.ask("eth_uninstallFilter", rpc_params![&filter]).await?;
    install().await?;
    Ok(())
}

#[tokio::test]
async fn a_filter_that_nobody_polls_makes_room() -> anyhow::Result<()> {
    let world = World::with(|config| {
        config.max_filters = 1;
        config.filter_expiry = std::time::Duration::from_millis(20);
    })
    .await?;
    let install = || world.ask("eth_newBlockFilter", rpc_params![]);
    let first = install().await?;
    while install().await.is_err() {
        tokio::task::yield_now().await;
    }
    let refusal = refused(world.ask("eth_getFilterChanges", rpc_params![&first]).await);
    assert_eq!(refusal, (-32000, "filter not found".into(), None));
    Ok(())
}

#[tokio::test]
async fn proofs_of_any_block_hash_to_its_state_root() -> anyhow::Result<()> {
    let world = World::new().await?;
    for nonce in 0..3 {
        world
            .send(&world.signed(nonce, 21_000, Address::repeat_byte(9), ONE, Bytes::new()))
            .await?;
        world.make_block(false)?;
    }
    let me = signer().address();
    let mut roots = std::collections::BTreeSet::new();
    for number in ["0x0", "0x1", "0x2", "0x3", "0x4"] {
        let block = world.ask("eth_getBlockByNumber", rpc_params![number, false]).await?;
        let proof = world.ask("eth_getProof", rpc_params![me, [""; 0], number]).await?;
        let root: Bytes = serde_json::from_value(proof["accountProof"][0].clone())?;
        assert_eq!(json!(keccak256(&root)), block["stateRoot"], "block {number}");
        let balance = world.ask("eth_getBalance", rpc_params![me, number]).await?;
        assert_eq!(proof["balance"], balance, "block {number}");
        roots.insert(root);
        let of_contract = world.ask("eth_getProof", rpc_params![L1_BLOCK, ["0x1"], number]).await?;
        let slot = world.quantity("eth_getStorageAt", rpc_params![L1_BLOCK, "0x1", number]).await?;
        assert_eq!(hex(&of_contract["storageProof"][0]["value"]), slot, "block {number}");
        if let Some(node) = of_contract["storageProof"][0]["proof"].get(0) {
            let node: Bytes = serde_json::from_value(node.clone())?;
            assert_eq!(json!(keccak256(node)), of_contract["storageHash"], "block {number}");
        }
    }
    assert_eq!(roots.len(), 5, "every block changes the state");
    Ok(())
}

const ONE: U256 = U256::ONE;

#[tokio::test]
async fn the_pool_s_content_is_in_go_ethereum_s_format() -> anyhow::Result<()> {
    let world = World::new().await?;
    let me = signer().address();
    let to = Address::repeat_byte(0xab);
    let transfer = |nonce| world.signed(nonce, 21_000, to, ONE, Bytes::new());
    let (now, later) = (world.send(&transfer(0)).await?, world.send(&transfer(2)).await?);
    let status = world.ask("txpool_status", rpc_params![]).await?;
    assert_eq!(status, json!({ "pending": "0x1", "queued": "0x1" }));
    let sender = me.to_checksum(None);
    let waiting = async |hash: B256| world.ask("eth_getTransactionByHash", rpc_params![hash]).await;
    let content = world.ask("txpool_content", rpc_params![]).await?;
    let expected = json!({
        "pending": { &sender: { "0": waiting(now).await? } },
        "queued": { &sender: { "2": waiting(later).await? } },
    });
    assert_eq!(content, expected);
    let shown = content["pending"][&sender]["0"].as_object().context("a transaction")?;
    for (name, value) in [
        ("blockHash", Value::Null),
        ("blockNumber", Value::Null),
        ("transactionIndex", Value::Null),
        ("from", json!(me)),
        ("to", json!(to)),
        ("gas", json!("0x5208")),
        ("gasPrice", json!("0x989680")),
        ("maxFeePerGas", json!("0x989680")),
        ("nonce", json!("0x0")),
        ("type", json!("0x2")),
        ("value", json!("0x1")),
        ("input", json!("0x")),
        ("hash", json!(now)),
    ] {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
    let from = world.ask("txpool_contentFrom", rpc_params![me]).await?;
    let of = |part: &str| content[part][&sender].clone();
    assert_eq!(from, json!({ "pending": of("pending"), "queued": of("queued") }));
    let nobody = world.ask("txpool_contentFrom", rpc_params![Address::ZERO]).await?;
    assert_eq!(nobody, json!({ "pending": {}, "queued": {} }));
    let inspected = world.ask("txpool_inspect", rpc_params![]).await?;
    let line = format!("{}: 1 wei + 21000 gas × 10000000 wei", to.to_checksum(None));
    let expected =
        json!({ "pending": { &sender: { "0": line } }, "queued": { &sender: { "2": line } } });
    assert_eq!(inspected, expected);
    let by_nonce = |nonce: &str| {
        world.ask("eth_getTransactionBySenderAndNonce", rpc_params![me, nonce.to_owned()])
    };
    assert_eq!(by_nonce("0x2").await?["hash"], json!(later));
    assert_eq!(by_nonce("0x1").await?, Value::Null);
    world.make_block(false)?;
    let mined = by_nonce("0x0").await?;
    assert_eq!((&mined["hash"], &mined["blockNumber"]), (&json!(now), &json!("0x2")));
    Ok(())
}

#[tokio::test]
async fn a_filled_transaction_is_accepted_once_it_is_signed() -> anyhow::Result<()> {
    let world = World::new().await?;
    let me = signer().address();
    let request = json!({ "from": me, "to": Address::repeat_byte(9), "value": "0x1" });
    let filled = world.ask("eth_fillTransaction", rpc_params![request]).await?;
    let tx = &filled["tx"];
    assert_eq!(
        (&tx["nonce"], &tx["gas"], &tx["type"]),
        (&json!("0x0"), &json!("0x5208"), &json!("0x2"))
    );
    let base_fee = world.quantity("eth_baseFee", rpc_params![]).await?;
    assert_eq!(
        hex(&tx["maxFeePerGas"]),
        base_fee * U256::from(2) + hex(&tx["maxPriorityFeePerGas"])
    );
    let signed = world.sign(alloy_consensus::TxEip1559 {
        chain_id: world.params.chain_id,
        nonce: hex(&tx["nonce"]).to(),
        gas_limit: hex(&tx["gas"]).to(),
        max_fee_per_gas: hex(&tx["maxFeePerGas"]).to(),
        max_priority_fee_per_gas: hex(&tx["maxPriorityFeePerGas"]).to(),
        to: Address::repeat_byte(9).into(),
        value: ONE,
        ..Default::default()
    });
    world.send(&signed).await?;
    world.make_block(false)?;
    let legacy = json!({ "from": me, "to": me, "gasPrice": "0x989680" });
    let filled = world.ask("eth_fillTransaction", rpc_params![legacy]).await?;
    assert_eq!((&filled["tx"]["type"], &filled["tx"]["nonce"]), (&json!("0x0"), &json!("0x1")));
    let blob = json!({ "from": me, "to": me, "blobVersionedHashes": [B256::ZERO] });
    assert_eq!(refused(world.ask("eth_fillTransaction", rpc_params![blob]).await).0, -32602);
    Ok(())
}

#[tokio::test]
async fn a_synchronous_submission_answers_with_the_receipt_or_says_that_it_waits()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let transfer = |nonce| world.signed(nonce, 21_000, Address::repeat_byte(9), ONE, Bytes::new());
    let arrivals = world.mempool.subscribe();
    let first = transfer(0);
    let (receipt, made) =
        tokio::join!(world.ask("eth_sendRawTransactionSync", rpc_params![&first]), async {
            let mut arrivals = arrivals;
            arrivals.recv().await?;
            world.make_block(false)
        });
    made?;
    let receipt = receipt?;
    assert_eq!(receipt["transactionHash"], json!(keccak256(&first)));
    assert_eq!((&receipt["status"], &receipt["blockNumber"]), (&json!("0x1"), &json!("0x2")));
    assert!(receipt["l1Fee"].is_string());

    let second = transfer(1);
    let (code, message, data) =
        refused(world.ask("eth_sendRawTransactionSync", rpc_params![&second, 10]).await);
    assert_eq!(code, 4, "{message}");
    assert_eq!(data, Some(keccak256(&second).to_string()));
    assert!(world.mempool.get(&keccak256(&second)).is_some());
    let (code, ..) = refused(world.ask("eth_sendRawTransactionSync", rpc_params![&second]).await);
    assert_eq!(code, 1000);
    Ok(())
}

#[tokio::test]
async fn funds_must_cover_the_bitcoin_space_too() -> anyhow::Result<()> {
    let world = World::new().await?;
    let me = signer().address();
    let price = U256::from(10_000_000);
    let gas = price * U256::from(21_000);
    let estimate = |value: U256| {
        let request = json!({
            "from": me, "to": Address::repeat_byte(9), "value": value, "gasPrice": price,
        });
        world.ask("eth_estimateGas", rpc_params![request])
    };
    // Enough for gas and value, and nothing left for Bitcoin space.
    let (code, message, _) = refused(estimate(ONE_BTC.to_wei() - gas).await);
    assert_eq!(code, -32000, "{message}");
    assert!(message.contains("insufficient funds for gas * price + value"), "{message}");
    let exact = world.sign(alloy_consensus::TxLegacy {
        chain_id: Some(world.params.chain_id),
        gas_price: 10_000_000,
        gas_limit: 21_000,
        to: Address::repeat_byte(9).into(),
        value: ONE_BTC.to_wei() - gas,
        ..Default::default()
    });
    let (code, message, _) = refused(world.ask("eth_sendRawTransaction", rpc_params![exact]).await);
    assert_eq!(code, 809, "{message}");
    // A thousand times the space that it takes is left.
    let small = world.ask(
        "eth_getTransactionReceipt",
        rpc_params![{
            let hash = world.send(&world.signed(0, 21_000, me, ONE, Bytes::new())).await?;
            world.make_block(false)?;
            hash
        }],
    );
    let l1_fee = hex(&small.await?["l1Fee"]);
    let balance = world.quantity("eth_getBalance", rpc_params![me, "latest"]).await?;
    let value = balance - gas - l1_fee * U256::from(2);
    assert_eq!(estimate(value).await?, json!("0x5208"));
    Ok(())
}

#[tokio::test]
async fn heads_outputs_and_positions_agree() -> anyhow::Result<()> {
    let world = World::new().await?;
    let sync = world.ask("optimism_syncStatus", rpc_params![]).await?;
    assert_eq!(sync["unsafe_l2"]["number"], 1);
    assert_eq!(sync["safe_l2"]["number"], 0);
    assert_eq!(sync["head_l1"]["number"], 1);
    let config = world.ask("optimism_rollupConfig", rpc_params![]).await?;
    assert_eq!(sync["head_l1"]["parentHash"], config["genesis"]["l1"]["hash"]);
    assert_eq!(config["genesis"]["l2"]["hash"], sync["safe_l2"]["hash"]);
    let output = world.ask("optimism_outputAtBlock", rpc_params!["0x1"]).await?;
    let position = world.http.block(1_u64.into()).await?.context("block 1")?;
    assert_eq!(output["outputRoot"], json!(position.output_root));
    assert_eq!(output["blockRef"]["hash"], json!(position.hash));
    assert_eq!((position.head, position.confirmations), (HeadKind::Latest, 0));
    let genesis = world.http.block(0_u64.into()).await?.context("block 0")?;
    assert_eq!((genesis.head, genesis.batch), (HeadKind::Settled, None));
    assert_eq!(world.http.block(99_u64.into()).await?, None);

    let deposits = world.http.deposits(None).await?;
    assert_eq!(deposits.len(), 1);
    let same = world.http.deposit(deposits[0].outpoint).await?;
    assert_eq!(same.as_ref(), deposits.first());
    world.send(&withdrawal(&world, 0)).await?;
    world.make_block(false)?;
    let withdrawal = world.http.withdrawal(0).await?.context("a withdrawal")?;
    assert_eq!(withdrawal.block, 2);
    assert_eq!(world.http.withdrawal(1).await?, None);
    assert!(world.http.batches(None).await?.is_empty());
    assert_eq!(world.http.batch(0).await?, None);
    assert_eq!(world.http.assertion(B256::ZERO).await?, None);
    Ok(())
}

#[tokio::test]
async fn the_openrpc_document_has_every_method_and_only_those() -> anyhow::Result<()> {
    let world = World::new().await?;
    let document = world.ask("rpc.discover", rpc_params![]).await?;
    assert_eq!(document["openrpc"], "1.3.2");
    let methods = document["methods"].as_array().context("methods")?;
    for method in methods {
        let name = method["name"].as_str().context("a name")?;
        if name.ends_with("subscribe") {
            continue;
        }
        // Whatever the method says to no parameters, it is there.
        if let Err(error) = world.ask(name, rpc_params![]).await {
            assert_ne!(refused(Err(error)).0, -32601, "{name}");
        }
    }
    let absent = |name: &str| methods.iter().all(|method| method["name"] != name);
    assert!(absent("dev_mine"), "of a node that serves it only");
    let schemas = document["components"]["schemas"].as_object().context("schemas")?;
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name: String = reference.chars().take_while(|c| c.is_alphanumeric()).collect();
        assert!(schemas.contains_key(&name), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_on_the_public_port_administers_the_node() -> anyhow::Result<()> {
    let world = World::new().await?;
    for method in ["admin_nodeInfo", "admin_stopSequencer", "admin_clearTxpool"] {
        let (code, ..) = refused(world.ask(method, rpc_params![]).await);
        assert_eq!(code, -32601, "{method}");
    }
    let document = world.ask("rpc.discover", rpc_params![]).await?;
    assert!(!document.to_string().contains("admin_"));
    Ok(())
}
