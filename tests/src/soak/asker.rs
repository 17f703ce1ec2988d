//! One client: what it chooses to ask for, and of which node.

use super::{
    accounts::{Deed, Sender, Signed, check_receipt, recipient},
    world::{Included, World, hex, list, number, same, text},
};
use crate::until;
use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};
use std::sync::Arc;

/// Blocks that count as new.
const NEW: u64 = 16;
/// The code of what is not possible at the moment.
const UNAVAILABLE: i64 = -32_002;
/// Bitcoin blocks with which a sequencer that is behind with posting catches up: a batch trails by a block or two, and
/// one that names a block that is gone comes again.
const CATCHING_UP: usize = 30;

/// A client with accounts of its own. Each of its steps is one or several requests at one node.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) world: Arc<World>,
    pub(super) rng: StdRng,
    pub(super) node: usize,
    pub(super) senders: Vec<Sender>,
}

impl Asker {
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<Value> {
        self.world.ask(self.node, method, params).await
    }

    /// See [`World::ask_of`].
    pub(super) async fn ask_of(&self, number: u64, method: &str, params: Value) -> Result<Value> {
        self.world.ask_of(self.node, number, method, params).await
    }

    /// See [`World::refused`].
    pub(super) async fn refused(&self, method: &str, params: Value, code: i64) -> Result<Value> {
        self.world.refused(self.node, method, params, code).await
    }

    /// One of these.
    pub(super) fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.rng.random_range(0..all.len())]
    }

    /// A block that every node has, most of them old.
    pub(super) fn block(&mut self) -> u64 {
        let common = self.world.known.lock().common;
        let first = if self.rng.random_ratio(1, 4) { common.saturating_sub(NEW) } else { 0 };
        self.rng.random_range(first..=common)
    }

    /// A transaction in a block that every node has.
    pub(super) fn transaction(&mut self) -> Result<Included> {
        let known = self.world.known.lock();
        loop {
            let place = self.rng.random_range(0..known.transactions.len());
            let tx = known.transactions.get(place).context("a transaction")?;
            // The first are in blocks of before the run.
            if tx.block <= known.common {
                return Ok(tx.clone());
            }
        }
    }

    /// An account, used or not.
    pub(super) fn account(&mut self) -> String {
        match self.rng.random_range(0..4) {
            0 => self.senders[0].address(),
            1 => self.world.token.clone(),
            2 => "0x4200000000000000000000000000000000000015".to_owned(),
            _ => format!("{:#x}", recipient(&mut self.rng)),
        }
    }

    /// The hash of a block.
    pub(super) async fn hash_of(&self, number: u64) -> Result<Value> {
        let params = json!([hex(number)]);
        Ok(self.ask_of(number, "eth_getHeaderByNumber", params).await?["hash"].take())
    }

    /// Sends a transaction, waits until it is in a block at this node, and checks what became of it.
    pub(super) async fn deed(&mut self, deed: Deed) -> Result<Included> {
        let place = self.rng.random_range(0..self.senders.len());
        let world = self.world.clone();
        let sender = self.senders.get_mut(place).context("a sender")?;
        let tx = sender.next(deed, &world, &mut self.rng)?;
        let from = sender.address();
        let (method, params) = if self.rng.random() {
            ("eth_sendRawTransactionSync", json!([tx.encoded, 60_000]))
        } else {
            ("eth_sendRawTransaction", json!([tx.encoded]))
        };
        let mut answer = self.submit(method, params).await?;
        ensure!(answer["error"].is_null(), "{method} of {deed:?}: {}", answer["error"]);
        let mut receipt = answer["result"].take();
        if method == "eth_sendRawTransaction" {
            ensure!(receipt == tx.hash.as_str(), "{receipt} is not the hash {}", tx.hash);
            receipt = self.receipt(&tx.hash).await?;
        }
        check_receipt(&world, &tx, &receipt)?;
        self.included(&from, &tx, &receipt).await?;
        let (block, hash) = (number(&receipt["blockNumber"])?, text(&receipt["blockHash"])?);
        let contract = receipt["contractAddress"].as_str();
        let (nonce, block_hash) = (tx.nonce, hash.to_owned());
        let included = Included { hash: tx.hash, from, nonce, block, block_hash };
        let mut known = world.known.lock();
        known.transactions.push(included.clone());
        known.contracts.extend(contract.map(|contract| (contract.to_owned(), block)));
        // Every other node is asked for blocks of a follower, which has them last.
        if self.node + 1 == world.nodes.len() {
            known.common = known.common.max(block);
        }
        Ok(included)
    }

    /// The answer to a transaction that the node takes. While it is behind with posting it takes none, and Bitcoin
    /// blocks come for it.
    pub(super) async fn submit(&self, method: &str, params: Value) -> Result<Value> {
        for _ in 0..CATCHING_UP {
            let answer = self.world.post(self.node, method, &params).await?;
            if answer["error"]["code"] != UNAVAILABLE {
                return Ok(answer);
            }
            self.world.mine().await?;
        }
        bail!("the sequencer takes no transactions although {CATCHING_UP} Bitcoin blocks came")
    }

    /// Waits for a receipt.
    async fn receipt(&self, hash: &str) -> Result<Value> {
        until("a receipt", async || {
            let receipt = self.ask("eth_getTransactionReceipt", json!([hash])).await?;
            Ok((!receipt.is_null()).then_some(receipt))
        })
        .await
    }

    /// What the sender paid, to the wei, and the order of its transactions.
    async fn included(&self, from: &str, tx: &Signed, receipt: &Value) -> Result<()> {
        let block = number(&receipt["blockNumber"])?;
        let at = |number: u64| json!([from, hex(number)]);
        let before = self.ask("eth_getBalance", at(block.saturating_sub(1))).await?;
        let after = self.ask("eth_getBalance", at(block)).await?;
        let nonce = number(&self.ask("eth_getTransactionCount", at(block)).await?)?;
        ensure!(nonce == tx.nonce + 1, "the nonce after {} is {nonce}", tx.nonce);
        let wei = |value: &Value| crate::kedge::quantity(value);
        let value = if receipt["status"] == "0x1" { tx.value.to::<u128>() } else { 0 };
        let paid = wei(&before)? - wei(&after)?;
        let cost = crate::chain::cost(receipt)? + value;
        ensure!(paid == cost, "{:?} cost {paid} instead of {cost}: {receipt}", tx.deed);
        let shown = self.ask("eth_getTransactionByHash", json!([tx.hash])).await?;
        same("a transaction's block", &shown["blockHash"], &receipt["blockHash"])?;
        same("a transaction's place", &shown["transactionIndex"], &receipt["transactionIndex"])
    }

    /// A transaction of a block and its receipt.
    pub(super) async fn some_receipt(&mut self) -> Result<(Included, Value)> {
        let tx = self.transaction()?;
        let params = json!([tx.hash]);
        let receipt = self.ask_of(tx.block, "eth_getTransactionReceipt", params).await?;
        ensure!(receipt["blockHash"] == tx.block_hash.as_str(), "another block: {receipt}");
        ensure!(receipt["from"] == tx.from.as_str(), "another sender: {receipt}");
        Ok((tx, receipt))
    }

    /// The receipts of a block.
    pub(super) async fn receipts(&self, number: u64) -> Result<Vec<Value>> {
        let receipts = self.ask_of(number, "eth_getBlockReceipts", json!([hex(number)])).await?;
        Ok(list(&receipts)?.clone())
    }
}
