//! Execution of one payload.

mod cache;
pub mod header;
pub mod replay;
mod run;

use crate::{
    EvmConfig, Header, OpReceiptEnvelope, OpTxEnvelope, Payload, StateDb, StateDiff, TrieDiff,
    state::DbError,
    trie::{Nibbles, OneThread, StateTries, Threads},
};
use alloc::{string::String, vec::Vec};
use alloy_primitives::{Address, B256, keccak256, map::B256Map};
use kedge_genesis::{L2Number, tags::OUTPUT_ROOT_VERSION};

pub use cache::{Cache, CacheError};
pub use header::BlockAttributes;
pub use run::{execute_block, intrinsic_gas};

/// Senders that are known before execution, by transaction hash: those that the signatures recover to.
/// Execution recovers the others. Recovering takes longer than a transfer's execution, so whoever has done it
/// before, or on other cores, hands over what it knows.
pub type Senders = B256Map<Address>;

/// What a caller has at hand, so that execution need not find it out.
#[derive(Debug)]
pub struct Known<'k, T = OneThread> {
    /// Senders.
    pub senders: &'k Senders,
    /// The tries of the state before the block, or of any other; afterwards those of the state after it.
    pub tries: &'k mut StateTries<T>,
}

/// A payload after execution.
#[derive(Clone, Debug)]
pub struct ExecutedBlock {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub hash: B256,
    /// The transactions that are in the block, in order.
    pub transactions: Vec<OpTxEnvelope>,
    /// Their senders.
    pub senders: Vec<Address>,
    /// Their receipts.
    pub receipts: Vec<OpReceiptEnvelope>,
    /// See [`output_root`].
    pub output_root: B256,
    /// Gas by the meter: max(gas spent before refunds, intrinsic gas) of every listed transaction, plus
    /// the block's overhead.
    pub metered_gas: u64,
    /// Bytes by the witness meter.
    pub witness_bytes: u64,
    /// Listed transactions that are not in the block: index in the payload and why.
    pub skipped: Vec<(usize, SkipReason)>,
    /// Accounts that the block loaded and left as they were (their storage may differ), ascending. Together
    /// with those of `state` these are all that it loaded.
    pub unchanged: Vec<Address>,
    /// Changes by key.
    pub state: StateDiff,
    /// What was before these, without codes; a node keeps it to take the block back. Empty where the state's source
    /// [is not slow](crate::TrieNodes::SLOW).
    pub before: StateDiff,
    /// Changes by trie path.
    pub trie: TrieDiff,
}

/// Why a listed transaction is not in the block. Skipping is a rule of the chain: every node skips the
/// same ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// Not the EIP-2718 bytes of a transaction of type 0, 1, 2 or 4.
    #[error("not a transaction of type 0, 1, 2 or 4")]
    Undecodable,
    /// No sender can be recovered from the signature.
    #[error("the signature recovers to no sender")]
    Signature,
    /// Declares more gas than the block has left.
    #[error("declares {declared} gas, the block has {available} left")]
    GasLimit {
        /// The transaction's gas limit.
        declared: u64,
        /// What the block's meter has left.
        available: u64,
    },
    /// Its compressed size does not fit the block's data availability footprint (Jovian).
    #[error("data footprint {footprint}, the block has {available} left")]
    Footprint {
        /// Estimated size times the footprint scalar.
        footprint: u64,
        /// What is left.
        available: u64,
    },
    /// What it reads does not fit the block's witness limit.
    #[error("reads more state than the block's witness limit allows")]
    WitnessLimit,
    /// The EVM's validation refuses it: nonce, funds, base fee, intrinsic gas, …
    #[error("{0}")]
    Invalid(String),
}

/// This machine failed; says nothing about the payload.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E> {
    /// The database could not answer.
    #[error("state database: {0}")]
    Database(#[source] E),
    /// A trie node is not what its parent says.
    #[error("corrupt trie node at {path:?} of {owner:?}")]
    CorruptTrie {
        /// Hashed address of a storage trie's account; none for the account trie.
        owner: Option<B256>,
        /// Where.
        path: Nibbles,
    },
    /// The payload does not follow the parent that was given.
    #[error("payload {payload} does not follow block {parent}")]
    WrongParent {
        /// Number of the payload.
        payload: L2Number,
        /// Number of the parent.
        parent: u64,
    },
    /// The parent's header holds no fee parameters.
    #[error("the parent's extra data holds no fee parameters")]
    ParentExtraData,
    /// The EVM failed in a way that no transaction can cause.
    #[error("EVM: {0}")]
    Evm(String),
}

/// Output root, version 0 of the OP Stack: keccak-256 of the version, state root, storage root of the
/// `L2ToL1MessagePasser` (a header's `withdrawals_root`) and block hash.
pub fn output_root(state_root: B256, message_passer_storage_root: B256, block_hash: B256) -> B256 {
    let parts = [OUTPUT_ROOT_VERSION, state_root, message_passer_storage_root, block_hash];
    keccak256(parts.map(|part| part.0).as_flattened())
}

/// Executes `payload` on the state after `parent`, whose hash is `parent_hash`.
///
/// # Errors
/// Only when this machine failed. Whatever the payload holds is executed or skipped by rule.
pub fn execute<DB: StateDb>(
    config: &EvmConfig,
    parent: &Header,
    parent_hash: B256,
    payload: &Payload,
    db: &mut DB,
) -> Result<ExecutedBlock, ExecuteError<DbError<DB>>> {
    let tries = &mut StateTries::<OneThread>::default();
    let known = Known { senders: &Senders::default(), tries };
    execute_with(config, parent, parent_hash, payload, known, db)
}

/// As [`execute`], with what is known.
///
/// # Errors
/// As [`execute`].
pub fn execute_with<DB: StateDb, T: Threads>(
    config: &EvmConfig,
    parent: &Header,
    parent_hash: B256,
    payload: &Payload,
    known: Known<'_, T>,
    db: &mut DB,
) -> Result<ExecutedBlock, ExecuteError<DbError<DB>>> {
    if parent.number.checked_add(1) != Some(payload.number.0) {
        return Err(ExecuteError::WrongParent { payload: payload.number, parent: parent.number });
    }
    let attributes = config.attributes(parent, payload).ok_or(ExecuteError::ParentExtraData)?;
    execute_block(config, &attributes, parent, parent_hash, &payload.transactions, known, db)
}
