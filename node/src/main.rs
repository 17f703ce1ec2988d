//! The `kedge` binary: parses the command line and leaves the rest to the library.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Of the database's native code too. Blocks are made of many small pieces that several threads allocate and free.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    kedge::cli::main()
}
