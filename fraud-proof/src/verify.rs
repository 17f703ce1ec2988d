//! The verdict on a fraud proof: total, deterministic, of bounded memory and work.
//!
//! Accepting a proof rests on hashes alone. The claim before the segment hashes to what the assertion (or
//! its parent) says, the derive state and the L2 header hash to what that claim says, every trie node and
//! code to what refers to it, and all transactions are derived from Bitcoin's blocks. So from a true claim
//! only the true next claim follows, and an assertion whose claims are all true cannot be proven wrong.
//!
//! From a claim that is not true anything may follow. It stands in a wrong assertion, so no verdict on it
//! can hurt; but whatever a liar made of it must not exceed the bounds, which is why a derive state has to
//! have the shape of one before anything is derived from it.

use crate::Claim;
use crate::proof::{Proof, ProofFault, ProofHead, Run};
use crate::segment::{SegmentError, TrieExecutor, Watch, output_root_of, run_segment};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloy_primitives::{B256, Bytes};
use bitcoin::Block;
use kedge_bridge::derive::{ChunkRef, DeriveError, L1Block, L1Lookup};
use kedge_genesis::{L1Height, L1Ref, Params};
use kedge_vm::{
    ExecuteError, ExecutedBlock, Header, Nibbles, Payload, StateSource, TrieDbError, TrieNodes,
    Witness, WitnessError,
};

/// What a verdict depends on of an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssertionView<'a> {
    /// Its id.
    pub id: B256,
    /// Hash of the claim before its first segment: its parent's last, or the network's start
    /// ([`crate::genesis_claim`]).
    pub base: B256,
    /// The L1 block at whose end its last claim should hold.
    pub l1: L1Ref,
    /// One claim hash per segment.
    pub claims: &'a [B256],
}

/// What a proof comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The assertion is wrong.
    Fraud {
        /// The segment that shows it.
        segment: u32,
        /// What is wrong there.
        kind: FraudKind,
    },
    /// The segment is as the assertion says.
    NoFraud,
    /// It proves nothing.
    Malformed {
        /// Why.
        reason: Malformed,
    },
}

/// What is wrong in the first wrong segment. For people: that it is wrong follows from the hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FraudKind {
    /// The output root, or the asserted claim is not known and so what is wrong in it.
    OutputRoot = 0,
    /// The segment ends elsewhere within its L1 block.
    SegmentBoundary = 1,
    /// The number of the L2 block.
    BlockNumber = 2,
    /// The derive state.
    DeriveState = 3,
    /// The height of the L1 block.
    L1Block = 4,
    /// The chain goes on between the last claim and the asserted L1 block.
    MissingSegments = 5,
    /// There are claims after the end of the asserted L1 block.
    ExtraSegments = 6,
}

impl FraudKind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::OutputRoot,
        Self::SegmentBoundary,
        Self::BlockNumber,
        Self::DeriveState,
        Self::L1Block,
        Self::MissingSegments,
        Self::ExtraSegments,
    ];

    /// The discriminant.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The kind of that discriminant.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// A short constant name, to count by.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OutputRoot => "output_root",
            Self::SegmentBoundary => "segment_boundary",
            Self::BlockNumber => "block_number",
            Self::DeriveState => "derive_state",
            Self::L1Block => "l1_block",
            Self::MissingSegments => "missing_segments",
            Self::ExtraSegments => "extra_segments",
        }
    }

    /// What of `asserted` is not as in `truth`.
    pub(crate) fn of(truth: &Claim, asserted: Option<&Claim>) -> Self {
        match asserted {
            Some(claim) if claim.offset != truth.offset => Self::SegmentBoundary,
            Some(claim) if claim.l1_height != truth.l1_height => Self::L1Block,
            Some(claim) if claim.number != truth.number => Self::BlockNumber,
            Some(claim) if claim.derive_state != truth.derive_state => Self::DeriveState,
            _ => Self::OutputRoot,
        }
    }
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is larger than a channel can be.
    #[error("it is larger than a channel can be")]
    TooLarge,
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Encoding(ProofFault),
    /// It is for other parameters: another chain.
    #[error("it is for another chain")]
    OtherChain,
    /// It is about another assertion.
    #[error("it is about another assertion")]
    OtherAssertion,
    /// The assertion has no such segment.
    #[error("the assertion has no such segment")]
    Segment,
    /// The claim before the segment is not the assertion's.
    #[error("the claim before the segment is not the assertion's")]
    Pre,
    /// The preimage of the asserted claim is not one.
    #[error("what it gives as the asserted claim is not")]
    Asserted,
    /// It carries an execution where none is needed, or none where one is.
    #[error("it carries an execution that is not needed, or none where one is")]
    Run,
    /// The derive state is not that of the claim before, or not one that can be.
    #[error("its derive state is not that of the claim before")]
    State,
    /// The header is not that of the claim before.
    #[error("its header is not that of the claim before")]
    Header,
    /// The claim before is not on this Bitcoin chain.
    #[error("the claim before is not on this Bitcoin chain")]
    Chain,
    /// The claim before is not at the end of one of the L1 block's payloads.
    #[error("the claim before is not at the end of a payload")]
    Position,
    /// A trie node or code is missing.
    #[error("a trie node or code is missing")]
    Incomplete,
    /// There is a trie node or code that nothing reads.
    #[error("it holds a trie node or code that nothing reads")]
    Excess,
    /// The segment cannot be executed on what it holds.
    #[error("the segment cannot be executed on what it holds")]
    Execution,
    /// The claim after the segment is another than it says.
    #[error("the claim after the segment is another than it says")]
    Post,
}

impl Malformed {
    /// A short constant name, to count by.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Encoding(_) => "encoding",
            Self::OtherChain => "other_chain",
            Self::OtherAssertion => "other_assertion",
            Self::Segment => "segment",
            Self::Pre => "pre",
            Self::Asserted => "asserted",
            Self::Run => "run",
            Self::State => "state",
            Self::Header => "header",
            Self::Chain => "chain",
            Self::Position => "position",
            Self::Incomplete => "incomplete",
            Self::Excess => "excess",
            Self::Execution => "execution",
            Self::Post => "post",
        }
    }
}

/// Judges a proof against an assertion that counts. `l1` holds the Bitcoin chain above the network's start
/// up to the asserted block; nothing outside of that is asked for.
///
/// # Errors
/// Only when `l1` fails, that is when this machine lacks a block of its own Bitcoin chain.
pub fn verify<L: L1Lookup>(
    params: &Params,
    l1: &L,
    assertion: &AssertionView<'_>,
    proof: &[u8],
) -> Result<Verdict, L::Error> {
    let verdict = match judge(params, l1, assertion, proof) {
        Ok(Some((segment, kind))) => Verdict::Fraud { segment, kind },
        Ok(None) => Verdict::NoFraud,
        Err(Stop::Malformed(reason)) => Verdict::Malformed { reason },
        Err(Stop::Machine(error)) => return Err(error),
    };
    Ok(verdict)
}

/// Executes the segment of a proof on what it holds, as [`verify`] does, whatever the assertion says about
/// it, and shows `watch` each block with its payload. Gives the claim reached, or why the proof is malformed;
/// blocks shown before that prove nothing. `l1` holds the Bitcoin chain up to `end`, the asserted block.
///
/// # Errors
/// Only when `l1` fails, that is when this machine lacks a block of its own Bitcoin chain.
pub fn replay<L: L1Lookup>(
    params: &Params,
    l1: &L,
    end: L1Height,
    proof: &Proof,
    watch: &mut dyn FnMut(&Payload, &ExecutedBlock),
) -> Result<Result<Claim, Malformed>, L::Error> {
    let Some(run) = &proof.run else { return Ok(Err(Malformed::Run)) };
    match execute(params, l1, end, &proof.pre, run, watch) {
        Ok(claim) => Ok(Ok(claim)),
        Err(Stop::Malformed(reason)) => Ok(Err(reason)),
        Err(Stop::Machine(error)) => Err(error),
    }
}

/// Why there is no verdict on the segment.
enum Stop<E> {
    Malformed(Malformed),
    Machine(E),
}

impl<E> From<Malformed> for Stop<E> {
    fn from(reason: Malformed) -> Self {
        Self::Malformed(reason)
    }
}

type Judged<E> = Result<Option<(u32, FraudKind)>, Stop<E>>;

fn judge<L: L1Lookup>(
    params: &Params,
    l1: &L,
    assertion: &AssertionView<'_>,
    bytes: &[u8],
) -> Judged<L::Error> {
    let most = u64::from(params.max_chunks).saturating_mul(u64::from(params.max_chunk_bytes));
    if bytes.len() as u64 > most {
        return Err(Malformed::TooLarge.into());
    }
    let head = ProofHead::decode(bytes).map_err(Malformed::Encoding)?;
    if head.params != params.hash() {
        return Err(Malformed::OtherChain.into());
    }
    if head.assertion != assertion.id {
        return Err(Malformed::OtherAssertion.into());
    }
    let segment = usize::try_from(head.segment).map_err(|_| Malformed::Segment)?;
    let before = match segment.checked_sub(1) {
        None => assertion.base,
        Some(before) => *assertion.claims.get(before).ok_or(Malformed::Segment)?,
    };
    let asserted = assertion.claims.get(segment).copied();
    let proof = Proof::decode(bytes).map_err(Malformed::Encoding)?;
    if proof.pre.hash() != before {
        return Err(Malformed::Pre.into());
    }
    if proof.asserted.is_some_and(|claim| Some(claim.hash()) != asserted) {
        return Err(Malformed::Asserted.into());
    }
    let Some(asserted) = asserted else {
        // After the last claim there is nothing to execute: it is at the asserted block's end or not.
        if proof.run.is_some() {
            return Err(Malformed::Run.into());
        }
        let at_end = place(&proof.pre) == (assertion.l1.height, 0);
        return Ok((!at_end).then_some((head.segment, FraudKind::MissingSegments)));
    };
    let beyond = place(&proof.pre) >= (assertion.l1.height, 0);
    let run = match &proof.run {
        None if beyond => return Ok(Some((head.segment, FraudKind::ExtraSegments))),
        Some(run) if !beyond => run,
        _ => return Err(Malformed::Run.into()),
    };
    if run.post.hash() == asserted {
        return Ok(None);
    }
    let truth = execute(params, l1, assertion.l1.height, &proof.pre, run, &mut |_, _| {})?;
    if truth.hash() == asserted {
        return Ok(None);
    }
    if truth != run.post {
        return Err(Malformed::Post.into());
    }
    Ok(Some((head.segment, FraudKind::of(&truth, proof.asserted.as_ref()))))
}

/// Where a claim holds, in the order of the chain.
pub(crate) const fn place(claim: &Claim) -> (L1Height, u32) {
    (claim.l1_height, claim.offset)
}

/// The claim after the segment that begins at `pre`.
fn execute<L: L1Lookup>(
    params: &Params,
    l1: &L,
    end: L1Height,
    pre: &Claim,
    run: &Run,
    watch: Watch<'_>,
) -> Result<Claim, Stop<L::Error>> {
    let state = &run.state;
    let is_state = state.l1.height == pre.l1_height
        && state.hash() == pre.derive_state
        && state.is_shaped(params);
    if !is_state {
        return Err(Malformed::State.into());
    }
    let header = &run.header;
    if header.number != pre.number.0 || output_root_of(header) != Some(pre.output_root) {
        return Err(Malformed::Header.into());
    }
    let window = Window { l1, above: params.l1_start.height, end };
    let height = pre.l1_height.next();
    let block = window.l1_block(height).map_err(Outside::stop)?;
    let block = L1Block::new(height, block);
    let source = Exact::new(&run.witness);
    let mut executor = TrieExecutor::new(params, source, header.clone(), watch);
    let claim = run_segment(params, pre, state, &block, &window, &mut executor);
    let claim = claim.map_err(|error| match error {
        SegmentError::Derive(DeriveError::Lookup(error)) => error.stop(),
        SegmentError::Derive(DeriveError::WrongBlock { .. }) => Malformed::Chain.into(),
        SegmentError::Position => Malformed::Position.into(),
        SegmentError::Execute(ExecuteError::Database(TrieDbError::Source(_))) => {
            Malformed::Incomplete.into()
        }
        SegmentError::Execute(_) => Malformed::Execution.into(),
    })?;
    if executor.into_source().is_used_up() { Ok(claim) } else { Err(Malformed::Excess.into()) }
}

/// The Bitcoin blocks that a proof may need. A state that asks for others is not one of this chain.
struct Window<'a, L> {
    l1: &'a L,
    above: L1Height,
    end: L1Height,
}

enum Outside<E> {
    Outside,
    Machine(E),
}

impl<E> Outside<E> {
    fn stop(self) -> Stop<E> {
        match self {
            Self::Outside => Malformed::Chain.into(),
            Self::Machine(error) => Stop::Machine(error),
        }
    }
}

impl<L: L1Lookup> L1Lookup for Window<'_, L> {
    type Error = Outside<L::Error>;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Self::Error> {
        if height <= self.above || height > self.end {
            return Err(Outside::Outside);
        }
        self.l1.l1_block(height).map_err(Outside::Machine)
    }

    fn chunk(&self, at: &ChunkRef, hash: B256) -> Result<Option<Vec<u8>>, Self::Error> {
        if at.height <= self.above || at.height > self.end {
            return Err(Outside::Outside);
        }
        self.l1.chunk(at, hash).map_err(Outside::Machine)
    }
}

/// A witness that knows what of it was read.
struct Exact<'a> {
    witness: &'a Witness,
    nodes: BTreeSet<B256>,
    codes: BTreeSet<B256>,
}

impl<'a> Exact<'a> {
    const fn new(witness: &'a Witness) -> Self {
        Self { witness, nodes: BTreeSet::new(), codes: BTreeSet::new() }
    }

    fn is_used_up(&self) -> bool {
        self.nodes.len() == self.witness.nodes.len() && self.codes.len() == self.witness.codes.len()
    }
}

impl TrieNodes for Exact<'_> {
    type Error = WitnessError;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, WitnessError> {
        let mut witness = self.witness;
        let node = witness.trie_node(owner, path, hash)?;
        self.nodes.insert(hash);
        Ok(node)
    }
}

impl StateSource for Exact<'_> {
    fn code(&mut self, hash: B256) -> Result<Bytes, WitnessError> {
        let mut witness = self.witness;
        let code = witness.code(hash)?;
        self.codes.insert(hash);
        Ok(code)
    }

    fn header(&mut self, number: u64) -> Result<Header, WitnessError> {
        Err(WitnessError::MissingHeader(number))
    }
}
