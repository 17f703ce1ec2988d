//! Work on all cores.

use kedge_vm::Threads;

/// The threads of the process's pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cores;

impl Threads for Cores {
    fn join<A: Send, B: Send>(
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        rayon::join(a, b)
    }
}
