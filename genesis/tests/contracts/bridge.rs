//! `BitcoinBridge` and `L2ToL1MessagePasser`.

use crate::chain::{ALICE, Chain, Outcome, VAULT_SCRIPT, btc, sats};
use alloy_primitives::{Address, Bytes, U256, bytes, hex, keccak256};
use alloy_sol_types::SolValue;
use kedge_genesis::{
    abi::{BitcoinBridge::*, L2ToL1MessagePasser::*},
    predeploys::{BITCOIN_BRIDGE, BRIDGE_DEPOSITOR, DEPOSITOR, L2_TO_L1_MESSAGE_PASSER},
};

const BOB: Address = Address::repeat_byte(0xb0);

fn p2wpkh() -> Bytes {
    bytes!("00141111111111111111111111111111111111111111")
}

fn p2tr() -> Bytes {
    [&hex!("5120")[..], &[0x22; 32]].concat().into()
}

/// A deposit of one bitcoin with the gas that derivation gives it.
fn credit(chain: &mut Chain, recipient: Address) -> Outcome {
    use alloy_sol_types::SolCall;
    let data = creditCall { recipient }.abi_encode().into();
    let gas = chain.params.deposit_gas;
    chain.send(BRIDGE_DEPOSITOR, BITCOIN_BRIDGE, btc(1), gas, data)
}

fn withdraw(chain: &mut Chain, value: U256, script: &Bytes) -> Outcome {
    chain.call(ALICE, BITCOIN_BRIDGE, value, withdrawCall { scriptPubKey: script.clone() })
}

#[test]
fn deposits_reach_recipients_or_are_held_for_them_within_the_gas_of_a_deposit() {
    let cases: [(&str, Option<Bytes>, bool); 9] = [
        ("new account", None, true),
        ("contract that accepts", Some(bytes!("00")), true),
        ("contract that logs and accepts", Some(bytes!("60015f5fa100")), true),
        ("contract that reverts", Some(bytes!("5f5ffd")), false),
        ("contract that burns its gas", Some(bytes!("5b5f56")), false),
        ("contract with an invalid opcode", Some(bytes!("fe")), false),
        ("revert with 98 kB", Some(bytes!("620180005ffd")), false),
        // Memory of 98 kB costs more than the gas that a recipient gets.
        ("return of 98 kB", Some(bytes!("620180005ff3")), false),
        (
            "contract that writes a slot of its own twice",
            Some(bytes!("60015f55600160015500")),
            false,
        ),
    ];
    for (case, code, accepts) in cases {
        let mut chain = Chain::new();
        let supply = chain.supply();
        if let Some(code) = code {
            chain.deploy(BOB, code);
        }
        for round in 1..=2 {
            let outcome = credit(&mut chain, BOB);
            assert!(outcome.success, "{case}");
            let (received, held) = if accepts { (btc(round), 0) } else { (U256::ZERO, round) };
            assert_eq!(chain.balance(BOB), received, "{case}");
            assert_eq!(chain.balance(BITCOIN_BRIDGE), btc(held), "{case}");
            assert_eq!(
                chain.view(BITCOIN_BRIDGE, claimableCall { recipient: BOB }),
                btc(held),
                "{case}"
            );
            let credited = DepositCredited { recipient: BOB, amount: btc(1) };
            let kept = DepositHeld { recipient: BOB, amount: btc(1) };
            assert_eq!(outcome.events() == [(BITCOIN_BRIDGE, credited)], accepts, "{case}");
            assert_eq!(outcome.events() == [(BITCOIN_BRIDGE, kept)], !accepts, "{case}");
        }
        assert_eq!(chain.supply(), supply, "{case}");
    }
}

#[test]
fn deposit_to_a_delegated_account_that_burns_its_gas_is_held() {
    let mut chain = Chain::new();
    let burner = Address::repeat_byte(0xbb);
    chain.deploy(burner, bytes!("5b5f56"));
    chain.deploy(BOB, [&hex!("ef0100")[..], burner.as_slice()].concat().into());
    assert!(credit(&mut chain, BOB).success);
    assert_eq!(chain.view(BITCOIN_BRIDGE, claimableCall { recipient: BOB }), btc(1));
}

#[test]
fn a_proxy_wallet_that_logs_what_it_receives_accepts_deposits() {
    let mut chain = Chain::new();
    let implementation = Address::repeat_byte(0xbb);
    // LOG2 of the value with the caller as a topic.
    chain.deploy(implementation, bytes!("345f5233600160205fa200"));
    // Reads a slot, delegates the call and reverts when that fails.
    let (head, tail) = (hex!("5f54505f5f5f5f73"), hex!("5af46024575f5ffd5b00"));
    let proxy = [&head[..], implementation.as_slice(), &tail].concat();
    chain.deploy(BOB, proxy.into());
    assert!(credit(&mut chain, BOB).success);
    assert_eq!(chain.balance(BOB), btc(1));
}

#[test]
fn held_deposits_go_once_to_the_address_that_the_recipient_names() {
    let mut chain = Chain::new();
    chain.deploy(BOB, bytes!("5f5ffd"));
    credit(&mut chain, BOB);
    credit(&mut chain, BOB);
    let carol = Address::repeat_byte(0xc0);

    // Nobody else can, and a refusal leaves the claim as it was.
    chain
        .call(carol, BITCOIN_BRIDGE, U256::ZERO, claimCall { to: carol })
        .reverted_with::<NothingToClaim>();
    chain
        .call(BOB, BITCOIN_BRIDGE, U256::ZERO, claimCall { to: BOB })
        .reverted_with::<RecipientRefused>();
    assert_eq!(chain.view(BITCOIN_BRIDGE, claimableCall { recipient: BOB }), btc(2));

    let outcome = chain.call(BOB, BITCOIN_BRIDGE, U256::ZERO, claimCall { to: carol });
    let claimed = DepositClaimed { recipient: BOB, to: carol, amount: btc(2) };
    assert_eq!(outcome.events(), [(BITCOIN_BRIDGE, claimed)]);
    assert_eq!(chain.balance(carol), btc(2));
    assert_eq!(chain.balance(BITCOIN_BRIDGE), U256::ZERO);
    chain
        .call(BOB, BITCOIN_BRIDGE, U256::ZERO, claimCall { to: carol })
        .reverted_with::<NothingToClaim>();
}

#[test]
fn claiming_again_from_inside_a_claim_takes_nothing_more() {
    use alloy_sol_types::SolCall;
    let mut chain = Chain::new();
    // With more than 32,768 gas it calls `claim(self)` once more and stops whatever that came to; with
    // what a credit gives it (5,000 and the stipend) it reverts.
    let claim = claimCall { to: BOB }.abi_encode();
    let mut code = hex!("618000 5a 11 600b 57 5f 5f fd 5b").to_vec();
    for (offset, word) in claim.chunks(32).enumerate() {
        let mut padded = [0; 32];
        padded[..word.len()].copy_from_slice(word);
        code.push(0x7f);
        code.extend_from_slice(&padded);
        code.extend_from_slice(&[0x60, u8::try_from(offset * 32).unwrap(), 0x52]);
    }
    code.extend_from_slice(&hex!("5f 5f 6024 5f 5f 73"));
    code.extend_from_slice(BITCOIN_BRIDGE.as_slice());
    code.extend_from_slice(&hex!("5a f1 00"));
    chain.deploy(BOB, code.into());
    credit(&mut chain, BOB);
    // Another recipient's coins lie in the bridge too.
    let other = Address::repeat_byte(0xdd);
    chain.deploy(other, bytes!("fe"));
    credit(&mut chain, other);
    assert_eq!(chain.balance(BITCOIN_BRIDGE), btc(2));

    assert!(chain.call(BOB, BITCOIN_BRIDGE, U256::ZERO, claimCall { to: BOB }).success);
    assert_eq!(chain.balance(BOB), btc(1));
    assert_eq!(chain.balance(BITCOIN_BRIDGE), btc(1));
}

#[test]
fn only_derivation_credits_and_declares_vault_scripts() {
    let mut chain = Chain::new();
    for stranger in [ALICE, DEPOSITOR, BITCOIN_BRIDGE] {
        chain
            .call(stranger, BITCOIN_BRIDGE, U256::ZERO, creditCall { recipient: BOB })
            .reverted_with::<OnlySystem>();
        chain
            .call(stranger, BITCOIN_BRIDGE, U256::ZERO, addVaultScriptCall { scriptPubKey: p2tr() })
            .reverted_with::<OnlySystem>();
    }
    // Coins sent without a call would be nobody's.
    assert!(!chain.send(ALICE, BITCOIN_BRIDGE, btc(1), 100_000, Bytes::new()).success);
}

#[test]
fn withdrawals_queue_in_order_leave_the_supply_and_set_a_leaf() {
    let mut chain = Chain::at_fee_rate(5_000);
    let minimum = chain.params.min_withdrawal.0;
    let scripts = [
        bytes!("76a914222222222222222222222222222222222222222288ac"),
        bytes!("a914333333333333333333333333333333333333333387"),
        p2wpkh(),
        [&hex!("0020")[..], &[0x44; 32]].concat().into(),
        p2tr(),
    ];
    for (index, script) in (0u64..).zip(scripts) {
        let fee = 5 * (250 + 9 + script.len() as u64);
        let quoted = chain
            .view(BITCOIN_BRIDGE, payoutFeeSatsCall { scriptLength: U256::from(script.len()) });
        assert_eq!(quoted, U256::from(fee));
        assert_eq!(chain.view(BITCOIN_BRIDGE, nextWithdrawalIndexCall {}), index);

        let amount = minimum + index * 1_000_003;
        let supply = chain.supply();
        let nonce = chain.view(L2_TO_L1_MESSAGE_PASSER, messageNonceCall {});
        assert_eq!(nonce, (U256::ONE << 240) + U256::from(index));
        let outcome = withdraw(&mut chain, sats(amount + fee), &script);
        let queued = WithdrawalQueued {
            index,
            sender: ALICE,
            scriptPubKey: script.clone(),
            amountSats: amount,
            feeSats: fee,
        };
        assert_eq!(outcome.events(), [(BITCOIN_BRIDGE, queued)]);
        let passed = outcome.events::<MessagePassed>();
        let [(L2_TO_L1_MESSAGE_PASSER, passed)] = &passed[..] else { panic!("{passed:?}") };
        let message = (index, ALICE, script.clone(), amount, fee).abi_encode_params();
        let message = Bytes::from(message);
        let preimage = (nonce, BITCOIN_BRIDGE, Address::ZERO, U256::ZERO, U256::ZERO, message)
            .abi_encode_params();
        let leaf = keccak256(preimage);
        assert_eq!(passed.withdrawalHash, leaf);
        assert!(chain.view(L2_TO_L1_MESSAGE_PASSER, sentMessagesCall { withdrawalHash: leaf }));
        assert_eq!(outcome.returned::<withdrawCall>(), index);

        // The whole value is gone, and none of it stays in a contract.
        assert_eq!(supply - chain.supply(), sats(amount + fee));
        assert_eq!(chain.balance(BITCOIN_BRIDGE), U256::ZERO);
        assert_eq!(chain.balance(L2_TO_L1_MESSAGE_PASSER), U256::ZERO);

        let stored = chain.view(BITCOIN_BRIDGE, withdrawalsCall { index });
        assert_eq!((stored.amountSats, stored.feeSats), (amount, fee));
        assert_eq!(stored.scriptPubKey, script);
    }
}

#[test]
fn payout_fee_rounds_up_to_whole_satoshis() {
    // 1.003 sat per virtual byte times 281 virtual bytes is 281.843.
    let mut chain = Chain::at_fee_rate(1_003);
    let fee =
        chain.view(BITCOIN_BRIDGE, payoutFeeSatsCall { scriptLength: U256::from(p2wpkh().len()) });
    assert_eq!(fee, U256::from(282));
}

#[test]
fn scripts_that_are_not_standard_or_the_vaults_are_refused() {
    let mut chain = Chain::at_fee_rate(1_000);
    let refused: &[&[u8]] = &[
        b"",
        &hex!("6a"),
        &[0x51; 22],
        &[0x00; 34],
        &hex!("0015111111111111111111111111111111111111111111"),
        &hex!("00131111111111111111111111111111111111111111"),
        &hex!("0114 1111111111111111111111111111111111111111"),
        &hex!("a914333333333333333333333333333333333333333388"),
        &hex!("a915333333333333333333333333333333333333333387"),
        &hex!("76a914222222222222222222222222222222222222222288ad"),
        &hex!("76a915222222222222222222222222222222222222222288ac"),
        &[[0x52, 0x20].as_slice(), &[0x22; 32]].concat(),
        &[[0x51, 0x20].as_slice(), &[0x22; 33]].concat(),
        &[0x6a; 520],
    ];
    for script in refused {
        withdraw(&mut chain, btc(1), &Bytes::copy_from_slice(script))
            .reverted_with::<UnsupportedScript>();
    }
    withdraw(&mut chain, btc(1), &Bytes::from(VAULT_SCRIPT)).reverted_with::<VaultScript>();

    assert!(withdraw(&mut chain, btc(1), &p2tr()).success);
    let rotation = addVaultScriptCall { scriptPubKey: p2tr() };
    let outcome = chain.call(BRIDGE_DEPOSITOR, BITCOIN_BRIDGE, U256::ZERO, rotation);
    let added = VaultScriptAdded { scriptPubKey: p2tr() };
    assert_eq!(outcome.events(), [(BITCOIN_BRIDGE, added)]);
    withdraw(&mut chain, btc(1), &p2tr()).reverted_with::<VaultScript>();
    withdraw(&mut chain, btc(1), &Bytes::from(VAULT_SCRIPT)).reverted_with::<VaultScript>();
}

#[test]
fn amounts_that_are_broken_too_small_or_below_the_senders_floor_are_refused() {
    let mut chain = Chain::at_fee_rate(1_000);
    let supply = chain.supply();
    let minimum = chain.params.min_withdrawal.0;
    assert_eq!(chain.view(BITCOIN_BRIDGE, minWithdrawalSatsCall {}), minimum);
    let fee = 281;
    withdraw(&mut chain, btc(1) + U256::ONE, &p2wpkh()).reverted_with::<NotWholeSats>();
    for (value, amount) in [(0, 0), (fee, 0), (fee + 1, 1), (fee + minimum - 1, minimum - 1)] {
        assert_eq!(
            withdraw(&mut chain, sats(value), &p2wpkh()).reverted_with::<BelowMinimum>(),
            BelowMinimum { amountSats: U256::from(amount), minimumSats: U256::from(minimum) }
        );
    }
    let at_least = |floor| withdrawAtLeastCall { scriptPubKey: p2wpkh(), leastSats: floor };
    assert_eq!(
        chain
            .call(ALICE, BITCOIN_BRIDGE, sats(50_000 + fee), at_least(50_001))
            .reverted_with::<BelowMinimum>(),
        BelowMinimum { amountSats: U256::from(50_000), minimumSats: U256::from(50_001) }
    );
    assert_eq!(chain.supply(), supply);
    assert!(chain.call(ALICE, BITCOIN_BRIDGE, sats(50_000 + fee), at_least(50_000)).success);
    assert!(withdraw(&mut chain, sats(minimum + fee), &p2wpkh()).success);
}

#[test]
fn message_passer_takes_messages_but_no_value() {
    let mut chain = Chain::new();
    let message =
        initiateWithdrawalCall { target: BOB, gasLimit: U256::from(5), data: bytes!("c0ffee") };
    chain
        .call(ALICE, L2_TO_L1_MESSAGE_PASSER, sats(1), message.clone())
        .reverted_with::<ValueNotAccepted>();
    assert!(!chain.send(ALICE, L2_TO_L1_MESSAGE_PASSER, sats(1), 100_000, Bytes::new()).success);
    let outcome = chain.call(ALICE, L2_TO_L1_MESSAGE_PASSER, U256::ZERO, message);
    let (_, passed) = &outcome.events::<MessagePassed>()[0];
    assert_eq!((passed.sender, passed.target, &passed.data[..]), (ALICE, BOB, &hex!("c0ffee")[..]));
}
