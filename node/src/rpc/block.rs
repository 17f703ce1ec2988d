//! From what the store holds to what Ethereum's JSON-RPC shows.

use crate::{engine::RemovedBlock, mempool::PooledTransaction};
use alloy_consensus::{
    BlockBody, Header, ReceiptWithBloom, Sealed, Transaction as _, TxReceipt,
    transaction::{Recovered, TransactionInfo},
};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::{BlockTransactions, Filter, Log, TransactionReceipt};
use kedge_vm::{EvmConfig, ExecutedBlock};
use op_alloy_consensus::{
    OpReceipt, OpReceiptEnvelope, OpTxEnvelope,
    transaction::{OpDepositInfo, OpTransactionInfo},
};
use op_alloy_rpc_types::{L1BlockInfo, OpTransactionReceipt, Transaction};

/// A block as JSON-RPC shows it.
pub type RpcBlock = alloy_rpc_types_eth::Block<Transaction, RpcHeader>;
/// A header as JSON-RPC shows it.
pub type RpcHeader = alloy_rpc_types_eth::Header;

/// A block with everything that JSON-RPC shows of it.
#[derive(Debug)]
pub(super) struct FullBlock {
    pub(super) header: Header,
    pub(super) hash: B256,
    pub(super) transactions: Vec<OpTxEnvelope>,
    pub(super) senders: Vec<Address>,
    pub(super) receipts: Vec<OpReceiptEnvelope>,
}

impl FullBlock {
    /// A block as it was executed.
    fn of(block: &ExecutedBlock) -> Self {
        Self {
            header: block.header.clone(),
            hash: block.hash,
            transactions: block.transactions.clone(),
            senders: block.senders.clone(),
            receipts: block.receipts.clone(),
        }
    }

    /// A block that left the chain, without senders.
    fn removed(block: &RemovedBlock) -> Self {
        Self {
            header: block.header.clone(),
            hash: block.hash,
            transactions: block.transactions.clone(),
            senders: Vec::new(),
            receipts: block.receipts.clone(),
        }
    }

    /// The logs of a new block that a filter matches, in order.
    pub(super) fn new_logs(block: &ExecutedBlock, filter: &Filter) -> Vec<Log> {
        // Most blocks have none for most filters: those are not copied.
        if filter.matches_bloom(block.header.logs_bloom) {
            Self::of(block).matching(filter, false)
        } else {
            Vec::new()
        }
    }

    /// The logs of a block that left the chain which a filter matches, in order, marked as removed.
    pub(super) fn removed_logs(block: &RemovedBlock, filter: &Filter) -> Vec<Log> {
        if filter.matches_bloom(block.header.logs_bloom) {
            Self::removed(block).matching(filter, true)
        } else {
            Vec::new()
        }
    }

    /// The logs that a filter matches, in order.
    pub(super) fn matching(&self, filter: &Filter, removed: bool) -> Vec<Log> {
        if !filter.matches_bloom(self.header.logs_bloom) {
            return Vec::new();
        }
        let mut logs = self.logs(removed);
        logs.retain(|log| filter.matches(&log.inner));
        logs
    }

    /// The header.
    pub(super) fn rpc_header(&self) -> RpcHeader {
        rpc_header(self.header.clone(), self.hash)
    }

    /// The block, with whole transactions or their hashes.
    pub(super) fn rpc_block(&self, full: bool) -> RpcBlock {
        let size = self.consensus().length();
        let mut header = self.rpc_header();
        header.size = Some(U256::from(size));
        let transactions = if full {
            let all = (0..self.transactions.len()).filter_map(|index| self.transaction(index));
            BlockTransactions::Full(all.collect())
        } else {
            BlockTransactions::Hashes(self.transactions.iter().map(OpTxEnvelope::tx_hash).collect())
        };
        RpcBlock { header, uncles: Vec::new(), transactions, withdrawals: Some(Default::default()) }
    }

    /// The transaction at `index`.
    pub(super) fn transaction(&self, index: usize) -> Option<Transaction> {
        let tx = self.transactions.get(index)?;
        let sender = *self.senders.get(index)?;
        let receipt = self.receipts.get(index)?;
        let inner = self.info(index);
        let deposit_meta = OpDepositInfo {
            deposit_nonce: receipt.deposit_nonce(),
            deposit_receipt_version: receipt.deposit_receipt_version(),
        };
        let tx = Recovered::new_unchecked(tx.clone(), sender);
        Some(Transaction::from_transaction(tx, OpTransactionInfo::new(inner, deposit_meta)))
    }

    /// Where the transaction at `index` is.
    pub(super) fn info(&self, index: usize) -> TransactionInfo {
        TransactionInfo {
            hash: self.transactions.get(index).map(OpTxEnvelope::tx_hash),
            index: Some(index as u64),
            block_hash: Some(self.hash),
            block_number: Some(self.header.number),
            base_fee: self.header.base_fee_per_gas,
            block_timestamp: Some(self.header.timestamp),
        }
    }

    /// The RLP of the block (yellow paper, section 4.3).
    pub(super) fn encoded(&self) -> Bytes {
        alloy_rlp::encode(self.consensus()).into()
    }

    fn consensus(&self) -> alloy_consensus::Block<OpTxEnvelope> {
        let body = BlockBody {
            transactions: self.transactions.clone(),
            ommers: Vec::new(),
            withdrawals: Some(Default::default()),
        };
        alloy_consensus::Block::new(self.header.clone(), body)
    }

    /// The EIP-2718 bytes of the transaction at `index`.
    pub(super) fn raw_transaction(&self, index: usize) -> Option<Bytes> {
        Some(self.transactions.get(index)?.encoded_2718().into())
    }

    /// All logs, in order.
    pub(super) fn logs(&self, removed: bool) -> Vec<Log> {
        let mut logs = Vec::new();
        for (index, (tx, receipt)) in self.transactions.iter().zip(&self.receipts).enumerate() {
            for log in receipt.logs() {
                let at = logs.len();
                logs.push(self.log(log, tx.tx_hash(), index, at, removed));
            }
        }
        logs
    }

    fn log(
        &self,
        log: &alloy_primitives::Log,
        transaction: B256,
        index: usize,
        log_index: usize,
        removed: bool,
    ) -> Log {
        Log {
            inner: log.clone(),
            block_hash: Some(self.hash),
            block_number: Some(self.header.number),
            block_timestamp: Some(self.header.timestamp),
            transaction_hash: Some(transaction),
            transaction_index: Some(index as u64),
            log_index: Some(log_index as u64),
            removed,
        }
    }

    /// The receipt of the transaction at `index`. `l1` are the fee inputs that the block's
    /// transactions paid by.
    pub(super) fn receipt(
        &self,
        index: usize,
        evm: &EvmConfig,
        l1: &op_revm::L1BlockInfo,
    ) -> Option<OpTransactionReceipt> {
        let tx = self.transactions.get(index)?;
        let from = *self.senders.get(index)?;
        let envelope = self.receipts.get(index)?;
        let before = self.receipts.get(..index)?;
        let cumulative = |receipt: &OpReceiptEnvelope| receipt.cumulative_gas_used();
        let gas_used = cumulative(envelope).saturating_sub(before.last().map_or(0, cumulative));
        let mut log_index: usize = before.iter().map(|receipt| receipt.logs().len()).sum();
        let hash = tx.tx_hash();
        let receipt = OpReceipt::from(envelope.clone()).map_logs(|log| {
            let log = self.log(&log, hash, index, log_index, false);
            log_index += 1;
            log
        });
        let nonce = envelope.deposit_nonce().unwrap_or_else(|| tx.nonce());
        Some(OpTransactionReceipt {
            inner: TransactionReceipt {
                inner: ReceiptWithBloom { receipt, logs_bloom: envelope.bloom() },
                transaction_hash: hash,
                transaction_index: Some(index as u64),
                block_hash: Some(self.hash),
                block_number: Some(self.header.number),
                gas_used,
                effective_gas_price: if tx.is_deposit() {
                    0
                } else {
                    tx.effective_gas_price(self.header.base_fee_per_gas)
                },
                blob_gas_used: None,
                blob_gas_price: None,
                from,
                to: tx.to(),
                contract_address: tx.is_create().then(|| from.create(nonce)),
            },
            l1_block_info: l1_fields(tx, evm, l1),
            op_gas_refund: None,
        })
    }
}

/// A transaction that waits for a block.
pub(super) fn pending_transaction(tx: &PooledTransaction) -> Transaction {
    pending_transaction_of(OpTxEnvelope::from(tx.tx.clone()), tx.sender)
}

/// A transaction of `sender` that is in no block.
pub(super) fn pending_transaction_of(tx: OpTxEnvelope, sender: Address) -> Transaction {
    let inner = TransactionInfo { hash: Some(tx.tx_hash()), ..Default::default() };
    let recovered = Recovered::new_unchecked(tx, sender);
    Transaction::from_transaction(recovered, OpTransactionInfo { inner, ..Default::default() })
}

/// A header with its hash.
pub(super) fn rpc_header(header: Header, hash: B256) -> RpcHeader {
    RpcHeader::from_sealed(Sealed::new_unchecked(header, hash))
}

/// What a transaction paid for its Bitcoin space; nothing for a deposit.
fn l1_fields(tx: &OpTxEnvelope, evm: &EvmConfig, l1: &op_revm::L1BlockInfo) -> L1BlockInfo {
    if tx.is_deposit() {
        return L1BlockInfo::default();
    }
    let encoded = tx.encoded_2718();
    let small = |value: U256| u128::try_from(value).ok();
    L1BlockInfo {
        l1_gas_price: small(l1.l1_base_fee),
        l1_gas_used: small(l1.data_gas(&encoded, evm.spec)),
        l1_fee: small(evm.l1_fee(l1, &encoded)),
        l1_fee_scalar: None,
        l1_base_fee_scalar: small(l1.l1_base_fee_scalar),
        l1_blob_base_fee: l1.l1_blob_base_fee.and_then(small),
        l1_blob_base_fee_scalar: l1.l1_blob_base_fee_scalar.and_then(small),
        operator_fee_scalar: l1.operator_fee_scalar.and_then(small),
        operator_fee_constant: l1.operator_fee_constant.and_then(small),
        da_footprint_gas_scalar: l1.da_footprint_gas_scalar,
    }
}
