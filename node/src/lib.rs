//! The Kedge node.

pub mod engine;
pub mod follow;
pub mod l1;
pub mod mempool;
pub mod publisher;
pub mod rpc;
pub mod wallet;
