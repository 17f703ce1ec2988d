//! `ots_*`.

use crate::{
    setup::{FRIEND, Traces},
    world::{hex, refused, signer},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use anyhow::Context;
use jsonrpsee::rpc_params;
use kedge_genesis::predeploys::{DEPOSITOR, L1_BLOCK};
use serde_json::{Value, json};

#[tokio::test]
async fn otterscan_finds_the_interface_that_it_needs() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    assert_eq!(t.world.ask("ots_getApiLevel", rpc_params![]).await?, json!(8));
    let block = t.world.ask("eth_getBlockByNumber", rpc_params!["0x1", false]).await?;
    let header = t.world.ask("erigon_getHeaderByNumber", rpc_params![1]).await?;
    assert_eq!(header["hash"], block["hash"]);
    let none = t.world.ask("erigon_getHeaderByNumber", rpc_params!["0x63"]).await?;
    assert_eq!(none, Value::Null);
    for (address, block, expected) in
        [(t.inner, "0x1", false), (t.inner, "0x2", true), (FRIEND, "latest", false)]
    {
        let found = t.world.ask("ots_hasCode", rpc_params![address, block]).await?;
        assert_eq!(found, json!(expected), "{address} at {block}");
    }
    Ok(())
}

#[tokio::test]
async fn a_transaction_shows_its_calls_moves_and_error() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let entries = t.world.ask("ots_traceTransaction", rpc_params![t.call]).await?;
    let entries = entries.as_array().context("a list")?;
    let kinds: Vec<_> = entries.iter().map(|entry| (&entry["type"], &entry["depth"])).collect();
    let [call, delegate] = [json!("CALL"), json!("DELEGATECALL")];
    let [zero, one] = [json!(0), json!(1)];
    assert_eq!(kinds, [(&call, &zero), (&call, &one), (&call, &one), (&delegate, &one)]);
    assert_eq!((&entries[1]["value"], &entries[3]["value"]), (&json!("0x5"), &Value::Null));
    let creation = t.world.ask("ots_traceTransaction", rpc_params![t.create[0]]).await?;
    assert_eq!((&creation[0]["type"], &creation[0]["to"]), (&json!("CREATE"), &json!(t.inner)));
    let none = t.world.ask("ots_traceTransaction", rpc_params![B256::ZERO]).await?;
    assert_eq!(none, Value::Null);

    let moves = t.world.ask("ots_getInternalOperations", rpc_params![t.call]).await?;
    assert_eq!(moves, json!([{ "type": 0, "from": t.outer, "to": t.inner, "value": "0x5" }]));
    let error = |hash: B256| t.world.ask("ots_getTransactionError", rpc_params![hash]);
    assert_eq!(error(t.revert).await?, json!(B256::with_last_byte(7)));
    assert_eq!(error(t.call).await?, json!("0x"));
    assert_eq!(refused(error(B256::ZERO).await).0, -32000);
    Ok(())
}

#[tokio::test]
async fn what_a_reverted_call_moved_is_not_shown() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    // The creation reverts after it called `inner` with a value.
    let call = [&[0x5f, 0x5f, 0x5f, 0x5f, 0x60, 5, 0x73][..], t.inner.as_slice()].concat();
    let code = [&call[..], &[0x5a, 0xf1, 0x5f, 0x5f, 0xfd]].concat();
    let tx = alloy_consensus::TxEip1559 {
        chain_id: t.world.params.chain_id,
        nonce: 5,
        gas_limit: 1_000_000,
        max_fee_per_gas: 10_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: alloy_primitives::TxKind::Create,
        value: U256::from(5),
        input: code.into(),
        ..Default::default()
    };
    let hash = t.world.send(&t.world.sign(tx)).await?;
    t.world.make_block(false)?;
    let traces = t.world.ask("trace_transaction", rpc_params![hash]).await?;
    assert_eq!(traces.as_array().map(Vec::len), Some(2), "the call was made");
    assert_eq!(t.world.ask("ots_getInternalOperations", rpc_params![hash]).await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn a_block_shows_fees_and_pages_of_transactions() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let block = t.world.ask("eth_getBlockByNumber", rpc_params!["0x3", true]).await?;
    let details = t.world.ask("ots_getBlockDetails", rpc_params![3]).await?;
    let same = t.world.ask("ots_getBlockDetailsByHash", rpc_params![&block["hash"]]).await?;
    assert_eq!(same, details);
    assert_eq!(details["block"]["hash"], block["hash"]);
    assert_eq!(details["block"]["transactionCount"], 3);
    assert!(details["block"].get("transactions").is_none());
    let receipts = t.world.ask("eth_getBlockReceipts", rpc_params!["0x3"]).await?;
    let receipts = receipts.as_array().context("receipts")?;
    let paid = receipts.iter().map(|receipt| {
        hex(&receipt["gasUsed"]) * hex(&receipt["effectiveGasPrice"]) + hex(&receipt["l1Fee"])
    });
    assert_eq!(hex(&details["totalFees"]), paid.sum::<U256>());
    let missing = t.world.ask("ots_getBlockDetails", rpc_params!["0x63"]).await?;
    assert_eq!(missing, Value::Null);

    let page = |page: usize| t.world.ask("ots_getBlockTransactions", rpc_params![3, page, 2]);
    let (last, first) = (page(0).await?, page(1).await?);
    let hashes = |page: &Value| -> Vec<Value> {
        let all = page["fullblock"]["transactions"].as_array().cloned().unwrap_or_default();
        all.iter().map(|tx| tx["hash"].clone()).collect()
    };
    assert_eq!(hashes(&last), [json!(t.revert), json!(t.transfer)]);
    assert_eq!(hashes(&first), [json!(t.call)]);
    assert_eq!(first["fullblock"]["transactionCount"], 3);
    assert_eq!(first["fullblock"]["transactions"][0]["input"], "0x01020304", "cut to the selector");
    assert_eq!(last["receipts"][0]["status"], "0x0");
    assert_eq!(last["receipts"][1]["gasUsed"], "0x5208");
    assert!(hashes(&page(2).await?).is_empty());
    let shown = [&first["receipts"][0], &last["receipts"][0], &last["receipts"][1]];
    for (shown, receipt) in shown.into_iter().zip(receipts) {
        let receipt = receipt.as_object().context("a receipt")?;
        assert!(receipt.contains_key("l1Fee"));
        for (field, value) in receipt {
            match field.as_str() {
                "logs" | "logsBloom" => assert_eq!(shown[field], Value::Null),
                _ => assert_eq!(&shown[field], value, "{field}"),
            }
        }
    }
    let deposits = t.world.ask("ots_getBlockTransactions", rpc_params![1, 0, 2]).await?;
    let receipts = t.world.ask("eth_getBlockReceipts", rpc_params!["0x1"]).await?;
    for (place, field) in [(0, "depositNonce"), (1, "depositNonce"), (1, "depositReceiptVersion")] {
        let (shown, receipt) = (&deposits["receipts"][place][field], &receipts[place][field]);
        assert!(!receipt.is_null() && shown == receipt, "{field}: {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_search_finds_every_transaction_that_an_address_took_part_in() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let again = t.world.signed(5, 100_000, t.inner, U256::from(3), Bytes::new());
    let again = t.world.send(&again).await?;
    t.world.make_block(false)?;
    let search = |way: &'static str, address: Address, block: u64, size: usize| {
        t.world.ask(way, rpc_params![address, block, size])
    };
    let (before, after) = ("ots_searchTransactionsBefore", "ots_searchTransactionsAfter");
    let hashes = |page: &Value| -> Vec<B256> {
        let all = page["txs"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|tx| serde_json::from_value(tx["hash"].clone()).ok()).collect()
    };
    let ends = |page: &Value| (page["firstPage"] == json!(true), page["lastPage"] == json!(true));

    // Called from outside, by the other contract, and created.
    let all = search(before, t.inner, 0, 25).await?;
    assert_eq!(hashes(&all), [again, t.revert, t.call, t.create[0]]);
    assert_eq!(ends(&all), (true, true));
    assert_eq!(all["receipts"][1]["status"], "0x0");
    assert_eq!(all["receipts"][0]["transactionHash"], json!(again));
    let receipt = t.world.ask("eth_getTransactionReceipt", rpc_params![again]).await?;
    assert!(all["receipts"][0]["l1Fee"] == receipt["l1Fee"] && !receipt["l1Fee"].is_null());
    assert!(hex(&all["receipts"][0]["timestamp"]) > U256::ZERO);

    let newest = search(before, t.inner, 0, 1).await?;
    assert_eq!((hashes(&newest), ends(&newest)), (vec![again], (true, false)));
    let next = search(before, t.inner, 4, 1).await?;
    assert_eq!(hashes(&next), [t.revert, t.call], "a page ends with a whole block");
    assert_eq!(ends(&next), (false, false));
    let oldest = search(before, t.inner, 3, 1).await?;
    assert_eq!((hashes(&oldest), ends(&oldest)), (vec![t.create[0]], (false, true)));

    let from_start = search(after, t.inner, 0, 2).await?;
    assert_eq!(
        (hashes(&from_start), ends(&from_start)),
        (vec![t.revert, t.call, t.create[0]], (false, true))
    );
    let rest = search(after, t.inner, 3, 2).await?;
    assert_eq!((hashes(&rest), ends(&rest)), (vec![again], (true, false)));

    // The deposit of block 1, and nothing but that of the L1 attributes' depositor.
    let friend = search(before, FRIEND, 0, 25).await?;
    assert_eq!(hashes(&friend), [t.transfer]);
    let depositor = search(before, DEPOSITOR, 0, 25).await?;
    let attributes = search(before, L1_BLOCK, 0, 25).await?;
    assert_eq!(hashes(&depositor).len(), 1);
    assert_eq!(hashes(&attributes), hashes(&depositor), "read by each block, called in one");
    let me = search(before, signer().address(), 0, 25).await?;
    assert_eq!(hashes(&me).len(), 7, "the deposit that paid it, two creations, four calls");
    let nobody = search(before, Address::repeat_byte(0x77), 0, 25).await?;
    assert_eq!((hashes(&nobody), ends(&nobody)), (vec![], (true, true)));
    assert_eq!(refused(search(before, FRIEND, 0, 0).await).0, -32602);
    assert_eq!(refused(search(before, FRIEND, 0, 1_000).await).0, -32602);

    // A block that is taken back is not found any more.
    t.world.engine.unwind_unsafe_to(kedge_genesis::L2Number(3))?;
    assert_eq!(hashes(&search(before, t.inner, 0, 25).await?), [t.revert, t.call, t.create[0]]);
    Ok(())
}

#[tokio::test]
async fn transactions_are_found_by_nonce_and_contracts_by_their_creation() -> anyhow::Result<()> {
    let t = Traces::new().await?;
    let me = signer().address();
    let by_nonce = |from: Address, nonce: u64| {
        t.world.ask("ots_getTransactionBySenderAndNonce", rpc_params![from, nonce])
    };
    let sent = [t.create[0], t.create[1], t.call, t.revert, t.transfer];
    for (nonce, hash) in (0..).zip(sent) {
        assert_eq!(by_nonce(me, nonce).await?, json!(hash), "nonce {nonce}");
    }
    assert_eq!(by_nonce(me, 5).await?, Value::Null);
    let block = t.world.ask("eth_getBlockByNumber", rpc_params!["0x1", false]).await?;
    assert_eq!(by_nonce(DEPOSITOR, 0).await?, block["transactions"][0], "deposits have nonces too");

    let creator = |of: Address| t.world.ask("ots_getContractCreator", rpc_params![of]);
    for (contract, hash) in [(t.inner, t.create[0]), (t.outer, t.create[1])] {
        assert_eq!(creator(contract).await?, json!({ "hash": hash, "creator": me }));
    }
    assert_eq!(creator(FRIEND).await?, Value::Null);
    assert_eq!(creator(L1_BLOCK).await?, Value::Null, "part of genesis");
    Ok(())
}
