//! Posts assertions to Bitcoin and takes their bonds back.
//!
//! One assertion at a time, each continuing the furthest one that this node agrees with. It is due when a
//! withdrawal waits that no assertion covers, else after an interval of L1 blocks, since a bond is locked for
//! each.

use crate::{
    engine::Engine,
    l1::{Bitcoin, Broadcast},
    publisher::{FeePolicy, Part, Publisher},
    wallet::Wallet,
};
use alloy_primitives::B256;
use anyhow::Context;
use bitcoin::{OutPoint, Txid, hashes::Hash, key::Keypair};
use kedge_bridge::{
    assertion::AssertionBody,
    bond::Bond,
    envelope::{Kind, split},
};
use kedge_fraud_proof::AssertionTracker;
use kedge_genesis::{L1Height, Params};
use kedge_store::{Durability, L1Rows, L2Rows, OwnClaims, Reader, Table};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between looks at what was broadcast, when no block comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// L1 blocks between assertions while no withdrawal waits, unless told otherwise.
pub const DEFAULT_INTERVAL: u32 = 6;
/// Keys of bonds that are still to return, in the table of the roles.
const BONDS: &[u8] = b"bond/";

/// The proposer.
pub struct Proposer {
    params: &'static Params,
    engine: Arc<Engine>,
    bitcoin: Arc<dyn Bitcoin>,
    publisher: Arc<Publisher>,
    wallet: Arc<Wallet>,
    key: Keypair,
    bond: Bond,
    /// L1 blocks between assertions while no withdrawal waits.
    interval: u32,
}

impl std::fmt::Debug for Proposer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposer").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Proposer {
    /// A proposer whose bonds return to `key`, which must be the publisher's.
    ///
    /// # Errors
    /// When the network has no signers.
    pub fn new(
        params: &'static Params,
        engine: Arc<Engine>,
        bitcoin: Arc<dyn Bitcoin>,
        publisher: Arc<Publisher>,
        wallet: Arc<Wallet>,
        key: Keypair,
        interval: u32,
    ) -> anyhow::Result<Self> {
        let bond = Bond::of(params, publisher.key()).context("the network has no signers")?;
        Ok(Self { params, engine, bitcoin, publisher, wallet, key, bond, interval })
    }

    /// Proposes until `stop`. What goes wrong is logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut heads = self.engine.watch_heads();
        let mut seen = None;
        loop {
            let tip = heads.borrow_and_update().l1_tip;
            if seen != Some(tip) {
                if let Err(error) = self.on_l1_block(tip.height).await {
                    tracing::warn!("proposer: {error:#}");
                }
                seen = Some(tip);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PATIENCE) => seen = None,
            }
        }
    }

    async fn on_l1_block(&self, tip: L1Height) -> anyhow::Result<()> {
        let publications = self.publisher.tick().await?;
        for publication in &publications {
            if let Some(problem) = &publication.problem {
                tracing::warn!(id = publication.id.0, problem, "an assertion does not advance");
            }
            if publication.confirmed().is_some() {
                for txid in publication.reveals.iter().filter_map(|reveal| reveal.txid) {
                    self.remember(txid)?;
                }
            }
        }
        self.return_bonds(tip).await?;
        let waiting = publications.iter().filter(|publication| !publication.is_final);
        if waiting.into_iter().any(|it| it.confirmed().is_none_or(|height| height > tip)) {
            return Ok(());
        }
        let engine = self.engine.clone();
        let (params, interval) = (self.params, self.interval);
        let due = tokio::task::spawn_blocking(move || due(params, &engine, interval)).await??;
        match due {
            Some(body) => self.publish(&body).await,
            None => Ok(()),
        }
    }

    async fn publish(&self, body: &AssertionBody) -> anyhow::Result<()> {
        let chunks = split(
            Kind::Assertion,
            self.params.chain_id,
            0,
            B256::ZERO,
            &body.encode(),
            self.params,
        )?;
        let parts = chunks
            .into_iter()
            .map(|chunk| Part {
                output: Some(self.bond.tx_out(self.params.proposer_bond)),
                ..Part::from(chunk)
            })
            .collect();
        let id = self.publisher.publish(Kind::Assertion, parts).await?;
        tracing::info!(
            id = id.0, height = body.l1.height.0, parent = %body.parent, segments = body.claims.len(),
            "posting an assertion"
        );
        Ok(())
    }

    /// Keeps in mind that the reveal `txid` carries a bond at output 0.
    fn remember(&self, txid: Txid) -> anyhow::Result<()> {
        let key = [BONDS, &txid.to_byte_array()].concat();
        Ok(self.engine.store().put(Table::Roles, &key, Vec::new(), Durability::Buffered)?)
    }

    /// Takes back the bonds whose time has come. A bond that is spent, by the proposer or slashed, is
    /// forgotten.
    async fn return_bonds(&self, tip: L1Height) -> anyhow::Result<()> {
        for (key, txid) in self.bonds()? {
            let outpoint = OutPoint::new(txid, 0);
            let Some(unspent) = self.bitcoin.tx_out(&outpoint, false).await? else {
                self.engine.store().delete(Table::Roles, &key, Durability::Buffered)?;
                continue;
            };
            // A spend may be in the block after the tip: the output must have `delay` blocks by then.
            let due = unspent.confirmations >= u32::from(self.bond.delay());
            if !due || self.bitcoin.tx_out(&outpoint, true).await?.is_none() {
                continue;
            }
            let rate = FeePolicy::default().now(&*self.bitcoin).await?;
            let to = self.wallet.change_script()?;
            let spend = self
                .bond
                .return_spend(outpoint, self.params.proposer_bond, to, rate, &self.key)
                .context("the bond does not cover the fee of taking it back")?;
            match self.bitcoin.broadcast(&spend).await? {
                Broadcast::Accepted | Broadcast::AlreadyKnown => {
                    tracing::info!(bond = %outpoint, height = tip.0, "taking a bond back");
                }
                Broadcast::Rejected { code, reason } => {
                    tracing::warn!(bond = %outpoint, code, reason, "Bitcoin refused a bond's return");
                }
            }
        }
        Ok(())
    }

    fn bonds(&self) -> anyhow::Result<Vec<(Vec<u8>, Txid)>> {
        let reader = self.engine.store().reader();
        let mut bonds = Vec::new();
        for row in reader.prefixed(Table::Roles, BONDS) {
            let (key, _) = row?;
            let txid = key.get(BONDS.len()..).context("a damaged record of a bond")?;
            bonds.push((key.to_vec(), Txid::from_slice(txid)?));
        }
        Ok(bonds)
    }
}

/// The assertion to post now, if any.
fn due(params: &Params, engine: &Engine, interval: u32) -> anyhow::Result<Option<AssertionBody>> {
    let reader = engine.store().reader();
    let tracker = reader.tracker()?;
    let Some(body) = tracker.build_assertion(params, &OwnClaims(&reader))? else {
        return Ok(None);
    };
    let from = asserted_height(&tracker, body.parent);
    let waited = body.l1.height.since(from) >= interval;
    Ok((waited || covers_withdrawal(&reader, from, body.l1.height)?).then_some(body))
}

/// The L1 block up to which an assertion speaks.
fn asserted_height(tracker: &AssertionTracker, id: B256) -> L1Height {
    tracker.get(&id).map_or(tracker.settled().l1.height, |node| node.l1.height)
}

/// Whether a withdrawal was queued by a block that was derived above `from` and up to `to`.
fn covers_withdrawal(reader: &Reader<'_>, from: L1Height, to: L1Height) -> anyhow::Result<bool> {
    let (from, to) = (reader.safe_at(from)?, reader.safe_at(to)?);
    let unpaid = reader.l1_sums()?.next_payout;
    let mut index = unpaid;
    while let Some(withdrawal) = reader.withdrawal(index)? {
        if withdrawal.block > from && withdrawal.block <= to {
            return Ok(true);
        }
        index += 1;
    }
    Ok(false)
}
