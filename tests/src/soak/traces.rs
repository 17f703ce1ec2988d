//! Blocks executed again: what `debug_*`, `trace_*` and `ots_*` say of a transaction is what its receipt says.

use super::{
    accounts::balance_of,
    asker::Asker,
    world::{hex, keccak, list, number, same, short, text},
};
use anyhow::{Context, Result, ensure};
use rand::Rng;
use serde_json::{Value, json};

impl Asker {
    /// A transaction under one of go-ethereum's tracers.
    pub(super) async fn debug_transaction(&mut self) -> Result<()> {
        let (tx, receipt) = self.some_receipt().await?;
        let tracer = self.one_of(&[
            "callTracer",
            "flatCallTracer",
            "prestateTracer",
            "4byteTracer",
            "noopTracer",
            "muxTracer",
            "",
        ]);
        let options = match tracer {
            "" => json!({ "enableMemory": true, "limit": 50 }),
            "muxTracer" => json!({ "tracer": tracer, "tracerConfig": {
                "callTracer": { "withLog": true }, "4byteTracer": {},
            }}),
            "prestateTracer" => json!({ "tracer": tracer, "tracerConfig": { "diffMode": true } }),
            _ => json!({ "tracer": tracer }),
        };
        let params = json!([tx.hash, options]);
        let trace = self.ask_of(tx.block, "debug_traceTransaction", params).await?;
        let failed = receipt["status"] == "0x0";
        match tracer {
            "callTracer" => {
                same("gas", &trace["gasUsed"], &receipt["gasUsed"])?;
                ensure!(trace["error"].is_string() == failed, "{}", short(&trace));
                same("sender", &trace["from"], &receipt["from"])
            }
            "" => {
                ensure!(trace["failed"] == failed, "{}", short(&trace));
                ensure!(trace["gas"] == number(&receipt["gasUsed"])?, "{}", short(&trace));
                Ok(())
            }
            "muxTracer" => {
                let logs = trace["callTracer"]["logs"].as_array().map_or(0, Vec::len);
                let all = list(&receipt["logs"])?.len();
                ensure!(logs <= all && (all != 1 || logs == 1), "{logs} of {all} logs");
                Ok(())
            }
            "prestateTracer" => {
                ensure!(trace["pre"][&tx.from].is_object(), "{}", short(&trace));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A block under a tracer, by number, by hash, and from its bytes.
    pub(super) async fn debug_block(&mut self) -> Result<()> {
        let at = self.block().max(1);
        let hash = self.hash_of(at).await?;
        let options = json!({ "tracer": "callTracer" });
        let params = json!([hex(at), options]);
        let traces = self.ask_of(at, "debug_traceBlockByNumber", params).await?;
        let receipts = self.receipts(at).await?;
        ensure!(list(&traces)?.len() == receipts.len(), "{}", short(&traces));
        for (trace, receipt) in list(&traces)?.iter().zip(&receipts) {
            same("transactions", &trace["txHash"], &receipt["transactionHash"])?;
            same("gas", &trace["result"]["gasUsed"], &receipt["gasUsed"])?;
        }
        let raw = self.ask_of(at, "debug_getRawBlock", json!([hex(at)])).await?;
        let (method, params) = match self.rng.random_range(0..2) {
            0 => ("debug_traceBlockByHash", json!([hash, options])),
            _ => ("debug_traceBlock", json!([raw, options])),
        };
        same(method, &self.ask_of(at, method, params).await?, &traces)
    }

    /// A block's bytes, state roots and witness.
    pub(super) async fn debug_parts(&mut self) -> Result<()> {
        let at = self.block().max(1);
        let header = self.ask_of(at, "eth_getHeaderByNumber", json!([hex(at)])).await?;
        let raw = self.ask_of(at, "debug_getRawHeader", json!([hex(at)])).await?;
        same("a header's hash", &json!(keccak(&raw)?), &header["hash"])?;
        let receipts = self.ask_of(at, "debug_getRawReceipts", json!([hex(at)])).await?;
        let txs = self.ask_of(at, "debug_getRawTransactions", json!([hex(at)])).await?;
        ensure!(list(&receipts)?.len() == list(&txs)?.len(), "{}", short(&receipts));
        let roots = self.ask_of(at, "debug_intermediateRoots", json!([header["hash"]])).await?;
        ensure!(list(&roots)?.len() == list(&txs)?.len(), "{}", short(&roots));
        let (method, params) = match self.rng.random_range(0..2) {
            0 => ("debug_executionWitness", json!([hex(at)])),
            _ => ("debug_executionWitnessByBlockHash", json!([header["hash"]])),
        };
        let witness = self.ask_of(at, method, params).await?;
        let parent = list(&witness["headers"])?.last().context("no parent in the witness")?;
        same("the witness's parent", &json!(keccak(parent)?), &header["parentHash"])
    }

    /// A call under a tracer, beside the same call without.
    pub(super) async fn debug_call(&mut self) -> Result<()> {
        let at = self.block().max(1);
        let call =
            json!({ "to": self.world.token, "data": balance_of(&self.senders[0].address())? });
        let said = self.ask_of(at, "eth_call", json!([call, hex(at)])).await?;
        let options = json!({ "tracer": "callTracer" });
        let traced = self.ask_of(at, "debug_traceCall", json!([call, hex(at), options])).await?;
        let output = traced.get("output").cloned().unwrap_or(json!("0x"));
        same("what a call returns", &output, &said)?;
        let params = json!([call, ["trace", "vmTrace"], hex(at)]);
        let traced = self.ask_of(at, "trace_call", params).await?;
        same("what a call returns", &traced["output"], &said)?;
        let many = json!([[[call, ["trace"]], [call, ["stateDiff"]]], hex(at)]);
        let traced = self.ask_of(at, "trace_callMany", many).await?;
        ensure!(list(&traced)?.len() == 2, "{}", short(&traced));
        same("what a call returns", &traced[0]["output"], &said)
    }

    /// OpenEthereum's traces of a transaction and of its block.
    pub(super) async fn trace_transaction(&mut self) -> Result<()> {
        let (tx, receipt) = self.some_receipt().await?;
        let traces = self.ask_of(tx.block, "trace_transaction", json!([tx.hash])).await?;
        let all = self.ask_of(tx.block, "trace_block", json!([hex(tx.block)])).await?;
        let own = list(&all)?.iter().filter(|trace| trace["transactionHash"] == tx.hash.as_str());
        same("traces", &Value::Array(own.cloned().collect()), &traces)?;
        let one = self.ask_of(tx.block, "trace_get", json!([tx.hash, []])).await?;
        same("the first trace", &one, &traces[0])?;
        ensure!(one["error"].is_string() == (receipt["status"] == "0x0"), "{}", short(&one));
        let kinds = json!(["trace", "stateDiff"]);
        let params = json!([tx.hash, kinds]);
        let again = self.ask_of(tx.block, "trace_replayTransaction", params).await?;
        ensure!(again["stateDiff"][&tx.from].is_object(), "{}", short(&again));
        let params = json!([hex(tx.block), kinds]);
        let all = self.ask_of(tx.block, "trace_replayBlockTransactions", params).await?;
        let place = usize::try_from(number(&receipt["transactionIndex"])?)?;
        same("a replayed transaction", &all[place]["stateDiff"], &again["stateDiff"])
    }

    /// Traces of a few blocks by what they call.
    pub(super) async fn trace_filter(&mut self) -> Result<()> {
        let from = self.block().max(1);
        let common = self.world.known.lock().common;
        let to = (from + self.rng.random_range(0..4)).min(common);
        let filter = json!({
            "fromBlock": hex(from), "toBlock": hex(to), "toAddress": [self.world.token], "count": 50,
        });
        let traces = self.ask_of(to, "trace_filter", json!([filter])).await?;
        for trace in list(&traces)? {
            // Its creation counts too.
            let reached = [&trace["action"]["to"], &trace["result"]["address"]];
            let token = self.world.token.as_str();
            ensure!(reached.into_iter().any(|it| it == token), "{}", short(trace));
            let block = trace["blockNumber"].as_u64().context("no number")?;
            ensure!((from..=to).contains(&block), "{block} in {from} to {to}");
        }
        Ok(())
    }

    /// A transaction that waits for nobody, as it would be executed.
    pub(super) async fn trace_raw(&mut self) -> Result<()> {
        let world = self.world.clone();
        // A follower may not have the sender's last transaction yet.
        self.node = 0;
        let sender = self.senders.first_mut().context("a sender")?;
        let tx = sender.next(super::accounts::Deed::Transfer, &world, &mut self.rng)?;
        sender.nonce = tx.nonce;
        let trace = self.ask("trace_rawTransaction", json!([tx.encoded, ["trace"]])).await?;
        let action = &trace["trace"][0]["action"];
        ensure!(action["from"] == sender_of(self), "{}", short(&trace));
        Ok(())
    }

    /// What Otterscan shows of a transaction, a block and a contract.
    pub(super) async fn otterscan(&mut self) -> Result<()> {
        let (tx, receipt) = self.some_receipt().await?;
        let error = self.ask_of(tx.block, "ots_getTransactionError", json!([tx.hash])).await?;
        ensure!((receipt["status"] == "0x0") == (error != "0x"), "{} {error}", tx.hash);
        self.ask_of(tx.block, "ots_traceTransaction", json!([tx.hash])).await?;
        self.ask_of(tx.block, "ots_getInternalOperations", json!([tx.hash])).await?;
        let params = json!([tx.from, tx.nonce]);
        let hash = self.ask_of(tx.block, "ots_getTransactionBySenderAndNonce", params).await?;
        same("a transaction by nonce", &hash, &json!(tx.hash))?;
        let details = self.ask_of(tx.block, "ots_getBlockDetails", json!([tx.block])).await?;
        let params = json!([tx.block_hash]);
        let by_hash = self.ask_of(tx.block, "ots_getBlockDetailsByHash", params).await?;
        same("details of a block", &details, &by_hash)?;
        let params = json!([tx.block, 0, 100]);
        let page = self.ask_of(tx.block, "ots_getBlockTransactions", params).await?;
        let all = self.receipts(tx.block).await?;
        ensure!(list(&page["receipts"])?.len() == all.len().min(100), "{}", short(&page));
        let contract = {
            let known = self.world.known.lock();
            let deployed = known.contracts.iter().filter(|(_, block)| *block <= known.common);
            let count = deployed.clone().count();
            let place = self.rng.random_range(0..count.max(1));
            deployed.clone().nth(place).cloned()
        };
        if let Some((contract, _)) = contract {
            let creator = self.ask("ots_getContractCreator", json!([contract])).await?;
            let receipt = self.ask("eth_getTransactionReceipt", json!([creator["hash"]])).await?;
            let made = text(&receipt["contractAddress"])?;
            ensure!(made.eq_ignore_ascii_case(&contract), "{contract} by {creator}");
        }
        Ok(())
    }

    /// Pages of an account's transactions, before and after a block.
    pub(super) async fn search(&mut self) -> Result<()> {
        let (at, account) = (self.block().max(2), self.account());
        let (method, params) = if self.rng.random() {
            ("ots_searchTransactionsBefore", json!([account, at, 5]))
        } else {
            ("ots_searchTransactionsAfter", json!([account, at - 1, 5]))
        };
        let page = self.ask(method, params).await?;
        let (txs, receipts) = (list(&page["txs"])?, list(&page["receipts"])?);
        ensure!(txs.len() == receipts.len(), "{}", short(&page));
        let mut last = u64::MAX;
        for tx in txs {
            let block = number(&tx["blockNumber"])?;
            ensure!(block <= last, "newest first: {}", short(&page));
            ensure!((block < at) == method.ends_with("Before"), "block {block} of {method} {at}");
            last = block;
        }
        Ok(())
    }
}

fn sender_of(asker: &Asker) -> String {
    asker.senders[0].address()
}
