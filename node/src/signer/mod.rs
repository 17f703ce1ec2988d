//! One signer of the vault and of the bonds.
//!
//! What to sign next follows from Bitcoin and this signer's own node alone, so a signer keeps no memory of
//! what it signed. At each Bitcoin block one signer in turn leads: it builds what is due, asks the others for
//! their shares and broadcasts. A turn that came to nothing, because the others had not processed the block
//! yet or this signer was away, is made up for as soon as it can be: that others lead too does no harm, as
//! whatever already waits in the mempool is left alone.
//!
//! | file | what it signs |
//! | --- | --- |
//! | `payout` | the vault's payouts of withdrawals |
//! | `slash` | what gives the bond of an assertion that was proven wrong to its challenger |
//! | `service` | how one signer asks another |

mod payout;
mod service;
mod slash;

pub use service::{Peer, Share, SigningApiServer, SigningService};

use crate::{
    bumps::Bumps,
    engine::Engine,
    l1::{Bitcoin, Broadcast},
};
use alloy_primitives::Bytes;
use anyhow::Context;
use bitcoin::{
    FeeRate, OutPoint, Transaction, Txid, XOnlyPublicKey, key::Keypair, secp256k1::schnorr,
};
use kedge_bridge::{
    multisig::{MultisigPlan, SignerShare, Signers},
    vault::Vault,
};
use kedge_genesis::{L1Height, Params};
use parking_lot::Mutex;
use service::Request;
use std::{sync::Arc, time::Duration};

/// Lowest fee rate that a signer signs: what Bitcoin Core has relayed by default, 1 sat/vB.
const LEAST_RATE: FeeRate = FeeRate::BROADCAST_MIN;
/// Highest fee rate that a signer signs whatever Bitcoin estimates, sat/vB.
const MOST_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2_000);
/// Fee rate when Bitcoin has no estimate, sat/vB.
const FALLBACK_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
/// How many times its own estimate a signer signs: room for estimates that differ and for replacements, but
/// what the vault holds beyond what it owes, or a bond, cannot be burned as fees.
const ESTIMATE_FACTOR: u64 = 4;
/// Confirmation target, blocks.
const TARGET_BLOCKS: u16 = 3;
/// Blocks after which an unconfirmed transaction is replaced by one with a higher fee rate.
const BUMP_AFTER: u32 = 3;
/// After how long a turn that failed is tried again at the same block: others process it within seconds.
const RETRY: Duration = Duration::from_secs(10);

/// A signer with its node.
pub struct Signer {
    params: &'static Params,
    vault: Vault,
    key: Keypair,
    /// Place among the signers, which decides when it leads.
    place: u32,
    engine: Arc<Engine>,
    l1: Arc<dyn Bitcoin>,
    /// The tip at which it last took its turn with success. None since it started.
    led: Mutex<Option<L1Height>>,
    payouts: Bumps,
    slashes: Bumps,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("place", &self.place).finish_non_exhaustive()
    }
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
        let (payouts, slashes) = (Bumps::new(BUMP_AFTER), Bumps::new(BUMP_AFTER));
        Ok(Self { params, vault, key, place, engine, l1, led: Mutex::new(None), payouts, slashes })
    }

    /// Place among the signers.
    pub const fn place(&self) -> u32 {
        self.place
    }

    fn signers(&self) -> &Signers {
        self.vault.signers()
    }

    /// Follows the node until `stop`: one [`Self::step`] for each Bitcoin block. What goes wrong is logged
    /// and tried again.
    pub async fn run(&self, peers: &[Peer], stop: tokio_util::sync::CancellationToken) {
        let mut heads = self.engine.watch_heads();
        let mut done = None;
        let mut retry = None;
        loop {
            let tip = heads.borrow_and_update().l1_tip;
            if done != Some(tip) {
                retry = None;
                if let Err(error) = self.step(peers).await {
                    tracing::warn!(place = self.place, "{error:#}");
                    retry = Some(tokio::time::Instant::now() + RETRY);
                }
                done = Some(tip);
            }
            let again = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
                () = again => done = None,
            }
        }
    }

    /// Whether a turn of this signer has come, at the processed tip or below, that it has not taken.
    fn has_turn(&self, tip: L1Height) -> bool {
        let Some(led) = *self.led.lock() else { return true };
        let count = u32::try_from(self.signers().keys().len()).unwrap_or(u32::MAX).max(1);
        let since = (tip.0 % count + count - self.place) % count;
        // After a reorganisation the chain may be shorter than it was.
        tip < led || tip.0.checked_sub(since).is_some_and(|turn| turn > led.0)
    }

    /// If it is this signer's turn at the processed tip, or was and it could not take it: signs and broadcasts
    /// what is due with the help of `peers`. Answers what it broadcast.
    ///
    /// # Errors
    /// The first thing that went wrong; what else was due is done nevertheless. The turn stays this signer's.
    pub async fn step(&self, peers: &[Peer]) -> anyhow::Result<Vec<Txid>> {
        let tip = self.engine.heads().l1_tip.height;
        let mut sent = Vec::new();
        if !self.has_turn(tip) {
            return Ok(sent);
        }
        let paid = self.lead_payout(tip, peers, &mut sent).await.context("payout");
        let slashed = self.lead_slashes(tip, peers, &mut sent).await.context("slash");
        match (paid, slashed) {
            (Ok(()), Ok(())) => {
                *self.led.lock() = Some(tip);
                Ok(sent)
            }
            (Err(error), Err(other)) => {
                tracing::warn!(place = self.place, "{other:#}");
                Err(error)
            }
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        }
    }

    /// What Bitcoin's node estimates, within what is ever signed.
    async fn estimate(&self) -> anyhow::Result<FeeRate> {
        let estimate = self.l1.fee_rate(TARGET_BLOCKS).await?.unwrap_or(FALLBACK_RATE);
        Ok(estimate.clamp(LEAST_RATE, MOST_RATE))
    }

    /// This signer's share of a plan that it found right.
    fn share(&self, plan: &MultisigPlan) -> anyhow::Result<Share> {
        let share = plan.sign(&self.key)?;
        Ok(Share {
            key: Bytes::copy_from_slice(&share.key.serialize()),
            signatures: share
                .signatures
                .iter()
                .map(|signature| Bytes::copy_from_slice(&signature.serialize()))
                .collect(),
        })
    }

    /// Collects shares of a plan that was checked until there are enough, and broadcasts what spends
    /// `output` at this rate.
    async fn send(
        &self,
        request: Request,
        plan: &MultisigPlan,
        peers: &[Peer],
        bumps: &Bumps,
        (output, tip, rate): (OutPoint, L1Height, FeeRate),
    ) -> anyhow::Result<Txid> {
        let tx = self.collect(request, plan, peers).await?;
        let txid = tx.compute_txid();
        match self.l1.broadcast(&tx).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => {
                bumps.sent(output, tip, rate);
                Ok(txid)
            }
            Broadcast::Rejected { code, reason } => {
                bumps.refused(output, rate);
                anyhow::bail!("Bitcoin refused {txid}: {reason} ({code})")
            }
        }
    }

    async fn collect(
        &self,
        request: Request,
        plan: &MultisigPlan,
        peers: &[Peer],
    ) -> anyhow::Result<Transaction> {
        let mut shares = vec![plan.sign(&self.key)?];
        for peer in peers {
            if shares.len() >= usize::from(self.signers().threshold()) {
                break;
            }
            let share = peer.ask(request, plan.tx()).await.and_then(|share| parse(&share));
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

/// The highest fee rate that a signer signs whose own estimate is this.
fn most_rate(estimate: FeeRate) -> FeeRate {
    let most = estimate.to_sat_per_kwu().saturating_mul(ESTIMATE_FACTOR);
    FeeRate::from_sat_per_kwu(most).min(MOST_RATE)
}

/// Whether a transaction spends this output.
fn spends(tx: &Transaction, output: OutPoint) -> bool {
    tx.input.iter().any(|input| input.previous_output == output)
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
