//! Where a program finds things, and how it ends. Part of what a dispute is about, as the program is.

/// Addresses below are not mapped, so that a null pointer is a halt.
pub const SPACE_START: u32 = 0x0001_0000;
/// Addresses from here on are not mapped: 2^18 pages of 4 KiB.
pub const SPACE_END: u32 = 0x4000_0000;

/// The stack grows down from here, towards what the ELF file holds.
pub const STACK_TOP: u32 = 0x1000_0000;
/// Start of the heap.
pub const HEAP: u32 = STACK_TOP;
/// End of the heap.
pub const HEAP_END: u32 = OUTPUT;
/// What the program found besides its verdict: one page.
pub const OUTPUT: u32 = 0x2fff_f000;
/// The input: its length in bytes as a little-endian word, then the bytes.
pub const INPUT: u32 = 0x3000_0000;
/// The longest input, bytes.
pub const INPUT_MAX: u32 = SPACE_END - INPUT - 4;

/// `a7` of the only `ecall` there is: the program ends with the verdict in `a0`. The number is that of
/// `exit` on Linux.
pub const EXIT_CALL: u32 = 93;
/// Verdict of a program whose code panicked.
pub const EXIT_PANIC: u32 = 255;
/// Verdict of a program that ran out of heap.
pub const EXIT_OUT_OF_MEMORY: u32 = 254;
