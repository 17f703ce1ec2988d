//! Kedge's state transition on the vectors that Ethereum's and the OP Stack's clients are held to. See
//! `docs/conformance.md`.

mod op_sepolia;
mod rlp;
mod rocksdb;
mod state;
mod transactions;
mod trie;

use alloy_primitives::{B256, Bytes};
use kedge_genesis::Network;
use kedge_vm::{
    EvmConfig, GenesisBlock, Header, MemoryDb, Nibbles, StateDiff, TrieNodes,
    trie::{EMPTY_ROOT_HASH, apply},
};
use op_revm::OpSpecId;
use std::convert::Infallible;

/// Why results of a fork are not compared with anything.
const OLD_FORK: &str = "a fork before the merge: no OP Stack chain has ever had its rules";

/// The OP Stack's rules for a fork of Ethereum, by its name in the vectors: the first ones that have it. None
/// before the merge.
fn spec(fork: &str) -> Option<OpSpecId> {
    match fork {
        "Paris" | "Merge" => Some(OpSpecId::BEDROCK),
        "Shanghai" => Some(OpSpecId::CANYON),
        "Cancun" => Some(OpSpecId::ECOTONE),
        "Prague" => Some(OpSpecId::ISTHMUS),
        "Osaka" => Some(OpSpecId::KARST),
        "Frontier" | "Homestead" | "EIP150" | "EIP158" | "Byzantium" | "Constantinople"
        | "ConstantinopleFix" | "Istanbul" | "Berlin" | "London" => None,
        other => panic!("unknown fork {other}"),
    }
}

/// Those rules without what Kedge adds to them, on Ethereum's chain id.
fn config(spec: OpSpecId) -> EvmConfig {
    EvmConfig {
        chain_id: 1,
        spec,
        meter: None,
        schnorr: false,
        history_from_state: false,
        ..EvmConfig::from_params(Network::Dev.params())
    }
}

/// The state before there is one has no nodes.
struct Nothing;

impl TrieNodes for Nothing {
    type Error = Infallible;

    fn trie_node(&mut self, _: Option<B256>, _: &Nibbles, _: B256) -> Result<Bytes, Infallible> {
        Ok(Bytes::new())
    }
}

/// The state that `diff` makes of nothing, and a header with its root.
fn state_of(diff: StateDiff) -> (MemoryDb, Header) {
    let (state_root, nodes, _) = apply(EMPTY_ROOT_HASH, &diff, &[], &mut Nothing).unwrap();
    let header = Header { state_root, ..Header::default() };
    let memory = MemoryDb::new(&GenesisBlock {
        header: header.clone(),
        hash: B256::ZERO,
        output_root: B256::ZERO,
        state: diff,
        trie: nodes,
    });
    (memory, header)
}
