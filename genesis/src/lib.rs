//! What every part of Kedge agrees on before the first block: units, consensus parameters of each
//! network, message tags, predeployed contracts and the genesis state.
//!
//! This crate holds data only. A consensus number is written here once, with its unit and its reason;
//! no environment variable and no cargo feature changes one.
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

pub mod abi;
pub mod code;
mod decode;
pub mod hash;
pub mod params;
pub mod predeploys;
pub mod state;
pub mod tags;
pub mod units;

pub use hash::tagged_hash;
pub use params::{
    BATCH_EPOCH_READS, BATCH_SIGNATURES, BitcoinNetwork, FORCED_BLOCKS_PER_EPOCH, FeeParams, Keys,
    MAX_L1_READS, Network, Params,
};
pub use state::{GenesisAccount, alloc};
pub use units::{L1Height, L1Ref, L2Number, Sats};
