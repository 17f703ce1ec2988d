//! Replaying a block's transactions one at a time gives what the block gave.

mod common;

use alloy_evm::Evm as _;
use alloy_primitives::{Address, Bytes, TxKind};
use common::*;
use kedge_genesis::predeploys;
use kedge_vm::{
    Header, PayloadTx,
    exec::replay::{intermediate_roots, transaction_env},
};
use revm::{DatabaseCommit, database::State, inspector::NoOpInspector};
use std::ops::ControlFlow;

/// A block with a deposit, a skipped transaction between others, a creation and a call of what was created
/// that reverts; the state before it, and the header of its parent.
fn block() -> (Chain, kedge_vm::MemoryDb, Header) {
    let mut chain = Chain::funded();
    let (before, parent) = (chain.db.clone(), chain.head.clone());
    let to = |number: u8| TxKind::Call(Address::repeat_byte(number));
    let transfer = account(0).sign(call(0, to(9), 5, Bytes::new()));
    let skipped = account(1).sign(call(7, to(9), 5, Bytes::new()));
    // Writes a slot, then reverts when it is sent anything: CALLVALUE, PUSH1 1, SSTORE, CALLVALUE, PUSH1 9, JUMPI,
    // STOP, JUMPDEST, PUSH0, PUSH0, REVERT
    let runtime = [0x34, 0x60, 1, 0x55, 0x34, 0x60, 9, 0x57, 0x00, 0x5b, 0x5f, 0x5f, 0xfd];
    let create = account(2).sign(call(0, TxKind::Create, 0, deployer(&runtime)));
    let contract = account(2).address.create(0);
    let fine = account(3).sign(call(0, TxKind::Call(contract), 0, Bytes::new()));
    let reverts = account(3).sign(call(1, TxKind::Call(contract), 1, Bytes::new()));
    let mut listed = vec![attributes(2), mint(Address::repeat_byte(8), COIN)];
    listed.extend([transfer, skipped, create, fine, reverts].iter().map(user));
    let block = chain.execute(listed);
    assert_eq!(block.skipped.len(), 1);
    (chain, before, parent)
}

#[test]
fn a_replay_gives_every_receipt_again() {
    let (chain, before, _) = block();
    let block = chain.blocks.last().unwrap();
    let state = State::builder().with_database(before).build();
    let mut evm = chain.config.replay(&block.header, state, NoOpInspector {}).unwrap();
    let mut gas = 0;
    for ((tx, sender), receipt) in
        block.transactions.iter().zip(&block.senders).zip(&block.receipts)
    {
        let executed = evm.transact_raw(transaction_env(tx, *sender)).unwrap();
        gas += executed.result.tx_gas_used();
        assert_eq!(receipt.cumulative_gas_used(), gas);
        assert_eq!(receipt.status(), executed.result.is_success());
        assert_eq!(receipt.logs(), executed.result.logs());
        evm.db_mut().commit(executed.state);
    }
    assert_eq!(block.header.gas_used, gas);
    assert!(!block.receipts.last().unwrap().status(), "the last one reverts");
}

#[test]
fn the_last_intermediate_root_is_the_header_s() {
    let (chain, mut before, parent) = block();
    let block = chain.blocks.last().unwrap();
    let transactions: Vec<_> =
        block.transactions.iter().cloned().zip(block.senders.iter().copied()).collect();
    let mut roots = Vec::new();
    let mut run = |most: usize| {
        roots.clear();
        let each = |root| {
            roots.push(root);
            if roots.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        intermediate_roots(
            &chain.config,
            &block.header,
            parent.state_root,
            &transactions,
            &mut before,
            each,
        )
        .unwrap();
        roots.clone()
    };
    let all = run(usize::MAX);
    assert_eq!(all.len(), 6);
    assert_eq!(all.last(), Some(&block.header.state_root));
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "every transaction changes something");
    assert_eq!(run(2), all[..2], "it stops when told to");
    // What a root says is what a block that ends there says.
    let mut shorter = Chain::funded();
    let listed: Vec<PayloadTx> = vec![attributes(2), mint(Address::repeat_byte(8), COIN)];
    let shorter = shorter.try_execute(listed);
    assert_eq!(all[1], shorter.header.state_root);
    assert_eq!(block.header.beneficiary, predeploys::SEQUENCER_FEE_VAULT);
}

#[test]
fn a_block_names_what_it_loaded_and_left_as_it_was() {
    let (mut chain, ..) = block();
    let contract = account(2).address.create(0);
    let call = account(3).sign(call(2, TxKind::Call(contract), 0, Bytes::new()));
    let block = chain.execute(vec![attributes(3), user(&call)]);
    assert!(block.unchanged.contains(&contract), "it is called, and keeps balance, nonce and code");
    assert!(
        block.unchanged.contains(&predeploys::L2_TO_L1_MESSAGE_PASSER),
        "every header reads it"
    );
    assert!(!block.unchanged.contains(&account(3).address));
    assert!(block.unchanged.is_sorted());
    assert!(block.unchanged.iter().all(|address| !block.state.accounts.contains_key(address)));
    assert!(!block.unchanged.contains(&account(5).address), "nobody asked for it");
}
