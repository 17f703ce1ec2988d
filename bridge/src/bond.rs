//! The bond of an assertion, an output of the assertion's own reveal.
//!
//! P2TR, internal key = BIP-341's point `H`, two leaves at depth 1:
//! * *slash*: `multi_a` over the vault's signers, who take it when the assertion is proven wrong;
//! * *return*: `<challenge_window + bond_margin> CSV DROP <proposer key> CHECKSIG`.
//!
//! The proposer key is the publisher key of the assertion's envelope.

use crate::{
    multisig::{self, MultisigPlan, Signers},
    vault::{pay_the_rest, sweep},
};
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, XOnlyPublicKey,
    key::Keypair, script::Builder, taproot::TaprootSpendInfo,
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

    /// The signers' spend of a bond to `to`, to be signed. None when the bond does not pay the fee and more
    /// than dust.
    pub fn slash_spend(
        &self,
        bond: OutPoint,
        value: Sats,
        to: ScriptBuf,
        fee_rate: FeeRate,
    ) -> Option<MultisigPlan> {
        let mut tx = sweep([bond].into_iter(), 0, to);
        for input in &mut tx.input {
            input.sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        }
        let control = multisig::control(&self.tree, &self.slash_leaf);
        let leaf = (self.slash_leaf.clone(), control);
        let plan = |tx| {
            MultisigPlan::new(
                tx,
                alloc::vec![self.tx_out(value)],
                alloc::vec![leaf.clone()],
                self.signers.clone(),
            )
        };
        let fee = fee_rate.fee_wu(plan(tx.clone()).signed_weight())?;
        let output = tx.output.first_mut()?;
        output.value = Amount::from_sat(value.0).checked_sub(fee)?;
        let pays = output.value >= output.script_pubkey.minimal_non_dust();
        pays.then(|| plan(tx))
    }
}
