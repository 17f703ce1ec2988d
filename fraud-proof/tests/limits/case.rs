//! One segment on a state of one's own: derived from Bitcoin, proven, encoded, judged, measured.

use crate::big_state::{BigState, contract, plain};
use crate::memory::measure;
use crate::world::{World, account, publisher};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute,
    transaction,
};
use kedge_bridge::batch::{self, Batch, BatchBlock};
use kedge_bridge::commit::{Commit, reveal_vsize};
use kedge_bridge::derive::{Derived, L1Block, derive, next_payload};
use kedge_bridge::envelope::{Kind, leaf_script, split};
use kedge_fraud_proof::proof::MAX_CONTENT_BYTES;
use kedge_fraud_proof::{
    AssertionView, Claim, FraudKind, PreState, Proof, ProofSizes, Verdict, build_proof, verify,
};
use kedge_genesis::{GenesisAccount, L2Number, Network, Params, alloc};
use kedge_vm::{EvmConfig, ExecutedBlock, Payload, TrieDb, output_root};
use std::time::{Duration, Instant};

/// The most nodes of one proof (specification § 7.1).
const MAX_NODES: usize = 131_072;
/// What judging a proof may take, bytes.
const MAX_MEMORY: usize = 256 << 20;
/// The accounts that send what is in the first and in the second block.
const SENDERS: [u8; 2] = [1, 2];
/// A contract that uses up all gas that it is given.
const BURN: &str = "burn";

pub(crate) fn params() -> Params {
    *Network::Dev.params()
}

/// An address by name.
pub(crate) fn at(name: &str) -> Address {
    Address::from_word(keccak256(name))
}

/// What every chain has, senders, the burner, and `more`.
pub(crate) fn accounts(more: impl IntoIterator<Item = GenesisAccount>) -> Vec<GenesisAccount> {
    let vault = World::new(params()).state.vault.current;
    let mut accounts = alloc(&params(), vault.as_bytes());
    accounts.extend(SENDERS.map(|who| plain(account(who).address(), U256::from(10u64.pow(18)))));
    accounts.push(contract(at(BURN), vec![0xfe], vec![]));
    accounts.extend(more);
    accounts
}

/// A chain whose L2 has not begun, on a state.
pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) state: BigState,
    /// Whether the second block of a batch begins the next epoch.
    pub(crate) step: bool,
}

/// A call of a contract.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) to: Address,
    pub(crate) gas: u64,
    pub(crate) input: Vec<u8>,
}

impl Call {
    /// Uses exactly this much gas.
    pub(crate) fn burn(gas: u64) -> Self {
        Self { to: at(BURN), gas, input: vec![] }
    }

    fn sign(self, who: u8, nonce: usize) -> Bytes {
        account(who).send_gas(nonce as u64, TxKind::Call(self.to), 0, self.input, self.gas)
    }
}

/// A segment, proven.
pub(crate) struct Proven {
    pub(crate) sizes: ProofSizes,
    /// The blocks of the segment.
    pub(crate) blocks: Vec<ExecutedBlock>,
    /// What publishing the proof takes on Bitcoin, virtual bytes.
    pub(crate) vbytes: u64,
    /// Most memory that judging it took beyond what was there before, bytes.
    pub(crate) memory: usize,
    building: Duration,
    judging: Duration,
}

impl Case {
    pub(crate) fn new(state: BigState) -> Self {
        Self { world: World::new(params()), state, step: false }
    }

    /// A forced message of these transactions, paid for.
    pub(crate) fn forced(&mut self, txs: &[Bytes]) -> Transaction {
        let body = alloy_rlp::encode(txs.to_vec());
        let params = self.world.params;
        let parts = split(Kind::Forced, params.chain_id, 0, B256::ZERO, &body, &params).unwrap();
        let price = params.forced_gas_per_epoch * params.forced_sats_per_100_gas / 100 + 1;
        let script_pubkey = self.world.state.vault.current.clone();
        let output = TxOut { value: Amount::from_sat(price), script_pubkey };
        self.world.reveal(3, Kind::Forced, &parts[0].0, &parts[0].1, vec![output])
    }

    /// Mines a block from which no L2 block is derived.
    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) {
        let l1 = self.world.block(txs);
        let derived = derive(&self.world.params, &self.world.state, &l1, &self.world.chain);
        let Derived { post, payloads, .. } = derived.unwrap();
        assert_eq!(payloads, []);
        self.world.state = post;
        self.world.chain.0.insert(l1.at.height.0, l1.block);
    }

    /// The Bitcoin block with a batch of these lists, and its payloads.
    fn block(&mut self, lists: &[Vec<Bytes>]) -> (L1Block, Vec<Payload>) {
        let world = &mut self.world;
        let mut cursor = world.state.cursor;
        let first = cursor.number.next();
        let mut blocks = Vec::new();
        for (number, users) in lists.iter().enumerate() {
            let step = self.step && number == 1;
            let (epochs, users) = (&world.state.epochs, users.clone());
            let next = next_payload(
                &world.params,
                &cursor,
                epochs,
                &world.chain,
                step,
                None,
                users.clone(),
            );
            let (payload, next) = next.unwrap().unwrap();
            let timestamp = payload.timestamp;
            blocks.push(BatchBlock { timestamp, epoch_step: step, transactions: users });
            cursor = next;
        }
        let last_origin = cursor.origin.hash[..20].try_into().unwrap();
        let body = batch::encode(&Batch { first, last_origin, blocks }).unwrap();
        let batch = world.batch_body(&body);
        let l1 = world.block(batch);
        let derived = derive(&world.params, &world.state, &l1, &world.chain);
        let payloads = derived.unwrap().payloads;
        assert_eq!(payloads.len(), lists.len(), "the batch is derived as it was made");
        (l1, payloads)
    }

    fn execute(&self, payloads: &[Payload]) -> Vec<ExecutedBlock> {
        let config = EvmConfig::from_params(&self.world.params);
        let mut db = TrieDb::new(&self.state, self.state.header.clone());
        payloads.iter().map(|payload| db.execute(&config, payload).unwrap()).collect()
    }

    /// Executes a batch of these lists without proving anything.
    pub(crate) fn run(&mut self, lists: &[Vec<Bytes>]) -> Vec<ExecutedBlock> {
        let (_, payloads) = self.block(lists);
        self.execute(&payloads)
    }

    /// A block's list for each of these calls: the sender's first transactions. The code of the burner is
    /// loaded first, while there is room for it.
    pub(crate) fn lists(calls: [Vec<Call>; 2]) -> [Vec<Bytes>; 2] {
        let mut senders = SENDERS.into_iter();
        calls.map(|calls| {
            let who = senders.next().unwrap();
            let all = std::iter::once(Call::burn(30_000)).chain(calls);
            all.enumerate().map(|(nonce, call)| call.sign(who, nonce)).collect()
        })
    }

    /// Two lists with these calls: one that takes its block to one gas below the end of a segment, and one
    /// that uses all gas of its block.
    pub(crate) fn fill(&mut self, calls: [Vec<Call>; 2]) -> [Vec<Bytes>; 2] {
        let params = self.world.params;
        let mut lists = Self::lists(calls);
        let blocks = self.run(&lists);
        let limits = [params.segment_target_gas - 1, params.block_gas_limit];
        for (((list, who), limit), block) in lists.iter_mut().zip(SENDERS).zip(limits).zip(blocks) {
            let burn = Call::burn(limit - block.metered_gas);
            list.push(burn.sign(who, list.len()));
        }
        lists
    }

    /// Proves the first segment of a batch of these lists, has the proof judged, and checks every limit
    /// that a proof has.
    pub(crate) fn prove(&mut self, lists: &[Vec<Bytes>]) -> Proven {
        let (l1, payloads) = self.block(lists);
        let params = self.world.params;
        self.world.chain.0.insert(l1.at.height.0, l1.block.clone());
        let header = self.state.header.clone();
        let root = header.withdrawals_root.unwrap();
        let claim = Claim {
            l1_height: self.world.state.l1.height,
            offset: 0,
            derive_state: self.world.state.hash(),
            number: L2Number(header.number),
            output_root: output_root(header.state_root, root, header.hash_slow()),
        };
        let wrong = [B256::repeat_byte(1)];
        let id = B256::repeat_byte(2);
        let view = AssertionView { id, base: claim.hash(), l1: l1.at, claims: &wrong };
        let pre = PreState { claim, state: self.world.state.clone(), header };
        let start = Instant::now();
        let proof: Proof =
            build_proof(&params, &self.world.chain, &view, 0, &pre, &self.state).unwrap();
        let encoded = proof.encode();
        let building = start.elapsed();
        let offset = proof.run.as_ref().unwrap().post.offset as usize;
        let count = if offset == 0 { payloads.len() } else { offset };
        let blocks = self.execute(&payloads[..count]);

        let start = Instant::now();
        let (verdict, memory) =
            measure(|| verify(&params, &self.world.chain, &view, &encoded).unwrap());
        let judging = start.elapsed();
        assert_eq!(verdict, Verdict::Fraud { segment: 0, kind: FraudKind::OutputRoot });

        let sizes = proof.sizes();
        let vbytes = publication(&params, &encoded);
        let proven = Proven { sizes, blocks, vbytes, memory, building, judging };
        proven.check(&params);
        proven
    }
}

impl Proven {
    pub(crate) fn gas(&self) -> u64 {
        self.blocks.iter().map(|block| block.metered_gas).sum()
    }

    pub(crate) fn witness(&self) -> u64 {
        self.blocks.iter().map(|block| block.witness_bytes).sum()
    }

    /// Every limit that a proof has.
    fn check(&self, params: &Params) {
        let sizes = &self.sizes;
        println!(
            "{} blocks, {} gas, {} witness bytes: {} nodes of {} B, {} packed, {} codes of {} B, content {} B, \
             encoded {} B, {} vB, {} MiB to judge; built in {:?}, judged in {:?}",
            self.blocks.len(),
            self.gas(),
            self.witness(),
            sizes.node_count,
            sizes.nodes,
            sizes.packed_nodes,
            sizes.code_count,
            sizes.codes,
            sizes.content,
            sizes.encoded,
            self.vbytes,
            self.memory >> 20,
            self.building,
            self.judging,
        );
        let channel = usize::from(params.max_chunks) * params.max_chunk_bytes as usize;
        assert!(sizes.content <= MAX_CONTENT_BYTES, "content of {} bytes", sizes.content);
        assert!(sizes.node_count <= MAX_NODES, "{} nodes", sizes.node_count);
        assert!(sizes.encoded <= channel, "{} bytes in a channel of {channel}", sizes.encoded);
        let fee = (self.vbytes * params.proof_fee_rate).div_ceil(1_000);
        assert!(fee <= params.proposer_bond.0, "{fee} sat for {} vB", self.vbytes);
        assert!(self.memory <= MAX_MEMORY, "{} bytes of memory", self.memory);
    }
}

/// Virtual size of all that puts a proof on Bitcoin: the reveals, and the transaction that pays for them
/// from two coins.
pub(crate) fn publication(params: &Params, proof: &[u8]) -> u64 {
    let change = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from(vec![0; 34]) };
    let parts = split(Kind::Proof, params.chain_id, 0, B256::ZERO, proof, params).unwrap();
    let commits: Vec<Commit> = parts
        .iter()
        .map(|(header, body)| leaf_script(&publisher(1), Kind::Proof, header, body).unwrap())
        .map(|leaf| Commit::new(publisher(1), leaf).unwrap())
        .collect();
    let reveals: u64 = commits
        .iter()
        .map(|commit| reveal_vsize(std::slice::from_ref(commit), std::slice::from_ref(&change)))
        .sum();
    let input = TxIn {
        previous_output: OutPoint::new(Txid::all_zeros(), 0),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[0; 64]]),
    };
    let outputs = commits
        .iter()
        .map(|commit| TxOut { value: Amount::ZERO, script_pubkey: commit.script_pubkey() })
        .chain([change]);
    let commit = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input.clone(), input],
        output: outputs.collect(),
    };
    reveals + commit.vsize() as u64
}
