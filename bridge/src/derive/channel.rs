//! Batches of one chunk or several: which envelope begins, continues or completes one.
//!
//! Only what the sequencer signed with the expected index and previous body counts. The first chunk of a
//! batch of several opens the channel, which stays the only open one until it is complete or times out;
//! a batch of one chunk needs no channel and always counts.

use super::{ChunkRef, DeriveState, Ignored, OpenChannel};
use crate::envelope::{Envelope, Kind, parse_input};
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::Block;
use kedge_genesis::Params;

/// What a batch envelope does.
pub(super) enum Step {
    /// It opens or continues a channel, which then looks like this.
    Open(OpenChannel),
    /// It completes a batch of these chunks.
    Complete(Vec<ChunkRef>),
}

/// What the batch `envelope` found at `at` does. `signatures` is how many are still checked in its L1 block.
pub(super) fn accept(
    params: &Params,
    state: &DeriveState,
    at: ChunkRef,
    envelope: &Envelope,
    signatures: &mut u32,
) -> Result<Step, Ignored> {
    let header = &envelope.header;
    if !envelope.fits(params) {
        return Err(Ignored::NotOurs);
    }
    if header.index != state.next_batch {
        return Err(Ignored::Index { expected: state.next_batch, found: header.index });
    }
    if header.prev_body != state.prev_body {
        return Err(Ignored::PreviousBody);
    }
    let total = u16::try_from(header.chunks.len()).map_err(|_| Ignored::NotOurs)?;
    let id = header.channel_id(Kind::Batch);
    let open = match &state.channel {
        _ if total == 1 => None,
        Some(open) if open.id == id => Some(open),
        Some(_) => return Err(Ignored::Channel),
        None => None,
    };
    let expected = open.map_or(0, |open| u16::try_from(open.chunks.len()).unwrap_or(u16::MAX));
    if header.chunk != expected {
        return Err(Ignored::Chunk { expected, found: header.chunk });
    }
    // Last, because it is what costs. An open channel's id is what was signed.
    let signed = || params.keys.is_some_and(|keys| header.signed_by(Kind::Batch, &keys.sequencer));
    if open.is_none() {
        *signatures = signatures.checked_sub(1).ok_or(Ignored::Signatures)?;
        if !signed() {
            return Err(Ignored::Signature);
        }
    }
    let mut channel = match open {
        Some(open) => open.clone(),
        None => OpenChannel { id, total, opened: at.height, chunks: vec![] },
    };
    channel.chunks.push(at);
    Ok(if channel.chunks.len() == usize::from(total) {
        Step::Complete(channel.chunks)
    } else {
        Step::Open(channel)
    })
}

/// The bytes of a chunk that was accepted, none when the block is not the one it was in.
pub fn read_chunk(block: &Block, at: &ChunkRef) -> Option<Vec<u8>> {
    let tx = block.txdata.iter().find(|tx| tx.compute_txid() == at.txid)?;
    let input = tx.input.get(usize::try_from(at.input).ok()?)?;
    parse_input(&input.witness).map(|envelope| envelope.body)
}
