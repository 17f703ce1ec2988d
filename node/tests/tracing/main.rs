//! Traces over JSON-RPC: `debug_*`, `trace_*` and `ots_*` of a block whose transactions call, delegate,
//! create and revert.

#[path = "../rpc/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the other methods")]
mod world;

mod bounds;
mod geth;
mod ots;
mod parity;
mod setup;
