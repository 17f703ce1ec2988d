//! The largest proofs that anybody can make: every limit of a fraud proof holds for them.

mod big_state;
mod case;
#[path = "../proofs/memory.rs"]
mod memory;
mod witness;
mod work;
#[path = "../proofs/world.rs"]
#[expect(dead_code, reason = "made for the tests of proofs")]
mod world;
