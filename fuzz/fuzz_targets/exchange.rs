//! Any messages, in any order and cut, with any answers of ledger, identity and approvals, keep every promise of an exchange.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| countersign::exchange::play(data));
