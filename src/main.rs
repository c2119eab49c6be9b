//! The `countersign` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    countersign::cli::main()
}
