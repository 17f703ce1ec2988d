//! Contracts that use as much of one resource as gas allows: what bounds a segment is tested with them,
//! natively, on a RISC-V machine and on live nodes.
//!
//! | module | its job |
//! | --- | --- |
//! | [`code`] | EVM code from parts |
//! | [`loops`] | one instruction or precompile over and over: work for gas |
//! | [`state`] | one access to many accounts or slots: witness for gas |
//! | [`token`] | an ERC-20 token
//! | [`swap`] | a pair of tokens that are swapped

pub mod code;
pub mod loops;
pub mod state;
pub mod swap;
pub mod token;

pub use code::{Code, deployer};
pub use loops::{Workload, instruction_loops, precompile_loops};
