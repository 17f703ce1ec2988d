//! Kedge's truth: the [`step()`] from one Bitcoin block to the next, claims about it, the assertions that
//! carry such claims to Bitcoin, and what settles them.
//!
//! | module | its job |
//! | --- | --- |
//! | [`claim`] | what an assertion says about one point of the chain |
//! | [`mod@step`] | derive + execute: one Bitcoin block to its claims |
//! | [`assertions`] | the state machine of all assertions and proofs seen on Bitcoin |
//! | [`proof`] | what a fraud proof holds, and its bytes |
//! | [`mod@verify`] | the verdict on a proof |
//! | [`build`] | the first wrong segment of an assertion, and the proof of it |
//! | [`riscv`] | a RISC-V machine whose every state has a root, for judging one step of a computation |
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;

pub mod assertions;
pub mod build;
pub mod claim;
mod pack;
pub mod proof;
pub mod riscv;
mod segment;
pub mod step;
pub mod verify;

pub use assertions::{
    AssertionEvent, AssertionFault, AssertionNode, AssertionStatus, AssertionTracker, OwnBlock,
    OwnChain, ProofChannel, ProofIgnored, Rejection, SettledHead,
};
pub use build::{BuildError, PreState, build_proof, first_divergence};
pub use claim::{Claim, genesis_claim};
pub use proof::{Proof, ProofFault, ProofHead, ProofSizes, Run};
pub use step::{Applied, DerivedRest, Executor, StepError, StepOutput, step};
pub use verify::{AssertionView, FraudKind, Malformed, Verdict, replay, verify};
