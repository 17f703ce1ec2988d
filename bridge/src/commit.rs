//! Commit and reveal: how an envelope gets into a block.
//!
//! *Commit output*: P2TR, internal key = the publisher's key, one leaf: the envelope's script. Any
//! transaction may create it.
//!
//! *Reveal*: spends commit outputs through their leaf. Inputs: any commit outputs, each with the witness
//! `[signature, leaf script, control block]`, signalling replaceability (BIP-125). Outputs: chosen by the
//! caller: change, an assertion's bond or a forced message's payment at the index of the envelope's input.
//! What derivation reads of it is the witness alone.
//!
//! *Taking back*: a commit that will not be revealed is spent by its key path to one output.

use alloc::vec::Vec;
use bitcoin::{
    Address, Amount, FeeRate, OutPoint, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn,
    TxOut, Witness, XOnlyPublicKey,
    absolute::LockTime,
    key::{Keypair, TapTweak as _},
    secp256k1::{Message, Secp256k1},
    sighash::{Prevouts, SighashCache},
    taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo},
    transaction::Version,
};

/// The one leaf of a commit output with the keys to reveal it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    publisher: XOnlyPublicKey,
    leaf: ScriptBuf,
    spend: TaprootSpendInfo,
}

impl Commit {
    /// The commit of an envelope's leaf script ([`crate::envelope::leaf_script`]). None never happens in
    /// practice: the tweak of the key would have to be out of range.
    pub fn new(publisher: XOnlyPublicKey, leaf: ScriptBuf) -> Option<Self> {
        let secp = Secp256k1::verification_only();
        let builder = TaprootBuilder::new().add_leaf(0, leaf.clone()).ok()?;
        let spend = builder.finalize(&secp, publisher).ok()?;
        Some(Self { publisher, leaf, spend })
    }

    /// The key that signs the reveal.
    pub const fn publisher(&self) -> &XOnlyPublicKey {
        &self.publisher
    }

    /// The envelope's script.
    pub const fn leaf(&self) -> &ScriptBuf {
        &self.leaf
    }

    /// The output script to pay.
    pub fn script_pubkey(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr_tweaked(self.spend.output_key())
    }

    /// The output as an address.
    pub fn address(&self, network: bitcoin::Network) -> Address {
        Address::p2tr_tweaked(self.spend.output_key(), network)
    }

    fn witness(&self, signature: &[u8]) -> Witness {
        let control = self
            .spend
            .control_block(&(self.leaf.clone(), LeafVersion::TapScript))
            .map(|block| block.serialize())
            .unwrap_or_default();
        Witness::from_slice(&[signature, self.leaf.as_bytes(), &control])
    }
}

/// A commit output on Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOutput {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it holds.
    pub value: Amount,
    /// What it commits to.
    pub commit: Commit,
}

impl CommitOutput {
    /// The output itself.
    pub fn tx_out(&self) -> TxOut {
        TxOut { value: self.value, script_pubkey: self.commit.script_pubkey() }
    }
}

/// Why a reveal cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevealError {
    /// The outputs exceed the inputs.
    #[error("the outputs hold {outputs}, the inputs only {inputs}")]
    Funds {
        /// Sum of the outputs.
        outputs: Amount,
        /// Sum of the inputs.
        inputs: Amount,
    },
    /// The key is not the publisher of an input.
    #[error("the key is not the publisher of input {input}")]
    Key {
        /// The input.
        input: usize,
    },
    /// The inputs and their previous outputs do not match.
    #[error("input {input} has no previous output")]
    Prevout {
        /// The input.
        input: usize,
    },
}

/// Builds and signs a reveal of these commit outputs, in this order. The fee is what the outputs leave.
///
/// # Errors
/// When the outputs exceed the inputs or the key is another's.
pub fn reveal(
    inputs: &[CommitOutput],
    outputs: Vec<TxOut>,
    publisher: &Keypair,
) -> Result<Transaction, RevealError> {
    let held = total(inputs.iter().map(|input| input.value));
    let paid = total(outputs.iter().map(|output| output.value));
    if paid > held {
        return Err(RevealError::Funds { outputs: paid, inputs: held });
    }
    let mut tx = unsigned(inputs, outputs);
    let prevouts: Vec<_> = inputs.iter().map(CommitOutput::tx_out).collect();
    let commits: Vec<_> = inputs.iter().map(|input| &input.commit).enumerate().collect();
    sign(&mut tx, &prevouts, &commits, publisher)?;
    Ok(tx)
}

/// Signs the commit inputs `(number, commit)` of a transaction, which may have other inputs too (to raise
/// a fee beyond what the commit outputs hold). `prevouts` are those of all inputs, in order.
///
/// # Errors
/// When a number is beyond the inputs or the key is another's.
pub fn sign(
    tx: &mut Transaction,
    prevouts: &[TxOut],
    commits: &[(usize, &Commit)],
    publisher: &Keypair,
) -> Result<(), RevealError> {
    let secp = Secp256k1::signing_only();
    let mut witnesses = Vec::with_capacity(commits.len());
    let mut cache = SighashCache::new(&*tx);
    for (input, commit) in commits {
        if commit.publisher != publisher.x_only_public_key().0 {
            return Err(RevealError::Key { input: *input });
        }
        let leaf = TapLeafHash::from_script(&commit.leaf, LeafVersion::TapScript);
        let sighash = cache
            .taproot_script_spend_signature_hash(
                *input,
                &Prevouts::All(prevouts),
                leaf,
                TapSighashType::Default,
            )
            .map_err(|_| RevealError::Prevout { input: *input })?;
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), publisher);
        witnesses.push((*input, commit.witness(&signature.serialize())));
    }
    for (input, witness) in witnesses {
        tx.input.get_mut(input).ok_or(RevealError::Prevout { input })?.witness = witness;
    }
    Ok(())
}

/// Builds and signs the transaction that takes commit outputs back to `to` by their key path, with what it
/// costs. It signals replaceability (BIP-125). None when they do not hold the fee and more than dust.
///
/// # Errors
/// When the key is another's.
pub fn take_back(
    inputs: &[CommitOutput],
    to: ScriptBuf,
    fee_rate: FeeRate,
    publisher: &Keypair,
) -> Result<Option<(Transaction, Amount)>, RevealError> {
    let held = total(inputs.iter().map(|input| input.value));
    let mut tx = unsigned(inputs, alloc::vec![TxOut { value: Amount::ZERO, script_pubkey: to }]);
    for txin in &mut tx.input {
        txin.witness = Witness::from_slice(&[[0; 64]]);
    }
    let (Some(fee), Some(output)) = (fee_rate.fee_wu(tx.weight()), tx.output.first_mut()) else {
        return Ok(None);
    };
    match held.checked_sub(fee) {
        Some(value) if value >= output.script_pubkey.minimal_non_dust() => output.value = value,
        _ => return Ok(None),
    }
    let secp = Secp256k1::new();
    let prevouts: Vec<_> = inputs.iter().map(CommitOutput::tx_out).collect();
    let mut cache = SighashCache::new(&tx);
    let mut witnesses = Vec::with_capacity(inputs.len());
    for (input, commit) in inputs.iter().map(|input| &input.commit).enumerate() {
        if commit.publisher != publisher.x_only_public_key().0 {
            return Err(RevealError::Key { input });
        }
        let sighash = cache
            .taproot_key_spend_signature_hash(
                input,
                &Prevouts::All(&prevouts),
                TapSighashType::Default,
            )
            .map_err(|_| RevealError::Prevout { input })?;
        let tweaked = publisher.tap_tweak(&secp, commit.spend.merkle_root()).to_keypair();
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), &tweaked);
        witnesses.push(Witness::from_slice(&[signature.serialize()]));
    }
    for (txin, witness) in tx.input.iter_mut().zip(witnesses) {
        txin.witness = witness;
    }
    Ok(Some((tx, fee)))
}

/// Virtual size of the reveal of these commits with these outputs, exact.
pub fn reveal_vsize(commits: &[Commit], outputs: &[TxOut]) -> u64 {
    let inputs: Vec<_> = commits
        .iter()
        .map(|commit| CommitOutput {
            outpoint: OutPoint::null(),
            value: Amount::ZERO,
            commit: commit.clone(),
        })
        .collect();
    let mut tx = unsigned(&inputs, outputs.to_vec());
    for (txin, commit) in tx.input.iter_mut().zip(commits) {
        txin.witness = commit.witness(&[0; 64]);
    }
    tx.vsize() as u64
}

/// The sum, or the largest amount when it overflows: no such transaction can be valid.
fn total(mut values: impl Iterator<Item = Amount>) -> Amount {
    values.try_fold(Amount::ZERO, Amount::checked_add).unwrap_or(Amount::MAX)
}

fn unsigned(inputs: &[CommitOutput], output: Vec<TxOut>) -> Transaction {
    let input = inputs
        .iter()
        .map(|input| TxIn {
            previous_output: input.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        })
        .collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}
