//! Derivation on made-up Bitcoin chains: laws, cases and vectors.

mod bounds;
mod cases;
mod laws;
mod world;
