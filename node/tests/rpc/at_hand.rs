//! Answers that are given at once are those that the server gives to the same request in a batch, and are never
//! those of a block before.

use crate::world::{World, signer};
use alloy_primitives::{Address, U256};
use kedge_genesis::L2Number;
use serde_json::{Value, json};

/// The text of the answer to that text.
async fn post(world: &World, body: String) -> anyhow::Result<String> {
    let url = format!("http://{}", world.server.address());
    let request = reqwest::Client::new().post(url).header("content-type", "application/json");
    Ok(request.body(body).send().await?.text().await?)
}

async fn result(world: &World, method: &str, params: Value) -> anyhow::Result<Value> {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let answer: Value = serde_json::from_str(&post(world, request.to_string()).await?)?;
    Ok(answer["result"].clone())
}

#[tokio::test]
async fn an_answer_at_once_is_the_one_in_a_batch() -> anyhow::Result<()> {
    let world = World::new().await?;
    let sender = signer().address();
    let sent = world.signed(0, 21_000, Address::repeat_byte(2), U256::ONE, Default::default());
    world.send(&sent).await?;
    world.make_block(false)?;
    let hash = result(&world, "eth_getBlockByNumber", json!(["latest"])).await?["hash"].clone();
    let sha256 = json!({"to": Address::with_last_byte(2), "data": "0x1234"});
    // Returns what gas is left.
    let gas = json!({"data": "0x5a60005260206000f3", "gas": "0x186a00"});
    // Counts 65,535 down, and returns 1.
    let loops = json!({"data": "0x61ffff5b6001900380600357600160005260206000f3"});
    let forever = json!({"data": "0x5b600056"});
    let reverts = json!({"data": "0x60006000fd"});
    let pairing = json!({"to": Address::with_last_byte(8), "data": "0x"});
    for (method, params) in [
        ("eth_blockNumber", json!([])),
        ("eth_blockNumber", json!({"any": 1})),
        ("eth_chainId", json!([1, 2])),
        ("eth_getBalance", json!([sender, "latest"])),
        ("eth_getBalance", json!([sender])),
        ("eth_getBalance", json!([sender, null])),
        ("eth_getBalance", json!([sender, "0x0"])),
        ("eth_getBalance", json!([sender, "0x99"])),
        ("eth_getBalance", json!([sender, {"blockHash": hash}])),
        ("eth_getBalance", json!({"address": sender, "block": "latest"})),
        ("eth_getBalance", json!(["0x12"])),
        ("eth_getBalance", json!([])),
        ("eth_getTransactionCount", json!([sender, "pending"])),
        ("eth_getTransactionCount", json!([sender, "latest"])),
        ("eth_getBlockByNumber", json!(["latest", false])),
        ("eth_getBlockByNumber", json!(["latest", true])),
        ("eth_getBlockByNumber", json!(["latest", true])),
        ("eth_getBlockByNumber", json!(["earliest"])),
        ("eth_getBlockByNumber", json!(["0x99", true])),
        ("eth_getBlockByHash", json!([hash, false])),
        ("eth_getBlockByHash", json!([hash, true])),
        ("eth_getBlockReceipts", json!(["latest"])),
        ("eth_getBlockReceipts", json!(["latest"])),
        ("eth_getBlockReceipts", json!(["0x99"])),
        ("eth_call", json!([sha256])),
        ("eth_call", json!([sha256, "latest"])),
        ("eth_call", json!([sha256, "latest", {}])),
        ("eth_call", json!([sha256, "0x99"])),
        ("eth_call", json!([gas, "latest"])),
        ("eth_call", json!([loops, "latest"])),
        ("eth_call", json!([forever, "latest"])),
        ("eth_call", json!([reverts, "latest"])),
        ("eth_call", json!([pairing, "latest"])),
        ("eth_noSuchMethod", json!([])),
    ] {
        for id in [json!(1), json!("a\"b"), json!(null)] {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            // The batch last: what the first time has no answer at hand may have one then.
            let first = post(&world, request.to_string()).await?;
            let second = post(&world, request.to_string()).await?;
            let batch = post(&world, json!([request]).to_string()).await?;
            assert_eq!(format!("[{first}]"), batch, "{request}");
            assert_eq!(first, second, "{request}");
        }
    }
    let loops = result(&world, "eth_call", json!([loops, "latest"])).await?;
    assert_eq!(loops, json!(format!("0x{:064x}", 1)));
    Ok(())
}

#[tokio::test]
async fn answers_follow_every_block_and_every_block_taken_back() -> anyhow::Result<()> {
    let world = World::new().await?;
    let start = world.engine.heads().latest.number;
    let seen = async |expected: u64| -> anyhow::Result<Value> {
        let to = Address::repeat_byte(7);
        let balance = result(&world, "eth_getBalance", json!([to, "latest"])).await?;
        assert_eq!(balance, json!(format!("{:#x}", expected)));
        let count = json!([signer().address(), "latest"]);
        let count = result(&world, "eth_getTransactionCount", count).await?;
        assert_eq!(count, json!(format!("{:#x}", expected)));
        let number = result(&world, "eth_blockNumber", json!([])).await?;
        assert_eq!(number, json!(format!("{:#x}", start.0 + expected)));
        let block = result(&world, "eth_getBlockByNumber", json!(["latest", true])).await?;
        assert_eq!(block["hash"], json!(world.engine.heads().latest.hash));
        assert_eq!(block["number"], number);
        let receipts = result(&world, "eth_getBlockReceipts", json!([number])).await?;
        assert_eq!(receipts[0]["blockHash"], block["hash"]);
        Ok(block)
    };
    seen(0).await?;
    for nonce in 0..3 {
        let to = Address::repeat_byte(7);
        world.send(&world.signed(nonce, 21_000, to, U256::ONE, Default::default())).await?;
        world.make_block(false)?;
        seen(nonce + 1).await?;
    }
    let before = seen(3).await?;
    world.engine.unwind_unsafe_to(L2Number(start.0 + 1))?;
    world.mempool.on_reorg([]);
    seen(1).await?;
    for nonce in 1..3 {
        let to = Address::repeat_byte(7);
        let other = world.signed(nonce, 22_000, to, U256::ONE, Default::default());
        world.send(&other).await?;
        world.make_block(false)?;
        seen(nonce + 1).await?;
    }
    assert_ne!(seen(3).await?["hash"], before["hash"]);
    Ok(())
}
