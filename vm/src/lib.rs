//! Kedge's state transition: one [`Payload`] on any database gives one [`ExecutedBlock`].
//!
//! This crate is pure: no I/O, no clock, no randomness. A node runs it on its store, a verifier on a
//! [`Witness`]; both take the same path, [`execute`], so they cannot drift apart.
//!
//! | module | its job |
//! | --- | --- |
//! | [`payload`] | what derivation hands over: the block to execute, before execution |
//! | [`config`] | the rules that execution takes from the network's parameters |
//! | [`exec`] | execution of one payload, metering, the header |
//! | [`state`] | what execution reads (traits) and what it changes (diffs) |
//! | [`trie`] | the Merkle Patricia trie: lazily loaded, changes by path, proofs |
//! | [`witness`] | recording what an execution read, and executing on nothing but that |
//! | [`precompile`] | BIP-340 verification |
//! | [`crypto`] | signatures and KZG proofs for the RISC-V program |
//! | [`genesis`] | block 0 |
//! | [`memory`] | a state in memory |
//! | [`env`](mod@env) | EVMs for calls that are not part of the chain |
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;

pub mod config;
pub mod crypto;
pub mod env;
pub mod exec;
pub mod genesis;
pub mod memory;
pub mod payload;
pub mod precompile;
pub mod state;
pub mod trie;
pub mod witness;

pub use config::{EvmConfig, MeterLimits};
pub use exec::{
    ExecuteError, ExecutedBlock, Known, Senders, SkipReason, execute, execute_with,
    header::next_base_fee, intrinsic_gas, output_root,
};
pub use genesis::{GenesisBlock, genesis_block};
pub use memory::MemoryDb;
pub use payload::{Payload, PayloadTx};
pub use state::{AccountInfo, DbError, StateDb, StateDiff, TrieDiff, TrieNodes};
pub use trie::{Nibbles, StateTries, Threads};
pub use witness::{
    Recorder, StateSource, TrieDb, TrieDbError, Witness, WitnessError, execute_on_witness,
    record_witness,
};

pub use alloy_consensus::Header;
pub use op_alloy_consensus::{OpReceiptEnvelope, OpTxEnvelope, TxDeposit};
