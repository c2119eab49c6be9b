//! Evidence: the record of a session, the chain that makes it tamper-evident, and the proofs drawn from it.

pub mod record;
