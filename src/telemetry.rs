//! What the operator sees: logs on stderr, counters for Prometheus. Names and numbers only; never a body or a token.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

use crate::exchange::Summary;

/// Starts logging to stderr: JSON lines for machines, plain text on a terminal. `RUST_LOG` chooses the levels.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,librdkafka=warn"));
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

type Labels = Vec<(&'static str, String)>;

/// Every counter of the program.
pub struct Metrics {
    registry: Registry,
    streams: Gauge,
    exchanges: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
    masked: Family<Labels, Counter>,
    misconfigured: Family<Labels, Counter>,
    seconds: Histogram,
    gauges: Family<Labels, Gauge>,
    /// Names that [`Metrics::set_all`] has set, by part. A lock, as two scrapes at once must not lose one.
    named: Mutex<BTreeMap<&'static str, BTreeSet<String>>>,
    issuers: Family<Labels, Gauge>,
    /// Configurations loaded, by result.
    reloads: Family<Labels, Counter>,
    /// Changed certificates of listeners, by listener and result.
    certificates: Family<Labels, Counter>,
    /// Connections refused in their TLS handshake, by listener.
    handshakes: Family<Labels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("countersign");
        // 1 ms to about 17 minutes: an answer streams for as long as it does.
        let seconds = Histogram::new((0..21).map(|n| 0.001 * f64::from(1u32 << n)));
        let metrics = Self {
            streams: Gauge::default(),
            exchanges: Family::default(),
            refusals: Family::default(),
            masked: Family::default(),
            misconfigured: Family::default(),
            seconds,
            gauges: Family::default(),
            named: Mutex::default(),
            issuers: Family::default(),
            reloads: Family::default(),
            certificates: Family::default(),
            handshakes: Family::default(),
            registry: Registry::default(),
        };
        registry.register("streams", "Requests in flight", metrics.streams.clone());
        registry.register(
            "exchanges",
            "Requests by how they ended",
            metrics.exchanges.clone(),
        );
        registry.register(
            "refusals",
            "Refusals by stable code",
            metrics.refusals.clone(),
        );
        registry.register("masked_values", "Values masked", metrics.masked.clone());
        registry.register(
            "envoy_misconfigured",
            "Streams refused because Envoy does not send all that must be governed",
            metrics.misconfigured.clone(),
        );
        registry.register_with_unit(
            "exchange",
            "Time from a request's head to the end of its answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "state",
            "State of the parts, by name",
            metrics.gauges.clone(),
        );
        registry.register(
            "issuer",
            "Tokens and keys of each issuer since the configuration named it as it does, by name",
            metrics.issuers.clone(),
        );
        registry.register(
            "config_loads",
            "Configurations loaded, by result",
            metrics.reloads.clone(),
        );
        registry.register(
            "certificate_loads",
            "Changed certificates of listeners read, by listener and result",
            metrics.certificates.clone(),
        );
        registry.register(
            "handshakes_refused",
            "Connections refused in their TLS handshake, by listener",
            metrics.handshakes.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// A stream began.
    pub fn began(&self) {
        self.streams.inc();
    }

    /// A stream ended.
    pub fn ended(&self, summary: &Summary, took: Duration) {
        self.streams.dec();
        self.seconds.observe(took.as_secs_f64());
        let connection = || ("connection", summary.connection.clone());
        self.exchanges
            .get_or_create(&vec![connection(), ("outcome", summary.outcome.to_owned())])
            .inc();
        let refused = matches!(summary.outcome, "refused" | "refused_response");
        if refused {
            self.refusals
                .get_or_create(&vec![connection(), ("code", summary.code.to_owned())])
                .inc();
        }
        for (direction, masked) in [
            ("request", &summary.masked_request),
            ("response", &summary.masked_response),
        ] {
            for (entity, n) in masked {
                let labels = vec![
                    connection(),
                    ("direction", direction.to_owned()),
                    ("entity", entity.clone()),
                ];
                self.masked.get_or_create(&labels).inc_by(*n);
            }
        }
    }

    /// Envoy does not send all that must be governed.
    pub fn misconfigured(&self, why: &'static str) {
        self.misconfigured
            .get_or_create(&vec![("why", why.to_owned())])
            .inc();
    }

    /// A configuration was loaded (`accepted`) or rejected.
    pub fn reloaded(&self, accepted: bool) {
        let result = if accepted { "accepted" } else { "rejected" };
        self.reloads
            .get_or_create(&vec![("result", result.to_owned())])
            .inc();
    }

    /// Changed certificates of a listener were put into force (`accepted`) or cannot be used.
    pub fn certificates_read(&self, listener: &'static str, accepted: bool) {
        let result = if accepted { "accepted" } else { "rejected" };
        let labels = vec![
            ("listener", listener.to_owned()),
            ("result", result.to_owned()),
        ];
        self.certificates.get_or_create(&labels).inc();
    }

    /// So many connections of a listener were refused in their TLS handshake.
    pub fn handshakes_refused(&self, listener: &'static str, count: u64) {
        let labels = vec![("listener", listener.to_owned())];
        self.handshakes.get_or_create(&labels).inc_by(count);
    }

    /// Sets the gauge `name` of `part`.
    pub fn set(&self, part: &str, name: &str, value: u64) {
        let labels = vec![("name", name.to_owned()), ("part", part.to_owned())];
        self.gauges
            .get_or_create(&labels)
            .set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Sets the gauges of `part`, by name; those it had before and has no more are gone.
    pub fn set_all(&self, part: &'static str, values: &BTreeMap<String, u64>) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let before = named.insert(part, values.keys().cloned().collect());
        for name in before.unwrap_or_default() {
            if !values.contains_key(&name) {
                let labels = vec![("name", name), ("part", part.to_owned())];
                self.gauges.remove(&labels);
            }
        }
        for (name, value) in values {
            self.set(part, name, *value);
        }
    }

    /// Sets the gauges of the issuers, and lets those of others go.
    pub fn set_issuers<'a, const N: usize>(
        &self,
        issuers: impl Iterator<Item = (&'a str, [(&'static str, Option<u64>); N])>,
    ) {
        self.issuers.clear();
        for (issuer, values) in issuers {
            for (name, value) in values {
                let Some(value) = value else { continue };
                let labels = vec![("issuer", issuer.to_owned()), ("name", name.to_owned())];
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                self.issuers.get_or_create(&labels).set(value);
            }
        }
    }

    /// All of it in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
