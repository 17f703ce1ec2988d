//! Block 0.

use crate::{Header, StateDiff, TrieDiff};
use alloy_primitives::B256;
use kedge_genesis::{GenesisAccount, Params};

/// Block 0 and its state, as differences from nothing.
#[derive(Clone, Debug)]
pub struct GenesisBlock {
    /// Its header.
    pub header: Header,
    /// The header's hash.
    pub hash: B256,
    /// Its output root.
    pub output_root: B256,
    /// The state by key.
    pub state: StateDiff,
    /// The state's tries by path.
    pub trie: TrieDiff,
}

/// Block 0 of a network with these accounts.
pub fn genesis_block(params: &Params, alloc: &[GenesisAccount]) -> GenesisBlock {
    let _ = (params, alloc);
    GenesisBlock {
        header: Header::default(),
        hash: B256::ZERO,
        output_root: B256::ZERO,
        state: StateDiff::default(),
        trie: TrieDiff::default(),
    }
}
