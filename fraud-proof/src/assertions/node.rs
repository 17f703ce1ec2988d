//! An assertion that counts, and what can happen to it.

use crate::proof::ProofFault;
use crate::verify::{AssertionView, FraudKind, Verdict};
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::{OutPoint, Txid};
use kedge_bridge::derive::ChunkRef;
use kedge_bridge::derive::codec::{CodecError, Reader, Writer, txid_bytes};
use kedge_genesis::{L1Height, L1Ref, Sats};

/// How far an assertion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionStatus {
    /// It can still be proven wrong, or its parent can.
    Proposed,
    /// So it can, and a proof against it has begun on Bitcoin.
    Challenged,
    /// It was proven wrong, or an assertion that it continues was.
    Rejected {
        /// The L1 block that completed the first proof.
        at: L1Height,
        /// The proof that its bond pays for. None when it fell with its parent.
        proof: Option<Rejection>,
    },
    /// Nobody proved it wrong in time.
    Settled {
        /// The L1 block that settled it.
        at: L1Height,
    },
}

/// A proof that rejected an assertion. Of several it is the one committed to first: whoever copies a
/// proof that he saw revealed commits later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The segment proven wrong.
    pub segment: u32,
    /// What is wrong in it.
    pub kind: FraudKind,
    /// The publisher of all chunks, whom the bond pays. X-only key.
    pub challenger: [u8; 32],
    /// Height of the last of the commit transactions that the chunks' reveals spend.
    pub committed: L1Height,
    /// The reveal that completed the proof.
    pub reveal: ChunkRef,
}

/// An assertion that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionNode {
    /// Its id, [`kedge_bridge::assertion::assertion_id`] of its bond.
    pub id: B256,
    /// The assertion that it continues; zero continues the genesis.
    pub parent: B256,
    /// The L1 block of the parent.
    pub from: L1Height,
    /// Hash of the claim before its first segment: the parent's last.
    pub base: B256,
    /// The L1 block at whose end its last claim holds.
    pub l1: L1Ref,
    /// One claim hash per segment since the parent. Once the assertion is decided and its deadline has passed,
    /// so that no proof counts, the last one only.
    pub claims: Vec<B256>,
    /// Height of its reveal.
    pub confirmed_at: L1Height,
    /// The last L1 block in which a proof against it counts; it settles with that block otherwise.
    pub deadline: L1Height,
    /// Its bond, an output of the reveal.
    pub bond: OutPoint,
    /// What the bond holds.
    pub bond_value: Sats,
    /// The envelope's publisher, to whom the bond returns. X-only key.
    pub proposer: [u8; 32],
    /// How far it is.
    pub status: AssertionStatus,
    /// Whether it and all before it equal this node's own derivation.
    pub agrees: bool,
}

/// Why an assertion does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionFault {
    /// It is for another chain.
    #[error("it is for another chain")]
    NotOurs,
    /// The body does not decode.
    #[error("its body does not decode")]
    Body,
    /// It was made under other parameters.
    #[error("it was made under other parameters")]
    Params,
    /// Its parent is not known.
    #[error("its parent is not known")]
    Parent,
    /// Its parent is rejected.
    #[error("its parent is rejected")]
    Rejected,
    /// It spans no L1 block or too many.
    #[error("it spans from L1 block {from} to {to}")]
    Span {
        /// Height of the parent's L1 block.
        from: L1Height,
        /// Height of its own.
        to: L1Height,
    },
    /// The L1 block that it claims about is not in the chain below it.
    #[error("its L1 block is not in this chain")]
    L1,
    /// Its bond is missing or too small.
    #[error("its bond is missing or too small")]
    Bond,
}

impl AssertionFault {
    /// A short constant name, to count by.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::Body => "body",
            Self::Params => "params",
            Self::Parent => "parent",
            Self::Rejected => "rejected",
            Self::Span { .. } => "span",
            Self::L1 => "l1",
            Self::Bond => "bond",
        }
    }
}

/// Why a proof envelope has no effect and is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofIgnored {
    /// It is for another chain, or beyond this chain's limits of chunks.
    #[error("it is for another chain or beyond the limits of chunks")]
    NotOurs,
    /// It is about no assertion that is known.
    #[error("it is about no assertion that is known")]
    Unknown,
    /// The assertion is settled, past its deadline, or rejected with its parent.
    #[error("the assertion can no longer be proven wrong")]
    Closed,
    /// A chunk before the last is not of full size.
    #[error("a chunk before the last is not of full size")]
    Size,
    /// It is not the next chunk of its channel.
    #[error("chunk {found} came, {expected} is next")]
    Chunk {
        /// The next chunk.
        expected: u16,
        /// The chunk it is.
        found: u16,
    },
    /// The assertion was rejected by a proof that was committed to before it, or at the same height and
    /// complete before it.
    #[error("a proof committed to before it has rejected the assertion")]
    Late,
    /// Its first bytes are not those of a proof.
    #[error("its first bytes are not those of a proof: {0}")]
    Head(ProofFault),
}

impl ProofIgnored {
    /// A short constant name, to count by.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::Unknown => "unknown",
            Self::Closed => "closed",
            Self::Size => "size",
            Self::Chunk { .. } => "chunk",
            Self::Late => "late",
            Self::Head(_) => "head",
        }
    }
}

/// What a Bitcoin block did to the assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionEvent {
    /// An assertion counts from now on. One that does not agree is to be challenged.
    Proposed {
        /// Its id.
        id: B256,
        /// Whether it equals this node's own derivation.
        agrees: bool,
    },
    /// An assertion settled. One that does not agree is an alarm: nobody challenged it.
    Settled {
        /// Its id.
        id: B256,
        /// Whether it equals this node's own derivation.
        agrees: bool,
    },
    /// A proof of several chunks has begun against an assertion.
    Challenged {
        /// Its id.
        id: B256,
    },
    /// No proof against an assertion is under way any more, and none was right.
    Unchallenged {
        /// Its id.
        id: B256,
    },
    /// An assertion is rejected, or the bond of a rejected one goes to a proof committed to earlier.
    Rejected {
        /// Its id.
        id: B256,
        /// The proof. None when it falls with its parent.
        proof: Option<Rejection>,
    },
    /// A complete proof has no effect.
    ProofFailed {
        /// The assertion.
        id: B256,
        /// The reveal that completed it.
        at: ChunkRef,
        /// Why: anything but fraud.
        verdict: Verdict,
    },
    /// A proof envelope is not judged.
    ProofIgnored {
        /// Where it is.
        at: ChunkRef,
        /// Why.
        reason: ProofIgnored,
    },
    /// An assertion does not count.
    Ignored {
        /// The reveal.
        txid: Txid,
        /// The input whose witness it is.
        input: u32,
        /// Why.
        fault: AssertionFault,
    },
}

impl AssertionNode {
    /// What a verdict on a proof depends on.
    pub fn view(&self) -> AssertionView<'_> {
        AssertionView { id: self.id, base: self.base, l1: self.l1, claims: &self.claims }
    }

    /// Whether it is rejected.
    pub const fn is_rejected(&self) -> bool {
        matches!(self.status, AssertionStatus::Rejected { .. })
    }

    /// Whether it is neither settled nor rejected.
    pub const fn is_open(&self) -> bool {
        matches!(self.status, AssertionStatus::Proposed | AssertionStatus::Challenged)
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.item(&self.id);
        w.item(&self.parent);
        w.item(&self.from.0);
        w.item(&self.base);
        w.l1(&self.l1);
        w.each(&self.claims, Writer::item);
        w.item(&self.confirmed_at.0);
        w.item(&self.deadline.0);
        w.outpoint(&self.bond);
        w.item(&self.bond_value.0);
        w.item(&B256::new(self.proposer));
        w.list(|w| self.status.write(w));
        w.item(&self.agrees);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            id: r.item()?,
            parent: r.item()?,
            from: r.height()?,
            base: r.item()?,
            l1: r.l1()?,
            claims: r.each(usize::MAX, Reader::item)?,
            confirmed_at: r.height()?,
            deadline: r.height()?,
            bond: r.outpoint()?,
            bond_value: Sats(r.item()?),
            proposer: r.item::<B256>()?.0,
            status: r.list(AssertionStatus::read)?,
            agrees: r.item()?,
        })
    }
}

const PROPOSED: u8 = 0;
const CHALLENGED: u8 = 1;
const SETTLED: u8 = 2;
const REJECTED: u8 = 3;

impl AssertionStatus {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Proposed => w.item(&PROPOSED),
            Self::Challenged => w.item(&CHALLENGED),
            Self::Settled { at } => {
                w.item(&SETTLED);
                w.item(&at.0);
            }
            Self::Rejected { at, proof } => {
                w.item(&REJECTED);
                w.item(&at.0);
                w.each(proof, |w, proof| w.list(|w| proof.write(w)));
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.item()? {
            PROPOSED => Self::Proposed,
            CHALLENGED => Self::Challenged,
            SETTLED => Self::Settled { at: r.height()? },
            REJECTED => {
                Self::Rejected { at: r.height()?, proof: r.option(|r| r.list(Rejection::read))? }
            }
            _ => return Err(UNKNOWN),
        })
    }
}

const UNKNOWN: CodecError = CodecError(alloy_rlp::Error::Custom("unknown discriminant"));

impl Rejection {
    fn write(&self, w: &mut Writer) {
        w.item(&self.segment);
        w.item(&self.kind.wire());
        w.item(&B256::new(self.challenger));
        w.item(&self.committed.0);
        write_chunk(w, &self.reveal);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            segment: r.item()?,
            kind: FraudKind::from_wire(r.item()?).ok_or(UNKNOWN)?,
            challenger: r.item::<B256>()?.0,
            committed: r.height()?,
            reveal: read_chunk(r)?,
        })
    }
}

pub(super) fn write_chunk(w: &mut Writer, chunk: &ChunkRef) {
    w.list(|w| {
        w.item(&chunk.height.0);
        w.item(&txid_bytes(chunk.txid));
        w.item(&chunk.input);
    });
}

pub(super) fn read_chunk(r: &mut Reader<'_>) -> Result<ChunkRef, CodecError> {
    r.list(|r| Ok(ChunkRef { height: r.height()?, txid: r.txid()?, input: r.item()? }))
}
