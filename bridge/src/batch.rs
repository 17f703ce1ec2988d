//! The batch codec: the body of a `BATCH` message, L2 blocks as the sequencer listed them.
//!
//! Body: one version byte, then one DEFLATE stream (RFC 1951) and nothing after it. Inflated: number of the
//! first block (varint), the first 20 bytes of the last block's L1 origin hash, and the columns of
//! `batch/columns.rs`, each with its length before it, and nothing after the last.
//!
//! A decoder enforces its size limit while it inflates and while it rebuilds transactions, so neither a
//! compression bomb nor a dictionary makes it allocate more than a constant times the limit. Every
//! transaction that it returns is in canonical EIP-2718 encoding and of type 0, 1, 2 or 4.
//!
//! Not checked here: signatures, whether blocks follow each other, and everything else of derivation.

mod columns;

use crate::deflate::{InflateFault, deflate, inflate};
use alloc::vec::Vec;
use alloy_primitives::Bytes;
use columns::{BlockColumns, Columns};
use kedge_genesis::L2Number;

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
    /// What this batch counts against a decoder's limit, bytes: [`decode`] accepts at least twice this.
    pub fn decoded_size(&self) -> usize {
        self.blocks.iter().fold(0, |size, block| size.saturating_add(block.decoded_size()))
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

/// Decodes a body, which may inflate to at most `max` bytes and hold blocks and transactions of at most
/// `max` bytes by [`Batch::decoded_size`], and at most `max_blocks` blocks.
///
/// # Errors
/// Why it is no batch.
pub fn decode(body: &[u8], max: usize, max_blocks: u32) -> Result<Batch, BatchFault> {
    let (version, deflated) = body.split_first().ok_or(BatchFault::Version)?;
    if *version != CODEC_VERSION {
        return Err(BatchFault::Version);
    }
    let raw = inflate(deflated, max).map_err(|fault| match fault {
        InflateFault::Stream => BatchFault::Deflate,
        InflateFault::TooLarge => BatchFault::TooLarge,
    })?;
    columns::read(&raw, max, max_blocks)
}
