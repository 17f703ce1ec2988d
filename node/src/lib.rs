//! The Kedge node.

pub mod l1;
