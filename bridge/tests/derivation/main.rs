//! Derivation on made-up Bitcoin chains: laws, cases and vectors.

mod cases;
mod laws;
mod world;
