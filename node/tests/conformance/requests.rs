//! What every method of the specification is asked.

use crate::{chain::Facts, world::signer};
use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

const TAGS: [&str; 5] = ["latest", "pending", "safe", "finalized", "earliest"];

/// Requests that succeed, by method.
pub(crate) fn all(facts: &Facts) -> Vec<(&'static str, Vec<Value>)> {
    let me = signer().address();
    let mut all: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for method in [
        "eth_accounts",
        "eth_baseFee",
        "eth_blobBaseFee",
        "eth_blockNumber",
        "eth_capabilities",
        "eth_chainId",
        "eth_coinbase",
        "eth_config",
        "eth_gasPrice",
        "eth_maxPriorityFeePerGas",
        "eth_newBlockFilter",
        "eth_newPendingTransactionFilter",
        "eth_syncing",
        "net_version",
        "txpool_content",
        "txpool_status",
        "debug_getBadBlocks",
    ] {
        all.push((method, vec![]));
    }
    state(facts, me, &mut all);
    blocks(facts, &mut all);
    calls(facts, me, &mut all);
    logs(facts, &mut all);
    debug(facts, &mut all);
    all.push(("txpool_contentFrom", vec![json!(me)]));
    all.push(("txpool_contentFrom", vec![json!(Address::ZERO)]));
    let encoded = facts.world.signed(facts.nonce, 21_000, me, U256::ZERO, Bytes::new());
    all.push(("eth_sendRawTransaction", vec![json!(encoded)]));
    all
}

fn state(facts: &Facts, me: Address, all: &mut Vec<(&'static str, Vec<Value>)>) {
    for account in [me, facts.contract, facts.delegated, Address::repeat_byte(0xaa)] {
        for block in TAGS.iter().map(|tag| json!(tag)).chain([json!("0x1"), json!(facts.block)]) {
            let of =
                |more: &[Value]| [&[json!(account)], more, std::slice::from_ref(&block)].concat();
            all.push(("eth_getBalance", of(&[])));
            all.push(("eth_getTransactionCount", of(&[])));
            all.push(("eth_getCode", of(&[])));
            all.push(("eth_getStorageAt", of(&[json!("0x0")])));
            all.push(("eth_getProof", of(&[json!(["0x0", B256::with_last_byte(1)])])));
        }
    }
    let slots = json!({ facts.contract.to_string(): [B256::ZERO, "0x1"], me.to_string(): ["0x0"] });
    all.push(("eth_getStorageValues", vec![slots.clone(), json!("latest")]));
    all.push(("eth_getStorageValues", vec![slots]));
}

fn blocks(facts: &Facts, all: &mut Vec<(&'static str, Vec<Value>)>) {
    let numbers: Vec<Value> =
        TAGS.iter().map(|tag| json!(tag)).chain(["0x0", "0x2", "0x63"].map(Value::from)).collect();
    for number in &numbers {
        for full in [true, false] {
            all.push(("eth_getBlockByNumber", vec![number.clone(), json!(full)]));
        }
        all.push(("eth_getBlockReceipts", vec![number.clone()]));
        all.push(("eth_getBlockTransactionCountByNumber", vec![number.clone()]));
        for index in ["0x0", "0x1", "0x63"] {
            let params = vec![number.clone(), json!(index)];
            all.push(("eth_getTransactionByBlockNumberAndIndex", params));
        }
        all.push(("eth_feeHistory", vec![json!("0x3"), number.clone(), json!([5.0, 50.0])]));
    }
    // There is no block 0x63 yet.
    all.retain(|(method, params)| *method != "eth_feeHistory" || params[1] != "0x63");
    for hash in [facts.block, B256::ZERO] {
        for full in [true, false] {
            all.push(("eth_getBlockByHash", vec![json!(hash), json!(full)]));
        }
        all.push(("eth_getBlockReceipts", vec![json!(hash)]));
        all.push(("eth_getBlockTransactionCountByHash", vec![json!(hash)]));
        for index in ["0x0", "0x1", "0x63"] {
            let params = vec![json!(hash), json!(index)];
            all.push(("eth_getTransactionByBlockHashAndIndex", params));
        }
    }
    for hash in [
        facts.create,
        facts.legacy,
        facts.access_list,
        facts.dynamic,
        facts.set_code,
        facts.pending,
        B256::ZERO,
    ] {
        all.push(("eth_getTransactionReceipt", vec![json!(hash)]));
        // The schema of this method knows no transaction outside of a block.
        if hash != facts.pending {
            all.push(("eth_getTransactionByHash", vec![json!(hash)]));
        }
    }
}

fn calls(facts: &Facts, me: Address, all: &mut Vec<(&'static str, Vec<Value>)>) {
    let call = json!({ "from": me, "to": facts.contract, "input": "0x1234" });
    let paid = json!({
        "from": me, "to": facts.contract, "value": "0x1",
        "maxFeePerGas": "0x989680", "maxPriorityFeePerGas": "0x1",
    });
    for request in [&call, &paid] {
        for method in ["eth_call", "eth_estimateGas", "eth_createAccessList"] {
            all.push((method, vec![request.clone(), json!("latest")]));
            all.push((method, vec![request.clone()]));
        }
        all.push(("eth_fillTransaction", vec![request.clone()]));
    }
    let legacy = json!({ "from": me, "to": facts.contract, "gasPrice": "0x989680" });
    all.push(("eth_fillTransaction", vec![legacy]));
    let simulation = |validation: bool, full: bool| {
        json!({
            "blockStateCalls": [
                {
                    "blockOverrides": { "baseFeePerGas": "0x9" },
                    "stateOverrides": { me.to_string(): { "balance": "0xde0b6b3a7640000" } },
                    "calls": [
                        { "from": me, "to": facts.contract, "maxFeePerGas": "0xf", "input": "0x01" },
                        { "from": me, "to": Address::repeat_byte(1), "value": "0x1",
                          "maxFeePerGas": "0xf" },
                    ],
                },
                { "calls": [{ "from": me, "input": "0xfe", "gas": "0x186a0",
                              "maxFeePerGas": "0x989680" }] },
            ],
            "traceTransfers": true, "validation": validation, "returnFullTransactions": full,
        })
    };
    for (validation, full) in [(false, false), (false, true), (true, true)] {
        all.push(("eth_simulateV1", vec![simulation(validation, full), json!("latest")]));
    }
}

fn logs(facts: &Facts, all: &mut Vec<(&'static str, Vec<Value>)>) {
    for filter in [
        json!({ "address": facts.contract, "fromBlock": "earliest", "toBlock": "latest" }),
        json!({ "blockHash": facts.block }),
        json!({ "fromBlock": "0x1", "topics": [null, []] }),
    ] {
        all.push(("eth_getLogs", vec![filter.clone()]));
        all.push(("eth_newFilter", vec![filter]));
    }
    let [blocks, logs] = &facts.filters;
    all.push(("eth_getFilterChanges", vec![blocks.clone()]));
    all.push(("eth_getFilterChanges", vec![logs.clone()]));
    all.push(("eth_getFilterLogs", vec![logs.clone()]));
    // One that never was.
    all.push(("eth_uninstallFilter", vec![json!("0x1")]));
}

fn debug(facts: &Facts, all: &mut Vec<(&'static str, Vec<Value>)>) {
    for block in ["earliest", "latest", "0x2"] {
        all.push(("debug_getRawHeader", vec![json!(block)]));
        all.push(("debug_getRawBlock", vec![json!(block)]));
        all.push(("debug_getRawReceipts", vec![json!(block)]));
    }
    all.push(("debug_getRawTransaction", vec![json!(facts.legacy)]));
    all.push(("debug_traceTransaction", vec![json!(facts.legacy)]));
    all.push(("debug_traceBlockByNumber", vec![json!("0x2")]));
    all.push(("debug_traceBlockByHash", vec![json!(facts.block)]));
}
