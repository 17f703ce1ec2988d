//! What a Bitcoin block does to the bridge's tables: deposits, the vault's outputs, payouts.

use super::EngineError;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, OutPoint};
use kedge_bridge::deposit::{deposit_tx, deposits_in};
use kedge_bridge::derive::{DeriveState, L1Block};
use kedge_bridge::payout::{PayoutFault, Withdrawal, check_payout};
use kedge_bridge::vault::VaultState;
use kedge_genesis::{Params, Sats};
use kedge_store::{
    Change, DepositRow, L1Rows, L2Rows, NoteRow, PayoutRow, StoreError, Table, UnattributedRow,
    VaultUtxo,
};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) deposits: Vec<DepositRow>,
    pub(super) paid: Vec<u64>,
    pub(super) notes: Vec<NoteRow>,
}

/// Writes what the block after `pre` does to the bridge.
pub(super) fn write(
    change: &mut Change<'_>,
    params: &Params,
    pre: &DeriveState,
    post: &DeriveState,
    l1: &L1Block,
) -> Result<Found, EngineError> {
    let mut found = Found::default();
    write_deposits(change, params, post, l1, &mut found)?;
    write_vault(change, params, pre, post, l1, &mut found)?;
    Ok(found)
}

fn write_deposits(
    change: &mut Change<'_>,
    params: &Params,
    post: &DeriveState,
    l1: &L1Block,
    found: &mut Found,
) -> Result<(), EngineError> {
    let scan = deposits_in(&l1.block, &post.vault, params.min_deposit, l1.at.height);
    let mut sums = change.l1_sums()?;
    let hash = BlockHash::from_byte_array(l1.at.hash.0);
    for (position, deposit) in (0u32..).zip(&scan.deposits) {
        let row = DepositRow {
            l1: l1.at,
            outpoint: deposit.outpoint,
            recipient: deposit.recipient,
            amount: deposit.amount,
            transaction: deposit_tx(hash, deposit, params).tx_hash(),
        };
        change.put_deposit(position, &row)?;
        sums.deposits = sums.deposits.saturating_add(1);
        sums.deposited = add(sums.deposited, deposit.amount)?;
        found.deposits.push(row);
    }
    for (outpoint, amount, reason) in scan.unattributed {
        let reason = reason.to_string();
        found.notes.push(NoteRow {
            label: "unattributed".to_owned(),
            text: format!("vault output {outpoint} of {amount}: {reason}"),
        });
        change.put_unattributed(&UnattributedRow {
            outpoint,
            amount,
            height: l1.at.height,
            reason,
        })?;
        sums.unattributed = sums.unattributed.saturating_add(1);
    }
    Ok(change.put_l1_sums(&sums)?)
}

fn write_vault(
    change: &mut Change<'_>,
    params: &Params,
    pre: &DeriveState,
    post: &DeriveState,
    l1: &L1Block,
    found: &mut Found,
) -> Result<(), EngineError> {
    let mut sums = change.l1_sums()?;
    let mut vault = VaultState { head: pre.vault_head, scripts: pre.vault.clone() };
    for tx in &l1.block.txdata {
        let head = vault.head.filter(|head| tx.input.iter().any(|it| it.previous_output == *head));
        if let Some(head) = head {
            let unpaid = unpaid(change, sums.next_payout, pre, tx.output.len())?;
            match check_payout(tx, head, &unpaid) {
                Ok(run) => {
                    let txid = tx.compute_txid();
                    // Output 0 is the change, output 1 the tag, then the payments in order.
                    for (withdrawal, vout) in unpaid.iter().zip(2..).take(run.count as usize) {
                        let row = PayoutRow { txid, vout, l1: l1.at };
                        change.put_payout(withdrawal.index, &row)?;
                        sums.paid = add(sums.paid, withdrawal.amount)?;
                        sums.paid_fees = add(sums.paid_fees, withdrawal.fee)?;
                        sums.next_payout = withdrawal.index.saturating_add(1);
                        found.paid.push(withdrawal.index);
                    }
                }
                Err(PayoutFault::Untagged) => {}
                Err(fault) => found.notes.push(NoteRow {
                    label: "payout".to_owned(),
                    text: format!("{} pays no withdrawals: {fault}", tx.compute_txid()),
                }),
            }
        }
        vault.apply(tx, l1.at.height, params);
        for input in &tx.input {
            if let Some(spent) = change.take_vault_utxo(&input.previous_output)? {
                sums.vault = sums.vault.checked_sub(spent.amount).ok_or_else(overflow)?;
            }
        }
        for (vout, output) in (0u32..).zip(&tx.output) {
            if post.vault.contains(&output.script_pubkey) {
                let utxo = VaultUtxo {
                    outpoint: OutPoint::new(tx.compute_txid(), vout),
                    amount: Sats(output.value.to_sat()),
                    script: output.script_pubkey.clone(),
                    height: l1.at.height,
                    coinbase: tx.is_coinbase(),
                };
                sums.vault = add(sums.vault, utxo.amount)?;
                change.put_vault_utxo(&utxo)?;
            }
        }
    }
    Ok(change.put_l1_sums(&sums)?)
}

/// The queued withdrawals from `first` on that Bitcoin had made safe before this block, at most `count`.
fn unpaid(
    change: &Change<'_>,
    first: u64,
    pre: &DeriveState,
    count: usize,
) -> Result<Vec<Withdrawal>, EngineError> {
    let mut unpaid = Vec::new();
    for index in (first..).take(count) {
        match change.withdrawal(index)?.filter(|it| it.block <= pre.cursor.number) {
            Some(queued) => unpaid.push(queued.into()),
            None => break,
        }
    }
    Ok(unpaid)
}

fn add(sum: Sats, amount: Sats) -> Result<Sats, EngineError> {
    sum.checked_add(amount).ok_or_else(|| overflow().into())
}

fn overflow() -> StoreError {
    StoreError::Corrupt { table: Table::L1Meta.name(), key: "sums".to_owned() }
}
