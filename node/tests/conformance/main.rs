//! The node against published vectors: the execution-apis specification with its recorded exchanges, and
//! go-ethereum's tracer fixtures.

#[path = "../rpc/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the methods")]
mod world;

mod chain;
mod exchanges;
mod requests;
mod rpc;
mod spec;
mod tracers;
