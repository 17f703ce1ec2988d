//! A Bitcoin that a test controls, so that one scenario runs on a simulated and on a real one.

use anyhow::Result;
use async_trait::async_trait;
use bitcoin::{BlockHash, Script, Transaction};
use kedge::l1::Bitcoin;
use std::sync::Arc;

/// A Bitcoin that a test controls.
#[async_trait]
pub trait TestBitcoin: Send + Sync {
    /// The client that a node follows it with.
    fn client(&self) -> Arc<dyn Bitcoin>;

    /// Mines one block of what the mempool holds, best fee rate first; its reward goes to `to`.
    ///
    /// # Errors
    /// When Bitcoin does not answer.
    async fn mine(&self, to: &Script) -> Result<BlockHash>;

    /// Mines one block of exactly these transactions in this order.
    ///
    /// # Errors
    /// When Bitcoin does not answer or no such block is valid.
    async fn mine_exactly(&self, to: &Script, txs: &[Transaction]) -> Result<BlockHash>;

    /// Takes the last `depth` blocks back; their transactions return to the mempool where they can.
    ///
    /// # Errors
    /// When Bitcoin does not answer.
    async fn take_back(&self, depth: u32) -> Result<()>;
}
