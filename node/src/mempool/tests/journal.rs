//! What comes back from the journal and from blocks that were taken back.

use super::*;

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
        let (hash, row) = (alloy_primitives::keccak256(garbage), Bytes::copy_from_slice(garbage));
        journal.write(&[JournalChange::Put(hash, row)]).expect("fake");
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

/// A journal that cannot be written.
struct FullDisk;

impl Journal for FullDisk {
    fn write(&self, _: &[JournalChange]) -> anyhow::Result<()> {
        anyhow::bail!("disk full")
    }

    fn load(&self) -> anyhow::Result<Journaled> {
        Ok(Journaled::default())
    }
}

#[tokio::test]
async fn what_the_journal_does_not_take_is_not_admitted() {
    let (_, state, _) = pool();
    let mempool = Arc::new(Mempool::new(config(), state, Some(Arc::new(FullDisk))));
    let tx = sign(0, transfer(0, GWEI));
    for error in [mempool.add(tx.clone()), mempool.submit(tx.clone()).await] {
        let Err(PoolError::State(error)) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("disk full"), "{error}");
        assert!(mempool.get(&alloy_primitives::keccak256(&tx)).is_none());
    }
}

#[tokio::test]
async fn what_is_submitted_is_in_the_journal_once_it_is_acknowledged() {
    let (mempool, _, journal) = pool();
    let mempool = Arc::new(mempool);
    let hash = mempool.submit(sign(0, transfer(0, GWEI))).await.expect("ok");
    assert!(journal.0.lock().contains_key(&hash));
    let error = mempool.submit(sign(0, transfer(0, GWEI))).await.expect_err("twice");
    assert!(matches!(error, PoolError::AlreadyKnown), "{error}");
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
