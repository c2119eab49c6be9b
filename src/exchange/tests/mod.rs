//! Whole exchanges, told as stories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod approvals;
mod bench;
mod dialects;
mod grants;
mod identity;
mod lending;
mod order;
mod property;
mod recording;
mod refusals;
pub(crate) mod rules;
mod sealed;
mod stories;
mod upgrades;
