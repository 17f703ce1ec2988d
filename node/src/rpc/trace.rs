//! `trace_*`: traces as OpenEthereum (Parity) shows them.

use super::{
    block::FullBlock,
    call::{Overrides, Parts, Prepared},
    chain::{Chain, View},
    error::RpcError,
    guard::{Deadline, Guarded, StepRecord, recording},
    overrides::PrecompileChanges,
    replay::{Replay, Traced, Tracing, inspect_call},
};
use alloy_consensus::transaction::SignerRecoverable;
use alloy_eips::{BlockId, BlockNumberOrTag, Decodable2718, Encodable2718};
use alloy_primitives::{B256, Bytes, U64, map::HashSet};
use alloy_rpc_types_eth::{BlockOverrides, Index, TransactionRequest, state::StateOverride};
use alloy_rpc_types_trace::{
    filter::TraceFilter,
    parity::{LocalizedTransactionTrace, TraceResults, TraceResultsWithTransactionHash, TraceType},
};
use jsonrpsee::{
    core::{RpcResult, async_trait},
    proc_macros::rpc,
};
use kedge_genesis::L2Number;
use kedge_vm::{OpTxEnvelope, exec::replay::transaction_env};
use revm::{DatabaseCommit as _, DatabaseRef, database::State, state::EvmState};
use revm_inspectors::tracing::{TracingInspector, TracingInspectorConfig};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// Most traces of one answer.
const MOST_TRACES: usize = 100_000;

type TraceTypes = HashSet<TraceType>;

/// `trace_*` as OpenEthereum has it.
#[rpc(server, namespace = "trace")]
pub trait TraceApi {
    /// Executes a call.
    #[method(name = "call")]
    async fn call(
        &self,
        request: TransactionRequest,
        types: TraceTypes,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<TraceResults>;

    /// Executes calls one after the other, each on what those before it left.
    #[method(name = "callMany")]
    async fn call_many(
        &self,
        calls: Vec<(TransactionRequest, TraceTypes)>,
        block: Option<BlockId>,
    ) -> RpcResult<Vec<TraceResults>>;

    /// Executes a signed transaction without handing it in.
    #[method(name = "rawTransaction")]
    async fn raw_transaction(
        &self,
        encoded: Bytes,
        types: TraceTypes,
        block: Option<BlockId>,
    ) -> RpcResult<TraceResults>;

    /// Executes an included transaction again.
    #[method(name = "replayTransaction")]
    async fn replay_transaction(&self, hash: B256, types: TraceTypes) -> RpcResult<TraceResults>;

    /// Executes a block again; null when there is no such block.
    #[method(name = "replayBlockTransactions")]
    async fn replay_block_transactions(
        &self,
        block: BlockId,
        types: TraceTypes,
    ) -> RpcResult<Option<Vec<TraceResultsWithTransactionHash>>>;

    /// The traces of an included transaction; null when there is no such transaction.
    #[method(name = "transaction")]
    async fn transaction(&self, hash: B256) -> RpcResult<Option<Vec<LocalizedTransactionTrace>>>;

    /// The traces of a block; null when there is no such block.
    #[method(name = "block")]
    async fn block(&self, block: BlockId) -> RpcResult<Option<Vec<LocalizedTransactionTrace>>>;

    /// The trace at an address within a transaction; null when there is none.
    #[method(name = "get")]
    async fn get(
        &self,
        hash: B256,
        address: Vec<Index>,
    ) -> RpcResult<Option<LocalizedTransactionTrace>>;

    /// The traces that a filter matches, in order.
    #[method(name = "filter")]
    async fn filter(&self, filter: TaggedFilter) -> RpcResult<Vec<LocalizedTransactionTrace>>;
}

/// A filter whose blocks may be tags too, as those of logs may.
#[derive(Clone, Debug)]
pub struct TaggedFilter {
    from_block: Option<Bound>,
    to_block: Option<Bound>,
    rest: TraceFilter,
}

/// A block of a filter.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Bound {
    Number(U64),
    Tag(BlockNumberOrTag),
}

impl<'de> Deserialize<'de> for TaggedFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let mut bound = |name: &str| {
            let value = fields.remove(name).unwrap_or_default();
            Option::<Bound>::deserialize(value).map_err(|_| {
                D::Error::custom(format!("{name} is neither a block number nor a tag"))
            })
        };
        let (from_block, to_block) = (bound("fromBlock")?, bound("toBlock")?);
        let rest = TraceFilter::deserialize(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self { from_block, to_block, rest })
    }
}

impl Bound {
    /// The block; none where the chain does not reach it.
    fn find(self, view: &View<'_>) -> Result<Option<L2Number>, RpcError> {
        let tag = match self {
            Self::Number(number) => BlockNumberOrTag::Number(number.to()),
            Self::Tag(tag) => tag,
        };
        view.find(tag.into())
    }
}

/// Implements [`TraceApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct Trace(pub(super) Tracing);

/// An inspector for these kinds of traces.
fn inspector(types: &TraceTypes, bytes: usize, deadline: Deadline) -> Guarded<TracingInspector> {
    let vm_trace = types.contains(&TraceType::VmTrace);
    // The state changes of a step are part of its trace.
    let config = TracingInspectorConfig::from_parity_config(types).set_state_diffs(vm_trace);
    let record = if vm_trace { StepRecord::STEPS } else { StepRecord::NONE };
    let inspector = TracingInspector::new(config).with_limits(recording(bytes));
    Guarded::new(inspector, deadline, record, bytes)
}

/// An inspector for what was called, by whom and with what outcome.
pub(super) fn calls(bytes: usize, deadline: Deadline) -> Guarded<TracingInspector> {
    let config = TracingInspectorConfig::default_parity();
    let inspector = TracingInspector::new(config).with_limits(recording(bytes));
    Guarded::new(inspector, deadline, StepRecord::NONE, bytes)
}

/// What was recorded, and a fresh start.
fn take(guarded: &mut Guarded<TracingInspector>) -> TracingInspector {
    let fresh = guarded.inspector.clone().fused();
    let recorded = std::mem::take(&mut guarded.inspector);
    guarded.restart(fresh);
    recorded
}

/// The results of these kinds for an executed transaction or call.
fn results<DB: DatabaseRef<Error: std::fmt::Display>>(
    types: &TraceTypes,
    guarded: &mut Guarded<TracingInspector>,
    traced: &Traced<'_, DB>,
) -> Result<TraceResults, RpcError> {
    take(guarded)
        .with_transaction_gas_used(traced.outcome.result.tx_gas_used())
        .into_parity_builder()
        .into_trace_results_with_state(&traced.outcome, types, &*traced.state)
        .map_err(|error| RpcError::Internal(anyhow::anyhow!("trace: {error}")))
}

/// The traces of an executed transaction with its place.
pub(super) fn localized<DB>(
    guarded: &mut Guarded<TracingInspector>,
    traced: &Traced<'_, DB>,
) -> Vec<LocalizedTransactionTrace> {
    take(guarded)
        .with_transaction_gas_used(traced.outcome.result.tx_gas_used())
        .into_parity_builder()
        .into_localized_transaction_traces(traced.info)
}

/// The traces of one included transaction.
pub(super) fn of_transaction(
    tracing: &Tracing,
    chain: &Chain,
    hash: B256,
    deadline: Deadline,
) -> Result<Option<Vec<LocalizedTransactionTrace>>, RpcError> {
    let view = chain.view();
    let Some((block, index)) = view.place(hash)? else { return Ok(None) };
    let mut replay = Replay::new(&chain.evm, &view, &block, calls(tracing.bytes, deadline))?;
    replay.skip_to(index)?;
    replay.inspect(|inspector, traced| Ok(localized(inspector, traced)))
}

/// Hands the traces of each transaction of a block to `each`, in order, until that says that it has enough.
pub(super) fn each_of_block(
    tracing: &Tracing,
    chain: &Chain,
    view: &View<'_>,
    block: &FullBlock,
    deadline: Deadline,
    mut each: impl FnMut(Vec<LocalizedTransactionTrace>) -> Result<bool, RpcError>,
) -> Result<(), RpcError> {
    if block.transactions.is_empty() {
        return Ok(());
    }
    let mut replay = Replay::new(&chain.evm, view, block, calls(tracing.bytes, deadline))?;
    while let Some(traces) = replay.inspect(|inspector, traced| Ok(localized(inspector, traced)))? {
        if !each(traces)? {
            break;
        }
    }
    Ok(())
}

fn too_many(most: usize) -> RpcError {
    RpcError::Limit(format!("query returned more than {most} traces: ask for fewer with count"))
}

#[async_trait]
impl TraceApiServer for Trace {
    async fn call(
        &self,
        request: TransactionRequest,
        types: TraceTypes,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<Box<BlockOverrides>>,
    ) -> RpcResult<TraceResults> {
        let overrides = Overrides { state, block: block_overrides.map(|all| *all) };
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let number = view.number(block)?;
            let header = view.header(number)?;
            let mut state = view.reader.state_at(number)?;
            let (evm, gas) = (&chain.evm, tracing.call_gas);
            let l1 = evm.l1_block_info(number.0, &mut state)?;
            let call = Prepared::new(evm, &header, state, l1, request, overrides, gas)?;
            let inspector = inspector(&types, tracing.bytes, deadline);
            inspect_call(evm, call.into_parts(), inspector, |inspector, traced| {
                results(&types, inspector, traced)
            })
        };
        self.0.run(run).await
    }

    async fn call_many(
        &self,
        calls: Vec<(TransactionRequest, TraceTypes)>,
        block: Option<BlockId>,
    ) -> RpcResult<Vec<TraceResults>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let number = view.number(block)?;
            let header = view.header(number)?;
            let evm = &chain.evm;
            let mut state = view.reader.state_at(number)?;
            let l1 = evm.l1_block_info(number.0, &mut state)?;
            let mut state = State::builder().with_database(state).build();
            let (gas, none) = (tracing.call_gas, Overrides::default());
            let (mut all, mut room) = (Vec::with_capacity(calls.len()), tracing.room());
            for (request, types) in calls {
                deadline.check()?;
                let (l1, none) = (l1.clone(), none.clone());
                let call = Prepared::new(evm, &header, &mut state, l1, request, none, gas)?;
                let inspector = inspector(&types, tracing.bytes, deadline);
                let (shown, changes): (_, EvmState) =
                    inspect_call(evm, call.into_parts(), inspector, |inspector, traced| {
                        Ok((results(&types, inspector, traced)?, traced.outcome.state.clone()))
                    })?;
                state.commit(changes);
                room.take(&shown)?;
                all.push(shown);
            }
            Ok(all)
        };
        self.0.run(run).await
    }

    async fn raw_transaction(
        &self,
        encoded: Bytes,
        types: TraceTypes,
        block: Option<BlockId>,
    ) -> RpcResult<TraceResults> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let invalid = |reason: String| RpcError::InvalidParams(reason);
            let tx = OpTxEnvelope::decode_2718_exact(&encoded)
                .map_err(|error| invalid(format!("could not decode transaction: {error}")))?;
            if tx.is_deposit() || tx.encoded_2718() != encoded {
                return Err(invalid("not a transaction that somebody can sign".into()));
            }
            let sender = tx.recover_signer().map_err(|error| invalid(error.to_string()))?;
            let view = chain.view();
            let number = view.number(block)?;
            let env = chain.evm.env(&view.header(number)?);
            let state = State::builder().with_database(view.reader.state_at(number)?).build();
            let tx = transaction_env(&tx, sender);
            let parts = Parts { env, state, precompiles: PrecompileChanges::default(), tx };
            let inspector = inspector(&types, tracing.bytes, deadline);
            inspect_call(&chain.evm, parts, inspector, |inspector, traced| {
                results(&types, inspector, traced)
            })
        };
        self.0.run(run).await
    }

    async fn replay_transaction(&self, hash: B256, types: TraceTypes) -> RpcResult<TraceResults> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let missing = || RpcError::Execution("transaction not found".into());
            let view = chain.view();
            let (block, index) = view.place(hash)?.ok_or_else(missing)?;
            let inspector = inspector(&types, tracing.bytes, deadline);
            let mut replay = Replay::new(&chain.evm, &view, &block, inspector)?;
            replay.skip_to(index)?;
            let shown = replay.inspect(|inspector, traced| results(&types, inspector, traced))?;
            shown.ok_or_else(missing)
        };
        self.0.run(run).await
    }

    async fn replay_block_transactions(
        &self,
        block: BlockId,
        types: TraceTypes,
    ) -> RpcResult<Option<Vec<TraceResultsWithTransactionHash>>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let Some(number) = view.find(block)? else { return Ok(None) };
            let block = view.block(number)?;
            let mut all = Vec::with_capacity(block.transactions.len());
            if block.transactions.is_empty() {
                return Ok(Some(all));
            }
            let inspector = inspector(&types, tracing.bytes, deadline);
            let mut replay = Replay::new(&chain.evm, &view, &block, inspector)?;
            let mut room = tracing.room();
            while let Some(shown) = replay.inspect(|inspector, traced| {
                Ok(TraceResultsWithTransactionHash {
                    full_trace: results(&types, inspector, traced)?,
                    transaction_hash: traced.info.hash.unwrap_or_default(),
                })
            })? {
                room.take(&shown)?;
                all.push(shown);
            }
            Ok(Some(all))
        };
        self.0.run(run).await
    }

    async fn transaction(&self, hash: B256) -> RpcResult<Option<Vec<LocalizedTransactionTrace>>> {
        self.0
            .run(move |tracing, chain, deadline| of_transaction(tracing, chain, hash, deadline))
            .await
    }

    async fn block(&self, block: BlockId) -> RpcResult<Option<Vec<LocalizedTransactionTrace>>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let Some(number) = view.find(block)? else { return Ok(None) };
            let block = view.block(number)?;
            let (mut all, mut room) = (Vec::new(), tracing.room());
            each_of_block(tracing, chain, &view, &block, deadline, |traces| {
                room.take(&traces)?;
                all.extend(traces);
                Ok(true)
            })?;
            Ok(Some(all))
        };
        self.0.run(run).await
    }

    async fn get(
        &self,
        hash: B256,
        address: Vec<Index>,
    ) -> RpcResult<Option<LocalizedTransactionTrace>> {
        let address: Vec<usize> = address.into_iter().map(usize::from).collect();
        let traces = self.transaction(hash).await?.unwrap_or_default();
        Ok(traces.into_iter().find(|found| found.trace.trace_address == address))
    }

    async fn filter(&self, filter: TaggedFilter) -> RpcResult<Vec<LocalizedTransactionTrace>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let TaggedFilter { from_block, to_block, rest: filter } = &filter;
            let invalid = |reason: &str| RpcError::InvalidParams(reason.into());
            if let (Some(Bound::Number(from)), Some(Bound::Number(to))) = (from_block, to_block)
                && from > to
            {
                return Err(invalid("invalid block range params"));
            }
            let resolve = |bound: Option<Bound>, otherwise: L2Number| match bound {
                None => Ok(otherwise),
                Some(bound) => bound
                    .find(&view)?
                    .ok_or_else(|| invalid("block range extends beyond current head block")),
            };
            let first = resolve(*from_block, L2Number(0))?;
            let last = resolve(*to_block, view.latest()?)?;
            if first > last {
                return Err(invalid("invalid block range params"));
            }
            let matcher = filter.matcher();
            let mut to_skip = filter.after.unwrap_or_default();
            let count = filter.count.and_then(|count| usize::try_from(count).ok());
            let most = count.unwrap_or(usize::MAX);
            let (mut found, mut room) = (Vec::new(), tracing.room());
            let mut number = first;
            while number <= last && found.len() < most {
                deadline.check()?;
                let block = view.block(number)?;
                each_of_block(tracing, chain, &view, &block, deadline, |traces| {
                    for trace in traces.into_iter().filter(|found| matcher.matches(&found.trace)) {
                        if to_skip > 0 {
                            to_skip -= 1;
                        } else if found.len() < most {
                            room.take(&trace)?;
                            found.push(trace);
                        }
                    }
                    if found.len() > MOST_TRACES {
                        Err(too_many(MOST_TRACES))
                    } else {
                        Ok(found.len() < most)
                    }
                })?;
                number = number.next();
            }
            Ok(found)
        };
        self.0.run(run).await
    }
}
