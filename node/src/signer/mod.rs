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
    payout::{
        MAX_INPUTS, MAX_RUN, PayoutFault, PayoutPlan, SigningRules, build_payout, check_proposal,
    },
    vault::Vault,
};
use kedge_genesis::{L1Height, Params};
use std::{cmp::Reverse, sync::Arc};

/// Lowest fee rate that a signer signs: what Bitcoin Core has relayed by default, 1 sat/vB.
const LEAST_RATE: FeeRate = FeeRate::BROADCAST_MIN;
/// Highest fee rate that a signer signs whatever Bitcoin estimates, sat/vB.
const MOST_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2_000);
/// Fee rate when Bitcoin has no estimate, sat/vB.
const FALLBACK_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
/// How many times its own estimate a signer signs: room for estimates that differ and for replacements, but
/// what the vault holds beyond what it owes cannot be burned as fees.
const ESTIMATE_FACTOR: u64 = 4;
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
    pub async fn sign(&self, proposal: &Transaction) -> anyhow::Result<Share> {
        let most = most_rate(self.estimate().await?);
        let payable = self.engine.payable()?.context("the vault is empty")?;
        let plan = self.check(proposal, &payable, most)?;
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

    fn check(
        &self,
        proposal: &Transaction,
        payable: &Payable,
        most_rate: FeeRate,
    ) -> anyhow::Result<PayoutPlan> {
        check(&self.vault, proposal, payable, most_rate)
    }

    /// What Bitcoin's node estimates for a payout, within what is ever signed.
    async fn estimate(&self) -> anyhow::Result<FeeRate> {
        let estimate = self.l1.fee_rate(TARGET_BLOCKS).await?.unwrap_or(FALLBACK_RATE);
        Ok(estimate.clamp(LEAST_RATE, MOST_RATE))
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
        let estimate = self.estimate().await?;
        let Some(rate) = self.rate(height, &payable, estimate, waiting).await? else {
            return Ok(());
        };
        let plan = plan_covered(&self.vault, &payable, rate)?;
        self.check(plan.multisig().tx(), &payable, most_rate(estimate))?;
        let tx = self.collect(plan.multisig(), peers).await?;
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
                // Perhaps it does not pay enough to replace another: the next attempt pays more.
                if let Some(other) = waiting {
                    other.rate = rate;
                }
                anyhow::bail!("Bitcoin refused payout {txid}: {reason} ({code})")
            }
        }
    }

    /// The fee rate of the payout to make now; none while one is waiting in the mempool that is not old.
    async fn rate(
        &self,
        height: L1Height,
        payable: &Payable,
        estimate: FeeRate,
        waiting: &mut Option<Waiting>,
    ) -> anyhow::Result<Option<FeeRate>> {
        let head = payable.head.outpoint;
        let spent = self.l1.tx_out(&head, true).await?.is_none();
        if !spent {
            return Ok(Some(estimate));
        }
        // Somebody's payout is in the mempool. Whoever made it raises its fee when it takes long; if
        // nobody does, as when that was another signer that stopped, this one replaces it later.
        let found = match *waiting {
            Some(found) if found.head == head => found,
            _ => Waiting { head, since: height.plus(BUMP_AFTER), rate: estimate },
        };
        *waiting = Some(found);
        if height < found.since.plus(BUMP_AFTER) {
            return Ok(None);
        }
        let raised = FeeRate::from_sat_per_kwu(found.rate.to_sat_per_kwu().saturating_mul(3) / 2);
        Ok(Some(raised.max(estimate).min(most_rate(estimate))))
    }

    /// Collects shares of a payout that was checked until there are enough.
    async fn collect(&self, plan: &MultisigPlan, peers: &[Peer]) -> anyhow::Result<Transaction> {
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

/// The highest fee rate that a signer signs whose own estimate is this.
fn most_rate(estimate: FeeRate) -> FeeRate {
    let most = estimate.to_sat_per_kwu().saturating_mul(ESTIMATE_FACTOR);
    FeeRate::from_sat_per_kwu(most).min(MOST_RATE)
}

/// Whether a proposal is a payout of what is due, at a fee rate of at most `most_rate`.
fn check(
    vault: &Vault,
    proposal: &Transaction,
    payable: &Payable,
    most_rate: FeeRate,
) -> anyhow::Result<PayoutPlan> {
    ensure!(!payable.unpaid.is_empty(), "no withdrawal is due by this signer's node");
    let rules = SigningRules {
        vault,
        head: payable.head,
        coins: &payable.coins,
        unpaid: &payable.unpaid,
        least_rate: LEAST_RATE,
        most_rate,
        surplus: payable.surplus,
    };
    Ok(check_proposal(proposal, &rules)?)
}

/// [`plan_payout`] at this rate, or, when that costs more than what was collected and the surplus, at the rate
/// that these cover: a payout that takes longer is better than none, and no signer signs more.
fn plan_covered(vault: &Vault, payable: &Payable, rate: FeeRate) -> anyhow::Result<PayoutPlan> {
    let plan = plan_payout(vault, payable, rate)?;
    let collected = payable.unpaid.iter().take(plan.run().count as usize).map(|one| one.fee.0);
    let covered = collected.fold(payable.surplus.0, u64::saturating_add);
    if plan.fee().0 <= covered {
        return Ok(plan);
    }
    let weight = plan.multisig().signed_weight().to_wu().max(1);
    let rate = FeeRate::from_sat_per_kwu(covered.saturating_mul(1_000) / weight);
    ensure!(
        rate >= LEAST_RATE,
        "the {covered} sat that were collected and are left over do not pay Bitcoin's lowest fee"
    );
    plan_payout(vault, payable, rate)
}

/// The longest payout that the vault's head, if need be with the largest of its other outputs, can pay.
fn plan_payout(vault: &Vault, payable: &Payable, rate: FeeRate) -> anyhow::Result<PayoutPlan> {
    // Anybody can send the vault any number of small outputs: they must not take the places of large ones.
    let mut coins = payable.coins.clone();
    coins.retain(|coin| coin.outpoint != payable.head.outpoint);
    coins.sort_unstable_by_key(|coin| Reverse((coin.value, coin.outpoint)));
    coins.truncate(MAX_INPUTS.saturating_sub(1));
    let mut length = payable.unpaid.len().min(MAX_RUN);
    loop {
        let run = payable.unpaid.get(..length).unwrap_or_default();
        for count in 0..=coins.len() {
            let extra = coins.get(..count).unwrap_or_default();
            match build_payout(vault, &payable.head, extra, run, rate) {
                Ok(plan) => return Ok(plan),
                Err(PayoutFault::Funds) => {}
                Err(PayoutFault::Weight) if length > 1 => break,
                Err(fault) => return Err(fault.into()),
            }
        }
        ensure!(length > 1, "the vault's outputs do not cover the next withdrawal");
        length /= 2;
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

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{OutPoint, ScriptBuf, Txid, hashes::Hash as _};
    use kedge_bridge::{payout::Withdrawal, vault::VaultHead};
    use kedge_genesis::{Network, Sats};

    fn coin(number: u8, sats: u64) -> VaultHead {
        let outpoint = OutPoint::new(Txid::from_byte_array([number; 32]), 0);
        VaultHead { outpoint, value: Sats(sats) }
    }

    fn withdrawals(count: u64, sats: u64) -> Vec<Withdrawal> {
        let script = ScriptBuf::from_hex("00140000000000000000000000000000000000000001").unwrap();
        (0..count)
            .map(|index| Withdrawal {
                index,
                script: script.clone(),
                amount: Sats(sats),
                fee: Sats(1_000),
            })
            .collect()
    }

    fn payable(coins: Vec<VaultHead>, unpaid: Vec<Withdrawal>) -> Payable {
        Payable { head: coin(0, 20_000), coins, unpaid, surplus: Sats(1_000_000) }
    }

    #[test]
    fn dust_in_the_vault_does_not_hold_a_payout_up() {
        let vault = Vault::of(Network::Dev.params()).unwrap();
        let mut coins: Vec<_> = (1..200).map(|number| coin(number, 330)).collect();
        coins.push(coin(255, 5_000_000));
        let plan =
            plan_payout(&vault, &payable(coins, withdrawals(1, 1_000_000)), LEAST_RATE).unwrap();
        let spent: Vec<_> = plan.tx().input.iter().map(|input| input.previous_output).collect();
        assert_eq!(spent, [coin(0, 0).outpoint, coin(255, 0).outpoint]);
    }

    #[test]
    fn a_payout_never_costs_more_than_what_is_there_for_it() {
        let vault = Vault::of(Network::Dev.params()).unwrap();
        let mut due = payable(vec![coin(1, 5_000_000)], withdrawals(1, 1_000_000));
        due.surplus = Sats(14);
        let estimate = FeeRate::from_sat_per_vb_u32(50);
        let plan = plan_covered(&vault, &due, estimate).unwrap();
        assert!((900..=1_014).contains(&plan.fee().0), "{:?}", plan.fee());
        due.unpaid[0].fee = Sats(10);
        assert!(plan_covered(&vault, &due, estimate).is_err());
    }

    #[test]
    fn the_surplus_is_not_signed_away_as_fees() {
        let vault = Vault::of(Network::Dev.params()).unwrap();
        let due = payable(vec![coin(1, 5_000_000)], withdrawals(1, 1_000_000));
        let rate = FeeRate::from_sat_per_vb_u32;
        let proposal = |at| plan_covered(&vault, &due, rate(at)).unwrap().multisig().tx().clone();
        // The surplus covers 1,000 sat/vB, yet no node estimates anything like it.
        for (estimate, proposed, signed) in
            [(FALLBACK_RATE, 7, true), (FALLBACK_RATE, 9, false), (rate(10), 1_000, false)]
        {
            let found = check(&vault, &proposal(proposed), &due, most_rate(estimate));
            assert_eq!(found.is_ok(), signed, "{proposed} sat/vB at an estimate of {estimate}");
        }
        assert_eq!(most_rate(rate(1_000)), MOST_RATE);
    }

    #[test]
    fn a_run_that_the_vaults_outputs_cannot_pay_at_once_is_paid_in_parts() {
        let vault = Vault::of(Network::Dev.params()).unwrap();
        let coins: Vec<_> = (1..200).map(|number| coin(number, 100_000)).collect();
        let due = payable(coins, withdrawals(150, 100_000));
        let plan = plan_payout(&vault, &due, LEAST_RATE).unwrap();
        assert_eq!((plan.run().first, plan.run().count), (0, 75));
        assert!(plan.tx().input.len() <= MAX_INPUTS);
        let due = payable(vec![], withdrawals(1, 100_000));
        assert!(plan_payout(&vault, &due, LEAST_RATE).is_err());
    }
}
