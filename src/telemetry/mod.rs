//! What the operator sees: logs on stderr, metrics for Prometheus, traces over OTLP.
//!
//! Promises: names and numbers only, never a body or a token; a metric has a bounded number of series, whatever callers send; neither a
//! scrape nor a collector, there or not, makes a request wait.

mod metrics;
mod page;
mod traces;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

pub use prometheus_client::registry::Unit;

pub use self::{
    metrics::{Holding, Metrics},
    page::Page,
    traces::{TraceCounts, TraceOptions, Traces, TracesError},
};

/// Starts logging to stderr: JSON lines for machines, plain text on a terminal. `RUST_LOG` chooses the levels.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,countersign::kafka::said=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        // It would tell of a log that cannot be written with `eprintln!`, which panics where stderr itself cannot be.
        .log_internal_errors(false);
    let started = if std::io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().try_init()
    };
    // Already started, by a test in the same process: its choice stands.
    drop(started);
}
