//! Witnesses: everything that an execution reads, and execution on nothing but that.

use crate::{
    EvmConfig, ExecuteError, ExecutedBlock, Header, Payload, TrieNodes, exec::execute,
    state::DbError, trie::Nibbles,
};
use alloc::{collections::BTreeMap, vec::Vec};
use alloy_primitives::{Address, B256, Bytes, U256};
use core::error::Error;
use revm::{
    database_interface::DBErrorMarker,
    state::{AccountInfo, Bytecode},
};

/// A source of everything that a [`TrieDb`] reads: trie nodes, codes, ancestor headers.
pub trait StateSource: TrieNodes<Error: Error + Send + Sync + 'static> {
    /// The code with that hash.
    ///
    /// # Errors
    /// When it cannot be given.
    fn code(&mut self, hash: B256) -> Result<Bytes, Self::Error>;

    /// The header of an ancestor by number. Asked for only where [`EvmConfig::history_from_state`] is
    /// off.
    ///
    /// # Errors
    /// When it cannot be given.
    fn header(&mut self, number: u64) -> Result<Header, Self::Error>;
}

/// What executions read: preimages by their keccak-256, and ancestor headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// RLP of trie nodes by hash.
    pub nodes: BTreeMap<B256, Bytes>,
    /// Codes by hash.
    pub codes: BTreeMap<B256, Bytes>,
    /// Ancestor headers that `BLOCKHASH` needed; none on Kedge's networks.
    pub headers: Vec<Header>,
}

/// Why a witness does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// A trie node is not in the witness.
    #[error("trie node {0} is not in the witness")]
    MissingNode(B256),
    /// A code is not in the witness.
    #[error("code {0} is not in the witness")]
    MissingCode(B256),
    /// An ancestor's header is not in the witness.
    #[error("header of block {0} is not in the witness")]
    MissingHeader(u64),
}

/// Why a [`TrieDb`] cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum TrieDbError<E: Error> {
    /// Its source failed.
    #[error(transparent)]
    Source(E),
    /// A node, a code or a header is not what its reference says.
    #[error("what the source gave is not what its hash says")]
    Corrupt,
}

impl<E: Error + Send + Sync + 'static> DBErrorMarker for TrieDbError<E> {}

/// The state after a block, read by walking its tries from the root: every answer is proven by the
/// root. Executing on it appends to it, so a run of blocks needs only what the source had before the
/// first of them.
#[derive(Debug)]
pub struct TrieDb<N> {
    source: N,
    head: Header,
    head_hash: B256,
}

impl<N: StateSource> TrieDb<N> {
    /// The state after the block with that header.
    pub fn new(source: N, head: Header) -> Self {
        let head_hash = head.hash_slow();
        Self { source, head, head_hash }
    }

    /// The header of the block whose state this is, and its hash.
    pub fn head(&self) -> (&Header, B256) {
        (&self.head, self.head_hash)
    }

    /// Executes the next block and moves on to the state after it.
    ///
    /// # Errors
    /// [`execute`]'s; the head stays where it was.
    pub fn execute(
        &mut self,
        config: &EvmConfig,
        payload: &Payload,
    ) -> Result<ExecutedBlock, ExecuteError<TrieDbError<N::Error>>> {
        let _ = (config, payload);
        Err(ExecuteError::ParentExtraData)
    }

    /// What it reads from.
    pub fn into_source(self) -> N {
        self.source
    }
}

/// A source that remembers everything it gave.
#[derive(Debug)]
pub struct Recorder<N> {
    source: N,
    witness: Witness,
}

impl<N: StateSource> Recorder<N> {
    /// Records what is read from `source`.
    pub fn new(source: N) -> Self {
        Self { source, witness: Witness::default() }
    }

    /// What was read.
    pub fn into_witness(self) -> Witness {
        self.witness
    }
}

/// Executes `payload` on the state after `parent`, reading through the tries only, and records what it
/// read. For a run of blocks use a [`TrieDb`] over a [`Recorder`].
///
/// # Errors
/// [`execute`]'s.
pub fn record_witness<N: StateSource>(
    config: &EvmConfig,
    parent: &Header,
    payload: &Payload,
    source: N,
) -> Result<(ExecutedBlock, Witness), ExecuteError<TrieDbError<N::Error>>> {
    let _ = (Recorder::new(source), config, parent, payload);
    Err(ExecuteError::ParentExtraData)
}

/// Executes `payload` on the state after `parent` with nothing but `witness`. An error of any kind
/// means that the witness does not fit. For a run of blocks use a [`TrieDb`] over `&witness`.
///
/// # Errors
/// [`execute`]'s.
pub fn execute_on_witness(
    config: &EvmConfig,
    parent: &Header,
    payload: &Payload,
    witness: &Witness,
) -> Result<ExecutedBlock, ExecuteError<TrieDbError<WitnessError>>> {
    let _ = (config, parent, payload, witness);
    Err(ExecuteError::ParentExtraData)
}
