//! Blocks that came and wait to be executed, within bounds.

use super::VerifiedBlock;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most blocks that wait.
const MAX_BLOCKS: usize = 256;
/// Most bytes of transactions that wait, but for the last block.
const MAX_BYTES: usize = 8 << 20;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order in which they came.
    pub(super) blocks: Vec<VerifiedBlock>,
    /// Whether blocks after them did not fit and are to be asked for.
    pub(super) lost: bool,
    bytes: usize,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

impl Queue {
    /// Adds a block, or notes that one did not fit.
    pub(super) fn push(&self, block: VerifiedBlock) {
        let mut waiting = self.waiting.lock();
        if waiting.lost || waiting.blocks.len() >= MAX_BLOCKS || waiting.bytes >= MAX_BYTES {
            waiting.lost = true;
        } else {
            waiting.bytes += block.block().size();
            waiting.blocks.push(block);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits until there is something, and takes all of it.
    pub(super) async fn take(&self) -> Waiting {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            if waiting.lost || !waiting.blocks.is_empty() {
                return waiting;
            }
            self.arrived.notified().await;
        }
    }
}

/// The blocks as runs, in which each is the parent of the next.
pub(super) fn runs(blocks: Vec<VerifiedBlock>) -> Vec<Vec<VerifiedBlock>> {
    let mut runs: Vec<Vec<VerifiedBlock>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run)
                if run.last().is_some_and(|last| {
                    last.number().next() == block.number()
                        && last.block().hash == block.block().parent_hash
                }) =>
            {
                run.push(block);
            }
            _ => runs.push(vec![block]),
        }
    }
    runs
}
