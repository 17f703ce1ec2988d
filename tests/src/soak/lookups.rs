//! Look-ups of blocks, transactions, receipts and state: what one method says another has to say too.

use super::{
    accounts::{balance_of, token_slot},
    asker::Asker,
    world::{hex, keccak, list, number, same, text},
};
use anyhow::{Context, Result, ensure};
use rand::Rng;
use serde_json::{Value, json};

impl Asker {
    /// A block by number and hash, with hashes and with transactions, its header and its counts.
    pub(super) async fn look_at_block(&mut self) -> Result<()> {
        let number = self.block();
        let brief =
            self.ask_of(number, "eth_getBlockByNumber", json!([hex(number), false])).await?;
        let hash = brief["hash"].clone();
        let whole = self.ask_of(number, "eth_getBlockByHash", json!([hash, true])).await?;
        let hashes = list(&whole["transactions"])?.iter().map(|tx| tx["hash"].clone()).collect();
        same("hashes of transactions", &brief["transactions"], &Value::Array(hashes))?;
        let mut fields = whole.clone();
        fields["transactions"] = brief["transactions"].clone();
        same("forms of a block", &brief, &fields)?;
        let (method, params) = match self.rng.random_range(0..6) {
            0 => ("eth_getHeaderByNumber", json!([hex(number)])),
            1 => ("eth_getHeaderByHash", json!([hash])),
            2 => ("ots_getHeaderByNumber", json!([number])),
            3 => ("erigon_getHeaderByNumber", json!([number])),
            4 => ("eth_getBlockTransactionCountByNumber", json!([hex(number)])),
            _ => ("eth_getBlockTransactionCountByHash", json!([hash])),
        };
        let found = self.ask_of(number, method, params).await?;
        if method.contains("Count") {
            same(method, &found, &json!(hex(list(&brief["transactions"])?.len() as u64)))?;
        } else {
            for field in ["hash", "stateRoot", "parentHash", "timestamp", "gasUsed", "number"] {
                same(method, &found[field], &brief[field])?;
            }
        }
        if number > 0 {
            let parent = self.hash_of(number - 1).await?;
            same("a parent's hash", &parent, &brief["parentHash"])?;
        }
        Ok(())
    }

    /// Uncles, of which there are none.
    pub(super) async fn look_at_uncles(&mut self) -> Result<()> {
        let number = self.block();
        let hash = self.hash_of(number).await?;
        for (method, params, answer) in [
            ("eth_getUncleCountByBlockNumber", json!([hex(number)]), json!("0x0")),
            ("eth_getUncleCountByBlockHash", json!([hash]), json!("0x0")),
            ("eth_getUncleByBlockNumberAndIndex", json!([hex(number), "0x0"]), Value::Null),
            ("eth_getUncleByBlockHashAndIndex", json!([hash, "0x0"]), Value::Null),
        ] {
            same(method, &self.ask_of(number, method, params).await?, &answer)?;
        }
        Ok(())
    }

    /// All receipts of a block and one of them by itself.
    pub(super) async fn look_at_receipts(&mut self) -> Result<()> {
        let (tx, receipt) = self.some_receipt().await?;
        let all = if self.rng.random() {
            self.receipts(tx.block).await?
        } else {
            let params = json!([{ "blockHash": tx.block_hash }]);
            list(&self.ask_of(tx.block, "eth_getBlockReceipts", params).await?)?.clone()
        };
        let place = usize::try_from(number(&receipt["transactionIndex"])?)?;
        same("a receipt", all.get(place).context("the receipt is missing")?, &receipt)?;
        let (mut gas, mut logs) = (0, 0);
        for receipt in &all {
            gas += number(&receipt["gasUsed"])?;
            ensure!(number(&receipt["cumulativeGasUsed"])? == gas, "gas of {receipt}");
            for log in list(&receipt["logs"])? {
                ensure!(number(&log["logIndex"])? == logs, "index of {log}");
                logs += 1;
            }
        }
        let header = self.ask_of(tx.block, "eth_getHeaderByNumber", json!([hex(tx.block)])).await?;
        same("gas of a block", &header["gasUsed"], &json!(hex(gas)))
    }

    /// A transaction by hash, by place, by sender, and its bytes.
    pub(super) async fn look_at_transaction(&mut self) -> Result<()> {
        let tx = self.transaction()?;
        let shown = self.ask_of(tx.block, "eth_getTransactionByHash", json!([tx.hash])).await?;
        ensure!(shown["from"] == tx.from.as_str(), "another sender: {shown}");
        let index = shown["transactionIndex"].clone();
        let (method, params) = match self.rng.random_range(0..3) {
            0 => ("eth_getTransactionByBlockNumberAndIndex", json!([hex(tx.block), index])),
            1 => ("eth_getTransactionByBlockHashAndIndex", json!([tx.block_hash, index])),
            _ => ("eth_getTransactionBySenderAndNonce", json!([tx.from, hex(tx.nonce)])),
        };
        same(method, &self.ask_of(tx.block, method, params).await?, &shown)?;
        let (method, params) = match self.rng.random_range(0..4) {
            0 => ("eth_getRawTransactionByHash", json!([tx.hash])),
            1 => ("debug_getRawTransaction", json!([tx.hash])),
            2 => ("eth_getRawTransactionByBlockNumberAndIndex", json!([hex(tx.block), index])),
            _ => ("eth_getRawTransactionByBlockHashAndIndex", json!([tx.block_hash, index])),
        };
        let raw = self.ask_of(tx.block, method, params).await?;
        ensure!(keccak(&raw)? == tx.hash, "{method} of {} answers {raw}", tx.hash);
        Ok(())
    }

    /// What is not there.
    pub(super) async fn look_for_nothing(&mut self) -> Result<()> {
        let hash = format!("{:#066x}", self.rng.random::<u128>());
        let far = hex(1 << 40);
        let (method, params) = match self.rng.random_range(0..10) {
            0 => ("eth_getBlockByHash", json!([hash, true])),
            1 => ("eth_getBlockByNumber", json!([far, false])),
            2 => ("eth_getTransactionByHash", json!([hash])),
            3 => ("eth_getTransactionReceipt", json!([hash])),
            4 => ("eth_getBlockReceipts", json!([far])),
            5 => ("eth_getHeaderByHash", json!([hash])),
            6 => ("trace_transaction", json!([hash])),
            7 => ("ots_getBlockDetails", json!([1u64 << 40])),
            8 => ("kedge_block", json!([far])),
            _ => ("kedge_batch", json!([1u64 << 40])),
        };
        same(method, &self.ask(method, params).await?, &Value::Null)
    }

    /// An account after a block, by number or by hash, beside its proof.
    pub(super) async fn look_at_account(&mut self) -> Result<()> {
        let (at, account) = (self.block(), self.account());
        let header = self.ask_of(at, "eth_getHeaderByNumber", json!([hex(at)])).await?;
        let block = match self.rng.random_range(0..3) {
            0 => json!(hex(at)),
            1 => json!({ "blockHash": header["hash"] }),
            _ => json!({ "blockNumber": hex(at) }),
        };
        let slot = token_slot(&self.senders[0].address())?;
        let proof = self.ask_of(at, "eth_getProof", json!([account, [slot], block])).await?;
        let root = list(&proof["accountProof"])?.first().context("an empty proof")?;
        same("the root of a proof", &json!(keccak(root)?), &header["stateRoot"])?;
        let of = json!([account, block]);
        let balance = self.ask_of(at, "eth_getBalance", of.clone()).await?;
        same("balance and proof", &balance, &proof["balance"])?;
        match self.rng.random_range(0..3) {
            0 => {
                let nonce = self.ask_of(at, "eth_getTransactionCount", of).await?;
                same("nonce and proof", &nonce, &proof["nonce"])
            }
            1 => {
                let code = self.ask_of(at, "eth_getCode", of.clone()).await?;
                let has = self.ask_of(at, "ots_hasCode", of).await?;
                same("ots_hasCode", &has, &json!(code != "0x"))?;
                if code != "0x" {
                    same("code and proof", &json!(keccak(&code)?), &proof["codeHash"])?;
                }
                Ok(())
            }
            _ => {
                let one =
                    self.ask_of(at, "eth_getStorageAt", json!([account, slot, block])).await?;
                let params = json!([{ &account: [slot] }, block]);
                let some = self.ask_of(at, "eth_getStorageValues", params).await?;
                same("ways to read a slot", &json!({ &account: [one] }), &some)?;
                let proven = &proof["storageProof"][0]["value"];
                let (read, proven) = (text(&one)?, text(proven)?.trim_start_matches("0x"));
                ensure!(read.ends_with(proven), "{read} in storage, {proven} proven");
                Ok(())
            }
        }
    }

    /// A token balance: what the contract says is what its slot holds, after any block.
    pub(super) async fn look_at_tokens(&mut self) -> Result<()> {
        let (at, token) = (self.block(), self.world.token.clone());
        let holder = if self.rng.random() { self.account() } else { self.senders[0].address() };
        let call = json!({ "to": token, "data": balance_of(&holder)? });
        let said = self.ask_of(at, "eth_call", json!([call, hex(at)])).await?;
        let params = json!([token, token_slot(&holder)?, hex(at)]);
        let held = self.ask_of(at, "eth_getStorageAt", params).await?;
        // Before it was deployed nothing answers.
        ensure!(said == held || (said == "0x" && held == format!("0x{:064x}", 0)), "{said} {held}");
        Ok(())
    }

    /// Balances one by one: what most wallets ask for most of the time.
    pub(super) async fn look_at_balances(&mut self) -> Result<()> {
        for tag in ["latest", "pending", "safe", "finalized", "earliest"] {
            let params = json!([self.account(), tag]);
            text(&self.ask("eth_getBalance", params).await?)?;
        }
        let heads = ["earliest", "finalized", "safe", "latest"];
        let mut last = 0;
        for head in heads {
            let block = self.ask("eth_getBlockByNumber", json!([head, false])).await?;
            let found = number(&block["number"])?;
            ensure!(found >= last, "{head} is {found}, before {last}");
            last = found;
        }
        let latest = number(&self.ask("eth_blockNumber", json!([])).await?)?;
        ensure!(latest >= last, "the newest block is {latest}, before {last}");
        Ok(())
    }
}
