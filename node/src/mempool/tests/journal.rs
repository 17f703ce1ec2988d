//! What comes back from the journal and from blocks that were taken back.

use super::*;
use std::sync::{OnceLock, Weak};

#[test]
fn a_new_process_finds_the_admitted_transactions() {
    let (mempool, state, journal) = pool();
    mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    mempool.add(sign(0, transfer(1, GWEI))).expect("ok");
    state.set(signer(0).address(), 1, RICH);
    let next = Mempool::new(config(), state, Some(journal.clone()));
    assert_eq!(next.restore().expect("readable"), 1);
    assert_eq!(nonces(&next, 0), [1]);
    assert_eq!(journal.0.lock().len(), 1, "the included one is forgotten");
}

#[test]
fn what_was_admitted_once_comes_back_whatever_holds_for_new_ones() {
    let (mempool, state, journal) = pool();
    for nonce in 0..3 {
        mempool.add(sign(0, transfer(nonce, GWEI))).expect("ok");
    }
    let address = signer(0).address();
    state.set(address, 0, 2 * 21_001 * GWEI);
    state.accounts.lock().get_mut(&address).expect("set").is_delegated = true;
    let limits = PoolLimits { max_per_sender: 1, max_queued_per_sender: 0, ..Default::default() };
    let next = Mempool::new(limited(limits), state, Some(journal.clone()));
    assert_eq!(next.restore().expect("readable"), 3);
    assert_eq!(next.status(0), PoolStatus { pending: 2, base_fee: 0, queued: 1 });
    assert_eq!(journal.0.lock().len(), 3);
    next.pool.lock().check_invariants();
}

#[test]
fn rows_of_the_journal_that_are_no_transactions_are_removed_and_the_rest_comes_back() {
    let (mempool, state, journal) = pool();
    let hash = mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    for garbage in [&[0xff, 0x00][..], &[], &[0x02, 0xc0], &sign(0, blob())] {
        journal.put(alloy_primitives::keccak256(garbage), garbage).expect("fake");
    }
    let next = Mempool::new(config(), state, Some(journal.clone()));
    assert_eq!(next.restore().expect("readable"), 1);
    assert_eq!(journal.0.lock().keys().copied().collect::<Vec<_>>(), [hash]);
}

#[test]
fn a_state_that_cannot_be_read_leaves_the_journal_as_it_is() {
    let (mempool, state, journal) = pool();
    mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    state.broken.store(true, Ordering::Relaxed);
    let next = Mempool::new(config(), state, Some(journal.clone()));
    next.restore().expect_err("nothing can be said about it");
    assert_eq!(journal.0.lock().len(), 1);
}

#[test]
fn a_cleared_pool_is_empty_and_so_is_its_journal() {
    let (mempool, _, journal) = pool();
    for index in 0..3 {
        mempool.add(sign(index, transfer(0, GWEI))).expect("ok");
    }
    assert_eq!(mempool.clear(), 3);
    assert_eq!((mempool.status(0), mempool.bytes()), (PoolStatus::default(), 0));
    assert!(journal.0.lock().is_empty());
    mempool.add(sign(0, transfer(0, GWEI))).expect("and it goes on");
    mempool.pool.lock().check_invariants();
}

/// A journal that knows whether its pool was locked whenever it deleted something.
#[derive(Default)]
struct Witness {
    rows: FakeJournal,
    mempool: OnceLock<Weak<Mempool>>,
    locked: Mutex<Vec<bool>>,
}

impl Journal for Witness {
    fn put(&self, hash: B256, encoded: &[u8]) -> anyhow::Result<()> {
        self.rows.put(hash, encoded)
    }

    fn delete(&self, hashes: &[B256]) -> anyhow::Result<()> {
        let mempool = self.mempool.get().and_then(Weak::upgrade).expect("it is there");
        self.locked.lock().push(mempool.pool.is_locked());
        self.rows.delete(hashes)
    }

    fn load(&self) -> anyhow::Result<Journaled> {
        self.rows.load()
    }
}

#[test]
fn nothing_can_be_admitted_between_a_refusal_and_its_row_s_deletion() {
    let (_, state, _) = pool();
    let journal = Arc::new(Witness::default());
    let mempool = Arc::new(Mempool::new(config(), state.clone(), Some(journal.clone())));
    journal.mempool.set(Arc::downgrade(&mempool)).expect("once");
    state.set(signer(0).address(), 1, RICH);
    assert_eq!(mempool.reinsert([sign(0, transfer(0, GWEI))]), 0);
    assert_eq!(*journal.locked.lock(), [true]);
}
