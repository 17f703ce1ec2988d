//! Everything that Bitcoin sees of Kedge, and derivation: Bitcoin block in, L2 payloads out.
//!
//! One file per Bitcoin transaction or message type, its builder and its parser side by side; each head
//! comment documents every input and output and what is deliberately not checked. Parsers are total: what
//! a chain says is a verdict, never a panic. [`multisig`] and [`vault`] hold the scripts, [`hash`] the
//! tagged hashes.
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

pub mod assertion;
pub mod attributes;
pub mod batch;
pub mod bond;
pub mod commit;
pub mod deflate;
pub mod deposit;
pub mod derive;
pub mod envelope;
pub mod forced;
pub mod hash;
pub mod multisig;
pub mod op_return;
pub mod payout;
mod read;
pub mod vault;
