//! The predeployed contracts as genesis deploys them, run in an EVM with an in-memory state.

mod artifacts;
mod bridge;
mod chain;
mod fees;
mod l1;
