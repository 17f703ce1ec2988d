//! The batch codec: the body of a `BATCH` message, L2 blocks as the sequencer listed them.
//!
//! Body: one version byte, then one DEFLATE stream (RFC 1951) and nothing after it. Inflated: number of the
//! first block (varint), the first 20 bytes of the last block's L1 origin hash, and the columns of
//! `batch/columns.rs`, each with its length before it, and nothing after the last.
//!
//! A decoder enforces its limit while it inflates and while it rebuilds transactions, so neither a
//! compression bomb nor a dictionary makes it allocate more than a constant times the limit. It takes the
//! limit from a [`Budget`] that all batches of one L1 block share, so that this bounds what the block makes
//! of them, however many a sequencer lists. Every transaction that it returns is in canonical EIP-2718
//! encoding and of type 0, 1, 2 or 4.
//!
//! Not checked here: signatures, whether blocks follow each other, and everything else of derivation.

mod columns;

use crate::deflate::{InflateFault, deflate, inflate};
use alloc::vec::Vec;
use alloy_primitives::Bytes;
use columns::{BlockColumns, Columns};
use kedge_genesis::{L2Number, Params};

/// Version of this codec, the first byte of a body.
pub const CODEC_VERSION: u8 = 0;

/// What a decoder charges for a block or a transaction beside its bytes, so that many empty ones are
/// bounded like few large ones. Bytes.
pub const ITEM_CHARGE: usize = 64;

/// A sequencer's consecutive L2 blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of the first block.
    pub first: L2Number,
    /// The first 20 bytes of the last block's L1 origin hash, internal byte order.
    pub last_origin: [u8; 20],
    /// The blocks, at least one.
    pub blocks: Vec<BatchBlock>,
}

/// What a batch says of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchBlock {
    /// Its timestamp, Unix seconds.
    pub timestamp: u64,
    /// Whether it begins the next epoch.
    pub epoch_step: bool,
    /// The users' transactions, EIP-2718 bytes, in order.
    pub transactions: Vec<Bytes>,
}

impl BatchBlock {
    /// What this block counts against a decoder's limit, bytes.
    pub fn decoded_size(&self) -> usize {
        self.transactions
            .iter()
            .fold(ITEM_CHARGE, |size, tx| size.saturating_add(ITEM_CHARGE).saturating_add(tx.len()))
    }
}

impl Batch {
    /// What this batch counts against a decoder's limit, bytes: [`decode`] needs at most twice this.
    pub fn decoded_size(&self) -> usize {
        self.blocks.iter().fold(0, |size, block| size.saturating_add(block.decoded_size()))
    }
}

/// What the batches of one L1 block may still decode to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes, counted twice: inflated, and by [`Batch::decoded_size`]. The larger count is what is used.
    pub bytes: usize,
    /// L2 blocks.
    pub blocks: u32,
}

impl Budget {
    /// What a whole L1 block has.
    pub fn of(params: &Params) -> Self {
        let bytes = usize::try_from(params.max_batch_bytes).unwrap_or(usize::MAX);
        Self { bytes, blocks: params.max_batch_blocks }
    }

    /// With nothing left.
    const NONE: Self = Self { bytes: 0, blocks: 0 };

    /// Without what `batch`, inflated from `inflated` bytes, uses.
    fn less(self, batch: &Batch, inflated: usize) -> Self {
        let blocks = u32::try_from(batch.blocks.len()).unwrap_or(u32::MAX);
        Self {
            bytes: self.bytes.saturating_sub(batch.decoded_size().max(inflated)),
            blocks: self.blocks.saturating_sub(blocks),
        }
    }
}

/// Why a batch cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It has no blocks.
    #[error("a batch needs a block")]
    Empty,
    /// Timestamps decrease.
    #[error("timestamps decrease at block {block}")]
    Time {
        /// Place of the block in the batch.
        block: usize,
    },
    /// A transaction is undecodable, of another type, or not in its canonical encoding.
    #[error("transaction {number} of block {block} is not a canonical one of type 0, 1, 2 or 4")]
    Transaction {
        /// Place of the block in the batch.
        block: usize,
        /// Place of the transaction in the block.
        number: usize,
    },
}

/// Why a body is not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum BatchFault {
    /// The first byte is not [`CODEC_VERSION`], or there is none.
    #[error("unknown codec version")]
    Version,
    /// The rest is not one DEFLATE stream, or something follows it.
    #[error("not one deflate stream")]
    Deflate,
    /// It decodes to more than the limit.
    #[error("decodes to more than the limit")]
    TooLarge,
    /// It has no blocks.
    #[error("no blocks")]
    Empty,
    /// It has more blocks than a batch may.
    #[error("more blocks than a batch may have")]
    TooManyBlocks,
    /// The columns do not fit together, or one access list alone exceeds the limit.
    #[error("malformed columns")]
    Columns,
}

/// Encodes a batch.
///
/// # Errors
/// When it has no blocks, its timestamps decrease or a transaction is not one that a batch may carry.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, EncodeError> {
    if batch.blocks.is_empty() {
        return Err(EncodeError::Empty);
    }
    let (mut blocks, mut columns) = (BlockColumns::default(), Columns::default());
    let mut parent = 0;
    for (number, block) in batch.blocks.iter().enumerate() {
        let delta =
            block.timestamp.checked_sub(parent).ok_or(EncodeError::Time { block: number })?;
        parent = block.timestamp;
        blocks.push(delta, block.epoch_step, block.transactions.len() as u64);
        for (place, raw) in block.transactions.iter().enumerate() {
            let tx = crate::forced::decode_tx(raw)
                .ok_or(EncodeError::Transaction { block: number, number: place })?;
            columns.push(&tx).ok_or(EncodeError::Transaction { block: number, number: place })?;
        }
    }
    let mut raw = Vec::new();
    columns::put_varint(&mut raw, batch.first.0.into());
    raw.extend_from_slice(&batch.last_origin);
    blocks.write(&mut raw);
    columns.write(&mut raw);
    let mut body = alloc::vec![CODEC_VERSION];
    body.extend(deflate(&raw));
    Ok(body)
}

/// Decodes a body within `budget` and takes what it decodes to from it. A body that is no batch, or does
/// not fit what is left, takes all: how much work it was before it failed is nobody's to define.
///
/// # Errors
/// Why it is no batch.
pub fn decode(body: &[u8], budget: &mut Budget) -> Result<Batch, BatchFault> {
    let left = core::mem::replace(budget, Budget::NONE);
    let (version, deflated) = body.split_first().ok_or(BatchFault::Version)?;
    if *version != CODEC_VERSION {
        return Err(BatchFault::Version);
    }
    let raw = inflate(deflated, left.bytes).map_err(|fault| match fault {
        InflateFault::Stream => BatchFault::Deflate,
        InflateFault::TooLarge => BatchFault::TooLarge,
    })?;
    let batch = columns::read(&raw, left)?;
    *budget = left.less(&batch, raw.len());
    Ok(batch)
}
