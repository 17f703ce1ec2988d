//! Users: they deposit, transfer, withdraw, and force transactions past the sequencer.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, Bytes, TxKind, U256, keccak256};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use anyhow::Result;
use bitcoin::hashes::Hash as _;
use bitcoin::{ScriptBuf, WPubkeyHash};
use kedge_genesis::abi::BitcoinBridge::withdrawCall;
use kedge_genesis::{Params, Sats, predeploys};
use std::collections::BTreeSet;

/// Wei per gas that users pay at most.
const MAX_FEE: u128 = 1_000_000_000;
/// Gas that users declare.
pub(super) const GAS: u64 = 500_000;

/// A withdrawal that a user asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// A script of its own.
    pub(super) script: ScriptBuf,
    /// What left L2, satoshis.
    pub(super) sats: u64,
}

/// Somebody with an account on L2.
pub(super) struct User {
    signer: PrivateKeySigner,
    /// All transactions ever signed, by nonce.
    pub(super) signed: Vec<Bytes>,
    /// The nonces of those that the sequencer acknowledged: it must not lose them.
    pub(super) taken: BTreeSet<usize>,
}

impl User {
    pub(super) fn new(number: u64) -> Result<Self> {
        let secret = keccak256(format!("user {number}"));
        Ok(Self {
            signer: PrivateKeySigner::from_bytes(&secret)?,
            signed: Vec::new(),
            taken: BTreeSet::new(),
        })
    }

    pub(super) fn address(&self) -> Address {
        self.signer.address()
    }

    /// Signs the next transaction.
    fn sign(&mut self, params: &Params, to: Address, value: U256, input: Bytes) -> Result<Bytes> {
        let mut tx = TxEip1559 {
            chain_id: params.chain_id,
            nonce: self.signed.len() as u64,
            gas_limit: GAS,
            max_fee_per_gas: MAX_FEE,
            max_priority_fee_per_gas: 1_000_000,
            to: TxKind::Call(to),
            value,
            input,
            ..Default::default()
        };
        let signature = self.signer.sign_transaction_sync(&mut tx)?;
        let bytes: Bytes = TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into();
        self.signed.push(bytes.clone());
        Ok(bytes)
    }

    /// The next transaction pays somebody.
    pub(super) fn transfer(&mut self, params: &Params, to: Address, sats: u64) -> Result<Bytes> {
        self.sign(params, to, Sats(sats).to_wei(), Bytes::new())
    }

    /// The next transaction withdraws to Bitcoin.
    pub(super) fn withdraw(&mut self, params: &Params, wish: &Wish) -> Result<Bytes> {
        let call = withdrawCall { scriptPubKey: wish.script.to_bytes().into() }.abi_encode();
        self.sign(params, predeploys::BITCOIN_BRIDGE, Sats(wish.sats).to_wei(), call.into())
    }
}

/// A script that nobody else is paid to.
pub(super) fn fresh_script(number: u64) -> ScriptBuf {
    let hash = keccak256(format!("script {number}"));
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_slice(&hash[..20]).expect("20 bytes"))
}

/// An address that nobody has used.
pub(super) fn fresh_address(number: u64) -> Address {
    Address::from_word(keccak256(format!("address {number}")))
}
