//! Transactions: decoded, their senders recovered, and validated by a block that lists them.

use crate::{OLD_FORK, config, spec, state_of};
use alloy_consensus::{Transaction, transaction::SignerRecoverable};
use alloy_eips::Decodable2718;
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use kedge_vectors::Vectors;
use kedge_vm::{
    AccountInfo, EvmConfig, ExecutedBlock, OpTxEnvelope, PayloadTx, SkipReason, StateDiff,
    exec::{BlockAttributes, Known, Senders, execute_block},
    intrinsic_gas,
    trie::{OneThread, StateTries},
};
use op_revm::OpSpecId;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Files whose valid transactions Kedge refuses, by the end of their path, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/TransactionWithHighGasPrice.json", PRICE),
    ("/V_equals38.json", PRICE),
    ("/GasLimitPriceProductOverflowtMinusOne.json", PRICE),
    ("/TransactionWithHighValue.json", VALUE),
];
const PRICE: &str =
    "prices of 2^128 wei and more, which all coins together could not pay, are not decoded";
const VALUE: &str = "value and fee are more than any balance, which the vectors do not look at";

#[derive(Deserialize)]
struct Test {
    result: BTreeMap<String, Expected>,
    txbytes: Bytes,
}

#[derive(Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Expected {
    Invalid { exception: String },
    Valid { hash: B256, intrinsic_gas: U64, sender: Address },
}

#[test]
fn transactions_are_valid_where_the_vectors_say_so() {
    let Some(vectors) = Vectors::find("ethereum/TransactionTests", &[]) else { return };
    let tally = vectors.run(|file, tally| {
        let exception = EXCEPTIONS.iter().find(|(end, _)| file.ends_with(end));
        let tests: BTreeMap<String, Test> = serde_json::from_slice(&vectors.read(file)).unwrap();
        for (name, test) in tests {
            for (fork, expected) in &test.result {
                match spec(fork) {
                    None => tally.except(OLD_FORK),
                    Some(spec) => tally.case(
                        || format!("{file}: {name}: {fork}"),
                        exception.map(|(_, reason)| *reason),
                        check(spec, &test.txbytes, expected),
                    ),
                }
            }
        }
    });
    vectors.finish(tally);
}

fn check(spec: OpSpecId, bytes: &Bytes, expected: &Expected) -> Result<(), String> {
    let config = config(spec);
    let block = block(&config, bytes);
    match expected {
        Expected::Invalid { exception } => match &block.skipped[..] {
            [(0, reason)] if is(reason, exception) => Ok(()),
            skipped => Err(format!("expected {exception}, found {skipped:?}")),
        },
        Expected::Valid { hash, intrinsic_gas: intrinsic, sender } => {
            let [tx] = &block.transactions[..] else {
                return Err(format!("skipped: {:?}", block.skipped));
            };
            if (tx.tx_hash(), block.senders[0]) != (*hash, *sender) {
                return Err(format!("hash {}, sender {}", tx.tx_hash(), block.senders[0]));
            }
            let floor = 21_000
                + tx.input().iter().map(|byte| if *byte == 0 { 10 } else { 40 }).sum::<u64>();
            // Kedge's meter charges the newest rules.
            if spec.is_enabled_in(OpSpecId::CANYON)
                && intrinsic_gas(bytes) != floor.max(intrinsic.to())
            {
                return Err(format!("intrinsic gas {}, not {intrinsic}", intrinsic_gas(bytes)));
            }
            // A call of nothing uses no other gas.
            let used = block.receipts[0].cumulative_gas_used();
            let least = if spec.is_enabled_in(OpSpecId::ISTHMUS) { floor } else { 0 };
            if tx.to().is_some_and(|to| config.precompiles().get(&to).is_none())
                && used != least.max(intrinsic.to())
            {
                return Err(format!("gas used {used}, not {intrinsic}"));
            }
            Ok(())
        }
    }
}

/// A block with no other transaction, on a state in which its sender has the nonce and every coin.
fn block(config: &EvmConfig, bytes: &Bytes) -> ExecutedBlock {
    let mut state = StateDiff::default();
    if let Ok(tx) = OpTxEnvelope::decode_2718_exact(bytes)
        && let Ok(sender) = tx.recover_signer()
    {
        let account =
            AccountInfo { nonce: tx.nonce(), balance: U256::MAX, ..AccountInfo::default() };
        state.accounts.insert(sender, Some(account));
    }
    let (mut db, parent) = state_of(state);
    let attributes = BlockAttributes {
        number: 1,
        timestamp: 1,
        beneficiary: config.beneficiary,
        prev_randao: B256::ZERO,
        gas_limit: u64::MAX,
        base_fee: 0,
        parent_beacon_block_root: B256::ZERO,
        extra_data: Bytes::new(),
    };
    let listed = [PayloadTx::User(bytes.clone())];
    let tries = &mut StateTries::<OneThread>::default();
    let known = Known { senders: &Senders::default(), tries };
    execute_block(config, &attributes, &parent, parent.hash_slow(), &listed, known, &mut db)
        .unwrap()
}

/// Whether `reason` is what the vectors call `exception`.
fn is(reason: &SkipReason, exception: &str) -> bool {
    let name = exception.strip_prefix("TransactionException.").unwrap_or(exception);
    let invalid = match name {
        "INTRINSIC_GAS_TOO_LOW" => "call gas cost",
        "GASLIMIT_PRICE_PRODUCT_OVERFLOW" => "overflow payment",
        "INITCODE_SIZE_EXCEEDED" => "initcode size limit",
        "INVALID_CHAINID" => "invalid chain ID",
        "NONCE_TOO_BIG" => "nonce overflow",
        "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS_2" => "priority fee is greater",
        // Everything else that is wrong is found before the EVM sees it.
        _ => return matches!(reason, SkipReason::Undecodable | SkipReason::Signature),
    };
    match reason {
        SkipReason::Invalid(text) => text.contains(invalid),
        // Out of range, as a signature for no chain that there is, or a price of 2^128 wei.
        SkipReason::Undecodable => matches!(
            name,
            "INVALID_CHAINID"
                | "GASLIMIT_PRICE_PRODUCT_OVERFLOW"
                | "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS_2"
        ),
        SkipReason::Signature => name == "INVALID_CHAINID",
        _ => false,
    }
}
