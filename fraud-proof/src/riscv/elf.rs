//! A program from an ELF file (System V ABI, ELF-32, RISC-V psABI).
//!
//! Strict: a little-endian RV32 executable without dynamic parts, one executable segment that starts the
//! address space, read-only segments right after it, one writable segment after those, none overlapping.

use super::{
    decode::{Instruction, Kind, decode},
    layout::{INPUT, INPUT_MAX, SPACE_START, STACK_TOP},
    memory::{Access, Memory},
};
use alloc::vec::Vec;

const HEADER: usize = 52;
const SEGMENT: usize = 32;
const EXECUTABLE: u16 = 2;
const RISCV: u16 = 243;
const LOAD: u32 = 1;
/// Segment types that make the loader do what it does not: dynamic, interpreter, thread-local.
const UNSUPPORTED: [u32; 3] = [2, 3, 7];
const X: u32 = 1;
const W: u32 = 2;
const R: u32 = 4;

/// Why bytes are no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfFault {
    /// Ends before a header or a segment does.
    #[error("the file ends within byte {0}")]
    Truncated(usize),
    /// No ELF file, or not of 32 bits, little-endian, executable, for RISC-V without extensions in its
    /// flags.
    #[error("not a static RV32 executable: {0}")]
    Identity(&'static str),
    /// A segment is not as the module says.
    #[error("segment {number}: {reason}")]
    Segment {
        /// Place in the program header table.
        number: u16,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no code, or the entry point is not in it.
    #[error("the entry point {0:#x} is no instruction of the program")]
    Entry(u32),
}

/// A program: what memory holds at its start, and its instructions decoded.
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) memory: Memory,
    pub(super) code: Vec<Instruction>,
    pub(super) entry: u32,
}

/// Reads a little-endian field.
fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ElfFault> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u16::from_le_bytes(*field)).ok_or(ElfFault::Truncated(at))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ElfFault> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u32::from_le_bytes(*field)).ok_or(ElfFault::Truncated(at))
}

struct Segment<'a> {
    address: u32,
    end: u32,
    content: &'a [u8],
    flags: u32,
}

fn segment(bytes: &[u8], number: u16) -> Result<Option<Segment<'_>>, ElfFault> {
    let fault = |reason| ElfFault::Segment { number, reason };
    let table = u32_at(bytes, 28)? as usize;
    let at = SEGMENT
        .checked_mul(usize::from(number))
        .and_then(|offset| table.checked_add(offset))
        .ok_or(ElfFault::Truncated(table))?;
    let header = bytes.get(at..).ok_or(ElfFault::Truncated(at))?;
    let kind = u32_at(header, 0)?;
    if UNSUPPORTED.contains(&kind) {
        return Err(fault("of a dynamic program"));
    }
    let offset = u32_at(header, 4)? as usize;
    let address = u32_at(header, 8)?;
    let in_file = u32_at(header, 16)?;
    let in_memory = u32_at(header, 20)?;
    let flags = u32_at(header, 24)?;
    u32_at(header, 28)?;
    if kind != LOAD {
        return Ok(None);
    }
    if in_file > in_memory {
        return Err(fault("longer in the file than in memory"));
    }
    let end = address.checked_add(in_memory).ok_or(fault("ends above the address space"))?;
    let content = offset
        .checked_add(in_file as usize)
        .and_then(|end| bytes.get(offset..end))
        .ok_or(ElfFault::Truncated(offset))?;
    Ok(Some(Segment { address, end, content, flags }))
}

impl Program {
    /// Loads an ELF file.
    ///
    /// # Errors
    /// When it is not exactly what the module says.
    pub fn from_elf(bytes: &[u8]) -> Result<Self, ElfFault> {
        identity(bytes)?;
        let entry = u32_at(bytes, 24)?;
        let mut memory = Memory::new();
        let mut code: Vec<Instruction> = Vec::new();
        let mut end = SPACE_START;
        let mut read_only = SPACE_START;
        let mut writable = false;
        for number in 0..u16_at(bytes, 44)? {
            let fault = |reason| ElfFault::Segment { number, reason };
            let Some(segment) = segment(bytes, number)? else { continue };
            if segment.address % 4096 != 0 || segment.address < end || segment.end > STACK_TOP {
                return Err(fault("misplaced"));
            }
            match segment.flags {
                flags if flags == R | X => {
                    let whole = segment.content.len() % 4 == 0
                        && segment.content.len() as u64
                            == u64::from(segment.end.saturating_sub(segment.address));
                    if segment.address != SPACE_START || !code.is_empty() || !whole {
                        return Err(fault("not the one block of code at the start"));
                    }
                    let words = segment.content.as_chunks::<4>().0;
                    code = words.iter().map(|word| decode(u32::from_le_bytes(*word))).collect();
                    read_only = segment.end;
                }
                R if !writable => read_only = segment.end,
                flags if flags == R | W && !writable => writable = true,
                _ => return Err(fault("neither code, constants nor the one block of data")),
            }
            memory
                .write(segment.address, segment.content)
                .map_err(|_| fault("not in the address space"))?;
            end = segment.end;
        }
        memory.protect(SPACE_START..read_only);
        let program = Self { memory, code, entry };
        let first = entry.wrapping_sub(SPACE_START);
        if first % 4 != 0 || program.code.len() <= (first / 4) as usize {
            return Err(ElfFault::Entry(entry));
        }
        Ok(program)
    }

    /// A program of nothing but code, which starts with its first word.
    pub fn from_words(words: &[u32]) -> Self {
        let mut memory = Memory::new();
        let code: Vec<_> = words.iter().map(|word| decode(*word)).collect();
        let mut end = SPACE_START;
        for word in words {
            // What lies outside of memory is not code either: steps never reach it.
            if memory.set_word(end, *word).is_err() {
                break;
            }
            end = end.saturating_add(4);
        }
        memory.protect(SPACE_START..end);
        Self { memory, code, entry: SPACE_START }
    }

    /// The decoded instructions from [`SPACE_START`] on.
    pub fn code(&self) -> &[Instruction] {
        &self.code
    }

    /// Addresses of words among the code that are no instructions of RV32IM.
    pub fn illegal(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (SPACE_START..)
            .step_by(4)
            .zip(&self.code)
            .filter(|(_, instruction)| instruction.kind == Kind::Illegal)
            .map(|(address, instruction)| (address, instruction.imm))
    }

    /// Puts the input where the program looks for it.
    ///
    /// # Errors
    /// When it is longer than [`INPUT_MAX`].
    pub fn with_input(mut self, input: &[u8]) -> Result<Self, Access> {
        let length = u32::try_from(input.len()).map_err(|_| Access::Unmapped)?;
        if length > INPUT_MAX {
            return Err(Access::Unmapped);
        }
        self.memory.set_word(INPUT, length)?;
        self.memory.write(INPUT.wrapping_add(4), input)?;
        Ok(self)
    }
}

/// Checks the file's header.
fn identity(bytes: &[u8]) -> Result<(), ElfFault> {
    let header = bytes.get(..HEADER).ok_or(ElfFault::Truncated(bytes.len()))?;
    let checks = [
        (header.starts_with(b"\x7fELF"), "no ELF file"),
        (header.get(4..7) == Some(&[1, 1, 1]), "not 32 bits, little-endian, version 1"),
        (u16_at(header, 16)? == EXECUTABLE, "not an executable"),
        (u16_at(header, 18)? == RISCV, "not for RISC-V"),
        (u32_at(header, 20)? == 1, "not version 1"),
        (u32_at(header, 36)? == 0, "built with extensions or another calling convention"),
        (usize::from(u16_at(header, 40)?) == HEADER, "a header of another size"),
        (usize::from(u16_at(header, 42)?) == SEGMENT, "program headers of another size"),
    ];
    match checks.into_iter().find(|(good, _)| !good) {
        None => Ok(()),
        Some((_, what)) => Err(ElfFault::Identity(what)),
    }
}
