//! Fraud proofs as files: judged, and looked into, with nothing but Bitcoin blocks.
//!
//! | module | its job |
//! | --- | --- |
//! | [`blocks`] | a chain of Bitcoin blocks, one after the other, from a node or a folder |
//! | [`folder`] | the folder: which files it holds, and in which order |
//! | [`mod@judge`] | the assertion that a proof is about, and the verdict |
//! | [`inspect`] | what a proof says and weighs, and its segment executed again |
//! | [`against`] | where a node that holds the asserted chain differs from the true one |
//! | [`mod@file`] | reading and writing the file |

pub mod against;
pub mod blocks;
pub mod file;
pub mod folder;
pub mod inspect;
pub mod judge;
#[cfg(test)]
mod tests;

pub use blocks::{BitcoinChain, BlockSource, BlocksError, NodeBlocks};
pub use folder::Folder;
pub use judge::{JudgeError, Judged, ProofFile, Seen, judge};

use kedge_fraud_proof::ProofHead;
use kedge_genesis::{Network, Params};

/// The parameters of the network that a proof names, none when no network of this version has them.
pub fn params_of(head: &ProofHead) -> Option<&'static Params> {
    Network::ALL.map(Network::params).into_iter().find(|params| params.hash() == head.params)
}
