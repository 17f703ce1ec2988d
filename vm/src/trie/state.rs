//! Reading the two layers of the state trie: accounts, and each account's storage.

use super::{
    EMPTY_ROOT_HASH, Nibbles, TrieAccount,
    ops::{Trie, TrieError},
};
use crate::TrieNodes;
use alloc::vec::Vec;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::Decodable;

/// Path of an account in the account trie, and owner of its storage trie.
pub fn account_key(address: Address) -> (Nibbles, B256) {
    let hash = keccak256(address);
    (Nibbles::unpack(hash), hash)
}

/// Path of a slot in its account's storage trie.
pub fn slot_key(slot: U256) -> Nibbles {
    Nibbles::unpack(keccak256(B256::from(slot)))
}

/// The account at `key` of the account trie.
pub(crate) fn read_account<N: TrieNodes + ?Sized>(
    accounts: &mut Trie,
    key: &Nibbles,
    nodes: &mut N,
) -> Result<Option<TrieAccount>, TrieError<N::Error>> {
    recall_account(accounts, key, None, nodes)
}

/// The same where it is likely to have that encoding.
pub(super) fn recall_account<N: TrieNodes + ?Sized>(
    accounts: &mut Trie,
    key: &Nibbles,
    likely: Option<&[u8]>,
    nodes: &mut N,
) -> Result<Option<TrieAccount>, TrieError<N::Error>> {
    match accounts.recall(key, likely, |path, hash| nodes.trie_node(None, path, hash))? {
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
