//! What derivation says about messages, apart from the payloads that follow from them.

use super::BlockFault;
use crate::batch::BatchFault;
use crate::envelope::Kind;
use crate::forced::ForcedFault;
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::Txid;
use kedge_genesis::{BATCH_SIGNATURES, L2Number};

/// A batch that became complete, and so consumed its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSeen {
    /// Its index.
    pub index: u64,
    /// Its channel id.
    pub channel: B256,
    /// Its body hash, which the next batch names.
    pub body_hash: B256,
    /// The reveals of its chunks, in order of chunks.
    pub txids: Vec<Txid>,
    /// What became of its content.
    pub outcome: BatchOutcome,
}

/// What became of a batch's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Its blocks, or those before its first invalid one, are derived.
    Accepted {
        /// The first block taken.
        first: L2Number,
        /// The last block taken.
        last: L2Number,
    },
    /// Nothing of it is derived.
    Dropped(BatchDrop),
}

/// Why nothing of a batch is derived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchDrop {
    /// The body does not decode.
    #[error("its body does not decode: {0}")]
    Body(BatchFault),
    /// The batches before it in the same L1 block left it too little of what they may decode to together.
    #[error("the batches before it in the same Bitcoin block left it too little room")]
    Budget,
    /// It does not start at the next block.
    #[error("it starts at block {found}, block {expected} is next")]
    NotNext {
        /// Number of the next block.
        expected: L2Number,
        /// Number that the batch states.
        found: L2Number,
    },
    /// Its last origin is not a block of this L1 chain.
    #[error("its last origin is not in this Bitcoin chain")]
    WrongOrigin,
    /// It holds no blocks.
    #[error("it holds no blocks")]
    Empty,
    /// Its first block is invalid.
    #[error("its first block is invalid: {0}")]
    Block(BlockFault),
}

impl BatchDrop {
    /// A short constant name, to count by.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Body(_) => "batch_body",
            Self::Budget => "batch_budget",
            Self::NotNext { .. } => "batch_not_next",
            Self::WrongOrigin => "batch_wrong_origin",
            Self::Empty => "batch_empty",
            Self::Block(_) => "batch_block",
        }
    }
}

/// Something that the rules passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An envelope without effect.
    Ignored {
        /// What it claims to be.
        kind: Kind,
        /// The reveal.
        txid: Txid,
        /// The input whose witness it is.
        input: u32,
        /// Why.
        reason: Ignored,
    },
    /// A channel was not complete in time.
    ChannelTimedOut {
        /// Its id.
        channel: B256,
    },
    /// All of a batch was dropped.
    BatchDropped {
        /// The batch.
        index: u64,
        /// Why.
        reason: BatchDrop,
    },
    /// A batch's blocks from an invalid one on were dropped, but not its first.
    BatchCut {
        /// The batch.
        index: u64,
        /// Number of the invalid block.
        number: L2Number,
        /// Why it is invalid.
        fault: BlockFault,
    },
}

impl Note {
    /// A short constant name of the reason, to count by.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ignored { reason, .. } => reason.label(),
            Self::ChannelTimedOut { .. } => "channel_timed_out",
            Self::BatchDropped { reason, .. } => reason.label(),
            Self::BatchCut { .. } => "batch_cut",
        }
    }
}

/// Why an envelope has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is for another chain, or beyond this chain's limits of chunks.
    #[error("it is for another chain or beyond the limits of chunks")]
    NotOurs,
    /// The sequencer did not sign it.
    #[error("the sequencer did not sign it")]
    Signature,
    /// As many signatures as one L1 block's are checked were checked before.
    #[error("{BATCH_SIGNATURES} batches before it in its L1 block had their signatures checked")]
    Signatures,
    /// Its index is not the next one.
    #[error("its index is {found}, {expected} is next")]
    Index {
        /// The next index.
        expected: u64,
        /// The index it has.
        found: u64,
    },
    /// It does not follow the last consumed batch.
    #[error("it names another previous body")]
    PreviousBody,
    /// Another channel is open, or none for which this would be the first chunk.
    #[error("its channel is not open")]
    Channel,
    /// It is not the next chunk of its channel.
    #[error("chunk {found} came, {expected} is next")]
    Chunk {
        /// The next chunk.
        expected: u16,
        /// The chunk it is.
        found: u16,
    },
    /// It is no valid forced message.
    #[error("it is no valid forced message: {0}")]
    Forced(ForcedFault),
    /// A forced transaction declares less gas than it costs before it runs.
    #[error("a forced transaction declares less gas than it costs before it runs")]
    ForcedGas,
}

impl Ignored {
    /// A short constant name, to count by.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::Signature => "signature",
            Self::Signatures => "signatures",
            Self::Index { .. } => "index",
            Self::PreviousBody => "previous_body",
            Self::Channel => "channel",
            Self::Chunk { .. } => "chunk",
            Self::Forced(_) => "forced",
            Self::ForcedGas => "forced_gas",
        }
    }
}
