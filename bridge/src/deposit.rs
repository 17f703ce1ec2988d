//! Deposits: a vault output with its address in the transaction's tagged OP_RETURN.
//!
//! Inputs: anything but a vault output. Outputs: any; those whose script is a vault's are the deposits, in
//! output order, and exactly one tagged OP_RETURN `d` (see [`crate::op_return`]) names one recipient for
//! each. A transaction that spends a vault output, whose tag is missing, malformed, twice or of another
//! type, or names more or fewer recipients, is no deposit: its vault outputs are *unattributed*, listed
//! with the reason, and add to the vault's surplus. The same holds for an output below the minimum.
//!
//! Not checked here: who paid, and what the recipient is.

use crate::{
    op_return::{TagFault, Tagged, parse_tx},
    vault::{VaultScripts, tx_spends_vault},
};
use alloc::vec::Vec;
use alloy_primitives::{Address, B256, TxKind, U256, keccak256};
use alloy_sol_types::SolCall;
use bitcoin::{Amount, Block, BlockHash, OutPoint, Script, Transaction, TxOut, hashes::Hash};
use kedge_genesis::{
    L1Height, Params, Sats,
    abi::BitcoinBridge::{addVaultScriptCall, creditCall},
    predeploys,
    units::WEI_PER_SAT,
};
use op_alloy_consensus::TxDeposit;

/// A vault output to be credited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deposit {
    /// The vault output.
    pub outpoint: OutPoint,
    /// Who is credited on L2.
    pub recipient: Address,
    /// How much.
    pub amount: Sats,
}

/// Why a vault output is not credited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unattributed {
    /// Its transaction spends the vault, or what counts as one ([`crate::vault::spends_vault`]).
    #[error("its transaction spends the vault or another script without a key path")]
    SpendsVault,
    /// Its transaction has no tagged OP_RETURN of a deposit.
    #[error("its transaction names no recipient")]
    Untagged,
    /// Its transaction's tag says nothing.
    #[error(transparent)]
    Tag(#[from] TagFault),
    /// Its transaction names another number of recipients than it has vault outputs.
    #[error("{recipients} recipients for {outputs} vault outputs")]
    Count {
        /// Recipients named.
        recipients: u32,
        /// Vault outputs.
        outputs: u32,
    },
    /// It holds less than the minimum.
    #[error("below the smallest deposit")]
    BelowMinimum,
}

/// What a block or a transaction pays the vault, in block order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepositScan {
    /// What is credited.
    pub deposits: Vec<Deposit>,
    /// What is not, and why. The next head of a vault spend (its output 0) is not listed.
    pub unattributed: Vec<(OutPoint, Sats, Unattributed)>,
}

/// The deposits of a block.
pub fn deposits_in(
    block: &Block,
    vault: &VaultScripts,
    min: Sats,
    height: L1Height,
) -> DepositScan {
    let mut scan = DepositScan::default();
    for tx in &block.txdata {
        scan_tx(tx, vault, min, height, &mut scan);
    }
    scan
}

/// Adds what one transaction pays the vault.
pub fn scan_tx(
    tx: &Transaction,
    vault: &VaultScripts,
    min: Sats,
    height: L1Height,
    scan: &mut DepositScan,
) {
    let paid: Vec<(u32, Sats)> = (0u32..)
        .zip(&tx.output)
        .filter(|(_, output)| vault.credits(&output.script_pubkey, height))
        .map(|(vout, output)| (vout, Sats(output.value.to_sat())))
        .collect();
    if paid.is_empty() {
        return;
    }
    let txid = tx.compute_txid();
    let recipients = if tx_spends_vault(tx) {
        Err(Unattributed::SpendsVault)
    } else {
        recipients_of(tx, paid.len())
    };
    match recipients {
        Ok(recipients) => {
            for ((vout, amount), recipient) in paid.into_iter().zip(recipients) {
                let outpoint = OutPoint::new(txid, vout);
                if amount < min {
                    scan.unattributed.push((outpoint, amount, Unattributed::BelowMinimum));
                } else {
                    scan.deposits.push(Deposit { outpoint, recipient, amount });
                }
            }
        }
        Err(reason) => scan.unattributed.extend(
            paid.into_iter()
                .filter(|(vout, _)| reason != Unattributed::SpendsVault || *vout != 0)
                .map(|(vout, amount)| (OutPoint::new(txid, vout), amount, reason)),
        ),
    }
}

fn recipients_of(tx: &Transaction, outputs: usize) -> Result<Vec<Address>, Unattributed> {
    match parse_tx(tx)? {
        Some(Tagged::Deposit(recipients)) if recipients.len() == outputs => Ok(recipients),
        Some(Tagged::Deposit(recipients)) => Err(Unattributed::Count {
            recipients: u32::try_from(recipients.len()).unwrap_or(u32::MAX),
            outputs: u32::try_from(outputs).unwrap_or(u32::MAX),
        }),
        Some(Tagged::Payout { .. } | Tagged::Rotation(_)) | None => Err(Unattributed::Untagged),
    }
}

/// The outputs of a deposit transaction: one vault output per entry, then the tagged OP_RETURN.
pub fn deposit_outputs(vault_script: &Script, deposits: &[(Address, Sats)]) -> Vec<TxOut> {
    let mut outputs: Vec<_> = deposits
        .iter()
        .map(|(_, amount)| TxOut {
            value: Amount::from_sat(amount.0),
            script_pubkey: vault_script.into(),
        })
        .collect();
    outputs.push(Tagged::Deposit(deposits.iter().map(|(to, _)| *to).collect()).tx_out());
    outputs
}

/// The L2 transaction that credits a deposit: from [`predeploys::BRIDGE_DEPOSITOR`] to
/// `BitcoinBridge.credit(recipient)`, minting the amount.
pub fn deposit_tx(block_hash: BlockHash, deposit: &Deposit, params: &Params) -> TxDeposit {
    // 21 million BTC are 2.1 * 10^25 wei, far below 2^128.
    let mint = u128::from(deposit.amount.0).saturating_mul(u128::from(WEI_PER_SAT));
    let input = creditCall { recipient: deposit.recipient }.abi_encode();
    let outpoint = deposit.outpoint;
    let source = keccak256(
        [
            block_hash.as_byte_array(),
            outpoint.txid.as_byte_array(),
            outpoint.vout.to_be_bytes().as_slice(),
        ]
        .concat(),
    );
    TxDeposit {
        source_hash: user_source(source),
        from: predeploys::BRIDGE_DEPOSITOR,
        to: TxKind::Call(predeploys::BITCOIN_BRIDGE),
        mint,
        value: U256::from(mint),
        gas_limit: params.deposit_gas,
        is_system_transaction: false,
        input: input.into(),
    }
}

/// The L2 transaction that tells `BitcoinBridge` of the script that the vault rotated to in this block, so
/// that no withdrawal pays it.
pub fn vault_script_tx(block_hash: BlockHash, script: &Script, params: &Params) -> TxDeposit {
    let input = addVaultScriptCall { scriptPubKey: script.to_bytes().into() }.abi_encode();
    TxDeposit {
        source_hash: user_source(keccak256(
            [block_hash.as_byte_array(), script.as_bytes()].concat(),
        )),
        from: predeploys::BRIDGE_DEPOSITOR,
        to: TxKind::Call(predeploys::BITCOIN_BRIDGE),
        mint: 0,
        value: U256::ZERO,
        gas_limit: params.deposit_gas,
        is_system_transaction: false,
        input: input.into(),
    }
}

/// The OP Stack's source hash of domain 0 (user deposits).
fn user_source(id: B256) -> B256 {
    keccak256([B256::ZERO.0, id.0].concat())
}
