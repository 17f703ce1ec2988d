//! A Bitcoin chain made by hand, a store and an engine.

use super::super::*;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use kedge_bridge::assertion::AssertionBody;
use kedge_bridge::batch::{Batch, BatchBlock, encode};
use kedge_bridge::bond::Bond;
use kedge_bridge::commit::{Commit, CommitOutput, reveal};
use kedge_bridge::deposit::deposit_outputs;
use kedge_bridge::envelope::{EnvelopeHeader, Kind, leaf_script, sign_batch, split};
use kedge_bridge::payout::build_payout;
use kedge_bridge::vault::Vault;
use kedge_genesis::abi::BitcoinBridge::withdrawCall;
use kedge_genesis::params::dev_secrets;
use kedge_genesis::{L1Height, Network, predeploys};
use kedge_store::OwnClaims;
use kedge_vm::{ExecutedBlock, PayloadTx};
use std::collections::BTreeMap;
use tempfile::TempDir;

pub(crate) const GWEI: u128 = 1_000_000_000;

/// The dev network with deeper finality, so that reorganisations fit in.
pub(crate) fn params() -> &'static Params {
    Box::leak(Box::new(Params { finality_depth: 4, ..*Network::Dev.params() }))
}

pub(crate) type Dump = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

pub(crate) struct World {
    pub(crate) params: &'static Params,
    pub(crate) dir: TempDir,
    pub(crate) engine: Arc<Engine>,
    /// The Bitcoin chain above the network's start.
    pub(crate) chain: Vec<Block>,
    /// Tells blocks and transactions apart that are otherwise equal.
    salt: u64,
    pub(crate) nonce: u64,
}

fn keypair(secret: &[u8; 32]) -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), secret).unwrap()
}

pub(crate) fn sequencer_key() -> Keypair {
    keypair(&dev_secrets::SEQUENCER)
}

pub(crate) fn account() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap()
}

/// Opens an engine that checks every block on a witness too.
pub(crate) fn open(dir: &TempDir, params: &'static Params) -> Arc<Engine> {
    open_with(dir, params, EngineOptions::default())
}

fn open_with(dir: &TempDir, params: &'static Params, options: EngineOptions) -> Arc<Engine> {
    let store = open_store(dir.path(), params).unwrap();
    let options = EngineOptions { verify_witness: true, ..options };
    Arc::new(Engine::open(store, params, options).unwrap())
}

/// Every row of every table of `domain`.
pub(crate) fn dump(store: &Store, domain: Domain) -> Dump {
    let reader = store.reader();
    let tables = Table::ALL.iter().filter(|table| table.domain() == domain);
    tables
        .flat_map(|table| reader.all(*table).map(|row| (*table, row.unwrap())))
        .map(|(table, (key, value))| ((table, key.to_vec()), value.to_vec()))
        .collect()
}

/// Makes a block's header commit to its body, witnesses included, and gives it the work that it names.
pub(crate) fn seal(block: &mut Block) {
    let reserved = [0; 32];
    let coinbase = &mut block.txdata[0];
    coinbase.input[0].witness = Witness::from_slice(&[reserved]);
    let root = block.witness_root().unwrap();
    let commitment = Block::compute_witness_commitment(&root, &reserved).to_byte_array();
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &commitment].concat();
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
    block.txdata[0].output.push(output);
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(params())
    }

    pub(crate) fn of(params: &'static Params) -> Self {
        let dir = TempDir::new().unwrap();
        let engine = open(&dir, params);
        Self { params, dir, engine, chain: Vec::new(), salt: 0, nonce: 0 }
    }

    /// Drops the engine, as the end of the process would, and opens the store again.
    pub(crate) fn reopen(&mut self) {
        let other = TempDir::new().unwrap();
        self.engine = open(&other, self.params);
        self.engine = open(&self.dir, self.params);
    }

    /// The same, on a node that prunes from now on.
    pub(crate) fn reopen_to_prune(&mut self) {
        let other = TempDir::new().unwrap();
        self.engine = open(&other, self.params);
        let options = EngineOptions { prune: true, ..EngineOptions::default() };
        self.engine = open_with(&self.dir, self.params, options);
    }

    pub(crate) fn store(&self) -> &Store {
        self.engine.store()
    }

    pub(crate) fn height(&self) -> L1Height {
        L1Height(u32::try_from(self.chain.len()).unwrap())
    }

    fn next_salt(&mut self) -> u64 {
        self.salt += 1;
        self.salt
    }

    fn outpoint(&mut self) -> OutPoint {
        let salt = alloy_primitives::keccak256(self.next_salt().to_be_bytes());
        OutPoint::new(Txid::from_byte_array(salt.0), 0)
    }

    /// The next block of the Bitcoin chain; not processed yet.
    pub(crate) fn block(&mut self, mut txs: Vec<Transaction>) -> Block {
        let height = self.height().0 + 1;
        let coinbase = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from_bytes(self.next_salt().to_be_bytes().to_vec()),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(5_000_000_000),
                script_pubkey: ScriptBuf::new(),
            }],
        };
        txs.insert(0, coinbase);
        let prev_blockhash = match self.chain.last() {
            Some(block) => block.block_hash(),
            None => BlockHash::from_byte_array(self.params.l1_start.hash.0),
        };
        let mut block = Block {
            header: Header {
                version: Version::TWO,
                prev_blockhash,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.params.l1_start_time + 60 * height,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata: txs,
        };
        seal(&mut block);
        block
    }

    /// The next block of the Bitcoin chain, for others to process.
    pub(crate) fn extend(&mut self) {
        let block = self.block(vec![]);
        self.chain.push(block);
    }

    /// The next block of the Bitcoin chain, processed.
    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) -> Arc<L1Outcome> {
        let block = self.block(txs);
        let outcome = self.engine.connect_l1(self.height().next(), block.clone()).unwrap();
        self.chain.push(block);
        assert!(outcome.solvency.holds(), "{:?}", outcome.solvency);
        self.check_heads();
        outcome
    }

    /// Bitcoin drops its newest block.
    pub(crate) fn orphan(&mut self) -> Block {
        self.engine.disconnect_l1().unwrap();
        self.check_heads();
        self.chain.pop().unwrap()
    }

    pub(crate) fn check_heads(&self) {
        let heads = self.engine.heads();
        let numbers =
            [heads.latest, heads.safe, heads.finalized, heads.settled].map(|it| it.number);
        assert!(numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
    }

    pub(crate) fn deposit(&mut self, to: Address, sats: u64) -> Transaction {
        let script = vault_script(self.params).unwrap();
        self.pay(deposit_outputs(&script, &[(to, Sats(sats))]))
    }

    /// A transaction with these outputs.
    pub(crate) fn pay(&mut self, output: Vec<TxOut>) -> Transaction {
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: self.outpoint(),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output,
        }
    }

    /// A reveal of one envelope.
    fn reveal(
        &mut self,
        kind: Kind,
        header: &EnvelopeHeader,
        body: &[u8],
        output: Vec<TxOut>,
    ) -> Transaction {
        let publisher = sequencer_key();
        let key = publisher.x_only_public_key().0;
        let leaf = leaf_script(&key, kind, header, body).unwrap();
        let input = CommitOutput {
            outpoint: self.outpoint(),
            value: Amount::ONE_BTC,
            commit: Commit::new(key, leaf).unwrap(),
        };
        reveal(&[input], output, &publisher).unwrap()
    }

    /// The sequencer's next block; begins the next epoch when there is one.
    pub(crate) fn build(&mut self, user: Vec<Bytes>) -> Option<Arc<ExecutedBlock>> {
        let position = self.engine.position().unwrap();
        let step = position.cursor.epoch_complete
            && position.cursor.origin.height < position.l1_tip.height;
        let (payload, cursor) = self.engine.plan(step, None, user).unwrap()?;
        let block = self.engine.append_unsafe(&payload, &cursor).unwrap();
        self.check_heads();
        Some(block)
    }

    /// The reveal of a batch of all unsafe blocks.
    pub(crate) fn batch(&mut self) -> Option<Transaction> {
        let (heads, reader) = (self.engine.heads(), self.store().reader());
        let first = heads.safe.number.next();
        let mut blocks = Vec::new();
        for number in first.0..=heads.latest.number.0 {
            let payload = reader.payload(L2Number(number)).unwrap().unwrap();
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
        if blocks.is_empty() {
            return None;
        }
        let last_origin = heads.latest.origin.hash[..20].try_into().unwrap();
        drop(reader);
        Some(self.reveal_batch(&Batch { first, last_origin, blocks }))
    }

    /// The reveal of a batch.
    pub(crate) fn reveal_batch(&mut self, batch: &Batch) -> Transaction {
        let derive = derive_state(&self.store().reader(), self.engine.heads().l1_tip).unwrap();
        let (id, index) = (self.params.chain_id, derive.next_batch);
        let body = encode(batch).unwrap();
        let mut parts =
            split(Kind::Batch, id, index, derive.prev_body, &body, self.params).unwrap();
        sign_batch(&mut parts, &sequencer_key());
        let (header, body) = &parts[0];
        self.reveal(Kind::Batch, header, body, Vec::new())
    }

    /// The reveal of the next assertion.
    pub(crate) fn assertion(&mut self) -> Option<Transaction> {
        self.assertion_with(|_| {})
    }

    /// The same with other claims.
    pub(crate) fn assertion_with(
        &mut self,
        spoil: impl FnOnce(&mut Vec<B256>),
    ) -> Option<Transaction> {
        let reader = self.store().reader();
        let own = OwnClaims(&reader);
        let body = self.engine.tracker().unwrap().build_assertion(self.params, &own).unwrap();
        drop(reader);
        let mut body = body?;
        spoil(&mut body.claims);
        Some(self.assertion_of(&body))
    }

    fn assertion_of(&mut self, body: &AssertionBody) -> Transaction {
        let id = self.params.chain_id;
        let parts = split(Kind::Assertion, id, 0, B256::ZERO, &body.encode(), self.params).unwrap();
        let key = sequencer_key().x_only_public_key().0;
        let bond = Bond::of(self.params, key).unwrap().tx_out(self.params.proposer_bond);
        let (header, body) = &parts[0];
        self.reveal(Kind::Assertion, header, body, vec![bond])
    }

    /// The reveal of an assertion that continues another by one L1 block, right or wrong.
    pub(crate) fn child_of(&mut self, parent: B256) -> Transaction {
        use kedge_fraud_proof::OwnChain as _;
        let tracker = self.engine.tracker().unwrap();
        let height = tracker.get(&parent).unwrap().l1.height.next();
        let own = OwnClaims(&self.store().reader()).own_block(height).unwrap().unwrap();
        let (params_hash, l1) = (self.params.hash(), L1Ref { height, hash: own.hash });
        self.assertion_of(&AssertionBody { parent, params_hash, l1, claims: own.claims })
    }

    /// The reveals of a fraud proof.
    pub(crate) fn proof(&mut self, proof: &[u8]) -> Vec<Transaction> {
        let id = self.params.chain_id;
        let parts = split(Kind::Proof, id, 0, B256::ZERO, proof, self.params).unwrap();
        parts.iter().map(|(head, body)| self.reveal(Kind::Proof, head, body, vec![])).collect()
    }

    /// The payout of everything due, signed.
    pub(crate) fn payout(&self) -> Option<Transaction> {
        let payable = self.engine.payable().unwrap()?;
        if payable.unpaid.is_empty() {
            return None;
        }
        let vault = Vault::of(self.params).unwrap();
        let rate = bitcoin::FeeRate::BROADCAST_MIN;
        let plan =
            build_payout(&vault, &payable.head, &payable.coins, &payable.unpaid, rate).unwrap();
        let shares: Vec<_> = dev_secrets::SIGNERS[..2]
            .iter()
            .map(|secret| plan.multisig().sign(&keypair(secret)).unwrap())
            .collect();
        Some(plan.multisig().assemble(&shares).unwrap())
    }

    pub(crate) fn user_tx(&mut self, to: Address, value: U256, input: Bytes) -> Bytes {
        self.user_tx_of(500_000, to, value, input)
    }

    /// A transfer of wei that declares the gas it takes and no more.
    pub(crate) fn plain_transfer(&mut self, to: Address, value: U256) -> Bytes {
        self.user_tx_of(21_000, to, value, Bytes::new())
    }

    pub(crate) fn user_tx_of(
        &mut self,
        gas_limit: u64,
        to: Address,
        value: U256,
        input: Bytes,
    ) -> Bytes {
        let mut tx = TxEip1559 {
            chain_id: self.params.chain_id,
            nonce: self.nonce,
            gas_limit,
            max_fee_per_gas: GWEI,
            max_priority_fee_per_gas: 1_000_000,
            to: TxKind::Call(to),
            value,
            input,
            ..Default::default()
        };
        self.nonce += 1;
        let signature = account().sign_transaction_sync(&mut tx).unwrap();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }

    pub(crate) fn transfer(&mut self, to: Address, sats: u64) -> Bytes {
        self.user_tx(to, Sats(sats).to_wei(), Bytes::new())
    }

    pub(crate) fn withdrawal(&mut self, script: &ScriptBuf, sats: u64) -> Bytes {
        let call = withdrawCall { scriptPubKey: script.to_bytes().into() }.abi_encode();
        self.user_tx(predeploys::BITCOIN_BRIDGE, Sats(sats).to_wei(), call.into())
    }

    pub(crate) fn balance(&self, address: Address) -> U256 {
        let account = self.store().account(address).unwrap();
        account.map_or(U256::ZERO, |account| account.balance)
    }
}
