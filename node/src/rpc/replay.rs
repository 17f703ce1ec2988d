//! Blocks executed again under an inspector, as `debug_*`, `trace_*` and `ots_*` need it.

use super::{
    block::FullBlock,
    call::{Parts, refused},
    chain::{Chain, View},
    error::RpcError,
    guard::{Deadline, Guarded, Recorder, Room},
    heavy::HeavyPool,
    server::RpcConfig,
};
use alloy_evm::Evm as _;
use alloy_op_evm::{OpEvmContext, OpTx, OpTxError};
use alloy_rpc_types_eth::TransactionInfo;
use jsonrpsee::core::RpcResult;
use kedge_genesis::L2Number;
use kedge_store::StateAt;
use kedge_vm::{EvmConfig, env::Evm, exec::replay::transaction_env};
use op_revm::OpHaltReason;
use revm::{
    DatabaseCommit as _, DatabaseRef, Inspector,
    context::{
        BlockEnv,
        result::{EVMError, ResultAndState},
    },
    database::State,
};
use std::{sync::Arc, time::Duration};

/// What executing again needs: the chain, a place to run, and bounds.
#[derive(Clone, Debug)]
pub(super) struct Tracing {
    chain: Arc<Chain>,
    heavy: HeavyPool,
    time: Duration,
    /// Most that one transaction may record.
    pub(super) bytes: usize,
    /// Most gas of one call.
    pub(super) call_gas: u64,
    /// Largest answer, bytes.
    answer: usize,
}

impl Tracing {
    pub(super) fn new(chain: Arc<Chain>, config: &RpcConfig) -> Self {
        Self {
            chain,
            heavy: config.heavy.clone(),
            time: config.trace_time,
            bytes: config.trace_bytes,
            call_gas: config.call_gas,
            answer: config.max_response_bytes as usize,
        }
    }

    /// Room for the results of one request.
    pub(super) const fn room(&self) -> Room {
        Room::new(self.answer)
    }

    /// The chain, for what takes no time.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Runs something that executes again in the heavy pool. Its time begins when it does.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Self, &Chain, Deadline) -> Result<T, RpcError> + Send + 'static,
    ) -> RpcResult<T> {
        self.run_within(self.time, run).await
    }

    /// The same, within `time` if that is shorter than the server's.
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        time: Duration,
        run: impl FnOnce(&Self, &Chain, Deadline) -> Result<T, RpcError> + Send + 'static,
    ) -> RpcResult<T> {
        let tracing = self.clone();
        let time = time.min(self.time);
        let call = move || run(&tracing, &tracing.chain, Deadline::after(time));
        Ok(self.heavy.run(call).await?)
    }
}

/// The state that a replay works on: that after the parent, with the block's changes so far.
pub(super) type ReplayState<'r, 's> = State<StateAt<'r, 's>>;

/// A transaction that was executed under an inspector, before it is committed.
pub(super) struct Traced<'t, DB> {
    pub(super) outcome: ResultAndState<OpHaltReason>,
    pub(super) tx: OpTx,
    pub(super) block: BlockEnv,
    pub(super) info: TransactionInfo,
    /// The state before it.
    pub(super) state: &'t mut DB,
}

/// A block that is being executed again, transaction by transaction.
pub(super) struct Replay<'b, 'r, 's, I> {
    evm: Evm<ReplayState<'r, 's>, Guarded<I>>,
    block: &'b FullBlock,
    next: usize,
}

/// What stops an execution that was executed before, or a call.
pub(super) fn failed<E: std::fmt::Display>(error: EVMError<E, OpTxError>) -> RpcError {
    match error {
        // The words of a guard.
        EVMError::Custom(reason) => RpcError::Limit(reason),
        EVMError::Transaction(error) => RpcError::Execution(error.to_string()),
        error => RpcError::Internal(anyhow::anyhow!("executing again: {error}")),
    }
}

impl<'b, 'r, 's, I> Replay<'b, 'r, 's, I>
where
    I: Recorder + Inspector<OpEvmContext<ReplayState<'r, 's>>>,
{
    /// Begins the block on the state after its parent.
    pub(super) fn new(
        config: &EvmConfig,
        view: &'r View<'s>,
        block: &'b FullBlock,
        inspector: Guarded<I>,
    ) -> Result<Self, RpcError> {
        let Some(parent) = block.header.number.checked_sub(1) else {
            return Err(RpcError::Execution("genesis is not traceable".into()));
        };
        let state = view.reader.state_at(L2Number(parent))?;
        let state = State::builder().with_database(state).build();
        let evm = config.replay(&block.header, state, inspector).map_err(failed)?;
        Ok(Self { evm, block, next: 0 })
    }

    /// Executes every transaction before `index` without the inspector.
    pub(super) fn skip_to(&mut self, index: usize) -> Result<(), RpcError> {
        self.evm.disable_inspector();
        while self.next < index {
            self.evm.inspector().deadline().check()?;
            let Some(tx) = self.transaction() else { break };
            let outcome = self.evm.transact_raw(tx).map_err(failed)?;
            self.commit(outcome);
        }
        Ok(())
    }

    /// Executes the next transaction under the inspector, lets `show` look at both, and commits. None when
    /// there is no further transaction.
    pub(super) fn inspect<T>(
        &mut self,
        show: impl FnOnce(&mut Guarded<I>, &mut Traced<'_, ReplayState<'r, 's>>) -> Result<T, RpcError>,
    ) -> Result<Option<T>, RpcError> {
        let Some(tx) = self.transaction() else { return Ok(None) };
        self.evm.inspector().deadline().check()?;
        self.evm.enable_inspector();
        let outcome = self.evm.transact_raw(tx.clone()).map_err(failed)?;
        let info = self.block.info(self.next);
        let block = self.evm.block().clone();
        let (state, inspector, _) = self.evm.components_mut();
        let mut traced = Traced { outcome, tx, block, info, state };
        let shown = show(inspector, &mut traced)?;
        let outcome = traced.outcome;
        self.commit(outcome);
        Ok(Some(shown))
    }

    /// The state after what was executed so far.
    pub(super) fn into_state(self) -> ReplayState<'r, 's> {
        self.evm.into_db()
    }

    fn transaction(&self) -> Option<OpTx> {
        let tx = self.block.transactions.get(self.next)?;
        Some(transaction_env(tx, *self.block.senders.get(self.next)?))
    }

    fn commit(&mut self, outcome: ResultAndState<OpHaltReason>) {
        self.evm.db_mut().commit(outcome.state);
        self.next += 1;
    }
}

/// Executes one call or transaction of nobody's block under an inspector and lets `show` look at both.
pub(super) fn inspect_call<DB, I, T>(
    config: &EvmConfig,
    Parts { env, state, precompiles, tx }: Parts<DB>,
    inspector: Guarded<I>,
    show: impl FnOnce(&mut Guarded<I>, &mut Traced<'_, State<DB>>) -> Result<T, RpcError>,
) -> Result<T, RpcError>
where
    DB: alloy_evm::Database + DatabaseRef,
    I: Recorder + Inspector<OpEvmContext<State<DB>>>,
{
    let (from, gas) = (tx.0.base.caller, tx.0.base.gas_limit);
    let mut evm = config.evm_with_inspector(env, state, inspector);
    precompiles.apply(evm.precompiles_mut())?;
    let outcome = evm.transact_raw(tx.clone()).map_err(|error| match error {
        EVMError::Custom(reason) => RpcError::Limit(reason),
        error => refused(error, from, gas),
    })?;
    let block = evm.block().clone();
    let info = TransactionInfo {
        block_number: Some(block.number.saturating_to()),
        base_fee: Some(block.basefee),
        ..Default::default()
    };
    let (state, inspector, _) = evm.components_mut();
    show(inspector, &mut Traced { outcome, tx, block, info, state })
}
