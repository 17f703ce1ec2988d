//! `debug_*`: traces as go-ethereum shows them, raw data, witnesses.

use super::{
    block::FullBlock,
    call::{Overrides, Prepared},
    chain::{Chain, View},
    error::RpcError,
    guard::{Deadline, Room},
    replay::{Replay, Traced, Tracing, inspect_call},
    submit::Submission,
    tracers::GethTracer,
    witness,
};
use alloy_consensus::transaction::SignerRecoverable;
use alloy_eips::{BlockId, BlockNumberOrTag, Encodable2718};
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_debug::ExecutionWitness;
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_trace::geth::{
    GethDebugTracingCallOptions, GethDebugTracingOptions, GethTrace, TraceResult,
};
use jsonrpsee::{
    core::{RpcResult, async_trait},
    proc_macros::rpc,
};
use kedge_genesis::L2Number;
use kedge_vm::{OpTxEnvelope, exec::replay::intermediate_roots};
use revm::database::State;
use std::ops::ControlFlow;

/// `debug_*` as the execution-apis specification and go-ethereum have it.
#[rpc(server, namespace = "debug")]
pub trait DebugApi {
    /// RLP of a block's header.
    #[method(name = "getRawHeader", blocking)]
    fn raw_header(&self, block: BlockId) -> RpcResult<Bytes>;

    /// RLP of a block.
    #[method(name = "getRawBlock", blocking)]
    fn raw_block(&self, block: BlockId) -> RpcResult<Bytes>;

    /// A transaction's EIP-2718 bytes, included or waiting here.
    #[method(name = "getRawTransaction", blocking)]
    fn raw_transaction(&self, hash: B256) -> RpcResult<Option<Bytes>>;

    /// EIP-2718 bytes of a block's transactions.
    #[method(name = "getRawTransactions", blocking)]
    fn raw_transactions(&self, block: BlockId) -> RpcResult<Vec<Bytes>>;

    /// EIP-2718 bytes of a block's receipts.
    #[method(name = "getRawReceipts", blocking)]
    fn raw_receipts(&self, block: BlockId) -> RpcResult<Vec<Bytes>>;

    /// None: a bad block is no block.
    #[method(name = "getBadBlocks")]
    fn bad_blocks(&self) -> RpcResult<Vec<Bytes>>;

    /// Executes an included transaction again and shows how.
    #[method(name = "traceTransaction")]
    async fn trace_transaction(
        &self,
        hash: B256,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<GethTrace>;

    /// Executes a block again and shows how, by number or tag.
    #[method(name = "traceBlockByNumber")]
    async fn trace_block_by_number(
        &self,
        number: BlockNumberOrTag,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>>;

    /// Executes a block again and shows how, by hash.
    #[method(name = "traceBlockByHash")]
    async fn trace_block_by_hash(
        &self,
        hash: B256,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>>;

    /// Executes a block, given as RLP, on the state after its parent and shows how.
    #[method(name = "traceBlock")]
    async fn trace_block(
        &self,
        block: Bytes,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>>;

    /// Executes a call and shows how.
    #[method(name = "traceCall")]
    async fn trace_call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        options: Option<GethDebugTracingCallOptions>,
    ) -> RpcResult<GethTrace>;

    /// The state root after each transaction of a block.
    #[method(name = "intermediateRoots")]
    async fn intermediate_roots(
        &self,
        hash: B256,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<B256>>;

    /// Everything that executing a block reads, by number or tag.
    #[method(name = "executionWitness")]
    async fn execution_witness(&self, number: BlockNumberOrTag) -> RpcResult<ExecutionWitness>;

    /// Everything that executing a block reads, by hash.
    #[method(name = "executionWitnessByBlockHash")]
    async fn execution_witness_by_hash(&self, hash: B256) -> RpcResult<ExecutionWitness>;
}

/// Implements [`DebugApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct Debug {
    tracing: Tracing,
    submission: Submission,
}

impl Debug {
    pub(super) const fn new(tracing: Tracing, submission: Submission) -> Self {
        Self { tracing, submission }
    }

    async fn trace_block_of(
        &self,
        id: BlockId,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>> {
        let options = options.unwrap_or_default();
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline, options| {
            let view = chain.view();
            let block = view.block(existing(&view, id)?)?;
            let tracer = GethTracer::new(options, tracing.bytes)?;
            trace_block(chain, &view, &block, tracer, deadline, tracing.room())
        };
        self.traced(options, run).await
    }

    /// Runs a trace within the time that its options ask for.
    async fn traced<T: Send + 'static>(
        &self,
        options: GethDebugTracingOptions,
        run: impl FnOnce(&Tracing, &Chain, Deadline, GethDebugTracingOptions) -> Result<T, RpcError>
        + Send
        + 'static,
    ) -> RpcResult<T> {
        let time = super::tracers::timeout(&options)?;
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            run(tracing, chain, deadline, options)
        };
        self.tracing.run_within(time, run).await
    }

    async fn witness(&self, id: BlockId) -> RpcResult<ExecutionWitness> {
        self.tracing
            .run(move |_, chain, _| {
                let view = chain.view();
                witness::of_block(&chain.evm, &view, existing(&view, id)?)
            })
            .await
    }
}

/// The block that a request names, which must exist.
fn existing(view: &View<'_>, id: BlockId) -> Result<L2Number, RpcError> {
    view.find(id)?.ok_or_else(|| {
        RpcError::Execution(match id {
            BlockId::Hash(hash) => format!("block {} not found", hash.block_hash),
            BlockId::Number(number) => format!("block {number} not found"),
        })
    })
}

fn trace_block(
    chain: &Chain,
    view: &View<'_>,
    block: &FullBlock,
    tracer: GethTracer,
    deadline: Deadline,
    mut room: Room,
) -> Result<Vec<TraceResult>, RpcError> {
    let mut replay = Replay::new(&chain.evm, view, block, tracer.guarded(deadline)?)?;
    let mut traces = Vec::with_capacity(block.transactions.len());
    loop {
        let traced = replay.inspect(|inspector, traced: &mut Traced<'_, _>| {
            let trace = tracer.show(inspector, traced)?;
            inspector.restart(tracer.inspector()?);
            Ok(TraceResult::new_success(trace, traced.info.hash))
        })?;
        match traced {
            Some(trace) => {
                room.take(&trace)?;
                traces.push(trace);
            }
            None => return Ok(traces),
        }
    }
}

/// A block that need not be on the chain, but its parent is.
fn decode_block(view: &View<'_>, bytes: &Bytes, gas: u64) -> Result<FullBlock, RpcError> {
    let invalid = |reason: String| RpcError::InvalidParams(reason);
    let block: alloy_consensus::Block<OpTxEnvelope> = alloy_rlp::decode_exact(bytes)
        .map_err(|error| invalid(format!("could not decode block: {error}")))?;
    let parent = view.find(BlockId::from(block.header.parent_hash))?;
    if parent.map(|parent| parent.next().0) != Some(block.header.number) {
        return Err(RpcError::Execution(format!("parent {} not found", block.header.parent_hash)));
    }
    if block.header.gas_limit > gas {
        return Err(invalid(format!("the block's gas limit is above {gas}")));
    }
    let senders = block.body.transactions.iter().map(SignerRecoverable::recover_signer);
    let senders = senders.collect::<Result<_, _>>();
    Ok(FullBlock {
        hash: block.header.hash_slow(),
        senders: senders.map_err(|error| invalid(format!("sender of a transaction: {error}")))?,
        header: block.header,
        transactions: block.body.transactions,
        receipts: Vec::new(),
    })
}

#[async_trait]
impl DebugApiServer for Debug {
    fn raw_header(&self, block: BlockId) -> RpcResult<Bytes> {
        let view = self.tracing.chain().view();
        let header = view.header(existing(&view, block)?)?;
        Ok(alloy_rlp::encode(header).into())
    }

    fn raw_block(&self, block: BlockId) -> RpcResult<Bytes> {
        let view = self.tracing.chain().view();
        Ok(view.block(existing(&view, block)?)?.encoded())
    }

    fn raw_transaction(&self, hash: B256) -> RpcResult<Option<Bytes>> {
        let view = self.tracing.chain().view();
        if let Some((block, index)) = view.place(hash)? {
            return Ok(block.raw_transaction(index));
        }
        let waiting = self.submission.mempool().and_then(|mempool| mempool.get(&hash));
        Ok(waiting.map(|tx| tx.encoded.clone()))
    }

    fn raw_transactions(&self, block: BlockId) -> RpcResult<Vec<Bytes>> {
        let view = self.tracing.chain().view();
        let block = view.block(existing(&view, block)?)?;
        Ok(block.transactions.iter().map(|tx| tx.encoded_2718().into()).collect())
    }

    fn raw_receipts(&self, block: BlockId) -> RpcResult<Vec<Bytes>> {
        let view = self.tracing.chain().view();
        let block = view.block(existing(&view, block)?)?;
        Ok(block.receipts.iter().map(|receipt| receipt.encoded_2718().into()).collect())
    }

    fn bad_blocks(&self) -> RpcResult<Vec<Bytes>> {
        Ok(Vec::new())
    }

    async fn trace_transaction(
        &self,
        hash: B256,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<GethTrace> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline, options| {
            let tracer = GethTracer::new(options, tracing.bytes)?;
            let view = chain.view();
            let (block, index) = view
                .place(hash)?
                .ok_or_else(|| RpcError::Execution("transaction not found".into()))?;
            let mut replay = Replay::new(&chain.evm, &view, &block, tracer.guarded(deadline)?)?;
            replay.skip_to(index)?;
            let shown = replay.inspect(|inspector, traced| tracer.show(inspector, traced))?;
            shown.ok_or_else(|| RpcError::Execution("transaction not found".into()))
        };
        self.traced(options.unwrap_or_default(), run).await
    }

    async fn trace_block_by_number(
        &self,
        number: BlockNumberOrTag,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>> {
        self.trace_block_of(number.into(), options).await
    }

    async fn trace_block_by_hash(
        &self,
        hash: B256,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>> {
        self.trace_block_of(hash.into(), options).await
    }

    async fn trace_block(
        &self,
        block: Bytes,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<TraceResult>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline, options| {
            let tracer = GethTracer::new(options, tracing.bytes)?;
            let view = chain.view();
            let block = decode_block(&view, &block, tracing.call_gas)?;
            trace_block(chain, &view, &block, tracer, deadline, tracing.room())
        };
        self.traced(options.unwrap_or_default(), run).await
    }

    async fn trace_call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        options: Option<GethDebugTracingCallOptions>,
    ) -> RpcResult<GethTrace> {
        let GethDebugTracingCallOptions {
            tracing_options,
            state_overrides,
            block_overrides,
            tx_index,
        } = options.unwrap_or_default();
        let overrides = Overrides { state: state_overrides, block: block_overrides };
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline, options| {
            let tracer = GethTracer::new(options, tracing.bytes)?;
            let view = chain.view();
            let number = view.number(block)?;
            let header = view.header(number)?;
            let (evm, gas) = (&chain.evm, tracing.call_gas);
            let mut after = view.reader.state_at(number)?;
            let l1 = evm.l1_block_info(number.0, &mut after)?;
            let state = match tx_index {
                Some(index) => {
                    let block = view.block(number)?;
                    let index = usize::try_from(index).unwrap_or(usize::MAX);
                    if index > block.transactions.len() {
                        return Err(RpcError::InvalidParams(format!(
                            "transaction index {index} out of range for block {number}"
                        )));
                    }
                    let mut replay = Replay::new(evm, &view, &block, tracer.guarded(deadline)?)?;
                    replay.skip_to(index)?;
                    replay.into_state()
                }
                None => State::builder().with_database(after).build(),
            };
            let call = Prepared::new(evm, &header, state, l1, request, overrides, gas)?;
            let inspector = tracer.guarded(deadline)?;
            inspect_call(evm, call.into_parts(), inspector, |inspector, traced| {
                tracer.show(inspector, traced)
            })
        };
        self.traced(tracing_options, run).await
    }

    async fn intermediate_roots(
        &self,
        hash: B256,
        options: Option<GethDebugTracingOptions>,
    ) -> RpcResult<Vec<B256>> {
        let run = move |_: &Tracing, chain: &Chain, deadline: Deadline, _| {
            let view = chain.view();
            let number = existing(&view, hash.into())?;
            let block = view.block(number)?;
            let Some(parent) = number.0.checked_sub(1).map(L2Number) else {
                return Err(RpcError::Execution("genesis is not traceable".into()));
            };
            let before = view.header(parent)?.state_root;
            let mut state = view.reader.state_at(parent)?;
            let transactions: Vec<_> =
                block.transactions.iter().cloned().zip(block.senders.iter().copied()).collect();
            let mut roots = Vec::with_capacity(transactions.len());
            let each = |root| {
                roots.push(root);
                if deadline.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let (evm, header) = (&chain.evm, &block.header);
            intermediate_roots(evm, header, before, &transactions, &mut state, each).map_err(
                |error| RpcError::Internal(anyhow::anyhow!("roots of {number}: {error}")),
            )?;
            if roots.len() < transactions.len() {
                deadline.check()?;
            }
            Ok(roots)
        };
        self.traced(options.unwrap_or_default(), run).await
    }

    async fn execution_witness(&self, number: BlockNumberOrTag) -> RpcResult<ExecutionWitness> {
        self.witness(number.into()).await
    }

    async fn execution_witness_by_hash(&self, hash: B256) -> RpcResult<ExecutionWitness> {
        self.witness(hash.into()).await
    }
}
