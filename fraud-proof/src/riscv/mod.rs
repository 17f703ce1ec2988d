//! A RISC-V machine: RV32IM (unprivileged specification, RV32I 2.1 and M 2.0) without host calls.
//!
//! The same program and input give the same steps on every computer, whatever the program does: an
//! instruction that cannot be executed is a [`Halt`] with a name, never an error or a panic.
//!
//! | module | its job |
//! | --- | --- |
//! | [`layout`] | where a program finds its input, how it ends |
//! | [`input`] | what the verifier's program is given, and that it belongs together |
//! | [`outcome`] | what that program says |
//! | [`decode`] | what the bits of an instruction say |
//! | [`elf`] | a program from an ELF file |
//! | [`memory`] | pages, and which of them changed |
//! | [`tree`] | the Merkle root over all pages |
//! | [`machine`] | the steps |

pub mod decode;
pub mod elf;
pub mod input;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod outcome;
pub mod tree;

pub use elf::{ElfFault, Program};
pub use input::{InputFault, record_input};
pub use machine::{Halt, Machine, Stop};
pub use outcome::{Outcome, Subject, judge};
