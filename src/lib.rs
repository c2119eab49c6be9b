//! Countersign governs AI inference traffic from inside Envoy.
//!
//! The plan of the house: **a module named for an idea is pure; a module named for a technology does IO.**
//! An idea imports no technology, no clock, no environment and no runtime: bytes, keys and `now` are passed in, and
//! what should happen is returned. `tests/layering.rs` holds the table of who may import whom.
//!
//! ```text
//! technologies   config  grpc  http  kafka  store  index  keys  runtime  telemetry      (app and cli know them all)
//! ideas          exchange -> dialect, mask, policy, approval, identity, audit
//!                policy -> identity, detect, mask, approval     approval -> identity     mask -> detect
//!                dialect, identity, detect, audit, envoy_lint -> nothing
//! ```

pub mod app;
pub mod approval;
pub mod audit;
pub mod cli;
pub mod config;
pub mod detect;
pub mod dialect;
pub mod envoy_lint;
pub mod exchange;
pub mod grant;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod index;
pub mod kafka;
pub mod keys;
pub mod mask;
pub mod policy;
pub mod runtime;
pub mod store;
pub mod telemetry;
