//! Why the engine could not do what it was asked.

use alloy_primitives::B256;
use kedge_bridge::derive::DeriveError;
use kedge_fraud_proof::{BuildError, StepError};
use kedge_genesis::{L1Ref, L2Number};
use kedge_store::StoreError;
use kedge_vm::ExecuteError;
use kedge_vm::witness::{TrieDbError, WitnessError};
use std::convert::Infallible;

/// This machine failed, or the call does not fit the chain as it is now. What a chain says is never
/// an error.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The EVM or the trie failed.
    #[error("execution of block {number}: {reason}")]
    Execute {
        /// The block's number.
        number: L2Number,
        /// What failed. Not a source, since the message has it.
        reason: Box<ExecuteError<StoreError>>,
    },
    /// Block 0 cannot be made.
    #[error("block 0: {0}")]
    Genesis(Box<ExecuteError<Infallible>>),
    /// Derivation failed.
    #[error("derivation: {0}")]
    Derive(DeriveError<StoreError>),
    /// The executor applied another block than the step asked for.
    #[error("the step asked for block {expected}, the engine applied {found}")]
    WrongBlock {
        /// Number asked for.
        expected: L2Number,
        /// Number applied.
        found: L2Number,
    },
    /// The network has no keys, so there is no vault and no sequencer.
    #[error("network {network} has not been launched: it names no keys")]
    NotLaunched {
        /// Its name.
        network: &'static str,
    },
    /// The L1 block does not follow the processed tip.
    #[error("L1 block {} does not follow the processed tip {} ({})", found.height, tip.height, tip.hash)]
    NotNext {
        /// The processed tip.
        tip: L1Ref,
        /// The block that was given.
        found: L1Ref,
    },
    /// The L1 chain was reorganised below what is final. Nothing can be trusted then: stop and look.
    #[error(
        "Bitcoin was reorganised past finality: block {} ({}) is no longer in its chain, but L2 block \
         {finalized} is final; check your Bitcoin node, then sync again into an empty --datadir",
        orphan.height, orphan.hash
    )]
    PastFinality {
        /// The L1 block that left the chain.
        orphan: L1Ref,
        /// The last final L2 block.
        finalized: L2Number,
    },
    /// The network's start cannot leave the chain.
    #[error("Bitcoin's block {} is not the one at which this network starts", start.height)]
    StartOrphaned {
        /// Where the network starts.
        start: L1Ref,
    },
    /// The chain moved on since the payload was planned: plan again.
    #[error("block {number} was planned on another parent than the latest block")]
    Stale {
        /// The payload's number.
        number: L2Number,
    },
    /// Only unsafe blocks can be unwound on request.
    #[error("block {number} is below the safe head {safe}")]
    BelowSafe {
        /// What to unwind to.
        number: L2Number,
        /// The safe head.
        safe: L2Number,
    },
    /// There is no such block.
    #[error("there is no block {number}; the latest is {latest}")]
    NoBlock {
        /// The number asked for.
        number: L2Number,
        /// The latest block.
        latest: L2Number,
    },
    /// What is final stays.
    #[error(
        "block {finalized} is final, so nothing below it can be rolled back to: its batch is deep in Bitcoin, \
         and what it overwrote is no longer kept; to derive the whole chain again, start with an empty \
         --datadir"
    )]
    BelowFinal {
        /// The last final block.
        finalized: L2Number,
    },
    /// A fraud proof could not be built.
    #[error("building a fraud proof: {0}")]
    Proof(BuildError<StoreError, StoreError>),
    /// Recording or checking a witness failed.
    #[error("witness of block {number}: {reason}")]
    Witness {
        /// The block's number.
        number: L2Number,
        /// What failed.
        reason: Box<WitnessFailure>,
    },
}

/// Why a block's execution on a witness is not its execution on the database.
#[derive(Debug, thiserror::Error)]
pub enum WitnessFailure {
    /// Recording failed.
    #[error("recording: {0}")]
    Record(ExecuteError<TrieDbError<StoreError>>),
    /// The witness does not fit.
    #[error("execution on it: {0}")]
    Execute(ExecuteError<TrieDbError<WitnessError>>),
    /// The results differ.
    #[error("{how} gives block {found}, the database {expected}")]
    Differs {
        /// Which execution differs.
        how: &'static str,
        /// Hash by the database.
        expected: B256,
        /// Hash found.
        found: B256,
    },
}

impl EngineError {
    /// Whether the chain only moved on and the caller should look again.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}

impl From<StepError<StoreError, EngineError>> for EngineError {
    fn from(error: StepError<StoreError, Self>) -> Self {
        match error {
            StepError::Derive(error) => Self::Derive(error),
            StepError::Execute(error) => error,
            StepError::WrongBlock { expected, found } => Self::WrongBlock { expected, found },
        }
    }
}
