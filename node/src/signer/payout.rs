//! Payouts of withdrawals.
//!
//! Due is the run of withdrawals that begins at the next unpaid index, is covered by an assertion that settled
//! finality-depth blocks ago and equals the node's own derivation. Its payout spends the head of the vault, so
//! two payouts can never both confirm.

use super::{LEAST_RATE, Peer, Share, Signer, most_rate, service::Request, spends};
use crate::{bumps::Spending, engine::Payable};
use anyhow::{Context, ensure};
use bitcoin::{FeeRate, Transaction, Txid};
use kedge_bridge::{
    payout::{
        MAX_INPUTS, MAX_RUN, PayoutFault, PayoutPlan, SigningRules, build_payout, check_proposal,
    },
    vault::Vault,
};
use kedge_genesis::L1Height;
use std::cmp::Reverse;

/// Why nothing is paid out.
const NOTHING_DUE: &str = "no withdrawal is due by this signer's node";

impl Signer {
    /// Signs a payout if this signer's own node finds it right.
    ///
    /// # Errors
    /// Why it is not signed.
    pub async fn sign_payout(&self, proposal: &Transaction) -> anyhow::Result<Share> {
        let payable = self.engine.payable()?.context("the vault is empty")?;
        // Anybody may ask, so Bitcoin is asked last.
        ensure!(!payable.unpaid.is_empty(), NOTHING_DUE);
        ensure!(spends(proposal, payable.head.outpoint), PayoutFault::Head);
        let most = most_rate(self.estimate().await?);
        let plan = check(&self.vault, proposal, &payable, most)?;
        let share = self.share(plan.multisig())?;
        tracing::info!(
            txid = %proposal.compute_txid(), first = plan.run().first, count = plan.run().count,
            "signed a payout"
        );
        Ok(share)
    }

    /// Pays what is due, if anything.
    pub(super) async fn lead_payout(
        &self,
        tip: L1Height,
        peers: &[Peer],
        sent: &mut Vec<Txid>,
    ) -> anyhow::Result<()> {
        let Some(payable) = self.engine.payable()?.filter(|payable| !payable.unpaid.is_empty())
        else {
            self.payouts.retain(&[]);
            return Ok(());
        };
        let head = payable.head.outpoint;
        self.payouts.retain(&[head]);
        let estimate = self.estimate().await?;
        let most = most_rate(estimate);
        let spending = Spending { output: head, tip, estimate, most, contested: false };
        let Some(rate) = self.payouts.rate(&*self.l1, spending).await? else { return Ok(()) };
        let plan = plan_covered(&self.vault, &payable, rate)?;
        check(&self.vault, plan.tx(), &payable, most)?;
        let multisig = plan.multisig();
        let txid =
            self.send(Request::Payout, multisig, peers, &self.payouts, (head, tip, rate)).await?;
        tracing::info!(
            %txid, first = plan.run().first, count = plan.run().count, fee = plan.fee().0,
            "broadcast a payout"
        );
        sent.push(txid);
        Ok(())
    }
}

/// Whether a proposal is a payout of what is due, at a fee rate of at most `most_rate`.
fn check(
    vault: &Vault,
    proposal: &Transaction,
    payable: &Payable,
    most_rate: FeeRate,
) -> anyhow::Result<PayoutPlan> {
    ensure!(!payable.unpaid.is_empty(), NOTHING_DUE);
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

#[cfg(test)]
mod tests {
    use super::super::{FALLBACK_RATE, MOST_RATE};
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
