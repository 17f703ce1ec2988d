//! The honest sequencer, and the users of the L2.

use super::{Arena, Hand};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use anyhow::{Context, Result};
use bitcoin::{
    Amount, Script, ScriptBuf, Transaction, WPubkeyHash,
    hashes::Hash as _,
    key::{Keypair, Secp256k1},
};
use kedge::publisher::Part;
use kedge_bridge::{
    batch::{Batch, BatchBlock, encode},
    deposit::deposit_outputs,
    derive::DeriveState,
    envelope::{EnvelopeHeader, Kind, sign_batch, split},
    vault::vault_script,
};
use kedge_genesis::{
    L1Height, L2Number, Params, Sats, abi::BitcoinBridge::withdrawCall, params::dev_secrets,
    predeploys,
};
use kedge_store::L1Rows;
use kedge_vm::{ExecutedBlock, PayloadTx};
use std::sync::Arc;

/// Wei per gas that users pay at most.
const MAX_FEE: u128 = 1_000_000_000;
/// Runtime that stores the block's number under the word that it is called with.
const STORE_NUMBER: [u8; 5] = [0x43, 0x5f, 0x35, 0x55, 0x00];

/// An account on L2.
#[derive(Debug)]
pub struct User {
    signer: PrivateKeySigner,
    chain_id: u64,
    nonce: u64,
}

impl User {
    pub(super) fn new(params: &Params, number: u8) -> Result<Self> {
        let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(number))?;
        Ok(Self { signer, chain_id: params.chain_id, nonce: 0 })
    }

    /// Its address.
    pub const fn address(&self) -> Address {
        self.signer.address()
    }

    /// The address of the contract that its next transaction creates.
    pub fn next_contract(&self) -> Address {
        self.address().create(self.nonce)
    }

    /// A transaction with the next nonce.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn send(&mut self, to: TxKind, gas: u64, wei: U256, input: Bytes) -> Result<Bytes> {
        let tx = self.signed(self.nonce, to, gas, wei, input)?;
        self.nonce += 1;
        Ok(tx)
    }

    /// A transaction with any nonce.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn signed(
        &self,
        nonce: u64,
        to: TxKind,
        gas: u64,
        wei: U256,
        input: Bytes,
    ) -> Result<Bytes> {
        let mut tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: gas,
            max_fee_per_gas: MAX_FEE,
            max_priority_fee_per_gas: 1_000_000,
            to,
            value: wei,
            input,
            ..TxEip1559::default()
        };
        let signature = self.signer.sign_transaction_sync(&mut tx)?;
        Ok(TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into())
    }

    /// A transfer of so many satoshis that takes 21,000 gas and declares no more.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn transfer(&mut self, to: Address, sats: u64) -> Result<Bytes> {
        self.send(to.into(), 21_000, Sats(sats).to_wei(), Bytes::new())
    }

    /// A call.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn call(&mut self, to: Address, gas: u64, input: impl Into<Bytes>) -> Result<Bytes> {
        self.send(to.into(), gas, U256::ZERO, input.into())
    }

    /// The creation of a contract with that runtime.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn create(&mut self, gas: u64, runtime: &[u8]) -> Result<Bytes> {
        self.send(TxKind::Create, gas, U256::ZERO, deployer(runtime).into())
    }

    /// A withdrawal of so many satoshis.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn withdraw(&mut self, to: &Script, sats: u64) -> Result<Bytes> {
        self.send(
            predeploys::BITCOIN_BRIDGE.into(),
            500_000,
            Sats(sats).to_wei(),
            withdrawal_input(to),
        )
    }
}

/// Call data of a withdrawal to `to`.
pub(super) fn withdrawal_input(to: &Script) -> Bytes {
    withdrawCall { scriptPubKey: to.to_bytes().into() }.abi_encode().into()
}

/// Where the honest withdrawal goes.
pub(super) fn withdrawer() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([0x77; 20]))
}

/// Init code that deploys `runtime`, of at most 65,535 bytes.
pub fn deployer(runtime: &[u8]) -> Vec<u8> {
    let length = u16::try_from(runtime.len()).unwrap_or(u16::MAX).to_be_bytes();
    // PUSH2 length, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN
    let mut code = vec![0x61, length[0], length[1], 0x80, 0x60, 10, 0x5f, 0x39, 0x5f, 0xf3];
    code.extend_from_slice(runtime);
    code
}

impl Arena {
    /// Deposits a bitcoin for each of the two users and begins their epoch.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn fund(&mut self) -> Result<()> {
        let to = [self.alice.address(), self.bob.address()];
        let deposit = self.deposit(&to.map(|to| (to, Sats(100_000_000))))?;
        self.mine(&[deposit]).await?;
        self.build(Vec::new())?;
        Ok(())
    }

    /// Makes blocks of all kinds and posts them, in so many Bitcoin blocks.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn busy_blocks(&mut self, count: u64) -> Result<()> {
        let contract = self.alice.next_contract();
        let create = self.alice.create(200_000, &STORE_NUMBER)?;
        self.build(vec![create])?;
        for round in 0..count {
            let to = Address::left_padding_from(&(0xb00 + round).to_be_bytes());
            let transfer = self.bob.transfer(to, 10_000 + round)?;
            let slot = U256::from(round).to_be_bytes::<32>();
            let call = self.alice.call(contract, 200_000, slot)?;
            self.build(vec![transfer, call])?;
            if round == 1 {
                let withdrawal = self.bob.withdraw(&withdrawer(), 1_000_000)?;
                self.build(vec![withdrawal])?;
            }
            let deposit = self.deposit(&[(to, Sats(20_000 + round))])?;
            let batch = self.batch()?.all();
            self.mine(&[vec![deposit], batch].concat()).await?;
            self.build(Vec::new())?;
        }
        self.post().await
    }

    /// A transaction that deposits.
    ///
    /// # Errors
    /// When the purse is empty.
    pub fn deposit(&mut self, to: &[(Address, Sats)]) -> Result<Transaction> {
        let vault = vault_script(self.params).context("the network has a vault")?;
        self.purse.pay(deposit_outputs(&vault, to), Amount::from_sat(2_000))
    }

    /// Posts everything that Bitcoin does not have yet, and waits until it is final.
    ///
    /// # Errors
    /// When there is nothing, or this machine fails.
    pub async fn post(&mut self) -> Result<()> {
        let batch = self.batch()?.all();
        self.mine(&batch).await?;
        let last = self.tip().0 + self.params.finality_depth - 1;
        self.mine_until(L1Height(last)).await.map(drop)
    }

    /// The sequencer's next block with these transactions: it begins the next epoch when there is one.
    ///
    /// # Errors
    /// When the rules allow no such block or this machine fails.
    pub fn build(&mut self, user: Vec<Bytes>) -> Result<Arc<ExecutedBlock>> {
        let position = self.engine.position()?;
        let step = position.cursor.epoch_complete
            && position.cursor.origin.height < position.l1_tip.height;
        let planned = self.engine.plan(step, None, user)?;
        let (payload, cursor) = planned.context("the rules allow no such block")?;
        Ok(self.engine.append_unsafe(&payload, &cursor)?)
    }

    /// The batch of everything that Bitcoin does not have yet.
    ///
    /// # Errors
    /// When there is nothing, or this machine fails.
    pub fn batch(&mut self) -> Result<Hand> {
        let heads = self.engine.heads();
        let body = self.batch_body(heads.safe.number.next(), heads.latest.number)?;
        self.next_batch(&body)
    }

    /// The body of a batch of these blocks.
    ///
    /// # Errors
    /// When there are none, or this machine fails.
    pub fn batch_body(&self, first: L2Number, last: L2Number) -> Result<Vec<u8>> {
        let mut blocks = Vec::new();
        let mut last_origin = [0; 20];
        for number in (first.0..=last.0).map(L2Number) {
            let payload = self.payload(number)?;
            last_origin.copy_from_slice(&payload.origin.hash[..20]);
            let user = payload.transactions.into_iter().filter_map(|tx| match tx {
                PayloadTx::System(_) => None,
                PayloadTx::User(bytes) => Some(bytes),
            });
            blocks.push(BatchBlock {
                timestamp: payload.timestamp,
                epoch_step: payload.sequence_number == 0,
                transactions: user.collect(),
            });
        }
        Ok(encode(&Batch { first, last_origin, blocks })?)
    }

    /// Posts so many empty blocks after the last in one batch.
    ///
    /// # Errors
    /// When blocks wait that Bitcoin does not have yet, or this machine fails.
    pub async fn empty_blocks(&mut self, count: u64) -> Result<()> {
        let body = self.empty_body(0, count)?;
        let batch = self.next_batch(&body)?.all();
        self.mine(&batch).await.map(drop)
    }

    /// The body of a batch of so many empty blocks, `after` others above the last.
    ///
    /// # Errors
    /// When this machine fails.
    pub fn empty_body(&self, after: u64, count: u64) -> Result<Vec<u8>> {
        let cursor = self.engine.position()?.cursor;
        let blocks = (1..=count).map(|number| BatchBlock {
            timestamp: cursor.timestamp + after + number,
            epoch_step: false,
            transactions: Vec::new(),
        });
        let last_origin = *cursor.origin.hash.first_chunk().context("a hash has 32 bytes")?;
        Ok(encode(&Batch {
            first: L2Number(cursor.number.next().0 + after),
            last_origin,
            blocks: blocks.collect(),
        })?)
    }

    /// Any body as the next batch.
    ///
    /// # Errors
    /// When it is too long, or this machine fails.
    pub fn next_batch(&mut self, body: &[u8]) -> Result<Hand> {
        let derive = self.derive_state()?;
        let parts = self.signed_batch(derive.next_batch, derive.prev_body, body)?;
        self.envelopes(&sequencer()?, Kind::Batch, &parts)
    }

    /// Derivation's state at the tip.
    ///
    /// # Errors
    /// When this machine fails.
    pub fn derive_state(&self) -> Result<DeriveState> {
        self.engine.store().derive_state(self.tip())?.context("no derive state at the tip")
    }

    /// The envelopes of any body that the sequencer signs as a batch.
    ///
    /// # Errors
    /// When it is too long.
    pub fn signed_batch(&self, index: u64, prev_body: B256, body: &[u8]) -> Result<Vec<Part>> {
        let mut parts: Vec<(EnvelopeHeader, Vec<u8>)> =
            split(Kind::Batch, self.params.chain_id, index, prev_body, body, self.params)?;
        sign_batch(&mut parts, &sequencer()?);
        Ok(parts.into_iter().map(Part::from).collect())
    }
}

/// The sequencer's key.
///
/// # Errors
/// Never.
pub fn sequencer() -> Result<Keypair> {
    Ok(Keypair::from_seckey_slice(&Secp256k1::new(), &dev_secrets::SEQUENCER)?)
}
