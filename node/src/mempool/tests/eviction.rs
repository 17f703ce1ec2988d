//! What a full pool gives up, and what waits too long.

use super::*;

#[test]
fn limits_refuse_or_evict_the_worst() {
    let small = PoolLimits { max_transactions: 3, max_per_sender: 2, ..Default::default() };
    let (mempool, _, journal) = pool_with(limited(small), RICH);
    mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("ok");
    let worst = mempool.add(sign(0, transfer(1, GWEI))).expect("ok");
    let error = mempool.add(sign(0, transfer(2, GWEI))).expect_err("two at most");
    assert_eq!(error.to_string(), "account limit exceeded: pooled 2 txs");
    mempool.add(sign(1, transfer(0, 2 * GWEI))).expect("ok");
    let error = mempool.add(sign(2, transfer(0, GWEI))).expect_err("no better than the worst");
    assert_eq!(error.to_string(), "transaction underpriced: the mempool is full");
    mempool.add(sign(2, transfer(0, 3 * GWEI))).expect("evicts");
    assert!(mempool.get(&worst).is_none());
    assert_eq!(journal.0.lock().len(), 3);
    mempool.pool.lock().check_invariants();
}

/// Fills a pool of three with one transaction each of accounts 1, 2 and 3.
fn full(fees: [u128; 3]) -> (Mempool, Arc<FakeState>, [B256; 3]) {
    let limits = PoolLimits { max_transactions: 3, ..Default::default() };
    let (mempool, state, _) = pool_with(limited(limits), RICH);
    let mut place = 0;
    let hashes = fees.map(|fee| {
        place += 1;
        mempool.add(sign(place, transfer(0, fee))).expect("there is room")
    });
    (mempool, state, hashes)
}

#[test]
fn what_waits_for_a_nonce_never_displaces_what_a_block_can_take() {
    let (mempool, _, hashes) = full([GWEI; 3]);
    let error = mempool.add(sign(0, transfer(1, 100 * GWEI))).expect_err("nonce 0 is missing");
    assert_eq!(error.to_string(), "future transaction tries to replace pending");
    assert!(hashes.iter().all(|hash| mempool.get(hash).is_some()));
    mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("this one can be executed");
}

#[test]
fn what_can_be_executed_displaces_what_waits_for_a_nonce_whatever_that_pays() {
    let limits = PoolLimits { max_transactions: 2, ..Default::default() };
    let (mempool, _, _) = pool_with(limited(limits), RICH);
    let queued = mempool.add(sign(1, transfer(1, 100 * GWEI))).expect("ok");
    mempool.add(sign(2, transfer(0, GWEI))).expect("ok");
    mempool.add(sign(0, transfer(0, GWEI))).expect("displaces");
    assert!(mempool.get(&queued).is_none());
}

#[test]
fn a_full_pool_gives_up_what_pays_least_above_the_base_fee() {
    let (mempool, _, [first, second, third]) = full([5 * GWEI, 5 * GWEI, 5 * GWEI]);
    // The most that one promises does not count, only what the block's maker gets of it.
    let modest = TxEip1559 { max_priority_fee_per_gas: GWEI, ..transfer(0, 100 * GWEI) };
    mempool.add(sign(0, modest)).expect_err("less tip than all others");
    let generous = transfer(0, 6 * GWEI);
    mempool.add(sign(0, generous)).expect("more");
    let left = [first, second, third].map(|hash| mempool.get(&hash).is_some());
    assert_eq!(left, [true, true, false], "the youngest of equals goes");
}

#[test]
fn the_base_fee_decides_who_gives_way() {
    let (mempool, state, [low, _, _]) = full([2 * GWEI, 20 * GWEI, 20 * GWEI]);
    let capped = TxEip1559 { max_priority_fee_per_gas: GWEI, ..transfer(0, 15 * GWEI) };
    mempool
        .add(sign(0, capped.clone()))
        .expect_err("a smaller tip, at a base fee of nearly nothing");
    state.base_fee.store(10 * GWEI as u64, Ordering::Relaxed);
    mempool.on_block([]);
    mempool.pool.lock().check_invariants();
    mempool.add(sign(0, capped)).expect("the lowest no longer pays the base fee");
    assert!(mempool.get(&low).is_none());
}

#[test]
fn a_dear_transaction_behind_cheap_ones_does_not_protect_them() {
    let limits = PoolLimits { max_transactions: 3, ..Default::default() };
    let (mempool, _, _) = pool_with(limited(limits), RICH);
    mempool.add(sign(1, transfer(0, GWEI))).expect("ok");
    mempool.add(sign(1, transfer(1, GWEI))).expect("ok");
    let bait = mempool.add(sign(1, transfer(2, 1_000 * GWEI))).expect("ok");
    mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("more than the cheapest before the last");
    assert!(mempool.get(&bait).is_none());
    assert_eq!(nonces(&mempool, 1), [0, 1], "what is left has no gap");
}

#[test]
fn a_pool_full_of_bytes_makes_room_for_many_bytes() {
    let small = sign(1, transfer(0, GWEI)).len();
    let limits = PoolLimits { max_bytes: 3 * small + 100, ..Default::default() };
    let (mempool, _, _) = pool_with(limited(limits), RICH);
    for index in 1..4 {
        mempool.add(sign(index, transfer(0, GWEI))).expect("ok");
    }
    let wide =
        TxEip1559 { gas_limit: 50_000, input: vec![1; small].into(), ..transfer(0, 2 * GWEI) };
    mempool.add(sign(0, wide)).expect("two give way");
    assert_eq!(mempool.status(0).pending, 2);
    mempool.pool.lock().check_invariants();
    let wider =
        TxEip1559 { gas_limit: 500_000, input: vec![1; 4 * small].into(), ..transfer(0, 9 * GWEI) };
    let error = mempool.add(sign(2, wider)).expect_err("more than the pool holds");
    assert_eq!(error.to_string(), "txpool is full");
}

#[test]
fn what_waits_for_a_nonce_is_limited_by_itself() {
    let limits = PoolLimits { max_queued: 3, max_queued_per_sender: 2, ..Default::default() };
    let (mempool, _, _) = pool_with(limited(limits), RICH);
    for nonce in [2, 3] {
        mempool.add(sign(1, transfer(nonce, 2 * GWEI))).expect("ok");
    }
    let error = mempool.add(sign(1, transfer(4, 9 * GWEI))).expect_err("two of one account");
    assert_eq!(error.to_string(), "account limit exceeded: pooled 2 txs");
    let cheap = mempool.add(sign(2, transfer(1, GWEI))).expect("ok");
    mempool.add(sign(3, transfer(1, GWEI))).expect_err("three in all, and it pays no more");
    mempool.add(sign(3, transfer(1, 3 * GWEI))).expect("displaces the cheapest");
    assert!(mempool.get(&cheap).is_none());
    mempool.add(sign(1, transfer(0, GWEI))).expect("what can be executed is not concerned");
    mempool.add(sign(1, transfer(1, GWEI))).expect("closes the gap");
    assert_eq!(nonces(&mempool, 1), [0, 1, 2, 3]);
    mempool.pool.lock().check_invariants();
}

#[test]
fn what_waits_too_long_for_a_nonce_expires_and_nothing_else() {
    let (mempool, _, journal) = pool();
    mempool.add(sign(0, transfer(0, GWEI))).expect("pending");
    mempool.add(sign(0, transfer(2, GWEI))).expect("queued");
    let lifetime = PoolLimits::default().queued_lifetime;
    let last = Instant::now();
    assert_eq!(mempool.expire(last + lifetime - Duration::from_secs(60)), 0);
    assert_eq!(mempool.expire(last + lifetime + Duration::from_secs(60)), 1);
    assert_eq!(nonces(&mempool, 0), [0]);
    assert_eq!(mempool.status(0).queued, 0);
    assert_eq!(journal.0.lock().len(), 1);
    mempool.pool.lock().check_invariants();
}

#[test]
fn what_begins_to_wait_has_its_whole_lifetime_however_long_its_sender_is_there() {
    let (mempool, _, _) = pool();
    mempool.add(sign(0, transfer(0, GWEI))).expect("pending");
    let before = Instant::now();
    mempool.add(sign(0, transfer(2, GWEI))).expect("queued");
    assert_eq!(mempool.expire(before + PoolLimits::default().queued_lifetime), 0);
}
