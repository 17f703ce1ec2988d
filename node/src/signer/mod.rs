//! One signer of the vault.
//!
//! What to sign next follows from Bitcoin and this signer's own node alone: the run of withdrawals that
//! begins at the next unpaid index, is covered by an assertion that settled finality-depth blocks ago and
//! equals the node's own derivation, and spends the head of the vault. So a signer keeps no memory of what it
//! signed, and two payouts can never both confirm. At each Bitcoin block one signer in turn leads: it builds
//! the payout, asks the others for their shares and broadcasts.

mod service;

pub use service::{Peer, Share, SigningApiServer, SigningService};

use crate::{
    engine::{Engine, Payable},
    l1::{Bitcoin, Broadcast},
};
use alloy_primitives::Bytes;
use anyhow::{Context, ensure};
use bitcoin::{FeeRate, Transaction, XOnlyPublicKey, key::Keypair, secp256k1::schnorr};
use kedge_bridge::{
    multisig::{MultisigPlan, SignerShare, Signers},
    payout::{MAX_RUN, PayoutPlan, SigningRules, build_payout, check_proposal},
    vault::Vault,
};
use kedge_genesis::{L1Height, Params};
use std::sync::Arc;

/// Lowest fee rate that a signer signs: what Bitcoin Core has relayed by default, 1 sat/vB.
const LEAST_RATE: FeeRate = FeeRate::BROADCAST_MIN;
/// Highest fee rate that a signer signs, sat/vB.
const MOST_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2_000);
/// Fee rate when Bitcoin has no estimate, sat/vB.
const FALLBACK_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
/// Confirmation target of a payout, blocks.
const TARGET_BLOCKS: u16 = 3;
/// Blocks after which an unconfirmed payout is replaced by one with a higher fee rate.
const BUMP_AFTER: u32 = 3;

/// A signer with its node and its peers.
pub struct Signer {
    vault: Vault,
    key: Keypair,
    /// Place among the signers, which decides when it leads.
    place: u32,
    engine: Arc<Engine>,
    l1: Arc<dyn Bitcoin>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A payout that was broadcast and waits for its confirmation.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    head: bitcoin::OutPoint,
    since: L1Height,
    rate: FeeRate,
}

impl Signer {
    /// A signer for the vault that the parameters name.
    ///
    /// # Errors
    /// When the key is not one of the vault's, or the network has no vault.
    pub fn new(
        params: &'static Params,
        key: Keypair,
        engine: Arc<Engine>,
        l1: Arc<dyn Bitcoin>,
    ) -> anyhow::Result<Self> {
        let vault =
            Vault::of(params).context("the network has not been launched: it has no vault")?;
        let own = key.x_only_public_key().0;
        let place = vault
            .signers()
            .keys()
            .iter()
            .position(|key| *key == own)
            .and_then(|place| u32::try_from(place).ok())
            .with_context(|| {
                format!("the key {own} is not one of the signers of {}", params.network.name())
            })?;
        Ok(Self { vault, key, place, engine, l1 })
    }

    /// Place among the signers.
    pub const fn place(&self) -> u32 {
        self.place
    }

    fn signers(&self) -> &Signers {
        self.vault.signers()
    }

    /// Signs a payout if this signer's own node finds it right.
    ///
    /// # Errors
    /// Why it is not signed.
    pub fn sign(&self, proposal: &Transaction) -> anyhow::Result<Share> {
        let payable = self.engine.payable()?.context("the vault is empty")?;
        let plan = self.check(proposal, &payable)?;
        let share = plan.multisig().sign(&self.key)?;
        tracing::info!(
            txid = %proposal.compute_txid(), first = plan.run().first, count = plan.run().count,
            "signed a payout"
        );
        Ok(Share {
            key: Bytes::copy_from_slice(&share.key.serialize()),
            signatures: share
                .signatures
                .iter()
                .map(|signature| Bytes::copy_from_slice(&signature.serialize()))
                .collect(),
        })
    }

    fn check(&self, proposal: &Transaction, payable: &Payable) -> anyhow::Result<PayoutPlan> {
        ensure!(!payable.unpaid.is_empty(), "no withdrawal is due by this signer's node");
        let rules = SigningRules {
            vault: &self.vault,
            head: payable.head,
            coins: &payable.coins,
            unpaid: &payable.unpaid,
            least_rate: LEAST_RATE,
            most_rate: MOST_RATE,
            surplus: payable.surplus,
        };
        Ok(check_proposal(proposal, &rules)?)
    }

    /// Follows the node until `stop`: at each Bitcoin block at which it is this signer's turn, pays what is
    /// due with the help of `peers`.
    pub async fn run(&self, peers: &[Peer], stop: tokio_util::sync::CancellationToken) {
        let mut heads = self.engine.watch_heads();
        let mut waiting = None;
        let mut done = None;
        loop {
            let tip = heads.borrow_and_update().l1_tip;
            let count = u32::try_from(self.signers().keys().len()).unwrap_or(u32::MAX);
            if done != Some(tip) && tip.height.0 % count == self.place {
                match self.lead(tip.height, peers, &mut waiting).await {
                    Ok(()) => {}
                    Err(error) => tracing::warn!(place = self.place, "payout: {error:#}"),
                }
            }
            done = Some(tip);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Pays what is due, if anything.
    async fn lead(
        &self,
        height: L1Height,
        peers: &[Peer],
        waiting: &mut Option<Waiting>,
    ) -> anyhow::Result<()> {
        let Some(payable) = self.engine.payable()? else { return Ok(()) };
        if payable.unpaid.is_empty() {
            *waiting = None;
            return Ok(());
        }
        let Some(rate) = self.rate(height, &payable, *waiting).await? else { return Ok(()) };
        let plan = self.plan(&payable, rate)?;
        let tx = self.collect(plan.multisig(), peers, &payable).await?;
        let txid = tx.compute_txid();
        match self.l1.broadcast(&tx).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => {
                tracing::info!(
                    %txid, first = plan.run().first, count = plan.run().count, fee = plan.fee().0,
                    "broadcast a payout"
                );
                *waiting = Some(Waiting { head: payable.head.outpoint, since: height, rate });
                Ok(())
            }
            Broadcast::Rejected { code, reason } => {
                anyhow::bail!("Bitcoin refused payout {txid}: {reason} ({code})")
            }
        }
    }

    /// The fee rate of the payout to make now; none while one is waiting in the mempool that is not old.
    async fn rate(
        &self,
        height: L1Height,
        payable: &Payable,
        waiting: Option<Waiting>,
    ) -> anyhow::Result<Option<FeeRate>> {
        let estimate = self
            .l1
            .fee_rate(TARGET_BLOCKS)
            .await?
            .unwrap_or(FALLBACK_RATE)
            .clamp(LEAST_RATE, MOST_RATE);
        let spent = self.l1.tx_out(&payable.head.outpoint, true).await?.is_none();
        if !spent {
            return Ok(Some(estimate));
        }
        // Somebody's payout is in the mempool. Whoever made it raises its fee when it takes long.
        Ok(waiting
            .filter(|w| w.head == payable.head.outpoint && height.since(w.since) >= BUMP_AFTER)
            .map(|w| {
                let raised =
                    FeeRate::from_sat_per_kwu(w.rate.to_sat_per_kwu().saturating_mul(3) / 2);
                raised.max(estimate).min(MOST_RATE)
            }))
    }

    /// The longest payout that the vault's head, if need be with its other outputs, can pay.
    fn plan(&self, payable: &Payable, rate: FeeRate) -> anyhow::Result<PayoutPlan> {
        let run = payable.unpaid.get(..MAX_RUN).unwrap_or(&payable.unpaid);
        let mut extra = Vec::new();
        let mut coins = payable.coins.iter().filter(|coin| coin.outpoint != payable.head.outpoint);
        loop {
            match build_payout(&self.vault, &payable.head, &extra, run, rate) {
                Ok(plan) => return Ok(plan),
                Err(kedge_bridge::payout::PayoutFault::Funds) => match coins.next() {
                    Some(coin) => extra.push(*coin),
                    None => anyhow::bail!("the vault's outputs do not cover the withdrawals due"),
                },
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Collects shares until there are enough.
    async fn collect(
        &self,
        plan: &MultisigPlan,
        peers: &[Peer],
        payable: &Payable,
    ) -> anyhow::Result<Transaction> {
        self.check(plan.tx(), payable)?;
        let mut shares = vec![plan.sign(&self.key)?];
        for peer in peers {
            if shares.len() >= usize::from(self.signers().threshold()) {
                break;
            }
            let share = peer.sign_payout(plan.tx()).await.and_then(|share| parse(&share));
            match share.and_then(|share| Ok(plan.check_share(&share).map(|()| share)?)) {
                Ok(share) if shares.iter().all(|other| other.key != share.key) => {
                    shares.push(share)
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("no share from a signer: {error:#}"),
            }
        }
        Ok(plan.assemble(&shares)?)
    }
}

fn parse(share: &Share) -> anyhow::Result<SignerShare> {
    Ok(SignerShare {
        key: XOnlyPublicKey::from_slice(&share.key)?,
        signatures: share
            .signatures
            .iter()
            .map(|signature| schnorr::Signature::from_slice(signature))
            .collect::<Result<_, _>>()?,
    })
}
