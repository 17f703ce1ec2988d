//! What every part of Kedge agrees on before the first block: units, consensus parameters of each
//! network, message tags, predeployed contracts and the genesis state.
//!
//! This crate holds data only. A consensus number is written here once, with its unit and its reason;
//! no environment variable and no cargo feature changes one.
#![no_std]

extern crate alloc;

pub mod params;
pub mod units;

pub use params::{BitcoinNetwork, FeeParams, Keys, Network, Params};
pub use units::{L1Height, L1Ref, L2Number, Sats};
