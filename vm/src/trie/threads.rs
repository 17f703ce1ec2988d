//! Threads, which only a caller can have.

/// Does things that do not depend on each other.
pub trait Threads {
    /// Does both, at once if it can.
    fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send)
    -> (A, B);
}

/// One thing after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneThread;

impl Threads for OneThread {
    fn join<A: Send, B: Send>(
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        (a(), b())
    }
}
