//! Signed transfers, the same for both nodes.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, B256, TxKind, U256, hex, keccak256};
use alloy_signer_local::PrivateKeySigner;
use anyhow::Result;

/// An account that sends.
#[derive(Debug)]
pub(crate) struct Sender {
    signer: PrivateKeySigner,
    chain_id: u64,
    nonce: u64,
}

/// A signed transaction.
#[derive(Debug)]
pub(crate) struct Signed {
    /// EIP-2718 bytes, hexadecimal.
    pub(crate) encoded: String,
    /// Its hash, hexadecimal.
    pub(crate) hash: String,
}

impl Sender {
    /// The account of a secret key in hexadecimal.
    pub(crate) fn of(key: &str, chain_id: u64) -> Result<Self> {
        Ok(Self { signer: key.parse()?, chain_id, nonce: 0 })
    }

    /// An account that nobody has.
    pub(crate) fn fresh(number: u64, chain_id: u64) -> Result<Self> {
        let key: B256 = keccak256([&b"sender"[..], &number.to_be_bytes()].concat());
        Ok(Self { signer: PrivateKeySigner::from_bytes(&key)?, chain_id, nonce: 0 })
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// Its next transaction, a transfer.
    pub(crate) fn transfer(&mut self, to: Address, wei: u64) -> Result<Signed> {
        let mut tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to: TxKind::Call(to),
            value: U256::from(wei),
            ..Default::default()
        };
        self.nonce += 1;
        let signature = self.signer.sign_transaction_sync(&mut tx)?;
        let tx = TxEnvelope::from(tx.into_signed(signature));
        let encoded = hex::encode_prefixed(tx.encoded_2718());
        Ok(Signed { encoded, hash: tx.tx_hash().to_string() })
    }
}
