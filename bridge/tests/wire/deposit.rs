use crate::{elsewhere, outpoint, params, pay, tx};
use alloy_primitives::{Address, U256, address, b256};
use alloy_sol_types::SolCall;
use bitcoin::{
    Block, BlockHash, OutPoint, ScriptBuf, TxOut, Witness,
    block::{Header, Version},
    hashes::Hash,
};
use kedge_bridge::{
    deposit::{Deposit, Unattributed, deposit_outputs, deposit_tx, deposits_in},
    op_return::{TagFault, Tagged},
    vault::{HeadMove, Vault, VaultScripts, VaultState, vault_script},
};
use kedge_genesis::{L1Height, Sats, abi::BitcoinBridge::creditCall, predeploys};

const ALICE: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
const BOB: Address = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
const HEIGHT: L1Height = L1Height(10);

fn vault() -> ScriptBuf {
    vault_script(params()).unwrap()
}

fn block(txdata: Vec<bitcoin::Transaction>) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: bitcoin::TxMerkleNode::all_zeros(),
        time: 0,
        bits: Default::default(),
        nonce: 0,
    };
    Block { header, txdata }
}

/// Output, recipient and satoshis of deposits; output, satoshis and reason of the others.
type Scanned = (Vec<(u32, Address, u64)>, Vec<(u32, u64, Unattributed)>);

/// Deposits and reasons of a transaction with one plain input and these outputs.
fn scan(outputs: Vec<TxOut>) -> Scanned {
    scan_with(outputs, Witness::new(), &VaultScripts::new(vault()))
}

fn scan_with(outputs: Vec<TxOut>, witness: Witness, scripts: &VaultScripts) -> Scanned {
    let tx = tx(vec![witness], outputs);
    let txid = tx.compute_txid();
    let found = deposits_in(&block(vec![tx]), scripts, params().min_deposit, HEIGHT);
    assert!(found.deposits.iter().all(|deposit| deposit.outpoint.txid == txid));
    (
        found.deposits.iter().map(|d| (d.outpoint.vout, d.recipient, d.amount.0)).collect(),
        found.unattributed.iter().map(|(at, sats, why)| (at.vout, sats.0, *why)).collect(),
    )
}

#[test]
fn the_vault_of_regtest_is_this_script() {
    assert_eq!(
        hex::encode(vault().as_bytes()),
        "5120d37246598125790e795808deb460f325204dbc1132290edd8c7291b111404c94"
    );
}

#[test]
fn built_deposits_are_found_in_output_order() {
    let outputs = deposit_outputs(&vault(), &[(ALICE, Sats(10_000)), (BOB, Sats(70_000))]);
    assert_eq!(scan(outputs), (vec![(0, ALICE, 10_000), (1, BOB, 70_000)], vec![]));
    // Other outputs, and the tag first, change nothing.
    let mut outputs = deposit_outputs(&vault(), &[(ALICE, Sats(10_000)), (BOB, Sats(70_000))]);
    outputs.reverse();
    outputs.insert(1, pay(elsewhere(), 5));
    assert_eq!(scan(outputs), (vec![(2, ALICE, 70_000), (3, BOB, 10_000)], vec![]));
}

#[test]
fn what_is_no_deposit_is_listed_with_its_reason() {
    let paid = || pay(vault(), 50_000);
    let tag = |to: &[Address]| Tagged::Deposit(to.to_vec()).tx_out();
    let raw = |hex: &str| pay(ScriptBuf::from_hex(hex).unwrap(), 0);
    let count = |recipients, outputs| Unattributed::Count { recipients, outputs };
    let malformed = Unattributed::Tag(TagFault::Malformed);
    let table = [
        ("no tag", vec![paid()], Unattributed::Untagged),
        (
            "another type",
            vec![paid(), Tagged::Payout { first: 0, count: 1 }.tx_out()],
            Unattributed::Untagged,
        ),
        ("a rotation", vec![paid(), Tagged::Rotation(vault()).tx_out()], Unattributed::Untagged),
        ("two recipients", vec![paid(), tag(&[ALICE, BOB])], count(2, 1)),
        (
            "two tags",
            vec![paid(), tag(&[ALICE]), tag(&[ALICE])],
            Unattributed::Tag(TagFault::MoreThanOne),
        ),
        (
            "a tag and a malformed one",
            vec![paid(), tag(&[ALICE]), raw("6a036b6467")],
            Unattributed::Tag(TagFault::MoreThanOne),
        ),
        ("no recipients", vec![paid(), raw("6a046b646764")], malformed),
        ("half an address", vec![paid(), raw("6a066b6467640102")], malformed),
        ("an unknown type", vec![paid(), raw("6a056b64677a00")], malformed),
        (
            "bytes after the push",
            vec![
                paid(),
                pay(
                    {
                        let mut bytes = Tagged::Deposit(vec![ALICE]).script().to_bytes();
                        bytes.push(0);
                        ScriptBuf::from_bytes(bytes)
                    },
                    0,
                ),
            ],
            malformed,
        ),
        ("another magic", vec![paid(), raw("6a046b646864")], Unattributed::Untagged),
        ("an empty OP_RETURN", vec![paid(), raw("6a")], Unattributed::Untagged),
        ("a cut push", vec![paid(), raw("6a4c")], Unattributed::Untagged),
    ];
    for (name, outputs, reason) in table {
        assert_eq!(scan(outputs), (vec![], vec![(0, 50_000, reason)]), "{name}");
    }
    let small = deposit_outputs(&vault(), &[(ALICE, Sats(9_999)), (BOB, Sats(10_000))]);
    assert_eq!(scan(small), (vec![(1, BOB, 10_000)], vec![(0, 9_999, Unattributed::BelowMinimum)]));
}

#[test]
fn a_spend_of_the_vault_is_no_deposit() {
    let vault = Vault::of(params()).unwrap();
    let (leaf, control) = vault.spend_leaf();
    let witness = Witness::from_slice(&[vec![], vec![], vec![], leaf.to_bytes(), control]);
    let outputs = deposit_outputs(&vault.script(), &[(ALICE, Sats(50_000)), (BOB, Sats(60_000))]);
    let scripts = VaultScripts::new(vault.script());
    let reason = Unattributed::SpendsVault;
    assert_eq!(
        scan_with(outputs.clone(), witness.clone(), &scripts),
        (vec![], vec![(1, 60_000, reason)])
    );
    // With an annex it is the same spend.
    let mut annexed = witness.to_vec();
    annexed.push(vec![0x50]);
    assert_eq!(scan_with(outputs.clone(), Witness::from_slice(&annexed), &scripts).0, vec![]);
    // So is a spend of any other leaf under the vault's internal key: to tell costs too much.
    let mut other = witness.to_vec();
    other[3].push(0x51);
    assert_eq!(scan_with(outputs.clone(), Witness::from_slice(&other), &scripts).0, vec![]);
    // Under another key it is none.
    other[4][7] ^= 1;
    assert_eq!(scan_with(outputs, Witness::from_slice(&other), &scripts).0.len(), 2);
}

#[test]
fn a_rotated_vault_credits_until_its_height() {
    let current = ScriptBuf::from_hex(&format!("5120{}", "11".repeat(32))).unwrap();
    let outputs = deposit_outputs(&vault(), &[(ALICE, Sats(50_000))]);
    for (until, credited) in [(9, 0), (10, 1), (11, 1)] {
        let scripts =
            VaultScripts { current: current.clone(), previous: Some((vault(), L1Height(until))) };
        assert_eq!(scan_with(outputs.clone(), Witness::new(), &scripts).0.len(), credited);
    }
}

#[test]
fn the_credit_is_this_transaction() {
    let at = OutPoint { vout: 0x0102, ..outpoint(0x22) };
    let deposit = Deposit { outpoint: at, recipient: ALICE, amount: Sats(12_345) };
    let tx = deposit_tx(BlockHash::from_byte_array([0x11; 32]), &deposit, params());
    assert_eq!(
        tx.source_hash,
        b256!("4acb767c19ddfa543ea6e97853efc0e0fd9bb4ec3c3355af2c69f51abcd7d752")
    );
    assert_eq!(
        (tx.from, tx.to.to().copied()),
        (predeploys::BRIDGE_DEPOSITOR, Some(predeploys::BITCOIN_BRIDGE))
    );
    assert_eq!((tx.mint, tx.value), (123_450_000_000_000, U256::from(123_450_000_000_000u64)));
    assert_eq!((tx.gas_limit, tx.is_system_transaction), (params().deposit_gas, false));
    assert_eq!(creditCall::abi_decode(&tx.input).unwrap().recipient, ALICE);
}

#[test]
fn the_head_follows_first_output_spends_and_rotations() {
    let mut state = VaultState { head: None, scripts: VaultScripts::new(vault()) };
    let mut apply = |tx: &bitcoin::Transaction| {
        let moved = state.apply(tx, HEIGHT, params());
        (moved, state.clone())
    };
    let unrelated = tx(vec![Witness::new()], vec![pay(elsewhere(), 1)]);
    assert_eq!(apply(&unrelated).0, HeadMove::None);
    let first = tx(vec![Witness::new()], vec![pay(elsewhere(), 1), pay(vault(), 2)]);
    let (moved, after) = apply(&first);
    assert_eq!(moved, HeadMove::First);
    assert_eq!(after.head, Some(OutPoint::new(first.compute_txid(), 1)));
    // A second vault output is not the head.
    assert_eq!(apply(&tx(vec![Witness::new()], vec![pay(vault(), 3)])).0, HeadMove::None);

    let spend = |head: OutPoint, outputs: Vec<TxOut>| {
        let mut tx = tx(vec![Witness::new(), Witness::new()], outputs);
        tx.input[1].previous_output = head;
        tx
    };
    let payout = spend(after.head.unwrap(), vec![pay(vault(), 1), pay(elsewhere(), 1)]);
    let (moved, after) = apply(&payout);
    assert_eq!(
        (moved, after.head),
        (HeadMove::Spent, Some(OutPoint::new(payout.compute_txid(), 0)))
    );

    let next = ScriptBuf::from_hex(&format!("5120{}", "11".repeat(32))).unwrap();
    let tag = || Tagged::Rotation(next.clone()).tx_out();
    // Declared but not paid: no rotation.
    let (moved, after) = apply(&spend(after.head.unwrap(), vec![pay(vault(), 1), tag()]));
    assert_eq!((moved, &after.scripts), (HeadMove::Spent, &VaultScripts::new(vault())));
    let (moved, after) = apply(&spend(after.head.unwrap(), vec![pay(next.clone(), 1), tag()]));
    assert_eq!(moved, HeadMove::Rotated);
    assert_eq!(after.scripts.current, next);
    assert_eq!(after.scripts.previous, Some((vault(), HEIGHT.plus(params().rotation_grace))));
}
