//! Where traces go, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Source;

/// What is told of requests beside the log and the metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Telemetry {
    /// Traces over OTLP (HTTP, protobuf). Default: none are sent.
    pub(in crate::config) otlp: Option<Otlp>,
}

/// A collector of traces. What is not said here is as the `OTEL_…` variables of the environment say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Otlp {
    /// The collector's address, to which `/v1/traces` is added. Default: as the environment says, else `http://localhost:4318`.
    pub(in crate::config) endpoint: Option<String>,
    /// Headers sent along, by name; their values are secrets.
    #[serde(default)]
    pub(in crate::config) headers: BTreeMap<String, Source>,
    /// How many of the traces that begin here are kept, 0 to 1; those that began elsewhere are kept where they are. Default: as the environment
    /// says, else all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(in crate::config) sample_ratio: Option<f64>,
    /// Name callers in spans, as `enduser.id`. Default: false.
    #[serde(default)]
    pub(in crate::config) principals: bool,
}
