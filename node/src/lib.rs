//! The Kedge node: everything that touches a disk, a socket or a clock.
//!
//! | module | its job |
//! | --- | --- |
//! | [`l1`] | Bitcoin: a Bitcoin Core node, or one embedded |
//! | [`engine`] | the one writer of the chain |
//! | [`follow`] | keeps the engine on Bitcoin's best chain |
//! | [`mempool`] | transactions that wait for a block |
//! | [`sequencer`] | makes L2 blocks |
//! | [`batcher`], [`proposer`] | post batches and assertions, through [`publisher`] and [`wallet`] |
//! | [`challenger`] | proves wrong assertions wrong |
//! | [`stream`] | the sequencer's blocks, signed, from node to node |
//! | [`signer`] | signs the vault's payouts, and gives bonds to challengers |
//! | [`bumps`] | when to replace a spend that waits for a block |
//! | [`proof`] | fraud proofs as files, judged on Bitcoin blocks alone |
//! | [`rpc`] | JSON-RPC |
//! | [`admin`] | `admin_*`, for the operator alone |
//! | [`pruner`] | drops old states |
//! | [`snapshot`], [`block_file`] | copies of a store, and blocks as files |
//! | [`metrics`] | metrics over HTTP |
//! | [`node`], [`dev`] | put the parts together |
//! | [`cli`] | the command line |

pub mod accounts;
pub mod admin;
pub mod batcher;
pub mod block_file;
pub mod bumps;
pub mod challenger;
pub mod cli;
pub mod clock;
mod console;
pub mod dev;
pub mod engine;
pub mod follow;
pub mod keys;
pub mod l1;
pub mod mempool;
pub mod mempool_link;
pub mod metrics;
pub mod node;
pub mod proof;
pub mod proposer;
pub mod pruner;
pub mod publisher;
pub mod rpc;
pub mod sequencer;
pub mod signer;
pub mod snapshot;
pub mod stream;
pub mod wallet;
