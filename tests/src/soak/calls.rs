//! Executions that nobody signed, fees, and what a node says of itself.

use super::{
    accounts::{TRANSFER, balance_of, log_input, recipient, token_slot, token_transfer},
    asker::Asker,
    world::{hex, keccak, list, number, same, short, text},
};
use alloy_primitives::U256;
use anyhow::{Result, ensure};
use rand::Rng;
use serde_json::{Value, json};

/// A 32-byte word.
fn word(number: u64) -> String {
    format!("0x{number:064x}")
}

impl Asker {
    /// A token transfer that nobody sends: by whoever holds enough of it.
    fn token_call(&mut self) -> Value {
        let data = token_transfer(recipient(&mut self.rng), U256::from(5));
        json!({ "from": self.senders[0].address(), "to": self.world.token, "data": data })
    }

    /// Calls with state and block overrides: they answer with what was put there.
    pub(super) async fn call_with_overrides(&mut self) -> Result<()> {
        let (at, token, value) = (self.block(), self.world.token.clone(), self.rng.random::<u64>());
        let holder = self.account();
        let code = self.ask("eth_getCode", json!([token, "latest"])).await?;
        let state = json!({ &token: {
            "code": code,
            "stateDiff": { token_slot(&holder)?: word(value) },
        }});
        let call = json!({ "to": token, "data": balance_of(&holder)? });
        let said = self.ask("eth_call", json!([call, hex(at), state])).await?;
        same("an overridden balance", &said, &json!(word(value)))?;
        // Block number and time of the block that the call is in: NUMBER TIMESTAMP XOR.
        let code = "0x4342185f5260205ff3";
        let (block, time) = (value >> 1, self.rng.random::<u64>() >> 1);
        let state = json!({ &holder: { "code": code } });
        let overrides = json!({ "number": hex(block), "time": hex(time) });
        let call = json!([{ "to": holder }, hex(at), state, overrides]);
        let said = self.ask("eth_call", call).await?;
        same("an overridden block", &said, &json!(word(block ^ time)))
    }

    /// Estimates, which suffice, and access lists, which name what is touched.
    pub(super) async fn estimate(&mut self) -> Result<()> {
        let (from, to) = (self.senders[0].address(), recipient(&mut self.rng));
        let plain = json!({ "from": from, "to": to, "value": "0x1" });
        let gas = self.ask("eth_estimateGas", json!([plain])).await?;
        same("gas of a transfer", &gas, &json!("0x5208"))?;
        let mut call = self.token_call();
        let at = self.world.known.lock().common;
        let gas = self.ask("eth_estimateGas", json!([call, hex(at)])).await?;
        call["gas"] = gas;
        let done = self.ask("eth_call", json!([call, hex(at)])).await?;
        same("a token transfer", &done, &json!(word(1)))?;
        let listed = self.ask("eth_createAccessList", json!([call, hex(at)])).await?;
        let entry = &listed["accessList"][0];
        ensure!(entry["address"] == self.world.token.as_str(), "access list: {}", short(&listed));
        ensure!(list(&entry["storageKeys"])?.len() == 2, "access list: {}", short(&listed));
        let filled = self.ask("eth_fillTransaction", json!([call])).await?;
        ensure!(filled["tx"]["gas"] == call["gas"], "filled in: {}", short(&filled));
        Ok(())
    }

    /// Two blocks of calls on top of an old or new one.
    pub(super) async fn simulate(&mut self) -> Result<()> {
        let at = self.world.known.lock().common;
        let at = at - self.rng.random_range(0..8);
        let payload = json!({
            "blockStateCalls": [
                { "calls": [self.token_call(), { "to": self.world.logger, "data": log_input(64) }] },
                { "calls": [self.token_call()] },
            ],
            "traceTransfers": self.rng.random::<bool>(),
            "returnFullTransactions": self.rng.random::<bool>(),
        });
        let blocks = self.ask_of(at, "eth_simulateV1", json!([payload, hex(at)])).await?;
        let blocks = list(&blocks)?;
        ensure!(blocks.len() == 2, "{} simulated blocks", blocks.len());
        for (place, block) in blocks.iter().enumerate() {
            ensure!(
                number(&block["number"])? == at + 1 + place as u64,
                "number of {}",
                short(block)
            );
            for call in list(&block["calls"])? {
                ensure!(call["status"] == "0x1", "a simulated call: {}", short(call));
                ensure!(list(&call["logs"])?.len() == 1, "logs of {}", short(call));
            }
        }
        let topic = &blocks[0]["calls"][0]["logs"][0]["topics"][0];
        same("the topic of a simulated log", topic, &json!(TRANSFER))
    }

    /// Fees of past blocks, and what a wallet asks before it sends.
    pub(super) async fn fees(&mut self) -> Result<()> {
        let newest = self.block().max(1);
        let count = self.rng.random_range(1..=newest.min(20));
        let params = json!([hex(count), hex(newest), [10.0, 50.0, 90.0]]);
        let history = self.ask_of(newest, "eth_feeHistory", params).await?;
        same("the oldest block", &history["oldestBlock"], &json!(hex(newest + 1 - count)))?;
        let header = self.ask_of(newest, "eth_getHeaderByNumber", json!([hex(newest)])).await?;
        let fees = list(&history["baseFeePerGas"])?;
        ensure!(fees.len() as u64 == count + 1, "{} base fees of {count} blocks", fees.len());
        same("a base fee", &fees[fees.len() - 2], &header["baseFeePerGas"])?;
        ensure!(list(&history["reward"])?.len() as u64 == count, "rewards: {}", short(&history));
        let tip = number(&self.ask("eth_maxPriorityFeePerGas", json!([])).await?)?;
        let price = number(&self.ask("eth_gasPrice", json!([])).await?)?;
        ensure!(price > tip, "a gas price of {price} with a tip of {tip}");
        number(&self.ask("eth_baseFee", json!([])).await?)?;
        same("blob fee", &self.ask("eth_blobBaseFee", json!([])).await?, &json!("0x1"))
    }

    /// What a node says of itself.
    pub(super) async fn about(&mut self) -> Result<()> {
        let id = self.world.chain_id;
        same("chain id", &self.ask("eth_chainId", json!([])).await?, &json!(hex(id)))?;
        same("network", &self.ask("net_version", json!([])).await?, &json!(id.to_string()))?;
        let noise = hex(self.rng.random_range(1 << 60..1 << 62));
        let hash = self.ask("web3_sha3", json!([noise])).await?;
        same("web3_sha3", &hash, &json!(keccak(&json!(noise))?))?;
        // Answers that never change, at whichever block.
        for method in [
            "eth_accounts",
            "eth_coinbase",
            "net_listening",
            "net_peerCount",
            "web3_clientVersion",
            "eth_config",
            "optimism_rollupConfig",
            "ots_getApiLevel",
            "kedge_health",
            "debug_getBadBlocks",
        ] {
            self.ask_of(0, method, json!([])).await?;
        }
        // What only dev serves is in its document.
        let document = self.ask("rpc.discover", json!([])).await?;
        ensure!(list(&document["methods"])?.len() > 100, "{}", short(&document));
        let syncing = self.ask("eth_syncing", json!([])).await?;
        ensure!(syncing == false || syncing.is_object(), "eth_syncing: {syncing}");
        let capable = self.ask("eth_capabilities", json!([])).await?;
        number(&capable["head"]["number"])?;
        Ok(())
    }

    /// The mempool, empty at a node that is not the sequencer.
    pub(super) async fn pool(&mut self) -> Result<()> {
        let status = self.ask("txpool_status", json!([])).await?;
        let waiting = number(&status["pending"])? + number(&status["queued"])?;
        ensure!(self.node == 0 || waiting == 0, "a follower has {waiting} transactions");
        for method in ["txpool_content", "txpool_inspect"] {
            let content = self.ask(method, json!([])).await?;
            ensure!(content["pending"].is_object(), "{method}: {}", short(&content));
        }
        let from = json!([self.senders[0].address()]);
        let content = self.ask("txpool_contentFrom", from).await?;
        // The client waits for each of its transactions.
        same("what waits", &content, &json!({ "pending": {}, "queued": {} }))?;
        let nonces = json!([self.senders[0].address(), "pending"]);
        let nonce = self.ask("eth_getTransactionCount", nonces).await?;
        same("a pending nonce", &nonce, &json!(hex(self.senders[0].nonce)))
    }

    /// Where blocks, batches, deposits, withdrawals and assertions stand on Bitcoin.
    pub(super) async fn positions(&mut self) -> Result<()> {
        let at = self.block();
        let header = self.ask_of(at, "eth_getHeaderByNumber", json!([hex(at)])).await?;
        let output = self.ask("optimism_outputAtBlock", json!([hex(at)])).await?;
        let block = self.ask("kedge_block", json!([hex(at)])).await?;
        same("output roots", &output["outputRoot"], &block["outputRoot"])?;
        same("state roots", &output["stateRoot"], &header["stateRoot"])?;
        same("a block's hash", &block["hash"], &header["hash"])?;
        if let Some(batch) = block["batch"].as_u64() {
            let batch = self.ask_of(at, "kedge_batch", json!([batch])).await?;
            let (first, last) = (batch["first"].as_u64(), batch["last"].as_u64());
            ensure!(first <= Some(at) && last >= Some(at), "block {at} in {}", short(&batch));
            let params = json!([{ "last": batch["index"], "count": 3 }]);
            let batches = self.ask_of(at, "kedge_batches", params).await?;
            ensure!(list(&batches)?.contains(&batch), "{} lacks {batch}", short(&batches));
        }
        if block["assertion"].is_string() {
            let assertion = self.ask("kedge_assertion", json!([block["assertion"]])).await?;
            ensure!(assertion["agrees"] == true, "covered by {}", short(&assertion));
        }
        let signed = self.ask("kedge_signedBlocks", json!([at, 2])).await?;
        if let Some(signed) = list(&signed)?.first() {
            same("a signed block", &signed["hash"], &header["hash"])?;
        }
        let status = self.ask("kedge_syncStatus", json!([])).await?;
        let heads = self.ask("optimism_syncStatus", json!([])).await?;
        for heads in
            [["finalized", "safe"], ["safe", "latest"]].map(|two| two.map(|of| &status[of]))
        {
            ensure!(heads[0]["number"].as_u64() <= heads[1]["number"].as_u64(), "{status}");
        }
        ensure!(heads["unsafe_l2"]["number"].is_u64(), "{}", short(&heads));
        Ok(())
    }

    /// The bridge's books.
    pub(super) async fn bridge(&mut self) -> Result<()> {
        let status = self.ask("kedge_bridgeStatus", json!([])).await?;
        ensure!(status["solvent"] == true, "the vault does not cover: {}", short(&status));
        let deposits = self.ask("kedge_deposits", json!([5])).await?;
        for deposit in list(&deposits)? {
            let one = self.ask("kedge_deposit", json!([deposit["outpoint"]])).await?;
            same("a deposit", &one["amountSats"], &deposit["amountSats"])?;
        }
        let count = status["withdrawalCount"].as_u64().unwrap_or_default();
        if count > 0 {
            let index = self.rng.random_range(0..count);
            let one = self.ask("kedge_withdrawal", json!([index])).await?;
            let params = json!([{ "from": index, "count": 1 }]);
            let some = self.ask("kedge_withdrawals", params).await?;
            same("a withdrawal", &some[0]["transaction"], &one["transaction"])?;
            let receipt =
                self.ask("eth_getTransactionReceipt", json!([one["transaction"]])).await?;
            same(
                "a withdrawal's block",
                &receipt["blockNumber"],
                &json!(hex(one["block"].as_u64().unwrap_or_default())),
            )?;
        }
        let assertions = self.ask("kedge_assertions", json!([])).await?;
        if let Some(newest) = list(&assertions)?.last() {
            text(&newest["id"])?;
            // There is nothing to prove about an assertion that this node agrees with.
            let params = json!([newest["id"]]);
            if self.rng.random_ratio(1, 4) && newest["agrees"] == true {
                self.refused("kedge_buildProof", params, -32_000).await?;
            }
        }
        Ok(())
    }
}
