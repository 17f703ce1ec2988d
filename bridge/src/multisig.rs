//! Leaves that k of n signers spend (`multi_a` of BIP-387), and the way from an unsigned transaction over
//! the signers' shares to a valid witness. The vault, the slash leaf of a bond and plain deposit addresses
//! share this.

use alloc::vec::Vec;
use bitcoin::{
    ScriptBuf, TapSighashType, Transaction, TxOut, Witness, XOnlyPublicKey,
    key::Keypair,
    opcodes::all::{OP_CHECKSIG, OP_CHECKSIGADD, OP_CSV, OP_DROP, OP_NUMEQUAL},
    script::Builder,
    secp256k1::{Message, Secp256k1, schnorr},
    sighash::{Prevouts, SighashCache},
    taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo},
};
use kedge_genesis::{Params, tags};

/// The keys of which some must sign, in the order of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers {
    keys: Vec<XOnlyPublicKey>,
    threshold: u8,
}

impl Signers {
    /// A set of keys with its threshold. None when the threshold is 0 or above the number of keys, when a
    /// key repeats, or when there are more than 16 keys.
    pub fn new(keys: Vec<XOnlyPublicKey>, threshold: u8) -> Option<Self> {
        let unique = keys.iter().collect::<alloc::collections::BTreeSet<_>>().len() == keys.len();
        let possible = threshold > 0 && usize::from(threshold) <= keys.len() && keys.len() <= 16;
        (unique && possible).then_some(Self { keys, threshold })
    }

    /// The signers that the parameters name; none on a network that has not been launched.
    pub fn of(params: &Params) -> Option<Self> {
        let keys = params.keys.as_ref()?;
        let signers = keys
            .signers
            .iter()
            .map(|key| XOnlyPublicKey::from_slice(key).ok())
            .collect::<Option<_>>()?;
        Self::new(signers, keys.threshold)
    }

    /// The keys in the order of the script.
    pub fn keys(&self) -> &[XOnlyPublicKey] {
        &self.keys
    }

    /// How many must sign.
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }

    /// `<key> CHECKSIG <key> CHECKSIGADD … <threshold> NUMEQUAL`, after what is in `builder`.
    pub(crate) fn multi_a(&self, mut builder: Builder) -> ScriptBuf {
        for (number, key) in self.keys.iter().enumerate() {
            builder = builder.push_x_only_key(key).push_opcode(if number == 0 {
                OP_CHECKSIG
            } else {
                OP_CHECKSIGADD
            });
        }
        builder.push_int(i64::from(self.threshold)).push_opcode(OP_NUMEQUAL).into_script()
    }
}

/// `<blocks> CSV DROP <key> CHECKSIG`: `key` alone, `blocks` blocks after the output confirmed (BIP-112).
pub(crate) fn delayed(blocks: u16, key: &XOnlyPublicKey) -> ScriptBuf {
    Builder::new()
        .push_int(i64::from(blocks))
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_x_only_key(key)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

/// A Taproot output without a usable key path and with these two leaves.
pub(crate) fn two_leaves(left: &ScriptBuf, right: &ScriptBuf) -> Option<TaprootSpendInfo> {
    let nums = XOnlyPublicKey::from_slice(&tags::NUMS_KEY).ok()?;
    TaprootBuilder::new()
        .add_leaf(1, left.clone())
        .ok()?
        .add_leaf(1, right.clone())
        .ok()?
        .finalize(&Secp256k1::verification_only(), nums)
        .ok()
}

/// The serialised control block of a leaf.
pub(crate) fn control(spend: &TaprootSpendInfo, leaf: &ScriptBuf) -> Vec<u8> {
    spend
        .control_block(&(leaf.clone(), LeafVersion::TapScript))
        .map(|block| block.serialize())
        .unwrap_or_default()
}

/// The signature hash of a leaf spend, BIP-341 with `SIGHASH_DEFAULT`.
pub(crate) fn leaf_message(
    cache: &mut SighashCache<&Transaction>,
    input: usize,
    prevouts: &[TxOut],
    leaf: &ScriptBuf,
) -> Option<Message> {
    let hash = TapLeafHash::from_script(leaf, LeafVersion::TapScript);
    cache
        .taproot_script_spend_signature_hash(
            input,
            &Prevouts::All(prevouts),
            hash,
            TapSighashType::Default,
        )
        .ok()
        .map(Message::from)
}

/// An unsigned transaction all of whose inputs spend a leaf of the same signers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultisigPlan {
    tx: Transaction,
    prevouts: Vec<TxOut>,
    /// Per input: the leaf and its control block.
    leaves: Vec<(ScriptBuf, Vec<u8>)>,
    signers: Signers,
}

/// One signer's signatures of a plan, one per input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerShare {
    /// Who signs.
    pub key: XOnlyPublicKey,
    /// One signature per input, in order.
    pub signatures: Vec<schnorr::Signature>,
}

/// Why a plan cannot be signed or assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is not one of the signers.
    #[error("the key is not one of the signers")]
    NotASigner,
    /// Two shares of one key.
    #[error("two shares of one signer")]
    Twice,
    /// A signature is missing or is not this signer's for this transaction.
    #[error("an invalid signature")]
    Signature,
    /// Too few shares.
    #[error("{found} of {expected} signatures")]
    TooFew {
        /// How many are needed.
        expected: u8,
        /// How many there are.
        found: usize,
    },
    /// The plan's inputs, previous outputs and leaves do not match.
    #[error("the plan does not name the previous output of every input")]
    Plan,
}

impl MultisigPlan {
    pub(crate) const fn new(
        tx: Transaction,
        prevouts: Vec<TxOut>,
        leaves: Vec<(ScriptBuf, Vec<u8>)>,
        signers: Signers,
    ) -> Self {
        Self { tx, prevouts, leaves, signers }
    }

    /// The transaction without witnesses. Its txid is final.
    pub const fn tx(&self) -> &Transaction {
        &self.tx
    }

    /// The outputs spent, in the order of the inputs.
    pub fn prevouts(&self) -> &[TxOut] {
        &self.prevouts
    }

    /// What is to be signed, one message per input.
    ///
    /// # Errors
    /// When the plan is inconsistent.
    pub fn messages(&self) -> Result<Vec<Message>, SignError> {
        let mut cache = SighashCache::new(&self.tx);
        self.leaves
            .iter()
            .enumerate()
            .map(|(input, (leaf, _))| {
                leaf_message(&mut cache, input, &self.prevouts, leaf).ok_or(SignError::Plan)
            })
            .collect()
    }

    /// One signer's share.
    ///
    /// # Errors
    /// When the key is not a signer's.
    pub fn sign(&self, signer: &Keypair) -> Result<SignerShare, SignError> {
        let key = signer.x_only_public_key().0;
        if !self.signers.keys.contains(&key) {
            return Err(SignError::NotASigner);
        }
        let secp = Secp256k1::signing_only();
        let signatures = self
            .messages()?
            .iter()
            .map(|message| secp.sign_schnorr_no_aux_rand(message, signer))
            .collect();
        Ok(SignerShare { key, signatures })
    }

    /// Whether a share is complete and valid for this transaction.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_share(&self, share: &SignerShare) -> Result<(), SignError> {
        if !self.signers.keys.contains(&share.key) {
            return Err(SignError::NotASigner);
        }
        let messages = self.messages()?;
        if messages.len() != share.signatures.len() {
            return Err(SignError::Signature);
        }
        let secp = Secp256k1::verification_only();
        for (message, signature) in messages.iter().zip(&share.signatures) {
            secp.verify_schnorr(signature, message, &share.key)
                .map_err(|_| SignError::Signature)?;
        }
        Ok(())
    }

    /// The signed transaction: the first `threshold` shares in the script's order of keys are used.
    ///
    /// # Errors
    /// When a share is invalid or there are too few.
    pub fn assemble(&self, shares: &[SignerShare]) -> Result<Transaction, SignError> {
        for (number, share) in shares.iter().enumerate() {
            self.check_share(share)?;
            if shares.iter().take(number).any(|other| other.key == share.key) {
                return Err(SignError::Twice);
            }
        }
        let expected = self.signers.threshold;
        if shares.len() < usize::from(expected) {
            return Err(SignError::TooFew { expected, found: shares.len() });
        }
        let mut by_key: Vec<Option<&SignerShare>> = Vec::with_capacity(self.signers.keys.len());
        let mut used = 0;
        for key in &self.signers.keys {
            let share = shares.iter().find(|share| share.key == *key && used < expected);
            used = used.saturating_add(u8::from(share.is_some()));
            by_key.push(share);
        }
        let signature = |share: &Option<&SignerShare>, input: usize| {
            share
                .and_then(|share| share.signatures.get(input))
                .map(|signature| signature.serialize().to_vec())
                .unwrap_or_default()
        };
        Ok(self.with_witnesses(|input| {
            by_key.iter().map(|share| signature(share, input)).collect::<Vec<_>>()
        }))
    }

    /// Weight of the signed transaction, exact: every signature has 64 bytes.
    pub fn signed_weight(&self) -> bitcoin::Weight {
        let threshold = usize::from(self.signers.threshold);
        let widths: Vec<_> = (0..self.signers.keys.len())
            .map(|number| alloc::vec![0; if number < threshold { 64 } else { 0 }])
            .collect();
        self.with_witnesses(|_| widths.clone()).weight()
    }

    /// The transaction with per-input signatures in the script's order of keys (empty = none).
    fn with_witnesses(&self, signatures: impl Fn(usize) -> Vec<Vec<u8>>) -> Transaction {
        let mut tx = self.tx.clone();
        for (input, (txin, (leaf, control))) in tx.input.iter_mut().zip(&self.leaves).enumerate() {
            // CHECKSIG pops the first key's signature from the top, so it is pushed last.
            let mut items = signatures(input);
            items.reverse();
            items.push(leaf.to_bytes());
            items.push(control.clone());
            txin.witness = Witness::from_slice(&items);
        }
        tx
    }
}

/// Signs `input` of `tx` through a leaf that takes one signature.
pub(crate) fn sign_single(
    tx: &mut Transaction,
    input: usize,
    prevouts: &[TxOut],
    leaf: &ScriptBuf,
    control: &[u8],
    key: &Keypair,
) -> Option<()> {
    let message = leaf_message(&mut SighashCache::new(&*tx), input, prevouts, leaf)?;
    let signature = Secp256k1::signing_only().sign_schnorr_no_aux_rand(&message, key).serialize();
    tx.input.get_mut(input)?.witness =
        Witness::from_slice(&[signature.as_slice(), leaf.as_bytes(), control]);
    Some(())
}
