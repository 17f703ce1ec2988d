//! go-ethereum's tracers by name, with their options.

use super::{
    error::RpcError,
    guard::{Deadline, Guarded, StepRecord, recording},
    replay::Traced,
};
use alloy_primitives::U256;
use alloy_rpc_types_trace::{
    geth::{
        AccountState, GethDebugBuiltInTracerType, GethDebugTracerType, GethDebugTracingOptions,
        GethTrace, PreStateFrame, mux::MuxFrame,
    },
    parity::Action,
};
use revm::{
    DatabaseRef,
    context_interface::{
        Block, Transaction,
        result::{HaltReasonTr, ResultAndState},
    },
};
use revm_inspectors::tracing::{DebugInspector, TransactionContext};
use serde_json::Value;
use std::time::Duration;

/// A tracer that a request asked for.
#[derive(Debug)]
pub struct GethTracer {
    /// Fresh; each transaction gets a copy.
    inspector: DebugInspector,
    record: StepRecord,
    /// Most struct logs, of the default tracer.
    limit: Option<usize>,
    /// Whether `flatCallTracer` has errors in OpenEthereum's words.
    parity_errors: bool,
    /// Whether `prestateTracer` shows accounts that do not exist.
    include_empty: bool,
    bytes: usize,
}

impl GethTracer {
    /// The tracer of `options`, which records at most `bytes` for a transaction.
    ///
    /// # Errors
    /// When there is no such tracer, and when its configuration is none of its own.
    pub fn new(mut options: GethDebugTracingOptions, bytes: usize) -> Result<Self, RpcError> {
        let limit = options.config.limit.filter(|limit| *limit > 0);
        // An older option says the same the other way round; the tracer knows only this one.
        options.config.enable_memory = Some(options.config.is_memory_enabled());
        let record = match &options.tracer {
            Some(GethDebugTracerType::JsTracer(code)) if code.is_empty() => {
                options.tracer = None;
                steps(&options)
            }
            Some(GethDebugTracerType::JsTracer(name)) => return Err(unknown(name)),
            Some(GethDebugTracerType::BuiltInTracer(GethDebugBuiltInTracerType::Erc7562Tracer)) => {
                StepRecord::Stack
            }
            Some(GethDebugTracerType::BuiltInTracer(_)) => StepRecord::None,
            None => steps(&options),
        };
        let limit = limit.filter(|_| options.tracer.is_none());
        // Options that the library's tracers leave to their callers.
        let asked = |name: &str| options.tracer_config.0.get(name) == Some(&Value::Bool(true));
        let (parity_errors, include_empty) = (asked("convertParityErrors"), asked("includeEmpty"));
        let inspector = DebugInspector::new(options)
            .map_err(|error| RpcError::InvalidParams(error.to_string()))?;
        let limits = recording(bytes);
        let inspector = match inspector {
            DebugInspector::CallTracer(inner, config) => {
                DebugInspector::CallTracer(inner.with_limits(limits), config)
            }
            DebugInspector::FlatCallTracer(inner) => {
                DebugInspector::FlatCallTracer(inner.with_limits(limits))
            }
            DebugInspector::Erc7562Tracer(inner, config) => {
                DebugInspector::Erc7562Tracer(inner.with_limits(limits), config)
            }
            DebugInspector::Default(inner, config) => {
                DebugInspector::Default(inner.with_limits(limits), config)
            }
            other @ (DebugInspector::FourByte(_)
            | DebugInspector::PreStateTracer(..)
            | DebugInspector::Noop(_)
            | DebugInspector::Mux(..)) => other,
        };
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Self { inspector, record, limit, parity_errors, include_empty, bytes })
    }

    /// A fresh inspector.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn inspector(&self) -> Result<DebugInspector, RpcError> {
        self.inspector.try_clone().map_err(|error| RpcError::InvalidParams(error.to_string()))
    }

    /// A fresh inspector within the request's bounds.
    pub(super) fn guarded(&self, deadline: Deadline) -> Result<Guarded<DebugInspector>, RpcError> {
        let guarded = Guarded::new(self.inspector()?, deadline, self.record, self.bytes);
        let guarded = guarded.with_most_steps(self.limit.unwrap_or(usize::MAX));
        let bounds_inputs = !matches!(self.inspector, DebugInspector::Mux(..));
        Ok(if bounds_inputs { guarded } else { guarded.with_inputs() })
    }

    /// What the tracer answers for a transaction.
    pub(super) fn show<DB: DatabaseRef<Error: std::fmt::Display>>(
        &self,
        inspector: &mut Guarded<DebugInspector>,
        traced: &mut Traced<'_, DB>,
    ) -> Result<GethTrace, RpcError> {
        let place = traced.info.hash.map(|_| TransactionContext::from(traced.info));
        let Traced { tx, block, outcome, state, .. } = traced;
        self.result(&mut inspector.inspector, place, tx, block, outcome, *state)
    }

    /// What the tracer answers for a transaction that `inspector` saw. `db` is the state before it.
    ///
    /// # Errors
    /// When `db` fails.
    pub fn result<DB: DatabaseRef<Error: std::fmt::Display>>(
        &self,
        inspector: &mut DebugInspector,
        place: Option<TransactionContext>,
        tx: &impl Transaction,
        block: &impl Block,
        outcome: &ResultAndState<impl HaltReasonTr>,
        db: &mut DB,
    ) -> Result<GethTrace, RpcError> {
        let mut trace = inspector
            .get_result(place, tx, block, outcome, db)
            .map_err(|error| RpcError::Internal(anyhow::anyhow!("trace: {error}")))?;
        match &mut trace {
            GethTrace::FlatCallTracer(frames) if !self.parity_errors => {
                for frame in frames {
                    frame.trace.error = frame.trace.error.take().map(geth_error);
                }
            }
            GethTrace::PreStateTracer(PreStateFrame::Default(accounts)) if !self.include_empty => {
                accounts.0.retain(|_, account| exists(account));
            }
            GethTrace::MuxTracer(MuxFrame(frames)) => {
                frames.values_mut().for_each(|frame| set_gas(frame, tx.gas_limit()));
            }
            _ => {}
        }
        Ok(trace)
    }
}

/// Alone, the call tracers show the transaction's gas limit; through the mux they leave out what is
/// intrinsic.
fn set_gas(frame: &mut GethTrace, gas: u64) {
    match frame {
        GethTrace::CallTracer(root) => root.gas = U256::from(gas),
        GethTrace::FlatCallTracer(frames) => {
            match frames.first_mut().map(|root| &mut root.trace.action) {
                Some(Action::Call(call)) => call.gas = gas,
                Some(Action::Create(create)) => create.gas = gas,
                Some(Action::Selfdestruct(_) | Action::Reward(_)) | None => {}
            }
        }
        _ => {}
    }
}

/// go-ethereum's words for OpenEthereum's.
fn geth_error(parity: String) -> String {
    let geth = match parity.as_str() {
        "Reverted" => "execution reverted",
        "Out of gas" => "out of gas",
        "Bad instruction" => "invalid opcode: INVALID",
        "Bad jump destination" => "invalid jump destination",
        "Insufficient balance for transfer" => "insufficient balance for transfer",
        "Built-in failed" => "precompiled failed",
        _ => return parity,
    };
    geth.into()
}

/// Whether an account was there before the transaction.
fn exists(account: &AccountState) -> bool {
    account.balance.is_some_and(|balance| !balance.is_zero())
        || account.nonce.is_some_and(|nonce| nonce > 0)
        || account.code.is_some()
        || !account.storage.is_empty()
}

/// What the default tracer records with each step.
fn steps(options: &GethDebugTracingOptions) -> StepRecord {
    if options.config.is_stack_enabled() { StepRecord::Stack } else { StepRecord::Step }
}

fn unknown(name: &str) -> RpcError {
    let known = "callTracer, flatCallTracer, prestateTracer, 4byteTracer, erc7562Tracer, muxTracer, \
                 noopTracer, or none for struct logs";
    if name.contains(['{', '(', ' ', '\n']) {
        return RpcError::InvalidParams(format!(
            "JavaScript tracers are not supported: use one of {known}"
        ));
    }
    RpcError::InvalidParams(format!("tracer {name} does not exist: use one of {known}"))
}

/// The time that a request gives itself: a Go duration, as `1m30s` or `2.5s`. Without one, as much as
/// there is.
pub(super) fn timeout(options: &GethDebugTracingOptions) -> Result<Duration, RpcError> {
    let Some(text) = &options.timeout else { return Ok(Duration::MAX) };
    go_duration(text).ok_or_else(|| {
        RpcError::InvalidParams(format!("timeout {text:?} is no duration, as 5s is"))
    })
}

fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("\u{b5}s", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3_600.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let length = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = rest.get(..length)?;
        seconds += number * UNITS.iter().find(|(name, _)| *name == unit)?.1;
        rest = rest.get(length..)?;
        if rest.is_empty() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_go_durations() {
        let table = [
            ("5s", Some(5_000)),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("5 s", None),
            ("", None),
            ("5sec", None),
        ];
        for (text, expected) in table {
            assert_eq!(go_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn errors_of_flat_traces_are_in_the_words_that_are_asked_for() {
        assert_eq!(geth_error("Reverted".into()), "execution reverted");
        assert_eq!(
            geth_error("NotActivated".into()),
            "NotActivated",
            "others are the same in both"
        );
    }

    #[test]
    fn javascript_and_unknown_tracers_are_refused_with_what_there_is() {
        let new = |tracer: &str| {
            let options = GethDebugTracingOptions::js_tracer(tracer);
            GethTracer::new(options, 1).expect_err("no such tracer").to_string()
        };
        let javascript = new("{step: function() {}, fault: function() {}, result: function() {}}");
        assert!(javascript.starts_with("JavaScript tracers are not supported"), "{javascript}");
        let unknown = new("coolTracer");
        assert!(unknown.starts_with("tracer coolTracer does not exist"), "{unknown}");
        assert!(unknown.contains("callTracer, flatCallTracer"), "{unknown}");
    }
}
