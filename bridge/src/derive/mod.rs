//! Derivation: Bitcoin block in, L2 payloads out, without any EVM state.
//!
//! [`derive()`] is one pure function from a [`DeriveState`] and the next Bitcoin block to the next state and
//! the payloads that the block makes final on the L2. What Bitcoin says is never an error: a message that
//! the rules pass over becomes a [`Note`]. The order within one L1 block is
//!
//! 1. header time, the vault's head and scripts, and the block itself as a new origin;
//! 2. a channel that is too old is closed;
//! 3. batch envelopes in the order of transactions and inputs; each batch that becomes complete yields
//!    its blocks at once, as far as all of them together stay within one [`Budget`] and begin no epoch
//!    after [`BATCH_EPOCH_READS`] Bitcoin blocks were read for epochs;
//! 4. epochs whose sequencing window ends here are made without the sequencer.
//!
//! Not checked here: that a Bitcoin block is valid or in the best chain. Whoever supplies it does that.

mod block;
mod channel;
pub mod codec;
mod epoch;
mod note;
mod reads;
mod state;

pub use block::{BlockFault, NextPayload, next_payload, time_bounds};
pub use channel::read_chunk;
pub use epoch::{MEDIAN_TIME_SPAN, fee_rate, median_time, subsidy};
pub use note::{BatchDrop, BatchOutcome, BatchSeen, Ignored, Note};
pub use reads::Reads;
pub use state::{ChunkRef, DeriveState, EpochInfo, ForcedCursor, L2Cursor, OpenChannel};

use crate::batch::{self, BatchFault, Budget};
use crate::envelope::{Envelope, Kind, chunk_hash, envelopes};
use crate::forced::Payer;
use crate::vault::VaultState;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::Block;
use bitcoin::hashes::Hash as _;
use block::{BlockList, EpochSource, forced_message, payload_after};
use channel::Step;
use core::ops::Range;
use kedge_genesis::{BATCH_EPOCH_READS, BATCH_SIGNATURES, L1Height, L1Ref, L2Number, Params};
use kedge_vm::Payload;

/// Bitcoin blocks that derivation may have to read again: the one that it processes and those before it.
pub trait L1Lookup {
    /// Why this machine could not answer.
    type Error;

    /// The block at `height` of the chain of the block that is processed, not above it.
    ///
    /// # Errors
    /// When this machine does not have it.
    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Self::Error>;

    /// The bytes of a batch's chunk, which the header of its batch says have that hash. None when the block
    /// has no such chunk there.
    ///
    /// # Errors
    /// When this machine does not have them.
    fn chunk(&self, at: &ChunkRef, hash: B256) -> Result<Option<Vec<u8>>, Self::Error> {
        let block = self.l1_block(at.height)?;
        Ok(channel::read_chunk(&block, at).filter(|bytes| chunk_hash(bytes) == hash))
    }
}

/// A Bitcoin block and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L1Block {
    /// Height and hash; the hash is that of `block`.
    pub at: L1Ref,
    /// The full block with witnesses.
    pub block: Arc<Block>,
}

impl L1Block {
    /// The block with its hash computed.
    pub fn new(height: L1Height, block: Arc<Block>) -> Self {
        Self { at: L1Ref { height, hash: hash_of(&block) }, block }
    }
}

/// Why this machine could not derive. Nothing on a chain causes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError<E> {
    /// An earlier block could not be looked up.
    #[error("an earlier Bitcoin block could not be read: {0}")]
    Lookup(E),
    /// The block supplied is not the one of this chain at that height.
    #[error("the Bitcoin block supplied for height {height} is not in this chain")]
    WrongBlock {
        /// The height.
        height: L1Height,
    },
}

impl<E> From<E> for DeriveError<E> {
    fn from(error: E) -> Self {
        Self::Lookup(error)
    }
}

/// What one Bitcoin block makes of the L2 chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The state after the block.
    pub post: DeriveState,
    /// The L2 blocks to execute, in order; of [`derive_part`] those that were asked for.
    pub payloads: Vec<Payload>,
    /// The cursor after each payload of the L1 block.
    pub cursors: Vec<L2Cursor>,
    /// The batches that became complete in this block, in order.
    pub batches: Vec<BatchSeen>,
    /// What the rules passed over, in order.
    pub notes: Vec<Note>,
}

/// Derives what the L1 block after `pre` adds to the L2 chain.
///
/// # Errors
/// When `l1` does not follow `pre.l1`, or when `earlier` fails or answers with a block of another chain.
pub fn derive<L: L1Lookup>(
    params: &Params,
    pre: &DeriveState,
    l1: &L1Block,
    earlier: &L,
) -> Result<Derived, DeriveError<L::Error>> {
    derive_part(params, pre, l1, earlier, 0..usize::MAX)
}

/// [`derive()`] for whoever executes a part of the L1 block only: keeps the payloads whose place among all
/// of them is in `part`. A batch that covers many epochs brings all their deposits and forced
/// transactions, together many times what a sequencer may list.
///
/// # Errors
/// [`derive()`]'s.
pub fn derive_part<L: L1Lookup>(
    params: &Params,
    pre: &DeriveState,
    l1: &L1Block,
    earlier: &L,
    part: Range<usize>,
) -> Result<Derived, DeriveError<L::Error>> {
    let linked = l1.at.height == pre.l1.height.next()
        && l1.at.hash == hash_of(&l1.block)
        && l1.block.header.prev_blockhash.to_byte_array() == pre.l1.hash.0;
    if !linked {
        return Err(DeriveError::WrongBlock { height: l1.at.height });
    }
    let known = Known { l1, earlier };
    let mut run = Run {
        params,
        l1,
        lookup: Reads::new(&known),
        budget: Budget::of(params),
        signatures: BATCH_SIGNATURES,
        source: EpochSource::default(),
        part,
        out: Derived {
            post: pre.clone(),
            payloads: Vec::new(),
            cursors: Vec::new(),
            batches: Vec::new(),
            notes: Vec::new(),
        },
    };
    run.open_epoch();
    run.close_stale_channel();
    for tx in &l1.block.txdata {
        let mut once = None;
        for (input, envelope) in envelopes(tx) {
            let (txid, payer) = once.get_or_insert_with(|| (tx.compute_txid(), Payer::new(tx)));
            run.message(ChunkRef { height: l1.at.height, txid: *txid, input }, payer, &envelope)?;
        }
    }
    run.end_windows()?;
    let origin = run.out.post.cursor.origin.height;
    run.out.post.epochs.retain(|epoch| epoch.at.height >= origin);
    Ok(run.out)
}

/// One call of [`derive`] under way.
struct Run<'a, L> {
    params: &'a Params,
    l1: &'a L1Block,
    lookup: Reads<'a, Known<'a, L>>,
    /// What the batches of this block may still decode to.
    budget: Budget,
    /// How many signatures of batches are still checked in this block.
    signatures: u32,
    /// What Bitcoin has for the current epoch.
    source: EpochSource,
    /// The payloads to keep.
    part: Range<usize>,
    out: Derived,
}

impl<L: L1Lookup> Run<'_, L> {
    /// Makes the block an origin.
    fn open_epoch(&mut self) {
        let post = &mut self.out.post;
        let header = &self.l1.block.header;
        post.l1 = self.l1.at;
        post.times = epoch::push_time(&post.times, header.time);
        let mut vault = VaultState { head: post.vault_head, scripts: post.vault.clone() };
        for tx in &self.l1.block.txdata {
            vault.apply(tx, self.l1.at.height, self.params);
        }
        (post.vault_head, post.vault) = (vault.head, vault.scripts);
        post.epochs.push(EpochInfo {
            at: self.l1.at,
            merkle_root: B256::new(header.merkle_root.to_byte_array()),
            median_time: median_time(&post.times),
            fee_rate: fee_rate(self.params, self.l1.at.height, &self.l1.block),
            vault: post.vault.clone(),
        });
    }

    fn close_stale_channel(&mut self) {
        let timeout = self.params.channel_timeout;
        let height = self.l1.at.height;
        if let Some(old) =
            self.out.post.channel.take_if(|channel| height > channel.opened.plus(timeout))
        {
            self.out.notes.push(Note::ChannelTimedOut { channel: old.id });
        }
    }

    /// Takes note of one envelope.
    fn message(
        &mut self,
        at: ChunkRef,
        payer: &Payer<'_>,
        envelope: &Envelope,
    ) -> Result<(), DeriveError<L::Error>> {
        let ignored =
            |reason| Note::Ignored { kind: envelope.kind, txid: at.txid, input: at.input, reason };
        match envelope.kind {
            Kind::Batch => match channel::accept(
                self.params,
                &self.out.post,
                at,
                envelope,
                &mut self.signatures,
            ) {
                Ok(Step::Complete(chunks)) => {
                    // A batch of one chunk leaves alone the bytes that it does not need.
                    let body = if chunks.len() == 1 {
                        envelope.body.clone()
                    } else {
                        self.read_body(&chunks, &envelope.header.chunks)?
                    };
                    self.consume(envelope, &chunks, &body)?;
                }
                Ok(Step::Open(channel)) => self.out.post.channel = Some(channel),
                Err(reason) => self.out.notes.push(ignored(reason)),
            },
            Kind::Forced => {
                // Its turn comes with an epoch; this is only to tell of those that never have one.
                let vault = &self.out.post.vault;
                let checked =
                    forced_message(self.params, payer, at.input, envelope, vault, at.height);
                if let Err(reason) = checked {
                    self.out.notes.push(ignored(reason));
                }
            }
            // Assertions and proofs do not move the L2 chain.
            Kind::Assertion | Kind::Proof => {}
        }
        Ok(())
    }

    /// The bytes of a channel, read again from Bitcoin.
    fn read_body(
        &self,
        chunks: &[ChunkRef],
        hashes: &[B256],
    ) -> Result<Vec<u8>, DeriveError<L::Error>> {
        let mut body = Vec::new();
        for (at, hash) in chunks.iter().zip(hashes) {
            let part = self.lookup.chunk(at, *hash)?;
            let part = part.ok_or(DeriveError::WrongBlock { height: at.height })?;
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    /// Consumes the index with a complete batch and takes its blocks as far as they are valid.
    fn consume(
        &mut self,
        envelope: &Envelope,
        chunks: &[ChunkRef],
        body: &[u8],
    ) -> Result<(), DeriveError<L::Error>> {
        let post = &mut self.out.post;
        let index = post.next_batch;
        let body_hash = envelope.header.body_hash();
        post.next_batch = index.saturating_add(1);
        post.prev_body = body_hash;
        post.channel = None;
        let outcome = self.take_blocks(index, body)?;
        if let BatchOutcome::Dropped(reason) = &outcome {
            let reason = reason.clone();
            self.out.notes.push(Note::BatchDropped { index, reason });
        }
        self.out.batches.push(BatchSeen {
            index,
            channel: envelope.header.channel_id(Kind::Batch),
            body_hash,
            txids: chunks.iter().map(|chunk| chunk.txid).collect(),
            outcome,
        });
        Ok(())
    }

    fn take_blocks(
        &mut self,
        index: u64,
        body: &[u8],
    ) -> Result<BatchOutcome, DeriveError<L::Error>> {
        let shared = self.budget != Budget::of(self.params);
        let batch = match batch::decode(body, &mut self.budget) {
            Ok(batch) => batch,
            Err(BatchFault::TooLarge | BatchFault::TooManyBlocks) if shared => {
                return Ok(BatchOutcome::Dropped(BatchDrop::Budget));
            }
            Err(fault) => return Ok(BatchOutcome::Dropped(BatchDrop::Body(fault))),
        };
        let expected = self.out.post.cursor.number.next();
        if batch.first != expected {
            return Ok(BatchOutcome::Dropped(BatchDrop::NotNext { expected, found: batch.first }));
        }
        let steps = batch.blocks.iter().filter(|block| block.epoch_step).count();
        let last = self.origin_after(steps);
        if last.is_none_or(|at| at.hash.get(..20) != Some(batch.last_origin.as_slice())) {
            return Ok(BatchOutcome::Dropped(BatchDrop::WrongOrigin));
        }
        let mut taken: Option<(L2Number, L2Number)> = None;
        for block in batch.blocks {
            let (step, time) = (block.epoch_step, Some(block.timestamp));
            let made = if step && self.lookup.count() >= BATCH_EPOCH_READS {
                Err(BlockFault::EpochReads)
            } else {
                self.append(step, time, block.transactions)?
            };
            match made {
                Ok(number) => taken = Some((taken.map_or(number, |(first, _)| first), number)),
                Err(fault) => {
                    let Some((first, last)) = taken else {
                        return Ok(BatchOutcome::Dropped(BatchDrop::Block(fault)));
                    };
                    self.out.notes.push(Note::BatchCut { index, number: last.next(), fault });
                    return Ok(BatchOutcome::Accepted { first, last });
                }
            }
        }
        Ok(match taken {
            Some((first, last)) => BatchOutcome::Accepted { first, last },
            None => BatchOutcome::Dropped(BatchDrop::Empty),
        })
    }

    /// The origin after so many steps from the cursor.
    fn origin_after(&self, steps: usize) -> Option<L1Ref> {
        let DeriveState { epochs, cursor, .. } = &self.out.post;
        let current = epochs.iter().position(|epoch| epoch.at == cursor.origin)?;
        epochs.get(current.checked_add(steps)?).map(|epoch| epoch.at)
    }

    /// Makes the epochs, or the rest of one, that no batch covered in time.
    fn end_windows(&mut self) -> Result<(), DeriveError<L::Error>> {
        loop {
            let cursor = &self.out.post.cursor;
            let step = cursor.epoch_complete;
            let due = if step { cursor.origin.height.next() } else { cursor.origin.height };
            if due.plus(self.params.sequencing_window) > self.l1.at.height {
                return Ok(());
            }
            // The rules allow this block: its epoch is known and its time is the lower bound.
            if self.append(step, None, Vec::new())?.is_err() {
                return Ok(());
            }
        }
    }

    /// Appends one L2 block.
    fn append(
        &mut self,
        step: bool,
        timestamp: Option<u64>,
        user: Vec<alloy_primitives::Bytes>,
    ) -> Result<Result<L2Number, BlockFault>, DeriveError<L::Error>> {
        let DeriveState { epochs, cursor, .. } = &self.out.post;
        let kept = self.part.contains(&self.out.cursors.len());
        let list = BlockList { step, timestamp, user, kept };
        let (lookup, source) = (&self.lookup, &mut self.source);
        let made = payload_after(self.params, cursor, epochs, lookup, source, list)?;
        Ok(made.map(|(payload, cursor)| {
            self.out.post.cursor = cursor;
            if kept {
                self.out.payloads.push(payload);
            }
            self.out.cursors.push(cursor);
            cursor.number
        }))
    }
}

/// The block at hand, and `earlier` for the others.
struct Known<'a, L> {
    l1: &'a L1Block,
    earlier: &'a L,
}

impl<L: L1Lookup> L1Lookup for Known<'_, L> {
    type Error = L::Error;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Self::Error> {
        if height == self.l1.at.height {
            Ok(Arc::clone(&self.l1.block))
        } else {
            self.earlier.l1_block(height)
        }
    }

    fn chunk(&self, at: &ChunkRef, hash: B256) -> Result<Option<Vec<u8>>, Self::Error> {
        if at.height == self.l1.at.height {
            Ok(read_chunk(&self.l1.block, at).filter(|bytes| chunk_hash(bytes) == hash))
        } else {
            self.earlier.chunk(at, hash)
        }
    }
}

/// Looks up a block whose hash is known.
fn lookup<L: L1Lookup>(earlier: &L, at: L1Ref) -> Result<Arc<Block>, DeriveError<L::Error>> {
    let block = earlier.l1_block(at.height)?;
    if hash_of(&block) == at.hash {
        Ok(block)
    } else {
        Err(DeriveError::WrongBlock { height: at.height })
    }
}

/// A block's hash, internal byte order.
fn hash_of(block: &Block) -> B256 {
    B256::new(block.block_hash().to_byte_array())
}
