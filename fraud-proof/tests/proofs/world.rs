//! A Bitcoin of made-up blocks with a real L2 on it: batches, deposits, execution, assertions.

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, XOnlyPublicKey, transaction,
};
use k256::ecdsa::SigningKey;
use kedge_bridge::assertion::{AssertionBody, assertion_id};
use kedge_bridge::batch::{self, Batch, BatchBlock};
use kedge_bridge::bond::Bond;
use kedge_bridge::deposit::deposit_outputs;
use kedge_bridge::derive::{DeriveState, L1Block, L1Lookup, L2Cursor, derive, next_payload};
use kedge_bridge::envelope::{EnvelopeHeader, Kind, leaf_script, sign_batch, split};
use kedge_fraud_proof::{
    Applied, AssertionEvent, AssertionTracker, AssertionView, Claim, Executor, OwnBlock, OwnChain,
    PreState, Proof, build_proof, first_divergence, genesis_claim, step,
};
use kedge_genesis::params::dev_secrets;
use kedge_genesis::{L1Height, L1Ref, Network, Params, Sats, alloc};
use kedge_vm::{EvmConfig, ExecutedBlock, MemoryDb, OpTxEnvelope, Payload, execute, genesis_block};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

pub(crate) fn params() -> Params {
    Params {
        sequencing_window: 4,
        channel_timeout: 3,
        challenge_window: 6,
        max_assertion_span: 20,
        finality_depth: 1,
        segment_target_gas: 200_000,
        ..*Network::Dev.params()
    }
}

pub(crate) struct Account(SigningKey);

pub(crate) fn account(number: u8) -> Account {
    Account(SigningKey::from_slice(keccak256([number]).as_slice()).unwrap())
}

impl Account {
    pub(crate) fn address(&self) -> Address {
        Address::from_public_key(self.0.verifying_key())
    }

    pub(crate) fn send(&self, nonce: u64, to: TxKind, value: u64, input: Vec<u8>) -> Bytes {
        self.send_gas(nonce, to, value, input, 500_000)
    }

    pub(crate) fn send_gas(
        &self,
        nonce: u64,
        to: TxKind,
        value: u64,
        input: Vec<u8>,
        gas_limit: u64,
    ) -> Bytes {
        let tx = TxEip1559 {
            chain_id: params().chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: 100_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to,
            value: U256::from(value),
            input: input.into(),
            ..Default::default()
        };
        let hash = tx.signature_hash();
        let (signature, parity) = self.0.sign_prehash_recoverable(hash.as_slice()).unwrap();
        let signed = tx.into_signed(Signature::from((signature, parity)));
        OpTxEnvelope::from(signed).encoded_2718().into()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Chain(pub(crate) BTreeMap<u32, Arc<Block>>);

impl L1Lookup for Chain {
    type Error = Infallible;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Infallible> {
        Ok(Arc::clone(self.0.get(&height.0).expect("a block of this chain above its start")))
    }
}

pub(crate) struct Own<'a>(pub(crate) &'a BTreeMap<u32, OwnBlock>);

impl OwnChain for Own<'_> {
    type Error = Infallible;

    fn own_block(&self, height: L1Height) -> Result<Option<OwnBlock>, Infallible> {
        Ok(self.0.get(&height.0).cloned())
    }
}

/// Executes on memory, truly or not.
struct Execution<'a> {
    config: EvmConfig,
    db: MemoryDb,
    alter: &'a dyn Fn(&mut Payload),
    applied: Vec<Applied>,
    /// The hash of each block executed.
    hashes: Vec<B256>,
}

impl Execution<'_> {
    fn run(&mut self, payload: &Payload) -> ExecutedBlock {
        let mut payload = payload.clone();
        (self.alter)(&mut payload);
        let (_, parent) = self.db.headers.pop_last().unwrap();
        let block =
            execute(&self.config, &parent, parent.hash_slow(), &payload, &mut self.db).unwrap();
        self.db.apply(&block);
        self.hashes.push(block.hash);
        block
    }
}

impl Executor for Execution<'_> {
    type Error = Infallible;

    fn apply(&mut self, payload: &Payload, _: &L2Cursor) -> Result<Applied, Infallible> {
        let block = self.run(payload);
        let applied = Applied {
            number: payload.number,
            output_root: block.output_root,
            metered_gas: block.metered_gas,
            witness_bytes: block.witness_bytes,
        };
        self.applied.push(applied);
        Ok(applied)
    }
}

/// The code that creates a contract of this code, at most 32 bytes.
pub(crate) fn creation(runtime: &[u8]) -> Vec<u8> {
    let size = runtime.len() as u8;
    // PUSH it, store the word, return the end of it.
    let mut init = vec![0x5f + size];
    init.extend(runtime);
    init.extend([0x5f, 0x52, 0x60, size, 0x60, 32 - size, 0xf3]);
    init
}

pub(crate) fn publisher(number: u8) -> XOnlyPublicKey {
    XOnlyPublicKey::from_keypair(&keypair([number; 32])).0
}

fn keypair(secret: [u8; 32]) -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &secret).unwrap()
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) params: Params,
    pub(crate) chain: Chain,
    pub(crate) state: DeriveState,
    pub(crate) derive_states: BTreeMap<u32, DeriveState>,
    /// The L2 state after each L1 block.
    pub(crate) states: BTreeMap<u32, MemoryDb>,
    /// What the meter said of the L2 blocks of each L1 block.
    pub(crate) applied: BTreeMap<u32, Vec<Applied>>,
    /// The hashes of all L2 blocks.
    pub(crate) hashes: Vec<B256>,
    pub(crate) claims: BTreeMap<u32, Vec<Claim>>,
    pub(crate) own: BTreeMap<u32, OwnBlock>,
    pub(crate) tracker: AssertionTracker,
    pub(crate) counter: u32,
}

impl World {
    pub(crate) fn new(params: Params) -> Self {
        let state = DeriveState::genesis(&params).unwrap();
        let genesis =
            genesis_block(&params, &alloc(&params, state.vault.current.as_bytes())).unwrap();
        Self {
            chain: Chain::default(),
            derive_states: BTreeMap::from([(state.l1.height.0, state.clone())]),
            state,
            states: BTreeMap::from([(params.l1_start.height.0, MemoryDb::new(&genesis))]),
            applied: BTreeMap::new(),
            hashes: vec![genesis.hash],
            claims: BTreeMap::new(),
            own: BTreeMap::new(),
            tracker: AssertionTracker::genesis(&params),
            counter: 0,
            params,
        }
    }

    /// A chain in which everything happens: deposits, transfers, contracts, several segments a block.
    pub(crate) fn busy(params: Params, blocks: u32) -> Self {
        let mut world = Self::new(params);
        let (alice, bob) = (account(1), account(2));
        let deposits = [alice.address(), bob.address()].map(|to| (to, Sats(100_000_000)));
        let deposit = world.deposit(&deposits);
        world.mine(vec![deposit]);
        // Stores the block number under the caller's word and returns.
        let init = creation(&[0x43, 0x5f, 0x35, 0x55, 0x00]);
        let contract = alice.address().create(0);
        let mut nonces = [0u64; 2];
        for round in 0..blocks {
            let mut lists = Vec::new();
            for list in 0..3u64 {
                let mut users = Vec::new();
                for tx in 0..=list {
                    let who = usize::from((round as u64 + tx).is_multiple_of(2));
                    let nonce = nonces[who];
                    let from = [&alice, &bob][who];
                    users.push(if who == 0 && nonce == 0 {
                        from.send(nonce, TxKind::Create, 0, init.clone())
                    } else if tx == 1 {
                        let slot = U256::from(nonce * 3 + list).to_be_bytes_vec();
                        from.send(nonce, TxKind::Call(contract), 0, slot)
                    } else {
                        let to = Address::left_padding_from(&(nonce * 5 + list + 1).to_be_bytes());
                        from.send(nonce, TxKind::Call(to), 1_000 + nonce, vec![])
                    });
                    nonces[who] += 1;
                }
                lists.push(users);
            }
            let mut txs = vec![world.batch(lists)];
            if round.is_multiple_of(2) {
                let to = Address::repeat_byte(round as u8);
                txs.push(world.deposit(&[(to, Sats(20_000)), (alice.address(), Sats(30_000))]));
            }
            world.mine(txs);
            if round == 2 {
                world.mine(vec![]);
            }
        }
        world
    }

    pub(crate) fn tx(&mut self, witness: Witness, output: Vec<TxOut>) -> Transaction {
        self.counter += 1;
        let previous_output = OutPoint::new(Txid::hash(&self.counter.to_le_bytes()), 0);
        let (script_sig, sequence) = (ScriptBuf::new(), Sequence::MAX);
        let input = vec![TxIn { previous_output, script_sig, sequence, witness }];
        Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
    }

    pub(crate) fn deposit(&mut self, to: &[(Address, Sats)]) -> Transaction {
        let outputs = deposit_outputs(&self.state.vault.current, to);
        self.tx(Witness::new(), outputs)
    }

    pub(crate) fn reveal(
        &mut self,
        by: u8,
        kind: Kind,
        header: &EnvelopeHeader,
        body: &[u8],
        output: Vec<TxOut>,
    ) -> Transaction {
        let leaf = leaf_script(&publisher(by), kind, header, body).unwrap();
        let control = [&[0xc0][..], &publisher(by).serialize()].concat();
        self.tx(Witness::from_slice(&[&[1; 64][..], leaf.as_bytes(), &control]), output)
    }

    /// A batch with one L2 block per list, on what is derived.
    pub(crate) fn batch(&mut self, lists: Vec<Vec<Bytes>>) -> Transaction {
        let mut reveals = self.batch_chunks(lists);
        assert_eq!(reveals.len(), 1);
        reveals.remove(0)
    }

    /// The same of any number of chunks.
    pub(crate) fn batch_chunks(&mut self, lists: Vec<Vec<Bytes>>) -> Vec<Transaction> {
        let mut cursor = self.state.cursor;
        let first = cursor.number.next();
        let mut blocks = Vec::new();
        for users in lists {
            let known = cursor.origin != self.state.l1;
            let epoch_step = cursor.epoch_complete && known;
            let (payload, next) = next_payload(
                &self.params,
                &cursor,
                &self.state.epochs,
                &self.chain,
                epoch_step,
                None,
                users.clone(),
            )
            .unwrap()
            .unwrap();
            let timestamp = payload.timestamp;
            blocks.push(BatchBlock { timestamp, epoch_step, transactions: users });
            cursor = next;
        }
        let last_origin = cursor.origin.hash[..20].try_into().unwrap();
        let body = batch::encode(&Batch { first, last_origin, blocks }).unwrap();
        self.batch_body(&body)
    }

    /// What the sequencer signs as the next batch.
    pub(crate) fn batch_body(&mut self, body: &[u8]) -> Vec<Transaction> {
        let (index, prev) = (self.state.next_batch, self.state.prev_body);
        let chain_id = self.params.chain_id;
        let mut parts = split(Kind::Batch, chain_id, index, prev, body, &self.params).unwrap();
        sign_batch(&mut parts, &keypair(dev_secrets::SEQUENCER));
        parts
            .iter()
            .map(|(header, body)| self.reveal(7, Kind::Batch, header, body, vec![]))
            .collect()
    }

    /// Mines and processes a block.
    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) -> Vec<AssertionEvent> {
        let l1 = self.block(txs);
        self.connect(l1)
    }

    /// The next block.
    pub(crate) fn block(&mut self, txs: Vec<Transaction>) -> L1Block {
        let height = self.state.l1.height.next();
        let mut coinbase = self.tx(Witness::new(), vec![]);
        coinbase.input[0].previous_output = OutPoint::null();
        coinbase.output =
            vec![TxOut { value: Amount::ZERO, script_pubkey: vec![height.0 as u8].into() }];
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::from_byte_array(self.state.l1.hash.0),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.params.l1_start_time + height.0 * 600,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let mut block = Block { header, txdata: std::iter::once(coinbase).chain(txs).collect() };
        commit_to_witnesses(&mut block);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        L1Block::new(height, Arc::new(block))
    }

    fn connect(&mut self, l1: L1Block) -> Vec<AssertionEvent> {
        let height = l1.at.height;
        let before = height.prev().unwrap();
        let mut executor = self.execution(before, &|_| {});
        let root = self.last_claim(before).output_root;
        let output =
            step(&self.params, &self.state, root, &l1, &self.chain, &mut executor).unwrap();
        let Execution { db, applied, hashes, .. } = executor;
        self.hashes.extend(hashes);
        self.states.insert(height.0, db);
        self.applied.insert(height.0, applied);
        assert!(output.post.is_shaped(&self.params));
        self.state = output.post.clone();
        self.derive_states.insert(height.0, output.post);
        let hashes = output.claims.iter().map(Claim::hash).collect();
        self.own.insert(height.0, OwnBlock { hash: l1.at.hash, claims: hashes });
        self.claims.insert(height.0, output.claims);
        // The tracker must not need the block at hand from the lookup.
        let own = Own(&self.own);
        let events = self.tracker.on_l1_block(&self.params, &l1, &own, &self.chain).unwrap();
        assert_eq!(AssertionTracker::decode(&self.tracker.encode()).unwrap(), self.tracker);
        self.chain.0.insert(height.0, l1.block);
        events
    }

    fn execution<'a>(&self, after: L1Height, alter: &'a dyn Fn(&mut Payload)) -> Execution<'a> {
        let (config, db) = (EvmConfig::from_params(&self.params), self.states[&after.0].clone());
        Execution { config, db, alter, applied: Vec::new(), hashes: Vec::new() }
    }

    /// The true claim at the end of an L1 block.
    pub(crate) fn last_claim(&self, height: L1Height) -> Claim {
        match self.claims.get(&height.0) {
            Some(claims) => *claims.last().unwrap(),
            None => genesis_claim(&self.params).unwrap(),
        }
    }

    /// The claims of the L1 blocks above `from` up to `to` of somebody who executes other payloads, and his
    /// last L2 header.
    pub(crate) fn lie(
        &self,
        from: u32,
        to: u32,
        alter: &dyn Fn(&mut Payload),
    ) -> (Vec<Claim>, kedge_vm::Header) {
        let mut executor = self.execution(L1Height(from), alter);
        let mut claims = vec![self.last_claim(L1Height(from))];
        for height in from..to {
            let (pre, root) = (&self.derive_states[&height], claims.last().unwrap().output_root);
            let l1 = L1Block::new(L1Height(height + 1), Arc::clone(&self.chain.0[&(height + 1)]));
            let output = step(&self.params, pre, root, &l1, &self.chain, &mut executor).unwrap();
            claims.extend(output.claims);
        }
        let (_, header) = executor.db.headers.pop_last().unwrap();
        (claims.split_off(1), header)
    }

    /// The true claims of the L1 blocks above `from` up to `to`.
    pub(crate) fn truth(&self, from: u32, to: u32) -> Vec<Claim> {
        self.claims.range(from + 1..=to).flat_map(|(_, claims)| claims.clone()).collect()
    }

    pub(crate) fn at(&self, height: u32) -> L1Ref {
        L1Ref { height: L1Height(height), hash: self.own[&height].hash }
    }

    /// What a challenger knows of a true claim.
    pub(crate) fn pre(&self, claim: &Claim) -> (PreState, MemoryDb) {
        let mut executor = self.execution(claim.l1_height, &|_| {});
        let state = self.derive_states[&claim.l1_height.0].clone();
        if claim.offset > 0 {
            let height = claim.l1_height.next();
            let l1 = L1Block::new(height, Arc::clone(&self.chain.0[&height.0]));
            let derived = derive(&self.params, &state, &l1, &self.chain).unwrap();
            for payload in &derived.payloads[..claim.offset as usize] {
                executor.run(payload);
            }
        }
        let db = executor.db;
        let header = db.headers.last_key_value().unwrap().1.clone();
        assert_eq!(header.number, claim.number.0);
        (PreState { claim: *claim, state, header }, db)
    }

    /// The proof about `segment` of an assertion from the network's start, true before it.
    pub(crate) fn prove(&self, view: &AssertionView<'_>, segment: usize) -> Proof {
        let truth = self.truth(0, view.l1.height.0);
        let claim = match segment.checked_sub(1) {
            None => genesis_claim(&self.params).unwrap(),
            Some(before) => truth[before],
        };
        let (pre, db) = self.pre(&claim);
        build_proof(&self.params, &self.chain, view, segment as u32, &pre, db).unwrap()
    }

    /// Back to the end of the L1 block at that height, but for the tracker.
    pub(crate) fn rewind(&mut self, height: L1Height) {
        self.state = self.derive_states[&height.0].clone();
        self.chain.0.retain(|at, _| *at <= height.0);
        self.own.retain(|at, _| *at <= height.0);
        self.claims.retain(|at, _| *at <= height.0);
        self.hashes.truncate(self.state.cursor.number.0 as usize + 1);
    }

    /// An assertion from the network's start as verifiers see it.
    pub(crate) fn view<'a>(&self, id: B256, to: u32, claims: &'a [B256]) -> AssertionView<'a> {
        let base = genesis_claim(&self.params).unwrap().hash();
        AssertionView { id, base, l1: self.at(to), claims }
    }

    /// What an honest proposer says next.
    pub(crate) fn build_assertion(&self) -> Option<AssertionBody> {
        self.tracker.build_assertion(&self.params, &Own(&self.own)).unwrap()
    }

    /// The proof against an assertion that counts, none when it is right.
    pub(crate) fn refute(&self, id: B256) -> Option<Proof> {
        let node = self.tracker.get(&id).unwrap();
        let truth = self.truth(node.from.0, node.l1.height.0);
        let own: Vec<B256> = truth.iter().map(Claim::hash).collect();
        let segment = first_divergence(&own, &node.claims)?;
        let claim = match (segment as usize).checked_sub(1) {
            None => self.last_claim(node.from),
            Some(before) => truth[before],
        };
        let (pre, db) = self.pre(&claim);
        Some(build_proof(&self.params, &self.chain, &node.view(), segment, &pre, db).unwrap())
    }

    pub(crate) fn assert(
        &mut self,
        parent: B256,
        to: u32,
        claims: Vec<B256>,
    ) -> (B256, Transaction) {
        let params_hash = self.params.hash();
        let body = AssertionBody { parent, params_hash, l1: self.at(to), claims }.encode();
        let header = EnvelopeHeader {
            chain_id: self.params.chain_id,
            index: 0,
            prev_body: B256::ZERO,
            chunk: 0,
            chunks: vec![kedge_bridge::envelope::chunk_hash(&body)],
            signature: None,
        };
        let bond = Bond::of(&self.params, publisher(9)).unwrap().tx_out(self.params.proposer_bond);
        let tx = self.reveal(9, Kind::Assertion, &header, &body, vec![bond]);
        (assertion_id(&OutPoint::new(tx.compute_txid(), 0)), tx)
    }

    /// The reveals of a proof.
    pub(crate) fn publish(&mut self, by: u8, proof: &[u8]) -> Vec<Transaction> {
        let chain_id = self.params.chain_id;
        split(Kind::Proof, chain_id, 0, B256::ZERO, proof, &self.params)
            .unwrap()
            .iter()
            .map(|(header, body)| self.reveal(by, Kind::Proof, header, body, vec![]))
            .collect()
    }
}

/// Has the coinbase commit to all witnesses (BIP-141).
fn commit_to_witnesses(block: &mut Block) {
    let reserved = [0u8; 32];
    block.txdata[0].input[0].witness = Witness::from_slice(&[reserved]);
    let root = block.witness_root().unwrap();
    let commitment = Block::compute_witness_commitment(&root, &reserved);
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], commitment.as_byte_array()].concat();
    let output = TxOut { value: Amount::ZERO, script_pubkey: script.into() };
    block.txdata[0].output.push(output);
}

pub(crate) fn hashes(claims: &[Claim]) -> Vec<B256> {
    claims.iter().map(Claim::hash).collect()
}
