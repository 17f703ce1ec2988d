//! A chain with a transaction of every kind, and where they are.

use crate::world::{World, signer};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::Authorization,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;

/// Counts its calls in slot 0 and emits a log with two topics: `emit` and the hash of the call's input.
const EMITTER: &[u8] =
    &hex!("3680600080376000206000548082558060010160005560005263656d697460206000a2");

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
    /// The block that holds the four.
    pub(crate) block: B256,
    pub(crate) genesis: B256,
    /// Waits in the mempool.
    pub(crate) pending: B256,
}

impl Facts {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let world = World::new().await?;
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
                input: init.into(),
                ..Default::default()
            }))
            .await?;
        world.make_block(false)?;

        let to = TxKind::Call(contract);
        let input = Bytes::from_static(b"input");
        let access_list =
            AccessList(vec![AccessListItem { address: contract, storage_keys: vec![B256::ZERO] }]);
        let legacy = world
            .send(&world.sign(TxLegacy {
                chain_id: Some(chain_id),
                nonce: 1,
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
                nonce: 2,
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
                nonce: 3,
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
                nonce: 4,
                gas_limit: 200_000,
                max_fee_per_gas: 10_000_000,
                max_priority_fee_per_gas: 1_000_000,
                to: other.address(),
                input,
                authorization_list: vec![authorization.into_signed(signature)],
                ..Default::default()
            }))
            .await?;
        world.make_block(false)?;
        let latest = world.engine.heads().latest;
        let genesis = world.engine.heads().finalized.hash;
        // Waiting: one whose turn it is, and one that waits for it.
        let transfer = |nonce| world.signed(nonce, 21_000, contract, U256::ZERO, Bytes::new());
        let pending = world.send(&transfer(5)).await?;
        world.send(&transfer(7)).await?;
        Ok(Self {
            contract,
            delegated: other.address(),
            create,
            legacy,
            access_list: listed,
            dynamic,
            set_code,
            block: latest.hash,
            genesis,
            pending,
            world,
        })
    }
}
