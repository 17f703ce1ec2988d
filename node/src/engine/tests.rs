//! The engine on a Bitcoin chain made by hand.

mod adopt;
mod store;
pub(crate) mod world;

use super::*;
use alloy_primitives::{Address, B256, U256};
use bitcoin::ScriptBuf;
use kedge_genesis::{L1Height, Network};
use kedge_store::finalized;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tempfile::TempDir;
use world::{Dump, World, account, dump, open, params};

const BOB: Address = Address::repeat_byte(0xb0);
const BTC: u64 = 100_000_000;

/// A world in which [`account`] has one bitcoin.
fn funded() -> World {
    let mut world = World::new();
    let deposit = world.deposit(account().address(), BTC);
    world.mine(vec![deposit]);
    world.build(vec![]).unwrap();
    world
}

#[test]
fn a_deposit_is_credited_to_the_sat_and_backed() {
    let mut world = World::new();
    let deposit = world.deposit(BOB, 123_456);
    let outcome = world.mine(vec![deposit]);
    assert_eq!(outcome.deposits.len(), 1);
    let before = world.store().solvency().unwrap();
    assert_eq!((before.vault, before.pending), (Sats(123_456), Sats(123_456)));
    assert_eq!(before.surplus(), Sats::ZERO, "a deposit that is not credited yet is no surplus");

    let block = world.build(vec![]).unwrap();
    assert_eq!(world.balance(BOB), Sats(123_456).to_wei());
    assert_eq!(block.transactions[1].tx_hash(), outcome.deposits[0].transaction);
    let after = world.store().solvency().unwrap();
    assert_eq!(
        (after.supply, after.pending, after.surplus()),
        (Sats(123_456), Sats::ZERO, Sats::ZERO)
    );
    let row = world.store().deposit(&outcome.deposits[0].outpoint).unwrap();
    assert_eq!(row.as_ref(), Some(&outcome.deposits[0]));
}

#[test]
fn transactions_of_removed_blocks_are_in_the_mempools_journal_where_there_is_one() {
    for journal_removed in [false, true] {
        let mut world = funded();
        let tx = world.transfer(BOB, 1_000);
        world.build(vec![tx.clone()]).unwrap();
        let other = TempDir::new().unwrap();
        world.engine = open(&other, world.params);
        let store = open_store(world.dir.path(), world.params).unwrap();
        let options = EngineOptions { journal_removed, ..EngineOptions::default() };
        world.engine = Arc::new(Engine::open(store, world.params, options).unwrap());
        world.orphan();
        assert_eq!(world.balance(BOB), U256::ZERO);
        let rows: Vec<_> = dump(world.store(), Domain::Free)
            .into_iter()
            .filter(|((table, _), _)| *table == Table::Mempool)
            .map(|(_, value)| value)
            .collect();
        let expected = if journal_removed { vec![tx.to_vec()] } else { vec![] };
        assert_eq!(rows, expected);
    }
}

#[test]
fn a_vault_output_of_a_coinbase_is_not_spent_before_bitcoin_allows_it() {
    let mut world = funded();
    let mut block = world.block(vec![]);
    let script_pubkey = vault_script(world.params).unwrap();
    let value = bitcoin::Amount::from_sat(50_000);
    block.txdata[0].output.push(bitcoin::TxOut { value, script_pubkey });
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    world.engine.connect_l1(world.height().next(), block.clone()).unwrap();
    world.chain.push(block);
    let spendable = |world: &World| world.engine.payable().unwrap().unwrap().coins.len();
    for _ in 0..99 {
        world.mine(vec![]);
    }
    assert_eq!(spendable(&world), 0);
    world.mine(vec![]);
    assert_eq!(spendable(&world), 1);
}

#[test]
fn a_vault_output_without_recipient_is_listed_and_adds_to_the_surplus() {
    let mut world = World::new();
    let script_pubkey = vault_script(world.params).unwrap();
    let value = bitcoin::Amount::from_sat(50_000);
    let lost = world.pay(vec![bitcoin::TxOut { value, script_pubkey }]);
    let outcome = world.mine(vec![lost]);
    assert!(outcome.deposits.is_empty());
    assert_eq!(outcome.notes[0].label, "unattributed");
    let reader = world.store().reader();
    assert_eq!(reader.unattributed(10).unwrap()[0].amount, Sats(50_000));
    assert_eq!(reader.notes(L1Height(1)).unwrap(), outcome.notes);
    assert_eq!(reader.solvency().unwrap().surplus(), Sats(50_000));
}

#[test]
fn an_unsafe_block_is_promoted_when_bitcoin_says_the_same() {
    let mut world = funded();
    let tx = world.transfer(BOB, 1_000);
    let unsafe_head = world.build(vec![tx]).unwrap();
    assert_eq!(world.engine.heads().safe.number, L2Number(0));
    let batch = world.batch().unwrap();
    let outcome = world.mine(vec![batch]);
    assert_eq!((outcome.promoted, outcome.appended.len(), outcome.removed.len()), (2, 0, 0));
    let heads = world.engine.heads();
    assert_eq!((heads.safe.hash, heads.latest.hash), (unsafe_head.hash, unsafe_head.hash));
    let row = world.store().batch(0).unwrap().unwrap();
    assert_eq!(row.blocks, Some((L2Number(1), L2Number(2))));
}

#[test]
fn a_node_that_knows_nothing_but_bitcoin_arrives_at_the_same_blocks() {
    let mut world = funded();
    for round in 0..4 {
        let tx = world.transfer(BOB, 1_000 + round);
        world.build(vec![tx]).unwrap();
        let batch = world.batch().unwrap();
        let deposit = world.deposit(BOB, 20_000);
        world.mine(vec![deposit, batch]);
        world.build(vec![]);
    }
    let dir = TempDir::new().unwrap();
    let other = open(&dir, world.params);
    for (height, block) in (1..).zip(&world.chain) {
        other.connect_l1(L1Height(height), block.clone()).unwrap();
    }
    assert_eq!(other.heads().safe, world.engine.heads().safe);
    assert_eq!(dump(other.store(), Domain::L1), dump(world.store(), Domain::L1));
    let latest = other.heads().latest.number;
    world.engine.unwind_unsafe_to(latest).unwrap();
    assert_eq!(dump(other.store(), Domain::L2), dump(world.store(), Domain::L2));
}

#[test]
fn every_block_can_be_executed_again_on_the_tries_that_were_before_it() {
    let mut world = funded();
    for round in 0..4 {
        let tx = world.transfer(Address::repeat_byte(round + 1), 1_000);
        world.build(vec![tx]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]);
    }
    let reader = world.store().reader();
    let latest = reader.latest().unwrap().unwrap();
    for number in (1..=latest.0).map(L2Number) {
        let parent = number.prev().unwrap();
        let header = reader.header(parent).unwrap().unwrap();
        let payload = reader.payload(number).unwrap().unwrap();
        let source = reader.state_at(parent).unwrap();
        let (block, witness) =
            kedge_vm::record_witness(world.engine.evm(), &header, &payload, source).unwrap();
        assert_eq!(Some(block.hash), reader.hash(number).unwrap());
        assert!(!witness.nodes.is_empty());
    }
}

#[test]
fn a_wrong_assertion_is_proven_wrong_from_the_store_and_back_when_bitcoin_reorganises() {
    use kedge_fraud_proof::{AssertionEvent, FraudKind, Verdict, verify};
    let mut world = funded();
    for round in 0..5 {
        let tx = world.transfer(BOB, 1_000 + round);
        world.build(vec![tx]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]);
    }
    let lie = world.assertion_with(|claims| claims[1] = B256::repeat_byte(1)).unwrap();
    let outcome = world.mine(vec![lie]);
    let [AssertionEvent::Proposed { id, agrees: false }] = outcome.assertions[..] else {
        panic!("{:?}", outcome.assertions)
    };
    // The chain goes on meanwhile.
    let tx = world.transfer(BOB, 7_000);
    world.build(vec![tx]).unwrap();
    let proof = world.engine.build_proof(id).unwrap().unwrap();
    assert_eq!(proof.head.segment, 1);
    let bytes = proof.encode();
    let tracker = world.engine.tracker().unwrap();
    let view = tracker.get(&id).unwrap().view();
    let kind = FraudKind::OutputRoot;
    let verdict = verify(world.params, world.store(), &view, &bytes).unwrap();
    assert_eq!(verdict, Verdict::Fraud { segment: 1, kind });
    let reveals = world.proof(&bytes);
    world.mine(reveals);
    let row = world.store().assertion(id).unwrap().unwrap();
    assert_eq!((row.rejected_at, row.rejection.unwrap().kind), (Some(world.height()), kind));
    // A right one is not.
    let right = world.assertion().unwrap();
    let outcome = world.mine(vec![right]);
    let [AssertionEvent::Proposed { id: right, agrees: true }] = outcome.assertions[..] else {
        panic!("{:?}", outcome.assertions)
    };
    assert_eq!(world.engine.build_proof(right).unwrap(), None);
    world.orphan();
    world.orphan();
    let row = world.store().assertion(id).unwrap().unwrap();
    assert_eq!((row.rejected_at, row.rejection), (None, None));
    assert_eq!(world.engine.tracker().unwrap(), tracker);
}

#[test]
fn unsafe_blocks_that_bitcoin_contradicts_are_unwound_and_handed_back() {
    let mut world = funded();
    let tx = world.transfer(BOB, 1_000);
    world.build(vec![tx.clone()]).unwrap();
    let mut events = world.engine.subscribe();
    // The sequencer posts nothing, so derivation makes the epochs; the first equals the unsafe block.
    let window = world.params.sequencing_window;
    let outcomes: Vec<_> = (0..=window).map(|_| world.mine(vec![])).collect();
    assert_eq!(outcomes[window as usize - 1].promoted, 1);
    let last = &outcomes[window as usize];
    assert_eq!((last.appended.len(), last.removed.len()), (1, 1));
    assert_eq!(last.removed[0].user_transactions, [tx]);
    assert_eq!(world.balance(BOB), U256::ZERO);
    let removed = std::iter::from_fn(|| events.try_recv().ok())
        .filter(|event| matches!(event, EngineEvent::Removed(_)))
        .count();
    assert_eq!(removed, 1);
}

#[test]
fn a_skipped_transaction_is_not_in_the_block_and_nothing_halts() {
    let mut world = funded();
    let first = world.transfer(BOB, 1_000);
    let too_much = world.transfer(BOB, 2 * BTC);
    let block = world.build(vec![first.clone(), first, too_much]).unwrap();
    assert_eq!(block.skipped.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
    let reader = world.store().reader();
    let stored = reader.transactions(L2Number(2)).unwrap().unwrap();
    assert_eq!(stored.len(), block.transactions.len());
    assert_eq!(stored, block.transactions);
    assert_eq!(reader.receipts(L2Number(2)).unwrap().unwrap(), block.receipts);
    let place = reader.transaction_place(block.transactions[0].tx_hash()).unwrap();
    assert_eq!(place, Some((L2Number(2), 0)));
}

#[test]
fn a_withdrawal_is_due_once_settled_and_finality_deep_and_is_paid_once() {
    let mut world = funded();
    let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_raw_hash(
        bitcoin::hashes::Hash::all_zeros(),
    ));
    let tx = world.withdrawal(&script, BTC / 10);
    let block = world.build(vec![tx]).unwrap();
    assert!(block.skipped.is_empty() && block.receipts[0].status(), "{:?}", block.skipped);
    let queued = world.store().withdrawal(0).unwrap().unwrap();
    assert_eq!(queued.amount.0 + queued.fee.0, BTC / 10);
    assert_eq!((queued.sender, &queued.script), (account().address(), &script));
    let batch = world.batch().unwrap();
    world.mine(vec![batch]);

    let mut due_after = None;
    let mut settled_at = None;
    for _ in 0..30 {
        let assertion: Vec<_> = world.assertion().into_iter().collect();
        world.mine(assertion);
        if settled_at.is_none() && world.engine.heads().settled.number >= queued.block {
            settled_at = Some(world.height());
        }
        if !world.engine.payable().unwrap().unwrap().unpaid.is_empty() {
            due_after = Some(world.height());
            break;
        }
    }
    assert_eq!(due_after, settled_at.map(|at| at.plus(world.params.finality_depth)));
    let payout = world.payout().unwrap();
    let before = world.store().solvency().unwrap();
    assert_eq!((before.queued, before.queued_fees), (queued.amount, queued.fee));
    let outcome = world.mine(vec![payout.clone()]);
    assert_eq!(outcome.paid, [0]);
    let row = world.store().payout(0).unwrap().unwrap();
    assert_eq!((row.txid, row.vout), (payout.compute_txid(), 2));
    assert_eq!(payout.output[2].value.to_sat(), queued.amount.0);
    let after = world.store().solvency().unwrap();
    assert_eq!((after.queued, after.queued_fees), (Sats::ZERO, Sats::ZERO));
    assert!(world.payout().is_none(), "nothing is due any more");

    // A reorganisation takes the payout back, and it is due again.
    world.orphan();
    assert_eq!(world.store().payout(0).unwrap(), None);
    assert_eq!(world.store().solvency().unwrap(), before);
    assert_eq!(world.payout().unwrap().compute_txid(), payout.compute_txid());
}

#[test]
fn state_at_every_block_is_what_it_was_then() {
    let mut world = funded();
    // `L1Block` keeps the origin's number and time in its first slot.
    let slot = (kedge_genesis::predeploys::L1_BLOCK, U256::ZERO);
    let now = |world: &World| {
        let store = world.store();
        let sender = world.balance(account().address());
        (world.balance(BOB), sender, store.slot(slot.0, slot.1).unwrap())
    };
    let mut then = vec![(L2Number(1), now(&world))];
    for round in 0..6 {
        let tx = world.transfer(BOB, 1_000 * (round + 1));
        if round % 2 == 0 {
            world.mine(vec![]);
        }
        let block = world.build(vec![tx]).unwrap();
        then.push((L2Number(block.header.number), now(&world)));
    }
    let reader = world.store().reader();
    for (number, expected) in &then {
        let state = reader.state_at(*number).unwrap();
        let balance = |address| state.account(address).unwrap().map_or(U256::ZERO, |it| it.balance);
        let found =
            (balance(BOB), balance(account().address()), state.slot(slot.0, slot.1).unwrap());
        assert_eq!(found, *expected, "block {number}");
    }
    let slots: std::collections::BTreeSet<_> = then.iter().map(|(_, now)| now.2).collect();
    assert_eq!(slots.len(), 4, "the slot moved with every origin");
    assert!(matches!(
        reader.state_at(L2Number(99)).unwrap_err(),
        StoreError::StateUnavailable { number: 99 }
    ));
}

#[test]
fn a_reorganisation_past_finality_is_the_one_halt() {
    let mut world = funded();
    let batch = world.batch().unwrap();
    world.mine(vec![batch]);
    for _ in 0..world.params.finality_depth {
        world.mine(vec![]);
    }
    assert_eq!(world.engine.heads().finalized.number, L2Number(1));
    for _ in 0..world.params.finality_depth {
        world.orphan();
        assert_eq!(world.engine.heads().finalized.number, L2Number(1), "finality never goes back");
    }
    let before = (dump(world.store(), Domain::L1), dump(world.store(), Domain::L2));
    for _ in 0..2 {
        let error = world.engine.disconnect_l1().unwrap_err();
        assert!(matches!(error, EngineError::PastFinality { .. }), "{error}");
    }
    let after = (dump(world.store(), Domain::L1), dump(world.store(), Domain::L2));
    assert!(before == after, "a refused reorganisation changes nothing");
}

#[test]
fn a_block_that_does_not_follow_the_tip_is_refused() {
    let mut world = World::new();
    let block = world.block(vec![]);
    let error = world.engine.connect_l1(L1Height(2), block.clone()).unwrap_err();
    assert!(matches!(error, EngineError::NotNext { .. }), "{error}");
    world.mine(vec![]);
    let error = world.engine.connect_l1(L1Height(2), block).unwrap_err();
    assert!(matches!(error, EngineError::NotNext { .. }), "{error}");
    let error = World::new().engine.disconnect_l1().unwrap_err();
    assert!(matches!(error, EngineError::StartOrphaned { .. }), "{error}");
}

#[test]
fn a_payload_planned_on_another_parent_is_stale() {
    let mut world = funded();
    let tx = world.transfer(BOB, 1);
    let (payload, cursor) = world.engine.plan(false, None, vec![tx]).unwrap().unwrap();
    let block = world.engine.preview(&payload, &kedge_vm::Senders::default()).unwrap();
    world.orphan();
    assert!(world.engine.preview(&payload, &kedge_vm::Senders::default()).unwrap_err().is_stale());
    assert!(world.engine.append(payload, cursor, block, None).unwrap_err().is_stale());
}

#[test]
fn safe_blocks_are_not_unwound_on_request() {
    let mut world = funded();
    let batch = world.batch().unwrap();
    world.mine(vec![batch]);
    let error = world.engine.unwind_unsafe_to(L2Number(0)).unwrap_err();
    assert!(matches!(error, EngineError::BelowSafe { .. }), "{error}");
}

#[test]
fn a_store_of_another_network_and_one_in_use_are_refused() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path(), Network::Dev.params()).unwrap();
    let error = open_store(dir.path(), Network::Dev.params()).unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::Locked { .. })), "{error}");
    drop(store);
    for other in [Network::Regtest.params(), params()] {
        let error = open_store(dir.path(), other).unwrap_err();
        assert!(matches!(error, EngineError::Store(StoreError::OtherChain { .. })), "{error}");
    }
    open_store(dir.path(), Network::Dev.params()).unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A Bitcoin block, with a deposit, a batch, an assertion, a payout if there is one.
    Mine { deposit: bool, batch: bool, assertion: bool },
    /// An L2 block with so many transfers.
    Build(u8),
    /// An L2 block with a withdrawal.
    Withdraw,
    /// Bitcoin drops its newest blocks.
    Orphan(u8),
    /// The process ends and starts again.
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let mine = (any::<bool>(), any::<bool>(), any::<bool>());
    prop_oneof![
        4 => mine.prop_map(|(deposit, batch, assertion)| Op::Mine { deposit, batch, assertion }),
        3 => (0..3u8).prop_map(Op::Build),
        1 => Just(Op::Withdraw),
        2 => (1..4u8).prop_map(Op::Orphan),
        1 => Just(Op::Reopen),
    ]
}

/// Dumps by what they must be a function of: the L1 chain, and the L2 chain.
#[derive(Default)]
struct Seen {
    l1: BTreeMap<B256, Dump>,
    l2: BTreeMap<B256, Dump>,
}

impl Seen {
    /// L1 tables depend on the L1 chain alone and L2 tables on the L2 chain alone, whatever way led there.
    fn check(&mut self, world: &World) {
        let heads = world.engine.heads();
        let l1 = dump(world.store(), Domain::L1);
        let before = self.l1.entry(heads.l1_tip.hash).or_insert_with(|| l1.clone());
        assert!(*before == l1, "L1 tables at {:?}", heads.l1_tip);
        let l2 = dump(world.store(), Domain::L2);
        let before = self.l2.entry(heads.latest.hash).or_insert_with(|| l2.clone());
        assert!(*before == l2, "L2 tables at {:?}", heads.latest);
    }
}

#[test]
fn the_whole_life_of_a_withdrawal_unwinds_exactly_at_every_block() {
    let mut world = funded();
    let mut seen = Seen::default();
    let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_raw_hash(
        bitcoin::hashes::Hash::all_zeros(),
    ));
    let tx = world.withdrawal(&script, BTC / 10);
    world.build(vec![tx]).unwrap();
    let mut paid = 0;
    for _ in 0..24 {
        let mut txs: Vec<_> = world.batch().into_iter().collect();
        txs.extend(world.assertion());
        txs.extend(world.payout());
        seen.check(&world);
        paid += world.mine(txs).paid.len();
        seen.check(&world);
        // The same block leaves and comes back; the process ends in between.
        let block = world.orphan();
        seen.check(&world);
        world.reopen();
        world.engine.connect_l1(world.height().next(), block.clone()).unwrap();
        world.chain.push(block);
        seen.check(&world);
        world.build(vec![]);
    }
    assert_eq!(paid, 1);
    let heads = world.engine.heads();
    assert!(heads.settled.number > L2Number(2), "{heads:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_unwind_is_exact_through_reorganisations_and_restarts(
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        let mut world = funded();
        let mut seen = Seen::default();
        seen.check(&world);
        let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_raw_hash(
            bitcoin::hashes::Hash::all_zeros(),
        ));
        for op in ops {
            // Reorganisations and contradictions take transactions back.
            world.nonce =
                world.store().account(account().address()).unwrap().map_or(0, |it| it.nonce);
            match op {
                Op::Mine { deposit, batch, assertion } => {
                    let mut txs = Vec::new();
                    txs.extend(batch.then(|| world.batch()).flatten());
                    txs.extend(assertion.then(|| world.assertion()).flatten());
                    txs.extend(deposit.then(|| world.deposit(account().address(), 1_000_000)));
                    txs.extend(world.payout());
                    world.mine(txs);
                }
                Op::Build(transfers) => {
                    let txs = (0..transfers).map(|_| world.transfer(BOB, 1_000)).collect();
                    world.build(txs);
                }
                Op::Withdraw => {
                    let tx = world.withdrawal(&script, 200_000);
                    world.build(vec![tx]);
                }
                Op::Orphan(count) => {
                    for _ in 0..count {
                        let reader = world.store().reader();
                        let below = L1Height(world.height().0 - 1);
                        let allowed = below.0 > 0
                            && reader.safe_at(below).unwrap() >= finalized(&reader).unwrap();
                        drop(reader);
                        if !allowed {
                            break;
                        }
                        world.orphan();
                        seen.check(&world);
                    }
                }
                Op::Reopen => {
                    let heads = world.engine.heads();
                    world.reopen();
                    prop_assert_eq!(world.engine.heads(), Heads { l1_best: heads.l1_tip, ..heads });
                }
            }
            seen.check(&world);
        }
    }
}
