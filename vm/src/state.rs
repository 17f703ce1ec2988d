//! What execution reads and what it changes.

use alloc::{collections::BTreeMap, vec::Vec};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_trie::Nibbles;

/// Trie nodes of the state before the block.
pub trait TrieNodes {
    /// Why a node could not be given.
    type Error;

    /// Whether every node that it gives has been checked to have the hash that was asked for. Otherwise the
    /// trie does so.
    const CHECKED: bool = false;

    /// Whether getting a node takes longer than hashing one: leaves whose values are known are not asked for
    /// then.
    const SLOW: bool = false;

    /// The RLP of the node at `path` of the account trie (`owner` none) or of the storage trie of the
    /// account whose hashed address is `owner`. keccak-256 of the bytes is `hash`; a source keyed by
    /// path may ignore `hash` and one keyed by hash may ignore the rest, since the trie checks what it
    /// gets. Never asked for the empty root, nor for a node that its parent embeds.
    ///
    /// # Errors
    /// When the node cannot be given.
    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error>;

    /// Many nodes, in the order of what is wanted: owner, path and hash as in [`TrieNodes::trie_node`]. For sources
    /// that read several at once.
    ///
    /// # Errors
    /// When one cannot be given.
    fn trie_nodes(
        &mut self,
        wanted: &[(Option<B256>, Nibbles, B256)],
    ) -> Result<Vec<Bytes>, Self::Error> {
        wanted.iter().map(|(owner, path, hash)| self.trie_node(*owner, path, *hash)).collect()
    }
}

impl<T: TrieNodes> TrieNodes for &mut T {
    type Error = T::Error;
    const CHECKED: bool = T::CHECKED;
    const SLOW: bool = T::SLOW;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        (**self).trie_node(owner, path, hash)
    }

    fn trie_nodes(
        &mut self,
        wanted: &[(Option<B256>, Nibbles, B256)],
    ) -> Result<Vec<Bytes>, Self::Error> {
        (**self).trie_nodes(wanted)
    }
}

/// The error of a state database.
pub type DbError<DB> = <DB as revm::Database>::Error;

/// The state before the block: accounts, slots and codes by key, and the nodes of their tries.
pub trait StateDb: revm::Database + TrieNodes<Error = <Self as revm::Database>::Error> {}

impl<T> StateDb for T where T: revm::Database + TrieNodes<Error = <T as revm::Database>::Error> {}

/// An account without its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Transactions sent, or contracts created by a contract.
    pub nonce: u64,
    /// Wei.
    pub balance: U256,
    /// keccak-256 of the code; of nothing when there is none.
    pub code_hash: B256,
}

impl Default for AccountInfo {
    fn default() -> Self {
        Self { nonce: 0, balance: U256::ZERO, code_hash: KECCAK256_EMPTY }
    }
}

impl From<&revm::state::AccountInfo> for AccountInfo {
    fn from(info: &revm::state::AccountInfo) -> Self {
        Self { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash }
    }
}

impl From<AccountInfo> for revm::state::AccountInfo {
    /// The code is left out: the EVM asks for it by its hash.
    fn from(info: AccountInfo) -> Self {
        Self {
            nonce: info.nonce,
            balance: info.balance,
            code_hash: info.code_hash,
            account_id: None,
            code: None,
        }
    }
}

/// What a block changed, by key. Holds only what differs from the state before the block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDiff {
    /// Accounts; none where the account is gone.
    pub accounts: BTreeMap<Address, Option<AccountInfo>>,
    /// Slots; zero where the slot is gone.
    pub storage: BTreeMap<(Address, U256), U256>,
    /// Codes that an account of this block received, by hash. May repeat known ones.
    pub codes: BTreeMap<B256, Bytes>,
}

/// What a block changed in the tries: by owner and path, none where no node is stored any more.
/// Owner none is the account trie, else the storage trie of that hashed address. Nodes shorter than
/// 32 bytes live inside their parents and do not appear, except roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrieDiff {
    /// Changed nodes.
    pub nodes: BTreeMap<(Option<B256>, Nibbles), Option<Bytes>>,
}
