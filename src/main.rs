//! The `countersign` program: arguments, logging, exit code.

fn main() {}
