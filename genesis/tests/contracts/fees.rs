//! `GasPriceOracle`, the fee vaults, and `Multicall3`.

use crate::chain::{ALICE, Chain, btc, sats};
use alloy_primitives::{Address, Bytes, U256, bytes};
use alloy_sol_types::{SolCall, sol};
use kedge_genesis::{
    abi::{FeeVault::*, GasPriceOracle::*},
    predeploys::{
        BASE_FEE_VAULT, GAS_PRICE_ORACLE, L1_BLOCK, L1_FEE_VAULT, MULTICALL3, OPERATOR_FEE_VAULT,
        SEQUENCER_FEE_VAULT,
    },
};
use op_revm::{L1BlockInfo, OpSpecId, estimate_tx_compressed_size};

/// Byte strings with repetitions near and far, short and long.
fn samples() -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut samples = vec![vec![], vec![2], vec![0; 12], vec![0; 13], vec![7; 14], vec![0; 20_000]];
    for round in 0..24usize {
        let mut sample: Vec<u8> = Vec::new();
        while sample.len() < 150 * round {
            let kind = random() % 4;
            let length = usize::try_from(random() % 300).unwrap();
            match kind {
                0 => sample.resize(sample.len() + length, 0),
                1 if !sample.is_empty() => {
                    let from = usize::try_from(random()).unwrap() % sample.len();
                    let to = (from + length).min(sample.len());
                    sample.extend_from_within(from..to);
                }
                _ => sample.extend((0..length).map(|_| random().to_le_bytes()[0])),
            }
        }
        samples.push(sample);
    }
    // A repetition from farther than a match can reach.
    let mut far: Vec<u8> = (0..9_000).map(|_| random().to_le_bytes()[0]).collect();
    far.extend_from_within(..500);
    samples.push(far);
    samples
}

#[test]
fn oracle_estimates_the_fee_that_execution_charges() {
    let mut chain = Chain::at_fee_rate(12_345);
    let info = L1BlockInfo::try_fetch(&mut chain.db, U256::from(1), OpSpecId::JOVIAN).unwrap();
    let mut exact = 0;
    for sample in samples() {
        let data = Bytes::from(sample.clone());
        let gas = chain.view(GAS_PRICE_ORACLE, getL1GasUsedCall { unsignedTx: data.clone() });
        let fee = chain.view(GAS_PRICE_ORACLE, getL1FeeCall { unsignedTx: data });
        let most = chain.view(
            GAS_PRICE_ORACLE,
            getL1FeeUpperBoundCall { unsignedTxSize: U256::from(sample.len()) },
        );
        assert!(fee <= most);
        // Execution's size of the same bytes; where it is above the floor, it tells their FastLZ
        // length, and the oracle counts 68 bytes of signature on top.
        let estimated = estimate_tx_compressed_size(&sample);
        if estimated > 100_000_000 {
            let with_signature = estimated + 68 * 836_500;
            assert_eq!(gas, U256::from(with_signature * 16 / 1_000_000), "{}", sample.len());
            let scaled = info.l1_base_fee * info.l1_base_fee_scalar * U256::from(16);
            assert_eq!(
                fee,
                U256::from(with_signature) * scaled / U256::from(10).pow(U256::from(12))
            );
            exact += 1;
        } else {
            assert!(gas >= U256::from(1_600));
        }
    }
    assert!(exact > 15, "only {exact} samples were above the floor");
}

#[test]
fn smallest_transaction_pays_a_quarter_of_a_virtual_byte_per_byte() {
    // 100 bytes at 4 sat per virtual byte.
    let mut chain = Chain::at_fee_rate(4_000);
    let fee = chain.view(GAS_PRICE_ORACLE, getL1FeeCall { unsignedTx: bytes!("02c0") });
    assert_eq!(fee, sats(100));
}

#[test]
fn oracle_passes_on_what_l1_block_holds() {
    let mut chain = Chain::at_fee_rate(4_000);
    assert_eq!(chain.view(GAS_PRICE_ORACLE, l1BaseFeeCall {}), sats(4));
    assert_eq!(chain.view(GAS_PRICE_ORACLE, baseFeeScalarCall {}), chain.params.fees.l1_fee_scalar);
    assert_eq!(chain.view(GAS_PRICE_ORACLE, blobBaseFeeCall {}), U256::ONE);
    assert_eq!(chain.view(GAS_PRICE_ORACLE, blobBaseFeeScalarCall {}), 0);
    assert_eq!(chain.view(GAS_PRICE_ORACLE, decimalsCall {}), U256::from(6));
    let gas_used = U256::from(1_000);
    let fee =
        |chain: &mut Chain| chain.view(GAS_PRICE_ORACLE, getOperatorFeeCall { gasUsed: gas_used });
    assert_eq!(fee(&mut chain), U256::ZERO);
    // Scalar 3 and constant 11, as execution reads them.
    let slot = (U256::from(3) << 64) | U256::from(11);
    chain.db.insert_account_storage(L1_BLOCK, U256::from(8), slot).unwrap();
    let info = L1BlockInfo::try_fetch(&mut chain.db, U256::from(1), OpSpecId::JOVIAN).unwrap();
    let charged = info.operator_fee_charge(&[2], gas_used, OpSpecId::JOVIAN);
    assert_eq!(fee(&mut chain), charged);
    assert_eq!(charged, U256::from(300_011));
}

#[test]
fn fee_vaults_pay_the_recipient_of_the_parameters() {
    let mut chain = Chain::new();
    let recipient = chain.params.fee_recipient;
    let vaults = [SEQUENCER_FEE_VAULT, BASE_FEE_VAULT, L1_FEE_VAULT, OPERATOR_FEE_VAULT];
    for (paid, vault) in (1u64..).zip(vaults) {
        assert_eq!(chain.view(vault, recipientCall {}), recipient);
        assert!(chain.send(ALICE, vault, btc(1), 100_000, Bytes::new()).success);
        let outcome = chain.call(ALICE, vault, U256::ZERO, withdrawCall {});
        let event = Withdrawal { value: btc(1), to: recipient, from: ALICE };
        assert_eq!(outcome.events(), [(vault, event)]);
        assert_eq!(chain.balance(recipient), btc(paid));
        assert_eq!(chain.balance(vault), U256::ZERO);
        assert_eq!(chain.view(vault, totalProcessedCall {}), btc(1));
    }
}

#[test]
fn fee_vault_without_recipient_keeps_what_it_has() {
    let mut chain = Chain::new();
    chain.db.insert_account_storage(BASE_FEE_VAULT, U256::ONE, U256::ZERO).unwrap();
    chain.send(ALICE, BASE_FEE_VAULT, btc(1), 100_000, Bytes::new());
    chain.call(ALICE, BASE_FEE_VAULT, U256::ZERO, withdrawCall {}).reverted_with::<NoRecipient>();
    assert_eq!(chain.balance(BASE_FEE_VAULT), btc(1));
}

sol! {
    struct Call3 { address target; bool allowFailure; bytes callData; }
    struct Call3Value { address target; bool allowFailure; uint256 value; bytes callData; }
    struct Call { address target; bytes callData; }
    struct CallResult { bool success; bytes returnData; }
    function aggregate3(Call3[] calls) returns (CallResult[] results);
    function aggregate3Value(Call3Value[] calls) returns (CallResult[] results);
    function aggregate(Call[] calls) returns (uint256 blockNumber, bytes[] results);
    function getEthBalance(address account) returns (uint256 balance);
}

#[test]
fn multicall_runs_calls_in_one_and_fails_only_where_asked_to() {
    let mut chain = Chain::at_fee_rate(4_000);
    let fine: Bytes = l1BaseFeeCall {}.abi_encode().into();
    let balance: Bytes = getEthBalanceCall { account: ALICE }.abi_encode().into();
    let calls = |allow| {
        vec![
            Call3 { target: GAS_PRICE_ORACLE, allowFailure: false, callData: fine.clone() },
            Call3 { target: GAS_PRICE_ORACLE, allowFailure: allow, callData: bytes!("deadbeef") },
            Call3 { target: MULTICALL3, allowFailure: false, callData: balance.clone() },
        ]
    };
    assert_eq!(aggregate3Call::SELECTOR, [0x82, 0xad, 0x56, 0xcb]);
    let results = chain.view(MULTICALL3, aggregate3Call { calls: calls(true) });
    let succeeded: Vec<bool> = results.iter().map(|result| result.success).collect();
    assert_eq!(succeeded, [true, false, true]);
    assert_eq!(U256::from_be_slice(&results[0].returnData), sats(4));
    assert_eq!(U256::from_be_slice(&results[2].returnData), btc(1_000));
    let strict = aggregate3Call { calls: calls(false) };
    assert!(!chain.call(ALICE, MULTICALL3, U256::ZERO, strict).success);

    let call = Call { target: GAS_PRICE_ORACLE, callData: fine };
    let both = chain.view(MULTICALL3, aggregateCall { calls: vec![call.clone(), call] });
    assert_eq!(both.results.len(), 2);

    let bob = Address::repeat_byte(0xb0);
    let pay =
        |value| Call3Value { target: bob, allowFailure: false, value, callData: Bytes::new() };
    let payments = aggregate3ValueCall { calls: vec![pay(sats(1)), pay(sats(2))] };
    assert!(!chain.call(ALICE, MULTICALL3, sats(4), payments.clone()).success);
    assert!(chain.call(ALICE, MULTICALL3, sats(3), payments).success);
    assert_eq!(chain.balance(bob), sats(3));
}
