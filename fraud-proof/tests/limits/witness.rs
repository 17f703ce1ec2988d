//! Segments that read as much state as the meter lets them, on states of 2^32 leaves.

use crate::big_state::{BigState, Shape, contract, plain};
use crate::case::{Call, Case, Proven, accounts, at, params};
use alloy_primitives::{Address, B256, U256, keccak256};
use kedge_genesis::Sats;
use kedge_vm::config::WITNESS_BYTES_PER_KEY;
use kedge_workloads::state::{Access, each_word, largest_code, words};
use std::collections::BTreeSet;

/// Depth at which 2^32 random keys are told apart.
const LEVELS: usize = 8;
const FULL: Shape = Shape { full: LEVELS, thin: 0, neighbour: false };
/// The contract whose storage is large.
const STORE: &str = "store";
/// More keys than a segment can read.
const KEYS: usize = 2_000;

/// Numbers whose hashes share as few of their first nibbles as so many can.
fn spread(count: usize, hash: impl Fn(U256) -> B256) -> Vec<U256> {
    let mut taken = BTreeSet::new();
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    for key in (1..40_000u64).map(U256::from) {
        let hash = hash(key);
        let new = taken.insert([hash[0], hash[1] >> 4]);
        if new { keys.push(key) } else { others.push(key) }
    }
    keys.extend(others);
    keys.truncate(count);
    keys
}

fn slots() -> Vec<U256> {
    spread(KEYS, |slot| keccak256(B256::from(slot)))
}

/// A segment as full as it gets, of calls of a contract over keys: a first block just below both targets of
/// a segment, and one at both limits of a block.
fn fullest(case: &mut Case, to: Address, keys: &[U256], bytes_per_key: u64) -> Proven {
    let params = params();
    // What the blocks read besides.
    let one = vec![Call { to, gas: 100_000, input: words(keys.iter().copied().take(1)) }];
    let besides = case.run(&Case::lists([one.clone(), one]));
    let mut keys = keys.iter().copied();
    let mut calls = |bytes: u64| -> Vec<Call> {
        let mut left = usize::try_from(bytes / bytes_per_key).unwrap();
        let mut calls = Vec::new();
        while left > 0 {
            let count = left.min(700);
            let input = words(keys.by_ref().take(count));
            calls.push(Call { to, gas: 50_000 + 6_000 * count as u64, input });
            left -= count;
        }
        calls
    };
    let first = params.segment_witness_target() - 1 - besides[0].witness_bytes;
    let second = params.block_witness_limit - besides[1].witness_bytes;
    let lists = case.fill([calls(first), calls(second)]);
    let proven = case.prove(&lists);
    assert!(proven.blocks.iter().all(|block| block.skipped.is_empty()));
    assert_eq!(proven.blocks.len(), 2, "the first block ends no segment");
    assert_eq!(proven.blocks[0].metered_gas, params.segment_target_gas - 1);
    assert_eq!(proven.blocks[1].metered_gas, params.block_gas_limit);
    let most = params.segment_witness_target() + params.block_witness_limit;
    assert!(proven.witness() + 4 * bytes_per_key > most, "{} of {most}", proven.witness());
    proven
}

/// A contract that does something with each word of its call data, and has all slots.
fn store(access: Access, shape: Shape, slots: &[U256]) -> Case {
    let storage = slots.iter().map(|slot| (*slot, U256::MAX)).collect();
    let accounts = accounts([contract(at(STORE), each_word(access), storage)]);
    Case::new(BigState::new(&params(), &accounts, FULL, &[(at(STORE), shape)]))
}

#[test]
fn storage_heavy_segment_of_reads() {
    let slots = slots();
    let mut case = store(Access::Read, FULL, &slots);
    fullest(&mut case, at(STORE), &slots, WITNESS_BYTES_PER_KEY);
}

/// Each key taken out leaves a branch of one child, which has to be read to see what becomes of it.
#[test]
fn storage_heavy_segment_of_removals_that_pull_in_neighbours() {
    let slots = slots();
    let shape = Shape { full: LEVELS - 1, thin: 1, neighbour: true };
    let mut case = store(Access::Clear, shape, &slots);
    let proven = fullest(&mut case, at(STORE), &slots, WITNESS_BYTES_PER_KEY);
    let zeros: usize = proven
        .blocks
        .iter()
        .map(|block| block.state.storage.values().filter(|value| value.is_zero()).count())
        .sum();
    // Root, branches, a leaf and a neighbour for each.
    assert!(zeros > 1_000 && proven.sizes.node_count > zeros * 6, "{zeros}");
}

/// As if somebody had found, for each of his keys, others that begin with the same 12 nibbles but for the
/// last: 2^48 hashes for each.
#[test]
fn deep_trie_collision_keys_that_cost_2_to_the_48_hashes_each() {
    let slots = slots();
    let shape = Shape { full: 6, thin: 6, neighbour: true };
    let mut case = store(Access::Clear, shape, &slots);
    fullest(&mut case, at(STORE), &slots, WITNESS_BYTES_PER_KEY);
}

/// Keys that do begin alike, found by hashing, in an ordinary trie: extensions and branches far down, made,
/// read, merged and taken apart.
#[test]
fn deep_trie_collision_keys_found_by_hashing() {
    let mut hashes: Vec<(B256, U256)> =
        (0..1u64 << 20).map(U256::from).map(|slot| (keccak256(B256::from(slot)), slot)).collect();
    hashes.sort_unstable();
    let nibbles = |a: &B256, b: &B256| {
        let same = a.iter().zip(b.iter()).take_while(|(a, b)| a == b).count();
        let half = a.get(same).zip(b.get(same)).is_some_and(|(a, b)| a >> 4 == b >> 4);
        2 * same + usize::from(half)
    };
    let mut pairs: Vec<(usize, U256, U256)> =
        hashes.windows(2).map(|w| (nibbles(&w[0].0, &w[1].0), w[0].1, w[1].1)).collect();
    pairs.sort_unstable_by(|a, b| b.cmp(a));
    pairs.truncate(300);
    assert!(pairs.iter().all(|pair| pair.0 >= 7) && pairs[0].0 >= 9, "{:?}", pairs[0]);
    // One of each pair is there, and goes while the other comes.
    let storage = pairs.iter().map(|(_, slot, _)| (*slot, U256::ONE)).collect();
    let fill = contract(at("fill"), each_word(Access::Fill), vec![]);
    let mut runtime = each_word(Access::Clear);
    runtime.push(0);
    let clear = contract(at(STORE), runtime, storage);
    let accounts = accounts([fill, clear]);
    let state = BigState::new(&params(), &accounts, Shape::default(), &[]);
    let mut case = Case::new(state);
    let gone = words(pairs.iter().map(|(_, slot, _)| *slot));
    let come = words(pairs.iter().flat_map(|(_, one, other)| [*one, *other]));
    let calls = |to, input: &[u8], gas| vec![Call { to, gas, input: input.to_vec() }];
    let lists =
        Case::lists([calls(at(STORE), &gone, 1_900_000), calls(at("fill"), &come, 15_500_000)]);
    let proven = case.prove(&lists);
    assert!(proven.blocks.iter().all(|block| block.skipped.is_empty()));
}

#[test]
fn account_heavy_segment() {
    let address = |number: U256| Address::from_word(B256::from(number));
    let numbers = spread(KEYS, |number| keccak256(address(number)));
    let others = numbers.iter().map(|number| plain(address(*number), U256::from(10u64.pow(17))));
    let reader = contract(at(STORE), each_word(Access::Balance), vec![]);
    let accounts = accounts(others.chain([reader]));
    let mut case = Case::new(BigState::new(&params(), &accounts, FULL, &[]));
    fullest(&mut case, at(STORE), &numbers, WITNESS_BYTES_PER_KEY);
}

#[test]
fn contract_of_24_kb_read_as_often_as_fits() {
    let address = |number: U256| Address::from_word(B256::from(number));
    let numbers = spread(120, |number| keccak256(address(number)));
    let codes = numbers.iter().map(|number| {
        let code = largest_code(number.to::<u64>());
        contract(address(*number), code, vec![])
    });
    let reader = contract(at(STORE), each_word(Access::CodeSize), vec![]);
    let accounts = accounts(codes.chain([reader]));
    let mut case = Case::new(BigState::new(&params(), &accounts, FULL, &[]));
    // The meter lets a code be loaded where the largest would fit.
    let proven = fullest(&mut case, at(STORE), &numbers, WITNESS_BYTES_PER_KEY + 24_576);
    assert!(proven.sizes.code_count > 90, "{}", proven.sizes.code_count);
}

/// An epoch's deposits, each to a contract of the largest size that reads two more, then forced transactions,
/// then the sequencer's, which fill what the deposits leave.
#[test]
fn deposit_heavy_epoch_with_forced_transactions() {
    let params = params();
    let count = params.deposits_gas_per_block / params.deposit_gas;
    let named = |kind: &str, number| at(&format!("{kind} {number}"));
    let large = |number: u64, start: Vec<u8>| {
        let mut code = largest_code(number);
        code[..start.len()].copy_from_slice(&start);
        code
    };
    let recipients = (0..count).flat_map(|number| {
        let others = [named("one", number), named("other", number)];
        // EXTCODESIZE, POP of both; STOP
        let reads = others.iter().flat_map(|of| [&[0x73], of.as_slice(), &[0x3b, 0x50]].concat());
        let reads: Vec<u8> = reads.chain([0]).collect();
        let [one, other] = others;
        [
            contract(named("recipient", number), large(3 * number, reads), vec![]),
            contract(one, large(3 * number + 1, vec![]), vec![]),
            contract(other, large(3 * number + 2, vec![]), vec![]),
        ]
    });
    let slots = slots();
    let storage = slots.iter().map(|slot| (*slot, U256::MAX)).collect();
    let store = contract(at(STORE), each_word(Access::Read), storage);
    let accounts = accounts(recipients.chain([store]));
    let mut case = Case::new(BigState::new(&params, &accounts, FULL, &[(at(STORE), FULL)]));

    let to: Vec<_> = (0..count).map(|n| (named("recipient", n), Sats(1_000_000))).collect();
    let deposits = case.world.deposit(&to);
    // The forced ones are the second sender's first; what the sequencer lists of him comes after them.
    let (of_forced, rest) = slots.split_at(300);
    let reads =
        |keys: &[U256], gas| Call { to: at(STORE), gas, input: words(keys.iter().copied()) };
    let [_, forced] = Case::lists([vec![], vec![reads(of_forced, 8_300_000)]]);
    let forced = case.forced(&forced);
    case.mine(vec![deposits, forced]);
    case.step = true;

    let (first, rest) = rest.split_at(250);
    let all = |keys: &[U256]| vec![reads(of_forced, 8_300_000), reads(keys, 6_000_000)];
    let lists = |keys: &[U256]| {
        let [first, second] = Case::lists([vec![reads(first, 1_900_000)], all(keys)]);
        // Without what is forced.
        [first, second[2..].to_vec()]
    };
    let blocks = case.run(&lists(&rest[..1]));
    let left = params.block_witness_limit - blocks[1].witness_bytes;
    let keys = 1 + usize::try_from(left / WITNESS_BYTES_PER_KEY).unwrap();
    let proven = case.prove(&lists(&rest[..keys]));
    let block = &proven.blocks[1];
    assert_eq!(block.skipped, []);
    assert_eq!(block.receipts.len(), 1 + to.len() + 3);
    assert!(block.witness_bytes + 2 * WITNESS_BYTES_PER_KEY > params.block_witness_limit);
    assert!(proven.sizes.code_count > 3 * to.len());
}
