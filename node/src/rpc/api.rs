//! `eth_*`: the methods, their parameters and answers.

use super::encoded::Json;
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{
    AccessListResult, BlockOverrides, EIP1186AccountProofResponse, FeeHistory, Filter, Index, Log,
    SyncStatus, TransactionRequest, state::StateOverride,
};
use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use op_alloy_rpc_types::{OpTransactionReceipt, Transaction};

/// `eth_*` as the execution-apis specification has it.
#[rpc(server, namespace = "eth")]
pub trait EthApi {
    /// EIP-155 chain id.
    #[method(name = "chainId")]
    fn chain_id(&self) -> RpcResult<U64>;

    /// Number of the newest block.
    #[method(name = "blockNumber")]
    fn block_number(&self) -> RpcResult<U64>;

    /// False, or how far the node is.
    #[method(name = "syncing")]
    fn syncing(&self) -> RpcResult<SyncStatus>;

    /// None: the node holds no keys.
    #[method(name = "accounts")]
    fn accounts(&self) -> RpcResult<Vec<Address>>;

    /// An account's wei.
    #[method(name = "getBalance")]
    fn balance(&self, address: Address, block: Option<BlockId>) -> RpcResult<U256>;

    /// An account's nonce; with `pending`, after the transactions that wait, here or at the sequencer.
    #[method(name = "getTransactionCount")]
    async fn transaction_count(&self, address: Address, block: Option<BlockId>) -> RpcResult<U64>;

    /// An account's code.
    #[method(name = "getCode")]
    fn code(&self, address: Address, block: Option<BlockId>) -> RpcResult<Bytes>;

    /// A contract's slot.
    #[method(name = "getStorageAt")]
    fn storage_at(&self, address: Address, slot: String, block: Option<BlockId>)
    -> RpcResult<B256>;

    /// An account and slots with their Merkle proofs (EIP-1186), after any block.
    #[method(name = "getProof")]
    async fn proof(
        &self,
        address: Address,
        slots: Vec<String>,
        block: Option<BlockId>,
    ) -> RpcResult<EIP1186AccountProofResponse>;

    /// What a call returns.
    #[method(name = "call")]
    async fn call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<Bytes>;

    /// How much gas a transaction needs.
    #[method(name = "estimateGas")]
    async fn estimate_gas(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<U64>;

    /// The accounts and slots that a transaction touches (EIP-2930).
    #[method(name = "createAccessList")]
    async fn create_access_list(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<AccessListResult>;

    /// Base fee of the next block plus the suggested tip.
    #[method(name = "gasPrice")]
    fn gas_price(&self) -> RpcResult<U256>;

    /// The suggested tip.
    #[method(name = "maxPriorityFeePerGas")]
    fn max_priority_fee_per_gas(&self) -> RpcResult<U256>;

    /// One: there are no blobs.
    #[method(name = "blobBaseFee")]
    fn blob_base_fee(&self) -> RpcResult<U256>;

    /// Fees of past blocks.
    #[method(name = "feeHistory", blocking)]
    fn fee_history(
        &self,
        count: U64,
        newest: BlockNumberOrTag,
        percentiles: Option<Vec<f64>>,
    ) -> RpcResult<FeeHistory>;

    /// Hands in a signed transaction.
    #[method(name = "sendRawTransaction")]
    async fn send_raw_transaction(&self, encoded: Bytes) -> RpcResult<B256>;

    /// A block by number or tag; null when there is none.
    #[method(name = "getBlockByNumber", blocking)]
    fn block_by_number(
        &self,
        number: BlockNumberOrTag,
        full: Option<bool>,
    ) -> RpcResult<Option<Json>>;

    /// A block by hash; null when there is none.
    #[method(name = "getBlockByHash", blocking)]
    fn block_by_hash(&self, hash: B256, full: Option<bool>) -> RpcResult<Option<Json>>;

    /// The receipts of a block; null when there is no such block.
    #[method(name = "getBlockReceipts", blocking)]
    fn block_receipts(&self, block: BlockId) -> RpcResult<Option<Json>>;

    /// Number of transactions of a block.
    #[method(name = "getBlockTransactionCountByNumber", blocking)]
    fn count_by_number(&self, number: BlockNumberOrTag) -> RpcResult<Option<U64>>;

    /// Number of transactions of a block.
    #[method(name = "getBlockTransactionCountByHash", blocking)]
    fn count_by_hash(&self, hash: B256) -> RpcResult<Option<U64>>;

    /// Zero: there are no uncles.
    #[method(name = "getUncleCountByBlockNumber")]
    fn uncles_by_number(&self, number: BlockNumberOrTag) -> RpcResult<Option<U64>>;

    /// Zero: there are no uncles.
    #[method(name = "getUncleCountByBlockHash")]
    fn uncles_by_hash(&self, hash: B256) -> RpcResult<Option<U64>>;

    /// A transaction, included or waiting, here or at the sequencer.
    #[method(name = "getTransactionByHash")]
    async fn transaction_by_hash(&self, hash: B256) -> RpcResult<Option<Transaction>>;

    /// A transaction's EIP-2718 bytes, included or waiting, here or at the sequencer.
    #[method(name = "getRawTransactionByHash")]
    async fn raw_transaction_by_hash(&self, hash: B256) -> RpcResult<Option<Bytes>>;

    /// A transaction by its place.
    #[method(name = "getTransactionByBlockNumberAndIndex", blocking)]
    fn transaction_by_number_and_index(
        &self,
        number: BlockNumberOrTag,
        index: Index,
    ) -> RpcResult<Option<Transaction>>;

    /// A transaction by its place.
    #[method(name = "getTransactionByBlockHashAndIndex", blocking)]
    fn transaction_by_hash_and_index(
        &self,
        hash: B256,
        index: Index,
    ) -> RpcResult<Option<Transaction>>;

    /// The receipt of an included transaction.
    #[method(name = "getTransactionReceipt", blocking)]
    fn transaction_receipt(&self, hash: B256) -> RpcResult<Option<OpTransactionReceipt>>;

    /// The logs that a filter matches.
    #[method(name = "getLogs")]
    async fn logs(&self, filter: Filter) -> RpcResult<Vec<Log>>;
}
