//! Whole exchanges, told as stories. The bench and its scripts are there under cargo-fuzz too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        unused_imports,
        reason = "the fuzz target plays scripts only"
    )
)]

mod bench;
pub(crate) mod rules;
pub(crate) mod script;

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod filter;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod lending;
#[cfg(test)]
mod order;
#[cfg(test)]
mod phases;
#[cfg(test)]
mod property;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sealed;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod upgrades;
