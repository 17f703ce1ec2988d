//! An engine over a store with as many token holders as one likes, and a Bitcoin made by hand.

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, absolute, block, transaction,
};
use k256::ecdsa::SigningKey;
use kedge::engine::{Engine, EngineOptions, genesis_of};
use kedge_bridge::assertion::{AssertionBody, assertion_id};
use kedge_bridge::batch::{Batch, BatchBlock, encode};
use kedge_bridge::bond::Bond;
use kedge_bridge::commit::{Commit, CommitOutput, reveal};
use kedge_bridge::derive::DeriveState;
use kedge_bridge::envelope::{EnvelopeHeader, Kind, leaf_script, sign_batch, split};
use kedge_bridge::vault::vault_script;
use kedge_fraud_proof::AssertionTracker;
use kedge_genesis::params::dev_secrets;
use kedge_genesis::{GenesisAccount, L1Height, L1Ref, L2Number, Network, Params, alloc};
use kedge_store::{Domain, Durability, Identity, L1Row, L1Rows, L2Rows, Store};
use kedge_vm::{ExecutedBlock, OpTxEnvelope, Payload, PayloadTx, Senders, genesis_block};
use kedge_workloads::token;
use std::sync::Arc;
use tempfile::TempDir;

/// A chain with token holders.
pub(crate) struct Chain {
    pub(crate) engine: Engine,
    pub(crate) params: &'static Params,
    holders: u64,
    senders: Vec<(SigningKey, u64)>,
    height: u32,
    tip: BlockHash,
    salt: u64,
    _dir: TempDir,
}

/// The dev network, with a window that no assertion of a benchmark outlives.
fn params() -> &'static Params {
    Box::leak(Box::new(Params { challenge_window: 10_000, ..*Network::Dev.params() }))
}

const TOKEN: Address = Address::repeat_byte(0x70);

fn signing_key(number: u64) -> SigningKey {
    SigningKey::from_slice(keccak256(number.to_be_bytes()).as_slice()).expect("a valid scalar")
}

/// A holder who never sends.
fn holder(number: u64) -> Address {
    Address::from_word(keccak256([&b"holder"[..], &number.to_be_bytes()].concat()))
}

fn publisher() -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &dev_secrets::SEQUENCER).expect("a key")
}

impl Chain {
    /// A store whose block 0 has so many accounts, each with coins and tokens; `senders` of them can send.
    pub(crate) fn new(accounts: u64, senders: u64) -> Result<Self> {
        let params = params();
        let derive = DeriveState::genesis(params).context("dev has keys")?;
        let vault = vault_script(params).context("dev has a vault")?;
        let keys: Vec<_> = (0..senders).map(|number| (signing_key(number), 0)).collect();
        let holders = accounts - senders;
        let addresses: Vec<Address> = keys
            .iter()
            .map(|(key, _)| Address::from_public_key(key.verifying_key()))
            .chain((0..holders).map(holder))
            .collect();
        let mut state = alloc(params, vault.as_bytes());
        let balance = U256::from(10u64.pow(18));
        state.extend(addresses.iter().map(|address| GenesisAccount {
            address: *address,
            nonce: 0,
            balance,
            code: Bytes::new(),
            storage: vec![],
        }));
        state.push(GenesisAccount {
            address: TOKEN,
            nonce: 1,
            balance: U256::ZERO,
            code: token::RUNTIME.into(),
            storage: addresses.iter().map(|of| (token::balance_slot(*of), balance)).collect(),
        });
        let genesis = genesis_block(params, &state)?;
        drop(state);

        let dir = TempDir::new()?;
        let network = genesis_of(params)?.hash;
        let identity =
            Identity { network: params.network, params: params.hash(), genesis: network };
        let store = Arc::new(Store::open(dir.path(), &identity)?);
        let mut change = store.change();
        change.write_genesis(&genesis, &derive.cursor)?;
        let start = u64::from(params.l1_start.height.0);
        change.begin(Domain::L1, start)?;
        let row = L1Row {
            hash: params.l1_start.hash,
            time: params.l1_start_time,
            safe: L2Number(0),
            deposits: 0,
            notes: 0,
        };
        change.put_l1_block(params.l1_start, None, &row)?;
        change.put_derived(&derive, &[])?;
        change.put_tracker(&AssertionTracker::genesis(params))?;
        change.end(Domain::L1)?;
        change.commit(Durability::Synced)?;
        let engine = Engine::open(store, params, EngineOptions::default())?;
        let tip = BlockHash::from_byte_array(params.l1_start.hash.0);
        Ok(Self { engine, params, holders, senders: keys, height: 0, tip, salt: 0, _dir: dir })
    }

    fn salt(&mut self) -> B256 {
        self.salt += 1;
        keccak256(self.salt.to_be_bytes())
    }

    fn transaction(&mut self, output: Vec<TxOut>) -> Transaction {
        let input = TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(self.salt().to_vec()),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![input],
            output,
        }
    }

    /// Bitcoin's next block, processed.
    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) -> Result<L1Ref> {
        let coinbase = self.transaction(vec![TxOut {
            value: Amount::from_sat(5_000_000_000),
            script_pubkey: ScriptBuf::new(),
        }]);
        self.height += 1;
        let mut block = Block {
            header: block::Header {
                version: block::Version::TWO,
                prev_blockhash: self.tip,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.params.l1_start_time + 60 * self.height,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata: std::iter::once(coinbase).chain(txs).collect(),
        };
        block.header.merkle_root = block.compute_merkle_root().context("a coinbase")?;
        self.tip = block.block_hash();
        Ok(self.engine.connect_l1(L1Height(self.height), block)?.at)
    }

    fn reveal(
        &mut self,
        kind: Kind,
        header: &EnvelopeHeader,
        body: &[u8],
        output: Vec<TxOut>,
    ) -> Result<Transaction> {
        let key = publisher().x_only_public_key().0;
        let leaf = leaf_script(&key, kind, header, body)?;
        let input = CommitOutput {
            outpoint: OutPoint::new(Txid::from_byte_array(self.salt().0), 0),
            value: Amount::from_sat(1_000_000_000),
            commit: Commit::new(key, leaf).context("the dev key makes an output")?,
        };
        Ok(reveal(&[input], output, &publisher())?)
    }

    /// A block of so many token transfers, each from another sender to another holder: planned and executed,
    /// not added.
    pub(crate) fn plan(&mut self, transfers: usize) -> Result<Planned> {
        let position = self.engine.position()?;
        let step = position.cursor.epoch_complete
            && position.cursor.origin.height < position.l1_tip.height;
        let mut list = Vec::with_capacity(transfers);
        for number in 0..transfers {
            self.salt += 1;
            let to = holder(u64::from_be_bytes(self.salt().0[..8].try_into()?) % self.holders);
            let (key, nonce) = &mut self.senders[number];
            let tx = TxEip1559 {
                chain_id: self.params.chain_id,
                nonce: *nonce,
                gas_limit: 60_000,
                max_fee_per_gas: 1_000_000_000,
                max_priority_fee_per_gas: 1_000_000,
                to: TxKind::Call(TOKEN),
                input: token::transfer(to, U256::from(1_000_000 + number)).into(),
                ..Default::default()
            };
            *nonce += 1;
            let hash = tx.signature_hash();
            let (signature, parity) = key.sign_prehash_recoverable(hash.as_slice())?;
            let signed = tx.into_signed(Signature::from((signature, parity)));
            list.push(Bytes::from(OpTxEnvelope::from(signed).encoded_2718()));
        }
        let (payload, cursor) =
            self.engine.plan(step, None, list)?.context("the block is allowed")?;
        Ok(Planned { payload, cursor })
    }

    /// Executes a planned block on the latest state, as a node does that follows the chain.
    pub(crate) fn execute(&self, planned: &Planned) -> Result<ExecutedBlock> {
        Ok(self.engine.preview(&planned.payload, &Senders::default())?)
    }

    /// Adds a planned block, has Bitcoin confirm it in a batch, and a wrong assertion about it. Answers the
    /// assertion's id.
    pub(crate) fn assert_wrongly(&mut self, planned: Planned) -> Result<B256> {
        self.engine.append_unsafe(&planned.payload, &planned.cursor)?;
        let batch = self.batch()?;
        self.mine(batch)?;
        let l1 = self.engine.heads().l1_tip;
        let reader = self.engine.store().reader();
        let mut claims = Vec::new();
        for height in 1..=l1.height.0 {
            let own = reader.claims(L1Height(height))?.context("claims of a processed block")?;
            claims.extend(own.iter().map(kedge_fraud_proof::Claim::hash));
        }
        drop(reader);
        *claims.last_mut().context("a claim")? = B256::repeat_byte(1);
        let body =
            AssertionBody { parent: B256::ZERO, params_hash: self.params.hash(), l1, claims };
        let id = self.params.chain_id;
        let parts = split(Kind::Assertion, id, 0, B256::ZERO, &body.encode(), self.params)?;
        let key = publisher().x_only_public_key().0;
        let bond = Bond::of(self.params, key).context("dev has signers")?;
        let output = vec![bond.tx_out(self.params.proposer_bond)];
        let tx = self.reveal(Kind::Assertion, &parts[0].0, &parts[0].1, output)?;
        let id = assertion_id(&OutPoint::new(tx.compute_txid(), 0));
        self.mine(vec![tx])?;
        Ok(id)
    }

    fn batch(&mut self) -> Result<Vec<Transaction>> {
        let (heads, reader) = (self.engine.heads(), self.engine.store().reader());
        let derive = reader.derive_state(heads.l1_tip.height)?.context("the tip's derive state")?;
        let first = heads.safe.number.next();
        let mut blocks = Vec::new();
        for number in first.0..=heads.latest.number.0 {
            let payload = reader.payload(L2Number(number))?.context("a block's payload")?;
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
        drop(reader);
        let last_origin = heads.latest.origin.hash[..20].try_into()?;
        let body = encode(&Batch { first, last_origin, blocks })?;
        let (id, index) = (self.params.chain_id, derive.next_batch);
        let mut parts = split(Kind::Batch, id, index, derive.prev_body, &body, self.params)?;
        sign_batch(&mut parts, &publisher());
        parts.iter().map(|(head, body)| self.reveal(Kind::Batch, head, body, vec![])).collect()
    }
}

/// A block that may be added.
pub(crate) struct Planned {
    pub(crate) payload: Payload,
    cursor: kedge_bridge::derive::L2Cursor,
}
