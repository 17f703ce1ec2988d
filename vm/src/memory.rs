//! A state in memory, for tests, simulations and small tools.

use crate::{
    ExecutedBlock, GenesisBlock, Header, StateDiff, TrieDiff, TrieNodes, state::AccountInfo,
    trie::Nibbles, witness::StateSource,
};
use alloc::collections::BTreeMap;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use revm::{database_interface::DBErrorMarker, state::Bytecode};

/// The latest state of a chain: by key and by trie path, with the headers so far.
#[derive(Clone, Debug, Default)]
pub struct MemoryDb {
    /// Accounts that exist.
    pub accounts: BTreeMap<Address, AccountInfo>,
    /// Slots that are not zero.
    pub storage: BTreeMap<(Address, U256), U256>,
    /// Codes by hash.
    pub codes: BTreeMap<B256, Bytes>,
    /// Trie nodes by owner and path.
    pub nodes: BTreeMap<(Option<B256>, Nibbles), Bytes>,
    /// Headers by number.
    pub headers: BTreeMap<u64, Header>,
}

/// What a [`MemoryDb`] does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryDbError {
    /// No such trie node.
    #[error("no trie node at {1:?} of {0:?}")]
    Node(Option<B256>, Nibbles),
    /// No such code.
    #[error("no code {0}")]
    Code(B256),
    /// No such header.
    #[error("no header of block {0}")]
    Header(u64),
}

impl DBErrorMarker for MemoryDbError {}

impl MemoryDb {
    /// The state after block 0.
    pub fn new(genesis: &GenesisBlock) -> Self {
        let mut db = Self::default();
        db.apply_diffs(&genesis.header, &genesis.state, &genesis.trie);
        db
    }

    /// Moves on to the state after `block`, which was executed on this one.
    pub fn apply(&mut self, block: &ExecutedBlock) {
        self.apply_diffs(&block.header, &block.state, &block.trie);
    }

    fn apply_diffs(&mut self, header: &Header, state: &StateDiff, trie: &TrieDiff) {
        for (address, account) in &state.accounts {
            match account {
                Some(account) => drop(self.accounts.insert(*address, *account)),
                None => drop(self.accounts.remove(address)),
            }
        }
        for (key, value) in &state.storage {
            if value.is_zero() {
                self.storage.remove(key);
            } else {
                self.storage.insert(*key, *value);
            }
        }
        self.codes.extend(state.codes.iter().map(|(hash, code)| (*hash, code.clone())));
        for (path, node) in &trie.nodes {
            match node {
                Some(node) => drop(self.nodes.insert(*path, node.clone())),
                None => drop(self.nodes.remove(path)),
            }
        }
        self.headers.insert(header.number, header.clone());
    }
}

impl TrieNodes for MemoryDb {
    type Error = MemoryDbError;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        _hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.nodes.get(&(owner, *path)).cloned().ok_or(MemoryDbError::Node(owner, *path))
    }
}

impl StateSource for MemoryDb {
    fn code(&mut self, hash: B256) -> Result<Bytes, Self::Error> {
        self.codes.get(&hash).cloned().ok_or(MemoryDbError::Code(hash))
    }

    fn header(&mut self, number: u64) -> Result<Header, Self::Error> {
        self.headers.get(&number).cloned().ok_or(MemoryDbError::Header(number))
    }
}

impl revm::Database for MemoryDb {
    type Error = MemoryDbError;

    fn basic(&mut self, address: Address) -> Result<Option<revm::state::AccountInfo>, Self::Error> {
        Ok(self.accounts.get(&address).copied().map(Into::into))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        let code = self.code(code_hash)?;
        Bytecode::new_raw_checked(code).map_err(|_| MemoryDbError::Code(code_hash))
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        Ok(self.storage.get(&(address, slot)).copied().unwrap_or_default())
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        Ok(self.header(number)?.hash_slow())
    }
}
