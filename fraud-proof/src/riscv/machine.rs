//! The steps of a machine.
//!
//! A step is one instruction that completed. An instruction that cannot complete changes nothing and
//! halts the machine, whose state stays as it was before it.

use super::{
    decode::{Instruction, Kind},
    elf::Program,
    layout::{EXIT_CALL, SPACE_START},
    memory::{Access, Memory, Page},
    tree::Tree,
};
use alloc::{boxed::Box, vec::Vec};
use alloy_primitives::B256;

/// Steps between two roots of a trace that a dispute is about.
pub const CHECKPOINT: u64 = 1 << 20;

/// Why a machine goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Halt {
    /// The program ended itself.
    #[error("exit with {0}")]
    Exit(u32),
    /// `ecall` with another number in `a7` than [`EXIT_CALL`].
    #[error("unknown call {0}")]
    UnknownCall(u32),
    /// `ebreak`.
    #[error("breakpoint")]
    Breakpoint,
    /// No instruction of RV32IM.
    #[error("illegal instruction {0:#010x}")]
    IllegalInstruction(u32),
    /// A jump or a taken branch to an address that is not a multiple of 4.
    #[error("jump to misaligned {0:#x}")]
    MisalignedJump(u32),
    /// The next instruction would lie outside of the program's code.
    #[error("no code at {0:#x}")]
    OutsideCode(u32),
    /// A load from an address that is not a multiple of its size.
    #[error("load from misaligned {0:#x}")]
    MisalignedLoad(u32),
    /// A load from outside of the address space.
    #[error("load from unmapped {0:#x}")]
    UnmappedLoad(u32),
    /// A store to an address that is not a multiple of its size.
    #[error("store to misaligned {0:#x}")]
    MisalignedStore(u32),
    /// A store outside of the address space.
    #[error("store to unmapped {0:#x}")]
    UnmappedStore(u32),
    /// A store to the program's code or constants.
    #[error("store to read-only {0:#x}")]
    ReadOnlyStore(u32),
}

/// Why [`Machine::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It made the steps it was allowed.
    Budget,
    /// There are no further steps.
    Halt(Halt),
}

/// Slots for every value of a register's byte: no index can be out of bounds.
type Registers = [u32; 256];
/// Where writes to `x0` go.
const SINK: u8 = 255;

/// A machine with its program.
#[derive(Clone, Debug)]
pub struct Machine {
    registers: Box<Registers>,
    pc: u32,
    steps: u64,
    halt: Option<Halt>,
    memory: Memory,
    tree: Option<Tree>,
    /// Ready to run: writes to `x0` go to [`SINK`], targets of branches and of `jal`, and the sum of
    /// `auipc`, are absolute.
    code: Vec<Instruction>,
    /// For each instruction, how many there are up to the next that always leaves the line: itself
    /// included.
    lines: Vec<u32>,
}

fn prepare(code: &[Instruction]) -> Vec<Instruction> {
    let absolute = [Kind::Auipc, Kind::Jal];
    (SPACE_START..)
        .step_by(4)
        .zip(code)
        .map(|(pc, instruction)| {
            let mut ready = *instruction;
            if ready.rd == 0 {
                ready.rd = SINK;
            }
            if absolute.contains(&ready.kind) || is_branch(ready.kind) {
                ready.imm = ready.imm.wrapping_add(pc);
            }
            ready
        })
        .collect()
}

const fn is_branch(kind: Kind) -> bool {
    use Kind::{Beq, Bge, Bgeu, Blt, Bltu, Bne};
    matches!(kind, Beq | Bne | Blt | Bge | Bltu | Bgeu)
}

const fn leaves_line(kind: Kind) -> bool {
    matches!(kind, Kind::Jal | Kind::Jalr | Kind::Ecall | Kind::Ebreak | Kind::Illegal)
}

fn lines(code: &[Instruction]) -> Vec<u32> {
    let mut length = 0u32;
    let mut lines: Vec<u32> = code
        .iter()
        .rev()
        .map(|instruction| {
            length = if leaves_line(instruction.kind) { 1 } else { length.saturating_add(1) };
            length
        })
        .collect();
    lines.reverse();
    lines
}

const fn load_halt(access: Access, address: u32) -> Halt {
    match access {
        Access::Misaligned => Halt::MisalignedLoad(address),
        Access::Unmapped | Access::ReadOnly => Halt::UnmappedLoad(address),
    }
}

const fn store_halt(access: Access, address: u32) -> Halt {
    match access {
        Access::Misaligned => Halt::MisalignedStore(address),
        Access::Unmapped => Halt::UnmappedStore(address),
        Access::ReadOnly => Halt::ReadOnlyStore(address),
    }
}

/// Section 13.2 of the specification: division by zero gives all ones, the one overflow the dividend.
const fn div(a: u32, b: u32) -> u32 {
    match (a as i32).checked_div(b as i32) {
        Some(quotient) => quotient as u32,
        None if b == 0 => u32::MAX,
        None => a,
    }
}

const fn divu(a: u32, b: u32) -> u32 {
    match a.checked_div(b) {
        Some(quotient) => quotient,
        None => u32::MAX,
    }
}

/// The remainder of a division by zero is the dividend, of the one overflow zero.
const fn rem(a: u32, b: u32) -> u32 {
    match (a as i32).checked_rem(b as i32) {
        Some(remainder) => remainder as u32,
        None if b == 0 => a,
        None => 0,
    }
}

const fn remu(a: u32, b: u32) -> u32 {
    match a.checked_rem(b) {
        Some(remainder) => remainder,
        None => a,
    }
}

const fn mulh(a: u32, b: u32) -> u32 {
    ((a as i32 as i64).wrapping_mul(b as i32 as i64) >> 32) as u32
}

const fn mulhsu(a: u32, b: u32) -> u32 {
    ((a as i32 as i64).wrapping_mul(b as i64) >> 32) as u32
}

const fn mulhu(a: u32, b: u32) -> u32 {
    ((a as u64).wrapping_mul(b as u64) >> 32) as u32
}

impl Machine {
    /// A machine before its first step: all registers zero.
    pub fn new(program: &Program) -> Self {
        Self {
            registers: Box::new([0; 256]),
            pc: program.entry,
            steps: 0,
            halt: None,
            memory: program.memory.clone(),
            tree: None,
            code: prepare(&program.code),
            lines: lines(&program.code),
        }
    }

    /// Registers `x0` to `x31`.
    pub fn registers(&self) -> [u32; 32] {
        self.registers.first_chunk().copied().unwrap_or([0; 32])
    }

    /// Address of the next instruction.
    pub const fn pc(&self) -> u32 {
        self.pc
    }

    /// Steps made so far.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Why there are no further steps, if there are none.
    pub const fn halt(&self) -> Option<Halt> {
        self.halt
    }

    /// What it reads and writes.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Some bytes of memory, as many as are mapped.
    pub fn read(&self, address: u32, length: u32) -> Vec<u8> {
        let end = address.saturating_add(length);
        (address..end).map_while(|at| self.memory.byte(at).ok()).collect()
    }

    /// The Merkle root over all pages. Costs as much as pages were written since the last call.
    pub fn memory_root(&mut self) -> B256 {
        self.tree.get_or_insert_default().update(&mut self.memory)
    }

    /// The commitment to the whole state: BLAKE3 of the memory root, `pc` and `x1` to `x31`, each as
    /// four little-endian bytes.
    pub fn root(&mut self) -> B256 {
        let memory = self.memory_root();
        let mut hasher = blake3::Hasher::new();
        hasher.update(memory.as_slice());
        hasher.update(&self.pc.to_le_bytes());
        for register in self.registers().iter().skip(1) {
            hasher.update(&register.to_le_bytes());
        }
        B256::new(hasher.finalize().into())
    }

    /// A page's content, and what proves it under the root that [`memory_root`](Self::memory_root) gives.
    pub fn prove(&mut self, page: u32) -> Option<(Page, Vec<B256>)> {
        self.memory_root();
        let content = *self.memory.page(page)?;
        Some((content, self.tree.as_ref()?.path(page)))
    }

    /// Runs until it halts or has made `budget` steps. The same budget in parts gives the same states.
    pub fn run(&mut self, budget: u64) -> Stop {
        if let Some(halt) = self.halt {
            return Stop::Halt(halt);
        }
        let (left, halt) = self.lines(budget);
        self.steps = self.steps.saturating_add(budget.saturating_sub(left));
        self.halt = halt;
        halt.map_or(Stop::Budget, Stop::Halt)
    }

    /// Runs to the end and calls `at` with the state's root at the start, every [`CHECKPOINT`] steps and
    /// at the end; gives up after `limit` steps.
    pub fn trace(&mut self, limit: u64, mut at: impl FnMut(u64, B256)) -> Stop {
        loop {
            let root = self.root();
            at(self.steps, root);
            if let Some(halt) = self.halt {
                return Stop::Halt(halt);
            }
            let left = limit.saturating_sub(self.steps);
            if left == 0 {
                return Stop::Budget;
            }
            self.run(CHECKPOINT.min(left));
        }
    }

    /// Runs line by line: counts steps only where a line is left, so the budget is compared once a line.
    /// Gives what is left of the budget.
    #[expect(clippy::indexing_slicing, reason = "a byte is always an index of 256 registers")]
    fn lines(&mut self, budget: u64) -> (u64, Option<Halt>) {
        let Self { registers, pc, memory, code, lines, .. } = self;
        let x: &mut Registers = registers;
        let mut left = budget;
        loop {
            if left == 0 {
                return (0, None);
            }
            let first = (pc.wrapping_sub(SPACE_START) >> 2) as usize;
            let Some(length) = lines.get(first) else {
                return (left, Some(Halt::OutsideCode(*pc)));
            };
            let length = u64::from(*length).min(left);
            let end = first.wrapping_add(length as usize);
            let Some(line) = code.get(first..end) else {
                return (left, Some(Halt::OutsideCode(*pc)));
            };
            let start = *pc;
            let mut done = length as u32;
            let mut next = start.wrapping_add(done << 2);
            for (place, i) in (0u32..).zip(line) {
                let (a, b) = (x[usize::from(i.rs1)], x[usize::from(i.rs2)]);
                /// Ends the run before this instruction.
                macro_rules! halt {
                    ($halt:expr) => {{
                        *pc = start.wrapping_add(place << 2);
                        return (left.wrapping_sub(u64::from(place)), Some($halt));
                    }};
                }
                macro_rules! jump {
                    ($target:expr) => {{
                        done = place.wrapping_add(1);
                        next = $target;
                        break;
                    }};
                }
                macro_rules! branch {
                    ($taken:expr) => {{
                        if $taken {
                            if i.imm & 3 != 0 {
                                halt!(Halt::MisalignedJump(i.imm));
                            }
                            jump!(i.imm)
                        }
                    }};
                }
                macro_rules! set {
                    ($value:expr) => {
                        x[usize::from(i.rd)] = $value
                    };
                }
                macro_rules! load {
                    ($size:ident, $value:expr) => {{
                        let address = a.wrapping_add(i.imm);
                        match memory.$size(address) {
                            Ok(value) => set!($value(value)),
                            Err(access) => halt!(load_halt(access, address)),
                        }
                    }};
                }
                macro_rules! store {
                    ($size:ident, $value:expr) => {{
                        let address = a.wrapping_add(i.imm);
                        if let Err(access) = memory.$size(address, $value) {
                            halt!(store_halt(access, address));
                        }
                    }};
                }
                match i.kind {
                    Kind::Lui | Kind::Auipc => set!(i.imm),
                    Kind::Addi => set!(a.wrapping_add(i.imm)),
                    Kind::Slti => set!(u32::from((a as i32) < i.imm as i32)),
                    Kind::Sltiu => set!(u32::from(a < i.imm)),
                    Kind::Xori => set!(a ^ i.imm),
                    Kind::Ori => set!(a | i.imm),
                    Kind::Andi => set!(a & i.imm),
                    Kind::Slli => set!(a.wrapping_shl(i.imm)),
                    Kind::Srli => set!(a.wrapping_shr(i.imm)),
                    Kind::Srai => set!((a as i32).wrapping_shr(i.imm) as u32),
                    Kind::Add => set!(a.wrapping_add(b)),
                    Kind::Sub => set!(a.wrapping_sub(b)),
                    Kind::Sll => set!(a.wrapping_shl(b)),
                    Kind::Slt => set!(u32::from((a as i32) < b as i32)),
                    Kind::Sltu => set!(u32::from(a < b)),
                    Kind::Xor => set!(a ^ b),
                    Kind::Srl => set!(a.wrapping_shr(b)),
                    Kind::Sra => set!((a as i32).wrapping_shr(b) as u32),
                    Kind::Or => set!(a | b),
                    Kind::And => set!(a & b),
                    Kind::Mul => set!(a.wrapping_mul(b)),
                    Kind::Mulh => set!(mulh(a, b)),
                    Kind::Mulhsu => set!(mulhsu(a, b)),
                    Kind::Mulhu => set!(mulhu(a, b)),
                    Kind::Div => set!(div(a, b)),
                    Kind::Divu => set!(divu(a, b)),
                    Kind::Rem => set!(rem(a, b)),
                    Kind::Remu => set!(remu(a, b)),
                    Kind::Lb => load!(byte, |value| value as i8 as u32),
                    Kind::Lbu => load!(byte, u32::from),
                    Kind::Lh => load!(half, |value| value as i16 as u32),
                    Kind::Lhu => load!(half, u32::from),
                    Kind::Lw => load!(word, |value| value),
                    Kind::Sb => store!(set_byte, b as u8),
                    Kind::Sh => store!(set_half, b as u16),
                    Kind::Sw => store!(set_word, b),
                    Kind::Beq => branch!(a == b),
                    Kind::Bne => branch!(a != b),
                    Kind::Blt => branch!((a as i32) < b as i32),
                    Kind::Bge => branch!(a as i32 >= b as i32),
                    Kind::Bltu => branch!(a < b),
                    Kind::Bgeu => branch!(a >= b),
                    Kind::Jal => {
                        if i.imm & 3 != 0 {
                            halt!(Halt::MisalignedJump(i.imm));
                        }
                        set!(start.wrapping_add(place << 2).wrapping_add(4));
                        jump!(i.imm)
                    }
                    Kind::Jalr => {
                        let target = a.wrapping_add(i.imm) & !1;
                        if target & 3 != 0 {
                            halt!(Halt::MisalignedJump(target));
                        }
                        set!(start.wrapping_add(place << 2).wrapping_add(4));
                        jump!(target)
                    }
                    // One hart and no devices: memory is in order.
                    Kind::Fence => {}
                    Kind::Ecall => match x[17] {
                        EXIT_CALL => halt!(Halt::Exit(x[10])),
                        number => halt!(Halt::UnknownCall(number)),
                    },
                    Kind::Ebreak => halt!(Halt::Breakpoint),
                    Kind::Illegal => halt!(Halt::IllegalInstruction(i.imm)),
                }
            }
            left = left.wrapping_sub(u64::from(done));
            *pc = next;
        }
    }
}
