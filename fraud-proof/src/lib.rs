//! Kedge's truth: the [`step()`] from one Bitcoin block to the next, claims about it, the assertions that
//! carry such claims to Bitcoin, and what settles them.
//!
//! | module | its job |
//! | --- | --- |
//! | [`claim`] | what an assertion says about one point of the chain |
//! | [`mod@step`] | derive + execute: one Bitcoin block to its claims |
//! | [`assertions`] | the state machine of all assertions seen on Bitcoin |
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
pub mod claim;
pub mod step;

pub use assertions::{
    AssertionEvent, AssertionFault, AssertionNode, AssertionStatus, AssertionTracker, OwnBlock,
    OwnChain, SettledHead,
};
pub use claim::Claim;
pub use step::{Applied, DerivedRest, Executor, StepError, StepOutput, step};
