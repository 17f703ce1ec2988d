//! The bond of an assertion, an output of the assertion's own reveal.
//!
//! P2TR, internal key = BIP-341's point `H`, two leaves at depth 1:
//! * *slash*: `multi_a` over the vault's signers, who take it when the assertion is proven wrong;
//! * *return*: `<challenge_window + bond_margin> CSV DROP <proposer key> CHECKSIG`.
//!
//! The proposer key is the publisher key of the assertion's envelope.
//!
//! A *slash* spends a bond through its first leaf and nothing else, to one output: all that the fee leaves
//! goes to the *reward script* of the challenger whose proof rejected the assertion, a Taproot output that
//! the key of his proof's envelopes spends alone.
//!
//! Not checked here: whether an assertion was proven wrong, and by whom.

use crate::{
    multisig::{self, MultisigPlan, Signers},
    vault::{pay_the_rest, sweep},
};
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Witness, XOnlyPublicKey,
    key::{Keypair, TapTweak},
    script::Builder,
    secp256k1::{Message, Secp256k1},
    sighash::{Prevouts, SighashCache, TapSighashType},
    taproot::TaprootSpendInfo,
};
use kedge_genesis::{Params, Sats};

/// The scripts of one proposer's bonds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    signers: Signers,
    delay: u16,
    slash_leaf: ScriptBuf,
    return_leaf: ScriptBuf,
    tree: TaprootSpendInfo,
}

impl Bond {
    /// The bond of a proposer under these parameters; none on a network that has not been launched.
    pub fn of(params: &Params, proposer: XOnlyPublicKey) -> Option<Self> {
        let signers = Signers::of(params)?;
        // BIP-68 counts to 65,535 blocks.
        let delay = u16::try_from(params.challenge_window).ok()?.checked_add(params.bond_margin)?;
        let slash_leaf = signers.multi_a(Builder::new());
        let return_leaf = multisig::delayed(delay, &proposer);
        let tree = multisig::two_leaves(&slash_leaf, &return_leaf)?;
        Some(Self { signers, delay, slash_leaf, return_leaf, tree })
    }

    /// The output script.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr_tweaked(self.tree.output_key())
    }

    /// The output that an assertion's reveal has at the index of the envelope's input.
    pub fn tx_out(&self, value: Sats) -> TxOut {
        TxOut { value: Amount::from_sat(value.0), script_pubkey: self.script() }
    }

    /// Blocks after its confirmation at which the bond may return.
    pub const fn delay(&self) -> u16 {
        self.delay
    }

    /// The proposer's spend of a bond to `to`, signed. None when the bond does not pay the fee and more
    /// than dust.
    pub fn return_spend(
        &self,
        bond: OutPoint,
        value: Sats,
        to: ScriptBuf,
        fee_rate: FeeRate,
        proposer: &Keypair,
    ) -> Option<Transaction> {
        let control = multisig::control(&self.tree, &self.return_leaf);
        let prevouts = [self.tx_out(value)];
        let mut tx = sweep([bond].into_iter(), self.delay, to);
        // Once for the size, once for the final output.
        multisig::sign_single(&mut tx, 0, &prevouts, &self.return_leaf, &control, proposer)?;
        pay_the_rest(&mut tx, value, fee_rate)?;
        multisig::sign_single(&mut tx, 0, &prevouts, &self.return_leaf, &control, proposer)?;
        Some(tx)
    }

    /// The signers' spend of a bond to a challenger's [`reward_script`], to be signed. None when the bond does
    /// not pay the fee and more than dust.
    pub fn slash_spend(
        &self,
        bond: OutPoint,
        value: Sats,
        challenger: &XOnlyPublicKey,
        fee_rate: FeeRate,
    ) -> Option<MultisigPlan> {
        let fee = fee_rate.fee_wu(self.slash(bond, value, challenger, value).signed_weight())?;
        let reward = value.checked_sub(Sats(fee.to_sat()))?;
        pays(challenger, reward).then(|| self.slash(bond, value, challenger, reward))
    }

    /// Checks a proposed slash of this bond to this challenger: what a signer does before it signs. Any
    /// witness that it carries is ignored.
    ///
    /// # Errors
    /// Why it must not be signed.
    pub fn check_slash(
        &self,
        proposal: &Transaction,
        bond: OutPoint,
        value: Sats,
        rules: &SlashRules,
    ) -> Result<MultisigPlan, SlashFault> {
        if !proposal.input.iter().any(|input| input.previous_output == bond) {
            return Err(SlashFault::Bond);
        }
        let [output] = proposal.output.as_slice() else { return Err(SlashFault::Reward) };
        let reward = Sats(output.value.to_sat());
        if output.script_pubkey != reward_script(&rules.challenger)
            || !pays(&rules.challenger, reward)
        {
            return Err(SlashFault::Reward);
        }
        let plan = self.slash(bond, value, &rules.challenger, reward);
        if plan.tx().compute_txid() != proposal.compute_txid() {
            return Err(SlashFault::Form);
        }
        let weight = plan.signed_weight();
        let at =
            |rate: FeeRate| rate.fee_wu(weight).map_or(Sats(u64::MAX), |fee| Sats(fee.to_sat()));
        let (least, most) = (at(rules.least_rate), at(rules.most_rate));
        let fee = value.checked_sub(reward).ok_or(SlashFault::Funds)?;
        if fee < least || fee > most {
            return Err(SlashFault::FeeRate { fee, least, most });
        }
        Ok(plan)
    }

    /// The slash that leaves `reward` to the challenger.
    fn slash(
        &self,
        bond: OutPoint,
        value: Sats,
        challenger: &XOnlyPublicKey,
        reward: Sats,
    ) -> MultisigPlan {
        let mut tx = sweep([bond].into_iter(), 0, reward_script(challenger));
        for input in &mut tx.input {
            input.sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        }
        for output in &mut tx.output {
            output.value = Amount::from_sat(reward.0);
        }
        let control = multisig::control(&self.tree, &self.slash_leaf);
        MultisigPlan::new(
            tx,
            alloc::vec![self.tx_out(value)],
            alloc::vec![(self.slash_leaf.clone(), control)],
            self.signers.clone(),
        )
    }

    /// What the witness of a confirmed spend of this bond says about it. None when it is no spend that
    /// Bitcoin accepts.
    pub fn spent_by(&self, witness: &Witness) -> Option<BondSpend> {
        let leaf = witness.taproot_leaf_script()?.script;
        if leaf == self.slash_leaf.as_script() {
            Some(BondSpend::Slash)
        } else {
            (leaf == self.return_leaf.as_script()).then_some(BondSpend::Return)
        }
    }
}

/// Through which leaf a bond was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondSpend {
    /// By the signers.
    Slash,
    /// By its proposer.
    Return,
}

/// What a signer holds against a proposed slash, all of it from its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlashRules {
    /// Publisher of the proof that the bond pays.
    pub challenger: XOnlyPublicKey,
    /// Lowest fee rate: what the network relays.
    pub least_rate: FeeRate,
    /// Highest fee rate: the ceiling.
    pub most_rate: FeeRate,
}

/// Why a transaction is no slash that a signer signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlashFault {
    /// It does not spend the bond.
    #[error("does not spend the bond")]
    Bond,
    /// It has other outputs than one, above dust, to the challenger's reward script.
    #[error("does not have one output, to the reward script of the challenger")]
    Reward,
    /// Another input, or version, lock time, sequence or signature script are not what the builder sets.
    #[error("inputs, version, lock time, sequence or signature script deviate")]
    Form,
    /// It pays more than the bond holds.
    #[error("pays more than the bond holds")]
    Funds,
    /// The fee rate is outside what the signer accepts.
    #[error("the fee of {fee} is not between {least} and {most}")]
    FeeRate {
        /// The fee.
        fee: Sats,
        /// The least at the lowest accepted rate.
        least: Sats,
        /// The most at the highest accepted rate.
        most: Sats,
    },
}

/// The script that a slashed bond pays: Taproot with the challenger's publisher key as internal key and no
/// script (BIP-86).
pub fn reward_script(challenger: &XOnlyPublicKey) -> ScriptBuf {
    ScriptBuf::new_p2tr(&Secp256k1::verification_only(), *challenger, None)
}

/// Whether a reward of `value` is more than dust.
fn pays(challenger: &XOnlyPublicKey, value: Sats) -> bool {
    Amount::from_sat(value.0) >= reward_script(challenger).minimal_non_dust()
}

/// The challenger's spend of rewards to `to`, signed. None when there are none, or they do not pay the fee
/// and more than dust.
pub fn reward_spend(
    rewards: &[(OutPoint, Sats)],
    to: ScriptBuf,
    fee_rate: FeeRate,
    challenger: &Keypair,
) -> Option<Transaction> {
    let script = reward_script(&challenger.x_only_public_key().0);
    let prevouts: alloc::vec::Vec<_> = rewards
        .iter()
        .map(|(_, value)| TxOut { value: Amount::from_sat(value.0), script_pubkey: script.clone() })
        .collect();
    let held = rewards.iter().try_fold(Sats::ZERO, |sum, (_, value)| sum.checked_add(*value))?;
    let mut tx = sweep(rewards.iter().map(|(outpoint, _)| *outpoint), 0, to);
    for input in &mut tx.input {
        input.sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        // As long as a signature, for the size.
        input.witness = Witness::from_slice(&[[0u8; 64]]);
    }
    pay_the_rest(&mut tx, held, fee_rate)?;
    let secp = Secp256k1::new();
    let key = challenger.tap_tweak(&secp, None).to_keypair();
    let mut signatures = alloc::vec::Vec::with_capacity(tx.input.len());
    let mut cache = SighashCache::new(&tx);
    for input in 0..tx.input.len() {
        let sighash = cache
            .taproot_key_spend_signature_hash(
                input,
                &Prevouts::All(&prevouts),
                TapSighashType::Default,
            )
            .ok()?;
        signatures.push(secp.sign_schnorr_no_aux_rand(&Message::from(sighash), &key));
    }
    for (input, signature) in tx.input.iter_mut().zip(signatures) {
        input.witness = Witness::from_slice(&[signature.serialize()]);
    }
    Some(tx)
}
