//! The largest proofs and the longest verdicts that anybody can make: every limit holds for them.

mod big_state;
mod case;
mod derivation;
#[path = "../proofs/memory.rs"]
mod memory;
mod witness;
mod work;
#[path = "../proofs/world.rs"]
#[expect(dead_code, reason = "made for the tests of proofs")]
mod world;
