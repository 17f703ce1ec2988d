//! Work on all cores.

use kedge_vm::Threads;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::LazyLock;

/// Threads of their own: those of the process's pool recover senders of blocks that are not due yet, and what is
/// asked of them meanwhile waits for that.
static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new().thread_name(|number| format!("tries-{number}")).build();
    pool.inspect_err(|error| tracing::warn!(%error, "hashing on one core")).ok()
});

/// All cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cores;

impl Threads for Cores {
    fn join<A: Send, B: Send>(
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match &*POOL {
            Some(pool) => pool.join(a, b),
            None => (a(), b()),
        }
    }
}
