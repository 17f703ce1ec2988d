//! The tagged OP_RETURN: `OP_RETURN <"kdg" ‖ type byte ‖ payload>`, one minimal push, nothing after it.
//!
//! | type | payload |
//! | --- | --- |
//! | `d` | one 20-byte EVM address per vault output of the transaction, in output order; at least one |
//! | `w` | first withdrawal index `u64` and count `u32` ≥ 1, big-endian |
//! | `v` | the next vault's output script: P2TR, 34 bytes |
//!
//! An output is *tagged* when `OP_RETURN` is followed by a push that begins with the magic. A transaction
//! with two tagged outputs, or with one that deviates from the table, says nothing: [`TagFault`].
//! Not checked here: whether the transaction is what its tag claims.

use crate::read::Reader;
use alloc::vec::Vec;
use alloy_primitives::Address;
use bitcoin::{
    Amount, Script, ScriptBuf, Transaction, TxOut,
    opcodes::all::OP_RETURN,
    script::{Builder, Instruction, PushBytesBuf},
};
use kedge_genesis::tags;

/// What a tagged OP_RETURN says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// The recipients of the transaction's vault outputs, in output order.
    Deposit(Vec<Address>),
    /// The transaction pays these withdrawals.
    Payout {
        /// Index of the first.
        first: u64,
        /// How many, at least one.
        count: u32,
    },
    /// The transaction moves the vault to this script.
    Rotation(ScriptBuf),
}

/// Why a transaction's tag says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TagFault {
    /// More than one tagged output.
    #[error("more than one tagged OP_RETURN")]
    MoreThanOne,
    /// The tagged output is none of the table.
    #[error("malformed tagged OP_RETURN")]
    Malformed,
}

impl Tagged {
    /// The output script.
    pub fn script(&self) -> ScriptBuf {
        let mut payload = tags::OP_RETURN_MAGIC.to_vec();
        match self {
            Self::Deposit(recipients) => {
                payload.push(tags::OP_RETURN_DEPOSIT);
                payload.extend(recipients.iter().flat_map(|recipient| recipient.0.0));
            }
            Self::Payout { first, count } => {
                payload.push(tags::OP_RETURN_PAYOUT);
                payload.extend_from_slice(&first.to_be_bytes());
                payload.extend_from_slice(&count.to_be_bytes());
            }
            Self::Rotation(script) => {
                payload.push(tags::OP_RETURN_ROTATION);
                payload.extend_from_slice(script.as_bytes());
            }
        }
        // Only a push of 2^32 bytes fails; an empty one is not tagged.
        let push = PushBytesBuf::try_from(payload).unwrap_or_default();
        Builder::new().push_opcode(OP_RETURN).push_slice(push).into_script()
    }

    /// The output, which holds nothing.
    pub fn tx_out(&self) -> TxOut {
        TxOut { value: Amount::ZERO, script_pubkey: self.script() }
    }

    fn parse_payload(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        match reader.u8()? {
            tags::OP_RETURN_DEPOSIT => {
                let mut recipients = Vec::new();
                while !reader.is_empty() {
                    recipients.push(Address::new(reader.array()?));
                }
                (!recipients.is_empty()).then_some(Self::Deposit(recipients))
            }
            tags::OP_RETURN_PAYOUT => {
                let (first, count) = (reader.u64()?, reader.u32()?);
                (count > 0 && reader.is_empty()).then_some(Self::Payout { first, count })
            }
            tags::OP_RETURN_ROTATION => {
                let script = ScriptBuf::from_bytes(reader.rest().to_vec());
                script.is_p2tr().then_some(Self::Rotation(script))
            }
            _ => None,
        }
    }
}

/// What one output script says: none when it is not tagged.
pub fn parse_script(script: &Script) -> Option<Result<Tagged, TagFault>> {
    let mut items = script.instructions();
    if !matches!(items.next()?.ok()?, Instruction::Op(OP_RETURN)) {
        return None;
    }
    let Instruction::PushBytes(push) = items.next()?.ok()? else { return None };
    let payload = push.as_bytes().strip_prefix(tags::OP_RETURN_MAGIC.as_slice())?;
    // The one encoding: minimal push, nothing after it.
    let tagged =
        Tagged::parse_payload(payload).filter(|tagged| tagged.script().as_script() == script);
    Some(tagged.ok_or(TagFault::Malformed))
}

/// What a transaction's tagged OP_RETURN says: none when it has none.
///
/// # Errors
/// When it has more than one, or a malformed one.
pub fn parse_tx(tx: &Transaction) -> Result<Option<Tagged>, TagFault> {
    let mut found = tx.output.iter().filter_map(|output| parse_script(&output.script_pubkey));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(tagged), None) => tagged.map(Some),
        (Some(_), Some(_)) => Err(TagFault::MoreThanOne),
    }
}
