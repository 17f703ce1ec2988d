//! The meter: everything that an execution loads is charged, and nothing is loaded that is not.

mod common;

use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use common::*;
use kedge_genesis::{GenesisAccount, alloc, predeploys};
use kedge_vm::{
    ExecutedBlock, Header, MemoryDb, Nibbles, Payload, PayloadTx, SkipReason, StateSource, TrieDb,
    TrieNodes, config::WITNESS_BYTES_PER_KEY, execute, genesis_block, trie,
};
use kedge_workloads::state::{Access, each_number, each_word, largest_code, runner, words};
use kedge_workloads::{Code, deployer as deploy_code};
use proptest::prelude::*;
use revm::state::Bytecode;
use std::collections::{BTreeMap, BTreeSet};

type NodeAt = (Option<B256>, Nibbles);

/// A source that notes which trie nodes it gave.
struct Nodes<'a> {
    source: MemoryDb,
    given: &'a mut BTreeSet<NodeAt>,
}

impl TrieNodes for Nodes<'_> {
    type Error = <MemoryDb as TrieNodes>::Error;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.given.insert((owner, *path));
        self.source.trie_node(owner, path, hash)
    }
}

impl StateSource for Nodes<'_> {
    fn code(&mut self, hash: B256) -> Result<Bytes, Self::Error> {
        self.source.code(hash)
    }

    fn header(&mut self, number: u64) -> Result<Header, Self::Error> {
        self.source.header(number)
    }
}

/// What an execution asked its database for.
#[derive(Debug, Default)]
struct Asked {
    accounts: BTreeSet<Address>,
    slots: BTreeSet<(Address, U256)>,
    codes: BTreeMap<B256, usize>,
    nodes: BTreeSet<NodeAt>,
}

struct Asking<'a> {
    db: TrieDb<Nodes<'a>>,
    accounts: &'a mut BTreeSet<Address>,
    slots: &'a mut BTreeSet<(Address, U256)>,
    codes: &'a mut BTreeMap<B256, usize>,
}

impl TrieNodes for Asking<'_> {
    type Error = <TrieDb<MemoryDb> as TrieNodes>::Error;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.db.trie_node(owner, path, hash)
    }
}

impl revm::Database for Asking<'_> {
    type Error = <TrieDb<MemoryDb> as TrieNodes>::Error;

    fn basic(&mut self, address: Address) -> Result<Option<revm::state::AccountInfo>, Self::Error> {
        self.accounts.insert(address);
        self.db.basic(address)
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Self::Error> {
        let code = self.db.code_by_hash(hash)?;
        self.codes.insert(hash, code.original_byte_slice().len());
        Ok(code)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.slots.insert((address, slot));
        self.db.storage(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        panic!("the hash of block {number} is asked for outside of the state")
    }
}

/// Executes a payload on the tries of the chain's state, noting what is asked for.
fn observe(chain: &Chain, payload: &Payload) -> (ExecutedBlock, Asked) {
    let mut asked = Asked::default();
    let source = Nodes { source: chain.db.clone(), given: &mut asked.nodes };
    let mut db = Asking {
        db: TrieDb::new(source, chain.head.clone()),
        accounts: &mut asked.accounts,
        slots: &mut asked.slots,
        codes: &mut asked.codes,
    };
    let block =
        execute(&chain.config, &chain.head, chain.head.hash_slow(), payload, &mut db).unwrap();
    (block, asked)
}

/// What the meter says is what was asked for, and every trie node was on the path of something charged,
/// or next to the path of a key that the block took out of its trie.
fn check(block: &ExecutedBlock, asked: &Asked) {
    let keys = (asked.accounts.len() + asked.slots.len()) as u64;
    let codes: usize = asked.codes.values().sum();
    assert_eq!(block.witness_bytes, keys * WITNESS_BYTES_PER_KEY + codes as u64);

    let mut charged: BTreeMap<Option<B256>, Vec<Nibbles>> = BTreeMap::new();
    let mut removed: BTreeMap<Option<B256>, Vec<Nibbles>> = BTreeMap::new();
    for address in &asked.accounts {
        let (path, _) = trie::account_key(*address);
        charged.entry(None).or_default().push(path);
        if block.state.accounts.get(address) == Some(&None) {
            removed.entry(None).or_default().push(path);
        }
    }
    for (address, slot) in &asked.slots {
        let owner = Some(trie::account_key(*address).1);
        charged.entry(owner).or_default().push(trie::slot_key(*slot));
        if block.state.storage.get(&(*address, *slot)) == Some(&U256::ZERO) {
            removed.entry(owner).or_default().push(trie::slot_key(*slot));
        }
    }
    for (owner, path) in &asked.nodes {
        let on = charged.get(owner).is_some_and(|keys| keys.iter().any(|k| k.starts_with(path)));
        let parent = path.slice(..path.len().saturating_sub(1));
        let beside =
            removed.get(owner).is_some_and(|keys| keys.iter().any(|k| k.starts_with(&parent)));
        assert!(on || beside, "node {path:?} of {owner:?} is not charged");
    }
    let at_key = |of: &BTreeMap<_, Vec<_>>| of.values().map(Vec::len).sum::<usize>();
    assert!(at_key(&removed) <= at_key(&charged));
}

/// Where a workload contract stands in the tests' genesis.
fn at(name: &str) -> Address {
    Address::from_word(keccak256(name))
}

fn contract(name: &str, code: Vec<u8>, storage: Vec<(U256, U256)>) -> GenesisAccount {
    let balance = U256::from(1_000);
    GenesisAccount { address: at(name), nonce: 1, balance, code: code.into(), storage }
}

/// Contracts of the largest size.
const LARGE: u64 = 800;

fn large(number: u64) -> Address {
    at(&format!("large {number}"))
}

/// A chain with funded accounts and with contracts that run anything.
fn chain(more: Vec<GenesisAccount>) -> Chain {
    let mut accounts = alloc(params(), &[0x51]);
    let filled: Vec<_> = (0..64).map(|slot| (U256::from(slot), U256::from(slot + 7))).collect();
    accounts.push(contract("runner", runner(), filled.clone()));
    accounts.push(contract("code sizes", each_number(Access::CodeSize), vec![]));
    accounts.push(contract("code sizes of", each_word(Access::CodeSize), vec![]));
    accounts.push(contract("balances of", each_word(Access::Balance), vec![]));
    accounts.push(contract("clears", each_word(Access::Clear), filled));
    accounts.extend(more);
    accounts.sort_by_key(|account| account.address);
    let genesis = genesis_block(params(), &accounts).unwrap();
    let db = MemoryDb::new(&genesis);
    let mut chain =
        Chain { config: config(), genesis: db.clone(), db, head: genesis.header, blocks: vec![] };
    let mut listed = vec![attributes(1)];
    listed.extend((0..8).map(|number| mint(account(number).address, COIN)));
    chain.execute(listed);
    chain
}

/// One thing that code can do, with a number that says to what.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An instruction that takes an address: BALANCE, EXTCODESIZE, EXTCODEHASH, CALL and the like.
    Address(u8, u8),
    Load(u8),
    Store(u8, u8),
    Copy(u8),
    BlockHash(u16),
    /// CREATE2 with this salt of a contract that destroys itself or stays.
    Create(u8, bool),
    Precompile(u8),
    Destruct(u8),
    Revert,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5u8, 0..16u8).prop_map(|(what, who)| Step::Address(what, who)),
        3 => (0..80u8).prop_map(Step::Load),
        6 => (0..80u8, 0..3u8).prop_map(|(slot, value)| Step::Store(slot, value)),
        1 => (0..16u8).prop_map(Step::Copy),
        1 => (0..600u16).prop_map(Step::BlockHash),
        3 => (0..4u8, any::<bool>()).prop_map(|(salt, dies)| Step::Create(salt, dies)),
        1 => (1..18u8).prop_map(Step::Precompile),
        1 => (0..16u8).prop_map(Step::Destruct),
        1 => Just(Step::Revert),
    ]
}

/// Accounts, contracts, addresses of nothing, system contracts.
fn someone(number: u8) -> Address {
    match number {
        0..4 => account(number).address,
        4 => at("runner"),
        5 => at("clears"),
        6 => predeploys::L2_TO_L1_MESSAGE_PASSER,
        7 => predeploys::L1_BLOCK,
        8 => predeploys::SEQUENCER_FEE_VAULT,
        9 => Address::with_last_byte(5),
        // What the runner creates with these salts: see `child`.
        10..14 => at("runner").create2(B256::with_last_byte(number - 10), keccak256(child(true))),
        other => at(&format!("nobody {other}")),
    }
}

/// Init code of a contract that destroys itself at once for the benefit of its creator, or that stays.
fn child(dies: bool) -> Vec<u8> {
    if dies { vec![0x33, 0xff] } else { deploy_code(&[0x5f, 0x54, 0x00]) }
}

fn code_of(steps: &[Step]) -> Vec<u8> {
    let number = |n: u8| U256::from(n);
    let mut code = Code::new();
    for step in steps {
        code = match *step {
            Step::Address(what, who) => {
                let who = someone(who);
                match what {
                    0 => code.address(who).raw([0x31, 0x50]),
                    1 => code.address(who).raw([0x3b, 0x50]),
                    2 => code.address(who).raw([0x3f, 0x50]),
                    // CALL and DELEGATECALL with little gas and no data.
                    3 => {
                        code.raw([0x5f; 5]).address(who).push(U256::from(60_000)).raw([0xf1, 0x50])
                    }
                    _ => {
                        code.raw([0x5f; 4]).address(who).push(U256::from(60_000)).raw([0xf4, 0x50])
                    }
                }
            }
            Step::Load(slot) => code.push(number(slot)).raw([0x54, 0x50]),
            Step::Store(slot, value) => code.push(number(value)).push(number(slot)).raw([0x55]),
            Step::Copy(who) => code.raw([0x60, 9, 0x5f, 0x5f]).address(someone(who)).raw([0x3c]),
            Step::BlockHash(back) => code.push(U256::from(back)).raw([0x43, 0x03, 0x40, 0x50]),
            Step::Create(salt, dies) => {
                let init = child(dies);
                // MSTORE the init code, right-aligned in one word, then CREATE2 with 1 wei.
                let word = U256::from_be_slice(&init);
                code.push(word)
                    .raw([0x5f, 0x52])
                    .push(number(salt))
                    .push(U256::from(init.len()))
                    .push(U256::from(32 - init.len()))
                    .raw([0x60, 1, 0xf5, 0x50])
            }
            Step::Precompile(which) => {
                code.raw([0x5f; 4]).push(number(which)).push(U256::from(100_000)).raw([0xfa, 0x50])
            }
            Step::Destruct(who) => code.address(someone(who)).raw([0xff]),
            Step::Revert => code.raw([0x5f, 0x5f, 0xfd]),
        };
    }
    code.into_bytes()
}

/// A transaction of the random blocks.
#[derive(Clone, Debug)]
enum Action {
    /// Runs code on the storage of the runner, or of an account that delegates to it.
    Run(u8, Option<u8>, Vec<Step>),
    /// Runs code as init code of a contract.
    Init(u8, Vec<Step>),
    /// Delegates an account (EIP-7702) to the runner or to nothing.
    Delegate(u8, u8, bool),
    /// Reads, with everything in the access list.
    Listed(u8, Vec<Step>),
    Transfer(u8, u8, u8),
    Raw(Vec<u8>),
}

fn action() -> impl Strategy<Value = Action> {
    let steps = || prop::collection::vec(step(), 0..12);
    prop_oneof![
        6 => (0..8u8, prop::option::of(4..8u8), steps()).prop_map(|(f, t, s)| Action::Run(f, t, s)),
        2 => (0..8u8, steps()).prop_map(|(from, steps)| Action::Init(from, steps)),
        2 => (0..8u8, 4..8u8, any::<bool>()).prop_map(|(f, who, to)| Action::Delegate(f, who, to)),
        1 => (0..8u8, steps()).prop_map(|(from, steps)| Action::Listed(from, steps)),
        2 => (0..8u8, 0..16u8, 0..6u8).prop_map(|(from, to, gap)| Action::Transfer(from, to, gap / 5)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Action::Raw),
    ]
}

fn listed(chain: &Chain, number: u64, actions: &[Action]) -> Vec<PayloadTx> {
    let mut nonces: Vec<u64> = (0..8).map(|n| chain.nonce(account(n).address)).collect();
    let mut next = |from: u8| {
        let nonce = nonces[usize::from(from)];
        nonces[usize::from(from)] += 1;
        nonce
    };
    let runner = TxKind::Call(at("runner"));
    let mut txs = vec![attributes(number)];
    for action in actions {
        txs.push(match action {
            Action::Run(from, target, steps) => {
                let to = target.map_or(runner, |who| TxKind::Call(account(who).address));
                user(&account(*from).sign(call(next(*from), to, 5, deploy_code(&code_of(steps)))))
            }
            Action::Init(from, steps) => {
                user(&account(*from).sign(call(next(*from), TxKind::Create, 5, code_of(steps))))
            }
            Action::Delegate(from, who, to_runner) => {
                let to = if *to_runner { at("runner") } else { Address::ZERO };
                let nonce = next(*from);
                let at_nonce = chain.nonce(account(*who).address) + u64::from(from == who);
                let base = call(nonce, runner, 0, Bytes::new());
                let list = vec![account(*who).authorize(at_nonce, to)];
                user(&account(*from).sign(eip7702(&base, account(*who).address, list)))
            }
            Action::Listed(from, steps) => {
                let mut tx = call(next(*from), runner, 0, deploy_code(&code_of(steps)));
                let item = |who| AccessListItem {
                    address: someone(who),
                    storage_keys: (0..4).map(B256::with_last_byte).collect(),
                };
                tx.access_list = AccessList((0..16).map(item).collect());
                user(&account(*from).sign(tx))
            }
            Action::Transfer(from, to, gap) => {
                let nonce = next(*from) + u64::from(*gap);
                let to = TxKind::Call(someone(*to));
                user(&account(*from).sign(call(nonce, to, 3, Bytes::new())))
            }
            Action::Raw(bytes) => PayloadTx::User(bytes.clone().into()),
        });
    }
    txs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn everything_that_random_blocks_load_is_charged(
        blocks in prop::collection::vec(prop::collection::vec(action(), 0..10), 1..4),
    ) {
        let mut chain = chain(vec![]);
        for (number, actions) in (2..).zip(&blocks) {
            let payload = chain.payload(listed(&chain, number, actions));
            let (block, asked) = observe(&chain, &payload);
            check(&block, &asked);
            let executed = chain.execute(payload.transactions.clone());
            prop_assert_eq!(executed.witness_bytes, block.witness_bytes);
            prop_assert_eq!(executed.hash, block.hash);
        }
    }
}

#[test]
fn an_empty_block_is_charged_what_it_loads() {
    let chain = chain(vec![]);
    let payload = chain.payload(vec![]);
    let (block, asked) = observe(&chain, &payload);
    check(&block, &asked);
    assert!(asked.accounts.contains(&predeploys::L2_TO_L1_MESSAGE_PASSER));
}

#[test]
fn what_is_stopped_at_the_limit_loads_no_more() {
    // Contracts whose accounts a first transaction loads, so that calling one loads its code alone.
    let codes = (0..LARGE).map(|n| contract(&format!("large {n}"), largest_code(n), vec![]));
    let mut chain = chain(codes.collect());
    let touch = |nonce, access: &str, numbers: std::ops::Range<u64>, gas| {
        let targets = numbers.map(|n| U256::from_be_slice(large(n).as_slice()));
        let mut tx = call(nonce, TxKind::Call(at(access)), 0, words(targets));
        tx.gas_limit = gas;
        user(&account(0).sign(tx))
    };
    let mut txs = vec![
        touch(0, "balances of", 0..LARGE, 5_000_000),
        touch(1, "code sizes of", 0..16, 300_000),
        touch(2, "code sizes of", 16..60, 500_000),
    ];
    // Each of these would load its code and be stopped by that, without using up the nonce.
    txs.extend((100..400).map(|number| {
        let mut tx = call(2, TxKind::Call(large(number)), 0, Bytes::new());
        tx.gas_limit = 30_000;
        user(&account(0).sign(tx))
    }));
    let limit = params().block_witness_limit;
    let payload = chain.payload(txs);
    let (block, asked) = observe(&chain, &payload);
    check(&block, &asked);
    assert!(block.witness_bytes <= limit, "{} bytes", block.witness_bytes);
    assert!(block.witness_bytes + 24_576 > limit, "{} bytes", block.witness_bytes);
    let stopped = block.skipped.iter().filter(|(_, why)| *why == SkipReason::WitnessLimit).count();
    assert_eq!(stopped, 301);
    assert_eq!(chain.execute(payload.transactions).witness_bytes, block.witness_bytes);
}

#[test]
fn refunds_do_not_lower_what_is_metered() {
    let mut chain = chain(vec![]);
    let data = words((0..64).map(U256::from));
    let tx = account(0).sign(call(0, TxKind::Call(at("clears")), 0, data));
    let payload = chain.payload(vec![user(&tx)]);
    let (block, asked) = observe(&chain, &payload);
    check(&block, &asked);
    assert_eq!(block.skipped, []);
    assert_eq!(block.state.storage.values().filter(|value| value.is_zero()).count(), 64);
    let work = block.metered_gas - params().block_overhead_gas;
    // EIP-3529: a fifth is given back.
    assert_eq!(block.header.gas_used, work - work / 5);
    assert_eq!(chain.execute(payload.transactions).metered_gas, block.metered_gas);
}

/// The numbers of one block, so that no change of them goes unnoticed.
#[test]
fn the_meter_of_a_known_block() {
    let chain = chain(vec![]);
    let transfer = call(0, TxKind::Call(Address::repeat_byte(9)), 5, Bytes::new());
    let sizes = call(0, TxKind::Call(at("code sizes of")), 0, words([U256::from(7)]));
    let skipped = call(9, TxKind::Call(Address::ZERO), 0, vec![1; 10]);
    let payload = chain.payload(vec![
        user(&account(0).sign(transfer)),
        user(&account(1).sign(sizes)),
        user(&account(2).sign(skipped)),
    ]);
    let (block, asked) = observe(&chain, &payload);
    check(&block, &asked);
    assert_eq!(block.skipped.len(), 1);
    let codes: usize = asked.codes.values().sum();
    assert_eq!((asked.accounts.len(), asked.slots.len(), codes), (14, 7, 196));
    // Overhead, a transfer, a call at the floor of EIP-7623, the intrinsic gas of what is skipped.
    assert_eq!(block.metered_gas, 50_000 + 21_000 + 21_350 + 21_400);
    assert_eq!(block.witness_bytes, (14 + 7) * 1_500 + 196);
}
