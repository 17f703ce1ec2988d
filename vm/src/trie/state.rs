//! The two layers of the state trie: accounts, and each account's storage.

use super::{
    EMPTY_ROOT_HASH, Nibbles, TrieAccount,
    ops::{Trie, TrieError},
};
use crate::{AccountInfo, ExecuteError, StateDiff, TrieDiff, TrieNodes};
use alloc::{collections::BTreeMap, vec::Vec};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::Decodable;

/// Storage roots of the accounts that a block changed, and of those that were asked for.
pub type StorageRoots = BTreeMap<Address, B256>;

/// Path of an account in the account trie, and owner of its storage trie.
pub fn account_key(address: Address) -> (Nibbles, B256) {
    let hash = keccak256(address);
    (Nibbles::unpack(hash), hash)
}

/// Path of a slot in its account's storage trie.
pub fn slot_key(slot: U256) -> Nibbles {
    Nibbles::unpack(keccak256(B256::from(slot)))
}

fn corrupt<E>(owner: Option<B256>, error: TrieError<E>) -> ExecuteError<E> {
    match error {
        TrieError::Load(error) => ExecuteError::Database(error),
        TrieError::Corrupt(path) => ExecuteError::CorruptTrie { owner, path },
    }
}

/// The account at `key` of the account trie.
pub(crate) fn read_account<N: TrieNodes + ?Sized>(
    accounts: &mut Trie,
    key: &Nibbles,
    nodes: &mut N,
) -> Result<Option<TrieAccount>, TrieError<N::Error>> {
    match accounts.get(key, |path, hash| nodes.trie_node(None, path, hash))? {
        None => Ok(None),
        Some(mut rlp) => match TrieAccount::decode(&mut rlp) {
            Ok(account) if rlp.is_empty() => Ok(Some(account)),
            _ => Err(TrieError::Corrupt(*key)),
        },
    }
}

/// The slot at `key` of the storage trie of `owner`.
pub(crate) fn read_slot<N: TrieNodes + ?Sized>(
    storage: &mut Trie,
    owner: B256,
    key: &Nibbles,
    nodes: &mut N,
) -> Result<U256, TrieError<N::Error>> {
    match storage.get(key, |path, hash| nodes.trie_node(Some(owner), path, hash))? {
        None => Ok(U256::ZERO),
        Some(mut rlp) => match U256::decode(&mut rlp) {
            Ok(value) if rlp.is_empty() => Ok(value),
            _ => Err(TrieError::Corrupt(*key)),
        },
    }
}

/// Applies `diff` to the state with that root. Gives the new root, the changed nodes, and the storage
/// roots of the accounts in `report`.
///
/// # Errors
/// When a node that the change needs cannot be read.
pub fn apply<N: TrieNodes>(
    root: B256,
    diff: &StateDiff,
    report: &[Address],
    nodes: &mut N,
) -> Result<(B256, TrieDiff, StorageRoots), ExecuteError<N::Error>> {
    let mut slots: BTreeMap<Address, Vec<(U256, U256)>> = BTreeMap::new();
    for ((address, slot), value) in &diff.storage {
        slots.entry(*address).or_default().push((*slot, *value));
    }
    for address in diff.accounts.keys() {
        slots.entry(*address).or_default();
    }

    let mut accounts = Trie::of::<N>(root);
    let mut changed = TrieDiff::default();
    for (address, slots) in slots {
        let (key, owner) = account_key(address);
        let before = read_account(&mut accounts, &key, nodes).map_err(|e| corrupt(None, e))?;
        let info = match diff.accounts.get(&address) {
            Some(info) => *info,
            None => before.map(|account| AccountInfo {
                nonce: account.nonce,
                balance: account.balance,
                code_hash: account.code_hash,
            }),
        };
        // An account that is gone had no storage before the block (EIP-6780, EIP-161).
        let Some(info) = info else {
            set_account(&mut accounts, &key, None, nodes)?;
            continue;
        };
        let mut storage =
            Trie::of::<N>(before.map_or(EMPTY_ROOT_HASH, |account| account.storage_root));
        for (slot, value) in slots {
            let value = if value.is_zero() { Vec::new() } else { alloy_rlp::encode(value) };
            storage
                .set(&slot_key(slot), value, |path, hash| nodes.trie_node(Some(owner), path, hash))
                .map_err(|e| corrupt(Some(owner), e))?;
        }
        let (storage_root, diff) = storage.commit();
        changed.nodes.extend(diff.into_iter().map(|(path, node)| ((Some(owner), path), node)));
        let after = TrieAccount {
            nonce: info.nonce,
            balance: info.balance,
            storage_root,
            code_hash: info.code_hash,
        };
        if before != Some(after) {
            set_account(&mut accounts, &key, Some(after), nodes)?;
        }
    }
    let (root, diff) = accounts.commit();
    changed.nodes.extend(diff.into_iter().map(|(path, node)| ((None, path), node)));

    let mut roots = StorageRoots::new();
    for address in report {
        let (key, _) = account_key(*address);
        let account = read_account(&mut accounts, &key, nodes).map_err(|e| corrupt(None, e))?;
        roots.insert(*address, account.map_or(EMPTY_ROOT_HASH, |account| account.storage_root));
    }
    Ok((root, changed, roots))
}

fn set_account<N: TrieNodes>(
    accounts: &mut Trie,
    key: &Nibbles,
    account: Option<TrieAccount>,
    nodes: &mut N,
) -> Result<(), ExecuteError<N::Error>> {
    let value = account.map_or_else(Vec::new, alloy_rlp::encode);
    accounts
        .set(key, value, |path, hash| nodes.trie_node(None, path, hash))
        .map_err(|e| corrupt(None, e))
}

/// Proof of an account and of some of its slots (EIP-1186).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// The account; one that does not exist has the empty storage root and the hash of no code.
    pub account: TrieAccount,
    /// Nodes of the account trie from the root down.
    pub nodes: Vec<Bytes>,
    /// Per slot that was asked for: the slot, its value, nodes of the storage trie from the root down.
    pub slots: Vec<(U256, U256, Vec<Bytes>)>,
}

/// Proves an account and slots of it against the state root `root`.
///
/// # Errors
/// When a node on the way cannot be read.
pub fn prove_account<N: TrieNodes>(
    root: B256,
    address: Address,
    slots: &[U256],
    nodes: &mut N,
) -> Result<AccountProof, TrieError<N::Error>> {
    let (key, owner) = account_key(address);
    let mut accounts = Trie::new(root);
    let proof = accounts.prove(&key, |path, hash| nodes.trie_node(None, path, hash))?;
    let account = read_account(&mut accounts, &key, nodes)?.unwrap_or(TrieAccount {
        nonce: 0,
        balance: U256::ZERO,
        storage_root: EMPTY_ROOT_HASH,
        code_hash: KECCAK256_EMPTY,
    });
    let mut storage = Trie::new(account.storage_root);
    let mut proven = Vec::with_capacity(slots.len());
    for slot in slots {
        let key = slot_key(*slot);
        let nodes_of_slot =
            storage.prove(&key, |path, hash| nodes.trie_node(Some(owner), path, hash))?;
        let value = read_slot(&mut storage, owner, &key, nodes)?;
        proven.push((*slot, value, nodes_of_slot));
    }
    Ok(AccountProof { account, nodes: proof, slots: proven })
}
