//! Fraud proofs on chains with real execution: what is wrong can be proven, what is right cannot.

mod life;
mod verdicts;
mod world;
