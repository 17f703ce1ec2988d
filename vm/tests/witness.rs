//! A witness holds everything that an execution reads, and nothing else decides its result.

mod common;

use alloy_eips::Encodable2718;
use alloy_primitives::{Address, Bytes, TxKind, hex};
use alloy_rlp::Decodable;
use common::*;
use kedge_genesis::predeploys;
use kedge_vm::{
    ExecutedBlock, Payload, PayloadTx, Recorder, TrieDb, Witness, execute_on_witness,
    record_witness,
};
use proptest::prelude::*;

fn assert_same(a: &ExecutedBlock, b: &ExecutedBlock) {
    assert_eq!(a.header, b.header);
    assert_eq!(a.hash, b.hash);
    assert_eq!(a.output_root, b.output_root);
    assert_eq!(a.metered_gas, b.metered_gas);
    assert_eq!(a.witness_bytes, b.witness_bytes);
    assert_eq!(a.skipped, b.skipped);
    assert_eq!(a.receipts, b.receipts);
    assert_eq!(a.senders, b.senders);
    assert_eq!(a.state, b.state);
    assert_eq!(a.trie, b.trie);
}

#[derive(Clone, Debug)]
enum Action {
    /// From, nonce offset (0 is right), to, value.
    Transfer(u8, u8, u8, u32),
    /// Deploys one of the contracts.
    Deploy(u8, u8),
    /// Calls the `n`th contract that account 0..4 may have deployed, with a slot and a value.
    Call(u8, u8, u8, u8, u8),
    Mint(u8, u32),
    Raw(Vec<u8>),
}

/// Reads the previous block's hash and the balance of the address in word 0 of its call data, then
/// stores word 1 in the slot of word 0; zero clears the slot.
const STORE: &[u8] = &hex!("600143034050 5f3531 50 602035 5f35 55");
/// Creates and destroys a contract in one transaction, sending its value to the caller.
const BURNER: &[u8] = &hex!("6233ff00 5f52 6003 601d 34 f0 50");

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..8u8, 0..6u8, 0..12u8, any::<u32>())
            .prop_map(|(from, gap, to, value)| Action::Transfer(from, gap / 5, to, value)),
        2 => (0..4u8, 0..2u8).prop_map(|(from, what)| Action::Deploy(from, what)),
        5 => (0..8u8, 0..4u8, 0..3u8, 0..4u8, 0..3u8)
            .prop_map(|(from, of, nth, slot, value)| Action::Call(from, of, nth, slot, value)),
        1 => (0..12u8, any::<u32>()).prop_map(|(to, wei)| Action::Mint(to, wei)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Action::Raw),
    ]
}

/// The listed transactions of one block; nonces count on from what the chain holds.
fn listed(chain: &Chain, number: u64, actions: &[Action]) -> Vec<PayloadTx> {
    let mut nonces: Vec<u64> = (0..8).map(|n| chain.nonce(account(n).address)).collect();
    let mut next = |from: u8, gap: u8| {
        let nonce = nonces[usize::from(from)] + u64::from(gap);
        if gap == 0 {
            nonces[usize::from(from)] += 1;
        }
        nonce
    };
    let mut txs = vec![attributes(number)];
    for action in actions {
        if let Action::Mint(to, wei) = action {
            txs.push(mint(account(*to).address, u128::from(*wei)));
        }
    }
    for action in actions {
        txs.push(match action {
            Action::Transfer(from, gap, to, value) => {
                let to = TxKind::Call(account(*to).address);
                let tx = call(next(*from, *gap), to, u64::from(*value), Bytes::new());
                user(&account(*from).sign(tx))
            }
            Action::Deploy(from, what) => {
                let code = if *what == 0 { deployer(STORE) } else { deployer(BURNER) };
                user(&account(*from).sign(call(next(*from, 0), TxKind::Create, 0, code)))
            }
            Action::Call(from, of, nth, slot, value) => {
                let to = account(*of).address.create(u64::from(*nth));
                let mut input = [0; 64];
                input[31] = *slot;
                input[63] = *value;
                let tx = call(next(*from, 0), TxKind::Call(to), u64::from(*value), input.to_vec());
                user(&account(*from).sign(tx))
            }
            Action::Raw(bytes) => PayloadTx::User(bytes.clone().into()),
            Action::Mint(..) => continue,
        });
    }
    txs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Random blocks give the same on the database (by key), on its tries, and on a recorded witness,
    /// one by one and as a run.
    #[test]
    fn executions_on_database_tries_and_witness_agree(
        blocks in prop::collection::vec(prop::collection::vec(action(), 0..12), 1..5),
    ) {
        let mut chain = Chain::funded();
        let start = (chain.db.clone(), chain.head.clone());
        let mut run: Vec<(Payload, ExecutedBlock)> = Vec::new();
        for (number, actions) in (2..).zip(&blocks) {
            let payload = chain.payload(listed(&chain, number, actions));
            let (parent, before) = (chain.head.clone(), chain.db.clone());
            let block = chain.execute(payload.transactions.clone());
            let (recorded, witness) =
                record_witness(&chain.config, &parent, &payload, before).unwrap();
            assert_same(&block, &recorded);
            prop_assert!(witness.headers.is_empty());
            let encoded = alloy_rlp::encode(&witness);
            let decoded = Witness::decode(&mut &encoded[..]).unwrap();
            prop_assert_eq!(&decoded, &witness);
            let verified =
                execute_on_witness(&chain.config, &parent, &payload, &decoded).unwrap();
            assert_same(&block, &verified);
            run.push((payload, block));
        }

        let mut recorder = TrieDb::new(Recorder::new(start.0), start.1.clone());
        for (payload, block) in &run {
            assert_same(&recorder.execute(&chain.config, payload).unwrap(), block);
        }
        let witness = recorder.into_source().into_witness();
        let mut verifier = TrieDb::new(&witness, start.1);
        for (payload, block) in &run {
            assert_same(&verifier.execute(&chain.config, payload).unwrap(), block);
        }
        prop_assert_eq!(verifier.head().1, run.last().unwrap().1.hash);
    }
}

#[test]
fn every_part_of_a_witness_is_needed() {
    let mut chain = Chain::funded();
    let deploy = account(0).sign(call(0, TxKind::Create, 0, deployer(STORE)));
    chain.execute(vec![attributes(2), user(&deploy)]);
    let contract = account(0).address.create(0);
    let mut input = [1; 64];
    input[..31].fill(0);
    let tx = account(1).sign(call(0, TxKind::Call(contract), 0, input.to_vec()));
    let payload = chain.payload(vec![attributes(3), user(&tx)]);
    let (block, witness) =
        record_witness(&chain.config, &chain.head, &payload, chain.db.clone()).unwrap();
    assert_eq!(block.skipped, []);
    for hash in witness.nodes.keys() {
        let mut less = witness.clone();
        less.nodes.remove(hash);
        assert!(execute_on_witness(&chain.config, &chain.head, &payload, &less).is_err());
    }
    for hash in witness.codes.keys() {
        let mut less = witness.clone();
        less.codes.remove(hash);
        assert!(execute_on_witness(&chain.config, &chain.head, &payload, &less).is_err());
    }
    // More than needed changes nothing.
    let mut more = witness;
    more.codes.insert(alloy_primitives::keccak256(b"more"), Bytes::from_static(b"more"));
    let same = execute_on_witness(&chain.config, &chain.head, &payload, &more).unwrap();
    assert_same(&block, &same);
}

#[test]
fn a_forged_witness_fails_or_changes_nothing() {
    let chain = Chain::funded();
    let tx = account(0).sign(call(0, TxKind::Call(predeploys::MULTICALL3), 0, Bytes::new()));
    let payload = chain.payload(vec![attributes(2), user(&tx)]);
    let (_, witness) =
        record_witness(&chain.config, &chain.head, &payload, chain.db.clone()).unwrap();
    // Under a right hash, wrong bytes: as if somebody built the maps without hashing.
    for hash in witness.nodes.keys() {
        let mut forged = witness.clone();
        forged.nodes.insert(*hash, Bytes::from_static(&[0xc0]));
        assert!(execute_on_witness(&chain.config, &chain.head, &payload, &forged).is_err());
    }
    for hash in witness.codes.keys() {
        let mut forged = witness.clone();
        forged.codes.insert(*hash, Bytes::from_static(&[0xef, 0x01, 0x00]));
        assert!(execute_on_witness(&chain.config, &chain.head, &payload, &forged).is_err());
    }
    let mut encoded = alloy_rlp::encode(&witness);
    encoded.push(0);
    let mut rest = &encoded[..];
    Witness::decode(&mut rest).unwrap();
    assert_eq!(rest, [0], "decoding leaves what follows to its caller");
}

#[test]
fn a_witness_stays_within_what_the_meter_counted() {
    let chain = Chain::funded();
    let txs: Vec<_> = (0..8u8)
        .map(|number| {
            let to = TxKind::Call(Address::repeat_byte(number + 1));
            user(&account(number).sign(call(0, to, 1, Bytes::new())))
        })
        .collect();
    let payload = chain.payload([vec![attributes(2)], txs].concat());
    let (block, witness) =
        record_witness(&chain.config, &chain.head, &payload, chain.db.clone()).unwrap();
    let size = alloy_rlp::encode(&witness).len() as u64;
    assert!(size <= block.witness_bytes, "{size} > {}", block.witness_bytes);
    assert!(payload.transactions.iter().all(|tx| match tx {
        PayloadTx::User(bytes) => !bytes.is_empty(),
        PayloadTx::System(deposit) => !deposit.encoded_2718().is_empty(),
    }));
}
