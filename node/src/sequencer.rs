//! Makes L2 blocks as soon as there is something to put in them.
//!
//! A block is made when a transaction can be executed, when an L1 block becomes an origin, when an epoch's
//! deposits need another block, and, empty, when transactions wait for a lower base fee. Nothing else makes
//! one, so no empty blocks pile up. What goes into a block besides user transactions comes from the
//! function that derivation uses, so the block is what everybody will derive from Bitcoin.

use crate::{
    batcher::late,
    clock::Clock,
    engine::{BlockRef, Engine, EngineError},
    mempool::{Mempool, PoolLimits},
    stream::SignedBlock,
};
use alloy_primitives::{Bytes, keccak256};
use bitcoin::key::Keypair;
use kedge_bridge::derive::{L2Cursor, time_bounds};
use kedge_genesis::Params;
use kedge_vm::{Payload, Senders, SkipReason};
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pause between empty blocks that are made while transactions wait for a lower base fee.
const BASE_FEE_PAUSE: Duration = Duration::from_millis(1_000);

/// Policy of the sequencer.
#[derive(Clone, Copy, Debug)]
pub struct SequencerConfig {
    /// How deep below Bitcoin's tip an L1 block must be to become an origin; 0 is the tip itself.
    pub origin_depth: u32,
    /// The least time between two blocks, unless the rules demand one.
    pub interval: Duration,
    /// How much the mempool holds.
    pub pool: PoolLimits,
}

/// The sequencer over one engine and one mempool.
#[derive(Clone, Debug)]
pub struct Sequencer {
    params: &'static Params,
    config: SequencerConfig,
    key: Keypair,
    engine: Arc<Engine>,
    mempool: Arc<Mempool>,
    clock: Clock,
    gate: Arc<Gate>,
}

/// Whether blocks are made.
#[derive(Debug)]
struct Gate {
    open: watch::Sender<bool>,
    /// Held while one is made: when the last one was begun.
    making: Mutex<Option<Instant>>,
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
    /// Nothing before the interval has passed, whatever else comes.
    AfterInterval(Duration),
}

impl Sequencer {
    /// A sequencer that signs its blocks with `key`, the network's, and gives them the time of `clock`.
    pub fn new(
        params: &'static Params,
        config: SequencerConfig,
        key: Keypair,
        engine: Arc<Engine>,
        mempool: Arc<Mempool>,
        clock: Clock,
    ) -> Self {
        let gate = Arc::new(Gate { open: watch::Sender::new(true), making: Mutex::new(None) });
        Self { params, config, key, engine, mempool, clock, gate }
    }

    /// The transactions that wait for its blocks.
    pub const fn mempool(&self) -> &Arc<Mempool> {
        &self.mempool
    }

    /// Whether it makes blocks.
    pub fn is_active(&self) -> bool {
        *self.gate.open.borrow()
    }

    /// Has it make no block until [`Self::resume`]. Waits for one that is being made; returns the latest.
    pub fn pause(&self) -> BlockRef {
        self.gate.open.send_replace(false);
        let _made = self.gate.making.lock();
        self.engine.heads().latest
    }

    /// Has it make blocks again.
    pub fn resume(&self) {
        self.gate.open.send_replace(true);
    }

    /// Makes blocks until `stop`.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut heads = self.engine.watch_heads();
        let mut arrivals = self.mempool.changes();
        let mut gate = self.gate.open.subscribe();
        while !stop.is_cancelled() {
            heads.mark_unchanged();
            arrivals.mark_unchanged();
            gate.mark_unchanged();
            let made = self.make().await?;
            let pause = match made {
                Made::Block => continue,
                Made::Nothing => None,
                Made::AfterPause => Some(BASE_FEE_PAUSE),
                Made::AfterInterval(rest) => Some(rest),
            };
            let waits_for_arrivals = !matches!(made, Made::AfterInterval(_));
            tokio::select! {
                () = stop.cancelled() => break,
                changed = heads.changed() => changed?,
                changed = arrivals.changed(), if waits_for_arrivals => changed?,
                changed = gate.changed() => changed?,
                () = wait(pause) => {}
            }
        }
        Ok(())
    }

    /// Makes every block that can be made now, within the interval.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn step(&self) -> anyhow::Result<()> {
        while self.make().await? == Made::Block {}
        Ok(())
    }

    async fn make(&self) -> anyhow::Result<Made> {
        let this = self.clone();
        // Execution is work for a processor, not for the event loop.
        Ok(tokio::task::spawn_blocking(move || this.make_block()).await??)
    }

    fn make_block(&self) -> Result<Made, EngineError> {
        let mut last = self.gate.making.lock();
        if !self.is_active() {
            return Ok(Made::Nothing);
        }
        let begun = Instant::now();
        let rest =
            last.and_then(|last| (last + self.config.interval).checked_duration_since(begun));
        match self.try_block(rest.filter(|rest| !rest.is_zero())) {
            // An L1 block came in between: look again.
            Err(error) if error.is_stale() => Ok(Made::Block),
            Ok(Made::Block) => {
                *last = Some(begun);
                Ok(Made::Block)
            }
            other => other,
        }
    }

    /// Makes the next block; with a `rest` of the interval only one that the rules demand.
    fn try_block(&self, rest: Option<Duration>) -> Result<Made, EngineError> {
        let position = self.engine.position()?;
        let cursor = &position.cursor;
        let deepest = position.l1_tip.height.0.checked_sub(self.config.origin_depth);
        let next = cursor.origin.height.next();
        let step = cursor.epoch_complete && deepest.is_some_and(|height| next.0 <= height);
        let base_fee = position.next_base_fee;
        let needed = step || !cursor.epoch_complete;
        if let Some(rest) = rest
            && !needed
        {
            return Ok(Made::AfterInterval(rest));
        }

        // Bitcoin may take an old epoch's blocks too late: they carry what the rules demand and no more.
        let origin = if step { next } else { cursor.origin.height };
        let (mut transactions, senders) =
            if position.l1_tip.height.since(origin) < late(self.params) {
                self.candidates(base_fee, needed)
            } else {
                Default::default()
            };
        if transactions.is_empty() && !needed {
            let waits = self.mempool.waits_for_base_fee(base_fee)
                && base_fee > self.params.fees.min_base_fee;
            if !waits {
                return Ok(Made::Nothing);
            }
            if self.clock.now() <= cursor.timestamp {
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
            let executed = self.engine.preview(&payload, &senders)?;
            if self.leave_out(&payload, &executed.skipped, &mut transactions) {
                if transactions.is_empty() && !needed {
                    return Ok(Made::Block);
                }
                continue;
            }
            let signature = SignedBlock::sign(
                self.params.chain_id,
                &self.key,
                &payload,
                transactions.len(),
                executed.hash,
                executed.header.parent_hash,
            );
            let block = self.engine.append(payload, next, executed, Some(&signature))?;
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
        // After one that is left out, the nonces of its sender's others are too high for this block alone.
        let mut gapped = HashSet::new();
        for (index, reason) in skipped {
            let Some(place) = index.checked_sub(first) else { continue };
            let Some(bytes) = transactions.get(place) else { continue };
            left_out.push(place);
            let hash = keccak256(bytes);
            if let Some(tx) = self.mempool.get(&hash)
                && !gapped.insert(tx.sender)
            {
                continue;
            }
            let block_was_fresh = place == 0;
            let later = match reason {
                SkipReason::GasLimit { .. } | SkipReason::Footprint { .. } => {
                    !block_was_fresh || first > 0
                }
                SkipReason::WitnessLimit => !block_was_fresh,
                SkipReason::Undecodable | SkipReason::Signature | SkipReason::Invalid(_) => false,
            };
            if !later {
                tracing::debug!(%hash, %reason, "dropped a transaction from the mempool");
                self.mempool.discard(&hash);
            }
        }
        for place in left_out.iter().rev() {
            transactions.remove(*place);
        }
        !left_out.is_empty()
    }

    /// The best transactions whose declared gas fits one block beside what the rules put there, which is
    /// most in a block that is `needed` for its epoch. A block that lists too much is none by the rules. With
    /// their senders.
    fn candidates(&self, base_fee: u64, needed: bool) -> (Vec<Bytes>, Senders) {
        let params = self.params;
        let ruled = params
            .attributes_gas
            .saturating_add(params.deposits_gas_per_block)
            .saturating_add(params.deposit_gas)
            .saturating_add(params.forced_gas_per_epoch);
        let mut room = params
            .block_gas_limit
            .saturating_sub(params.block_overhead_gas)
            .saturating_sub(if needed { ruled } else { 0 });
        let (mut taken, mut senders) = (Vec::new(), Senders::default());
        for tx in self.mempool.best(base_fee) {
            let Some(rest) = room.checked_sub(tx.gas_limit()) else { break };
            room = rest;
            taken.push(tx.encoded.clone());
            senders.insert(tx.hash, tx.sender);
        }
        (taken, senders)
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
        Some(self.clock.now().clamp(lower, upper.max(lower)))
    }
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::tests::world::{World, account, sequencer_key},
        mempool::MempoolConfig,
        mempool_link::HeadState,
    };
    use alloy_primitives::{Address, U256};
    use kedge_store::L2Rows as _;

    /// A world in which [`account`] has bitcoin, and its sequencer.
    fn world() -> (World, Arc<Sequencer>) {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let engine = world.engine.clone();
        let config = MempoolConfig::new(engine.evm());
        let mempool = Mempool::new(config, Arc::new(HeadState::new(engine.clone())), None);
        let (interval, pool) = (Duration::ZERO, PoolLimits::default());
        let policy = SequencerConfig { origin_depth: 0, interval, pool };
        let (mempool, clock) = (Arc::new(mempool), Clock::system());
        let sequencer =
            Sequencer::new(world.params, policy, sequencer_key(), engine, mempool, clock);
        (world, Arc::new(sequencer))
    }

    #[test]
    fn a_full_mempool_does_not_keep_an_epoch_from_beginning() {
        let (mut world, sequencer) = world();
        // As many plain transfers as fill a block to less than what an epoch's first block lists besides.
        let fit = (world.params.block_gas_limit - world.params.block_overhead_gas) / 21_000;
        for _ in 0..fit {
            let tx = world.plain_transfer(Address::repeat_byte(0xb0), U256::ONE);
            sequencer.mempool.add(tx).unwrap();
        }
        world.mine(vec![]);
        let tip = world.engine.heads().l1_tip;
        assert_eq!(sequencer.make_block().unwrap(), Made::Block);
        assert_eq!(world.engine.heads().latest.origin, tip);
        for _ in 0..3 {
            sequencer.make_block().unwrap();
        }
        assert_eq!(world.balance(Address::repeat_byte(0xb0)), U256::from(fit));
    }

    #[test]
    fn within_the_interval_only_what_the_rules_demand_is_made() {
        let (mut world, sequencer) = world();
        let config = SequencerConfig { interval: Duration::from_secs(3_600), ..sequencer.config };
        let sequencer = Sequencer { config, ..Sequencer::clone(&sequencer) };
        let add = |world: &mut World| {
            let tx = world.plain_transfer(Address::repeat_byte(0xb0), U256::ONE);
            sequencer.mempool.add(tx).unwrap();
        };
        add(&mut world);
        assert_eq!(sequencer.make_block().unwrap(), Made::Block);
        add(&mut world);
        let latest = world.engine.heads().latest;
        let Made::AfterInterval(rest) = sequencer.make_block().unwrap() else { panic!("a block") };
        assert!(rest <= config.interval);
        assert_eq!(world.engine.heads().latest, latest);
        // A new epoch begins at once, and takes what waits.
        world.mine(vec![]);
        assert_eq!(sequencer.make_block().unwrap(), Made::Block);
        assert_eq!(world.balance(Address::repeat_byte(0xb0)), U256::from(2));
    }

    #[test]
    fn what_is_skipped_behind_another_of_its_sender_stays_in_the_mempool() {
        let (mut world, sequencer) = world();
        let to = Address::repeat_byte(0xb0);
        let all: Vec<_> = (0..3).map(|_| world.plain_transfer(to, U256::ONE)).collect();
        for tx in &all {
            sequencer.mempool.add(tx.clone()).unwrap();
        }
        let (payload, _) = sequencer.engine.plan(false, None, all.clone()).unwrap().unwrap();
        let first = payload.transactions.len() - all.len();
        let gap = || SkipReason::Invalid("nonce too high".into());
        // The second does not fit, so the third's nonce is too high.
        let full = SkipReason::Footprint { footprint: 2, available: 1 };
        let mut transactions = all.clone();
        let skipped = [(first + 1, full), (first + 2, gap())];
        assert!(sequencer.leave_out(&payload, &skipped, &mut transactions));
        assert_eq!(transactions, all[..1]);
        assert_eq!(sequencer.mempool.best(0).count(), 3);
        // The first can never be executed. The others wait for one in its place.
        let lost = SkipReason::Invalid("lack of funds".into());
        let mut transactions = all;
        let skipped = [(first, lost), (first + 1, gap()), (first + 2, gap())];
        assert!(sequencer.leave_out(&payload, &skipped, &mut transactions));
        assert!(transactions.is_empty());
        assert_eq!(sequencer.mempool.status(0).queued, 2);
    }

    #[tokio::test]
    async fn a_step_begins_every_epoch_that_can_begin_at_the_time_of_the_clock() {
        let (mut world, sequencer) = world();
        for _ in 0..3 {
            world.mine(vec![]);
        }
        let time = u64::from(world.params.l1_start_time) + 3_000;
        let sequencer =
            Sequencer { clock: Clock::new(move || time), ..Sequencer::clone(&sequencer) };
        sequencer.step().await.unwrap();
        let heads = world.engine.heads();
        assert_eq!(heads.latest.origin, heads.l1_tip);
        let header = world.store().header(heads.latest.number).unwrap().unwrap();
        // Two empty blocks before it, each a second later than its parent.
        assert_eq!(header.timestamp, time + 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn l1_blocks_that_come_while_a_block_is_made_do_not_stop_the_sequencer() {
        let (mut world, sequencer) = world();
        let stop = CancellationToken::new();
        let running = tokio::spawn(sequencer.run(stop.clone()));
        let mut heads = world.engine.watch_heads();
        tokio::task::block_in_place(|| (0..200).for_each(|_| drop(world.mine(vec![]))));
        let tip = world.engine.heads().l1_tip;
        let origin_is_tip = heads.wait_for(|heads| heads.latest.origin == tip);
        tokio::select! {
            _ = origin_is_tip => {}
            done = running => panic!("the sequencer ended: {done:?}"),
        }
        stop.cancel();
    }
}
