//! A chain in memory with funded accounts.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{Encodable2718, eip7702::Authorization};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use k256::ecdsa::SigningKey;
use kedge_genesis::{
    L1Height, L1Ref, L2Number, Network, Params,
    abi::{L1Attributes, attributes_calldata},
    alloc, predeploys,
};
use kedge_vm::{
    EvmConfig, ExecutedBlock, Header, MemoryDb, OpTxEnvelope, Payload, PayloadTx, TxDeposit,
    execute, genesis_block,
};

pub fn params() -> &'static Params {
    Network::Dev.params()
}

pub fn config() -> EvmConfig {
    EvmConfig::from_params(params())
}

/// An account whose key is made from a number.
#[derive(Clone)]
pub struct Account {
    pub key: SigningKey,
    pub address: Address,
}

pub fn account(number: u8) -> Account {
    let key = SigningKey::from_slice(keccak256([number]).as_slice()).unwrap();
    let address = Address::from_public_key(key.verifying_key());
    Account { key, address }
}

impl Account {
    pub fn signature(&self, hash: B256) -> Signature {
        let (signature, parity) = self.key.sign_prehash_recoverable(hash.as_slice()).unwrap();
        Signature::from((signature, parity))
    }

    pub fn sign<T: SignableTransaction<Signature>>(&self, tx: T) -> OpTxEnvelope
    where
        OpTxEnvelope: From<alloy_consensus::Signed<T>>,
    {
        let signature = self.signature(tx.signature_hash());
        tx.into_signed(signature).into()
    }

    pub fn authorize(&self, nonce: u64, to: Address) -> alloy_eips::eip7702::SignedAuthorization {
        let auth = Authorization { chain_id: U256::from(params().chain_id), address: to, nonce };
        let signature = self.signature(auth.signature_hash());
        auth.into_signed(signature)
    }
}

/// A transaction with everything that a test does not care about filled in.
pub fn call(nonce: u64, to: TxKind, value: u64, input: impl Into<Bytes>) -> TxEip1559 {
    TxEip1559 {
        chain_id: params().chain_id,
        nonce,
        gas_limit: 1_000_000,
        max_fee_per_gas: 100_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to,
        value: U256::from(value),
        access_list: Default::default(),
        input: input.into(),
    }
}

pub fn legacy(tx: &TxEip1559) -> TxLegacy {
    TxLegacy {
        chain_id: Some(tx.chain_id),
        nonce: tx.nonce,
        gas_price: tx.max_fee_per_gas,
        gas_limit: tx.gas_limit,
        to: tx.to,
        value: tx.value,
        input: tx.input.clone(),
    }
}

pub fn eip2930(tx: &TxEip1559) -> TxEip2930 {
    TxEip2930 {
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_price: tx.max_fee_per_gas,
        gas_limit: tx.gas_limit,
        to: tx.to,
        value: tx.value,
        access_list: tx.access_list.clone(),
        input: tx.input.clone(),
    }
}

pub fn eip7702(
    tx: &TxEip1559,
    to: Address,
    authorization_list: Vec<alloy_eips::eip7702::SignedAuthorization>,
) -> TxEip7702 {
    TxEip7702 {
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        max_fee_per_gas: tx.max_fee_per_gas,
        max_priority_fee_per_gas: tx.max_priority_fee_per_gas,
        to,
        value: tx.value,
        access_list: tx.access_list.clone(),
        authorization_list,
        input: tx.input.clone(),
    }
}

pub fn user(tx: &OpTxEnvelope) -> PayloadTx {
    PayloadTx::User(tx.encoded_2718().into())
}

pub fn attributes(number: u64) -> PayloadTx {
    let at = L1Attributes {
        number,
        hash: B256::repeat_byte(number as u8),
        merkle_root: B256::repeat_byte(0xee),
        median_time: 1_700_000_000 + number,
        fee_rate: 5_000,
        sequence_number: 0,
    };
    PayloadTx::System(TxDeposit {
        source_hash: keccak256(number.to_be_bytes()),
        from: predeploys::DEPOSITOR,
        to: TxKind::Call(predeploys::L1_BLOCK),
        gas_limit: params().attributes_gas,
        input: attributes_calldata(params(), &at),
        ..Default::default()
    })
}

/// A deposit that mints to its recipient.
pub fn mint(to: Address, wei: u128) -> PayloadTx {
    PayloadTx::System(TxDeposit {
        source_hash: keccak256(to),
        from: Address::repeat_byte(0xdd),
        to: TxKind::Call(to),
        mint: wei,
        value: U256::from(wei),
        gas_limit: params().deposit_gas,
        ..Default::default()
    })
}

pub struct Chain {
    pub config: EvmConfig,
    pub db: MemoryDb,
    pub genesis: MemoryDb,
    pub head: Header,
    pub blocks: Vec<ExecutedBlock>,
}

pub const COIN: u128 = 1_000_000_000_000_000_000;

impl Chain {
    pub fn new() -> Self {
        let genesis = genesis_block(params(), &alloc(params(), &[0x51])).unwrap();
        let db = MemoryDb::new(&genesis);
        Self { config: config(), genesis: db.clone(), db, head: genesis.header, blocks: vec![] }
    }

    /// With one block that funds the accounts 0..8.
    pub fn funded() -> Self {
        let mut chain = Self::new();
        let mut txs = vec![attributes(1)];
        txs.extend((0..8).map(|number| mint(account(number).address, COIN)));
        chain.execute(txs);
        chain
    }

    pub fn payload(&self, transactions: Vec<PayloadTx>) -> Payload {
        let number = self.head.number + 1;
        Payload {
            number: L2Number(number),
            timestamp: self.head.timestamp + 1,
            origin: L1Ref {
                height: L1Height(number as u32),
                hash: B256::repeat_byte(number as u8),
            },
            sequence_number: 0,
            transactions,
        }
    }

    /// Executes without moving on.
    pub fn try_execute(&mut self, transactions: Vec<PayloadTx>) -> ExecutedBlock {
        let payload = self.payload(transactions);
        let parent = self.head.clone();
        execute(&self.config, &parent, parent.hash_slow(), &payload, &mut self.db).unwrap()
    }

    pub fn execute(&mut self, transactions: Vec<PayloadTx>) -> ExecutedBlock {
        let block = self.try_execute(transactions);
        self.db.apply(&block);
        self.head = block.header.clone();
        self.blocks.push(block.clone());
        block
    }

    pub fn balance(&self, address: Address) -> U256 {
        self.db.accounts.get(&address).map_or(U256::ZERO, |account| account.balance)
    }

    pub fn nonce(&self, address: Address) -> u64 {
        self.db.accounts.get(&address).map_or(0, |account| account.nonce)
    }
}

/// Init code that deploys `runtime`.
pub fn deployer(runtime: &[u8]) -> Vec<u8> {
    let length = u16::try_from(runtime.len()).unwrap().to_be_bytes();
    // PUSH2 length, DUP1, PUSH1 11, PUSH0, CODECOPY, PUSH0, RETURN, (pad)
    let mut code = vec![0x61, length[0], length[1], 0x80, 0x60, 11, 0x5f, 0x39, 0x5f, 0xf3, 0x00];
    code.extend_from_slice(runtime);
    code
}
