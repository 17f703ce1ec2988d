//! A verdict that reads as many full Bitcoin blocks as there can be.

use crate::world::World;
use alloy_consensus::{EthereumTxEnvelope, SignableTransaction, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, U256};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Weight, Witness, absolute};
use kedge_bridge::batch::{Batch, BatchBlock, encode};
use kedge_bridge::derive::{Reads, derive};
use kedge_bridge::envelope::{Kind, split};
use kedge_fraud_proof::riscv::layout::INPUT_MAX;
use kedge_fraud_proof::riscv::{Machine, Outcome, Program, Stop, record_input};
use kedge_fraud_proof::{AssertionView, Claim, FraudKind, PreState, Verdict, build_proof};
use kedge_genesis::params::{
    MAX_DISPUTE_STEPS, MAX_SEGMENT_GAS, OTHER_STEPS, STEPS_PER_GAS, STEPS_PER_L1_READ,
};
use kedge_genesis::{
    BATCH_EPOCH_READS, BATCH_SIGNATURES, FORCED_BLOCKS_PER_EPOCH, L1Height, MAX_L1_READS, Network,
    Params, tags,
};
use std::sync::Arc;

const ELF: &[u8] = include_bytes!("../../program/kedge-program.elf");

/// The main network's rules with keys that tests have.
fn params() -> Params {
    let Params { network, chain_id, keys, l1_start, .. } = *Network::Dev.params();
    Params { network, chain_id, keys, l1_start, ..*Network::Mainnet.params() }
}

/// What a Bitcoin block is full of.
#[derive(Clone, Copy, Debug)]
enum Filling {
    /// Transactions as small as can be: the most hashes to check.
    Transactions,
    /// Forced messages as small as can be, which pay nothing.
    Messages,
    /// Forced messages of as many transactions as fit.
    Forced,
    /// Deposits.
    Deposits,
    /// Deposits that spend what looks like the vault's.
    Spends,
    /// Batches with the right index that somebody else signed.
    Batches,
}

impl Filling {
    const ALL: [Self; 6] = [
        Self::Transactions,
        Self::Messages,
        Self::Forced,
        Self::Deposits,
        Self::Spends,
        Self::Batches,
    ];

    /// Some of it.
    fn some(self, world: &mut World) -> Transaction {
        let output = |script_pubkey| TxOut { value: Amount::ONE_SAT, script_pubkey };
        match self {
            Self::Transactions => world.tx(Witness::new(), vec![output(ScriptBuf::new())]),
            Self::Messages => forced(world, &[short_tx()]),
            Self::Forced => forced(world, &vec![short_tx(); 330_000 / short_tx().len()]),
            Self::Deposits => {
                let to = vec![(Address::repeat_byte(1), world.params.min_deposit); 20];
                world.deposit(&to)
            }
            Self::Spends => {
                let control = [&[0xc0][..], &tags::NUMS_KEY].concat();
                let witness = Witness::from_slice(&[&[0x51][..], &control]);
                let mut tx = world.deposit(&[(Address::repeat_byte(1), world.params.min_deposit)]);
                tx.input[0].witness = witness;
                tx.input = vec![tx.input[0].clone(); 1_000];
                tx
            }
            Self::Batches => {
                let mut reveal = world.batch_body(&[7]).remove(0);
                let mut script = reveal.input[0].witness.nth(1).unwrap().to_vec();
                // A byte of s.
                let at = script.len() - 10;
                script[at] ^= 1;
                let [signature, _, control] = [0, 1, 2].map(|at| reveal.input[0].witness.nth(at));
                let witness = [signature.unwrap(), &script, control.unwrap()];
                reveal.input[0].witness = Witness::from_slice(&witness);
                reveal
            }
        }
    }

    /// As much of it as a Bitcoin block holds beside `others`.
    fn fill(self, world: &mut World, others: &[Transaction]) -> Vec<Transaction> {
        let used: Weight = others.iter().map(Transaction::weight).sum();
        let one = self.some(world);
        let room = Weight::MAX_BLOCK - used - Weight::from_wu(2_000);
        (0..u32::try_from(room / one.weight()).unwrap())
            .map(|number| {
                let lock_time = absolute::LockTime::from_consensus(number);
                Transaction { lock_time, ..one.clone() }
            })
            .collect()
    }
}

/// The shortest transaction. Nobody's signature fits it.
fn short_tx() -> Bytes {
    let tx = TxLegacy { gas_limit: 21_000, ..Default::default() };
    let signed = tx.into_signed(Signature::new(U256::ONE, U256::ONE, false));
    EthereumTxEnvelope::<TxEip4844>::from(signed).encoded_2718().into()
}

/// A forced message that pays too little.
fn forced(world: &mut World, txs: &[Bytes]) -> Transaction {
    let body = kedge_bridge::forced::encode(txs);
    let chain_id = world.params.chain_id;
    let parts = split(Kind::Forced, chain_id, 0, B256::ZERO, &body, &world.params).unwrap();
    let script_pubkey = world.state.vault.current.clone();
    let output = TxOut { value: Amount::ONE_SAT, script_pubkey };
    world.reveal(3, Kind::Forced, &parts[0].0, &parts[0].1, vec![output])
}

/// Steps of the verdict on a segment for which so many epochs read full Bitcoin blocks, each its own and as
/// many as it may of a queue that is held up from the start of the network; and how many it reads.
fn steps(filling: Filling, epochs: u32) -> (u64, u32) {
    let mut world = World::new(params());
    let queued = epochs * FORCED_BLOCKS_PER_EPOCH;
    for _ in 0..queued + epochs {
        let txs = filling.fill(&mut world, &[]);
        world.mine(txs);
    }
    let genesis = world.last_claim(L1Height(0));
    world.state.epochs.drain(..queued as usize);
    world.state.cursor.origin = world.state.epochs[0].at;
    let state = world.state.clone();
    let pre = Claim { l1_height: state.l1.height, derive_state: state.hash(), ..genesis };
    let time = state.epochs.iter().map(|epoch| epoch.median_time).max().unwrap();
    let first = BatchBlock { timestamp: time, epoch_step: true, transactions: vec![] };
    let blocks = (0..u64::from(epochs) - 1)
        .map(|later| BatchBlock { timestamp: time + later, ..first.clone() });
    let last_origin = state.epochs[epochs as usize - 1].at.hash[..20].try_into().unwrap();
    let number = state.cursor.number.next();
    let batch = Batch { first: number, last_origin, blocks: blocks.collect() };
    let reveals = world.batch_body(&encode(&batch).unwrap());
    // As many before it as leave one signature to check.
    let mut txs = filling.fill(&mut world, &reveals);
    let after = txs.split_off(txs.len().min(BATCH_SIGNATURES as usize - 1));
    txs.extend(reveals);
    txs.extend(after);
    let l1 = world.block(txs);
    assert!(l1.block.weight() <= Weight::MAX_BLOCK, "{}", l1.block.weight());
    world.chain.0.insert(l1.at.height.0, Arc::clone(&l1.block));
    let reads = Reads::new(&world.chain);
    let derived = derive(&world.params, &state, &l1, &reads).unwrap();
    assert!(derived.payloads.len() as u32 >= epochs - 1, "{:?}", derived.notes.last());

    let claims = [B256::repeat_byte(1)];
    let id = B256::repeat_byte(2);
    let view = AssertionView { id, base: pre.hash(), l1: l1.at, claims: &claims };
    let db = world.states[&0].clone();
    let header = db.headers.last_key_value().unwrap().1.clone();
    let pre = PreState { claim: pre, state, header };
    let proof = build_proof(&world.params, &world.chain, &view, 0, &pre, db).unwrap().encode();
    let (verdict, input) =
        record_input(&world.params, &world.chain, &view, B256::ZERO, &proof).unwrap();
    assert_eq!(verdict, Verdict::Fraud { segment: 0, kind: FraudKind::OutputRoot });
    let program = Program::from_elf(ELF).unwrap().with_input(&input).unwrap();
    let mut machine = Machine::new(&program);
    assert!(matches!(machine.run(MAX_DISPUTE_STEPS), Stop::Halt(_)));
    let outcome = Outcome::of(&machine);
    assert!(matches!(outcome, Some(Outcome::Verdict { verdict: found, .. }) if found == verdict));
    // With the block at hand.
    let read = reads.count() + 1;
    let millions = machine.steps() / 1_000_000;
    println!("{filling:?}: {read} blocks, {millions} M steps, input of {} bytes", input.len());
    (machine.steps(), read)
}

#[test]
fn no_full_bitcoin_block_takes_more_steps_than_the_parameters_say() {
    for filling in Filling::ALL {
        let (steps, read) = steps(filling, 2);
        // The signatures of batches are among what else there is.
        let other = if matches!(filling, Filling::Batches) { OTHER_STEPS / 2 } else { 0 };
        assert!(steps <= u64::from(read) * STEPS_PER_L1_READ + other, "{filling:?}: {steps}");
    }
}

#[test]
fn the_most_full_bitcoin_blocks_fit_input_and_steps() {
    let epochs = BATCH_EPOCH_READS.div_ceil(1 + FORCED_BLOCKS_PER_EPOCH);
    let (steps, read) = steps(Filling::Transactions, epochs + 1);
    // All but the one that a chunk which is nowhere would take.
    assert_eq!(read + 1, MAX_L1_READS);
    // Beside the costliest execution, and all that comes with it.
    let most = MAX_SEGMENT_GAS * STEPS_PER_GAS + steps + STEPS_PER_L1_READ + OTHER_STEPS;
    assert!(most < MAX_DISPUTE_STEPS, "{most}");
    // With chunks, headers and the largest proof beside.
    let full = u64::from(MAX_L1_READS) * Weight::MAX_BLOCK.to_wu();
    assert!(full + 3 * 12 * 390_000 < u64::from(INPUT_MAX), "{full} of {INPUT_MAX}");
}
