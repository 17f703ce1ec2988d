//! What bounds a trace: time, memory for what it records, and the answer's size.

use super::error::RpcError;
use revm::{
    DatabaseRef, Inspector,
    bytecode::opcode,
    context_interface::{ContextError, ContextTr},
    inspector::JournalExt,
    interpreter::{
        CallInputs, CallOutcome, CreateInputs, CreateOutcome, Interpreter,
        interpreter_types::{InputsTr, Jumps},
    },
    primitives::{Address, Log, U256},
};
use revm_inspectors::tracing::{TraceLimitBehavior, TraceLimits, TracingInspector};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

/// Looking at the clock at each step would take longer than most steps.
const STEPS_BETWEEN_LOOKS: u32 = 1_024;
/// What a recorded step takes without stack, memory and storage, about.
const STEP_BYTES: usize = 256;
/// A word of the stack.
const WORD_BYTES: usize = 32;
/// A word of memory, which is shown as text, about.
const MEMORY_WORD_BYTES: usize = 96;
/// A slot of storage and its value, about.
const SLOT_BYTES: usize = 96;
/// A byte that a call returned, which is shown as two digits.
const OUTPUT_BYTES: usize = 2;

/// When a request has to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    end: Instant,
    time: Duration,
}

impl Deadline {
    /// So much from now.
    pub(super) fn after(time: Duration) -> Self {
        let now = Instant::now();
        // A time beyond what the clock holds never ends.
        let end = now.checked_add(time).unwrap_or(now + Duration::from_secs(1 << 31));
        Self { end, time }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// An error once it is over.
    pub(super) fn check(&self) -> Result<(), RpcError> {
        if self.is_over() { Err(RpcError::Limit(self.message())) } else { Ok(()) }
    }

    fn message(&self) -> String {
        format!("execution timeout: the trace takes longer than {:?}", self.time)
    }
}

/// What of each step is part of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StepRecord {
    /// Whether steps are recorded at all.
    pub(super) steps: bool,
    /// The whole stack before the step.
    pub(super) stack: bool,
    /// The whole memory before the step, whether the step before changed it or not.
    pub(super) memory: bool,
    /// With each access to storage, all that the contract accessed so far.
    pub(super) storage: bool,
}

impl StepRecord {
    /// No steps.
    pub(super) const NONE: Self =
        Self { steps: false, stack: false, memory: false, storage: false };
    /// Steps alone.
    pub(super) const STEPS: Self = Self { steps: true, ..Self::NONE };
}

/// Room in an answer. Results that are kept until all are there take of it one after the other, so that a
/// request whose answer would be refused for its size holds no more than that in memory.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    left: usize,
}

impl Room {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, left: most }
    }

    /// Takes as much as the JSON of `result` is long.
    pub(super) fn take(&mut self, result: &impl Serialize) -> Result<(), RpcError> {
        serde_json::to_writer(&mut *self, result).map_err(|_| {
            RpcError::Limit(format!(
                "the answer is larger than {} bytes: ask for fewer transactions at a time",
                self.most
            ))
        })
    }
}

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left =
            self.left.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("no room"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An inspector whose recording is bounded while it runs.
pub(super) trait Recorder {
    /// Records no further step.
    fn end_steps(&mut self);

    /// Whether it keeps what calls return.
    fn keeps_outputs(&self) -> bool {
        true
    }
}

impl Recorder for TracingInspector {
    fn end_steps(&mut self) {
        self.config_mut().record_steps = false;
    }
}

/// The library's own account of inputs and memory, which ends the execution when there is too much.
pub(super) fn recording(bytes: usize) -> TraceLimits {
    TraceLimits::default()
        .set_max_recorded_bytes(Some(bytes))
        .set_behavior(TraceLimitBehavior::Halt)
}

/// Ends the execution for a reason that is the request's.
pub(super) fn end(interp: &mut Interpreter, context: &mut impl ContextTr, reason: String) {
    *context.error() = Err(ContextError::Custom(reason));
    interp.halt_fatal();
}

/// An inspector within its bounds: beyond them, the execution ends with an error.
#[derive(Debug)]
pub(super) struct Guarded<I> {
    pub(super) inspector: I,
    deadline: Deadline,
    record: StepRecord,
    /// How many bytes may be recorded.
    bytes: usize,
    /// How many steps are recorded; the rest is left out.
    most_steps: usize,
    steps_to_look: u32,
    recorded_bytes: usize,
    recorded_steps: usize,
    /// The slots that were accessed, by contract, where they are shown.
    slots: BTreeMap<Address, BTreeSet<U256>>,
}

impl<I: Recorder> Guarded<I> {
    pub(super) fn new(inspector: I, deadline: Deadline, record: StepRecord, bytes: usize) -> Self {
        Self {
            inspector,
            deadline,
            record,
            bytes,
            most_steps: usize::MAX,
            steps_to_look: STEPS_BETWEEN_LOOKS,
            recorded_bytes: 0,
            recorded_steps: 0,
            slots: BTreeMap::new(),
        }
    }

    /// Records that many steps at most.
    pub(super) fn with_most_steps(mut self, most: usize) -> Self {
        self.most_steps = most;
        self
    }

    /// When it has to be done.
    pub(super) const fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Forgets what was recorded, before the next transaction.
    pub(super) fn restart(&mut self, inspector: I) {
        self.inspector = inspector;
        self.recorded_bytes = 0;
        self.recorded_steps = 0;
        self.slots.clear();
    }

    /// What this step takes in the answer, about.
    fn step_bytes(&mut self, interp: &Interpreter) -> usize {
        let mut bytes = STEP_BYTES;
        if self.record.stack {
            bytes += interp.stack.len() * WORD_BYTES;
        }
        if self.record.memory {
            bytes += interp.memory.len() / WORD_BYTES * MEMORY_WORD_BYTES;
        }
        if self.record.storage
            && matches!(interp.bytecode.opcode(), opcode::SLOAD | opcode::SSTORE)
            && let Ok(slot) = interp.stack.peek(0)
        {
            let slots = self.slots.entry(interp.input.target_address()).or_default();
            slots.insert(slot);
            bytes += slots.len() * SLOT_BYTES;
        }
        bytes
    }

    fn record_output(&mut self, bytes: usize) {
        if self.inspector.keeps_outputs() {
            self.recorded_bytes = self.recorded_bytes.saturating_add(bytes * OUTPUT_BYTES);
        }
    }

    /// Why the execution has to end before this step.
    fn over(&mut self, interp: &Interpreter) -> Option<String> {
        self.steps_to_look -= 1;
        if self.steps_to_look == 0 {
            self.steps_to_look = STEPS_BETWEEN_LOOKS;
            if self.deadline.is_over() {
                return Some(self.deadline.message());
            }
        }
        if self.record.steps && self.recorded_steps <= self.most_steps {
            self.recorded_steps += 1;
            if self.recorded_steps > self.most_steps {
                self.inspector.end_steps();
            } else {
                self.recorded_bytes = self.recorded_bytes.saturating_add(self.step_bytes(interp));
            }
        }
        (self.recorded_bytes > self.bytes).then(|| {
            let advice = if self.record.steps {
                ": ask for fewer steps with limit, or leave stack, memory and storage out"
            } else {
                ""
            };
            format!("the trace records more than {} bytes{advice}", self.bytes)
        })
    }
}

impl<I, C> Inspector<C> for Guarded<I>
where
    I: Recorder + Inspector<C>,
    C: ContextTr<Journal: JournalExt, Db: DatabaseRef>,
{
    fn initialize_interp(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.inspector.initialize_interp(interp, context);
    }

    fn step(&mut self, interp: &mut Interpreter, context: &mut C) {
        if let Some(reason) = self.over(interp) {
            return end(interp, context, reason);
        }
        self.inspector.step(interp, context);
    }

    fn step_end(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.inspector.step_end(interp, context);
    }

    fn log(&mut self, context: &mut C, log: Log) {
        self.inspector.log(context, log);
    }

    fn log_full(&mut self, interp: &mut Interpreter, context: &mut C, log: Log) {
        self.inspector.log_full(interp, context, log);
    }

    fn call(&mut self, context: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.inspector.call(context, inputs)
    }

    fn call_end(&mut self, context: &mut C, inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.inspector.call_end(context, inputs, outcome);
        self.record_output(outcome.result.output.len());
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.inspector.create(context, inputs)
    }

    fn create_end(&mut self, context: &mut C, inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.inspector.create_end(context, inputs, outcome);
        self.record_output(outcome.result.output.len());
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        Inspector::<C>::selfdestruct(&mut self.inspector, contract, target, value);
    }
}
