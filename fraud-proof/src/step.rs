//! The state transition from one Bitcoin block to the next: derive its payloads, execute them, and say
//! what the chain is at the end of each segment.

use crate::Claim;
use crate::segment::Segmenter;
use alloc::vec::Vec;
use alloy_primitives::B256;
use kedge_bridge::derive::{
    BatchSeen, DeriveError, DeriveState, Derived, L1Block, L1Lookup, L2Cursor, Note, derive,
};
use kedge_genesis::{L2Number, Params};
use kedge_vm::Payload;

/// Executes payloads: a node on its store, a verifier on a witness.
pub trait Executor {
    /// Why this machine could not execute.
    type Error;

    /// Applies the payload on top of the last one applied. `cursor` is derivation's after it.
    ///
    /// # Errors
    /// Only when this machine failed; whatever a payload holds can be executed.
    fn apply(&mut self, payload: &Payload, cursor: &L2Cursor) -> Result<Applied, Self::Error>;
}

/// What the step needs to know of an executed payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Number of the block.
    pub number: L2Number,
    /// Its output root.
    pub output_root: B256,
    /// Gas by the meter, with the block's overhead.
    pub metered_gas: u64,
    /// Bytes by the witness meter.
    pub witness_bytes: u64,
}

/// What one Bitcoin block does to the L2 chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOutput {
    /// Derivation's state after the block.
    pub post: DeriveState,
    /// The claim at the end of each segment. At least one; the last is at the end of the block.
    pub claims: Vec<Claim>,
    /// What derivation said besides.
    pub derived: DerivedRest,
}

/// [`Derived`] without its post state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedRest {
    /// The payloads, executed in this order.
    pub payloads: Vec<Payload>,
    /// The cursor after each payload.
    pub cursors: Vec<L2Cursor>,
    /// The batches that became complete in this block.
    pub batches: Vec<BatchSeen>,
    /// What the rules passed over.
    pub notes: Vec<Note>,
}

/// Why this machine could not make the step. Nothing on a chain causes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError<L, E> {
    /// Derivation failed.
    #[error("derivation: {0}")]
    Derive(DeriveError<L>),
    /// Execution failed.
    #[error("execution: {0}")]
    Execute(E),
    /// The executor applied another block than the one given.
    #[error("the executor applied block {found} instead of {expected}")]
    WrongBlock {
        /// Number of the payload.
        expected: L2Number,
        /// Number that the executor says.
        found: L2Number,
    },
}

/// Makes the step from `pre`, at whose head the output root is `pre_output_root`, over one Bitcoin block.
///
/// A segment ends with the first L2 block at which the gas metered since the last end reaches
/// [`Params::segment_target_gas`] or the witness bytes [`Params::segment_witness_target`], with the last
/// block of each batch, so that one segment reads the body of one channel at most, and at the end of the
/// L1 block's payloads.
///
/// # Errors
/// Only when this machine failed.
pub fn step<L: L1Lookup, E: Executor>(
    params: &Params,
    pre: &DeriveState,
    pre_output_root: B256,
    l1: &L1Block,
    earlier: &L,
    executor: &mut E,
) -> Result<StepOutput, StepError<L::Error, E::Error>> {
    let Derived { post, payloads, cursors, batches, notes } =
        derive(params, pre, l1, earlier).map_err(StepError::Derive)?;
    let pre_hash = pre.hash();
    let last = post.cursor.number;
    let mut output_root = pre_output_root;
    let mut segmenter = Segmenter::new(params, &batches, last);
    let mut claims = Vec::new();
    for (offset, (payload, cursor)) in (1u32..).zip(payloads.iter().zip(&cursors)) {
        let applied = executor.apply(payload, cursor).map_err(StepError::Execute)?;
        if applied.number != payload.number {
            return Err(StepError::WrongBlock { expected: payload.number, found: applied.number });
        }
        output_root = applied.output_root;
        if segmenter.ends(&applied) {
            claims.push(Claim {
                l1_height: pre.l1.height,
                offset,
                derive_state: pre_hash,
                number: payload.number,
                output_root,
            });
        }
    }
    claims.push(Claim {
        l1_height: post.l1.height,
        offset: 0,
        derive_state: post.hash(),
        number: last,
        output_root,
    });
    let derived = DerivedRest { payloads, cursors, batches, notes };
    Ok(StepOutput { post, claims, derived })
}
