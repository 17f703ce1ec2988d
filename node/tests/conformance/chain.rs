//! A chain with a transaction of every kind, and where they are.

use crate::{
    rpc::ask,
    world::{World, signer},
};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::Authorization,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use anyhow::Context as _;
use kedge_store::L2Rows;
use serde_json::{Value, json};

/// Counts its calls in slot 0 and emits a log with two topics: `emit` and the hash of the call's input.
const EMITTER: &[u8] =
    &hex!("3680600080376000206000548082558060010160005560005263656d697460206000a2");

/// How many blocks the chain has after its first: as many as the chain that the exchanges were recorded on.
pub(crate) const HEAD: u64 = 54;

/// The chain.
pub(crate) struct Facts {
    pub(crate) world: World,
    pub(crate) contract: Address,
    /// An account that delegates to the contract (EIP-7702).
    pub(crate) delegated: Address,
    pub(crate) create: B256,
    pub(crate) legacy: B256,
    pub(crate) access_list: B256,
    pub(crate) dynamic: B256,
    pub(crate) set_code: B256,
    /// The newest block. It holds the four, and a creation as its last transaction.
    pub(crate) block: B256,
    /// The newest block's time.
    pub(crate) time: u64,
    /// Block 1.
    pub(crate) first: B256,
    /// The block of the first creation.
    pub(crate) creation: B256,
    /// A filter for blocks and one for logs, installed before the newest block.
    pub(crate) filters: [Value; 2],
    /// The next nonce of [`signer`] but for what waits.
    pub(crate) nonce: u64,
    pub(crate) genesis: B256,
    /// Waits in the mempool.
    pub(crate) pending: B256,
}

impl Facts {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let world = World::new().await?;
        let first = world.engine.heads().latest.hash;
        let chain_id = world.params.chain_id;
        let contract = signer().address().create(0);
        let length = EMITTER.len() as u8;
        // CODECOPY and RETURN of what follows these eleven bytes.
        let init =
            [&[0x60, length, 0x80, 0x60, 0x0b, 0x60, 0, 0x39, 0x60, 0, 0xf3], EMITTER].concat();
        let create = world
            .send(&world.sign(TxLegacy {
                chain_id: Some(chain_id),
                nonce: 0,
                gas_price: 10_000_000,
                gas_limit: 200_000,
                to: TxKind::Create,
                input: init.clone().into(),
                ..Default::default()
            }))
            .await?;
        world.make_block(false)?;
        let creation = world.engine.heads().latest.hash;
        let mut nonces = 1..;
        let mut nonce = || nonces.next().expect("endless");
        let transfer = |nonce| world.signed(nonce, 21_000, contract, U256::ZERO, Bytes::new());
        while world.engine.heads().latest.number.0 < HEAD - 1 {
            world.send(&transfer(nonce())).await?;
            world.make_block(false)?;
        }
        let filters = [
            ask(&world, "eth_newBlockFilter", &[]).await?,
            ask(&world, "eth_newFilter", &[json!({ "address": contract })]).await?,
        ];

        let to = TxKind::Call(contract);
        let input = Bytes::from_static(b"input");
        let access_list =
            AccessList(vec![AccessListItem { address: contract, storage_keys: vec![B256::ZERO] }]);
        let legacy = world
            .send(&world.sign(TxLegacy {
                chain_id: Some(chain_id),
                nonce: nonce(),
                gas_price: 10_000_000,
                gas_limit: 200_000,
                to,
                value: U256::from(1),
                input: input.clone(),
            }))
            .await?;
        let listed = world
            .send(&world.sign(TxEip2930 {
                chain_id,
                nonce: nonce(),
                gas_price: 10_000_000,
                gas_limit: 200_000,
                to,
                input: input.clone(),
                access_list: access_list.clone(),
                ..Default::default()
            }))
            .await?;
        let dynamic = world
            .send(&world.sign(TxEip1559 {
                chain_id,
                nonce: nonce(),
                gas_limit: 200_000,
                max_fee_per_gas: 10_000_000,
                max_priority_fee_per_gas: 1_000_000,
                to,
                input: input.clone(),
                access_list,
                ..Default::default()
            }))
            .await?;
        let other = PrivateKeySigner::from_bytes(&B256::repeat_byte(2))?;
        let authorization =
            Authorization { chain_id: U256::from(chain_id), address: contract, nonce: 0 };
        let signature = other.sign_hash_sync(&authorization.signature_hash())?;
        let set_code = world
            .send(&world.sign(TxEip7702 {
                chain_id,
                nonce: nonce(),
                gas_limit: 200_000,
                max_fee_per_gas: 10_000_000,
                max_priority_fee_per_gas: 1_000_000,
                to: other.address(),
                input,
                authorization_list: vec![authorization.into_signed(signature)],
                ..Default::default()
            }))
            .await?;
        let last = nonce();
        let deploy = TxEip1559 {
            chain_id,
            nonce: last,
            gas_limit: 200_000,
            max_fee_per_gas: 10_000_000,
            to: TxKind::Create,
            input: init.into(),
            ..Default::default()
        };
        world.send(&world.sign(deploy)).await?;
        world.make_block(false)?;
        let latest = world.engine.heads().latest;
        let genesis = world.engine.heads().finalized.hash;
        // Waiting: one whose turn it is, and one that waits for it.
        let pending = world.send(&transfer(last + 1)).await?;
        world.send(&transfer(last + 3)).await?;
        let head = world.engine.store().reader().header(latest.number)?.context("the head")?;
        Ok(Self {
            contract,
            delegated: other.address(),
            create,
            legacy,
            access_list: listed,
            dynamic,
            set_code,
            block: latest.hash,
            time: head.timestamp,
            first,
            creation,
            filters,
            nonce: last + 2,
            genesis,
            pending,
            world,
        })
    }
}
