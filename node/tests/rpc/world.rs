//! A node of one process: engine, store, mempool and JSON-RPC server, and what the sequencer does by hand.

use alloy_consensus::{SignableTransaction, Signed, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use alloy_signer_local::PrivateKeySigner;
use anyhow::Context;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness,
    absolute::LockTime,
    block::{Header, Version},
    constants::genesis_block,
    hashes::Hash,
    transaction,
};
use jsonrpsee::{
    RpcModule,
    core::{
        client::{ClientT, Error},
        params::ArrayParams,
    },
    http_client::{HttpClient, HttpClientBuilder},
    rpc_params,
};
use kedge::{
    engine::{Engine, EngineOptions, open_store},
    mempool::{Mempool, MempoolConfig},
    mempool_link::HeadState,
    rpc::{NodeHandle, RpcConfig, ServerHandle, Submission, serve, types::Roles},
};
use kedge_bridge::{deposit::deposit_outputs, vault::vault_script};
use kedge_genesis::{L1Height, Network, Params, Sats};
use serde_json::Value;
use std::sync::Arc;

pub(crate) const ONE_BTC: Sats = Sats(100_000_000);

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) server: ServerHandle,
    pub(crate) http: HttpClient,
    pub(crate) params: &'static Params,
    _datadir: tempfile::TempDir,
}

pub(crate) fn signer() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).expect("a key")
}

fn l1_block(previous: BlockHash, height: u32, transactions: Vec<Transaction>) -> Block {
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(vec![4, height as u8, 0, 0, 0]),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(50 * 100_000_000),
            script_pubkey: ScriptBuf::new(),
        }],
    };
    let mut block = Block {
        header: Header {
            version: Version::TWO,
            prev_blockhash: previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_700_000_000 + height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        },
        txdata: [vec![coinbase], transactions].concat(),
    };
    block.header.merkle_root = block.compute_merkle_root().expect("has transactions");
    block
}

impl World {
    /// A node whose signer got one bitcoin by a deposit in L1 block 1.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        Self::with(|_| {}).await
    }

    /// The same, with other limits.
    pub(crate) async fn with(limits: impl FnOnce(&mut RpcConfig)) -> anyhow::Result<Self> {
        let params = Network::Regtest.params();
        let datadir = tempfile::tempdir()?;
        let store = open_store(datadir.path(), params)?;
        let engine = Arc::new(Engine::open(
            store.clone(),
            params,
            EngineOptions { verify_witness: true, ..EngineOptions::default() },
        )?);
        let mempool = Arc::new(Mempool::new(
            MempoolConfig::new(engine.evm()),
            Arc::new(HeadState::new(engine.clone())),
            None,
        ));
        let vault = vault_script(params).context("regtest has a vault")?;
        let deposit = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([7; 32]), 0),
                ..Default::default()
            }],
            output: deposit_outputs(&vault, &[(signer().address(), ONE_BTC)]),
        };
        let previous = genesis_block(bitcoin::Network::Regtest).block_hash();
        engine.connect_l1(L1Height(1), l1_block(previous, 1, vec![deposit]))?;
        let handle = NodeHandle {
            params,
            store,
            engine: engine.clone(),
            submission: Submission::Mempool(mempool.clone()),
            roles: Roles { sequencer: true, proposer: false, challenger: false },
            follower: None,
        };
        let mut config = RpcConfig { max_batch: 3, ..RpcConfig::new(([127, 0, 0, 1], 0).into()) };
        limits(&mut config);
        let server = serve(config, handle, RpcModule::new(())).await?;
        let http = HttpClientBuilder::default().build(format!("http://{}", server.address()))?;
        let world = Self { engine, mempool, server, http, params, _datadir: datadir };
        world.make_block(true)?;
        Ok(world)
    }

    /// What the sequencer does: the mempool's best into a block.
    pub(crate) fn make_block(&self, step: bool) -> anyhow::Result<()> {
        let base_fee = self.engine.position()?.next_base_fee;
        let user = self.mempool.best(base_fee).map(|tx| tx.encoded.clone()).collect();
        let (payload, cursor) = self.engine.plan(step, None, user)?.context("a block is due")?;
        let block = self.engine.append_unsafe(&payload, &cursor)?;
        anyhow::ensure!(block.skipped.is_empty(), "skipped: {:?}", block.skipped);
        self.mempool.on_block(block.state.accounts.keys().copied());
        Ok(())
    }

    pub(crate) async fn ask(&self, method: &str, params: ArrayParams) -> Result<Value, Error> {
        self.http.request(method, params).await
    }

    pub(crate) async fn quantity(&self, method: &str, params: ArrayParams) -> anyhow::Result<U256> {
        Ok(self.http.request(method, params).await?)
    }

    pub(crate) fn signed(
        &self,
        nonce: u64,
        gas: u64,
        to: Address,
        value: U256,
        input: Bytes,
    ) -> Bytes {
        self.sign(TxEip1559 {
            chain_id: self.params.chain_id,
            nonce,
            gas_limit: gas,
            max_fee_per_gas: 10_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to: TxKind::Call(to),
            value,
            input,
            ..Default::default()
        })
    }

    /// The EIP-2718 bytes of a transaction of [`signer`].
    pub(crate) fn sign<T>(&self, mut tx: T) -> Bytes
    where
        T: SignableTransaction<Signature>,
        TxEnvelope: From<Signed<T>>,
    {
        let signature = signer().sign_transaction_sync(&mut tx).expect("signs");
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }

    pub(crate) async fn send(&self, encoded: &Bytes) -> anyhow::Result<B256> {
        Ok(self.http.request("eth_sendRawTransaction", rpc_params![encoded]).await?)
    }
}

pub(crate) fn hex(value: &Value) -> U256 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a quantity")
}

pub(crate) fn refused(answer: Result<Value, Error>) -> (i32, String, Option<String>) {
    match answer {
        Err(Error::Call(object)) => (
            object.code(),
            object.message().to_owned(),
            object.data().map(|data| data.get().trim_matches('"').to_owned()),
        ),
        other => panic!("not refused: {other:?}"),
    }
}
