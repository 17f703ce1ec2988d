//! The Kedge node.

pub mod l1;
pub mod mempool;
