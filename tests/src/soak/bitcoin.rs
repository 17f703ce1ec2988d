//! Bitcoin underneath: blocks, deposits, and blocks that are replaced by others.

use super::{
    asker::Asker,
    world::{World, hex, text},
};
use crate::{kedge::quantity, until};
use anyhow::{Context, Result, ensure};
use bitcoin::{Block, BlockHash, CompactTarget, ScriptBuf, consensus::encode::serialize_hex};
use kedge::l1::embedded::template::Template;
use rand::Rng;
use serde_json::json;

/// What a deposit pays, satoshis.
const DEPOSIT: u64 = 20_000;

impl World {
    /// Mines a Bitcoin block and notes what is final since then.
    pub(super) async fn mine(&self) -> Result<()> {
        let mined = self.ask(0, "dev_mine", json!([1])).await?;
        ensure!(mined[0].is_string(), "dev_mine answers {mined}");
        let mut finalized = u64::MAX;
        for node in 0..self.nodes.len() {
            let status = self.ask(node, "kedge_syncStatus", json!([])).await?;
            let head = status["finalized"]["number"].as_u64().context("no finalized head")?;
            finalized = finalized.min(head);
        }
        let mut known = self.known.lock();
        known.finalized = known.finalized.max(finalized);
        Ok(())
    }

    /// Replaces Bitcoin's newest block by two empty ones, and waits until the nodes agree again. Nobody asks
    /// meanwhile.
    async fn replace(&self) -> Result<()> {
        // Of the transactions that are known, those in final blocks stay known.
        until("a transaction is final", async || {
            let is_final = {
                let known = self.known.lock();
                known.transactions.iter().any(|tx| tx.block <= known.finalized)
            };
            if !is_final {
                self.mine().await?;
            }
            Ok(is_final.then_some(()))
        })
        .await?;
        let tip = self.bitcoin.call("getbestblockhash", json!([])).await?;
        let old = self.bitcoin.call("getblockheader", json!([tip, true])).await?;
        let height = u32::try_from(old["height"].as_u64().context("no height")?)?;
        // Later than any that was in its place before.
        let time = u32::try_from(old["time"].as_u64().context("no time")?)? + 1;
        let mut parent: BlockHash = text(&old["previousblockhash"])?.parse()?;
        for more in 0..2 {
            let block = empty(parent, height + more, time + more, text(&old["bits"])?)?;
            parent = block.block_hash();
            let answer = self.bitcoin.call("submitblock", json!([serialize_hex(&block)])).await?;
            ensure!(answer.is_null(), "a block on {parent} is {answer}");
        }
        let best = json!(parent.to_string());
        let latest = until("the nodes agree after a reorganisation", async || {
            let mut heads = Vec::new();
            for node in 0..self.nodes.len() {
                let status = self.ask(node, "kedge_syncStatus", json!([])).await?;
                let origin = &status["latest"]["l1Origin"]["hash"];
                if *origin != best || status["l1Tip"]["hash"] != best {
                    return Ok(None);
                }
                heads.push(status["latest"].clone());
            }
            let pool = self.ask(0, "txpool_status", json!([])).await?;
            let waiting = quantity(&pool["pending"])? + quantity(&pool["queued"])?;
            let agree = heads.iter().all(|head| Some(head) == heads.first());
            Ok(if agree && waiting == 0 { heads.pop() } else { None })
        })
        .await?;
        let mut known = self.known.lock();
        // The others may be elsewhere, or in other blocks.
        let last = known.finalized;
        known.transactions.retain(|tx| tx.block <= last);
        known.contracts.retain(|(_, block)| *block <= last);
        known.common = latest["number"].as_u64().context("no number")?;
        Ok(())
    }
}

/// A block without transactions.
fn empty(parent: BlockHash, height: u32, time: u32, bits: &str) -> Result<Block> {
    let bits = CompactTarget::from_unprefixed_hex(bits)?;
    let script = ScriptBuf::new_op_return([]);
    let template =
        Template { parent, height, time, bits, script: &script, fees: 0, extra: 1 << 20 };
    Ok(template.block(std::iter::empty()))
}

impl Asker {
    /// A Bitcoin block: with it come batches, safe and final heads, assertions and payouts.
    pub(super) async fn mine(&mut self) -> Result<()> {
        self.world.mine().await
    }

    /// A deposit, credited to the satoshi.
    pub(super) async fn deposit(&mut self) -> Result<()> {
        let to = format!("0x{:040x}", self.rng.random::<u128>());
        let txid = self.world.ask(0, "dev_deposit", json!([to, DEPOSIT])).await?;
        text(&txid)?;
        self.world.mine().await?;
        let wei = json!(format!("{:#x}", crate::chain::wei(DEPOSIT)));
        until("a deposit is credited", async || {
            let balance = self.ask("eth_getBalance", json!([to, "latest"])).await?;
            ensure!(balance == "0x0" || balance == wei, "{to} has {balance} of {wei}");
            Ok((balance == wei).then_some(()))
        })
        .await?;
        let params = json!([to, DEPOSIT / 4]);
        self.world.refused(0, "dev_deposit", params, -32_602).await?;
        self.world.refused(0, "dev_mine", json!([0]), -32_602).await?;
        let before = json!([to, hex(1)]);
        let balance = self.ask("eth_getBalance", before).await?;
        ensure!(balance == "0x0", "{to} had {balance} in the beginning");
        Ok(())
    }

    /// Another Bitcoin block in the place of the newest. To be called by whoever holds [`World::chain`].
    pub(super) async fn reorganise(&mut self) -> Result<()> {
        self.world.replace().await
    }
}
