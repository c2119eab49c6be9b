//! Counters of what happens. A series costs memory for as long as the program runs, so there are [`SERIES`] of each at most.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::page::{Labels, Page};
use crate::exchange::{Phase, Summary};

/// Series of one metric. Values of labels are names from the configuration and codes of the program; a file may name very many. What comes
/// once there are so many is counted under [`OTHER`].
const SERIES: usize = 1_000;

/// Every label's value of what is counted beyond [`SERIES`].
const OTHER: &str = "other";

/// Upper bounds of the buckets of a phase, in seconds: a remembered token takes microseconds, a person's decision up to an hour.
const PHASE_BUCKETS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3_600.0,
];

/// Every counter of the program.
pub struct Metrics {
    registry: Registry,
    streams: Gauge,
    exchanges: Bounded,
    verdicts: Bounded,
    refusals: Bounded,
    masked: Bounded,
    tokens: Bounded,
    misconfigured: Bounded,
    outdated: Bounded,
    seconds: Histogram,
    phases: Family<Labels, Histogram>,
    /// Configurations loaded, by result.
    reloads: Bounded,
    /// Changed certificates of listeners, by listener and result.
    certificates: Bounded,
    /// Until when the certificate of each listener is good.
    not_after: Family<Labels, Gauge>,
    /// Connections refused in their TLS handshake, by listener.
    handshakes: Bounded,
    held: Arc<Held>,
    grants: Bounded,
    uses: Bounded,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("countersign");
        let streams = Gauge::default();
        all.register("streams", "Requests in flight [requests]", streams.clone());
        let mut counter = |name, help| {
            let bounded = Bounded::default();
            all.register(name, help, bounded.family.clone());
            bounded
        };
        let exchanges = counter("exchanges", "Requests by how they ended [requests]");
        let verdicts = counter(
            "verdicts",
            "What policy said when it was asked first [requests]",
        );
        let refusals = counter("refusals", "Refusals by stable code [requests]");
        let masked = counter("masked_values", "Values masked [values]");
        let tokens = counter("model_tokens", "Tokens that answers say they took [tokens]");
        let misconfigured = counter(
            "envoy_misconfigured",
            "Streams refused because Envoy does not send all that must be governed [streams]",
        );
        let outdated = counter(
            "envoy_outdated",
            "Streams of an Envoy older than the oldest that is tried, by its version [streams]",
        );
        let reloads = counter("config_loads", "Configurations by result [configurations]");
        let certificates = counter(
            "certificate_loads",
            "Changed certificates of listeners, by result [certificates]",
        );
        let handshakes = counter(
            "handshakes_refused",
            "Connections refused in their TLS handshake [connections]",
        );
        let ended = counter(
            "holds_ended",
            "Requests that waited for an approval, by what came of it [requests]",
        );
        let grants = counter(
            "grants",
            "Answers of the token endpoint, by result [answers]",
        );
        let uses = counter(
            "grant_uses",
            "Uses of grants whose uses are counted, by result [uses]",
        );
        // 1 ms to about 17 minutes: an answer streams for as long as it does.
        let seconds = Histogram::new((0..21).map(|n| 0.001 * f64::from(1u32 << n)));
        all.register_with_unit(
            "exchange",
            "Time from a request's head to the end of its answer [s]",
            Unit::Seconds,
            seconds.clone(),
        );
        let not_after = Family::<Labels, Gauge>::default();
        all.register_with_unit(
            "certificate_not_after",
            "Until when a listener's certificate is good, in Unix time [s]",
            Unit::Seconds,
            not_after.clone(),
        );
        let phases = Family::new_with_constructor(bucketed as fn() -> Histogram);
        all.register_with_unit(
            "phase",
            "Time of one request in one phase, all its turns together [s]",
            Unit::Seconds,
            phases.clone(),
        );
        Self {
            registry: all,
            streams,
            exchanges,
            verdicts,
            refusals,
            masked,
            tokens,
            misconfigured,
            outdated,
            seconds,
            phases,
            reloads,
            certificates,
            not_after,
            handshakes,
            held: Arc::new(Held {
                since: Mutex::default(),
                ended,
            }),
            grants,
            uses,
        }
    }
}

fn bucketed() -> Histogram {
    Histogram::new(PHASE_BUCKETS)
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
        self.count_phases(summary);
        let by = |label, value: &str| {
            vec![
                ("connection", summary.connection.clone()),
                (label, value.to_owned()),
            ]
        };
        self.exchanges.add(by("outcome", summary.outcome), 1);
        if !summary.verdict.is_empty() {
            self.verdicts.add(by("verdict", summary.verdict), 1);
        }
        if matches!(summary.outcome, "refused" | "refused_response") {
            self.refusals.add(by("code", summary.code), 1);
        }
        for (direction, masked) in [
            ("request", &summary.masked_request),
            ("response", &summary.masked_response),
        ] {
            for (entity, n) in masked {
                let mut labels = by("direction", direction);
                labels.push(("entity", entity.clone()));
                self.masked.add(labels, *n);
            }
        }
        let answered = &summary.answered;
        for (direction, n) in [
            ("input", answered.input_tokens),
            ("output", answered.output_tokens),
        ] {
            self.tokens.add(by("type", direction), n.unwrap_or(0));
        }
    }

    fn count_phases(&self, summary: &Summary) {
        let mut took = BTreeMap::<Phase, Duration>::new();
        for lap in summary.laps.over() {
            *took.entry(lap.phase).or_default() += lap.took;
        }
        for (phase, took) in took {
            let labels = vec![("phase", phase.name().to_owned())];
            self.phases
                .get_or_create(&labels)
                .observe(took.as_secs_f64());
        }
    }

    /// Envoy does not send all that must be governed.
    pub fn misconfigured(&self, why: &'static str) {
        self.misconfigured.add(vec![("why", why.to_owned())], 1);
    }

    /// Envoy is of this version, older than is tried; whether that was not known before.
    pub fn outdated(&self, version: &str) -> bool {
        let labels = vec![("version", version.to_owned())];
        let new = self.outdated.family.get(&labels).is_none();
        self.outdated.add(labels, 1);
        new
    }

    /// A configuration was loaded (`accepted`) or rejected.
    pub fn reloaded(&self, accepted: bool) {
        let result = if accepted { "accepted" } else { "rejected" };
        self.reloads.add(vec![("result", result.to_owned())], 1);
    }

    /// Changed certificates of a listener were put into force (`accepted`) or cannot be used.
    pub fn certificates_read(&self, listener: &'static str, accepted: bool) {
        let result = if accepted { "accepted" } else { "rejected" };
        let labels = vec![
            ("listener", listener.to_owned()),
            ("result", result.to_owned()),
        ];
        self.certificates.add(labels, 1);
    }

    /// Until when a listener's certificate is good, in seconds of Unix time.
    pub fn certificate_until(&self, listener: &'static str, seconds: i64) {
        let labels = vec![("listener", listener.to_owned())];
        self.not_after.get_or_create(&labels).set(seconds);
    }

    /// So many connections of a listener were refused in their TLS handshake.
    pub fn handshakes_refused(&self, listener: &'static str, count: u64) {
        let labels = vec![("listener", listener.to_owned())];
        self.handshakes.add(labels, count);
    }

    /// The token endpoint answered: `issued`, or a stable code.
    pub fn granted(&self, result: &'static str) {
        self.grants.add(vec![("result", result.to_owned())], 1);
    }

    /// A use of a grant was taken, or was not.
    pub fn used(&self, result: &'static str) {
        self.uses.add(vec![("result", result.to_owned())], 1);
    }

    /// A request is held from `now` on, by a clock that never goes back, until what is returned is ended or dropped.
    pub fn hold(&self, now: Duration) -> Holding {
        let mut since = self.held.since();
        let number = since.last_key_value().map_or(0, |(last, _)| last + 1);
        since.insert(number, now);
        Holding {
            held: self.held.clone(),
            number,
            outcome: "given_up",
        }
    }

    /// Requests that are held, and since when the first of them is.
    #[must_use]
    pub fn held(&self) -> (usize, Option<Duration>) {
        let since = self.held.since();
        (since.len(), since.values().min().copied())
    }

    /// All of it and what is on `page`, in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self, page: &Page) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        page.write(&mut text);
        let _ = encode_eof(&mut text);
        text
    }
}

/// A counter with a bounded number of series.
#[derive(Clone, Default)]
struct Bounded {
    family: Family<Labels, Counter>,
    /// Series that were begun; a few more than there are, where two begin one at once.
    begun: Arc<AtomicUsize>,
}

impl Bounded {
    fn add(&self, mut labels: Labels, n: u64) {
        if let Some(counter) = self.family.get(&labels) {
            counter.inc_by(n);
            return;
        }
        if self.begun.fetch_add(1, Ordering::Relaxed) >= SERIES {
            for (_, value) in &mut labels {
                OTHER.clone_into(value);
            }
        }
        self.family.get_or_create(&labels).inc_by(n);
    }
}

/// Requests that wait for an approval.
struct Held {
    /// When each began to wait. A lock, as requests come and go on every thread; nothing waits while it is held.
    since: Mutex<BTreeMap<u64, Duration>>,
    ended: Bounded,
}

impl Held {
    fn since(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Duration>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is held. Dropped without an end, its caller gave up.
#[must_use]
pub struct Holding {
    held: Arc<Held>,
    number: u64,
    outcome: &'static str,
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holding")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Holding {
    /// It is held no longer; what came of it, by a stable name.
    pub fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.since().remove(&self.number);
        let outcome = vec![("outcome", self.outcome.to_owned())];
        self.held.ended.add(outcome, 1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::exchange::{Called, Laps};

    fn text(metrics: &Metrics) -> String {
        metrics.text(&Page::default())
    }

    fn has(metrics: &Metrics, line: &str) {
        let text = text(metrics);
        let found = text.lines().any(|one| one == line);
        assert!(found, "`{line}` is not in\n{text}");
    }

    #[test]
    fn ten_thousand_made_up_names_make_no_more_than_a_thousand_series() {
        let metrics = Metrics::default();
        let mut laps = Laps::default();
        laps.enter(Phase::Decide, Duration::ZERO);
        laps.leave(Duration::from_millis(3));
        for n in 0..10_000 {
            let masked = BTreeMap::from([(format!("ENTITY_{n}"), 2)]);
            let summary = Summary {
                connection: format!("connection-{}", n % 2_000),
                outcome: "refused",
                code: "policy_denied",
                verdict: "deny",
                policies: vec![format!("policy-{n}")],
                caller: Some((format!("issuer-{n}"), format!("subject-{n}"))),
                masked_request: masked,
                called: Some(Called {
                    model: format!("model-{n}"),
                    ..Called::default()
                }),
                laps: laps.clone(),
                ..Summary::default()
            };
            metrics.began();
            metrics.ended(&summary, Duration::from_millis(5));
        }
        let text = text(&metrics);
        for metric in ["exchanges", "verdicts", "refusals", "masked_values"] {
            let name = format!("countersign_{metric}_total{{");
            let series: Vec<_> = text
                .lines()
                .filter(|line| line.starts_with(&name))
                .collect();
            assert_eq!(series.len(), SERIES + 1, "{metric}");
            let all: f64 = series
                .iter()
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum();
            let each = if metric == "masked_values" { 2.0 } else { 1.0 };
            assert!(
                (all - 10_000.0 * each).abs() < 0.5,
                "{metric}: nothing is lost: {all}"
            );
        }
        for name in ["model-", "subject-", "issuer-", "policy-"] {
            assert!(!text.contains(name), "{name} is nobody's label");
        }
        assert!(text.contains(r#"outcome="other""#));
        let lines = text.lines().count();
        assert!(lines < 6 * SERIES + 300, "{lines} lines");
    }

    #[test]
    fn a_request_in_a_phase_twice_counts_once_with_all_of_its_time() {
        let metrics = Metrics::default();
        let mut laps = Laps::default();
        for (at, phase) in [(0, Phase::Decide), (2, Phase::Hold), (62, Phase::Decide)] {
            laps.enter(phase, Duration::from_secs(at));
        }
        laps.leave(Duration::from_secs(64));
        let summary = Summary {
            laps,
            ..Summary::default()
        };
        metrics.began();
        metrics.ended(&summary, Duration::from_secs(64));
        has(
            &metrics,
            r#"countersign_phase_seconds_count{phase="decide"} 1"#,
        );
        has(
            &metrics,
            r#"countersign_phase_seconds_sum{phase="decide"} 4.0"#,
        );
        has(
            &metrics,
            r#"countersign_phase_seconds_bucket{le="2.5",phase="decide"} 0"#,
        );
        has(
            &metrics,
            r#"countersign_phase_seconds_bucket{le="10.0",phase="decide"} 1"#,
        );
        has(&metrics, "countersign_streams 0");
    }

    #[test]
    fn who_waits_is_counted_until_an_end_or_none() {
        let metrics = Metrics::default();
        assert_eq!(metrics.held(), (0, None));
        let first = metrics.hold(Duration::from_secs(10));
        let second = metrics.hold(Duration::from_secs(20));
        assert_eq!(metrics.held(), (2, Some(Duration::from_secs(10))));
        first.end("approved");
        assert_eq!(metrics.held(), (1, Some(Duration::from_secs(20))));
        let third = metrics.hold(Duration::from_secs(30));
        drop(second);
        assert_eq!(metrics.held(), (1, Some(Duration::from_secs(30))));
        drop(third);
        assert_eq!(metrics.held(), (0, None));
        has(
            &metrics,
            r#"countersign_holds_ended_total{outcome="approved"} 1"#,
        );
        has(
            &metrics,
            r#"countersign_holds_ended_total{outcome="given_up"} 2"#,
        );
    }
}
