//! Answers the requests of [`super::api`] from the node's store.

use super::{
    api::EthApiServer,
    block::{FullBlock, pending_transaction},
    call::{Overrides, Prepared},
    chain::{Chain, View},
    encoded::{Json, Part},
    error::RpcError,
    fees::SUGGESTED_TIP,
    heavy::HeavyPool,
    logs::LogLimits,
    proof,
    server::RpcConfig,
    submit::Submission,
};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U64, U256, hex};
use alloy_rpc_types_eth::{
    AccessListResult, BlockOverrides, EIP1186AccountProofResponse, FeeHistory, Filter, Index, Log,
    SyncInfo, SyncStatus, TransactionRequest, state::StateOverride,
};
use jsonrpsee::core::{RpcResult, async_trait};
use kedge_genesis::L2Number;
use op_alloy_rpc_types::{OpTransactionReceipt, Transaction};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Implements [`EthApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct Eth {
    pub(super) chain: Arc<Chain>,
    pub(super) submission: Submission,
    calls: Arc<Semaphore>,
    heavy: HeavyPool,
    pub(super) call_gas: u64,
    log_limits: LogLimits,
}

impl Eth {
    pub(super) fn new(chain: Arc<Chain>, submission: Submission, config: &RpcConfig) -> Self {
        Self {
            chain,
            submission,
            calls: Arc::new(Semaphore::new(config.concurrent_calls.max(1))),
            heavy: config.heavy.clone(),
            call_gas: config.call_gas,
            log_limits: config.into(),
        }
    }

    /// Runs something that executes code off the event loop, a bounded number at a time.
    pub(super) async fn execute<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Chain) -> Result<T, RpcError> + Send + 'static,
    ) -> RpcResult<T> {
        let closed = |error: tokio::sync::AcquireError| RpcError::Internal(error.into());
        let permit = self.calls.clone().acquire_owned().await.map_err(closed)?;
        let chain = self.chain.clone();
        let result = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            run(&chain)
        });
        Ok(result.await.map_err(|error| RpcError::Internal(error.into()))??)
    }

    /// Looks a block up and shows something of it; null when there is no such block.
    pub(super) fn of_block<T>(
        &self,
        id: BlockId,
        show: impl FnOnce(&View<'_>, L2Number) -> Result<Option<T>, RpcError>,
    ) -> RpcResult<Option<T>> {
        let view = self.chain.view();
        match view.find(id)? {
            Some(number) => Ok(show(&view, number)?),
            None => Ok(None),
        }
    }

    pub(super) fn with_call<T: Send + 'static>(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        overrides: Overrides,
        run: impl FnOnce(Prepared<'_, kedge_store::StateAt<'_, '_>>) -> Result<T, RpcError>
        + Send
        + 'static,
    ) -> impl Future<Output = RpcResult<T>> {
        let cap = self.call_gas;
        self.execute(move |chain| prepared(chain, request, block, overrides, cap, run))
    }

    /// What a call returns if it takes microseconds and succeeds.
    pub(super) fn brief_call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
    ) -> Option<Bytes> {
        let (chain, cap) = (&self.chain, self.call_gas);
        prepared(chain, request, block, Overrides::default(), cap, |call| call.brief()).ok()?
    }
}

/// Puts a request on the state after a block, and runs it.
fn prepared<T>(
    chain: &Chain,
    request: TransactionRequest,
    block: Option<BlockId>,
    overrides: Overrides,
    cap: u64,
    run: impl FnOnce(Prepared<'_, kedge_store::StateAt<'_, '_>>) -> Result<T, RpcError>,
) -> Result<T, RpcError> {
    let view = chain.view();
    let number = view.number(block)?;
    let header = view.header(number)?;
    let mut state = view.state(Some(number.0.into()))?;
    let l1 = chain.evm.l1_block_info(number.0, &mut state)?;
    run(Prepared::new(&chain.evm, &header, state, l1, request, overrides, cap)?)
}

impl Eth {
    /// The nonce of an account in a block's state.
    pub(super) fn nonce(&self, address: Address, block: Option<BlockId>) -> Result<U64, RpcError> {
        let account = self.chain.view().state(block)?.account(address)?;
        Ok(U64::from(account.map(|account| account.nonce).unwrap_or_default()))
    }

    /// The nonce after everything of an account that waits, here or at the sequencer.
    pub(super) async fn next_nonce(&self, address: Address) -> Result<u64, RpcError> {
        let waiting = match &self.submission {
            Submission::Mempool(mempool) => mempool.next_nonce(&address),
            Submission::Forward(sequencer) => sequencer.next_nonce(address).await,
            Submission::Refused => None,
        };
        let account = self.chain.view().state(None)?.account(address)?;
        let nonce = account.map(|account| account.nonce).unwrap_or_default();
        Ok(waiting.map_or(nonce, |next| next.max(nonce)))
    }

    /// The block of an included transaction, and its place there.
    async fn included(&self, hash: B256) -> Result<Option<(Arc<FullBlock>, usize)>, RpcError> {
        let chain = self.chain.clone();
        // Decoding a large block takes as long as several requests.
        let found = tokio::task::spawn_blocking(move || chain.view().place(hash)).await;
        found.map_err(|error| RpcError::Internal(error.into()))?
    }

    /// The receipt of an included transaction.
    pub(super) fn receipt(&self, hash: B256) -> Result<Option<OpTransactionReceipt>, RpcError> {
        let view = self.chain.view();
        let Some((block, index)) = view.place(hash)? else { return Ok(None) };
        let l1 = match block.transactions.get(index) {
            Some(tx) if !tx.is_deposit() => view.l1_fees(L2Number(block.header.number))?,
            _ => Default::default(),
        };
        Ok(block.receipt(index, &self.chain.evm, &l1))
    }
}

/// A storage slot as go-ethereum reads it: hexadecimal, at most 32 bytes, leading zeros or not.
pub(super) fn parse_slot(text: &str) -> Result<U256, RpcError> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() > 64 {
        return Err(RpcError::InvalidParams(format!(
            "storage key too long (want at most 32 bytes): {text:?}"
        )));
    }
    let invalid = || RpcError::InvalidParams(format!("unable to decode storage key: {text:?}"));
    if digits.is_empty() {
        return Ok(U256::ZERO);
    }
    let even = format!("{digits:0>64}");
    let bytes = hex::decode(even).map_err(|_| invalid())?;
    U256::try_from_be_slice(&bytes).ok_or_else(invalid)
}

#[async_trait]
impl EthApiServer for Eth {
    fn chain_id(&self) -> RpcResult<U64> {
        Ok(U64::from(self.chain.params.chain_id))
    }

    fn block_number(&self) -> RpcResult<U64> {
        Ok(U64::from(self.chain.latest()?.0))
    }

    fn syncing(&self) -> RpcResult<SyncStatus> {
        let heads = self.chain.engine.heads();
        if heads.l1_tip.height >= heads.l1_best.height {
            return Ok(SyncStatus::None);
        }
        // Progress is counted in Bitcoin blocks, which the L2 chain is a function of.
        Ok(SyncStatus::Info(Box::new(SyncInfo {
            starting_block: U256::from(self.chain.params.l1_start.height.0),
            current_block: U256::from(heads.l1_tip.height.0),
            highest_block: U256::from(heads.l1_best.height.0),
            ..Default::default()
        })))
    }

    fn accounts(&self) -> RpcResult<Vec<Address>> {
        Ok(Vec::new())
    }

    fn balance(&self, address: Address, block: Option<BlockId>) -> RpcResult<U256> {
        let view = self.chain.view();
        let account = view.state(block)?.account(address).map_err(RpcError::from)?;
        Ok(account.map(|account| account.balance).unwrap_or_default())
    }

    async fn transaction_count(&self, address: Address, block: Option<BlockId>) -> RpcResult<U64> {
        if block == Some(BlockId::pending()) {
            return Ok(U64::from(self.next_nonce(address).await?));
        }
        Ok(self.nonce(address, block)?)
    }

    fn code(&self, address: Address, block: Option<BlockId>) -> RpcResult<Bytes> {
        use kedge_store::L2Rows;
        let view = self.chain.view();
        let account = view.state(block)?.account(address).map_err(RpcError::from)?;
        let Some(account) = account else { return Ok(Bytes::new()) };
        Ok(view.reader.code(account.code_hash).map_err(RpcError::from)?.unwrap_or_default())
    }

    fn storage_at(
        &self,
        address: Address,
        slot: String,
        block: Option<BlockId>,
    ) -> RpcResult<B256> {
        let slot = parse_slot(&slot)?;
        let view = self.chain.view();
        let value = view.state(block)?.slot(address, slot).map_err(RpcError::from)?;
        Ok(value.into())
    }

    async fn proof(
        &self,
        address: Address,
        slots: Vec<String>,
        block: Option<BlockId>,
    ) -> RpcResult<EIP1186AccountProofResponse> {
        let chain = self.chain.clone();
        let prove = move || {
            let view = chain.view();
            let number = view.number(block)?;
            proof::prove(&view, number, address, &slots)
        };
        Ok(self.heavy.run(prove).await?)
    }

    async fn call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<Bytes> {
        let overrides = Overrides { state, block: block_overrides.map(|all| *all) };
        self.with_call(request, block, overrides, |call| call.call()).await
    }

    async fn estimate_gas(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<U64> {
        let overrides = Overrides { state, block: block_overrides.map(|all| *all) };
        let gas = self.with_call(request, block, overrides, |call| call.estimate()).await?;
        Ok(U64::from(gas))
    }

    async fn create_access_list(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<AccessListResult> {
        let overrides = Overrides { state, block: block_overrides.map(|all| *all) };
        self.with_call(request, block, overrides, |call| call.access_list()).await
    }

    fn gas_price(&self) -> RpcResult<U256> {
        let base_fee = self.chain.view().next_base_fee()?;
        Ok(U256::from(base_fee) + U256::from(SUGGESTED_TIP))
    }

    fn max_priority_fee_per_gas(&self) -> RpcResult<U256> {
        Ok(U256::from(SUGGESTED_TIP))
    }

    fn blob_base_fee(&self) -> RpcResult<U256> {
        Ok(U256::ONE)
    }

    fn fee_history(
        &self,
        count: U64,
        newest: BlockNumberOrTag,
        percentiles: Option<Vec<f64>>,
    ) -> RpcResult<FeeHistory> {
        Ok(self.chain.view().fee_history(count.to(), newest, percentiles)?)
    }

    async fn send_raw_transaction(&self, encoded: Bytes) -> RpcResult<B256> {
        Ok(self.submission.send(encoded).await?)
    }

    fn block_by_number(
        &self,
        number: BlockNumberOrTag,
        full: Option<bool>,
    ) -> RpcResult<Option<Json>> {
        let part = Part::block(full.unwrap_or(false));
        self.of_block(number.into(), |view, number| Ok(Some(view.encoded(number, part)?)))
    }

    fn block_by_hash(&self, hash: B256, full: Option<bool>) -> RpcResult<Option<Json>> {
        let part = Part::block(full.unwrap_or(false));
        self.of_block(hash.into(), |view, number| Ok(Some(view.encoded(number, part)?)))
    }

    fn block_receipts(&self, block: BlockId) -> RpcResult<Option<Json>> {
        self.of_block(block, |view, number| Ok(Some(view.encoded(number, Part::Receipts)?)))
    }

    fn count_by_number(&self, number: BlockNumberOrTag) -> RpcResult<Option<U64>> {
        self.of_block(number.into(), |view, number| {
            Ok(Some(U64::from(view.block(number)?.transactions.len())))
        })
    }

    fn count_by_hash(&self, hash: B256) -> RpcResult<Option<U64>> {
        self.of_block(hash.into(), |view, number| {
            Ok(Some(U64::from(view.block(number)?.transactions.len())))
        })
    }

    fn uncles_by_number(&self, number: BlockNumberOrTag) -> RpcResult<Option<U64>> {
        self.of_block(number.into(), |_, _| Ok(Some(U64::ZERO)))
    }

    fn uncles_by_hash(&self, hash: B256) -> RpcResult<Option<U64>> {
        self.of_block(hash.into(), |_, _| Ok(Some(U64::ZERO)))
    }

    async fn transaction_by_hash(&self, hash: B256) -> RpcResult<Option<Transaction>> {
        if let Some((block, index)) = self.included(hash).await? {
            return Ok(block.transaction(index));
        }
        Ok(match &self.submission {
            Submission::Mempool(pool) => pool.get(&hash).map(|tx| pending_transaction(&tx)),
            Submission::Forward(sequencer) => sequencer.transaction(hash).await,
            Submission::Refused => None,
        })
    }

    async fn raw_transaction_by_hash(&self, hash: B256) -> RpcResult<Option<Bytes>> {
        if let Some((block, index)) = self.included(hash).await? {
            return Ok(block.raw_transaction(index));
        }
        Ok(match &self.submission {
            Submission::Mempool(pool) => pool.get(&hash).map(|tx| tx.encoded.clone()),
            Submission::Forward(sequencer) => sequencer.raw_transaction(hash).await,
            Submission::Refused => None,
        })
    }

    fn transaction_by_number_and_index(
        &self,
        number: BlockNumberOrTag,
        index: Index,
    ) -> RpcResult<Option<Transaction>> {
        self.of_block(number.into(), |view, number| {
            Ok(view.block(number)?.transaction(index.into()))
        })
    }

    fn transaction_by_hash_and_index(
        &self,
        hash: B256,
        index: Index,
    ) -> RpcResult<Option<Transaction>> {
        self.of_block(hash.into(), |view, number| Ok(view.block(number)?.transaction(index.into())))
    }

    fn transaction_receipt(&self, hash: B256) -> RpcResult<Option<OpTransactionReceipt>> {
        Ok(self.receipt(hash)?)
    }

    async fn logs(&self, filter: Filter) -> RpcResult<Vec<Log>> {
        let (chain, limits) = (self.chain.clone(), self.log_limits);
        Ok(self.heavy.run(move || chain.view().logs(&filter, limits)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_as_go_ethereum_reads_them() {
        assert_eq!(parse_slot("0x0").expect("zero"), U256::ZERO);
        assert_eq!(parse_slot("0x10").expect("sixteen"), U256::from(16));
        assert_eq!(parse_slot("1").expect("no prefix"), U256::from(1));
        assert_eq!(parse_slot(&format!("0x{}", "f".repeat(64))).expect("max"), U256::MAX);
        let long = format!("0x{}", "0".repeat(65));
        let error = parse_slot(&long).expect_err("too long");
        assert_eq!(error.code(), -32602);
        assert_eq!(
            error.to_string(),
            format!("storage key too long (want at most 32 bytes): \"{long}\"")
        );
        assert_eq!(parse_slot("0xzz").expect_err("no hex").code(), -32602);
    }
}
