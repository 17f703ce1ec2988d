//! `erc7562Tracer`: calls with what bundlers of ERC-4337 have to know of them (ERC-7562).

use super::call::CallInspector;
use crate::rpc::guard;
use alloy_primitives::{Address, B256, Bytes, U256, map::HashMap};
use alloy_rpc_types_trace::geth::{
    CallConfig, CallFrame,
    erc7562::{AccessedSlots, ContractSize},
};
use revm::{
    DatabaseRef, Inspector,
    bytecode::opcode,
    context_interface::{ContextTr, Transaction},
    inspector::JournalExt,
    interpreter::{
        CallInputs, CallOutcome, CreateInputs, CreateOutcome, Interpreter,
        interpreter_types::{Jumps, LoopControl},
    },
    primitives::Log,
};
use revm_inspectors::tracing::TraceLimits;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// How far beyond the memory a hashed part may reach.
const MOST_PADDING: usize = 1 << 20;

/// Records calls, and for each what its instructions used.
#[derive(Clone, Debug)]
pub struct Erc7562Inspector {
    calls: CallInspector,
    ignored: BTreeSet<u8>,
    with_log: bool,
    /// By the call's place in the tree.
    used: Vec<Used>,
    /// The instruction before, with the word on top of its stack. None before a call's end.
    latest: Option<(u8, U256)>,
    /// The slot that the present instruction reads.
    reads: Option<B256>,
    preimages: BTreeSet<Bytes>,
    /// Bytes that preimages may still take.
    left: usize,
}

/// What a call's instructions used.
#[derive(Clone, Debug, Default)]
struct Used {
    slots: AccessedSlots,
    codes: Vec<Address>,
    opcodes: BTreeMap<u8, u64>,
    /// Which instruction looked at a contract first, and the size of its code where the EVM had it.
    contracts: BTreeMap<Address, (u8, Option<usize>)>,
}

impl Erc7562Inspector {
    /// A fresh one. `ignored` are the opcodes that are not counted; without it, those that no rule is about.
    pub(super) fn new(ignored: Option<Vec<u8>>, with_log: bool, limits: TraceLimits) -> Self {
        Self {
            calls: CallInspector::new(with_log, limits),
            ignored: ignored.map_or_else(harmless, |ignored| ignored.into_iter().collect()),
            with_log,
            used: Vec::new(),
            latest: None,
            reads: None,
            preimages: BTreeSet::new(),
            left: limits.max_recorded_bytes.unwrap_or(usize::MAX),
        }
    }

    fn current(&mut self) -> Option<&mut Used> {
        let index = self.calls.current()?;
        if self.used.len() <= index {
            self.used.resize_with(index + 1, Used::default);
        }
        self.used.get_mut(index)
    }

    /// Takes down what an instruction is about to do.
    fn before(&mut self, interp: &Interpreter, state: &impl JournalExt) {
        let op = interp.bytecode.opcode();
        let word = |depth| interp.stack.peek(depth).ok();
        let slot = word(0).map(B256::from);
        if matches!(op, opcode::RETURN | opcode::REVERT) {
            self.latest = None;
        }
        let latest = self.latest.replace((op, word(0).unwrap_or_default()));
        let counted = op != opcode::GAS && !self.ignored.contains(&op);
        self.reads = None;
        let Some(used) = self.current() else { return };
        match latest {
            // Whether there is any code may be asked (OP-051).
            Some((opcode::EXTCODESIZE, _)) if op == opcode::ISZERO => {}
            Some((before, top)) if is_code_access(before) => {
                used.codes.push(Address::from_word(top.into()));
            }
            // Gas may be asked for to hand it to a call (OP-012).
            Some((opcode::GAS, _)) if !is_call(op) => {
                *used.opcodes.entry(opcode::GAS).or_default() += 1;
            }
            _ => {}
        }
        if (is_code_access(op) || is_call(op))
            && let Some(word) = word(usize::from(is_call(op)))
        {
            let address = Address::from_word(word.into());
            used.contracts.entry(address).or_insert_with(|| {
                let code = state.evm_state().get(&address).and_then(|a| a.info.code.as_ref());
                (op, code.map(|code| code.len()))
            });
        }
        if counted {
            *used.opcodes.entry(op).or_default() += 1;
        }
        let slots = &mut used.slots;
        match (op, slot) {
            (opcode::SLOAD, Some(slot)) => {
                // Only what was there before the call wrote it.
                let known = slots.reads.contains_key(&slot) || slots.writes.contains_key(&slot);
                self.reads = (!known).then_some(slot);
            }
            (opcode::SSTORE, Some(slot)) => *slots.writes.entry(slot).or_default() += 1,
            (opcode::TLOAD, Some(slot)) => *slots.transient_reads.entry(slot).or_default() += 1,
            (opcode::TSTORE, Some(slot)) => *slots.transient_writes.entry(slot).or_default() += 1,
            _ => {}
        }
    }

    /// Keeps what is about to be hashed. False when there is no room for it.
    fn keep_preimage(&mut self, interp: &Interpreter) -> bool {
        let word = |depth| interp.stack.peek(depth).ok().and_then(|word| word.try_into().ok());
        let (Some(start), Some(length)): (Option<usize>, Option<usize>) = (word(0), word(1)) else {
            return true;
        };
        let memory = interp.memory.context_memory();
        let Some(end) = start.checked_add(length) else { return true };
        if length > 0 && end > memory.len().saturating_add(MOST_PADDING) {
            return true;
        }
        let Some(left) = self.left.checked_sub(length) else { return false };
        let known = memory.get(start.min(memory.len())..end.min(memory.len()));
        let mut preimage = known.unwrap_or_default().to_vec();
        preimage.resize(length, 0);
        if self.preimages.insert(preimage.into()) {
            self.left = left;
        }
        true
    }

    /// What the tracer answers.
    ///
    /// # Errors
    /// When `db`, the state before the transaction, fails.
    pub(super) fn result<DB: DatabaseRef>(
        &mut self,
        tx: &impl Transaction,
        gas_used: u64,
        db: &DB,
    ) -> Result<Erc7562Call, DB::Error> {
        let config = CallConfig { only_top_call: None, with_log: Some(self.with_log) };
        let root = self.calls.frames(config, tx, gas_used);
        let mut root = Erc7562Call::new(root, &mut mem::take(&mut self.used).into_iter(), db)?;
        // Only calls within the transaction's run out of gas, in go-ethereum's view.
        root.used.out_of_gas = false;
        root.keccak = mem::take(&mut self.preimages);
        Ok(root)
    }
}

impl<C: ContextTr<Journal: JournalExt>> Inspector<C> for Erc7562Inspector {
    fn step(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.calls.step(interp, context);
        self.before(interp, context.journal_ref());
        if interp.bytecode.opcode() == opcode::KECCAK256 && !self.keep_preimage(interp) {
            guard::end(interp, context, "the trace records too many bytes of hashed data".into());
        }
    }

    fn step_end(&mut self, interp: &mut Interpreter, context: &mut C) {
        self.calls.step_end(interp, context);
        let Some(slot) = self.reads.take() else { return };
        if interp.bytecode.instruction_result().is_none()
            && let Ok(value) = interp.stack.peek(0)
            && let Some(used) = self.current()
        {
            used.slots.reads.insert(slot, vec![value.into()]);
        }
    }

    fn log(&mut self, context: &mut C, log: Log) {
        self.calls.log(context, log);
    }

    fn call(&mut self, context: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.calls.call(context, inputs)
    }

    fn call_end(&mut self, context: &mut C, inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.calls.call_end(context, inputs, outcome);
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.calls.create(context, inputs)
    }

    fn create_end(&mut self, context: &mut C, inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.calls.create_end(context, inputs, outcome);
    }
}

/// A call as the tracer shows it.
#[derive(Debug, Serialize)]
pub(super) struct Erc7562Call {
    #[serde(flatten)]
    call: CallFrame,
    #[serde(flatten)]
    used: ShownUse,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    keccak: BTreeSet<Bytes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Self>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownUse {
    accessed_slots: AccessedSlots,
    ext_code_access_info: Vec<Address>,
    used_opcodes: BTreeMap<String, u64>,
    contract_size: HashMap<Address, ContractSize>,
    out_of_gas: bool,
}

impl Erc7562Call {
    fn new<DB: DatabaseRef>(
        mut call: CallFrame,
        used: &mut impl Iterator<Item = Used>,
        db: &DB,
    ) -> Result<Self, DB::Error> {
        // A destroyed contract is a frame, but no call.
        let is_call = call.typ != "SELFDESTRUCT";
        let Used { slots, codes, opcodes, contracts } =
            if is_call { used.next().unwrap_or_default() } else { Used::default() };
        let out_of_gas = call.error.as_deref().is_some_and(|error| {
            error.starts_with("out of gas") || error == "contract creation code storage out of gas"
        });
        let contract_size = contracts.into_iter().map(|(address, (opcode, size))| {
            let size = match size {
                Some(size) => size,
                None => code_size(address, db)?,
            };
            Ok((address, ContractSize { contract_size: size as u64, opcode }))
        });
        let used_opcodes = opcodes.into_iter().map(|(op, count)| (format!("{op:#x}"), count));
        let shown = ShownUse {
            accessed_slots: slots,
            ext_code_access_info: codes,
            used_opcodes: used_opcodes.collect(),
            contract_size: contract_size.collect::<Result<_, DB::Error>>()?,
            out_of_gas,
        };
        let inner = mem::take(&mut call.calls).into_iter();
        let calls = inner.map(|inner| Self::new(inner, used, db)).collect::<Result<_, _>>()?;
        Ok(Self { call, used: shown, keccak: BTreeSet::new(), calls })
    }
}

fn code_size<DB: DatabaseRef>(address: Address, db: &DB) -> Result<usize, DB::Error> {
    let Some(info) = db.basic_ref(address)? else { return Ok(0) };
    match &info.code {
        Some(code) => Ok(code.len()),
        None if info.is_empty_code_hash() => Ok(0),
        None => Ok(db.code_by_hash_ref(info.code_hash)?.len()),
    }
}

const fn is_call(op: u8) -> bool {
    matches!(op, opcode::CALL | opcode::CALLCODE | opcode::DELEGATECALL | opcode::STATICCALL)
}

const fn is_code_access(op: u8) -> bool {
    matches!(op, opcode::EXTCODEHASH | opcode::EXTCODESIZE | opcode::EXTCODECOPY)
}

/// Opcodes that no rule of ERC-7562 is about: the stack's, arithmetic and comparisons.
fn harmless() -> BTreeSet<u8> {
    let others = [
        opcode::POP,
        opcode::ADD,
        opcode::SUB,
        opcode::MUL,
        opcode::DIV,
        opcode::EQ,
        opcode::LT,
        opcode::GT,
        opcode::SLT,
        opcode::SGT,
        opcode::SHL,
        opcode::SHR,
        opcode::AND,
        opcode::OR,
        opcode::NOT,
        opcode::ISZERO,
    ];
    (opcode::PUSH0..=opcode::SWAP16).chain(others).collect()
}
