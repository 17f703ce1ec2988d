//! Makes L2 blocks as soon as there is something to put in them.
//!
//! A block is made when a transaction can be executed, when an L1 block becomes an origin, when an epoch's
//! deposits need another block, and, empty, when transactions wait for a lower base fee. Nothing else makes
//! one, so no empty blocks pile up. What goes into a block besides user transactions comes from the
//! function that derivation uses, so the block is what everybody will derive from Bitcoin.

use crate::{batcher::late, engine::Engine, mempool::Mempool};
use alloy_primitives::{Bytes, keccak256};
use kedge_bridge::derive::{L2Cursor, time_bounds};
use kedge_genesis::Params;
use kedge_vm::{Payload, SkipReason};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// Pause between empty blocks that are made while transactions wait for a lower base fee.
const BASE_FEE_PAUSE: Duration = Duration::from_millis(1_000);

/// Policy of the sequencer.
#[derive(Clone, Copy, Debug)]
pub struct SequencerConfig {
    /// How deep below Bitcoin's tip an L1 block must be to become an origin; 0 is the tip itself.
    pub origin_depth: u32,
}

/// The sequencer over one engine and one mempool.
#[derive(Debug)]
pub struct Sequencer {
    params: &'static Params,
    config: SequencerConfig,
    engine: Arc<Engine>,
    mempool: Arc<Mempool>,
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// A block.
    Block,
    /// Nothing: there is nothing to put in one.
    Nothing,
    /// Nothing now; an empty block is due after a pause.
    AfterPause,
}

impl Sequencer {
    /// A sequencer.
    pub const fn new(
        params: &'static Params,
        config: SequencerConfig,
        engine: Arc<Engine>,
        mempool: Arc<Mempool>,
    ) -> Self {
        Self { params, config, engine, mempool }
    }

    /// Makes blocks until `stop`.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut heads = self.engine.watch_heads();
        let mut arrivals = self.mempool.changes();
        while !stop.is_cancelled() {
            heads.mark_unchanged();
            arrivals.mark_unchanged();
            let this = self.clone();
            // Execution is work for a processor, not for the event loop.
            let made = tokio::task::spawn_blocking(move || this.make_block()).await??;
            let pause = match made {
                Made::Block => continue,
                Made::Nothing => None,
                Made::AfterPause => Some(BASE_FEE_PAUSE),
            };
            tokio::select! {
                () = stop.cancelled() => break,
                changed = heads.changed() => changed?,
                changed = arrivals.changed() => changed?,
                () = wait(pause) => {}
            }
        }
        Ok(())
    }

    fn make_block(&self) -> anyhow::Result<Made> {
        let position = self.engine.position()?;
        let cursor = &position.cursor;
        let deepest = position.l1_tip.height.0.checked_sub(self.config.origin_depth);
        let next = cursor.origin.height.next();
        let step = cursor.epoch_complete && deepest.is_some_and(|height| next.0 <= height);
        let base_fee = position.next_base_fee;

        // Bitcoin may take an old epoch's blocks too late: they carry what the rules demand and no more.
        let origin = if step { next } else { cursor.origin.height };
        let mut transactions = if position.l1_tip.height.since(origin) < late(self.params) {
            self.candidates(base_fee)
        } else {
            Vec::new()
        };
        let needed = step || !cursor.epoch_complete;
        if transactions.is_empty() && !needed {
            let waits = self.mempool.waits_for_base_fee(base_fee)
                && base_fee > self.params.fees.min_base_fee;
            if !waits {
                return Ok(Made::Nothing);
            }
            if now() <= cursor.timestamp {
                return Ok(Made::AfterPause);
            }
        }

        loop {
            let timestamp = self.timestamp(&position.epochs, cursor, step, &transactions);
            let Some((payload, next)) = self.engine.plan(step, timestamp, transactions.clone())?
            else {
                // The position moved on since it was read.
                return Ok(Made::Block);
            };
            let executed = self.engine.preview(&payload)?;
            if self.leave_out(&payload, &executed.skipped, &mut transactions) {
                if transactions.is_empty() && !needed {
                    return Ok(Made::Block);
                }
                continue;
            }
            let block = self.engine.append(payload, next, executed)?;
            // At once, so that the next block does not try the same transactions again.
            self.mempool.on_block(block.state.accounts.keys().copied());
            return Ok(Made::Block);
        }
    }

    /// Takes what execution skipped out of `transactions`, and out of the mempool what no later block
    /// would take either. A forced transaction that is skipped stays listed: the rules put it there.
    fn leave_out(
        &self,
        payload: &Payload,
        skipped: &[(usize, SkipReason)],
        transactions: &mut Vec<Bytes>,
    ) -> bool {
        let first = payload.transactions.len().saturating_sub(transactions.len());
        let mut left_out = Vec::new();
        for (index, reason) in skipped {
            let Some(place) = index.checked_sub(first) else { continue };
            let Some(bytes) = transactions.get(place) else { continue };
            let block_was_fresh = place == 0;
            let later = match reason {
                SkipReason::GasLimit { .. } | SkipReason::Footprint { .. } => {
                    !block_was_fresh || first > 0
                }
                SkipReason::WitnessLimit => !block_was_fresh,
                SkipReason::Undecodable | SkipReason::Signature | SkipReason::Invalid(_) => false,
            };
            if !later {
                let hash = keccak256(bytes);
                tracing::debug!(%hash, %reason, "dropped a transaction from the mempool");
                self.mempool.discard(&hash);
            }
            left_out.push(place);
        }
        for place in left_out.iter().rev() {
            transactions.remove(*place);
        }
        !left_out.is_empty()
    }

    /// The best transactions whose declared gas fits one block.
    fn candidates(&self, base_fee: u64) -> Vec<Bytes> {
        let mut room = self.params.block_gas_limit.saturating_sub(self.params.block_overhead_gas);
        let mut taken = Vec::new();
        for tx in self.mempool.best(base_fee) {
            let Some(rest) = room.checked_sub(tx.gas_limit()) else { break };
            room = rest;
            taken.push(tx.encoded.clone());
        }
        taken
    }

    /// The time of day, within the bounds that derivation sets. None leaves the lower bound.
    fn timestamp(
        &self,
        epochs: &[kedge_bridge::derive::EpochInfo],
        cursor: &L2Cursor,
        step: bool,
        transactions: &[Bytes],
    ) -> Option<u64> {
        let height = if step { cursor.origin.height.next() } else { cursor.origin.height };
        let epoch = epochs.iter().find(|epoch| epoch.at.height == height)?;
        // Whether the block is empty depends on deposits too; the stricter bound is always allowed.
        let (lower, upper) = time_bounds(self.params, cursor, epoch, false);
        let (strict, _) = time_bounds(self.params, cursor, epoch, true);
        let lower = if transactions.is_empty() { strict } else { lower };
        Some(now().clamp(lower, upper.max(lower)))
    }
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
