//! Fraud proofs on chains with real execution: what is wrong can be proven, what is right cannot.

mod adversaries;
mod bounds;
mod differential;
mod life;
mod memory;
mod program;
mod reorgs;
mod verdicts;
mod world;
