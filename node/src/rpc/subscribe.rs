//! `eth_subscribe`.

use super::{
    block::{FullBlock, rpc_header},
    chain::Chain,
    encoded::{Json, Part},
    error::RpcError,
    submit::Submission,
};
use crate::engine::EngineEvent;
use alloy_primitives::B256;
use alloy_rpc_types_eth::{
    Filter,
    pubsub::{
        Params, PubSubSyncStatus, SubscriptionKind, SyncStatusMetadata, TransactionReceiptsParams,
    },
};
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage, SubscriptionSink,
    core::{SubscriptionResult, async_trait},
    proc_macros::rpc,
    types::ErrorObjectOwned,
};
use kedge_genesis::L2Number;
use kedge_store::L2Rows as _;
use kedge_vm::ExecutedBlock;
use serde::Serialize;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    watch,
};

/// How long a subscriber may leave the connection's buffer full. While it does, what the engine tells stays in
/// memory for it.
pub(super) const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// Most transactions whose receipts one subscription names, as in go-ethereum.
const MOST_HASHES: usize = 200;

/// The heads, as they are now and whenever they move.
type Heads = watch::Receiver<crate::engine::Heads>;

/// `eth_subscribe` and `eth_unsubscribe`.
#[rpc(server, namespace = "eth")]
pub trait SubscribeApi {
    /// `newHeads`, `logs` (with a filter), `newPendingTransactions` (true for whole transactions),
    /// `transactionReceipts` (with `transactionHashes`, only of those), `syncing`.
    #[subscription(
        name = "subscribe" => "subscription",
        unsubscribe = "unsubscribe",
        item = serde_json::Value
    )]
    async fn subscribe(&self, kind: SubscriptionKind, params: Option<Params>)
    -> SubscriptionResult;
}

/// Implements [`SubscribeApiServer`] on the engine's events.
#[derive(Clone, Debug)]
pub(super) struct Subscriptions {
    pub(super) chain: Arc<Chain>,
    pub(super) submission: Submission,
}

#[async_trait]
impl SubscribeApiServer for Subscriptions {
    async fn subscribe(
        &self,
        pending: PendingSubscriptionSink,
        kind: SubscriptionKind,
        params: Option<Params>,
    ) -> SubscriptionResult {
        // Events are subscribed to before it is accepted: nothing after the answer is missed. And only by those
        // that read them: what a receiver leaves unread stays in memory.
        match (kind, params.unwrap_or_default()) {
            (SubscriptionKind::NewHeads, _) => {
                let events = self.chain.engine.subscribe();
                let sink = pending.accept().await?;
                forward(sink, events, |event| match event {
                    EngineEvent::NewBlock(block) => {
                        vec![rpc_header(block.header.clone(), block.hash)]
                    }
                    _ => Vec::new(),
                })
                .await;
            }
            (SubscriptionKind::Logs, params @ (Params::None | Params::Logs(_))) => {
                let filter = match params {
                    Params::Logs(filter) => *filter,
                    _ => Filter::default(),
                };
                let events = self.chain.engine.subscribe();
                let sink = pending.accept().await?;
                forward(sink, events, move |event| match event {
                    EngineEvent::NewBlock(block) => FullBlock::new_logs(&block, &filter),
                    EngineEvent::Removed(block) => FullBlock::removed_logs(&block, &filter),
                    _ => Vec::new(),
                })
                .await;
            }
            (SubscriptionKind::NewPendingTransactions, params) => {
                let Some(mempool) = self.submission.mempool() else {
                    pending.reject(refuse("this node has no mempool")).await;
                    return Ok(());
                };
                let arrivals = mempool.subscribe();
                let whole = matches!(params, Params::Bool(true));
                let sink = pending.accept().await?;
                forward(sink, arrivals, move |tx| {
                    let shown = if whole {
                        serde_json::to_value(super::block::pending_transaction(&tx))
                    } else {
                        serde_json::to_value(tx.hash)
                    };
                    shown.ok()
                })
                .await;
            }
            (SubscriptionKind::TransactionReceipts, params) => {
                let only = match named_hashes(params) {
                    Ok(only) => only,
                    Err(reason) => {
                        pending.reject(refuse(reason)).await;
                        return Ok(());
                    }
                };
                let chain = self.chain.clone();
                let events = chain.engine.subscribe();
                let sink = pending.accept().await?;
                forward(sink, events, move |event| {
                    let EngineEvent::NewBlock(block) = event else { return None };
                    receipts(&chain, &block, &only).unwrap_or_else(|error| {
                        tracing::warn!(block = %block.hash, %error, "no receipts for a subscriber");
                        None
                    })
                })
                .await;
            }
            (SubscriptionKind::Syncing, Params::None) => {
                let mut heads = self.chain.engine.watch_heads();
                heads.mark_changed();
                let start = self.chain.engine.params().l1_start.height.0;
                follow_sync(pending.accept().await?, heads, start.into()).await;
            }
            _ => pending.reject(refuse("unsupported subscription")).await,
        }
        Ok(())
    }
}

/// The transactions that a subscription to receipts names; none when it is to all.
fn named_hashes(params: Params) -> Result<BTreeSet<B256>, &'static str> {
    let named = match params {
        Params::None => None,
        Params::TransactionReceipts(TransactionReceiptsParams { transaction_hashes }) => {
            transaction_hashes
        }
        // An empty object reads as a filter of logs.
        Params::Logs(filter) if *filter == Filter::default() => None,
        Params::Logs(_) | Params::Bool(_) => return Err("invalid params for transactionReceipts"),
    };
    let named = named.unwrap_or_default();
    if named.len() > MOST_HASHES {
        return Err("too many transaction hashes: at most 200 per subscription");
    }
    Ok(named.into_iter().collect())
}

/// The receipts of a new block, or those of `only` if it names any. None when there are none, and when the block is
/// gone already.
fn receipts(
    chain: &Chain,
    new: &ExecutedBlock,
    only: &BTreeSet<B256>,
) -> Result<Option<Json>, RpcError> {
    let hashes = new.transactions.iter().map(|tx| tx.tx_hash());
    let wanted = |hash| only.is_empty() || only.contains(&hash);
    let wanted: Vec<usize> =
        hashes.enumerate().filter(|(_, hash)| wanted(*hash)).map(|(index, _)| index).collect();
    let (view, number) = (chain.view(), L2Number(new.header.number));
    if wanted.is_empty() || view.reader.hash(number)? != Some(new.hash) {
        return Ok(None);
    }
    if only.is_empty() {
        return view.encoded(number, Part::Receipts).map(Some);
    }
    let (block, l1) = (view.block(number)?, view.l1_fees(number)?);
    let receipts = wanted.into_iter().filter_map(|index| block.receipt(index, &chain.evm, &l1));
    Json::of(&receipts.collect::<Vec<_>>()).map(Some)
}

/// Says whether the node is behind Bitcoin: at once, when that changes, and while it is how far it came.
async fn follow_sync(sink: SubscriptionSink, mut heads: Heads, starting_block: u64) {
    let mut told = None;
    loop {
        tokio::select! {
            () = sink.closed() => return,
            changed = heads.changed() => if changed.is_err() { return },
        }
        let status = {
            let heads = heads.borrow_and_update();
            // Progress is counted in Bitcoin blocks, as `eth_syncing` does.
            if heads.l1_tip.height >= heads.l1_best.height {
                PubSubSyncStatus::Simple(false)
            } else {
                PubSubSyncStatus::Detailed(SyncStatusMetadata {
                    syncing: true,
                    starting_block,
                    current_block: heads.l1_tip.height.0.into(),
                    highest_block: Some(heads.l1_best.height.0.into()),
                })
            }
        };
        if told == Some(status) {
            continue;
        }
        told = Some(status);
        let message = SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), &status);
        let Ok(message) = message else { return };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

fn refuse(reason: &'static str) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(super::error::code::INVALID_PARAMS, reason, None::<()>)
}

/// Sends what `show` makes of each event until either side ends. A subscriber that is too slow for
/// the buffer is disconnected rather than given a stream with holes.
async fn forward<E: Clone, Shown: IntoIterator<Item: Serialize>>(
    sink: SubscriptionSink,
    mut events: Receiver<E>,
    mut show: impl FnMut(E) -> Shown,
) {
    loop {
        let event = tokio::select! {
            () = sink.closed() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(event) => {
                for item in show(event) {
                    let message =
                        SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), &item);
                    let Ok(message) = message else { return };
                    if sink.send_timeout(message, SEND_PATIENCE).await.is_err() {
                        return;
                    }
                }
            }
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "subscriber is too slow and is disconnected");
                return;
            }
        }
    }
}
