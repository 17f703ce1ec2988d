//! Block 0 with as many accounts as one likes, and who of them sends.

use crate::trie::{Leaves, build};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use anyhow::{Context, Result};
use k256::ecdsa::SigningKey;
use kedge::engine::genesis_of;
use kedge_bridge::derive::DeriveState;
use kedge_bridge::vault::vault_script;
use kedge_fraud_proof::AssertionTracker;
use kedge_genesis::{GenesisAccount, L2Number, Network, Params, alloc};
use kedge_store::{Domain, Durability, Identity, L1Row, Store, Table};
use kedge_vm::trie::{TrieAccount, account_key};
use kedge_vm::{AccountInfo, StateDiff, TrieDiff, genesis_block, output_root};
use kedge_workloads::{swap, token};
use std::path::Path;

/// The token that everybody holds.
pub(crate) const TOKEN: Address = Address::repeat_byte(0x70);
/// The pair of [`swap::COINS`], which senders hold.
pub(crate) const PAIR: Address = Address::repeat_byte(0xab);
/// Coins, and tokens of each kind, that everybody begins with.
pub(crate) const BALANCE: u64 = 1_000_000_000_000_000_000;
/// What the pair has of each of its coins.
const RESERVE: u128 = 1_000_000_000_000_000_000_000_000;

const NO_STORAGE: B256 = kedge_vm::trie::EMPTY_ROOT_HASH;
/// Rows that are loaded in one write.
const ROWS: usize = 16_384;

pub(crate) fn params() -> &'static Params {
    Network::Dev.params()
}

/// Who there is: `senders` of the accounts have keys, the others only ever receive.
pub(crate) struct People {
    pub(crate) senders: Vec<(SigningKey, Address)>,
    accounts: u64,
}

impl People {
    pub(crate) fn new(accounts: u64) -> Self {
        let senders = (0..accounts.min(20_000) / 2).map(|number| {
            let key = SigningKey::from_slice(keccak256(number.to_be_bytes()).as_slice());
            let key = key.expect("a hash is a valid scalar, or the first of its kind");
            let address = Address::from_public_key(key.verifying_key());
            (key, address)
        });
        Self { senders: senders.collect(), accounts }
    }

    /// The account of that number, below the number of accounts.
    pub(crate) fn address(&self, number: u64) -> Address {
        match self.senders.get(number as usize) {
            Some((_, address)) => *address,
            None => Address::from_word(keccak256([&b"holder"[..], &number.to_be_bytes()].concat())),
        }
    }

    pub(crate) const fn count(&self) -> u64 {
        self.accounts
    }

    /// The contracts of block 0: the network's and the workloads'. Without what people hold of [`TOKEN`].
    pub(crate) fn contracts(&self) -> Result<Vec<GenesisAccount>> {
        let vault = vault_script(params()).context("dev has a vault")?;
        let mut contracts = alloc(params(), vault.as_bytes());
        let contract = |address, code: &'static [u8], storage| GenesisAccount {
            address,
            nonce: 1,
            balance: U256::ZERO,
            code: Bytes::from_static(code),
            storage,
        };
        contracts.push(contract(TOKEN, token::RUNTIME, vec![]));
        for coin in swap::COINS {
            let mut storage = vec![(token::balance_slot(PAIR), U256::from(RESERVE))];
            for (_, of) in &self.senders {
                storage.push((token::balance_slot(*of), U256::from(BALANCE)));
                storage.push((swap::allowance_slot(*of, PAIR), U256::MAX));
            }
            contracts.push(contract(coin, swap::COIN, storage));
        }
        contracts.push(contract(PAIR, swap::PAIR, vec![(U256::ZERO, swap::reserves(RESERVE))]));
        Ok(contracts)
    }
}

/// The store's identity: that of the network, whose block 0 is another one. Only benchmarks open it.
pub(crate) fn identity() -> Result<Identity> {
    let genesis = genesis_of(params())?.hash;
    Ok(Identity { network: params().network, params: params().hash(), genesis })
}

/// Collects nodes and loads them in portions.
struct Loader<'s> {
    store: &'s Store,
    nodes: TrieDiff,
}

impl Loader<'_> {
    fn trie(&mut self, owner: Option<B256>, leaves: &Leaves<'_>) -> Result<B256> {
        let root = build(leaves, &mut |path, rlp| {
            self.nodes.nodes.insert((owner, path), Some(rlp.into()));
            if self.nodes.nodes.len() >= ROWS { self.flush() } else { Ok(()) }
        })?;
        self.flush()?;
        Ok(root)
    }

    fn flush(&mut self) -> Result<()> {
        let nodes = std::mem::take(&mut self.nodes);
        Ok(self.store.load_state(&StateDiff::default(), &nodes)?)
    }
}

fn sorted(keys: impl Iterator<Item = B256>) -> Vec<(B256, u32)> {
    let mut keys: Vec<_> = keys.zip(0..).collect();
    keys.sort_unstable();
    keys
}

/// Makes a store in `dir` whose block 0 has the contracts and these people, each with coins and tokens.
pub(crate) fn create(dir: &Path, people: &People) -> Result<()> {
    let derive = DeriveState::genesis(params()).context("dev has keys")?;
    let store = Store::open(dir, &identity()?)?;
    let mut genesis = genesis_block(params(), &people.contracts()?)?;
    let contracts: Vec<(Address, AccountInfo)> = genesis
        .state
        .accounts
        .iter()
        .filter_map(|(address, info)| info.map(|info| (*address, info)))
        .collect();
    // Storage tries stay as they are; the account trie is made again with everybody in it.
    let mut trie = std::mem::take(&mut genesis.trie);
    trie.nodes.retain(|(owner, _), _| owner.is_some());
    let storage_root = |address: Address| {
        let owner = account_key(address).1;
        let node = trie.nodes.get(&(Some(owner), Default::default()));
        node.and_then(Option::as_ref).map_or(NO_STORAGE, keccak256)
    };
    let mut accounts: Vec<TrieAccount> = contracts
        .iter()
        .map(|(address, info)| trie_account(info, storage_root(*address)))
        .collect();
    store.load_state(&StateDiff::default(), &trie)?;

    let holder = AccountInfo { balance: U256::from(BALANCE), ..AccountInfo::default() };
    let mut state = StateDiff::default();
    for number in 0..people.count() {
        let address = people.address(number);
        state.accounts.insert(address, Some(holder));
        state.storage.insert((TOKEN, token::balance_slot(address)), holder.balance);
        if state.accounts.len() >= ROWS || number + 1 == people.count() {
            store.load_state(&std::mem::take(&mut state), &TrieDiff::default())?;
        }
    }
    let mut loader = Loader { store: &store, nodes: TrieDiff::default() };
    let holders = || (0..people.count()).map(|number| people.address(number));
    let slots = sorted(holders().map(|it| keccak256(B256::from(token::balance_slot(it)))));
    let balance = alloy_rlp::encode(holder.balance);
    let tokens = loader
        .trie(Some(account_key(TOKEN).1), &Leaves { keys: &slots, value: &|_| balance.clone() })?;
    drop(slots);
    for ((address, _), account) in contracts.iter().zip(&mut accounts) {
        if *address == TOKEN {
            account.storage_root = tokens;
        }
    }
    let addresses = contracts.iter().map(|(address, _)| *address).chain(holders());
    let keys = sorted(addresses.map(|it| account_key(it).1));
    let held = alloy_rlp::encode(trie_account(&holder, NO_STORAGE));
    let value =
        |index: u32| accounts.get(index as usize).map_or_else(|| held.clone(), alloy_rlp::encode);
    genesis.header.state_root = loader.trie(None, &Leaves { keys: &keys, value: &value })?;
    drop(keys);

    genesis.hash = genesis.header.hash_slow();
    let withdrawals = genesis.header.withdrawals_root.context("it has one")?;
    genesis.output_root = output_root(genesis.header.state_root, withdrawals, genesis.hash);
    let mut change = store.change();
    change.write_genesis(&genesis, &derive.cursor)?;
    let start = u64::from(params().l1_start.height.0);
    change.begin(Domain::L1, start)?;
    let row = L1Row {
        hash: params().l1_start.hash,
        time: params().l1_start_time,
        safe: L2Number(0),
        deposits: 0,
        notes: 0,
    };
    change.put_l1_block(params().l1_start, None, &row)?;
    change.put_derived(&derive, &[])?;
    change.put_tracker(&AssertionTracker::genesis(params()))?;
    change.end(Domain::L1)?;
    change.commit(Durability::Synced)?;
    // As a node's state is that has run for long.
    for table in [Table::Accounts, Table::Storage, Table::Tries] {
        store.compact(table)?;
    }
    Ok(())
}

fn trie_account(info: &AccountInfo, storage_root: B256) -> TrieAccount {
    TrieAccount {
        nonce: info.nonce,
        balance: info.balance,
        storage_root,
        code_hash: info.code_hash,
    }
}
