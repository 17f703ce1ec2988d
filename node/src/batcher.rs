//! Posts the sequencer's blocks to Bitcoin.
//!
//! One batch at a time: the next is made when Bitcoin has the last and the node has derived it, from the safe
//! head on, so a batch never builds on what Bitcoin might not have taken. What to post follows from the chain
//! alone; that a publication is under way, and every transaction that it ever signed, is the publisher's
//! record. When posting falls behind, the mempool is closed, rather than admit what Bitcoin will discard.

use crate::{
    engine::Engine,
    mempool::Mempool,
    publisher::{Part, PublishError, Publisher},
};
use anyhow::Context;
use bitcoin::key::Keypair;
use kedge_bridge::{
    batch::{Batch, BatchBlock, encode},
    derive::{DeriveState, L2Cursor, Reads, next_payload},
    envelope::{Kind, sign_batch, split},
};
use kedge_genesis::{BATCH_EPOCH_READS, L1Height, L1Ref, L2Number, Params};
use kedge_store::{L1Rows, L2Rows, Reader};
use kedge_vm::PayloadTx;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between looks at what was broadcast, when no block comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of transactions in one batch, before compression: what is left of its chunks holds the rest
/// even when nothing compresses.
const MAX_BATCH_BYTES: usize = 3_500_000;

/// The batcher.
pub struct Batcher {
    params: &'static Params,
    engine: Arc<Engine>,
    mempool: Arc<Mempool>,
    publisher: Arc<Publisher>,
    sequencer: Keypair,
    origin_depth: u32,
    /// Whether further batches are begun.
    active: watch::Sender<bool>,
    /// The tip up to which the publisher knows what became of its transactions.
    looked: Mutex<Option<L1Ref>>,
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}

impl Batcher {
    /// A batcher that signs with the sequencer's key; `origin_depth` is the sequencer's.
    pub fn new(
        params: &'static Params,
        engine: Arc<Engine>,
        mempool: Arc<Mempool>,
        publisher: Arc<Publisher>,
        sequencer: Keypair,
        origin_depth: u32,
    ) -> Self {
        let active = watch::Sender::new(true);
        let looked = Mutex::new(None);
        Self { params, engine, mempool, publisher, sequencer, origin_depth, active, looked }
    }

    /// Whether it begins further batches. What was begun is seen through in any case.
    pub fn is_active(&self) -> bool {
        *self.active.borrow()
    }

    /// Has it begin further batches, or none.
    pub fn set_active(&self, active: bool) {
        self.active.send_replace(active);
    }

    /// Posts until `stop`. What goes wrong is logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut heads = self.engine.watch_heads();
        let mut active = self.active.subscribe();
        let mut ticked = None;
        loop {
            let tip = heads.borrow_and_update().l1_tip;
            if ticked != Some(tip) {
                if let Err(error) = self.look(tip).await {
                    tracing::warn!("batcher: {error}");
                }
                ticked = Some(tip);
            }
            if let Err(error) = self.post().await {
                tracing::warn!("batcher: {error:#}");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
                changed = active.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PATIENCE) => ticked = None,
            }
        }
    }

    /// Sees to what is under way and posts what is due, once.
    ///
    /// # Errors
    /// When Bitcoin does not answer or this machine fails.
    pub async fn step(&self) -> anyhow::Result<()> {
        self.look(self.engine.heads().l1_tip).await?;
        self.post().await
    }

    /// Has the publisher see what became of its transactions up to that tip.
    async fn look(&self, tip: L1Ref) -> Result<(), PublishError> {
        self.publisher.tick().await?;
        *self.looked.lock() = Some(tip);
        Ok(())
    }

    /// Whether everything up to the latest block is on its way to Bitcoin. What was on its way before the last
    /// Bitcoin block may have arrived in it, or be gone: that is known once the publisher has looked.
    pub async fn is_idle(&self) -> bool {
        let heads = self.engine.heads();
        let looked = *self.looked.lock() == Some(heads.l1_tip);
        heads.latest.number <= heads.safe.number || looked && self.in_flight().await
    }

    /// Whether the sequencer is still making the epochs up to Bitcoin's tip: a batch takes as many as it may.
    fn catching_up(&self) -> bool {
        let heads = self.engine.heads();
        heads.latest.origin.height.plus(self.origin_depth) < heads.l1_tip.height
    }

    /// Whether a batch is on its way that this node has not derived yet.
    async fn in_flight(&self) -> bool {
        let tip = self.engine.heads().l1_tip.height;
        let pending = self.publisher.pending().await;
        for publication in &pending {
            if let Some(problem) = &publication.problem {
                tracing::warn!(id = publication.id.0, problem, "a batch does not advance");
            }
        }
        pending.iter().any(|publication| publication.confirmed().is_none_or(|height| height > tip))
    }

    /// Posts the blocks above the safe head, unless a batch is under way.
    async fn post(&self) -> anyhow::Result<()> {
        self.guard_admission()?;
        if !self.is_active() || self.catching_up() || self.in_flight().await {
            return Ok(());
        }
        let engine = self.engine.clone();
        let params = self.params;
        let made = tokio::task::spawn_blocking(move || make_batch(params, &engine)).await??;
        let Some((batch, state)) = made else { return Ok(()) };
        let body = encode(&batch)?;
        let mut parts = split(
            Kind::Batch,
            self.params.chain_id,
            state.next_batch,
            state.prev_body,
            &body,
            self.params,
        )?;
        sign_batch(&mut parts, &self.sequencer);
        let chunks = parts.len();
        let parts = parts.into_iter().map(Part::from).collect();
        let id = self.publisher.publish(Kind::Batch, parts).await?;
        tracing::info!(
            id = id.0,
            index = state.next_batch,
            first = batch.first.0,
            blocks = batch.blocks.len(),
            bytes = body.len(),
            chunks,
            "posting a batch"
        );
        Ok(())
    }

    /// Closes the mempool while the oldest unposted block is a quarter of the sequencing window old or more
    /// is unposted than one batch carries.
    fn guard_admission(&self) -> anyhow::Result<()> {
        let reader = self.engine.store().reader();
        let Heads { tip, safe, latest } = heads(&reader)?;
        let mut reason = None;
        if latest > safe {
            let origin = cursor(&reader, safe.next())?.origin.height;
            if tip.since(origin) >= late(self.params) {
                reason = Some(format!(
                    "the sequencer is behind with posting to Bitcoin: block {} waits since Bitcoin block {origin}",
                    safe.next()
                ));
            } else if latest.0.saturating_sub(safe.0) > u64::from(self.params.max_batch_blocks) {
                reason = Some(format!(
                    "the sequencer is behind with posting to Bitcoin: {} blocks wait",
                    latest.0.saturating_sub(safe.0)
                ));
            }
        }
        self.mempool.set_closed(reason);
        Ok(())
    }
}

/// The age, in L1 blocks, at which what is unposted is in danger of being discarded: a quarter of the
/// sequencing window, at least two blocks since one passes between making and posting anything.
pub const fn late(params: &Params) -> u32 {
    let quarter = params.sequencing_window / 4;
    if quarter < 2 { 2 } else { quarter }
}

/// Where both chains stand at one moment.
struct Heads {
    tip: L1Height,
    safe: L2Number,
    latest: L2Number,
}

fn heads(reader: &Reader<'_>) -> anyhow::Result<Heads> {
    let tip = reader.l1_tip()?.context("no Bitcoin block was processed yet")?.height;
    let latest = reader.latest()?.context("the store holds no block")?;
    Ok(Heads { tip, safe: reader.safe_at(tip)?, latest })
}

fn cursor(reader: &Reader<'_>, number: L2Number) -> anyhow::Result<L2Cursor> {
    let info = reader.block_info(number)?;
    Ok(info.with_context(|| format!("block {number} is missing"))?.cursor)
}

/// The batch of the blocks above the safe head, none when there are none.
fn make_batch(params: &Params, engine: &Engine) -> anyhow::Result<Option<(Batch, DeriveState)>> {
    let reader = engine.store().reader();
    let Heads { tip, safe, latest } = heads(&reader)?;
    if latest <= safe {
        return Ok(None);
    }
    let state = reader.derive_state(tip)?.context("the derive state is missing")?;
    let (store, first) = (engine.store(), safe.next());
    // Derivation counts the same way what one batch has read for its epochs.
    let reads = Reads::new(store.as_ref());
    let mut parent = state.cursor;
    let mut blocks = Vec::new();
    let mut bytes = 0;
    let mut last_origin = [0; 20];
    let most = usize::try_from(params.max_batch_blocks)?;
    for number in (first.0..=latest.0).take(most).map(L2Number) {
        let payload =
            reader.payload(number)?.with_context(|| format!("block {number} is missing"))?;
        let step = payload.sequence_number == 0;
        if step && reads.count() >= BATCH_EPOCH_READS {
            break;
        }
        // What the rules put into the block is not part of the batch.
        let (bare, _) =
            next_payload(params, &parent, &state.epochs, &reads, step, None, Vec::new())?
                .with_context(|| format!("block {number} does not follow from its parent"))?;
        let transactions: Vec<_> = payload
            .transactions
            .into_iter()
            .skip(bare.transactions.len())
            .filter_map(|tx| match tx {
                PayloadTx::User(bytes) => Some(bytes),
                PayloadTx::System(_) => None,
            })
            .collect();
        let block = BatchBlock { timestamp: payload.timestamp, epoch_step: step, transactions };
        bytes += block.decoded_size();
        if bytes > MAX_BATCH_BYTES && !blocks.is_empty() {
            break;
        }
        last_origin.copy_from_slice(&payload.origin.hash[..20]);
        parent = cursor(&reader, number)?;
        blocks.push(block);
    }
    Ok(Some((Batch { first, last_origin, blocks }, state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::World;
    use alloy_primitives::Address;
    use kedge_genesis::Network;

    #[test]
    fn a_sequencer_that_was_away_for_a_window_catches_up_in_batches_that_are_taken_whole() {
        let params = Params { sequencing_window: 60, ..*Network::Dev.params() };
        let mut world = World::of(Box::leak(Box::new(params)));
        for _ in 0..20 {
            world.mine(vec![]);
        }
        // More than one block's deposits in an epoch, so that one of its blocks begins none.
        let to = |number: u8| Address::repeat_byte(number);
        let deposits: Vec<_> = (0..20).map(|number| world.deposit(to(number), 20_000)).collect();
        world.mine(deposits);
        while world.height().0 < 55 {
            world.mine(vec![]);
        }
        let mut taken = Vec::new();
        loop {
            while world.engine.heads().latest.origin.height < world.engine.heads().l1_tip.height {
                world.build(vec![]).unwrap();
            }
            let Some((batch, _)) = make_batch(world.params, &world.engine).unwrap() else { break };
            let reveal = world.reveal_batch(&batch);
            let outcome = world.mine(vec![reveal]);
            assert_eq!(outcome.notes, []);
            assert_eq!((outcome.promoted, outcome.removed.len()), (batch.blocks.len() as u64, 0));
            let steps = batch.blocks.iter().filter(|block| block.epoch_step).count();
            taken.push((steps, batch.blocks.len()));
            // The tip moves on; all but the newest epochs are there.
            if steps < BATCH_EPOCH_READS as usize {
                break;
            }
        }
        let mut expected = vec![(6, 6); 10];
        expected[3] = (6, 7);
        expected.push((5, 5));
        assert_eq!(taken, expected);
        let heads = world.engine.heads();
        assert_eq!(heads.safe.origin.height.next(), heads.l1_tip.height);
    }
}
