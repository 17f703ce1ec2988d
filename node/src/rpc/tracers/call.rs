//! `callTracer`: the tree of calls, and go-ethereum's words for how they failed.

use alloy_rpc_types_trace::geth::{CallConfig, CallFrame};
use revm::{
    Inspector,
    bytecode::opcode::{self, OpCode},
    context_interface::{ContextTr, JournalTr, Transaction},
    inspector::JournalExt,
    interpreter::{
        CallInputs, CallOutcome, CallScheme, CreateInputs, CreateOutcome, InstructionResult,
        Interpreter,
        interpreter_types::{InputsTr, Jumps, LoopControl},
    },
    primitives::{Address, Log, U256},
};
use revm_inspectors::tracing::{
    TraceLimits, TracingInspector, TracingInspectorConfig,
    types::{CallTrace, CallTraceNode},
};
use std::collections::{BTreeMap, BTreeSet};

/// How many words a stack holds.
const STACK_LIMIT: usize = 1_024;

/// Records the tree of calls and, beside what the library does, what go-ethereum says of failures and of
/// destroyed contracts.
#[derive(Clone, Debug)]
pub struct CallInspector {
    calls: TracingInspector,
    /// Calls that have not ended, by their place in the tree.
    open: Vec<usize>,
    /// The latest instruction, and how many words were on its stack.
    latest: (u8, usize),
    /// The words for failures that name an instruction.
    faults: BTreeMap<usize, String>,
    /// `CALL` and `STATICCALL` of a precompile.
    precompiles: BTreeSet<usize>,
    /// Beneficiary and balance, when the latest instruction is `SELFDESTRUCT`.
    leaves: Option<(Address, U256)>,
}

impl CallInspector {
    /// A fresh one, with logs if asked for, within the limits.
    pub(super) fn new(with_log: bool, limits: TraceLimits) -> Self {
        let config =
            TracingInspectorConfig::none().set_record_inputs(true).set_record_logs(with_log);
        Self {
            calls: TracingInspector::new(config).with_limits(limits),
            open: Vec::new(),
            latest: (opcode::STOP, 0),
            faults: BTreeMap::new(),
            precompiles: BTreeSet::new(),
            leaves: None,
        }
    }

    /// The call that is being executed, by its place in the tree.
    pub(super) fn current(&self) -> Option<usize> {
        self.open.last().copied()
    }

    /// The calls in the order in which they began.
    pub(super) fn nodes(&self) -> &[CallTraceNode] {
        self.calls.traces().nodes()
    }

    /// Whether a call is a `CALL` or `STATICCALL` of a precompile, the transaction's own aside.
    pub(super) fn is_precompile(&self, index: usize) -> bool {
        self.precompiles.contains(&index)
    }

    /// Makes the first call that of the transaction, with all its gas.
    pub(super) fn set_transaction(&mut self, tx: &impl Transaction, gas_used: u64) {
        self.calls.set_transaction_gas_limit(tx.gas_limit());
        self.calls.set_transaction_gas_used(gas_used);
        self.calls.set_transaction_caller(tx.caller());
    }

    /// The tree as `callTracer` shows it.
    pub(super) fn frames(
        &mut self,
        config: CallConfig,
        tx: &impl Transaction,
        gas_used: u64,
    ) -> CallFrame {
        self.set_transaction(tx, gas_used);
        let mut root = self.calls.geth_builder().geth_call_traces(config, gas_used);
        if config.only_top_call.unwrap_or_default() {
            root.calls.clear();
        }
        let logs = self.surviving_logs();
        self.mend(&mut root, &mut self.nodes().iter(), &logs);
        root
    }

    /// Where each log that was not reverted was among all logs.
    fn surviving_logs(&self) -> Vec<u64> {
        let nodes = self.nodes();
        let mut failed: Vec<bool> = Vec::with_capacity(nodes.len());
        let mut logs = Vec::new();
        for node in nodes {
            let parent = node.parent.and_then(|parent| failed.get(parent).copied());
            let fails = node.trace.is_error() || parent.unwrap_or_default();
            failed.push(fails);
            if !fails {
                logs.extend(node.logs.iter().map(|log| log.index));
            }
        }
        logs.sort_unstable();
        logs
    }

    fn mend<'n>(
        &self,
        frame: &mut CallFrame,
        nodes: &mut impl Iterator<Item = &'n CallTraceNode>,
        logs: &[u64],
    ) {
        // A destroyed contract is a frame, but no call.
        if frame.typ == "SELFDESTRUCT" {
            return;
        }
        let Some(node) = nodes.next() else { return };
        frame.error = self.error(node);
        if !node.trace.is_revert() {
            frame.revert_reason = None;
        }
        if frame.error.is_some() {
            frame.logs.clear();
        }
        for log in &mut frame.logs {
            // What was reverted counts for nothing.
            let rank = log.index.and_then(|index| logs.binary_search(&index).ok());
            log.index = rank.and_then(|rank| rank.try_into().ok());
        }
        for call in &mut frame.calls {
            self.mend(call, nodes, logs);
        }
    }

    /// go-ethereum's words for how a call failed, if it did.
    pub(super) fn error(&self, node: &CallTraceNode) -> Option<String> {
        use InstructionResult as R;
        let trace = &node.trace;
        let status = trace.status.filter(|status| !status.is_ok())?;
        if let Some(fault) = self.faults.get(&node.idx) {
            return Some(fault.clone());
        }
        let words = match status {
            R::Revert => "execution reverted",
            R::CallTooDeep => "max call depth exceeded",
            R::OutOfFunds | R::OverflowPayment => "insufficient balance for transfer",
            // Only the code of a new contract is an output that can be too dear.
            R::OutOfGas if trace.kind.is_any_create() && !trace.output.is_empty() => {
                "contract creation code storage out of gas"
            }
            R::OutOfGas | R::MemoryOOG | R::MemoryLimitOOG | R::PrecompileOOG => "out of gas",
            R::InvalidOperandOOG => "gas uint64 overflow",
            R::ReentrancySentryOOG => "out of gas: not enough gas for reentrancy sentry",
            R::InvalidFEOpcode => "invalid opcode: INVALID",
            R::InvalidJump => "invalid jump destination",
            R::CallNotAllowedInsideStatic | R::StateChangeDuringStaticCall => "write protection",
            R::OutOfOffset => "return data out of bounds",
            R::CreateCollision => "contract address collision",
            R::PrecompileError => precompile_error(trace),
            R::NonceOverflow => "nonce uint64 overflow",
            R::CreateContractSizeLimit => "max code size exceeded",
            R::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
            R::CreateInitCodeSizeLimit => "max initcode size exceeded",
            other => return Some(format!("{other:?}")),
        };
        Some(words.into())
    }

    fn opened(&mut self) {
        // The tree begins with a place for the first call.
        self.open.push(self.nodes().len().saturating_sub(1));
    }

    fn closed(&mut self, status: InstructionResult) {
        let Some(index) = self.open.pop() else { return };
        let (op, height) = self.latest;
        if let Some(fault) = fault(status, op, height) {
            self.faults.insert(index, fault);
        }
    }
}

/// What an instruction did wrong, where go-ethereum names it.
fn fault(status: InstructionResult, op: u8, height: usize) -> Option<String> {
    let known = OpCode::new(op);
    let (inputs, outputs) = known.map_or((0, 0), |op| op.input_output());
    match status {
        InstructionResult::StackUnderflow => {
            Some(format!("stack underflow ({height} <=> {inputs})"))
        }
        InstructionResult::StackOverflow => {
            let most = (STACK_LIMIT + usize::from(inputs)).saturating_sub(usize::from(outputs));
            Some(format!("stack limit reached {height} ({most})"))
        }
        InstructionResult::OpcodeNotFound | InstructionResult::NotActivated => {
            Some(known.map_or_else(
                || format!("invalid opcode: opcode {op:#x} not defined"),
                |op| format!("invalid opcode: {}", op.as_str()),
            ))
        }
        _ => None,
    }
}

/// Why a precompile refused its input, as far as the input's length tells.
fn precompile_error(trace: &CallTrace) -> &'static str {
    let length = trace.data.len();
    match trace.address.into_word().0.last() {
        Some(8) if !length.is_multiple_of(192) => "bad elliptic curve pairing size",
        Some(9) if length != 213 => "invalid input length",
        Some(9) => "invalid final flag",
        Some(10) if length != 192 => "invalid input length",
        _ => "precompiled failed",
    }
}

impl<C: ContextTr<Journal: JournalExt>> Inspector<C> for CallInspector {
    fn step(&mut self, interp: &mut Interpreter, context: &mut C) {
        let op = interp.bytecode.opcode();
        self.latest = (op, interp.stack.len());
        self.leaves = None;
        if op == opcode::SELFDESTRUCT
            && let Ok(beneficiary) = interp.stack.peek(0)
        {
            let account = context.journal_ref().evm_state().get(&interp.input.target_address());
            let balance = account.map(|account| account.info.balance).unwrap_or_default();
            self.leaves = Some((Address::from_word(beneficiary.into()), balance));
        }
        self.calls.step(interp, context);
    }

    fn step_end(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.calls.step_end(interp, context);
        let Some((beneficiary, balance)) = self.leaves.take() else { return };
        if interp.bytecode.instruction_result() != Some(InstructionResult::SelfDestruct) {
            return;
        }
        let Some(index) = self.current() else { return };
        if let Some(node) = self.calls.traces_mut().nodes_mut().get_mut(index) {
            node.trace.selfdestruct_address = Some(interp.input.target_address());
            node.trace.selfdestruct_refund_target = Some(beneficiary);
            node.trace.selfdestruct_transferred_value = Some(balance);
        }
    }

    fn log(&mut self, context: &mut C, log: Log) {
        self.calls.log(context, log);
    }

    fn call(&mut self, context: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let outcome = self.calls.call(context, inputs);
        let inner = !self.open.is_empty();
        self.opened();
        if inner
            && matches!(inputs.scheme, CallScheme::Call | CallScheme::StaticCall)
            && context.journal_ref().precompile_addresses().contains(&inputs.bytecode_address)
        {
            self.precompiles.extend(self.current());
        }
        outcome
    }

    fn call_end(&mut self, context: &mut C, inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.calls.call_end(context, inputs, outcome);
        self.closed(outcome.result.result);
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        let outcome = self.calls.create(context, inputs);
        self.opened();
        outcome
    }

    fn create_end(&mut self, context: &mut C, inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.calls.create_end(context, inputs, outcome);
        self.closed(outcome.result.result);
    }

    // The library's hook for destroyed contracts is told of other transfers too: `step_end` knows better.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_instruction_as_go_ethereum_does() {
        use InstructionResult as R;
        let table = [
            (R::StackUnderflow, opcode::ADD, 1, Some("stack underflow (1 <=> 2)")),
            (R::StackOverflow, opcode::PUSH1, 1_024, Some("stack limit reached 1024 (1023)")),
            (R::NotActivated, opcode::PUSH0, 0, Some("invalid opcode: PUSH0")),
            (R::OpcodeNotFound, 0x0c, 0, Some("invalid opcode: opcode 0xc not defined")),
            (R::OutOfGas, opcode::ADD, 2, None),
        ];
        for (status, op, height, words) in table {
            assert_eq!(fault(status, op, height).as_deref(), words, "{status:?}");
        }
    }
}
