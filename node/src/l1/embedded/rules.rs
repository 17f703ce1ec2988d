//! What Bitcoin Core demands of one transaction: consensus by its own checks, and the relay policies
//! about a transaction's shape.

use super::coins::{Coin, Coins};
use bitcoin::{Amount, Sequence, Transaction, absolute, consensus};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{PrecomputedTransactionData, ScriptPubkey, TxCheckResult, VERIFY_ALL, verify};
use std::sync::Arc;

/// The largest standard transaction, weight units.
const MAX_TX_WEIGHT: u64 = 400_000;
/// The smallest transaction without its witness: 64 bytes look like a merkle node.
const MIN_STRIPPED_SIZE: usize = 65;
const COINBASE_MATURITY: u32 = 100;

/// Why a transaction is not accepted, in Bitcoin Core's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Bitcoin Core's RPC error code.
    pub code: i64,
    /// Bitcoin Core's reason.
    pub reason: String,
}

/// Bitcoin Core's RPC error codes for refused transactions.
pub mod code {
    /// Inputs missing or spent.
    pub const MISSING: i64 = -25;
    /// Refused by policy or consensus.
    pub const REFUSED: i64 = -26;
    /// Confirmed already.
    pub const KNOWN: i64 = -27;
}

pub(super) fn refuse(reason: impl Into<String>) -> Refusal {
    Refusal { code: code::REFUSED, reason: reason.into() }
}

/// The tip that a transaction would be built on.
#[derive(Clone, Debug)]
pub struct Tip {
    /// Its height.
    pub height: u32,
    /// Median time past by height, for BIP-113 and BIP-68.
    pub median_times: Arc<Vec<u32>>,
}

impl Tip {
    fn median_time(&self, height: u32) -> u32 {
        self.median_times.get(height as usize).copied().unwrap_or_default()
    }
}

pub(super) fn missing() -> Refusal {
    Refusal { code: code::MISSING, reason: "bad-txns-inputs-missingorspent".into() }
}

/// Checks a transaction by all that consensus says about one in the block after `tip`. Answers the coins
/// that it spends, in order, and its fee in satoshis.
///
/// # Errors
/// Why a block with it would not be valid.
pub fn check_consensus(
    tx: &Transaction,
    coins: &Coins,
    tip: &Tip,
) -> Result<(Vec<Coin>, u64), Refusal> {
    let kernel = well_formed(tx)?;
    is_final(tx, tip)?;
    let spent = tx.input.iter().map(|input| coins.get(&input.previous_output).cloned());
    let spent = spent.collect::<Option<Vec<_>>>().ok_or_else(missing)?;
    let fee = spendable(tx, &spent, tip)?;
    scripts_pass(&kernel, &spent)?;
    Ok((spent, fee))
}

/// Checks what needs no coins.
pub(super) fn well_formed(tx: &Transaction) -> Result<bitcoinkernel::Transaction, Refusal> {
    let raw = consensus::serialize(tx);
    let kernel =
        bitcoinkernel::Transaction::new(&raw).map_err(|_| refuse("bad-txns-undecodable"))?;
    if let TxCheckResult::Invalid(_) = kernel.check() {
        return Err(refuse("bad-txns-invalid"));
    }
    if tx.is_coinbase() { Err(refuse("coinbase")) } else { Ok(kernel) }
}

/// The relay rules about the shape of a transaction.
pub(super) fn standard(tx: &Transaction) -> Result<(), Refusal> {
    if !(1..=3).contains(&tx.version.0) {
        return Err(refuse("version"));
    }
    if tx.weight().to_wu() > MAX_TX_WEIGHT {
        return Err(refuse("tx-size"));
    }
    if tx.base_size() < MIN_STRIPPED_SIZE {
        return Err(refuse("tx-size-small"));
    }
    if tx.input.iter().any(|input| !input.script_sig.is_push_only()) {
        return Err(refuse("scriptsig-not-pushonly"));
    }
    let mut data = 0;
    for output in &tx.output {
        let script = &output.script_pubkey;
        if script.is_op_return() {
            data += script.len();
            continue;
        }
        let known = script.is_p2pk()
            || script.is_p2pkh()
            || script.is_p2sh()
            || script.is_witness_program()
            || script.is_multisig();
        if !known {
            return Err(refuse("scriptpubkey"));
        }
        if output.value < script.minimal_non_dust() {
            return Err(refuse("dust"));
        }
    }
    if data as u64 > MAX_TX_WEIGHT / 4 {
        return Err(refuse("datacarrier"));
    }
    Ok(())
}

/// BIP-113: a lock time is compared with the median time past.
pub(super) fn is_final(tx: &Transaction, tip: &Tip) -> Result<(), Refusal> {
    let passed = match tx.lock_time {
        absolute::LockTime::Blocks(at) => at.to_consensus_u32() <= tip.height,
        absolute::LockTime::Seconds(at) => at.to_consensus_u32() < tip.median_time(tip.height),
    };
    let waived = tx.input.iter().all(|input| input.sequence == Sequence::MAX);
    if passed || waived { Ok(()) } else { Err(refuse("non-final")) }
}

/// Checks maturity, BIP-68 and the amounts of a transaction that spends these coins. Its fee, satoshis.
pub(super) fn spendable(tx: &Transaction, spent: &[Coin], tip: &Tip) -> Result<u64, Refusal> {
    if spent.iter().any(|coin| coin.coinbase && tip.height + 1 < coin.height + COINBASE_MATURITY) {
        return Err(refuse("bad-txns-premature-spend-of-coinbase"));
    }
    if !sequence_locks_passed(tx, spent, tip) {
        return Err(refuse("non-BIP68-final"));
    }
    let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
    let held: u64 = spent.iter().map(|coin| coin.output.value.to_sat()).sum();
    held.checked_sub(paid).ok_or_else(|| refuse("bad-txns-in-belowout"))
}

/// BIP-68.
fn sequence_locks_passed(tx: &Transaction, spent: &[Coin], tip: &Tip) -> bool {
    if tx.version.0 < 2 {
        return true;
    }
    tx.input.iter().zip(spent).all(|(input, coin)| {
        let bits = input.sequence.0;
        if bits & (1 << 31) != 0 {
            return true;
        }
        let count = bits & 0xffff;
        if bits & (1 << 22) == 0 {
            coin.height + count <= tip.height + 1
        } else {
            let since = tip.median_time(coin.height.saturating_sub(1));
            u64::from(since) + (u64::from(count) << 9) <= u64::from(tip.median_time(tip.height))
        }
    })
}

pub(super) fn scripts_pass(tx: &bitcoinkernel::Transaction, spent: &[Coin]) -> Result<(), Refusal> {
    let failed = |_| refuse("mempool-script-verify-flag-failed");
    let mut outputs = Vec::with_capacity(spent.len());
    for coin in spent {
        let script = ScriptPubkey::new(coin.output.script_pubkey.as_bytes()).map_err(failed)?;
        outputs.push(bitcoinkernel::TxOut::new(&script, signed(coin.output.value)));
    }
    let data = PrecomputedTransactionData::new(tx, &outputs).map_err(failed)?;
    for (index, output) in outputs.iter().enumerate() {
        let script = output.script_pubkey();
        verify(&script, Some(output.value()), tx, index, Some(VERIFY_ALL), &data)
            .map_err(failed)?;
    }
    Ok(())
}

fn signed(amount: Amount) -> i64 {
    i64::try_from(amount.to_sat()).unwrap_or(i64::MAX)
}
