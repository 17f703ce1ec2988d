//! Payouts: the vault pays a run of queued withdrawals.
//!
//! Inputs: the vault's head first, then further vault outputs, all through the spend leaf, signalling
//! replaceability. Outputs: 0 the change to the vault (the next head), 1 the tagged OP_RETURN `w`, then one
//! output per withdrawal with exactly its script and amount, in the order of their indices. Nothing else.
//!
//! The fee comes from what the run's withdrawals paid for it and beyond that from the vault's surplus.
//!
//! [`check_payout`] is what every follower checks of a confirmed transaction; [`check_proposal`] is what a
//! signer checks before it signs. Not checked in either: signatures, which Bitcoin checks.

use crate::{
    multisig::MultisigPlan,
    op_return::{TagFault, Tagged, parse_tx},
    vault::{Vault, VaultHead},
};
use alloc::vec::Vec;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness,
    absolute::LockTime, transaction::Version,
};
use kedge_genesis::Sats;

/// Most withdrawals in one payout: with P2WSH outputs (172 weight units) and the inputs below it stays a
/// standard transaction.
pub const MAX_RUN: usize = 1_000;

/// Most vault outputs that one payout spends.
pub const MAX_INPUTS: usize = 100;

/// Weight above which Bitcoin Core does not relay a transaction (`MAX_STANDARD_TX_WEIGHT`).
pub const MAX_WEIGHT: Weight = Weight::from_wu(400_000);

/// A queued withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Withdrawal {
    /// Its place in the queue, from 0.
    pub index: u64,
    /// The script to pay.
    pub script: ScriptBuf,
    /// What to pay.
    pub amount: Sats,
    /// What it paid for the payout.
    pub fee: Sats,
}

/// The withdrawals that a transaction pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayoutRun {
    /// Index of the first.
    pub first: u64,
    /// How many, at least one.
    pub count: u32,
}

/// Why a transaction is no payout, or none that a signer signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum PayoutFault {
    /// It does not spend the vault's head.
    #[error("does not spend the head of the vault")]
    Head,
    /// It has no payout tag.
    #[error("has no payout tag")]
    Untagged,
    /// Its tag says nothing.
    #[error(transparent)]
    Tag(#[from] TagFault),
    /// It does not begin at the next unpaid withdrawal.
    #[error("begins at withdrawal {found}, the next unpaid one is {expected:?}")]
    NotNext {
        /// The next unpaid index; none when all are paid.
        expected: Option<u64>,
        /// Where it begins.
        found: u64,
    },
    /// It names a withdrawal that is not queued.
    #[error("withdrawal {index} is not queued")]
    Unknown {
        /// Its index.
        index: u64,
    },
    /// It has another number of outputs than change, tag and withdrawals.
    #[error("has {found} outputs, expected {expected}")]
    Outputs {
        /// Two more than the withdrawals.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The tag is not output 1.
    #[error("the tag is not output 1")]
    TagPlace,
    /// The output of a withdrawal does not pay its script and amount.
    #[error("does not pay withdrawal {index} as it was queued")]
    Mismatch {
        /// Its index.
        index: u64,
    },
    /// It spends something that is not an unspent vault output, or the same one twice.
    #[error("input {input} is not a known vault output")]
    Input {
        /// The input.
        input: u32,
    },
    /// Version, lock time, a sequence or a signature script is not what the builder sets.
    #[error("version, lock time, sequence or signature script deviate")]
    Form,
    /// The change does not go to the vault, or is dust.
    #[error("output 0 is not a change to the vault")]
    Change,
    /// A withdrawal's output is dust.
    #[error("withdrawal {index} is dust")]
    Dust {
        /// Its index.
        index: u64,
    },
    /// The vault holds too little.
    #[error("the vault's inputs do not cover the withdrawals and the fee")]
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
    /// The fee exceeds what was collected and the surplus.
    #[error("the fee of {fee} exceeds what was collected and the surplus, {covered}")]
    FeeUncovered {
        /// The fee.
        fee: Sats,
        /// What may be spent on it.
        covered: Sats,
    },
    /// The run is empty, not consecutive or too long.
    #[error("the run is empty, not consecutive or too long")]
    Run,
    /// The transaction is too heavy to be relayed.
    #[error("too heavy to be relayed")]
    Weight,
}

/// A payout to be signed: a verified value, made by [`build_payout`] or [`check_proposal`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayoutPlan {
    /// What to sign.
    multisig: MultisigPlan,
    run: PayoutRun,
    fee: Sats,
}

impl PayoutPlan {
    /// The unsigned transaction and what it takes to sign it.
    pub const fn multisig(&self) -> &MultisigPlan {
        &self.multisig
    }

    /// The unsigned transaction.
    pub const fn tx(&self) -> &Transaction {
        self.multisig.tx()
    }

    /// The withdrawals it pays.
    pub const fn run(&self) -> PayoutRun {
        self.run
    }

    /// The Bitcoin fee.
    pub const fn fee(&self) -> Sats {
        self.fee
    }
}

/// Builds the payout of `run` from `head` and `extra` vault outputs at a fee rate.
///
/// # Errors
/// When the run is empty, too long or not consecutive, an output would be dust, or the inputs hold too
/// little.
pub fn build_payout(
    vault: &Vault,
    head: &VaultHead,
    extra: &[VaultHead],
    run: &[Withdrawal],
    fee_rate: FeeRate,
) -> Result<PayoutPlan, PayoutFault> {
    let first = run.first().ok_or(PayoutFault::Run)?.index;
    let consecutive = run
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.index.checked_add(1) == Some(b.index)));
    if !consecutive || run.len() > MAX_RUN || extra.len() >= MAX_INPUTS {
        return Err(PayoutFault::Run);
    }
    let count = u32::try_from(run.len()).map_err(|_| PayoutFault::Run)?;
    let coins: Vec<_> = core::iter::once(*head).chain(extra.iter().copied()).collect();
    let held = sum(coins.iter().map(|coin| coin.value)).ok_or(PayoutFault::Funds)?;
    let paid = sum(run.iter().map(|withdrawal| withdrawal.amount)).ok_or(PayoutFault::Funds)?;

    let mut output = Vec::with_capacity(run.len().saturating_add(2));
    output.push(vault.tx_out(Sats::ZERO));
    output.push(Tagged::Payout { first, count }.tx_out());
    for withdrawal in run {
        output.push(payment(withdrawal).ok_or(PayoutFault::Dust { index: withdrawal.index })?);
    }
    let input = coins.iter().map(|coin| txin(coin.outpoint)).collect();
    let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };

    let weight = plan_of(vault, tx.clone(), &coins).signed_weight();
    if weight > MAX_WEIGHT {
        return Err(PayoutFault::Weight);
    }
    let fee = fee_rate.fee_wu(weight).ok_or(PayoutFault::Funds)?;
    let fee = Sats(fee.to_sat());
    let change =
        held.checked_sub(paid).and_then(|rest| rest.checked_sub(fee)).ok_or(PayoutFault::Funds)?;
    let mut tx = tx;
    if let Some(output) = tx.output.first_mut() {
        *output = vault.tx_out(change);
        if output.value < output.script_pubkey.minimal_non_dust() {
            return Err(PayoutFault::Funds);
        }
    }
    Ok(PayoutPlan { multisig: plan_of(vault, tx, &coins), run: PayoutRun { first, count }, fee })
}

/// What a signer holds against a proposed payout, all of it from its own node.
#[derive(Clone, Copy, Debug)]
pub struct SigningRules<'a> {
    /// The vault.
    pub vault: &'a Vault,
    /// Its head.
    pub head: VaultHead,
    /// Its other unspent outputs.
    pub coins: &'a [VaultHead],
    /// The settled and unpaid withdrawals, from the next unpaid one on.
    pub unpaid: &'a [Withdrawal],
    /// Lowest fee rate: what the network relays.
    pub least_rate: FeeRate,
    /// Highest fee rate: the ceiling.
    pub most_rate: FeeRate,
    /// What the vault holds beyond what it owes, queued withdrawals with their fees included.
    pub surplus: Sats,
}

/// Checks a proposed payout. Any witnesses that it carries are ignored.
///
/// # Errors
/// Why it must not be signed.
pub fn check_proposal(
    proposal: &Transaction,
    rules: &SigningRules<'_>,
) -> Result<PayoutPlan, PayoutFault> {
    let run = check_payout(proposal, rules.head.outpoint, rules.unpaid)?;
    let head_first =
        proposal.input.first().is_some_and(|input| input.previous_output == rules.head.outpoint);
    if !head_first {
        return Err(PayoutFault::Head);
    }
    let count = usize::try_from(run.count).unwrap_or(usize::MAX);
    if count > MAX_RUN || proposal.input.len() > MAX_INPUTS {
        return Err(PayoutFault::Run);
    }
    let mut coins: Vec<VaultHead> = Vec::with_capacity(proposal.input.len());
    for (input, txin) in (0u32..).zip(&proposal.input) {
        let coin = core::iter::once(&rules.head)
            .chain(rules.coins)
            .find(|coin| coin.outpoint == txin.previous_output)
            .filter(|coin| !coins.iter().any(|other| other.outpoint == coin.outpoint))
            .ok_or(PayoutFault::Input { input })?;
        coins.push(*coin);
    }
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(|coin| txin(coin.outpoint)).collect(),
        output: proposal.output.clone(),
    };
    if tx.compute_txid() != proposal.compute_txid() {
        return Err(PayoutFault::Form);
    }
    let change = proposal.output.first().ok_or(PayoutFault::Change)?;
    if change.script_pubkey != rules.vault.script()
        || change.value < change.script_pubkey.minimal_non_dust()
    {
        return Err(PayoutFault::Change);
    }
    let withdrawals = rules.unpaid.get(..count).ok_or(PayoutFault::Run)?;
    for withdrawal in withdrawals {
        payment(withdrawal).ok_or(PayoutFault::Dust { index: withdrawal.index })?;
    }
    let held = sum(coins.iter().map(|coin| coin.value)).ok_or(PayoutFault::Funds)?;
    let spent = sum(proposal.output.iter().map(|output| Sats(output.value.to_sat())))
        .ok_or(PayoutFault::Funds)?;
    let fee = held.checked_sub(spent).ok_or(PayoutFault::Funds)?;

    let multisig = plan_of(rules.vault, tx, &coins);
    let weight = multisig.signed_weight();
    if weight > MAX_WEIGHT {
        return Err(PayoutFault::Weight);
    }
    let at = |rate: FeeRate| rate.fee_wu(weight).map_or(Sats(u64::MAX), |fee| Sats(fee.to_sat()));
    let (least, most) = (at(rules.least_rate), at(rules.most_rate));
    if fee < least || fee > most {
        return Err(PayoutFault::FeeRate { fee, least, most });
    }
    let covered = sum(withdrawals.iter().map(|withdrawal| withdrawal.fee))
        .and_then(|collected| collected.checked_add(rules.surplus))
        .unwrap_or(Sats(u64::MAX));
    if fee > covered {
        return Err(PayoutFault::FeeUncovered { fee, covered });
    }
    Ok(PayoutPlan { multisig, run, fee })
}

/// Checks what every node checks of a payout. `unpaid` are the queued withdrawals from the next unpaid
/// index on, at least as many as the transaction may pay.
///
/// # Errors
/// Why the transaction pays no withdrawals.
pub fn check_payout(
    tx: &Transaction,
    head: OutPoint,
    unpaid: &[Withdrawal],
) -> Result<PayoutRun, PayoutFault> {
    if !tx.input.iter().any(|input| input.previous_output == head) {
        return Err(PayoutFault::Head);
    }
    let Some(Tagged::Payout { first, count }) = parse_tx(tx)? else {
        return Err(PayoutFault::Untagged);
    };
    let expected = unpaid.first().map(|withdrawal| withdrawal.index);
    if expected != Some(first) {
        return Err(PayoutFault::NotNext { expected, found: first });
    }
    let (outputs, found) = (u64::from(count).saturating_add(2), tx.output.len() as u64);
    if outputs != found {
        return Err(PayoutFault::Outputs { expected: outputs, found });
    }
    let tag = Tagged::Payout { first, count }.script();
    if tx.output.get(1).is_none_or(|output| output.script_pubkey != tag) {
        return Err(PayoutFault::TagPlace);
    }
    let mut queue = unpaid.iter();
    for (output, offset) in tx.output.iter().skip(2).zip(0u64..) {
        let index = first.checked_add(offset).ok_or(PayoutFault::Run)?;
        let withdrawal = queue
            .next()
            .filter(|withdrawal| withdrawal.index == index)
            .ok_or(PayoutFault::Unknown { index })?;
        let pays = output.script_pubkey == withdrawal.script
            && output.value.to_sat() == withdrawal.amount.0;
        if !pays {
            return Err(PayoutFault::Mismatch { index });
        }
    }
    Ok(PayoutRun { first, count })
}

/// The output that pays a withdrawal; none when it would be dust.
fn payment(withdrawal: &Withdrawal) -> Option<TxOut> {
    let value = Amount::from_sat(withdrawal.amount.0);
    let script_pubkey = withdrawal.script.clone();
    (value >= script_pubkey.minimal_non_dust()).then_some(TxOut { value, script_pubkey })
}

fn txin(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}

fn plan_of(vault: &Vault, tx: Transaction, coins: &[VaultHead]) -> MultisigPlan {
    let prevouts = coins.iter().map(|coin| vault.tx_out(coin.value)).collect();
    let leaves = coins.iter().map(|_| vault.spend_leaf()).collect();
    MultisigPlan::new(tx, prevouts, leaves, vault.signers().clone())
}

fn sum(values: impl IntoIterator<Item = Sats>) -> Option<Sats> {
    values.into_iter().try_fold(Sats::ZERO, Sats::checked_add)
}
