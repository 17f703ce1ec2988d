use super::*;
use alloy_consensus::{
    SignableTransaction, Transaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxEnvelope,
    TxLegacy,
};
use alloy_eips::{
    Encodable2718,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_network::TxSignerSync;
use alloy_primitives::{Signature, TxKind};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use kedge_genesis::Network;
use kedge_vm::EvmConfig;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

const GWEI: u128 = 1_000_000_000;
const RICH: u128 = 10_u128.pow(18);

struct FakeState {
    accounts: Mutex<HashMap<Address, SenderState>>,
    l1_base_fee: u64,
    base_fee: AtomicU64,
    broken: AtomicBool,
}

impl Default for FakeState {
    fn default() -> Self {
        Self {
            accounts: Mutex::default(),
            l1_base_fee: 0,
            base_fee: AtomicU64::new(1_000_000),
            broken: AtomicBool::new(false),
        }
    }
}

impl FakeState {
    fn set(&self, address: Address, nonce: u64, balance: u128) {
        let state = SenderState { nonce, balance: U256::from(balance), ..Default::default() };
        self.accounts.lock().insert(address, state);
    }
}

impl StateView for FakeState {
    fn account(&self, address: Address) -> anyhow::Result<SenderState> {
        anyhow::ensure!(!self.broken.load(Ordering::Relaxed), "the disk is broken");
        Ok(self.accounts.lock().get(&address).copied().unwrap_or_default())
    }

    fn fees(&self) -> anyhow::Result<Arc<HeadFees>> {
        let l1 = L1BlockInfo {
            l1_base_fee: U256::from(self.l1_base_fee),
            l1_base_fee_scalar: U256::from(15_625),
            l1_blob_base_fee: Some(U256::ONE),
            l1_blob_base_fee_scalar: Some(U256::ZERO),
            operator_fee_scalar: Some(U256::ZERO),
            operator_fee_constant: Some(U256::ZERO),
            ..Default::default()
        };
        Ok(Arc::new(HeadFees { base_fee: self.base_fee.load(Ordering::Relaxed), l1 }))
    }
}

#[derive(Default)]
struct FakeJournal(Mutex<BTreeMap<B256, Bytes>>);

impl Journal for FakeJournal {
    fn put(&self, hash: B256, encoded: &[u8]) -> anyhow::Result<()> {
        self.0.lock().insert(hash, Bytes::copy_from_slice(encoded));
        Ok(())
    }

    fn delete(&self, hashes: &[B256]) -> anyhow::Result<()> {
        let mut kept = self.0.lock();
        for hash in hashes {
            kept.remove(hash);
        }
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Journaled> {
        Ok(Journaled { transactions: self.0.lock().values().cloned().collect(), damaged: 0 })
    }
}

/// The network's rules with other limits.
fn limited(limits: PoolLimits) -> MempoolConfig {
    MempoolConfig { limits, ..config() }
}

fn config() -> MempoolConfig {
    MempoolConfig::new(&EvmConfig::from_params(Network::Dev.params()))
}

fn signer(index: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::with_last_byte(index + 1)).expect("a small scalar is a key")
}

fn transfer(nonce: u64, fee: u128) -> TxEip1559 {
    TxEip1559 {
        chain_id: config().chain_id,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: fee,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::from(1),
        ..Default::default()
    }
}

/// A transaction of account 0 with these authorisations.
fn delegation(authorization_list: Vec<SignedAuthorization>) -> TxEip7702 {
    TxEip7702 {
        chain_id: config().chain_id,
        gas_limit: 500_000,
        max_fee_per_gas: GWEI,
        max_priority_fee_per_gas: GWEI,
        to: Address::repeat_byte(9),
        authorization_list,
        ..Default::default()
    }
}

fn authorization(index: u8, nonce: u64, chain_id: u64) -> SignedAuthorization {
    let authorization = Authorization {
        chain_id: U256::from(chain_id),
        address: Address::repeat_byte(0xc0),
        nonce,
    };
    let hash = authorization.signature_hash();
    authorization.into_signed(signer(index).sign_hash_sync(&hash).expect("signs"))
}

fn blob() -> TxEip4844 {
    TxEip4844 {
        chain_id: config().chain_id,
        gas_limit: 21_000,
        max_fee_per_gas: GWEI,
        max_priority_fee_per_gas: GWEI,
        max_fee_per_blob_gas: 1,
        blob_versioned_hashes: vec![B256::with_last_byte(1)],
        ..Default::default()
    }
}

fn sign<T: SignableTransaction<Signature>>(index: u8, mut tx: T) -> Bytes
where
    TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    let signature = signer(index).sign_transaction_sync(&mut tx).expect("signs");
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

fn pool_with(config: MempoolConfig, balance: u128) -> (Mempool, Arc<FakeState>, Arc<FakeJournal>) {
    let state = Arc::new(FakeState::default());
    for index in 0..4 {
        state.set(signer(index).address(), 0, balance);
    }
    let journal = Arc::new(FakeJournal::default());
    (Mempool::new(config, state.clone(), Some(journal.clone())), state, journal)
}

fn pool() -> (Mempool, Arc<FakeState>, Arc<FakeJournal>) {
    pool_with(config(), RICH)
}

fn nonces(mempool: &Mempool, index: u8) -> Vec<u64> {
    let sender = signer(index).address();
    mempool.best(1_000_000).filter(|tx| tx.sender == sender).map(|tx| tx.nonce()).collect()
}

#[test]
fn every_rule_refuses_with_the_message_that_wallets_match_on() {
    let (mempool, state, _) = pool();
    state.set(signer(1).address(), 5, 1_000);
    let cheap = || transfer(0, GWEI);
    let cases: Vec<(Bytes, &str)> = vec![
        (Bytes::new(), "rlp: "),
        (Bytes::from_static(&[0x02, 0xc0]), "rlp: "),
        (Bytes::from_static(&[0x03, 0xc0]), "transaction type not supported"),
        (sign(0, blob()), "transaction type not supported"),
        (Bytes::from_static(&[0x7e, 0xc0]), "transaction type not supported"),
        (Bytes::from_static(&[0x05]), "transaction type not supported"),
        (vec![0xc0; 200_000].into(), "oversized data: transaction size 200000, limit 131072"),
        (
            sign(0, TxEip1559 { chain_id: 1, ..cheap() }),
            "invalid sender: invalid chain id for signer: have 1 want 21336",
        ),
        (
            sign(0, TxLegacy { gas_limit: 21_000, gas_price: GWEI, ..Default::default() }),
            "only replay-protected (EIP-155) transactions allowed over RPC",
        ),
        (
            sign(0, TxEip1559 { gas_limit: 20_999, ..cheap() }),
            "intrinsic gas too low: gas 20999, minimum needed 21000",
        ),
        (
            sign(0, TxEip1559 { gas_limit: 30_000, input: vec![1; 500].into(), ..cheap() }),
            "insufficient gas for floor data gas cost: gas 30000, minimum needed 41000",
        ),
        (sign(0, TxEip1559 { gas_limit: 16_777_216, ..cheap() }), "exceeds block gas limit"),
        (
            sign(0, TxEip1559 { max_priority_fee_per_gas: 2 * GWEI, ..cheap() }),
            "max priority fee per gas higher than max fee per gas",
        ),
        (sign(0, transfer(0, 999_999)), "transaction underpriced"),
        (sign(0, TxEip1559 { nonce: u64::MAX, ..cheap() }), "nonce has max value"),
        (
            sign(
                0,
                TxEip1559 {
                    to: TxKind::Create,
                    gas_limit: 10_000_000,
                    input: vec![0; 49_153].into(),
                    ..cheap()
                },
            ),
            "max initcode size exceeded: code size 49153, limit 49152",
        ),
        (
            sign(0, TxEip7702 { authorization_list: vec![], ..delegation(vec![]) }),
            "set code tx must have at least one authorization tuple",
        ),
        (sign(1, transfer(4, GWEI)), "nonce too low: next nonce 5, tx nonce 4"),
        (
            sign(1, transfer(5, GWEI)),
            "insufficient funds for gas * price + value: balance 1000, tx cost 21000000000001, \
             overshot 20999999999001",
        ),
    ];
    for (encoded, message) in cases {
        let error = mempool.add(encoded).expect_err(message);
        assert!(error.to_string().starts_with(message), "{error} is not {message}");
    }
    assert_eq!(mempool.status(1_000_000), PoolStatus::default());
}

#[test]
fn contracts_cannot_send() {
    let (mempool, state, _) = pool();
    let address = signer(0).address();
    state.accounts.lock().get_mut(&address).expect("set").is_contract = true;
    let error = mempool.add(sign(0, transfer(0, GWEI))).expect_err("EIP-3607");
    assert!(matches!(error, PoolError::SenderIsContract(found) if found == address));
}

#[test]
fn the_fee_for_bitcoin_space_counts_against_the_balance() {
    let state = Arc::new(FakeState { l1_base_fee: 2_000_000_000, ..Default::default() });
    let gas = 21_000 * GWEI + 1;
    state.set(signer(0).address(), 0, gas);
    let mempool = Mempool::new(config(), state.clone(), None);
    let encoded = sign(0, transfer(0, GWEI));
    assert!(matches!(mempool.add(encoded.clone()), Err(PoolError::InsufficientFunds { .. })));
    let fees = state.fees().expect("fake");
    let data_fee = fees.data_fee(&encoded, 21_000, config().spec);
    assert!(data_fee > U256::ZERO);
    state.set(signer(0).address(), 0, gas + data_fee.to::<u128>());
    mempool.add(encoded).expect("now it is covered");
}

#[test]
fn transactions_run_in_nonce_order_and_gaps_wait() {
    let (mempool, _, _) = pool();
    let mut changes = mempool.changes();
    changes.mark_unchanged();
    mempool.add(sign(0, transfer(2, 9 * GWEI))).expect("queued");
    assert!(!changes.has_changed().expect("open"), "a queued transaction wakes nobody");
    assert_eq!(mempool.next_nonce(&signer(0).address()), Some(0));
    mempool.add(sign(0, transfer(0, GWEI))).expect("pending");
    assert!(changes.has_changed().expect("open"));
    assert_eq!(nonces(&mempool, 0), [0]);
    assert_eq!(
        mempool.status(1_000_000),
        PoolStatus { pending: 1, base_fee: 0, queued: 1 },
        "one waits for nonce 1"
    );
    mempool.add(sign(0, transfer(1, GWEI))).expect("closes the gap");
    assert_eq!(nonces(&mempool, 0), [0, 1, 2]);
    assert_eq!(mempool.next_nonce(&signer(0).address()), Some(3));
}

#[test]
fn the_best_payer_comes_first_then_the_earliest() {
    let (mempool, _, _) = pool();
    mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("ok");
    mempool.add(sign(1, transfer(0, 3 * GWEI))).expect("ok");
    mempool.add(sign(2, transfer(0, 2 * GWEI))).expect("ok");
    mempool.add(sign(0, transfer(1, 9 * GWEI))).expect("ok");
    let order: Vec<_> = mempool.best(1_000_000).map(|tx| (tx.sender, tx.nonce())).collect();
    let [a, b, c] = [0, 1, 2].map(|index| signer(index).address());
    assert_eq!(order, [(b, 0), (a, 0), (a, 1), (c, 0)]);
    let mut best = mempool.best(1_000_000);
    best.next();
    best.skip_sender(a);
    assert_eq!(best.map(|tx| tx.sender).collect::<Vec<_>>(), [c]);
}

#[test]
fn what_pays_less_than_the_base_fee_waits_for_it() {
    let (mempool, _, _) = pool();
    mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    let high = 2 * GWEI as u64;
    assert_eq!(mempool.best(high).count(), 0);
    assert!(mempool.waits_for_base_fee(high));
    assert!(!mempool.waits_for_base_fee(1_000_000));
    assert_eq!(mempool.status(high), PoolStatus { pending: 0, base_fee: 1, queued: 0 });
}

#[test]
fn a_replacement_pays_ten_percent_more() {
    let (mempool, _, journal) = pool();
    let first = mempool.add(sign(0, transfer(0, 100 * GWEI))).expect("ok");
    assert!(matches!(mempool.add(sign(0, transfer(0, 100 * GWEI))), Err(PoolError::AlreadyKnown)));
    assert!(matches!(
        mempool.add(sign(0, transfer(0, 110 * GWEI - 1))),
        Err(PoolError::ReplacementUnderpriced)
    ));
    let only_cap = TxEip1559 { max_priority_fee_per_gas: 100 * GWEI, ..transfer(0, 200 * GWEI) };
    assert!(matches!(mempool.add(sign(0, only_cap)), Err(PoolError::ReplacementUnderpriced)));
    let second = mempool.add(sign(0, transfer(0, 110 * GWEI))).expect("ten percent");
    assert!(mempool.get(&first).is_none());
    assert_eq!(mempool.best(0).map(|tx| tx.hash).collect::<Vec<_>>(), [second]);
    assert_eq!(journal.0.lock().keys().copied().collect::<Vec<_>>(), [second]);
}

#[test]
fn the_balance_covers_all_waiting_transactions_together() {
    let (mempool, _, _) = pool_with(config(), 50_000 * GWEI);
    mempool.add(sign(0, transfer(0, GWEI))).expect("first");
    mempool.add(sign(0, transfer(1, GWEI))).expect("second");
    assert!(matches!(
        mempool.add(sign(0, transfer(2, GWEI))),
        Err(PoolError::InsufficientFundsForAll { .. })
    ));
}

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

#[test]
fn a_block_removes_what_it_included_and_what_became_unaffordable() {
    let (mempool, state, journal) = pool();
    for nonce in 0..3 {
        mempool.add(sign(0, transfer(nonce, GWEI))).expect("ok");
    }
    let address = signer(0).address();
    state.set(address, 1, RICH);
    mempool.on_block([address, Address::ZERO]);
    assert_eq!(nonces(&mempool, 0), [1, 2]);
    state.set(address, 2, 5);
    mempool.on_block([address]);
    assert_eq!(mempool.status(0), PoolStatus::default());
    assert!(journal.0.lock().is_empty());
}

#[test]
fn unwound_transactions_come_back_in_order() {
    let (mempool, state, _) = pool();
    let address = signer(0).address();
    let unwound: Vec<Bytes> = (0..3).rev().map(|nonce| sign(0, transfer(nonce, GWEI))).collect();
    state.set(address, 3, RICH);
    mempool.add(sign(0, transfer(3, GWEI))).expect("ok");
    state.set(address, 0, RICH);
    assert_eq!(mempool.on_reorg(unwound), 3);
    assert_eq!(nonces(&mempool, 0), [0, 1, 2, 3]);
}

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
fn a_skipped_transaction_makes_its_successors_wait() {
    let (mempool, _, _) = pool();
    let first = mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    mempool.add(sign(0, transfer(1, GWEI))).expect("ok");
    mempool.discard(&first);
    assert_eq!(mempool.status(0), PoolStatus { pending: 0, base_fee: 0, queued: 1 });
}

#[test]
fn a_closed_pool_says_why_and_still_takes_unwound_transactions() {
    let (mempool, _, _) = pool();
    mempool.set_closed(Some("too much unposted data".into()));
    let encoded = sign(
        0,
        TxEip2930 {
            chain_id: config().chain_id,
            gas_limit: 21_000,
            gas_price: GWEI,
            to: TxKind::Call(Address::ZERO),
            ..Default::default()
        },
    );
    let error = mempool.add(encoded.clone()).expect_err("closed");
    assert_eq!(error.to_string(), "transactions are not admitted now: too much unposted data");
    assert_eq!(mempool.reinsert([encoded]), 1);
}

#[test]
fn a_replacement_s_ten_percent_are_rounded_as_go_ethereum_rounds_them() {
    let (mempool, _, _) = pool();
    let with_tip =
        |tip, fee| sign(0, TxEip1559 { max_priority_fee_per_gas: tip, ..transfer(0, fee) });
    mempool.add(with_tip(15, GWEI)).expect("ok");
    mempool.add(with_tip(16, 2 * GWEI)).expect("fifteen and ten percent are sixteen, rounded down");
    let equal = mempool.add(with_tip(16, 3 * GWEI)).expect_err("no more than before");
    assert!(matches!(equal, PoolError::ReplacementUnderpriced));
    mempool.add(with_tip(0, GWEI)).expect_err("less");
}

#[test]
fn a_replacement_is_counted_instead_of_what_it_replaces() {
    let (mempool, _, _) = pool_with(config(), 3 * 21_001 * GWEI);
    mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("two thirds");
    let last = sign(0, transfer(1, GWEI));
    mempool.add(last.clone()).expect("the last third");
    let dear = mempool.add(sign(0, transfer(0, 3 * GWEI))).expect_err("with it, four thirds");
    assert!(
        dear.to_string().starts_with("insufficient funds for gas * price + value: balance"),
        "{dear}"
    );
    assert_eq!(nonces(&mempool, 0), [0, 1]);
}

#[test]
fn what_waits_for_a_nonce_does_not_take_funds_from_what_can_be_executed() {
    let (mempool, _, _) = pool_with(config(), 3 * 21_001 * GWEI);
    mempool.add(sign(0, transfer(5, 2 * GWEI))).expect("queued");
    mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("the funds are free until then");
    assert_eq!(mempool.status(1_000_000), PoolStatus { pending: 1, base_fee: 0, queued: 1 });
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

#[test]
fn subscribers_hear_of_a_transaction_once_it_can_be_executed() {
    let (mempool, state, _) = pool_with(config(), 3 * 21_001 * GWEI);
    let mut arrivals = mempool.subscribe();
    let mut heard = || {
        let mut hashes = Vec::new();
        while let Ok(tx) = arrivals.try_recv() {
            hashes.push(tx.hash);
        }
        hashes
    };
    let second = mempool.add(sign(0, transfer(1, GWEI))).expect("queued");
    assert!(heard().is_empty());
    let first = mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    assert_eq!(heard(), [first, second]);
    let replacement = mempool.add(sign(0, transfer(0, 2 * GWEI))).expect("ok");
    assert_eq!(heard(), [replacement]);
    // Poorer, then rich again.
    state.set(signer(0).address(), 0, 2 * 21_001 * GWEI);
    mempool.on_block([signer(0).address()]);
    assert_eq!(nonces(&mempool, 0), [0]);
    state.set(signer(0).address(), 0, RICH);
    mempool.on_block([signer(0).address()]);
    assert_eq!(heard(), [second]);
}

#[test]
fn a_delegated_account_has_one_transaction_at_a_time() {
    let (mempool, state, _) = pool();
    state.accounts.lock().get_mut(&signer(1).address()).expect("set").is_delegated = true;
    let gapped = mempool.add(sign(1, transfer(1, GWEI))).expect_err("not its next nonce");
    assert_eq!(gapped.to_string(), "gapped-nonce tx from delegated accounts");
    mempool.add(sign(1, transfer(0, GWEI))).expect("its next");
    let second = mempool.add(sign(1, transfer(1, GWEI))).expect_err("a second one");
    assert_eq!(second.to_string(), "in-flight transaction limit reached for delegated accounts");
    mempool.add(sign(1, transfer(0, 2 * GWEI))).expect("a replacement");
}

#[test]
fn an_account_whose_delegation_waits_has_one_transaction_at_a_time() {
    let (mempool, state, _) = pool();
    let chain = config().chain_id;
    let foreign = delegation(vec![authorization(1, 0, chain + 1)]);
    mempool.add(sign(0, foreign)).expect("ok");
    for nonce in [0, 1] {
        mempool
            .add(sign(1, transfer(nonce, GWEI)))
            .expect("an authorisation for another chain is nothing");
    }
    let auth = |nonce, list| sign(0, TxEip7702 { nonce, ..delegation(list) });
    let error = mempool.add(auth(1, vec![authorization(1, 0, 0)])).expect_err("two wait");
    assert_eq!(error.to_string(), "authority already reserved");
    let pending = mempool.add(auth(1, vec![authorization(2, 0, chain)])).expect("none waits");
    mempool.add(sign(2, transfer(1, GWEI))).expect_err("a gap");
    mempool.add(sign(2, transfer(0, GWEI))).expect("one");
    let second = mempool.add(sign(2, transfer(1, GWEI))).expect_err("two");
    assert!(matches!(second, PoolError::InFlightLimit));
    mempool.pool.lock().check_invariants();
    mempool.discard(&pending);
    mempool.add(sign(2, transfer(1, GWEI))).expect("nothing is delegated any more");
    // In a block, the authorisation used the authority's nonce.
    state.set(signer(2).address(), 1, RICH);
    mempool.on_block([signer(2).address()]);
    assert_eq!(nonces(&mempool, 2), [1]);
    mempool.pool.lock().check_invariants();
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

#[derive(Clone, Debug)]
enum Op {
    Add { sender: u8, nonce: u64, fee: u128 },
    Include { sender: u8, count: usize },
    Rewind { sender: u8 },
    Balance { sender: u8, transfers: u128 },
    Discard { sender: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3_u8, 0..6_u64, 10..20_u128).prop_map(|(sender, nonce, fee)| Op::Add { sender, nonce, fee }),
        2 => (0..3_u8, 0..3_usize).prop_map(|(sender, count)| Op::Include { sender, count }),
        1 => (0..3_u8).prop_map(|sender| Op::Rewind { sender }),
        1 => (0..3_u8, 0..6_u128).prop_map(|(sender, transfers)| Op::Balance { sender, transfers }),
        1 => (0..3_u8).prop_map(|sender| Op::Discard { sender }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens, a block gets each sender's transactions without gaps from the account's
    /// nonce, only what is affordable, and a nonce changes hands only for ten percent more.
    #[test]
    fn blocks_get_gapless_affordable_runs(ops in prop::collection::vec(op(), 1..40)) {
        let small = PoolLimits {
            max_transactions: 8,
            max_per_sender: 4,
            max_queued: 5,
            max_queued_per_sender: 3,
            ..Default::default()
        };
        let (mempool, state, journal) = pool_with(limited(small), RICH);
        for op in ops {
            match op {
                Op::Add { sender, nonce, fee } => {
                    let before = {
                        let pool = mempool.pool.lock();
                        pool.find(&signer(sender).address(), nonce)
                    };
                    let added = mempool.add(sign(sender, transfer(nonce, fee * GWEI)));
                    if let (Ok(hash), Some(old)) = (added, before) {
                        prop_assert_ne!(hash, old.hash);
                        prop_assert!(fee * GWEI * 100 >= old.tx.max_fee_per_gas() * 110);
                    }
                }
                Op::Include { sender, count } => {
                    let address = signer(sender).address();
                    let included = nonces(&mempool, sender).len().min(count) as u64;
                    let mut account = state.account(address).expect("fake");
                    account.nonce += included;
                    state.accounts.lock().insert(address, account);
                    mempool.on_block([address]);
                }
                Op::Rewind { sender } => {
                    let address = signer(sender).address();
                    let mut account = state.account(address).expect("fake");
                    account.nonce = account.nonce.saturating_sub(1);
                    state.accounts.lock().insert(address, account);
                    mempool.on_reorg([]);
                }
                Op::Balance { sender, transfers } => {
                    let address = signer(sender).address();
                    let mut account = state.account(address).expect("fake");
                    account.balance = U256::from(transfers * 20 * GWEI * 21_001);
                    state.accounts.lock().insert(address, account);
                    mempool.on_block([address]);
                }
                Op::Discard { sender } => {
                    if let Some(tx) = mempool.best(0).find(|tx| tx.sender == signer(sender).address()) {
                        mempool.discard(&tx.hash);
                    }
                }
            }
            mempool.pool.lock().check_invariants();
            let mut seen: BTreeMap<Address, (u64, U256)> = BTreeMap::new();
            for tx in mempool.best(1_000_000) {
                let account = state.account(tx.sender).expect("fake");
                let (next, spent) = seen.entry(tx.sender).or_insert((account.nonce, U256::ZERO));
                prop_assert_eq!(tx.nonce(), *next);
                *next += 1;
                *spent += tx.cost();
                prop_assert!(*spent <= account.balance);
            }
            let status = mempool.status(1_000_000);
            prop_assert_eq!(status.pending, mempool.best(1_000_000).count());
            prop_assert_eq!(
                status.pending + status.base_fee + status.queued,
                journal.0.lock().len()
            );
        }
    }
}
