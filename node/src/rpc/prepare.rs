//! `eth_*` around the making of a transaction: simulating, filling in, sending and waiting.

use super::{
    block::pending_transaction_of,
    call::{Overrides, unsigned},
    error::RpcError,
    eth::Eth,
    fees::SUGGESTED_TIP,
    simulate::{Simulated, simulate},
};
use alloy_eips::{BlockId, Encodable2718};
use alloy_primitives::{Bytes, Signature, U64, U256};
use alloy_rpc_types_eth::{
    TransactionRequest, simulate::SimulatePayload, transaction::request::FillTransaction,
};
use jsonrpsee::{
    core::{RpcResult, async_trait},
    proc_macros::rpc,
};
use op_alloy_rpc_types::{OpTransactionReceipt, Transaction};
use std::time::Duration;
use tokio::time::Instant;

/// How long `eth_sendRawTransactionSync` waits when the client does not say, as in go-ethereum.
const SYNC_WAIT: Duration = Duration::from_secs(20);
/// The longest that it waits.
const MAX_SYNC_WAIT: Duration = Duration::from_secs(60);

/// Around the making of a transaction.
#[rpc(server, namespace = "eth")]
pub trait EthPrepareApi {
    /// Runs blocks of unsigned calls on top of the chain.
    #[method(name = "simulateV1")]
    async fn simulate(
        &self,
        payload: SimulatePayload,
        block: Option<BlockId>,
    ) -> RpcResult<Vec<Simulated>>;

    /// The transaction with everything filled in that was left out, to be signed.
    #[method(name = "fillTransaction")]
    async fn fill(&self, request: TransactionRequest) -> RpcResult<FillTransaction<Transaction>>;

    /// Hands in a signed transaction and answers with its receipt (EIP-7966). Waits for so many
    /// milliseconds at most.
    #[method(name = "sendRawTransactionSync")]
    async fn send_sync(
        &self,
        encoded: Bytes,
        wait: Option<SyncWait>,
    ) -> RpcResult<OpTransactionReceipt>;
}

/// Milliseconds, as a number or as a quantity.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(untagged, expecting = "the time to wait is a whole number of milliseconds, or a quantity")]
pub enum SyncWait {
    /// A JSON number.
    Number(u64),
    /// `0x…`.
    Quantity(U64),
}

impl SyncWait {
    fn duration(self) -> Duration {
        Duration::from_millis(match self {
            Self::Number(wait) => wait,
            Self::Quantity(wait) => wait.to(),
        })
    }
}

#[async_trait]
impl EthPrepareApiServer for Eth {
    async fn simulate(
        &self,
        payload: SimulatePayload,
        block: Option<BlockId>,
    ) -> RpcResult<Vec<Simulated>> {
        let cap = self.call_gas;
        self.execute(move |chain| simulate(chain, payload, block, cap)).await
    }

    async fn fill(
        &self,
        mut request: TransactionRequest,
    ) -> RpcResult<FillTransaction<Transaction>> {
        if request.has_eip4844_fields() {
            return Err(
                RpcError::InvalidParams("blob transactions are not supported".into()).into()
            );
        }
        let from =
            request.from.ok_or_else(|| RpcError::InvalidParams("no sender: set from".into()))?;
        let chain_id = self.chain.params.chain_id;
        if request.chain_id.is_some_and(|found| found != chain_id) {
            let found = request.chain_id.unwrap_or_default();
            let text = format!("chainId does not match node's (have={found}, want={chain_id})");
            return Err(RpcError::InvalidParams(text).into());
        }
        request.chain_id = Some(chain_id);
        request.normalize_input();
        request.value.get_or_insert_default();
        if request.to.is_none() {
            if request.input.input().is_none_or(|input| input.is_empty()) {
                let text = "contract creation without any data provided";
                return Err(RpcError::InvalidParams(text.into()).into());
            }
            request.to = Some(alloy_primitives::TxKind::Create);
        }
        if request.nonce.is_none() {
            request.nonce = Some(self.next_nonce(from).await?);
        }
        if request.gas_price.is_none() {
            let base_fee = u128::from(self.chain.view().next_base_fee()?);
            let tip = *request.max_priority_fee_per_gas.get_or_insert(
                request.max_fee_per_gas.map_or(SUGGESTED_TIP, |cap| cap.min(SUGGESTED_TIP)),
            );
            let cap = *request
                .max_fee_per_gas
                .get_or_insert(base_fee.saturating_mul(2).saturating_add(tip));
            if cap < tip {
                let text = format!("maxFeePerGas ({cap}) < maxPriorityFeePerGas ({tip})");
                return Err(RpcError::InvalidParams(text).into());
            }
        }
        if request.gas.is_none() {
            let asked = request.clone();
            let gas =
                self.with_call(asked, None, Overrides::default(), |call| call.estimate()).await?;
            request.gas = Some(gas);
        }
        let unsigned = unsigned(request).ok_or_else(|| {
            RpcError::InvalidParams("the fields do not make a transaction".into())
        })?;
        let tx = unsigned.into_envelope(Signature::new(U256::ZERO, U256::ZERO, false));
        let raw = tx.encoded_2718().into();
        Ok(FillTransaction { raw, tx: pending_transaction_of(tx, from) })
    }

    async fn send_sync(
        &self,
        encoded: Bytes,
        wait: Option<SyncWait>,
    ) -> RpcResult<OpTransactionReceipt> {
        let wait = wait.map_or(SYNC_WAIT, SyncWait::duration).min(MAX_SYNC_WAIT);
        let deadline = Instant::now() + wait;
        // Heard from before it is sent, so that its block is not missed.
        let mut heads = self.chain.engine.watch_heads();
        let hash = self.submission.send(encoded).await?;
        loop {
            heads.borrow_and_update();
            let eth = self.clone();
            let receipt = tokio::task::spawn_blocking(move || eth.receipt(hash)).await;
            if let Some(receipt) = receipt.map_err(|error| RpcError::Internal(error.into()))?? {
                return Ok(receipt);
            }
            match tokio::time::timeout_at(deadline, heads.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(RpcError::Unavailable("the node stops".into()).into()),
                Err(_) => return Err(RpcError::NotIncluded { hash, wait }.into()),
            }
        }
    }
}
