//! The verifier of fraud proofs as a program of the RISC-V machine in `kedge_fraud_proof::riscv`: input
//! and output at fixed addresses, the verdict as exit code. What it computes is
//! [`judge`](kedge_fraud_proof::riscv::judge); here is only what a program needs besides.
#![no_std]
#![no_main]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::ptr::{NonNull, null_mut, slice_from_raw_parts_mut};
use kedge_fraud_proof::riscv::judge;
use kedge_fraud_proof::riscv::layout::{
    EXIT_CALL, EXIT_OUT_OF_MEMORY, EXIT_PANIC, HEAP, HEAP_END, INPUT, OUTPUT, STACK_TOP,
};
use rlsf::Tlsf;

global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "li sp, {stack}",
    "call {main}",
    stack = const STACK_TOP,
    main = sym main,
);

extern "C" fn main() -> ! {
    ALLOCATOR.open();
    kedge_vm::crypto::install();
    let input = INPUT as *const u32;
    // SAFETY: the machine puts the input's length and then its bytes there, and nothing writes to them.
    let input =
        unsafe { core::slice::from_raw_parts(input.add(1).cast::<u8>(), input.read() as usize) };
    let outcome = judge(input);
    let page = outcome.page();
    // SAFETY: the output page is mapped, larger, and nobody else's.
    unsafe { (OUTPUT as *mut u8).copy_from_nonoverlapping(page.as_ptr(), page.len()) };
    exit(outcome.exit_code())
}

fn exit(code: u32) -> ! {
    // SAFETY: the machine stops at this call.
    unsafe { asm!("ecall", in("a0") code, in("a7") EXIT_CALL, options(noreturn, nostack)) }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(EXIT_PANIC)
}

/// The heap between [`HEAP`] and [`HEAP_END`]: two-level segregated fit, so that whatever was allocated
/// before, an allocation takes a bounded number of steps.
struct Allocator(UnsafeCell<Tlsf<'static, u32, u32, 26, 32>>);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(UnsafeCell::new(Tlsf::new()));

// SAFETY: the machine has one hart and no interrupts.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// Gives it the heap. Called once, before anything is allocated.
    fn open(&self) {
        let heap = slice_from_raw_parts_mut(HEAP as *mut u8, (HEAP_END - HEAP) as usize);
        let Some(heap) = NonNull::new(heap) else { return };
        // SAFETY: the heap is mapped, and nobody else's; nobody holds the cell's content.
        unsafe { (*self.0.get()).insert_free_block_ptr(heap) };
    }
}

// SAFETY: that of `Tlsf`, which keeps what `GlobalAlloc` demands, for one hart.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: nobody else holds the cell's content.
        let block = unsafe { (*self.0.get()).allocate(layout) };
        block.map_or_else(|| exit(EXIT_OUT_OF_MEMORY), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: nobody else holds the cell's content, and the caller vouches for block and layout.
        unsafe { (*self.0.get()).deallocate(block, layout.align()) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (Some(block), Ok(layout)) =
            (NonNull::new(block), Layout::from_size_align(size, layout.align()))
        else {
            return null_mut();
        };
        // SAFETY: nobody else holds the cell's content, and the caller vouches for block and layout.
        let block = unsafe { (*self.0.get()).reallocate(block, layout) };
        block.map_or_else(|| exit(EXIT_OUT_OF_MEMORY), NonNull::as_ptr)
    }
}

/// Keccak-256 for `alloy-primitives`.
///
/// # Safety
/// `input` points to `length` bytes that can be read, `output` to 32 that can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn native_keccak256(input: *const u8, length: usize, output: *mut u8) {
    /// Bytes absorbed at a time: 200 − 2 · 32.
    const RATE: usize = 136;
    // SAFETY: the caller vouches for it.
    let input = unsafe { core::slice::from_raw_parts(input, length) };
    let mut state = [0u64; 25];
    let (blocks, rest) = input.as_chunks::<RATE>();
    let mut last = [0u8; RATE];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x01;
    last[RATE - 1] |= 0x80;
    for block in blocks.iter().chain([&last]) {
        for (lane, bytes) in state.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane ^= u64::from_le_bytes(*bytes);
        }
        keccak::f1600(&mut state);
    }
    for (at, lane) in state.iter().take(4).enumerate() {
        // SAFETY: the caller vouches for 32 bytes.
        unsafe { output.add(8 * at).copy_from_nonoverlapping(lane.to_le_bytes().as_ptr(), 8) };
    }
}
