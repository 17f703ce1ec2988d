mod delegation;
mod eviction;
mod journal;
mod laws;

use super::*;
use alloy_consensus::{
    SignableTransaction, Transaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxEnvelope,
    TxLegacy,
};
use alloy_eips::{Encodable2718, eip7702::SignedAuthorization};
use alloy_network::TxSignerSync;
use alloy_primitives::{Signature, TxKind};
use alloy_signer_local::PrivateKeySigner;
use kedge_genesis::Network;
use kedge_vm::EvmConfig;
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
    /// What happens after the fees are read the next time.
    after_fees: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Default for FakeState {
    fn default() -> Self {
        Self {
            accounts: Mutex::default(),
            l1_base_fee: 0,
            base_fee: AtomicU64::new(1_000_000),
            broken: AtomicBool::new(false),
            after_fees: Mutex::default(),
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
        let fees = HeadFees { base_fee: self.base_fee.load(Ordering::Relaxed), l1 };
        let then = self.after_fees.lock().take();
        if let Some(then) = then {
            then();
        }
        Ok(Arc::new(fees))
    }
}

#[derive(Default)]
struct FakeJournal(Mutex<BTreeMap<B256, Bytes>>);

impl Journal for FakeJournal {
    fn write(&self, changes: &[JournalChange]) -> anyhow::Result<()> {
        let mut kept = self.0.lock();
        for change in changes {
            match change {
                JournalChange::Put(hash, encoded) => drop(kept.insert(*hash, encoded.clone())),
                JournalChange::Delete(hash) => drop(kept.remove(hash)),
            }
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
fn a_head_that_comes_while_a_transaction_is_checked_is_the_one_to_rank_by() {
    let (mempool, state, _) = pool();
    let mempool = Arc::new(mempool);
    let (head, late) = (mempool.clone(), state.clone());
    *state.after_fees.lock() = Some(Box::new(move || {
        late.base_fee.store(2 * GWEI as u64, Ordering::Relaxed);
        head.on_block([]);
    }));
    mempool.add(sign(0, transfer(0, GWEI))).expect("ok");
    let waits = PoolStatus { pending: 0, base_fee: 1, queued: 0 };
    assert_eq!(mempool.status_at_head(), waits);
}
