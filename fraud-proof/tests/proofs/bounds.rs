//! What judging a proof takes is bounded whatever the proof, the sequencer and the depositors made of it.
//! Each case is the worst of its kind that Bitcoin's and Kedge's limits allow, as far as it can be made.

use crate::memory::measure;
use crate::program::run;
use crate::world::{Account, World, account, creation};
use alloy_consensus::{EthereumTxEnvelope, SignableTransaction, TxEip2930, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Transaction, Weight, Witness};
use kedge_bridge::batch::{Batch, BatchBlock, Budget, encode};
use kedge_bridge::deflate::deflate;
use kedge_bridge::derive::{L1Block, L1Lookup, Reads, derive, next_payload};
use kedge_bridge::envelope::{EnvelopeHeader, Kind, chunk_hash, parse_input};
use kedge_bridge::forced;
use kedge_fraud_proof::proof::{HEAD_BYTES, MAX_CODES, MAX_CONTENT_BYTES};
use kedge_fraud_proof::riscv::{Outcome, record_input};
use kedge_fraud_proof::{
    AssertionView, Claim, FraudKind, Malformed, Proof, ProofFault, Verdict, build_proof, verify,
};
use kedge_genesis::params::{OTHER_STEPS, STEPS_PER_L1_READ};
use kedge_genesis::{
    BATCH_EPOCH_READS, GenesisAccount, L1Height, L1Ref, MAX_L1_READS, Network, Params, Sats, alloc,
    predeploys,
};
use kedge_vm::{Header, MemoryDb, PayloadTx, genesis_block, output_root};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

/// What a verifier may take.
const MOST: usize = 256 << 20;
const ID: B256 = B256::repeat_byte(0xa5);

/// The main network's rules with keys that tests have.
fn params() -> Params {
    let Params { network, chain_id, keys, l1_start, .. } = *Network::Dev.params();
    Params { network, chain_id, keys, l1_start, ..*Network::Mainnet.params() }
}

/// Bitcoin blocks as a disk has them: each is parsed when it is asked for.
struct Disk {
    blocks: BTreeMap<u32, Vec<u8>>,
    reads: Cell<u32>,
}

impl L1Lookup for Disk {
    type Error = Infallible;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Infallible> {
        self.reads.set(self.reads.get() + 1);
        Ok(Arc::new(deserialize(&self.blocks[&height.0]).unwrap()))
    }
}

/// An assertion about a heavy Bitcoin block that goes wrong at its first segment.
struct Scene {
    params: Params,
    disk: Disk,
    claims: [B256; 2],
    l1: L1Ref,
    proof: Proof,
}

/// A proof about the first segment of the next block.
fn scene(world: &mut World, txs: Vec<Transaction>) -> Scene {
    let l1 = world.block(txs);
    world.chain.0.insert(l1.at.height.0, Arc::clone(&l1.block));
    assert!(l1.block.weight() <= Weight::MAX_BLOCK, "{}", l1.block.weight());
    let (_, claims) = world.claims.last_key_value().unwrap();
    let pre = *claims.last().unwrap();
    let claims = [pre.hash(), B256::ZERO];
    let view = AssertionView { id: ID, base: B256::ZERO, l1: l1.at, claims: &claims };
    let (pre, db) = world.pre(&pre);
    let proof = build_proof(&world.params, &world.chain, &view, 1, &pre, db).unwrap();
    let blocks = world.chain.0.iter().map(|(height, block)| (*height, serialize(&**block)));
    let disk = Disk { blocks: blocks.collect(), reads: Cell::new(0) };
    Scene { params: world.params, disk, claims, l1: l1.at, proof }
}

impl Scene {
    fn view(&self) -> AssertionView<'_> {
        AssertionView { id: ID, base: B256::ZERO, l1: self.l1, claims: &self.claims }
    }

    /// The verdict on these bytes, and the memory that it took with the bytes themselves.
    fn judge(&self, bytes: &[u8]) -> (Verdict, usize) {
        let start = Instant::now();
        let ((verdict, _), most) = measure(|| {
            let bytes = bytes.to_vec();
            (verify(&self.params, &self.disk, &self.view(), &bytes).unwrap(), bytes)
        });
        println!("{} MiB, {:?}: {verdict:?}", most >> 20, start.elapsed());
        assert!(most < MOST, "{} MiB: {verdict:?}", most >> 20);
        self.takes_few_steps(bytes, verdict);
        (verdict, most)
    }

    /// The program comes to the same verdict, in as many steps as execution, Bitcoin blocks and the rest may
    /// take.
    fn takes_few_steps(&self, bytes: &[u8], verdict: Verdict) {
        let reads = Reads::new(&self.disk);
        let (recorded, input) =
            record_input(&self.params, &reads, &self.view(), B256::ZERO, bytes).unwrap();
        assert_eq!(recorded, verdict);
        // The chunks that are not in the block itself, and the headers, do not count.
        let read = u64::from(reads.count().min(MAX_L1_READS));
        let machine = run(&input);
        let Some(Outcome::Verdict { verdict: found, .. }) = Outcome::of(&machine) else {
            panic!("{:?}", machine.halt())
        };
        assert_eq!(found, verdict);
        println!("{read} Bitcoin blocks, {} million steps", machine.steps() / 1_000_000);
        let most = read * STEPS_PER_L1_READ + OTHER_STEPS;
        assert!(machine.steps() <= most, "{} steps of {most}", machine.steps());
    }

    /// The proof is right, and judging it stays within bounds.
    fn proves(&self) -> usize {
        let (verdict, most) = self.judge(&self.proof.encode());
        assert_eq!(verdict, Verdict::Fraud { segment: 1, kind: FraudKind::OutputRoot });
        most
    }
}

/// A world in which `rich` has coins on L2, one Bitcoin block after an epoch with nothing in it.
fn world(rich: &Account) -> World {
    let mut world = World::new(params());
    let deposit = world.deposit(&[(rich.address(), Sats(1_000_000_000))]);
    world.mine(vec![deposit]);
    let batch = world.batch(vec![vec![]]);
    world.mine(vec![batch]);
    world
}

/// The next batch, of these blocks' transactions, each in the epoch of the cursor.
fn batch(world: &mut World, lists: Vec<Vec<Bytes>>) -> Vec<Transaction> {
    let cursor = world.state.cursor;
    let blocks: Vec<_> = (1..)
        .zip(lists)
        .map(|(later, transactions)| BatchBlock {
            timestamp: cursor.timestamp + later,
            epoch_step: false,
            transactions,
        })
        .collect();
    let last_origin = cursor.origin.hash[..20].try_into().unwrap();
    let body = encode(&Batch { first: cursor.number.next(), last_origin, blocks }).unwrap();
    world.batch_body(&body)
}

/// A transaction that takes the room that these leave of a Bitcoin block, as expensive to hold as can be.
fn padding(world: &mut World, txs: &[Transaction]) -> Transaction {
    let used: u64 = txs.iter().map(|tx| tx.weight().to_wu()).sum();
    let room = Weight::MAX_BLOCK.to_wu() - used - 2_000;
    world.tx(Witness::from_slice(&vec![&[0u8; 0][..]; room as usize]), vec![])
}

fn padded(world: &mut World, mut txs: Vec<Transaction>) -> Vec<Transaction> {
    let padding = padding(world, &txs);
    txs.push(padding);
    txs
}

/// The shortest transaction with so many zero bytes of data. Nobody's signature fits it.
fn short_tx(zeros: usize) -> Bytes {
    let tx = TxLegacy { gas_limit: 21_000, input: vec![0; zeros].into(), ..Default::default() };
    let signed = tx.into_signed(Signature::new(U256::ONE, U256::ONE, false));
    EthereumTxEnvelope::<TxEip4844>::from(signed).encoded_2718().into()
}

#[test]
fn a_full_budget_of_the_smallest_transactions() {
    let rich = account(1);
    let mut world = world(&rich);
    let tx = short_tx(0);
    let budget = Budget::of(&world.params);
    // As many as fit a block before any of them runs, and blocks as many as the budget has room for.
    let each = (world.params.block_gas_limit - world.params.block_overhead_gas) / 21_000;
    let list = vec![tx; each as usize];
    let size = BatchBlock { transactions: list.clone(), ..BatchBlock::default() }.decoded_size();
    let reveals = batch(&mut world, vec![list; budget.bytes / size]);
    let txs = padded(&mut world, reveals);
    let scene = scene(&mut world, txs);
    scene.proves();
}

#[test]
fn a_full_budget_of_the_largest_transactions() {
    let rich = account(1);
    let mut world = world(&rich);
    // EIP-7623: ten gas for a zero byte.
    let room = world.params.block_gas_limit - world.params.block_overhead_gas - 21_000;
    let tx = short_tx((room / 10) as usize);
    let count = Budget::of(&world.params).bytes / (tx.len() + 128);
    assert_eq!(count, 10);
    let reveals = batch(&mut world, vec![vec![tx]; count]);
    let txs = padded(&mut world, reveals);
    scene(&mut world, txs).proves();
}

#[test]
fn a_batch_of_ten_thousand_empty_blocks() {
    let rich = account(1);
    let mut world = world(&rich);
    let most = world.params.max_batch_blocks as usize;
    let reveals = batch(&mut world, vec![vec![]; most]);
    let txs = padded(&mut world, reveals);
    let scene = scene(&mut world, txs);
    assert_eq!(scene.proof.run.as_ref().unwrap().post.offset, 40);
    scene.proves();
}

#[test]
fn a_block_full_of_batches_that_inflate_to_more_than_is_left() {
    let rich = account(1);
    let mut world = world(&rich);
    // An access list of as many entries as the budget holds, each named by one byte; too expensive to run.
    let entry = AccessListItem { address: Address::ZERO, storage_keys: vec![] };
    let list = |count: usize| {
        let access_list = AccessList(vec![entry.clone(); count]);
        let tx = TxEip2930 { access_list, to: TxKind::Create, ..Default::default() };
        let signed = tx.into_signed(Signature::new(U256::ONE, U256::ONE, false));
        Bytes::from(EthereumTxEnvelope::<TxEip4844>::from(signed).encoded_2718())
    };
    let bytes = Budget::of(&world.params).bytes;
    let mut txs = batch(&mut world, vec![vec![list(bytes / 23 - 100)]]);
    // A hundred more that would each take all that there is.
    let (index, prev) = (world.state.next_batch, world.state.prev_body);
    let bomb = [&[0][..], &deflate(&vec![0; bytes])].concat();
    for _ in 1..100 {
        let before = parse_input(&txs.last().unwrap().input[0].witness).unwrap();
        world.state.next_batch += 1;
        world.state.prev_body = before.header.body_hash();
        txs.extend(world.batch_body(&bomb));
    }
    (world.state.next_batch, world.state.prev_body) = (index, prev);
    let txs = padded(&mut world, txs);
    let scene = scene(&mut world, txs);
    let pre = &scene.proof.run.as_ref().unwrap().state;
    let l1 = L1Block::new(scene.l1.height, scene.disk.l1_block(scene.l1.height).unwrap());
    let derived = derive(&scene.params, pre, &l1, &scene.disk).unwrap();
    let mut labels: Vec<_> = derived.notes.iter().map(|note| note.label()).collect();
    labels.dedup();
    assert_eq!((derived.batches.len(), labels), (100, vec!["batch_block", "batch_budget"]));
    scene.proves();
    // With as many nodes as a proof can hold at hand.
    let (verdict, _) = scene.judge(&filled(&scene.proof, 131_000, 0, 0).encode());
    assert_eq!(verdict, Verdict::Malformed { reason: Malformed::Excess });
}

/// A message of one forced transaction with as many bytes as its gas allows.
fn forced_message(world: &mut World, gas: u64) -> Transaction {
    let tx = TxLegacy {
        gas_limit: gas,
        input: vec![0; ((gas - 21_000) / 10) as usize].into(),
        ..Default::default()
    };
    let signed = tx.into_signed(Signature::new(U256::ONE, U256::ONE, false));
    let body =
        forced::encode(&[EthereumTxEnvelope::<TxEip4844>::from(signed).encoded_2718().into()]);
    let header = EnvelopeHeader {
        chain_id: world.params.chain_id,
        index: 0,
        prev_body: B256::ZERO,
        chunk: 0,
        chunks: vec![chunk_hash(&body)],
        signature: None,
    };
    let output = bitcoin::TxOut {
        value: bitcoin::Amount::from_sat(forced::price_of(gas, &world.params).0),
        script_pubkey: world.state.vault.current.clone(),
    };
    world.reveal(3, Kind::Forced, &header, &body, vec![output])
}

#[test]
fn a_batch_of_as_many_epochs_as_it_may_have_each_full_of_forced_transactions() {
    let rich = account(1);
    let mut world = world(&rich);
    let half = world.params.forced_gas_per_epoch * 46 / 100;
    for _ in 0..BATCH_EPOCH_READS + 1 {
        let txs = vec![forced_message(&mut world, half), forced_message(&mut world, half)];
        world.mine(txs);
    }
    let (mut cursor, epochs) = (world.state.cursor, world.state.epochs.clone());
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while blocks.len() < BATCH_EPOCH_READS as usize {
        let made = next_payload(&world.params, &cursor, &epochs, &world.chain, true, None, vec![]);
        let (payload, next) = made.unwrap().unwrap();
        for tx in &payload.transactions {
            if let PayloadTx::User(raw) = tx {
                bytes += raw.len();
            }
        }
        let timestamp = payload.timestamp;
        blocks.push(BatchBlock { timestamp, epoch_step: true, transactions: vec![] });
        cursor = next;
    }
    assert!(bytes > blocks.len() * 600_000, "{bytes}");
    let first = world.state.cursor.number.next();
    let last_origin = cursor.origin.hash[..20].try_into().unwrap();
    let body = encode(&Batch { first, last_origin, blocks }).unwrap();
    let reveals = world.batch_body(&body);
    let txs = padded(&mut world, reveals);
    let scene = scene(&mut world, txs);
    let reads = Reads::new(&scene.disk);
    verify(&scene.params, &reads, &scene.view(), &scene.proof.encode()).unwrap();
    // Each epoch's block, and the one at hand.
    assert_eq!(reads.count(), BATCH_EPOCH_READS + 1);
    scene.proves();
}

#[test]
fn a_bitcoin_block_full_of_deposits() {
    let mut world = World::new(params());
    world.mine(vec![]);
    let mut txs = Vec::new();
    let mut weight = 2_000;
    for number in 0u64.. {
        let to: Vec<_> = (0..100)
            .map(|at| {
                (Address::left_padding_from(&(number * 100 + at).to_be_bytes()), Sats(10_000))
            })
            .collect();
        let tx = world.deposit(&to);
        weight += tx.weight().to_wu();
        if weight > Weight::MAX_BLOCK.to_wu() {
            break;
        }
        txs.push(tx);
    }
    let deposits = txs.len() as u64 * 100;
    assert!(deposits > 14_000, "{deposits}");
    world.mine(txs);
    // A batch that takes all of them, as many to a block as the rules say.
    let (mut cursor, mut blocks) = (world.state.cursor, Vec::new());
    for _ in 0..2 {
        let (epochs, chain) = (&world.state.epochs, &world.chain);
        let made = next_payload(&world.params, &cursor, epochs, chain, true, None, vec![]);
        let (payload, next) = made.unwrap().unwrap();
        blocks.push(BatchBlock {
            timestamp: payload.timestamp,
            epoch_step: true,
            ..Default::default()
        });
        cursor = next;
    }
    let more = BatchBlock { epoch_step: false, ..blocks[1].clone() };
    blocks.extend(vec![more; deposits.div_ceil(15) as usize - 1]);
    let first = world.state.cursor.number.next();
    let last_origin = cursor.origin.hash[..20].try_into().unwrap();
    let body = encode(&Batch { first, last_origin, blocks }).unwrap();
    let reveals = world.batch_body(&body);
    let scene = scene(&mut world, reveals);
    scene.disk.reads.set(0);
    verify(&scene.params, &scene.disk, &scene.view(), &scene.proof.encode()).unwrap();
    assert!(scene.disk.reads.get() <= 10, "{} reads", scene.disk.reads.get());
    scene.proves();
}

/// A contract that makes its memory as large as pays off, has a copy of it returned, and calls itself with
/// all the gas left: of one frame for all the gas, and frames as many as can be nested, this is the most.
fn memory_hog() -> Vec<u8> {
    let size = [0x62, 0x02, 0xee, 0x00];
    let mut code = vec![0x60, 0x01];
    code.extend(size);
    code.push(0x52);
    // STATICCALL of the identity precompile.
    code.extend([0x5f, 0x5f]);
    code.extend(size);
    code.extend([0x5f, 0x60, 0x04, 0x5a, 0xfa, 0x50]);
    code.extend([0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x30, 0x5a, 0xf1, 0x00]);
    code
}

/// A scene in which the one transaction fills the EVM's memory, in a full Bitcoin block or in its own.
fn memory_scene(full: bool) -> Scene {
    let rich = account(1);
    let mut world = world(&rich);
    let create = rich.send(0, TxKind::Create, 0, creation(&memory_hog()));
    let reveal = world.batch(vec![vec![create]]);
    world.mine(vec![reveal]);
    let to = TxKind::Call(rich.address().create(0));
    let call = rich.send_gas(1, to, 0, vec![], 15_000_000);
    let mut txs = batch(&mut world, vec![vec![call]]);
    if full {
        txs = padded(&mut world, txs);
    }
    scene(&mut world, txs)
}

#[test]
fn an_execution_that_fills_the_memory_of_the_evm() {
    memory_scene(true).proves();
    let alone = memory_scene(false).proves();
    assert!(alone > 12 << 20, "only {alone}: the call does not do what it is there for");
}

/// The proof with so many more nodes and codes full of a byte, as large as its content may be.
fn filled(proof: &Proof, nodes: usize, codes: usize, byte: u8) -> Proof {
    let mut proof = proof.clone();
    // Each comes with at most six bytes around it.
    let room = MAX_CONTENT_BYTES - proof.content().len() - 64;
    let size = (room / (nodes + codes) - 6).max(32);
    let witness = &mut proof.run.as_mut().unwrap().witness;
    for number in 0..nodes + codes {
        let mut bytes = vec![byte; size];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let set = if number < nodes { &mut witness.nodes } else { &mut witness.codes };
        set.insert(keccak256(&bytes), bytes.into());
    }
    proof
}

#[test]
fn the_largest_contents_of_every_kind() {
    let scene = memory_scene(true);
    let witness = &scene.proof.run.as_ref().unwrap().witness;
    let (nodes, codes) = ((1 << 17) - witness.nodes.len(), MAX_CODES - witness.codes.len());
    // What looks like references everywhere is what takes long to read.
    for (nodes, codes, byte) in
        [(nodes, 0, 0), (nodes, 0, 0xa0), (1_000, 0, 0xa0), (0, codes, 0), (nodes / 2, codes, 0)]
    {
        let proof = filled(&scene.proof, nodes, codes, byte);
        assert!(proof.content().len() > MAX_CONTENT_BYTES - (1 << 20), "{nodes} {codes}");
        // All of it is at hand while the memory of the EVM is full.
        let (verdict, _) = scene.judge(&proof.encode());
        assert_eq!(verdict, Verdict::Malformed { reason: Malformed::Excess }, "{nodes} {codes}");
    }
}

#[test]
fn contents_that_are_none() {
    let scene = memory_scene(true);
    let head = &scene.proof.encode()[..HEAD_BYTES];
    let judge = |content: &[u8]| {
        let (verdict, _) = scene.judge(&[head, &deflate(content)].concat());
        let fault = ProofFault::Content;
        assert_eq!(verdict, Verdict::Malformed { reason: Malformed::Encoding(fault) });
    };
    for byte in [0x00, 0x01, 0x80, 0xa0, 0xc0, 0xc1, 0xf8, 0xff] {
        judge(&vec![byte; MAX_CONTENT_BYTES]);
    }
    // A proof up to its nodes and codes, and there as much as there is room for.
    let run = scene.proof.run.as_ref().unwrap();
    let string = |bytes: &[u8]| alloy_rlp::encode(bytes);
    let list = |payload: &[u8]| {
        let mut out = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        [out, payload.to_vec()].concat()
    };
    let header = alloy_rlp::encode(&run.header);
    let parts = [run.post.encode(), run.state.encode(), header].map(|part| string(&part)).concat();
    let pre = string(&scene.proof.pre.encode());
    let room = MAX_CONTENT_BYTES - parts.len() - pre.len() - 64;
    for byte in [0x00, 0x01, 0x80, 0xa0] {
        let fill = vec![byte; room];
        for end in [[string(&fill), list(&[])].concat(), [string(&[]), list(&fill)].concat()] {
            let run = list(&list(&[&parts[..], &end].concat()));
            judge(&list(&[&pre[..], &list(&[]), &run].concat()));
        }
    }
}

/// A state that no chain has, in a claim that nobody but its liar made: whatever it holds, there is a verdict.
#[test]
fn a_state_that_cannot_be_is_judged_all_the_same() {
    let mut world = World::new(params());
    let (rich, other) = (account(1), account(2).address());
    let deposits = [(rich.address(), Sats(50_000_000)), (other, Sats(20_000))];
    let deposit = world.deposit(&deposits);
    world.mine(vec![deposit]);
    let forced = forced_message(&mut world, 200_000);
    world.mine(vec![forced]);
    let users = (0..3).map(|nonce| rich.send(nonce, TxKind::Call(other), 1, vec![])).collect();
    let reveals = world.batch_chunks(vec![users, vec![], vec![]]);
    let pre = world.last_claim(world.state.l1.height);
    assert_eq!(pre.number.0, 0);
    let scene = scene(&mut world, reveals);
    scene.proves();

    type Alter = fn(&mut Vec<GenesisAccount>, &mut Header);
    let alters: [Alter; 9] = [
        |accounts, _| accounts.iter_mut().for_each(|account| account.balance = U256::MAX),
        |accounts, _| accounts.iter_mut().for_each(|account| account.nonce = u64::MAX),
        |accounts, _| {
            accounts.iter_mut().flat_map(|it| &mut it.storage).for_each(|slot| slot.1 = U256::MAX)
        },
        |accounts, _| {
            accounts.iter_mut().for_each(|account| account.code = vec![0xfe; 100_000].into())
        },
        |accounts, _| accounts.clear(),
        |_, header| header.base_fee_per_gas = Some(u64::MAX),
        |_, header| (header.gas_used, header.gas_limit) = (u64::MAX, 1),
        |_, header| {
            header.extra_data = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into()
        },
        |_, header| (header.timestamp, header.parent_hash) = (u64::MAX, B256::ZERO),
    ];
    for (number, alter) in alters.into_iter().enumerate() {
        let mut accounts = alloc(&scene.params, world.state.vault.current.as_bytes());
        let extremes = [predeploys::DEPOSITOR, predeploys::BRIDGE_DEPOSITOR, rich.address(), other];
        accounts.extend(extremes.map(|address| GenesisAccount {
            address,
            nonce: 1,
            balance: U256::from(7),
            code: Bytes::new(),
            storage: vec![],
        }));
        let mut header = genesis_block(&scene.params, &[]).unwrap().header;
        alter(&mut accounts, &mut header);
        let genesis = genesis_block(&scene.params, &accounts).unwrap();
        (header.state_root, header.withdrawals_root) =
            (genesis.header.state_root, genesis.header.withdrawals_root);
        let root =
            output_root(header.state_root, header.withdrawals_root.unwrap(), header.hash_slow());
        let pre = Claim { output_root: root, ..pre };
        let mut proof = scene.proof.clone();
        proof.pre = pre;
        let run = proof.run.as_mut().unwrap();
        let db = MemoryDb::new(&genesis);
        let nodes = db.nodes.values().filter(|node| node.len() >= 32);
        run.header = header;
        run.witness.nodes = nodes.map(|node| (keccak256(node), node.clone())).collect();
        run.witness.codes = db.codes.clone();
        let claims = [pre.hash(), B256::ZERO];
        let view = AssertionView { claims: &claims, ..scene.view() };
        let verdict = verify(&scene.params, &scene.disk, &view, &proof.encode()).unwrap();
        // It gets as far as the execution.
        let executed = [Malformed::Excess, Malformed::Execution, Malformed::Post];
        assert!(
            matches!(verdict, Verdict::Malformed { reason } if executed.contains(&reason)),
            "{number}: {verdict:?}"
        );
    }
}
