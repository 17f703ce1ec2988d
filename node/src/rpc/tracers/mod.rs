//! go-ethereum's tracers by name, with their options.

mod call;
mod erc7562;
mod flat;
mod inspector;
mod prestate;

pub use self::inspector::GethInspector;

use self::{
    call::CallInspector,
    erc7562::Erc7562Inspector,
    inspector::Seen,
    prestate::{PrestateConfig, PrestateInspector},
};
use super::{
    error::RpcError,
    guard::{Deadline, Guarded, StepRecord, recording},
    replay::Traced,
};
use alloy_rpc_types_trace::geth::{
    GethDebugBuiltInTracerType as BuiltIn, GethDebugTracerConfig, GethDebugTracerType,
    GethDebugTracingOptions, GethTrace, erc7562::Erc7562Config,
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
    inspector: GethInspector,
    record: StepRecord,
    /// Most struct logs, of the default tracer.
    limit: Option<usize>,
    bytes: usize,
}

impl GethTracer {
    /// The tracer of `options`, which records at most `bytes` for a transaction.
    ///
    /// # Errors
    /// When there is no such tracer, and when its configuration is none of its own.
    pub fn new(mut options: GethDebugTracingOptions, bytes: usize) -> Result<Self, RpcError> {
        if matches!(&options.tracer, Some(GethDebugTracerType::JsTracer(name)) if name.is_empty()) {
            options.tracer = None;
        }
        if let Some(tracer) = options.tracer {
            let inspector = named(tracer, options.tracer_config, bytes)?;
            return Ok(Self { inspector, record: StepRecord::NONE, limit: None, bytes });
        }
        let limit = options.config.limit.filter(|limit| *limit > 0);
        // An older option says the same the other way round; the tracer knows only this one.
        options.config.enable_memory = Some(options.config.is_memory_enabled());
        let record = steps(&options);
        let inspector = match DebugInspector::new(options).map_err(unfit)? {
            DebugInspector::Default(inner, config) => {
                DebugInspector::Default(inner.with_limits(recording(bytes)), config)
            }
            other => other,
        };
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Self { inspector: GethInspector::Library(inspector), record, limit, bytes })
    }

    /// A fresh inspector.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn inspector(&self) -> Result<GethInspector, RpcError> {
        self.inspector.try_clone().map_err(unfit)
    }

    /// A fresh inspector within the request's bounds.
    pub(super) fn guarded(&self, deadline: Deadline) -> Result<Guarded<GethInspector>, RpcError> {
        let guarded = Guarded::new(self.inspector()?, deadline, self.record, self.bytes);
        Ok(guarded.with_most_steps(self.limit.unwrap_or(usize::MAX)))
    }

    /// What the tracer answers for a transaction.
    pub(super) fn show<DB: DatabaseRef<Error: std::fmt::Display>>(
        &self,
        inspector: &mut Guarded<GethInspector>,
        traced: &mut Traced<'_, DB>,
    ) -> Result<GethTrace, RpcError> {
        let place = traced.info.hash.map(|_| TransactionContext::from(traced.info));
        let Traced { tx, block, outcome, state, .. } = traced;
        self.result(&mut inspector.inspector, place, tx, block, outcome, *state)
    }

    /// What the tracer answers for a transaction that `inspector` saw. `db` is the state before it.
    ///
    /// # Errors
    /// When `db` fails, and when the answer would hold too much.
    pub fn result<DB: DatabaseRef<Error: std::fmt::Display>>(
        &self,
        inspector: &mut GethInspector,
        place: Option<TransactionContext>,
        tx: &impl Transaction,
        block: &impl Block,
        outcome: &ResultAndState<impl HaltReasonTr>,
        db: &mut DB,
    ) -> Result<GethTrace, RpcError> {
        inspector.result(&Seen { place, tx, block, outcome }, db)
    }
}

/// The inspector of a tracer that has a name.
fn named(
    tracer: GethDebugTracerType,
    config: GethDebugTracerConfig,
    bytes: usize,
) -> Result<GethInspector, RpcError> {
    let tracer = match tracer {
        GethDebugTracerType::BuiltInTracer(tracer) => tracer,
        GethDebugTracerType::JsTracer(name) => return Err(unknown(&name)),
    };
    let limits = recording(bytes);
    Ok(match tracer {
        BuiltIn::CallTracer => {
            let config = config.into_call_config().map_err(unfit)?;
            let calls = CallInspector::new(config.with_log.unwrap_or_default(), limits);
            GethInspector::Call(calls, config)
        }
        BuiltIn::FlatCallTracer => {
            let config = config.into_flat_call_config().map_err(unfit)?;
            GethInspector::Flat(CallInspector::new(false, limits), config)
        }
        BuiltIn::PreStateTracer => {
            let include_empty = config.0.get("includeEmpty") == Some(&Value::Bool(true));
            let common = config.into_pre_state_config().map_err(unfit)?;
            if common.is_diff_mode() && include_empty {
                return Err(RpcError::InvalidParams(
                    "cannot use diffMode with includeEmpty".into(),
                ));
            }
            let config = PrestateConfig { common, include_empty };
            GethInspector::Prestate(PrestateInspector::new(bytes), config)
        }
        BuiltIn::Erc7562Tracer => {
            let ignores = config.0.get("ignoredOpcodes").is_some_and(|list| !list.is_null());
            let config: Erc7562Config = match config.0 {
                Value::Null => Erc7562Config::default(),
                config => serde_json::from_value(config).map_err(unfit)?,
            };
            let ignored = ignores.then_some(config.ignored_opcodes);
            let with_log = config.with_log.unwrap_or_default();
            GethInspector::Erc7562(Erc7562Inspector::new(ignored, with_log, limits))
        }
        BuiltIn::FourByteTracer | BuiltIn::NoopTracer => {
            let options = GethDebugTracingOptions::new_tracer(tracer);
            GethInspector::Library(DebugInspector::new(options).map_err(unfit)?)
        }
        BuiltIn::MuxTracer => {
            let all = config.into_mux_config().map_err(unfit)?.0;
            let share = bytes.checked_div(all.len()).unwrap_or(bytes);
            let one = |(tracer, config): (GethDebugTracerType, Option<GethDebugTracerConfig>)| {
                if tracer == GethDebugTracerType::BuiltInTracer(BuiltIn::MuxTracer) {
                    return Err(unfit("muxTracer within muxTracer"));
                }
                let inspector = named(tracer.clone(), config.unwrap_or_default(), share)?;
                Ok((tracer, inspector))
            };
            GethInspector::Mux(all.into_iter().map(one).collect::<Result<_, _>>()?)
        }
        BuiltIn::StateGasTracer => return Err(unknown("stateGasTracer")),
    })
}

fn unfit(error: impl std::fmt::Display) -> RpcError {
    RpcError::InvalidParams(format!("invalid tracer config: {error}"))
}

/// What the default tracer shows of each step.
fn steps(options: &GethDebugTracingOptions) -> StepRecord {
    StepRecord {
        steps: true,
        stack: options.config.is_stack_enabled(),
        memory: options.config.is_memory_enabled(),
        storage: options.config.is_storage_enabled(),
    }
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
