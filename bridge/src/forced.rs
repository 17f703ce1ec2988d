//! Forced transactions: what the chain must include although its sequencer does not.
//!
//! Envelope of kind `FORCED`, one chunk; the body is the RLP list of raw signed transactions (EIP-2718
//! bytes, types 0, 1, 2 and 4, at least one). The reveal pays for them: the output at the index of the
//! envelope's input pays the vault at least [`Forced::price`]. A reveal that spends the vault or carries a
//! tagged OP_RETURN pays nothing, because the same output would count twice.
//!
//! Not checked here: signatures, nonces, balances. A transaction that cannot be executed is skipped then.

use crate::{
    op_return::parse_tx,
    vault::{VaultScripts, tx_spends_vault},
};
use alloc::vec::Vec;
use alloy_consensus::{EthereumTxEnvelope, Transaction as _, TxEip4844};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::Bytes;
use bitcoin::Transaction;
use kedge_genesis::{L1Height, Params, Sats};

/// A decoded transaction of the types that Kedge takes from Bitcoin, and EIP-4844's, which it refuses.
pub(crate) type Decoded = EthereumTxEnvelope<TxEip4844>;

/// One forced transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedTx {
    /// Its EIP-2718 bytes.
    pub raw: Bytes,
    /// Its gas limit: what it declares.
    pub gas: u64,
}

/// The content of a forced message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Its transactions in order, at least one.
    pub transactions: Vec<ForcedTx>,
    /// The gas that they declare together.
    pub gas: u64,
}

/// Why a forced message is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ForcedFault {
    /// The body is not an RLP list of byte strings and nothing else.
    #[error("the body is not a list of transactions")]
    Encoding,
    /// The list is empty.
    #[error("no transactions")]
    Empty,
    /// One is undecodable, not in its canonical encoding, or of another type.
    #[error("transaction {number} is not of type 0, 1, 2 or 4")]
    Transaction {
        /// Its place in the list.
        number: u32,
    },
    /// The declared gas of all exceeds what one epoch takes.
    #[error("the declared gas exceeds an epoch's share")]
    Gas,
    /// The reveal pays the vault too little.
    #[error("pays {paid}, the price is {price}")]
    Price {
        /// What it pays.
        paid: Sats,
        /// What it should pay.
        price: Sats,
    },
}

/// Decodes one raw transaction if it is of a type that Kedge takes, in its one encoding.
pub(crate) fn decode_tx(raw: &[u8]) -> Option<Decoded> {
    let mut rest = raw;
    let tx = Decoded::decode_2718(&mut rest).ok()?;
    let taken = !matches!(tx, Decoded::Eip4844(_)) && rest.is_empty();
    (taken && tx.encode_2718_len() == raw.len() && tx.encoded_2718() == raw).then_some(tx)
}

/// The body of a forced message.
pub fn encode(transactions: &[Bytes]) -> Vec<u8> {
    let mut body = Vec::new();
    alloy_rlp::encode_list::<_, Bytes>(transactions, &mut body);
    body
}

impl Forced {
    /// Decodes a body.
    ///
    /// # Errors
    /// When it is not a list of at least one transaction of type 0, 1, 2 or 4, or declares more gas than an
    /// epoch takes.
    pub fn decode(body: &[u8], params: &Params) -> Result<Self, ForcedFault> {
        let raws: Vec<Bytes> = alloy_rlp::decode_exact(body).map_err(|_| ForcedFault::Encoding)?;
        if raws.is_empty() {
            return Err(ForcedFault::Empty);
        }
        let mut transactions = Vec::with_capacity(raws.len());
        let mut gas = 0u64;
        for (number, raw) in (0u32..).zip(raws) {
            let tx = decode_tx(&raw).ok_or(ForcedFault::Transaction { number })?;
            gas = gas.checked_add(tx.gas_limit()).ok_or(ForcedFault::Gas)?;
            transactions.push(ForcedTx { gas: tx.gas_limit(), raw });
        }
        if gas > params.forced_gas_per_epoch {
            return Err(ForcedFault::Gas);
        }
        Ok(Self { transactions, gas })
    }

    /// What the reveal must pay the vault.
    pub fn price(&self, params: &Params) -> Sats {
        price_of(self.gas, params)
    }

    /// Checks that the reveal pays for the message in its input number `input`.
    ///
    /// # Errors
    /// When it pays too little.
    pub fn check_price(
        &self,
        payer: &Payer<'_>,
        input: u32,
        vault: &VaultScripts,
        height: L1Height,
        params: &Params,
    ) -> Result<(), ForcedFault> {
        let (paid, price) = (payer.paid(input, vault, height), self.price(params));
        if paid < price { Err(ForcedFault::Price { paid, price }) } else { Ok(()) }
    }
}

/// The price of `gas` declared gas, rounded up.
pub fn price_of(gas: u64, params: &Params) -> Sats {
    Sats(gas.saturating_mul(params.forced_sats_per_100_gas).div_ceil(100))
}

/// A reveal as what pays for the messages in its inputs. Made once for all of them: it looks at the whole
/// transaction.
#[derive(Clone, Copy, Debug)]
pub struct Payer<'a> {
    reveal: &'a Transaction,
    pays: bool,
}

impl<'a> Payer<'a> {
    /// One that spends the vault or carries a tagged OP_RETURN pays nothing.
    pub fn new(reveal: &'a Transaction) -> Self {
        Self { reveal, pays: parse_tx(reveal) == Ok(None) && !tx_spends_vault(reveal) }
    }

    /// What it pays for the message in its input number `input`.
    pub fn paid(&self, input: u32, vault: &VaultScripts, height: L1Height) -> Sats {
        let output = usize::try_from(input).ok().and_then(|vout| self.reveal.output.get(vout));
        match output {
            Some(output) if self.pays && vault.credits(&output.script_pubkey, height) => {
                Sats(output.value.to_sat())
            }
            _ => Sats::ZERO,
        }
    }
}
