//! The `countersign` program: everything is in the library.

use std::process::ExitCode;

/// Beside the C library's it takes a tenth less of the processor's time under load, and gives back what large bodies took.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    countersign::cli::main()
}
