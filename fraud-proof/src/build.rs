//! The challenger's side: the first wrong segment of an assertion, and the proof of it.

use crate::Claim;
use crate::proof::{Proof, ProofHead, Run};
use crate::segment::{SegmentError, TrieExecutor, run_segment};
use crate::verify::{AssertionView, place};
use alloc::vec::Vec;
use alloy_primitives::B256;
use core::error::Error;
use kedge_bridge::derive::{DeriveError, DeriveState, L1Block, L1Lookup};
use kedge_genesis::{L2Number, Params};
use kedge_vm::{ExecuteError, Header, Recorder, StateSource, TrieDbError};

/// The true chain at a claim: what a challenger knows of the point before a wrong segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreState {
    /// The claim there.
    pub claim: Claim,
    /// The derive state after its L1 block.
    pub state: DeriveState,
    /// The header of its L2 block.
    pub header: Header,
}

/// Why this machine could not build a proof.
#[derive(Debug, thiserror::Error)]
pub enum BuildError<L, S: Error> {
    /// The assertion has no such segment.
    #[error("the assertion has no segment {segment}")]
    NoSegment {
        /// The segment.
        segment: u32,
    },
    /// The claim given is not the one before the segment.
    #[error("the claim before segment {segment} is another")]
    NotBefore {
        /// The segment.
        segment: u32,
    },
    /// A Bitcoin block could not be read.
    #[error("a Bitcoin block could not be read: {0}")]
    Lookup(L),
    /// The segment could not be derived from those blocks.
    #[error("derivation: {0}")]
    Derive(DeriveError<L>),
    /// The claim given is not at the end of a payload.
    #[error("the claim before is not at the end of a payload")]
    Position,
    /// The segment could not be executed on that state.
    #[error("execution: {0}")]
    Execute(ExecuteError<TrieDbError<S>>),
}

/// The first segment of an assertion that is not as in `own`, the true claim hashes of the L1 blocks that
/// it spans. The count of its claims when they are all right but end too early. None when it is right.
pub fn first_divergence(own: &[B256], asserted: &[B256]) -> Option<u32> {
    let same = own.iter().zip(asserted).take_while(|(own, asserted)| own == asserted).count();
    (own.len() != same || asserted.len() != same).then(|| u32::try_from(same).unwrap_or(u32::MAX))
}

/// Builds the proof that `segment` is wrong by executing it with a recorder. `pre` is the true chain
/// before it, `source` the state after the L2 block of `pre`, asked for trie nodes by path and hash, and
/// for codes. `l1` holds the Bitcoin chain up to the asserted block.
///
/// The result is what the verifier needs, whether the segment is wrong or not: verify before publishing.
///
/// # Errors
/// When `pre` is not the claim before the segment, or this machine failed.
pub fn build_proof<L: L1Lookup, S: StateSource>(
    params: &Params,
    l1: &L,
    assertion: &AssertionView<'_>,
    segment: u32,
    pre: &PreState,
    source: S,
) -> Result<Proof, BuildError<L::Error, S::Error>> {
    let index = usize::try_from(segment).unwrap_or(usize::MAX);
    let before = match index.checked_sub(1) {
        None => Some(&assertion.base),
        Some(before) => assertion.claims.get(before),
    };
    let before = before.ok_or(BuildError::NoSegment { segment })?;
    if pre.claim.hash() != *before {
        return Err(BuildError::NotBefore { segment });
    }
    let head = ProofHead { params: params.hash(), assertion: assertion.id, segment };
    let asserted = assertion.claims.get(index);
    let (Some(asserted), true) = (asserted, place(&pre.claim) < (assertion.l1.height, 0)) else {
        return Ok(Proof { head, pre: pre.claim, asserted: None, run: None });
    };
    let height = pre.claim.l1_height.next();
    let block = L1Block::new(height, l1.l1_block(height).map_err(BuildError::Lookup)?);
    let recorder = Recorder::new(source);
    let mut unwatched = |_: &_, _: &_| {};
    let mut executor = TrieExecutor::new(params, recorder, pre.header.clone(), &mut unwatched);
    let post = run_segment(params, &pre.claim, &pre.state, &block, l1, &mut executor);
    let post = post.map_err(|error| match error {
        SegmentError::Derive(error) => BuildError::Derive(error),
        SegmentError::Position => BuildError::Position,
        SegmentError::Execute(error) => BuildError::Execute(error),
    })?;
    let witness = executor.into_source().into_witness();
    let run = Run { post, state: pre.state.clone(), header: pre.header.clone(), witness };
    let asserted = guess(asserted, &pre.claim, &post);
    Ok(Proof { head, pre: pre.claim, asserted, run: Some(run) })
}

/// The preimage of the asserted claim, if it is close to the truth.
fn guess(asserted: &B256, pre: &Claim, post: &Claim) -> Option<Claim> {
    let mut guesses: Vec<Claim> = alloc::vec![*pre];
    for by in 1..=16 {
        let (up, down) = (post.number.0.saturating_add(by), post.number.0.saturating_sub(by));
        guesses.extend([up, down].map(|number| Claim { number: L2Number(number), ..*post }));
        let by = u32::try_from(by).unwrap_or_default();
        let (up, down) = (post.offset.saturating_add(by), post.offset.saturating_sub(by));
        guesses.extend([up, down].map(|offset| Claim { offset, ..*post }));
        let (up, down) = (post.l1_height.plus(by), post.l1_height.0.saturating_sub(by));
        let heights = [up, kedge_genesis::L1Height(down)];
        guesses.extend(heights.map(|l1_height| Claim { l1_height, ..*post }));
    }
    guesses
        .extend([pre.derive_state, B256::ZERO].map(|derive_state| Claim { derive_state, ..*post }));
    guesses.extend([pre.output_root, B256::ZERO].map(|output_root| Claim { output_root, ..*post }));
    guesses.into_iter().find(|claim| claim.hash() == *asserted)
}
