//! All assertions seen on Bitcoin, as a pure state machine: Bitcoin block in, events out.
//!
//! An assertion is a reveal whose envelope is of kind `ASSERTION` (see [`kedge_bridge::assertion`]). It
//! counts when its parent is the genesis or an assertion that counts, its parameters are ours, the Bitcoin
//! block that it claims about is in the chain below the reveal's own and at most
//! [`Params::max_assertion_span`] above the parent's, and its bond is there and large enough. Everything
//! else is ignored for a counted reason. Whether it is *true* is another matter: that is
//! [`AssertionNode::agrees`], which a node knows from its own derivation.
//!
//! A fraud proof that is complete on Bitcoin up to and in the last block of the challenge window rejects
//! the assertion and all that continue it (`proofs.rs`). One that nobody proved wrong settles with that
//! block, if its parent is settled. What is decided is forgotten four challenge windows later, but for the settled
//! head, the furthest settled assertion that agrees: so the true ones can always go on, whatever false ones
//! continue them, and bonds bound how many are remembered. Of an assertion about which no proof counts any
//! more only the last claim is kept, which its children continue.

mod commits;
mod node;
mod proofs;

pub use node::{
    AssertionEvent, AssertionFault, AssertionNode, AssertionStatus, ProofIgnored, Rejection,
};
pub use proofs::ProofChannel;

use crate::claim::genesis_claim;
use alloc::vec::Vec;
use alloy_primitives::B256;
use commits::Commits;
use kedge_bridge::assertion::{AssertionBody, assertion_id, bond_of};
use kedge_bridge::derive::codec::{CodecError, Reader, Writer};
use kedge_bridge::derive::{ChunkRef, L1Block, L1Lookup};
use kedge_bridge::envelope::{Envelope, Kind, envelopes};
use kedge_genesis::{L1Height, L1Ref, Params};

/// Bytes of an assertion's body besides its claims.
const BODY_HEAD_BYTES: usize = 32 + 32 + 4 + 32;
/// Rejected and settled assertions but the settled head are forgotten after so many challenge windows.
const KEEP_WINDOWS: u32 = 4;

/// This node's own derivation of one L1 block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnBlock {
    /// Hash of the L1 block, internal byte order.
    pub hash: B256,
    /// Hashes of the claims of its segments, in order ([`crate::StepOutput::claims`]).
    pub claims: Vec<B256>,
}

/// This node's own derivation.
pub trait OwnChain {
    /// Why this machine could not answer.
    type Error;

    /// What this node derived at `height`. None exactly below and at the network's L1 start and above the
    /// last L1 block processed.
    ///
    /// # Errors
    /// Only when this machine failed.
    fn own_block(&self, height: L1Height) -> Result<Option<OwnBlock>, Self::Error>;
}

/// The furthest point that settled assertions have reached and this node agrees with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledHead {
    /// The assertion; zero for the genesis.
    pub id: B256,
    /// The L1 block at whose end its last claim holds.
    pub l1: L1Ref,
}

/// All assertions that count and are not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionTracker {
    /// The last L1 block seen.
    l1: L1Height,
    /// The furthest agreeing settled point.
    settled: SettledHead,
    /// Hash of the claim at the network's start.
    start: B256,
    /// Proofs of several chunks that are not complete.
    channels: Vec<ProofChannel>,
    /// In the order in which Bitcoin has them, so parents come before children.
    nodes: Vec<AssertionNode>,
}

impl AssertionTracker {
    /// No assertions yet: the network's start is settled.
    pub fn genesis(params: &Params) -> Self {
        Self {
            l1: params.l1_start.height,
            settled: SettledHead { id: B256::ZERO, l1: params.l1_start },
            start: genesis_claim(params).map_or(B256::ZERO, |claim| claim.hash()),
            channels: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The last L1 block seen.
    pub const fn l1_height(&self) -> L1Height {
        self.l1
    }

    /// The furthest settled point that this node agrees with.
    pub const fn settled(&self) -> SettledHead {
        self.settled
    }

    /// The furthest point that this node agrees with and that settled at least `depth` L1 blocks before
    /// the last one seen; none when that is only the genesis or longer ago than is remembered.
    pub fn settled_since(&self, depth: u32) -> Option<&AssertionNode> {
        self.nodes
            .iter()
            .filter(|node| {
                let settled = matches!(node.status, AssertionStatus::Settled { at } if at.plus(depth) <= self.l1);
                settled && node.agrees
            })
            .max_by_key(|node| node.l1.height)
    }

    /// The assertions, in the order in which Bitcoin has them.
    pub fn nodes(&self) -> &[AssertionNode] {
        &self.nodes
    }

    /// The assertion with that id.
    pub fn get(&self, id: &B256) -> Option<&AssertionNode> {
        self.nodes.iter().find(|node| node.id == *id)
    }

    /// The proofs of several chunks that are under way.
    pub fn channels(&self) -> &[ProofChannel] {
        &self.channels
    }

    /// Takes the next L1 block, which `own` must already know. `earlier` holds the Bitcoin blocks before
    /// it, which proofs are made of and verified on.
    ///
    /// # Errors
    /// Only when `own` or `earlier` fails; nothing is changed then.
    pub fn on_l1_block<O: OwnChain, L: L1Lookup<Error = O::Error>>(
        &mut self,
        params: &Params,
        l1: &L1Block,
        own: &O,
        earlier: &L,
    ) -> Result<Vec<AssertionEvent>, O::Error> {
        let mut next = self.clone();
        next.l1 = l1.at.height;
        let mut events = Vec::new();
        next.close_stale_channels(params);
        next.drop_claims();
        let tip = proofs::Tip { l1, earlier };
        let mut commits = Commits::default();
        for tx in &l1.block.txdata {
            for (input, envelope) in envelopes(tx) {
                match envelope.kind {
                    Kind::Batch | Kind::Forced => {}
                    Kind::Assertion => {
                        events.push(match next.judge(params, l1, tx, input, &envelope, own)? {
                            Ok(node) => {
                                let event =
                                    AssertionEvent::Proposed { id: node.id, agrees: node.agrees };
                                next.nodes.push(node);
                                event
                            }
                            Err(fault) => {
                                AssertionEvent::Ignored { txid: tx.compute_txid(), input, fault }
                            }
                        })
                    }
                    Kind::Proof => {
                        let at = ChunkRef { height: l1.at.height, txid: tx.compute_txid(), input };
                        next.on_proof(params, &tip, at, &envelope, &mut commits, &mut events)?;
                    }
                }
            }
        }
        next.settle(&mut events);
        next.refresh_challenged(&mut events);
        next.forget(params);
        *self = next;
        Ok(events)
    }

    /// Whether an envelope found in a reveal is an assertion that counts.
    fn judge<O: OwnChain>(
        &self,
        params: &Params,
        l1: &L1Block,
        reveal: &bitcoin::Transaction,
        input: u32,
        envelope: &Envelope,
        own: &O,
    ) -> Result<Result<AssertionNode, AssertionFault>, O::Error> {
        if !envelope.fits(params) {
            return Ok(Err(AssertionFault::NotOurs));
        }
        let Some(body) = AssertionBody::decode(&envelope.body) else {
            return Ok(Err(AssertionFault::Body));
        };
        if body.params_hash != params.hash() {
            return Ok(Err(AssertionFault::Params));
        }
        let (from, base, parent_agrees) = match self.get(&body.parent) {
            Some(parent) if parent.is_rejected() => return Ok(Err(AssertionFault::Rejected)),
            Some(parent) => {
                let base = parent.claims.last().copied().unwrap_or(parent.base);
                (parent.l1.height, base, parent.agrees)
            }
            None if body.parent.is_zero() => (params.l1_start.height, self.start, true),
            None => return Ok(Err(AssertionFault::Parent)),
        };
        let to = body.l1.height;
        if to <= from || to.since(from) > params.max_assertion_span {
            return Ok(Err(AssertionFault::Span { from, to }));
        }
        // Nothing can name the block that it is in.
        if to >= l1.at.height || own.own_block(to)?.is_none_or(|block| block.hash != body.l1.hash) {
            return Ok(Err(AssertionFault::L1));
        }
        let bond = bond_of(reveal, input, envelope, params)
            .filter(|(_, value)| *value >= params.proposer_bond);
        let Some((bond, bond_value)) = bond else { return Ok(Err(AssertionFault::Bond)) };
        let agrees = parent_agrees && same_claims(&body.claims, from, to, own)?;
        Ok(Ok(AssertionNode {
            id: assertion_id(&bond),
            parent: body.parent,
            from,
            base,
            l1: body.l1,
            claims: body.claims,
            confirmed_at: l1.at.height,
            deadline: l1.at.height.plus(params.challenge_window),
            bond,
            bond_value,
            proposer: envelope.publisher.serialize(),
            status: AssertionStatus::Proposed,
            agrees,
        }))
    }

    /// Settles what is due. Parents come first, so one pass is enough.
    fn settle(&mut self, events: &mut Vec<AssertionEvent>) {
        let mut waiting: Vec<B256> = Vec::new();
        for node in &mut self.nodes {
            if matches!(node.status, AssertionStatus::Settled { .. }) {
                continue;
            }
            if !node.is_open() || node.deadline > self.l1 || waiting.contains(&node.parent) {
                waiting.push(node.id);
                continue;
            }
            node.status = AssertionStatus::Settled { at: self.l1 };
            if node.agrees && node.l1.height > self.settled.l1.height {
                self.settled = SettledHead { id: node.id, l1: node.l1 };
            }
            events.push(AssertionEvent::Settled { id: node.id, agrees: node.agrees });
        }
    }

    /// Drops the claims that no proof can be about: those of assertions that are decided and whose deadline
    /// has passed, but for the last. A block after that, so that the events of the deadline's block find them.
    fn drop_claims(&mut self) {
        let now = self.l1;
        for node in self.nodes.iter_mut().filter(|node| !node.is_open() && node.deadline < now) {
            let before_last = node.claims.len().saturating_sub(1);
            if before_last > 0 {
                node.claims = node.claims.split_off(before_last);
            }
        }
    }

    /// Forgets what was decided long ago, but for the settled head: a true assertion needs a parent that
    /// can be named, and no other one will ever do better. What agrees follows from Bitcoin alone, so all
    /// nodes remember the same.
    fn forget(&mut self, params: &Params) {
        let keep = params.challenge_window.saturating_mul(KEEP_WINDOWS);
        let (now, head) = (self.l1, self.settled.id);
        self.nodes.retain(|node| {
            let old = node.deadline.plus(keep) <= now;
            !old || node.is_open() || node.id == head
        });
    }

    /// The furthest assertion that this node agrees with, settled or not, and the L1 block up to which it
    /// speaks: what its next assertion continues. Zero for the genesis.
    pub fn best(&self) -> (B256, L1Height) {
        self.nodes
            .iter()
            .filter(|node| {
                node.agrees && !node.is_rejected() && node.l1.height > self.settled.l1.height
            })
            // Of equal ones the first: it settles first.
            .rev()
            .max_by_key(|node| node.l1.height)
            .map_or((self.settled.id, self.settled.l1.height), |node| (node.id, node.l1.height))
    }

    /// The body of the assertion that continues the furthest one that this node agrees with, up to the
    /// newest L1 block with finality depth, as far as its span and one chunk allow. None when there is
    /// nothing new to say.
    ///
    /// # Errors
    /// Only when `own` fails.
    pub fn build_assertion<O: OwnChain>(
        &self,
        params: &Params,
        own: &O,
    ) -> Result<Option<AssertionBody>, O::Error> {
        let (parent, from) = self.best();
        let newest = self.l1.next().0.saturating_sub(params.finality_depth);
        let newest = L1Height(newest).min(from.plus(params.max_assertion_span));
        let room = usize::try_from(params.max_chunk_bytes).unwrap_or(usize::MAX);
        let room = room.saturating_sub(BODY_HEAD_BYTES) / 32;
        let mut claims: Vec<B256> = Vec::new();
        let mut l1 = None;
        let mut height = from.next();
        while height <= newest {
            let Some(block) = own.own_block(height)? else { break };
            if claims.len().saturating_add(block.claims.len()) > room {
                break;
            }
            claims.extend(block.claims);
            l1 = Some(L1Ref { height, hash: block.hash });
            height = height.next();
        }
        let params_hash = params.hash();
        Ok(l1.map(|l1| AssertionBody { parent, params_hash, l1, claims }))
    }

    /// The canonical encoding, RLP.
    pub fn encode(&self) -> Vec<u8> {
        Writer::record(|w| {
            w.item(&self.l1.0);
            w.item(&self.settled.id);
            w.l1(&self.settled.l1);
            w.item(&self.start);
            w.each(&self.channels, |w, channel| w.list(|w| channel.write(w)));
            w.each(&self.nodes, |w, node| w.list(|w| node.write(w)));
        })
    }

    /// The tracker with that canonical encoding.
    ///
    /// # Errors
    /// When the bytes are not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Reader::record(bytes, |r| {
            Ok(Self {
                l1: r.height()?,
                settled: SettledHead { id: r.item()?, l1: r.l1()? },
                start: r.item()?,
                channels: r.each(usize::MAX, |r| r.list(ProofChannel::read))?,
                nodes: r.each(usize::MAX, |r| r.list(AssertionNode::read))?,
            })
        })
    }
}

/// Whether these are this node's own claims of the L1 blocks above `from` up to `to`.
fn same_claims<O: OwnChain>(
    claims: &[B256],
    from: L1Height,
    to: L1Height,
    own: &O,
) -> Result<bool, O::Error> {
    let mut rest = claims;
    let mut height = from.next();
    while height <= to {
        let Some(block) = own.own_block(height)? else { return Ok(false) };
        let Some(after) = rest.strip_prefix(block.claims.as_slice()) else { return Ok(false) };
        rest = after;
        height = height.next();
    }
    Ok(rest.is_empty())
}
