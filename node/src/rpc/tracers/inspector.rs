//! One inspector for all tracers.

use super::{
    call::CallInspector,
    erc7562::Erc7562Inspector,
    flat,
    prestate::{PrestateConfig, PrestateInspector},
};
use crate::rpc::{error::RpcError, guard::Recorder};
use alloy_rpc_types_eth::TransactionInfo;
use alloy_rpc_types_trace::geth::{
    CallConfig, FlatCallConfig, GethDebugTracerType, GethTrace, mux::MuxFrame,
};
use revm::{
    DatabaseRef, Inspector,
    context_interface::{
        Block, ContextTr, Transaction,
        result::{HaltReasonTr, ResultAndState},
    },
    inspector::JournalExt,
    interpreter::{CallInputs, CallOutcome, CreateInputs, CreateOutcome, Interpreter},
    primitives::{Address, Log, U256},
};
use revm_inspectors::tracing::{DebugInspector, DebugInspectorError, TransactionContext};
use std::fmt::Display;

/// What watches the execution for a tracer, with the tracer's options.
#[derive(Debug)]
pub enum GethInspector {
    /// `callTracer`.
    Call(CallInspector, CallConfig),
    /// `flatCallTracer`.
    Flat(CallInspector, FlatCallConfig),
    /// `prestateTracer`.
    Prestate(PrestateInspector, PrestateConfig),
    /// `erc7562Tracer`.
    Erc7562(Erc7562Inspector),
    /// `4byteTracer`, `noopTracer` and struct logs.
    Library(DebugInspector),
    /// `muxTracer`.
    Mux(Vec<(GethDebugTracerType, Self)>),
}

/// A transaction that was executed under an inspector.
#[derive(Debug)]
pub(super) struct Seen<'s, T, B, H> {
    pub(super) place: Option<TransactionContext>,
    pub(super) tx: &'s T,
    pub(super) block: &'s B,
    pub(super) outcome: &'s ResultAndState<H>,
}

impl GethInspector {
    pub(super) fn try_clone(&self) -> Result<Self, DebugInspectorError> {
        Ok(match self {
            Self::Call(inspector, config) => Self::Call(inspector.clone(), *config),
            Self::Flat(inspector, config) => Self::Flat(inspector.clone(), *config),
            Self::Prestate(inspector, config) => Self::Prestate(inspector.clone(), *config),
            Self::Erc7562(inspector) => Self::Erc7562(inspector.clone()),
            Self::Library(inspector) => Self::Library(inspector.try_clone()?),
            Self::Mux(all) => {
                let one = |(tracer, one): &(GethDebugTracerType, Self)| {
                    Ok((tracer.clone(), one.try_clone()?))
                };
                Self::Mux(all.iter().map(one).collect::<Result<_, DebugInspectorError>>()?)
            }
        })
    }

    /// The tracer's answer. `db` is the state before the transaction.
    ///
    /// # Errors
    /// When `db` fails, and when the answer would hold too much.
    pub(super) fn result<DB: DatabaseRef<Error: Display>>(
        &mut self,
        seen: &Seen<'_, impl Transaction, impl Block, impl HaltReasonTr>,
        db: &mut DB,
    ) -> Result<GethTrace, RpcError> {
        let &Seen { place, tx, block, outcome } = seen;
        let gas_used = outcome.result.tx_gas_used();
        let failed = |error: DB::Error| anyhow::anyhow!("trace: {error}");
        Ok(match self {
            Self::Call(calls, config) => GethTrace::CallTracer(calls.frames(*config, tx, gas_used)),
            Self::Flat(calls, config) => {
                calls.set_transaction(tx, gas_used);
                let info = TransactionInfo {
                    hash: place.and_then(|place| place.tx_hash),
                    index: place.and_then(|place| place.tx_index?.try_into().ok()),
                    block_hash: place.and_then(|place| place.block_hash),
                    block_number: Some(block.number().saturating_to()),
                    ..Default::default()
                };
                GethTrace::JS(flat::list(calls, *config, info).map_err(anyhow::Error::from)?)
            }
            Self::Prestate(inspector, config) => {
                let accounts = inspector.result(*config, tx, block, &outcome.state, db);
                let accounts = accounts.map_err(failed)?.ok_or_else(|| {
                    RpcError::Limit(format!(
                        "the trace records more than {} bytes: leave code or storage out with \
                         disableCode or disableStorage",
                        inspector.most
                    ))
                })?;
                GethTrace::JS(serde_json::to_value(accounts).map_err(anyhow::Error::from)?)
            }
            Self::Erc7562(inspector) => {
                let calls = inspector.result(tx, gas_used, db).map_err(failed)?;
                GethTrace::JS(serde_json::to_value(calls).map_err(anyhow::Error::from)?)
            }
            Self::Library(inspector) => inspector
                .get_result(place, tx, block, outcome, db)
                .map_err(|error| anyhow::anyhow!("trace: {error}"))?,
            Self::Mux(all) => {
                let one = |(tracer, one): &mut (GethDebugTracerType, Self)| {
                    Ok((tracer.clone(), one.result(seen, db)?))
                };
                let frames = all.iter_mut().map(one).collect::<Result<_, RpcError>>()?;
                GethTrace::MuxTracer(MuxFrame(frames))
            }
        })
    }

    /// Tells every inspector within of an event.
    fn tell<C>(&mut self, event: &mut dyn FnMut(&mut dyn Inspector<C>))
    where
        C: ContextTr<Journal: JournalExt, Db: DatabaseRef>,
    {
        match self {
            Self::Call(inspector, _) | Self::Flat(inspector, _) => event(inspector),
            Self::Prestate(inspector, _) => event(inspector),
            Self::Erc7562(inspector) => event(inspector),
            Self::Library(inspector) => event(inspector),
            Self::Mux(all) => all.iter_mut().for_each(|(_, inspector)| inspector.tell(event)),
        }
    }
}

impl Recorder for GethInspector {
    fn end_steps(&mut self) {
        if let Self::Library(DebugInspector::Default(inspector, _)) = self {
            inspector.end_steps();
        }
    }

    fn keeps_outputs(&self) -> bool {
        match self {
            Self::Call(..) | Self::Flat(..) | Self::Erc7562(_) => true,
            Self::Prestate(..) => false,
            Self::Library(inspector) => matches!(inspector, DebugInspector::Default(..)),
            Self::Mux(all) => all.iter().any(|(_, inspector)| inspector.keeps_outputs()),
        }
    }
}

impl<C> Inspector<C> for GethInspector
where
    C: ContextTr<Journal: JournalExt, Db: DatabaseRef>,
{
    fn initialize_interp(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.tell(&mut |inspector| inspector.initialize_interp(interp, context));
    }

    fn step(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.tell(&mut |inspector| inspector.step(interp, context));
    }

    fn step_end(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.tell(&mut |inspector| inspector.step_end(interp, context));
    }

    fn log(&mut self, context: &mut C, log: Log) {
        self.tell(&mut |inspector| inspector.log(context, log.clone()));
    }

    fn log_full(&mut self, interp: &mut Interpreter, context: &mut C, log: Log) {
        self.tell(&mut |inspector| inspector.log_full(interp, context, log.clone()));
    }

    // No tracer answers in place of a callee.
    fn call(&mut self, context: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let mut answer = None;
        self.tell(&mut |inspector| answer = inspector.call(context, inputs));
        answer
    }

    fn call_end(&mut self, context: &mut C, inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.tell(&mut |inspector| inspector.call_end(context, inputs, outcome));
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        let mut answer = None;
        self.tell(&mut |inspector| answer = inspector.create(context, inputs));
        answer
    }

    fn create_end(&mut self, context: &mut C, inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.tell(&mut |inspector| inspector.create_end(context, inputs, outcome));
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.tell::<C>(&mut |inspector| inspector.selfdestruct(contract, target, value));
    }
}
