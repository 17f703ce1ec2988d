//! Posts assertions to Bitcoin and takes their bonds back.
//!
//! One assertion at a time, each continuing the furthest one that this node agrees with, whoever proposed it:
//! what continues a wrong one is wrong, and a wrong one is not waited for. It is due when a withdrawal waits
//! that no assertion covers, else after an interval of L1 blocks, since a bond is locked for each.
//!
//! Which bonds are to return is read from the chain, so no crash, reorganisation or replaced reveal can make
//! this node forget one.

use crate::{
    bumps::{Bumps, Spending},
    engine::Engine,
    l1::{Bitcoin, Broadcast},
    publisher::{FeePolicy, Part, PublicationId, Publisher},
    wallet::Wallet,
};
use alloy_primitives::B256;
use anyhow::Context;
use bitcoin::key::Keypair;
use kedge_bridge::{
    assertion::{AssertionBody, assertion_id},
    bond::Bond,
    envelope::{Kind, split},
};
use kedge_fraud_proof::AssertionTracker;
use kedge_genesis::{L1Height, Params};
use kedge_store::{BondRow, L1Rows, L2Rows, OwnClaims, Reader};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between looks at what was broadcast, when no block comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// L1 blocks between assertions while no withdrawal waits, unless told otherwise.
pub const DEFAULT_INTERVAL: u32 = 6;

/// The proposer.
pub struct Proposer {
    params: &'static Params,
    engine: Arc<Engine>,
    bitcoin: Arc<dyn Bitcoin>,
    publisher: Arc<Publisher>,
    wallet: Arc<Wallet>,
    key: Keypair,
    bond: Bond,
    fees: FeePolicy,
    returns: Bumps,
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
        let fees = FeePolicy::default();
        let returns = Bumps::new(fees.bump_after);
        Ok(Self { params, engine, bitcoin, publisher, wallet, key, bond, fees, returns, interval })
    }

    /// Proposes until `stop`. What goes wrong is logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut heads = self.engine.watch_heads();
        let mut seen = None;
        loop {
            let tip = heads.borrow_and_update().l1_tip;
            if seen != Some(tip) {
                if let Err(error) = self.step().await {
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

    /// Sees to what is on its way, takes back the bonds whose time has come, and posts the assertion that is
    /// due, if any. Answers that one.
    ///
    /// # Errors
    /// When Bitcoin does not answer or this machine failed.
    pub async fn step(&self) -> anyhow::Result<Option<PublicationId>> {
        let tip = self.engine.heads().l1_tip.height;
        let publications = self.publisher.tick().await?;
        for publication in &publications {
            if let Some(problem) = &publication.problem {
                tracing::warn!(id = publication.id.0, problem, "an assertion does not advance");
            }
        }
        self.return_bonds(tip).await?;
        let mut waiting = publications.iter().filter(|publication| !publication.is_final);
        if waiting.any(|it| it.confirmed().is_none_or(|height| height > tip)) {
            return Ok(None);
        }
        let engine = self.engine.clone();
        let (params, interval) = (self.params, self.interval);
        let due = tokio::task::spawn_blocking(move || due(params, &engine, interval)).await??;
        match due {
            Some(body) => post(self.params, &self.publisher, &self.bond, &body).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes back the bonds whose time has come.
    async fn return_bonds(&self, tip: L1Height) -> anyhow::Result<()> {
        let bonds = self.bonds()?;
        let outpoints: Vec<_> = bonds.iter().map(|bond| bond.outpoint).collect();
        self.returns.retain(&outpoints);
        for bond in bonds {
            // The spend is in the block after the tip at best, which must be `delay` blocks above the bond's.
            if tip.next().since(bond.height) >= u32::from(self.bond.delay()) {
                self.return_bond(tip, &bond).await?;
            }
        }
        Ok(())
    }

    async fn return_bond(&self, tip: L1Height, bond: &BondRow) -> anyhow::Result<()> {
        let (output, estimate) = (bond.outpoint, self.fees.now(&*self.bitcoin).await?);
        let most = self.fees.ceiling;
        let spending = Spending { output, tip, estimate, most, contested: false };
        let Some(rate) = self.returns.rate(&*self.bitcoin, spending).await? else { return Ok(()) };
        let spend = self
            .bond
            .return_spend(output, bond.amount, self.wallet.change_script()?, rate, &self.key)
            .context("the bond does not cover the fee of taking it back")?;
        match self.bitcoin.broadcast(&spend).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => {
                self.returns.sent(output, tip, rate);
                tracing::info!(bond = %output, height = tip.0, "taking a bond back");
            }
            Broadcast::Rejected { code, reason } => {
                self.returns.refused(output, rate);
                tracing::warn!(bond = %output, code, reason, "Bitcoin refused a bond's return");
            }
        }
        Ok(())
    }

    /// This proposer's unspent bonds, but for those that belong to a challenger.
    fn bonds(&self) -> anyhow::Result<Vec<BondRow>> {
        let own = B256::new(self.publisher.key().serialize());
        let reader = self.engine.store().reader();
        let mut bonds = reader.bonds()?;
        bonds.retain(|bond| bond.proposer == own);
        let mut left = Vec::new();
        for bond in bonds {
            let row = reader.assertion(assertion_id(&bond.outpoint))?;
            if row.is_none_or(|row| row.rejection.is_none()) {
                left.push(bond);
            }
        }
        Ok(left)
    }
}

/// Publishes an assertion with its bond, `bond`, whose proposer is the publisher.
///
/// # Errors
/// When it cannot be published.
pub async fn post(
    params: &Params,
    publisher: &Publisher,
    bond: &Bond,
    body: &AssertionBody,
) -> anyhow::Result<PublicationId> {
    let chunks = split(Kind::Assertion, params.chain_id, 0, B256::ZERO, &body.encode(), params)?;
    let parts = chunks
        .into_iter()
        .map(|chunk| Part { output: Some(bond.tx_out(params.proposer_bond)), ..Part::from(chunk) })
        .collect();
    let id = publisher.publish(Kind::Assertion, parts).await?;
    tracing::info!(
        id = id.0, height = body.l1.height.0, parent = %body.parent, segments = body.claims.len(),
        "posting an assertion"
    );
    Ok(id)
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
