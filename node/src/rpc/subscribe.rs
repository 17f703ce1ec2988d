//! `eth_subscribe`.

use super::{
    block::{FullBlock, rpc_header},
    submit::Submission,
};
use crate::engine::{Engine, EngineEvent};
use alloy_rpc_types_eth::{
    Filter,
    pubsub::{Params, PubSubSyncStatus, SubscriptionKind, SyncStatusMetadata},
};
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage, SubscriptionSink,
    core::{SubscriptionResult, async_trait},
    proc_macros::rpc,
    types::ErrorObjectOwned,
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    watch,
};

/// How long a subscriber may leave the connection's buffer full. While it does, what the engine tells stays in
/// memory for it.
pub(super) const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// The heads, as they are now and whenever they move.
type Heads = watch::Receiver<crate::engine::Heads>;

/// `eth_subscribe` and `eth_unsubscribe`.
#[rpc(server, namespace = "eth")]
pub trait SubscribeApi {
    /// `newHeads`, `logs` (with a filter), `newPendingTransactions` (true for whole transactions),
    /// `syncing`.
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
    pub(super) engine: Arc<Engine>,
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
                let events = self.engine.subscribe();
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
                let events = self.engine.subscribe();
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
                    vec![if whole {
                        serde_json::to_value(super::block::pending_transaction(&tx))
                    } else {
                        serde_json::to_value(tx.hash)
                    }]
                    .into_iter()
                    .filter_map(Result::ok)
                    .collect()
                })
                .await;
            }
            (SubscriptionKind::Syncing, Params::None) => {
                let mut heads = self.engine.watch_heads();
                heads.mark_changed();
                let start = self.engine.params().l1_start.height.0;
                follow_sync(pending.accept().await?, heads, start.into()).await;
            }
            _ => pending.reject(refuse("unsupported subscription")).await,
        }
        Ok(())
    }
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
async fn forward<E: Clone, T: Serialize>(
    sink: SubscriptionSink,
    mut events: Receiver<E>,
    mut show: impl FnMut(E) -> Vec<T>,
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
