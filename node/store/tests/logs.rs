//! The log index against a scan of all receipts.

use alloy_consensus::{Header, Receipt};
use alloy_primitives::{Address, B256, Log, LogData};
use kedge_bridge::derive::DeriveState;
use kedge_genesis::{L1Ref, L2Number, Network};
use kedge_store::{Durability, Identity, L2Rows, LogTerms, Store, Table};
use kedge_vm::{ExecutedBlock, OpReceiptEnvelope, Payload, StateDiff, TrieDiff};
use proptest::prelude::*;
use tempfile::tempdir;

/// An address and topics, each one of a few.
type Entry = (u8, Vec<u8>);

fn address(seed: u8) -> Address {
    Address::repeat_byte(seed)
}

fn topic(seed: u8) -> B256 {
    B256::repeat_byte(seed)
}

fn open(path: &std::path::Path) -> Store {
    let identity = Identity { network: Network::Dev, params: B256::ZERO, genesis: B256::ZERO };
    Store::open(path, &identity).unwrap()
}

/// Adds a block whose receipts have these logs.
fn append(store: &Store, number: u64, receipts: &[Vec<Entry>]) {
    let receipts: Vec<OpReceiptEnvelope> = receipts
        .iter()
        .map(|logs| {
            let logs = logs.iter().map(|(from, topics)| Log {
                address: address(*from),
                data: LogData::new_unchecked(
                    topics.iter().map(|it| topic(*it)).collect(),
                    Default::default(),
                ),
            });
            let receipt = Receipt { logs: logs.collect(), ..Default::default() };
            OpReceiptEnvelope::Legacy(receipt.with_bloom())
        })
        .collect();
    let payload = Payload {
        number: L2Number(number),
        timestamp: number,
        origin: L1Ref::default(),
        sequence_number: 0,
        transactions: Vec::new(),
    };
    let header = Header { number, ..Default::default() };
    let block = ExecutedBlock {
        hash: header.hash_slow(),
        header,
        transactions: Vec::new(),
        senders: Vec::new(),
        receipts,
        output_root: B256::ZERO,
        metered_gas: 0,
        witness_bytes: 0,
        skipped: Vec::new(),
        before: Default::default(),
        state: StateDiff::default(),
        unchanged: Vec::new(),
        trie: TrieDiff::default(),
    };
    let cursor = DeriveState::genesis(Network::Dev.params()).unwrap().cursor;
    let mut change = store.change();
    change.append_block(&payload, &block, &cursor).unwrap();
    change.commit(Durability::Buffered).unwrap();
}

/// Blocks in which every list of `terms` has an entry, found by reading all receipts.
fn scan(store: &Store, terms: &LogTerms, first: u64, last: u64) -> Vec<u64> {
    let reader = store.reader();
    (first..=last)
        .filter(|number| {
            let receipts = reader.receipts(L2Number(*number)).unwrap().unwrap_or_default();
            let logs: Vec<&Log> = receipts.iter().flat_map(|receipt| receipt.logs()).collect();
            let by_address = terms.addresses.is_empty()
                || logs.iter().any(|log| terms.addresses.contains(&log.address));
            let by_topics = terms.topics.iter().enumerate().all(|(position, wanted)| {
                wanted.is_empty()
                    || logs.iter().any(|log| {
                        log.topics().get(position).is_some_and(|topic| wanted.contains(topic))
                    })
            });
            by_address && by_topics
        })
        .collect()
}

fn indexed(store: &Store, terms: &LogTerms, first: u64, last: u64) -> Vec<u64> {
    let reader = store.reader();
    let blocks = reader.blocks_with_logs(terms, L2Number(first), L2Number(last));
    blocks.filter_map(|number| number.unwrap()).map(|number| number.0).collect()
}

#[test]
fn terms_that_never_meet_give_a_leap_at_a_time_and_no_block() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..20 {
        // Address and topic, in turns.
        let logs = if number % 2 == 0 { (1, vec![9]) } else { (3, vec![2]) };
        append(&store, number, &[vec![logs]]);
    }
    let topics = [vec![topic(2)], vec![], vec![], vec![]];
    let terms = LogTerms { addresses: vec![address(1)], topics };
    let reader = store.reader();
    let leaps: Vec<_> =
        reader.blocks_with_logs(&terms, L2Number(0), L2Number(19)).map(Result::unwrap).collect();
    assert_eq!(leaps, [None; 20]);
}

fn blocks() -> impl Strategy<Value = Vec<Vec<Vec<Entry>>>> {
    let entry = (0..4_u8, proptest::collection::vec(0..4_u8, 0..4));
    let receipts = proptest::collection::vec(proptest::collection::vec(entry, 0..3), 0..3);
    proptest::collection::vec(receipts, 1..24)
}

fn terms() -> impl Strategy<Value = LogTerms> {
    let some = || proptest::collection::vec(0..5_u8, 0..3);
    (some(), [some(), some(), some(), some()]).prop_map(|(addresses, topics)| LogTerms {
        addresses: addresses.into_iter().map(address).collect(),
        topics: topics.map(|it| it.into_iter().map(topic).collect()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Over any range, before and after any number of blocks was unwound.
    #[test]
    fn the_index_finds_what_a_scan_of_all_receipts_finds(
        blocks in blocks(),
        asked in proptest::collection::vec((terms(), 0..24_u64, 0..24_u64), 1..8),
        unwound in 0..24_usize,
    ) {
        let dir = tempdir().unwrap();
        let store = open(dir.path());
        let mut sizes = vec![0];
        for (number, receipts) in (0..).zip(&blocks) {
            append(&store, number, receipts);
            sizes.push(store.reader().all(Table::LogIndex).count());
        }
        let mut latest = blocks.len() as u64 - 1;
        for round in 0..2 {
            for (terms, first, count) in &asked {
                let last = (first + count).min(latest);
                prop_assert_eq!(
                    indexed(&store, terms, *first, last),
                    scan(&store, terms, *first, last),
                    "round {}", round
                );
            }
            for _ in 0..unwound.min(latest as usize) {
                let mut change = store.change();
                change.unwind_block().unwrap();
                change.commit(Durability::Buffered).unwrap();
                latest -= 1;
                prop_assert_eq!(
                    store.reader().all(Table::LogIndex).count(),
                    sizes[latest as usize + 1],
                    "a block that is unwound leaves nothing in the index"
                );
            }
            if unwound == 0 {
                break;
            }
        }
    }
}

#[test]
fn a_rare_term_decides_which_blocks_are_looked_at() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..300 {
        let rare = if number % 100 == 42 { vec![(9, vec![1, 7])] } else { vec![] };
        append(&store, number, &[vec![(1, vec![1]), (2, vec![1, 2])], rare]);
    }
    let of = |addresses: &[u8], topics: [&[u8]; 4]| LogTerms {
        addresses: addresses.iter().map(|it| address(*it)).collect(),
        topics: topics.map(|it| it.iter().map(|it| topic(*it)).collect()),
    };
    let expected = [42, 142, 242];
    for terms in [
        of(&[9], [&[], &[], &[], &[]]),
        of(&[9], [&[1], &[], &[], &[]]),
        of(&[], [&[1], &[7], &[], &[]]),
        of(&[1, 9], [&[1], &[7], &[], &[]]),
    ] {
        assert_eq!(indexed(&store, &terms, 0, 299), expected);
        assert_eq!(indexed(&store, &terms, 43, 241), [142]);
    }
    // A topic counts at its own position only.
    assert_eq!(indexed(&store, &of(&[], [&[7], &[], &[], &[]]), 0, 299), [0; 0]);
    assert_eq!(indexed(&store, &of(&[], [&[], &[], &[2], &[]]), 0, 299), [0; 0]);
    assert!(of(&[], [&[], &[], &[], &[]]).is_empty());
    assert_eq!(indexed(&store, &LogTerms::default(), 297, 299), [297, 298, 299]);
}
