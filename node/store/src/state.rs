//! State for execution: at `latest` for the engine, after any block for calls.

use crate::error::{Result, StoreError};
use crate::history::oldest_state;
use crate::l2::L2Rows;
use crate::read::{Reader, Rows, find_nodes, missing};
use crate::table::Table;
use crate::tries::node_key;
use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256};
use kedge_genesis::L2Number;
use kedge_vm::witness::StateSource;
use kedge_vm::{Nibbles, TrieNodes};
use revm::bytecode::Bytecode;
use revm::database_interface::DBErrorMarker;
use revm::state::AccountInfo;
use revm::{Database, DatabaseRef};

impl DBErrorMarker for StoreError {}

/// The state at `latest` together with its tries, through a pending change or a snapshot.
#[derive(Debug)]
pub struct LatestState<'r, R: ?Sized>(pub &'r R);

impl<R: Rows + ?Sized> Database for LatestState<'_, R> {
    type Error = StoreError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>> {
        Ok(self.0.account(address)?.map(Into::into))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode> {
        bytecode(self.0, hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256> {
        self.0.slot(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256> {
        Ok(self.0.hash(L2Number(number))?.unwrap_or_default())
    }
}

impl<R: Rows + ?Sized> TrieNodes for LatestState<'_, R> {
    type Error = StoreError;
    const SLOW: bool = true;

    fn trie_node(&mut self, owner: Option<B256>, path: &Nibbles, _: B256) -> Result<Bytes> {
        let node = self.0.trie_node(owner, path)?;
        node.ok_or_else(|| missing(Table::Tries, &node_key(owner, path)))
    }

    fn trie_nodes(&mut self, wanted: &[(Option<B256>, Nibbles, B256)]) -> Result<Vec<Bytes>> {
        let keys: Vec<_> = wanted.iter().map(|(owner, path, _)| node_key(*owner, path)).collect();
        let found = find_nodes(self.0, &keys)?;
        let nodes = keys.iter().zip(found);
        nodes.map(|(key, node)| node.ok_or_else(|| missing(Table::Tries, key))).collect()
    }
}

impl<R: Rows + ?Sized> StateSource for LatestState<'_, R> {
    fn code(&mut self, hash: B256) -> Result<Bytes> {
        self.0.code(hash)?.ok_or_else(|| missing(Table::Codes, hash.as_slice()))
    }

    fn header(&mut self, number: u64) -> Result<Header> {
        self.0
            .header(L2Number(number))?
            .ok_or_else(|| missing(Table::Headers, &number.to_be_bytes()))
    }
}

/// The state after one block, recent or old, for calls.
#[derive(Debug)]
pub struct StateAt<'r, 's> {
    reader: &'r Reader<'s>,
    number: L2Number,
    is_latest: bool,
}

impl<'s> Reader<'s> {
    /// The state after block `number`.
    ///
    /// # Errors
    /// [`StoreError::StateUnavailable`] when there is no such block, [`StoreError::StatePruned`] when the
    /// state after it is not kept any more, and when the database fails.
    pub fn state_at(&self, number: L2Number) -> Result<StateAt<'_, 's>> {
        let oldest = oldest_state(self)?;
        if number < oldest {
            return Err(StoreError::StatePruned { number: number.0, oldest: oldest.0 });
        }
        match self.latest()? {
            Some(latest) if number <= latest => {
                Ok(StateAt { reader: self, number, is_latest: number == latest })
            }
            _ => Err(StoreError::StateUnavailable { number: number.0 }),
        }
    }
}

impl StateAt<'_, '_> {
    /// The block after which this is the state.
    pub const fn number(&self) -> L2Number {
        self.number
    }

    /// An account.
    ///
    /// # Errors
    /// When the database fails.
    pub fn account(&self, address: Address) -> Result<Option<kedge_vm::AccountInfo>> {
        if self.is_latest {
            self.reader.account(address)
        } else {
            self.reader.account_at(address, self.number)
        }
    }

    /// A slot.
    ///
    /// # Errors
    /// When the database fails.
    pub fn slot(&self, address: Address, slot: U256) -> Result<U256> {
        if self.is_latest {
            self.reader.slot(address, slot)
        } else {
            self.reader.slot_at(address, slot, self.number)
        }
    }
}

/// For fraud proofs of old blocks: the tries as they were after the block.
impl TrieNodes for StateAt<'_, '_> {
    type Error = StoreError;

    fn trie_node(&mut self, owner: Option<B256>, path: &Nibbles, _: B256) -> Result<Bytes> {
        let node = node_key(owner, path);
        let found = self.reader.node_rows().find(&node, self.number)?;
        found.ok_or_else(|| missing(Table::Tries, &node))
    }
}

impl StateSource for StateAt<'_, '_> {
    fn code(&mut self, hash: B256) -> Result<Bytes> {
        LatestState(self.reader).code(hash)
    }

    fn header(&mut self, number: u64) -> Result<Header> {
        LatestState(self.reader).header(number)
    }
}

impl DatabaseRef for StateAt<'_, '_> {
    type Error = StoreError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>> {
        Ok(self.account(address)?.map(Into::into))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode> {
        bytecode(self.reader, hash)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256> {
        self.slot(address, slot)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256> {
        Ok(self.reader.hash(L2Number(number))?.unwrap_or_default())
    }
}

impl Database for StateAt<'_, '_> {
    type Error = StoreError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>> {
        self.basic_ref(address)
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode> {
        self.code_by_hash_ref(hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256> {
        self.storage_ref(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256> {
        self.block_hash_ref(number)
    }
}

fn bytecode(rows: &(impl Rows + ?Sized), hash: B256) -> Result<Bytecode> {
    let code = rows.code(hash)?.ok_or_else(|| missing(Table::Codes, hash.as_slice()))?;
    Bytecode::new_raw_checked(code).map_err(|_| crate::read::corrupt(Table::Codes, hash.as_slice()))
}
