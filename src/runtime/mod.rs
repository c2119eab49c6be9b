//! Live handles: the state that streams share.

pub mod ledger;
