//! The steps that a user takes on any Kedge chain, with what must hold after each.

use crate::{
    bitcoind::block,
    kedge::{Account, Client, quantity},
    rpc::Rpc,
    tools::{Cast, forge_create, node},
    until,
};
use alloy_primitives::{Address, hex, keccak256};
use anyhow::{Context, Result, ensure};
use bitcoin::{ScriptBuf, Transaction};
use jsonrpsee::{
    core::client::{Subscription, SubscriptionClientT},
    rpc_params,
    ws_client::WsClientBuilder,
};
use kedge_genesis::predeploys;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tokio::time::{Instant, timeout};

/// Wei of one satoshi.
pub const WEI_PER_SAT: u128 = 10_000_000_000;

/// Wei of this many satoshis.
pub const fn wei(sats: u64) -> u128 {
    sats as u128 * WEI_PER_SAT
}

/// A chain as its users see it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// A node of it.
    pub client: Client,
    /// The Bitcoin underneath.
    pub bitcoin: Rpc,
}

/// A withdrawal that waits for its payout.
#[derive(Clone, Debug)]
pub struct Withdrawn {
    /// Place in the queue.
    pub index: u64,
    /// What Bitcoin has to pay, in satoshis: the amount without the payout fee.
    pub paid: u64,
    /// L2 block number.
    pub block: u64,
    /// Its receipt.
    pub receipt: Value,
}

/// What a transaction cost its sender beyond its value, in wei.
///
/// # Errors
/// When the receipt lacks a field.
pub fn cost(receipt: &Value) -> Result<u128> {
    let field = |name: &str| quantity(&receipt[name]).with_context(|| name.to_owned());
    Ok(field("gasUsed")? * field("effectiveGasPrice")? + field("l1Fee")?)
}

impl Chain {
    fn cast(&self) -> Cast {
        Cast::new(self.client.rpc.url())
    }

    /// Step 1: transfers, a contract, its logs, subscriptions, with the clients that people use.
    ///
    /// # Errors
    /// When anything differs from what it should be.
    pub async fn clients(&self, rich: &Account, other: &Account, scratch: &Path) -> Result<()> {
        self.transfer(rich, &other.address, wei(1_000_000)).await?;
        self.contract(rich, scratch).await?;
        self.subscriptions(rich, &other.address).await?;
        let told = node("clients.mjs", &[self.client.rpc.url(), &rich.key]).await?;
        ensure!(told.ends_with("ok"), "viem and ethers: {told}");
        Ok(())
    }

    /// A transfer with `cast send`: both balances to the wei.
    ///
    /// # Errors
    /// When anything differs from what it should be.
    pub async fn transfer(&self, from: &Account, to: &str, value: u128) -> Result<Value> {
        let before = (self.client.balance(&from.address).await?, self.client.balance(to).await?);
        let value_text = value.to_string();
        let sent = self
            .cast()
            .json(&["send", "--private-key", &from.key, "--value", &value_text, to])
            .await?;
        ensure!(sent["status"] == "0x1", "the transfer failed: {sent}");
        let hash = sent["transactionHash"].as_str().context("no hash")?;
        let receipt = self.client.receipt(hash).await?;
        let after = (self.client.balance(&from.address).await?, self.client.balance(to).await?);
        ensure!(after.1 - before.1 == value, "{to} got {} of {value} wei", after.1 - before.1);
        let spent = before.0 - after.0;
        let expected = value + cost(&receipt)?;
        ensure!(spent == expected, "{} paid {spent} instead of {expected} wei", from.address);
        let told = self.cast().run(&["balance", &from.address]).await?;
        ensure!(told == after.0.to_string(), "cast balance says {told}");
        Ok(receipt)
    }

    async fn contract(&self, from: &Account, scratch: &Path) -> Result<()> {
        let url = self.client.rpc.url();
        let created = forge_create(url, &from.key, "Counter", scratch).await?;
        let counter = created["deployedTo"].as_str().context("forge names no address")?;
        let code = self.cast().run(&["code", counter]).await?;
        ensure!(code.len() > 2, "no code at {counter}");

        let cast = self.cast();
        let sent = cast.json(&["send", "--private-key", &from.key, counter, "count()"]).await?;
        ensure!(sent["status"] == "0x1", "count() failed: {sent}");
        let number = cast.run(&["call", counter, "number()(uint256)"]).await?;
        ensure!(number == "1", "number() is {number}");

        let logs = cast
            .json(&["logs", "--from-block", "0", "--address", counter, "Counted(address,uint256)"])
            .await?;
        let logs = logs.as_array().context("logs are a list")?;
        ensure!(logs.len() == 1, "{} logs instead of one", logs.len());
        ensure!(logs[0]["transactionHash"] == sent["transactionHash"], "the log of another call");
        Ok(())
    }

    async fn subscriptions(&self, from: &Account, to: &str) -> Result<()> {
        let ws =
            WsClientBuilder::new().build(self.client.rpc.url().replacen("http", "ws", 1)).await?;
        let mut heads: Subscription<Value> =
            ws.subscribe("eth_subscribe", rpc_params!["newHeads"], "eth_unsubscribe").await?;
        let receipt = self.transfer(from, to, WEI_PER_SAT).await?;
        let all = timeout(Duration::from_secs(30), async {
            while let Some(head) = heads.next().await {
                if head?["hash"] == receipt["blockHash"] {
                    return Ok(());
                }
            }
            anyhow::bail!("the subscription ended")
        });
        all.await.context("no head of the transfer's block")?
    }

    /// Signs a transaction with `cast` without sending it.
    ///
    /// # Errors
    /// When cast fails.
    pub async fn sign(&self, from: &Account, rest: &[&str]) -> Result<String> {
        let mut arguments = vec!["mktx", "--private-key", &from.key];
        arguments.extend(rest);
        self.cast().run(&arguments).await
    }

    /// How long it took from sending a signed transaction to its receipt.
    ///
    /// # Errors
    /// When there is no receipt.
    pub async fn latency(&self, raw: &str) -> Result<Duration> {
        let start = Instant::now();
        let hash = self.client.rpc.call("eth_sendRawTransaction", json!([raw])).await?;
        loop {
            let receipt = self.client.rpc.call("eth_getTransactionReceipt", json!([hash])).await?;
            if !receipt.is_null() {
                return Ok(start.elapsed());
            }
            ensure!(start.elapsed() < crate::DEADLINE, "no receipt of {hash}");
        }
    }

    /// Step 2: a deposit with `kedge bridge deposit` to an address that has nothing: the balance to the wei.
    ///
    /// # Errors
    /// When anything differs from what it should be.
    pub async fn deposit(&self, to: &str, sats: u64) -> Result<()> {
        let before = self.client.balance(to).await?;
        let amount = format!("{sats}sat");
        self.client.kedge(&["bridge", "deposit", "--to", to, "--amount", &amount]).await?;
        self.credited(to, before + wei(sats)).await
    }

    /// Waits for a balance, which must never be above it.
    ///
    /// # Errors
    /// When it is not reached or exceeded.
    pub async fn credited(&self, to: &str, expected: u128) -> Result<()> {
        let reached = until(&format!("{to} has {expected} wei"), || async {
            let balance = self.client.balance(to).await?;
            Ok((balance >= expected).then_some(balance))
        })
        .await?;
        ensure!(reached == expected, "{to} has {reached} instead of {expected} wei");
        Ok(())
    }

    /// The withdrawal that a transaction queued: index, amount and payout fee in satoshis.
    ///
    /// # Errors
    /// When the receipt has no such log.
    pub fn queued(receipt: &Value) -> Result<(u64, u64, u64)> {
        let topic = keccak256("WithdrawalQueued(uint64,address,bytes,uint64,uint64)");
        let topic = format!("{topic:#x}");
        let bridge = format!("{:#x}", predeploys::BITCOIN_BRIDGE);
        let logs = receipt["logs"].as_array().context("no logs")?;
        let log = logs
            .iter()
            .find(|log| {
                log["topics"][0] == topic.as_str()
                    && log["address"].as_str().is_some_and(|a| a.eq_ignore_ascii_case(&bridge))
            })
            .with_context(|| format!("no withdrawal in {receipt}"))?;
        let index = quantity(&log["topics"][1])?.try_into()?;
        let data = hex::decode(log["data"].as_str().context("no data")?)?;
        let word = |n: usize| -> Result<u64> {
            let bytes = data.get(n * 32 + 24..n * 32 + 32).context("short log")?;
            Ok(u64::from_be_bytes(bytes.try_into()?))
        };
        // Word 0 is the offset of the script.
        Ok((index, word(1)?, word(2)?))
    }

    /// Step 3, first half: a withdrawal with `kedge bridge withdraw`; what leaves L2 is the amount to the wei.
    ///
    /// # Errors
    /// When it is refused or when anything differs from what it should be.
    pub async fn withdraw(
        &self,
        from: &Account,
        to: &str,
        sats: u64,
        scratch: &Path,
    ) -> Result<Withdrawn> {
        let before = self.client.balance(&from.address).await?;
        let amount = format!("{sats}sat");
        let key = from.key_file(scratch)?.display().to_string();
        let told = self
            .client
            .kedge(&["bridge", "withdraw", "--to", to, "--amount", &amount, "--key-file", &key])
            .await?;
        let hash = told["transactionHash"].as_str().with_context(|| told.to_string())?;
        let receipt = self.client.receipt(hash).await?;
        let (index, paid, fee) = Self::queued(&receipt)?;
        ensure!(paid + fee == sats, "{paid} and a fee of {fee} instead of {sats} sat are queued");
        let spent = before - self.client.balance(&from.address).await?;
        let expected = wei(sats) + cost(&receipt)?;
        ensure!(spent == expected, "the withdrawal took {spent} instead of {expected} wei");
        let block = quantity(&receipt["blockNumber"])?.try_into()?;
        Ok(Withdrawn { index, paid, block, receipt })
    }

    /// Every transaction on Bitcoin that pays a script, with the value of that output.
    ///
    /// # Errors
    /// When Bitcoin does not answer.
    pub async fn paid(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, u64)>> {
        let tip = self.bitcoin.call("getblockchaininfo", json!([])).await?;
        let tip = tip["blocks"].as_u64().context("no height")?;
        let mut found = Vec::new();
        for height in 1..=tip {
            let hash = self.bitcoin.call("getblockhash", json!([height])).await?;
            let block = block(&self.bitcoin, hash.as_str().context("no hash")?).await?;
            for tx in block.txdata {
                for output in &tx.output {
                    if output.script_pubkey == *script {
                        found.push((tx.clone(), output.value.to_sat()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Step 3, second half: exactly one output of exactly this amount reaches the script on Bitcoin.
    ///
    /// # Errors
    /// When it does not.
    pub async fn paid_out(&self, script: &ScriptBuf, sats: u64) -> Result<Transaction> {
        let mut outputs = until("the payout confirms", || async {
            let outputs = self.paid(script).await?;
            Ok((!outputs.is_empty()).then_some(outputs))
        })
        .await?;
        ensure!(outputs.len() == 1, "{} payouts instead of one", outputs.len());
        let (tx, value) = outputs.pop().context("no payout")?;
        ensure!(value == sats, "{value} instead of {sats} sat were paid");
        Ok(tx)
    }

    /// Waits until the node says that a withdrawal is paid, by the transaction that paid it.
    ///
    /// # Errors
    /// When it names another one or does not get there.
    pub async fn knows_payout(&self, index: u64, payout: &Transaction) -> Result<()> {
        let outpoint = until(&format!("withdrawal {index} is known as paid"), || async {
            let status = self.client.kedge(&["bridge", "status"]).await?;
            let all = status["withdrawals"].as_array().context("no withdrawals")?;
            let one = all.iter().find(|one| one["index"] == index).context("not listed")?;
            Ok((one["stage"] == "paid").then(|| one["payout"].to_string()))
        })
        .await?;
        let txid = payout.compute_txid().to_string();
        ensure!(outpoint.contains(&txid), "{outpoint} instead of {txid} is said to have paid");
        Ok(())
    }

    /// What holds at any moment: the vault covers what exists on L2 and what is queued, and the heads are in order.
    ///
    /// # Errors
    /// When it does not hold.
    pub async fn is_sound(&self) -> Result<()> {
        let bridge = self.client.kedge(&["bridge", "status"]).await?;
        ensure!(bridge["solvent"] == true, "the vault does not cover its debts: {bridge}");
        let status = self.client.kedge(&["status"]).await?;
        let number = |head: &str| status[head]["number"].as_u64().context("a head has a number");
        let heads = [number("latest")?, number("safe")?, number("finalized")?, number("settled")?];
        ensure!(heads.is_sorted_by(|a, b| a >= b), "heads out of order: {heads:?}");
        Ok(())
    }

    /// Step 4: another node derives every safe block with the same hash and the same state root.
    ///
    /// # Errors
    /// When it differs or does not get there.
    pub async fn agrees(&self, follower: &Client, at_least: u64) -> Result<()> {
        let safe = follower.reaches("safe", at_least).await?;
        for number in 0..=safe.number {
            let (ours, theirs) = (self.client.block(number).await?, follower.block(number).await?);
            ensure!(ours == theirs, "block {number}: {ours:?} here, {theirs:?} there");
        }
        Ok(())
    }
}

/// An address that nobody has used, from a name.
pub fn fresh_address(name: &str) -> String {
    Address::from_word(keccak256(name)).to_checksum(None)
}
