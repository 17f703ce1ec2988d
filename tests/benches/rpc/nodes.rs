//! The two nodes, on the same chain id with the same funded accounts.

use anyhow::{Context, Result};
use kedge_tests::{kedge, process::Process, process::free_port, rpc::Rpc, tools, until};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};

/// A node that is asked.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: SocketAddr,
    rpc: Rpc,
    /// Whether it makes blocks only when it is told to.
    by_hand: bool,
    _process: Process,
}

/// What both nodes have in common.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) chain_id: u64,
    /// Secret keys of funded accounts, with `0x`.
    pub(crate) keys: Vec<String>,
}

/// Most gas of a block, on both.
const BLOCK_GAS: u64 = 16_777_216;

impl Node {
    /// `kedge dev`, a whole rollup. No Bitcoin block comes in between.
    pub(crate) async fn kedge(dir: &Path) -> Result<(Self, Setup)> {
        let arguments = [
            "dev".to_owned(),
            "--json".to_owned(),
            "--l1-block-time=0".to_owned(),
            // As on a network with value.
            "--block-interval=1".to_owned(),
            // All of the full block waits for its first transaction.
            "--txpool-account-queued=1024".to_owned(),
            // What is handed in stays, as with anvil.
            "--txpool-max-transactions=100000".to_owned(),
            format!("--datadir={}", dir.join("dev").display()),
            format!("--rpc-port={}", free_port()),
            format!("--l1-rpc-port={}", free_port()),
        ];
        let mut process = Process::start("kedge", &kedge::binary(), arguments, dir)?;
        let ready: Value = serde_json::from_str(&process.line().await?)?;
        let url = ready["rpc"].as_str().context("no URL")?;
        let setup = Setup {
            chain_id: ready["chainId"].as_u64().context("no chain id")?,
            keys: ready["accounts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|account| Some(account["privateKey"].as_str()?.to_owned()))
                .collect(),
        };
        let at = url.strip_prefix("http://").context("no HTTP")?.parse()?;
        Ok((Self { at, rpc: Rpc::new(url), by_hand: false, _process: process }, setup))
    }

    /// `anvil`, whose accounts are the same.
    pub(crate) async fn anvil(dir: &Path, chain_id: u64) -> Result<Self> {
        let port = free_port();
        let arguments = [
            "--silent".to_owned(),
            "--no-mining".to_owned(),
            format!("--port={port}"),
            format!("--chain-id={chain_id}"),
            format!("--gas-limit={BLOCK_GAS}"),
            "--block-base-fee-per-gas=1000000".to_owned(),
        ];
        let process = Process::start("anvil", &tools::anvil()?, arguments, dir)?;
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let rpc = Rpc::new(format!("http://{at}"));
        until("anvil answers", async || rpc.call("eth_chainId", json!([])).await.map(|_| Some(())))
            .await?;
        Ok(Self { at, rpc, by_hand: true, _process: process })
    }

    /// Hands transactions in, in this order.
    pub(crate) async fn send(&self, transactions: &[String]) -> Result<()> {
        for encoded in transactions {
            self.rpc.call("eth_sendRawTransaction", json!([encoded])).await?;
        }
        Ok(())
    }

    /// Waits until there is a receipt, and gives the number of the block.
    pub(crate) async fn include(&self, hash: &str) -> Result<String> {
        until("a transaction is included", async || {
            if self.by_hand {
                self.rpc.call("evm_mine", json!([])).await?;
            }
            let receipt = self.rpc.call("eth_getTransactionReceipt", json!([hash])).await?;
            Ok(receipt["blockNumber"].as_str().map(str::to_owned))
        })
        .await
    }

    /// How many transactions a block has.
    pub(crate) async fn count(&self, number: &str) -> Result<u64> {
        let count = self.rpc.call("eth_getBlockTransactionCountByNumber", json!([number])).await?;
        let digits = count.as_str().and_then(|text| text.strip_prefix("0x")).context("no count")?;
        Ok(u64::from_str_radix(digits, 16)?)
    }
}
