//! `debug_executionWitness`.

use super::{chain::View, error::RpcError};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_debug::ExecutionWitness;
use anyhow::Context as _;
use kedge_genesis::L2Number;
use kedge_store::L2Rows as _;
use kedge_vm::{EvmConfig, Nibbles, Recorder, TrieDb, TrieNodes, execute};
use revm::{
    Database,
    state::{AccountInfo, Bytecode},
};
use std::collections::BTreeSet;

/// Executes a block again on its parent's state, reading through the tries only, and gives what it read.
pub(super) fn of_block(
    config: &EvmConfig,
    view: &View<'_>,
    number: L2Number,
) -> Result<ExecutionWitness, RpcError> {
    let Some(parent) = number.0.checked_sub(1).map(L2Number) else {
        return Err(RpcError::Execution("genesis has no witness: nothing was executed".into()));
    };
    let parent_header = view.header(parent)?;
    let parent_hash = view.hash(parent)?;
    let payload = view.reader.payload(number)?.context("the block has a payload")?;
    let source = Recorder::new(view.reader.state_at(parent)?);
    let mut db = Keys { db: TrieDb::new(source, parent_header.clone()), keys: BTreeSet::new() };
    let block = execute(config, &parent_header, parent_hash, &payload, &mut db)
        .map_err(|error| RpcError::Internal(anyhow::anyhow!("witness of {number}: {error}")))?;
    if block.hash != view.hash(number)? {
        let other = anyhow::anyhow!("block {number} is another one when executed again");
        return Err(RpcError::Internal(other));
    }
    let witness = db.db.into_source().into_witness();
    let mut headers = witness.headers;
    headers.retain(|header| header.number < parent.0);
    headers.push(parent_header);
    headers.sort_by_key(|header| header.number);
    Ok(ExecutionWitness {
        state: witness.nodes.into_values().collect(),
        codes: witness.codes.into_values().collect(),
        keys: db.keys.into_iter().collect(),
        headers: headers.iter().map(|header| alloy_rlp::encode(header).into()).collect(),
    })
}

/// A database that remembers which accounts and slots it was asked for.
struct Keys<D> {
    db: D,
    keys: BTreeSet<Bytes>,
}

impl<D: Database> Database for Keys<D> {
    type Error = D::Error;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        self.keys.insert(Bytes::copy_from_slice(address.as_slice()));
        self.db.basic(address)
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        self.db.code_by_hash(code_hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.keys.insert(Bytes::copy_from_slice(&slot.to_be_bytes::<32>()));
        self.db.storage(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        self.db.block_hash(number)
    }
}

impl<D: TrieNodes> TrieNodes for Keys<D> {
    type Error = D::Error;
    const CHECKED: bool = D::CHECKED;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.db.trie_node(owner, path, hash)
    }
}
