//! Logs: asked for, polled for, and pushed over WebSocket by subscriptions that come and go.

use super::{
    accounts::{Deed, TRANSFER},
    asker::Asker,
    world::{Included, World, hex, list, number, same},
};
use alloy_primitives::hex as bytes;
use anyhow::{Context, Result, ensure};
use jsonrpsee::{
    core::client::{ClientT, Subscription, SubscriptionClientT},
    rpc_params,
    ws_client::{WsClient, WsClientBuilder},
};
use rand::Rng;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, time::timeout};

/// How long a pushed message may take.
const PUSHED: Duration = Duration::from_secs(60);

impl Asker {
    /// The logs of a few blocks by address and topic, beside the receipts of those blocks.
    pub(super) async fn look_at_logs(&mut self) -> Result<()> {
        let from = self.block();
        let common = self.world.known.lock().common;
        let to = (from + self.rng.random_range(0..3)).min(common);
        let (address, topic) = match self.rng.random_range(0..3) {
            0 => (Some(self.world.token.clone()), Some(TRANSFER)),
            1 => (Some(self.world.logger.clone()), None),
            _ => (None, None),
        };
        let mut filter = json!({ "fromBlock": hex(from), "toBlock": hex(to) });
        if let Some(address) = &address {
            filter["address"] = json!(address);
        }
        if let Some(topic) = topic {
            filter["topics"] = json!([topic]);
        }
        let found = self.ask_of(to, "eth_getLogs", json!([filter])).await?;
        let mut expected = Vec::new();
        for block in from..=to {
            let receipts = self.receipts(block).await?;
            let logs = receipts.iter().flat_map(|receipt| receipt["logs"].as_array());
            expected.extend(logs.flatten().cloned());
        }
        expected.retain(|log| {
            address.as_deref().is_none_or(|address| log["address"] == address)
                && topic.is_none_or(|topic| log["topics"][0] == topic)
        });
        same("logs and receipts", &found, &Value::Array(expected))?;
        if from == to {
            let hash = self.hash_of(from).await?;
            let by_hash = json!([{ "blockHash": hash, "address": address, "topics": [topic] }]);
            same("logs by hash", &self.ask_of(to, "eth_getLogs", by_hash).await?, &found)?;
        }
        Ok(())
    }

    /// The token's transfers to somebody in many blocks, which the index finds.
    pub(super) async fn search_logs(&mut self) -> Result<()> {
        let (one, other) = (self.block(), self.block());
        let (from, to) = (one.min(other), one.max(other));
        let holder = super::accounts::recipient(&mut self.rng);
        let topics = json!([TRANSFER, null, holder.into_word()]);
        let filter = json!({
            "fromBlock": hex(from), "toBlock": hex(to), "address": self.world.token, "topics": topics,
        });
        let mut last = (0, 0);
        for log in list(&self.ask_of(to, "eth_getLogs", json!([filter])).await?)? {
            same("a topic", &log["topics"][2], &json!(holder.into_word()))?;
            let place = (number(&log["blockNumber"])?, number(&log["logIndex"])?);
            ensure!((from..=to).contains(&place.0) && place > last, "{place:?} after {last:?}");
            last = place;
        }
        Ok(())
    }

    /// A filter of each kind that is polled once something happened; then it is removed, or left behind.
    pub(super) async fn poll(&mut self) -> Result<()> {
        let logger = json!([{ "address": self.world.logger }]);
        let logs = self.ask("eth_newFilter", logger).await?;
        let blocks = self.ask("eth_newBlockFilter", json!([])).await?;
        let whole = json!([self.rng.random::<bool>()]);
        let method = "eth_newPendingTransactionFilter";
        let pending = if self.node == 0 {
            Some(self.ask(method, whole).await?)
        } else {
            self.refused(method, whole, -32_004).await?;
            None
        };
        let sent = self.deed(Deed::Log(100)).await?;
        self.comes(&logs, |log| log["transactionHash"] == sent.hash.as_str()).await?;
        self.comes(&blocks, |hash| *hash == sent.block_hash.as_str()).await?;
        if let Some(pending) = &pending {
            let hash = sent.hash.as_str();
            self.comes(pending, |tx| *tx == hash || tx["hash"] == hash).await?;
        }
        self.ask("eth_getFilterLogs", json!([logs])).await?;
        self.refused("eth_getFilterLogs", json!([blocks]), -32_000).await?;
        for filter in [Some(logs), Some(blocks), pending].into_iter().flatten() {
            if self.rng.random_ratio(1, 3) {
                // Nobody asks for it again.
                continue;
            }
            let params = json!([filter]);
            let removed = self.ask("eth_uninstallFilter", params.clone()).await?;
            same("the removal of a filter", &removed, &json!(true))?;
            self.refused("eth_getFilterChanges", params, -32_000).await?;
        }
        Ok(())
    }

    /// Polls a filter until it tells this.
    async fn comes(&self, filter: &Value, is_it: impl Fn(&Value) -> bool) -> Result<()> {
        crate::until("a filter tells", async || {
            let found = self.ask("eth_getFilterChanges", json!([filter])).await?;
            Ok(list(&found)?.iter().any(&is_it).then_some(()))
        })
        .await
    }

    /// A WebSocket connection with subscriptions, which are told of a transaction of this client; some of them
    /// are ended, the others go with the connection.
    pub(super) async fn listen(&mut self) -> Result<()> {
        let world = self.world.clone();
        let url = world.nodes[self.node].url().replacen("http", "ws", 1);
        let socket = WsClientBuilder::new().max_buffer_capacity_per_subscription(4_096);
        let socket = socket.build(url).await?;
        let mut heads = world.subscribe(&socket, "newHeads", None).await?;
        let address = json!({ "address": world.logger });
        let mut logs = world.subscribe(&socket, "logs", Some(address)).await?;
        let mut syncing = world.subscribe(&socket, "syncing", None).await?;
        let mut pending = match self.node {
            0 => Some(world.subscribe(&socket, "newPendingTransactions", None).await?),
            _ => None,
        };
        let mut signed: Subscription<Value> = socket
            .subscribe("kedge_subscribe", rpc_params!["signedBlocks"], "kedge_unsubscribe")
            .await?;
        world.count("kedge_subscribe");
        let id: Value = socket.request("eth_chainId", rpc_params![]).await?;
        world.count("eth_chainId");
        same("the chain id", &id, &json!(hex(world.chain_id)))?;
        let sent = self.deed(Deed::Log(100)).await?;
        let (hash, block) = (sent.hash.as_str(), sent.block_hash.as_str());
        pushed("newHeads", &mut heads, |head| head["hash"] == block).await?;
        pushed("logs", &mut logs, |log| log["transactionHash"] == hash).await?;
        if self.passes_on(&sent).await? {
            pushed("signedBlocks", &mut signed, |signed| signed["hash"] == block).await?;
        }
        pushed("syncing", &mut syncing, |status| *status == false || status["syncing"] == true)
            .await?;
        if let Some(pending) = &mut pending {
            pushed("newPendingTransactions", pending, |pending| *pending == hash).await?;
        }
        if self.rng.random() {
            heads.unsubscribe().await?;
            world.count("eth_unsubscribe");
            signed.unsubscribe().await?;
            world.count("kedge_unsubscribe");
        }
        Ok(())
    }

    /// Whether the node has a transaction's block with the sequencer's signature, which it keeps until the block is final.
    /// One that follows has none of a block that it derived from Bitcoin before another node sent it.
    async fn passes_on(&self, sent: &Included) -> Result<bool> {
        let signed = self.ask("kedge_signedBlocks", json!([sent.block, 1])).await?;
        if let Some(signed) = list(&signed)?.first() {
            same("a signed block's hash", &signed["hash"], &json!(sent.block_hash))?;
            return Ok(true);
        }
        let head = if self.node == 0 { "finalized" } else { "safe" };
        let status = self.ask("kedge_syncStatus", json!([])).await?;
        let number = status[head]["number"].as_u64().context("no number")?;
        let block = sent.block;
        ensure!(number >= block, "block {block} is not signed; {head} is {number}");
        Ok(false)
    }

    /// A connection that subscribes and then neither reads nor answers: the node ends it by itself.
    pub(super) async fn go_silent(&mut self) -> Result<()> {
        let world = self.world.clone();
        let at = world.nodes[self.node].url().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&at).await?;
        let upgrade = format!(
            "GET / HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2VkZ2Ugc29hayB0ZXN0IQ==\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        ensure!(head.ends_with(b"101"), "the upgrade is answered {}", bytes::encode(head));
        for kind in ["newHeads", "logs"] {
            let text =
                json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": [kind] });
            let text = text.to_string().into_bytes();
            // RFC 6455: a final text frame of less than 126 bytes, masked with zeros.
            let mut frame = vec![0x81, 0x80 | u8::try_from(text.len())?, 0, 0, 0, 0];
            frame.extend(text);
            stream.write_all(&frame).await?;
            world.count("eth_subscribe");
        }
        let mut silent = world.silent.lock();
        if silent.len() >= SILENT {
            silent.pop_front();
        }
        silent.push_back(stream);
        Ok(())
    }
}

impl World {
    /// An `eth_subscribe` on a connection.
    async fn subscribe(
        &self,
        socket: &WsClient,
        kind: &str,
        more: Option<Value>,
    ) -> Result<Subscription<Value>> {
        let mut params = rpc_params![kind];
        if let Some(more) = more {
            params.insert(more)?;
        }
        let pushed = socket.subscribe("eth_subscribe", params, "eth_unsubscribe").await?;
        self.count("eth_subscribe");
        Ok(pushed)
    }
}

/// Connections that nobody reads, at most.
const SILENT: usize = 16;

/// Waits until a subscription of this kind tells this.
async fn pushed(
    kind: &str,
    from: &mut Subscription<Value>,
    is_it: impl Fn(&Value) -> bool,
) -> Result<()> {
    let all = timeout(PUSHED, async {
        while let Some(told) = from.next().await {
            if is_it(&told?) {
                return Ok(());
            }
        }
        anyhow::bail!("{kind} ended")
    });
    all.await.with_context(|| format!("{kind} does not tell"))?
}
