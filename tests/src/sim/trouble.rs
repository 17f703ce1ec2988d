//! What happens to everybody: blocks and reorganisations, a mempool that forgets, connections that fail,
//! processes that end.

use super::host::Role;
use super::link::{Fault, Net, Trap};
use super::start::{MAX_REORG, SIGNER_PATIENCE, miner};
use super::world::World;
use anyhow::Result;
use bitcoin::FeeRate;
use kedge_genesis::L1Height;
use rand::Rng;
use rand::seq::IndexedRandom;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Blocks between the ends of two reorganisations at least.
pub(super) const REORG_PAUSE: u32 = 8;

/// Requests at which a process can end or that can be lost; the rest of them are `None`.
const ACTS: [Option<&str>; 6] =
    [Some("broadcast"), Some("broadcast"), Some("ask"), Some("tx_out"), Some("block"), None];

impl World {
    /// Mines a block of what waits, or an empty one.
    pub(super) fn mine(&mut self, empty: bool) -> Result<()> {
        let script = miner();
        let block = if empty {
            self.bitcoin.mine_exactly_now(&script, &[])?
        } else {
            self.bitcoin.mine_now(&script)?
        };
        self.story.tell(format!(
            "block {}: {} transactions, {}",
            self.tip(),
            block.txdata.len() - 1,
            block.block_hash()
        ));
        self.ledger.read(&self.bitcoin);
        self.checks.bitcoin(&self.ledger)?;
        self.top = self.top.max(self.tip().0);
        self.quiet += 1;
        let time = u64::from(block.header.time);
        self.now.fetch_max(time, Ordering::Relaxed);
        for idle in &mut self.idle {
            *idle += 1;
        }
        Ok(())
    }

    /// How many blocks in a row a party may miss.
    const fn patience(role: Role) -> u32 {
        match role {
            // Longer than the sequencing window.
            Role::Sequencer => 18,
            Role::Challenger => 2,
            Role::Signer(_) | Role::Validator => SIGNER_PATIENCE,
        }
    }

    /// Mends those that have missed as many blocks as they may, so that what has deadlines is done in time.
    pub(super) async fn rouse(&mut self) -> Result<()> {
        for index in 0..self.hosts.len() {
            let patience = Self::patience(self.hosts[index].role);
            if self.idle[index] >= patience {
                self.mend(index)?;
                self.act_all(index).await?;
            }
        }
        Ok(())
    }

    /// Replaces the last blocks by more.
    pub(super) async fn reorg(&mut self) -> Result<()> {
        let tip = self.tip().0;
        let lowest = self.top.saturating_sub(MAX_REORG).max(self.funded);
        let most = tip.saturating_sub(lowest).min(MAX_REORG);
        if most == 0 || self.quiet < REORG_PAUSE {
            return Ok(());
        }
        let depth = self.rng.random_range(1..=most);
        self.story.tell(format!("the last {depth} blocks are replaced"));
        self.bitcoin.take_back_now(depth)?;
        if self.rng.random_bool(0.3) {
            self.evict(true);
        }
        for _ in 0..=depth {
            let empty = self.rng.random_bool(0.5);
            self.mine(empty)?;
            self.purse.tick().await?;
        }
        self.quiet = 0;
        Ok(())
    }

    /// The mempool loses a transaction, or all of them.
    pub(super) fn evict(&mut self, all: bool) {
        let waiting = self.bitcoin.waiting();
        let lost = if all {
            waiting
        } else {
            waiting.choose(&mut self.rng).cloned().into_iter().collect()
        };
        for tx in lost {
            let txid = tx.compute_txid();
            self.story.tell(format!("the mempool loses {txid}"));
            self.bitcoin.evict(&txid);
        }
    }

    pub(super) fn change_fees(&mut self) {
        let rate = self.rng.random_bool(0.9).then(|| self.rng.random_range(1..60));
        self.story.tell(format!("fee estimate: {rate:?} sat/vB"));
        self.bitcoin.set_fee_rate(rate.map(FeeRate::from_sat_per_vb_u32));
    }

    pub(super) fn change_net(&mut self) {
        let index = self.rng.random_range(0..self.hosts.len());
        let host = &self.hosts[index];
        let net = if !host.link.is_up() {
            Net::Up
        } else if self.rng.random_bool(0.5) {
            Net::Down
        } else {
            let tip = self.bitcoin.tip().height.0;
            let hashes = (0..=tip).filter_map(|height| self.bitcoin.block_at(L1Height(height)));
            Net::Stuck(Arc::new(hashes.map(|block| block.block_hash()).collect()))
        };
        let what = match net {
            Net::Up => "reaches Bitcoin again",
            Net::Down => "cannot reach Bitcoin",
            Net::Stuck(_) => "sees no new blocks",
        };
        self.story.tell(format!("{} {what}", host.name));
        host.link.set(net);
    }

    pub(super) fn set_trap(&mut self) {
        let index = self.rng.random_range(0..self.hosts.len());
        let party = self.hosts[index].name;
        let act = ACTS.choose(&mut self.rng).copied().flatten();
        let fault = *Fault::ALL.choose(&mut self.rng).expect("there are faults");
        let skip = self.rng.random_range(0..4);
        self.control.set(Trap { party, act, skip, fault });
    }

    pub(super) fn kill(&mut self) {
        let index = self.rng.random_range(0..self.hosts.len());
        let host = &mut self.hosts[index];
        if host.live.take().is_some() {
            self.story.tell(format!("{} is killed", host.name));
        }
    }
}
