//! What tells a call that takes microseconds from one that takes longer, while it runs.

use alloy_primitives::Address;
use revm::{
    Inspector,
    context_interface::{ContextTr, JournalTr},
    interpreter::{CallInputs, CallOutcome, Interpreter},
    precompile::Precompiles,
};

/// Gas that a brief call uses at most beside its input's: tens of microseconds of computing, or less than fifty
/// reads of the state.
const GAS: u64 = 100_000;
/// Precompiles whose time is little and grows with their input only: ecrecover, SHA-256, RIPEMD-160, identity.
const BRIEF_PRECOMPILES: u8 = 4;
/// Longest input of those, bytes.
const INPUT: usize = 8 * 1024;

/// Ends a call that is not brief. Its result then says nothing.
#[derive(Debug)]
pub(super) struct Brief {
    precompiles: &'static Precompiles,
    /// What each frame on the way to the current one had used when it last made a step.
    used: Vec<u64>,
    over: bool,
}

impl Brief {
    pub(super) const fn new(precompiles: &'static Precompiles) -> Self {
        Self { precompiles, used: Vec::new(), over: false }
    }

    /// Whether the call was ended.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }
}

impl<C: ContextTr> Inspector<C> for Brief {
    fn step(&mut self, interp: &mut Interpreter, context: &mut C) {
        // A frame's own use holds what frames that it called have used, once they have ended.
        self.used.truncate(context.journal().depth().saturating_sub(1));
        self.used.push(interp.gas.total_gas_spent());
        self.over = self.over || self.used.iter().sum::<u64>() > GAS;
        if self.over {
            interp.halt_oog();
        }
    }

    fn call(&mut self, _: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let to = inputs.bytecode_address;
        if self.precompiles.contains(&to) {
            let is_brief = (1..=BRIEF_PRECOMPILES).any(|byte| to == Address::with_last_byte(byte));
            self.over = self.over || !is_brief || inputs.input.len() > INPUT;
        }
        self.over
            .then(|| CallOutcome::new_oog(inputs.gas_limit, inputs.return_memory_offset.clone()))
    }
}
