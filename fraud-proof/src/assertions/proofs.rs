//! Proofs found on Bitcoin: channels of several chunks, verdicts, and whom a rejected bond pays.
//!
//! A proof of one chunk is judged where it stands. Chunks of a larger one are expected in order, all from
//! one publisher, so that whoever repeats another's chunks only pays for a channel of his own. Every chunk
//! but the last has the full size: opening a channel costs a tenth of a Bitcoin block, which bounds the
//! number of open ones without a limit that could be used up against an honest challenger.

use super::commits::Commits;
use super::node::{read_chunk as read_ref, write_chunk};
use super::{AssertionEvent, AssertionStatus, AssertionTracker, ProofIgnored, Rejection};
use crate::proof::{Proof, ProofHead};
use crate::verify::{Malformed, Verdict, verify};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::Block;
use kedge_bridge::derive::codec::{CodecError, Reader, Writer};
use kedge_bridge::derive::{ChunkRef, L1Block, L1Lookup, read_chunk};
use kedge_bridge::envelope::{Envelope, Kind};
use kedge_genesis::{L1Height, Params};

/// A proof of several chunks that has begun and is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofChannel {
    /// Channel id of its envelopes.
    pub id: B256,
    /// The publisher of all its chunks, x-only key.
    pub publisher: [u8; 32],
    /// The assertion that its first chunk names.
    pub assertion: B256,
    /// Number of chunks that make it complete.
    pub total: u16,
    /// Height of its first chunk; it times out from there.
    pub opened: L1Height,
    /// The chunks seen, in order from chunk 0.
    pub chunks: Vec<ChunkRef>,
}

impl ProofChannel {
    pub(super) fn write(&self, w: &mut Writer) {
        w.item(&self.id);
        w.item(&B256::new(self.publisher));
        w.item(&self.assertion);
        w.item(&self.total);
        w.item(&self.opened.0);
        w.each(&self.chunks, write_chunk);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            id: r.item()?,
            publisher: r.item::<B256>()?.0,
            assertion: r.item()?,
            total: r.item()?,
            opened: r.height()?,
            chunks: r.each(usize::from(u16::MAX), read_ref)?,
        })
    }
}

/// The block at hand and those before it.
pub(super) struct Tip<'a, L> {
    pub(super) l1: &'a L1Block,
    pub(super) earlier: &'a L,
}

impl<L: L1Lookup> L1Lookup for Tip<'_, L> {
    type Error = L::Error;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, L::Error> {
        if height == self.l1.at.height {
            Ok(Arc::clone(&self.l1.block))
        } else {
            self.earlier.l1_block(height)
        }
    }
}

/// A complete proof.
struct Complete {
    assertion: B256,
    body: Vec<u8>,
    chunks: Vec<ChunkRef>,
}

impl AssertionTracker {
    /// Forgets channels that are too old.
    pub(super) fn close_stale_channels(&mut self, params: &Params) {
        let now = self.l1;
        self.channels.retain(|channel| now <= channel.opened.plus(params.channel_timeout));
    }

    /// Takes note of a proof envelope.
    pub(super) fn on_proof<L: L1Lookup>(
        &mut self,
        params: &Params,
        tip: &Tip<'_, L>,
        at: ChunkRef,
        envelope: &Envelope,
        commits: &mut Commits,
        events: &mut Vec<AssertionEvent>,
    ) -> Result<(), L::Error> {
        let complete = match self.accept(params, tip, at, envelope)? {
            Ok(Some(complete)) => complete,
            Ok(None) => return Ok(()),
            Err(reason) => {
                events.push(AssertionEvent::ProofIgnored { at, reason });
                return Ok(());
            }
        };
        let id = complete.assertion;
        let Some(node) = self.get(&id) else { return Ok(()) };
        let mut earlier = None;
        if let AssertionStatus::Rejected { proof: Some(first), .. } = node.status {
            // Whoever repeats a proof must not make every node execute it again.
            let limits = (node.confirmed_at, first.committed);
            earlier = self.committed_before(tip, commits, &complete.chunks, limits)?;
            if earlier.is_none() {
                events.push(AssertionEvent::ProofIgnored { at, reason: ProofIgnored::Late });
                return Ok(());
            }
        }
        let verdict = if node.agrees {
            // What equals this node's own derivation cannot be proven wrong, so nobody makes us execute.
            match Proof::decode(&complete.body) {
                Ok(_) => Verdict::NoFraud,
                Err(fault) => Verdict::Malformed { reason: Malformed::Encoding(fault) },
            }
        } else {
            verify(params, tip, &node.view(), &complete.body)?
        };
        let Verdict::Fraud { segment, kind } = verdict else {
            events.push(AssertionEvent::ProofFailed { id, at, verdict });
            return Ok(());
        };
        let committed = match earlier {
            Some(height) => height,
            None => self.committed(tip, commits, &complete.chunks, node.confirmed_at)?,
        };
        let challenger = envelope.publisher.serialize();
        self.reject(id, Rejection { segment, kind, challenger, committed, reveal: at }, events);
        Ok(())
    }

    /// The commit height of a proof of these chunks against an assertion confirmed at `floor`: the highest of
    /// its chunks.
    fn committed<L: L1Lookup>(
        &self,
        tip: &Tip<'_, L>,
        commits: &mut Commits,
        chunks: &[ChunkRef],
        floor: L1Height,
    ) -> Result<L1Height, L::Error> {
        let under_way = self.channels.iter().flat_map(|channel| &channel.chunks);
        commits.prepare(tip, under_way.chain(chunks))?;
        let mut committed = floor;
        for chunk in chunks {
            committed = committed.max(commits.height(tip, chunk, floor)?);
        }
        Ok(committed)
    }

    /// [`Self::committed`] with the first of these heights as floor, if it is below the second.
    fn committed_before<L: L1Lookup>(
        &self,
        tip: &Tip<'_, L>,
        commits: &mut Commits,
        chunks: &[ChunkRef],
        (floor, limit): (L1Height, L1Height),
    ) -> Result<Option<L1Height>, L::Error> {
        let under_way = self.channels.iter().flat_map(|channel| &channel.chunks);
        commits.prepare(tip, under_way.chain(chunks))?;
        let mut committed = floor;
        for chunk in chunks {
            let Some(height) = commits.height_below(tip, chunk, floor, limit)? else {
                return Ok(None);
            };
            committed = committed.max(height);
        }
        Ok(Some(committed))
    }

    /// What an envelope completes, nothing when it begins or continues a channel.
    fn accept<L: L1Lookup>(
        &mut self,
        params: &Params,
        tip: &Tip<'_, L>,
        at: ChunkRef,
        envelope: &Envelope,
    ) -> Result<Result<Option<Complete>, ProofIgnored>, L::Error> {
        let header = &envelope.header;
        let total = u16::try_from(header.chunks.len()).unwrap_or(u16::MAX);
        let is_last = header.chunk.checked_add(1) == Some(total);
        if !envelope.fits(params) {
            return Ok(Err(ProofIgnored::NotOurs));
        }
        if !is_last && envelope.body.len() as u64 != u64::from(params.max_chunk_bytes) {
            return Ok(Err(ProofIgnored::Size));
        }
        let (id, publisher) = (header.channel_id(Kind::Proof), envelope.publisher.serialize());
        let open =
            self.channels.iter().position(|open| open.id == id && open.publisher == publisher);
        let expected = open.and_then(|open| self.channels.get(open));
        let expected =
            expected.map_or(0, |open| u16::try_from(open.chunks.len()).unwrap_or(u16::MAX));
        if header.chunk != expected {
            return Ok(Err(ProofIgnored::Chunk { expected, found: header.chunk }));
        }
        let mut channel = match open {
            Some(open) => self.channels.remove(open),
            None => {
                let head = match ProofHead::decode(&envelope.body) {
                    Ok(head) if head.params == params.hash() => head,
                    Ok(_) => return Ok(Err(ProofIgnored::NotOurs)),
                    Err(fault) => return Ok(Err(ProofIgnored::Head(fault))),
                };
                let (assertion, chunks) = (head.assertion, Vec::new());
                ProofChannel { id, publisher, assertion, total, opened: at.height, chunks }
            }
        };
        if let Err(reason) = self.check_open(&channel.assertion) {
            return Ok(Err(reason));
        }
        channel.chunks.push(at);
        if !is_last {
            self.channels.push(channel);
            return Ok(Ok(None));
        }
        let ProofChannel { assertion, chunks, .. } = channel;
        let mut body = Vec::new();
        if chunks.len() > 1 {
            for chunk in &chunks {
                let block = tip.l1_block(chunk.height)?;
                body.extend(read_chunk(&block, chunk).unwrap_or_default());
            }
        } else {
            body.extend_from_slice(&envelope.body);
        }
        Ok(Ok(Some(Complete { assertion, body, chunks })))
    }

    /// Whether proofs against the assertion count now.
    fn check_open(&self, id: &B256) -> Result<(), ProofIgnored> {
        let node = self.get(id).ok_or(ProofIgnored::Unknown)?;
        let open = match node.status {
            AssertionStatus::Proposed | AssertionStatus::Challenged => true,
            // Somebody may have committed to a proof earlier than the one that was confirmed first.
            AssertionStatus::Rejected { proof, .. } => proof.is_some(),
            AssertionStatus::Settled { .. } => false,
        };
        if open && self.l1 <= node.deadline { Ok(()) } else { Err(ProofIgnored::Closed) }
    }

    /// Rejects an assertion and all that continue it, or gives the bond of a rejected one to a proof that was
    /// committed to earlier.
    fn reject(&mut self, id: B256, proof: Rejection, events: &mut Vec<AssertionEvent>) {
        let at = self.l1;
        let mut rejected = Vec::new();
        for node in &mut self.nodes {
            if node.id == id {
                let since = match node.status {
                    AssertionStatus::Rejected { at: first, .. } => first,
                    AssertionStatus::Proposed
                    | AssertionStatus::Challenged
                    | AssertionStatus::Settled { .. } => at,
                };
                node.status = AssertionStatus::Rejected { at: since, proof: Some(proof) };
                events.push(AssertionEvent::Rejected { id, proof: Some(proof) });
                rejected.push(id);
            } else if rejected.contains(&node.parent) && node.is_open() {
                node.status = AssertionStatus::Rejected { at, proof: None };
                events.push(AssertionEvent::Rejected { id: node.id, proof: None });
                rejected.push(node.id);
            }
        }
    }

    /// Keeps the status of open assertions in line with the open channels.
    pub(super) fn refresh_challenged(&mut self, events: &mut Vec<AssertionEvent>) {
        let channels = &self.channels;
        for node in self.nodes.iter_mut().filter(|node| node.is_open()) {
            let id = node.id;
            let challenged = channels.iter().any(|channel| channel.assertion == id);
            let status =
                if challenged { AssertionStatus::Challenged } else { AssertionStatus::Proposed };
            if node.status != status {
                node.status = status;
                events.push(if challenged {
                    AssertionEvent::Challenged { id }
                } else {
                    AssertionEvent::Unchallenged { id }
                });
            }
        }
    }
}
