//! The mempool's journal: what was acknowledged comes back after the death of the process.
//!
//! Writing one row takes as long as several other steps of an admission together, and longer while a block is
//! being written. So what is to be written is queued, and whoever writes takes all that has come meanwhile.

use alloy_primitives::{B256, Bytes};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long async code waits for another to end its write.
const PATIENCE: Duration = Duration::from_micros(100);

/// Where admitted transactions survive the death of the process.
pub trait Journal: Send + Sync {
    /// Carries out changes in their order, all or none.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&self, changes: &[JournalChange]) -> anyhow::Result<()>;

    /// Whether a write takes microseconds, as it does unless it has to wait for another.
    fn is_idle(&self) -> bool {
        false
    }

    /// Everything that is kept. Forgets rows that were never [put](JournalChange::Put).
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn load(&self) -> anyhow::Result<Journaled>;
}

/// A change of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalChange {
    /// Keeps a transaction: its hash and EIP-2718 encoding.
    Put(B256, Bytes),
    /// Forgets a transaction, which need not be there.
    Delete(B256),
}

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journaled {
    /// Encoded transactions.
    pub transactions: Vec<Bytes>,
    /// Rows that hold something else than their key says.
    pub damaged: usize,
}

/// Tells whether a change has been written.
pub(super) type Written = oneshot::Receiver<Result<(), Arc<anyhow::Error>>>;

/// Changes that wait to be written.
#[derive(Default)]
struct Waiting {
    changes: Vec<JournalChange>,
    /// Who is to be told of them.
    tell: Vec<oneshot::Sender<Result<(), Arc<anyhow::Error>>>>,
}

/// The changes of a journal in the order in which they came.
pub(super) struct JournalQueue {
    journal: Option<Arc<dyn Journal>>,
    waiting: Mutex<Waiting>,
    /// Held by whoever writes.
    writing: Mutex<()>,
    /// Whether somebody is about to write.
    called: AtomicBool,
}

impl JournalQueue {
    /// A queue of this journal; without one everything counts as written.
    pub(super) fn new(journal: Option<Arc<dyn Journal>>) -> Self {
        let (waiting, writing) = (Mutex::default(), Mutex::default());
        Self { journal, waiting, writing, called: AtomicBool::new(false) }
    }

    /// See [`Journal::load`].
    pub(super) fn load(&self) -> anyhow::Result<Journaled> {
        self.journal.as_ref().map_or_else(|| Ok(Journaled::default()), |journal| journal.load())
    }

    /// Queues a transaction. What is given says when it has been written.
    pub(super) fn put(&self, hash: B256, encoded: Bytes) -> Written {
        let (tell, written) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.changes.push(JournalChange::Put(hash, encoded));
        waiting.tell.push(tell);
        written
    }

    /// Queues that transactions are to be forgotten.
    pub(super) fn delete(&self, hashes: &[B256]) {
        self.waiting.lock().changes.extend(hashes.iter().copied().map(JournalChange::Delete));
    }

    /// Writes all that waits.
    pub(super) fn flush(&self) {
        self.write(self.writing.lock());
    }

    /// The same for async code: here if that takes microseconds, else a thread for blocking work does it.
    pub(super) fn flush_soon(self: &Arc<Self>) {
        if self.journal.as_ref().is_none_or(|journal| journal.is_idle())
            && let Some(writing) = self.writing.try_lock_for(PATIENCE)
        {
            self.write(writing);
        } else {
            self.flush_apart();
        }
    }

    fn write(&self, _writing: MutexGuard<'_, ()>) {
        let Waiting { changes, tell } = std::mem::take(&mut *self.waiting.lock());
        if changes.is_empty() {
            return;
        }
        let write = |journal: &Arc<dyn Journal>| journal.write(&changes).map_err(Arc::new);
        let done = self.journal.as_ref().map_or(Ok(()), write);
        if let Err(error) = &done {
            // What stays although it is to be forgotten is refused when the journal is read again.
            tracing::warn!(%error, "the mempool's journal could not be written");
        }
        for tell in tell {
            // Who does not wait any more does not count on it.
            let _ = tell.send(done.clone());
        }
    }

    /// Has a thread for blocking work write all that waits, unless one is about to. Must be called in a runtime.
    fn flush_apart(self: &Arc<Self>) {
        if self.called.swap(true, Ordering::SeqCst) {
            return;
        }
        let queue = self.clone();
        tokio::task::spawn_blocking(move || {
            // What comes from here on calls again.
            queue.called.store(false, Ordering::SeqCst);
            queue.flush();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::mpsc;

    /// Hands every batch out and does with it what it is told.
    struct Told {
        batches: mpsc::Sender<Vec<JournalChange>>,
        fails: Mutex<mpsc::Receiver<bool>>,
    }

    impl Journal for Told {
        fn write(&self, changes: &[JournalChange]) -> anyhow::Result<()> {
            self.batches.send(changes.to_vec())?;
            if self.fails.lock().recv()? {
                bail!("disk full");
            }
            Ok(())
        }

        fn load(&self) -> anyhow::Result<Journaled> {
            Ok(Journaled::default())
        }
    }

    fn queue() -> (Arc<JournalQueue>, mpsc::Receiver<Vec<JournalChange>>, mpsc::Sender<bool>) {
        let (batches, taken) = mpsc::channel();
        let (tell, fails) = mpsc::channel();
        let journal = Told { batches, fails: Mutex::new(fails) };
        (Arc::new(JournalQueue::new(Some(Arc::new(journal)))), taken, tell)
    }

    fn put(number: u8) -> (B256, Bytes) {
        (B256::repeat_byte(number), Bytes::from(vec![number]))
    }

    #[tokio::test]
    async fn what_comes_while_a_batch_is_written_goes_into_the_next_in_order() {
        let (queue, batches, tell) = queue();
        let [a, b, c] = [1, 2, 3].map(put);
        let first = queue.put(a.0, a.1.clone());
        queue.flush_soon();
        assert_eq!(batches.recv().unwrap(), [JournalChange::Put(a.0, a.1)]);
        let second = queue.put(b.0, b.1.clone());
        queue.flush_soon();
        queue.delete(&[b.0]);
        let third = queue.put(c.0, c.1.clone());
        queue.flush_soon();
        tell.send(false).unwrap();
        tell.send(false).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        third.await.unwrap().unwrap();
        let changes = [
            JournalChange::Put(b.0, b.1),
            JournalChange::Delete(b.0),
            JournalChange::Put(c.0, c.1),
        ];
        assert_eq!(batches.recv().unwrap(), changes);
    }

    #[test]
    fn who_waits_is_told_of_a_failure_and_the_next_batch_is_written() {
        let (queue, _batches, tell) = queue();
        let [a, b] = [1, 2].map(put);
        let mut failed = queue.put(a.0, a.1);
        tell.send(true).unwrap();
        queue.flush();
        let error = failed.try_recv().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "disk full");
        let mut written = queue.put(b.0, b.1);
        tell.send(false).unwrap();
        queue.flush();
        written.try_recv().unwrap().unwrap();
        queue.flush();
    }
}
