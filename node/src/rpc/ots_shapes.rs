//! What Otterscan gets with receipts, which have the OP Stack's fields here as everywhere.

use super::{
    block::{FullBlock, RpcHeader},
    chain::Chain,
};
use alloy_consensus::{TxReceipt as _, Typed2718 as _};
use alloy_rpc_types_eth::TransactionReceipt;
use alloy_rpc_types_trace::otterscan::{self, OtsReceipt, OtsTransactionReceipt};
use op_alloy_rpc_types::{L1BlockInfo, Transaction};
use serde::Serialize;

/// A page of a block's transactions.
#[derive(Clone, Debug, Serialize)]
pub struct OtsBlock {
    /// The block with these transactions.
    pub fullblock: otterscan::OtsBlock<Transaction, RpcHeader>,
    /// Their receipts.
    pub receipts: Vec<OtsOpReceipt>,
}

/// A page of transactions that a search found, newest first.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OtsPage {
    /// The transactions.
    pub txs: Vec<Transaction>,
    /// Their receipts.
    pub receipts: Vec<OtsOpReceipt>,
    /// Whether there are no newer ones.
    pub first_page: bool,
    /// Whether there are no older ones.
    pub last_page: bool,
}

/// A receipt without logs, which Otterscan asks for apart.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OtsOpReceipt {
    #[serde(flatten)]
    receipt: OtsTransactionReceipt,
    #[serde(flatten)]
    l1: L1BlockInfo,
    #[serde(skip_serializing_if = "Option::is_none", with = "alloy_serde::quantity::opt")]
    deposit_nonce: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", with = "alloy_serde::quantity::opt")]
    deposit_receipt_version: Option<u64>,
}

/// The receipt of the transaction at `index`. `l1` are the fee inputs that the block's transactions paid by.
pub(super) fn receipt(
    chain: &Chain,
    block: &FullBlock,
    index: usize,
    l1: &op_revm::L1BlockInfo,
) -> Option<OtsOpReceipt> {
    let shown = block.receipt(index, &chain.evm, l1)?;
    let envelope = block.receipts.get(index)?;
    let receipt = shown.inner;
    let inner = OtsReceipt {
        status: receipt.inner.receipt.status(),
        cumulative_gas_used: receipt.inner.receipt.cumulative_gas_used(),
        logs: None,
        logs_bloom: None,
        r#type: block.transactions.get(index)?.ty(),
    };
    let receipt = TransactionReceipt {
        inner,
        transaction_hash: receipt.transaction_hash,
        transaction_index: receipt.transaction_index,
        block_hash: receipt.block_hash,
        block_number: receipt.block_number,
        gas_used: receipt.gas_used,
        effective_gas_price: receipt.effective_gas_price,
        blob_gas_used: receipt.blob_gas_used,
        blob_gas_price: receipt.blob_gas_price,
        from: receipt.from,
        to: receipt.to,
        contract_address: receipt.contract_address,
    };
    Some(OtsOpReceipt {
        receipt: OtsTransactionReceipt { receipt, timestamp: Some(block.header.timestamp) },
        l1: shown.l1_block_info,
        deposit_nonce: envelope.deposit_nonce(),
        deposit_receipt_version: envelope.deposit_receipt_version(),
    })
}
