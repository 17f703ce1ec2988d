//! Blocks as the sequencer signed them, for nodes that follow this one.

use super::{chain::Chain, error::RpcError, subscribe::SEND_PATIENCE};
use crate::{
    engine::EngineEvent,
    stream::{PAGE_BLOCKS, PAGE_BYTES, SignedBlock},
};
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage,
    core::{RpcResult, SubscriptionResult},
    proc_macros::rpc,
};
use kedge_genesis::L2Number;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// `kedge_signedBlocks`.
#[rpc(server, client, namespace = "kedge")]
pub trait KedgeStreamApi {
    /// The blocks from number `from` on that the sequencer signed, as far as this node has them one after the
    /// other: `count` at most, and never more than 64 or, beyond the first, 2 MiB of transactions. Derived blocks and
    /// final ones have no signature here.
    #[method(name = "signedBlocks", blocking)]
    fn signed_blocks(&self, from: u64, count: u64) -> RpcResult<Vec<SignedBlock>>;
}

/// Implements [`KedgeStreamApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct SignedBlocks(pub(super) Arc<Chain>);

impl KedgeStreamApiServer for SignedBlocks {
    fn signed_blocks(&self, from: u64, count: u64) -> RpcResult<Vec<SignedBlock>> {
        let view = self.0.view();
        let count = count.min(PAGE_BLOCKS as u64);
        let (mut page, mut bytes) = (Vec::new(), 0usize);
        for number in (from..from.saturating_add(count)).map(L2Number) {
            let block = SignedBlock::read(&view.reader, number).map_err(RpcError::from)?;
            let Some(block) = block else { break };
            bytes = bytes.saturating_add(block.size());
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(block);
        }
        Ok(page)
    }
}

/// Pushes every signed block that is added from now on. The subscription of one who is too slow for
/// the buffer ends, and says so: what was missed can be asked for.
pub(super) async fn stream(
    chain: Arc<Chain>,
    pending: PendingSubscriptionSink,
) -> SubscriptionResult {
    // Subscribed before it is accepted: nothing after the answer is missed.
    let mut events = chain.engine.subscribe();
    let sink = pending.accept().await?;
    loop {
        let event = tokio::select! {
            () = sink.closed() => return Ok(()),
            event = events.recv() => event,
        };
        let added = match event {
            Ok(EngineEvent::NewBlock(block)) => block,
            Ok(_) => continue,
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(_)) => return Err("the subscriber is too slow".into()),
        };
        let number = L2Number(added.header.number);
        let block = SignedBlock::read(&chain.view().reader, number)?;
        // A derived block has no signature, and a block may be gone already.
        let Some(block) = block.filter(|block| block.hash == added.hash) else { continue };
        let message = SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), &block)?;
        if sink.send_timeout(message, SEND_PATIENCE).await.is_err() {
            return Err("the subscriber is gone or too slow".into());
        }
    }
}
