//! Slashing: the bond of an assertion that a fraud proof rejected goes to the publisher of that proof.
//!
//! Due when the verdict is final: until the deadline a proof that was committed to earlier may still win the
//! bond, and for finality-depth blocks after it Bitcoin may take blocks back. From
//! [`Params::bond_margin`](kedge_genesis::Params::bond_margin) blocks after the deadline on its proposer can
//! take the bond, so from then on the signers outbid him at every turn.

use super::{LEAST_RATE, Peer, Share, Signer, most_rate, service::Request, spends};
use crate::{
    bumps::Spending,
    engine::{EngineError, Slashable},
};
use anyhow::Context;
use bitcoin::{FeeRate, Transaction, Txid};
use kedge_bridge::{
    bond::{Bond, SlashRules},
    multisig::MultisigPlan,
};
use kedge_genesis::{L1Height, Params};

impl Signer {
    /// Signs a slash if this signer's own node finds it right.
    ///
    /// # Errors
    /// Why it is not signed.
    pub async fn sign_slash(&self, proposal: &Transaction) -> anyhow::Result<Share> {
        let due = self.slashable()?;
        let one = due
            .iter()
            .find(|one| spends(proposal, one.bond))
            .context("it spends no bond that is to be slashed by this signer's node")?;
        // Anybody may ask, so Bitcoin is asked last.
        let most = most_rate(self.estimate().await?);
        let plan = check(self.params, proposal, one, most)?;
        let share = self.share(&plan)?;
        tracing::info!(txid = %proposal.compute_txid(), "signed a slash");
        Ok(share)
    }

    fn slashable(&self) -> Result<Vec<Slashable>, EngineError> {
        self.engine.slashable()
    }

    /// Slashes what is due. What goes wrong with one bond does not keep the others.
    pub(super) async fn lead_slashes(
        &self,
        tip: L1Height,
        peers: &[Peer],
        sent: &mut Vec<Txid>,
    ) -> anyhow::Result<()> {
        let due = self.slashable()?;
        let bonds: Vec<_> = due.iter().map(|one| one.bond).collect();
        self.slashes.retain(&bonds);
        if due.is_empty() {
            return Ok(());
        }
        let estimate = self.estimate().await?;
        let mut outcome = Ok(());
        for one in &due {
            match self.lead_slash(tip, peers, one, estimate).await {
                Ok(txid) => sent.extend(txid),
                Err(error) if outcome.is_ok() => outcome = Err(error),
                Err(error) => tracing::warn!(bond = %one.bond, "slash: {error:#}"),
            }
        }
        outcome
    }

    async fn lead_slash(
        &self,
        tip: L1Height,
        peers: &[Peer],
        one: &Slashable,
        estimate: FeeRate,
    ) -> anyhow::Result<Option<Txid>> {
        let (output, most) = (one.bond, most_rate(estimate));
        let contested = tip >= one.returnable;
        let spending = Spending { output, tip, estimate, most, contested };
        let Some(rate) = self.slashes.rate(&*self.l1, spending).await? else { return Ok(None) };
        let plan = Bond::of(self.params, one.proposer)
            .and_then(|bond| bond.slash_spend(one.bond, one.value, &one.challenger, rate))
            .with_context(|| format!("the bond {output} does not pay for its slash"))?;
        check(self.params, plan.tx(), one, most)?;
        let txid =
            self.send(Request::Slash, &plan, peers, &self.slashes, (output, tip, rate)).await?;
        tracing::info!(
            %txid, bond = %output, assertion = %one.assertion, challenger = %one.challenger,
            "broadcast a slash"
        );
        Ok(Some(txid))
    }
}

/// Whether a proposal is the slash of this bond, which is due, at a fee rate of at most `most_rate`.
fn check(
    params: &Params,
    proposal: &Transaction,
    one: &Slashable,
    most_rate: FeeRate,
) -> anyhow::Result<MultisigPlan> {
    let bond = Bond::of(params, one.proposer).context("the network has no signers")?;
    let rules = SlashRules { challenger: one.challenger, least_rate: LEAST_RATE, most_rate };
    Ok(bond.check_slash(proposal, one.bond, one.value, &rules)?)
}
