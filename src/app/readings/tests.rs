//! What is exposed, and that the documentation has it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Instant,
};

use super::*;
use crate::{
    exchange::{Answered, Laps, Phase, Summary},
    kafka::publisher::Published,
    runtime::ledger::holders::Held,
};

/// Everything that can be counted, was.
fn counted() -> Metrics {
    let metrics = Metrics::default();
    let mut laps = Laps::default();
    laps.enter(Phase::Decide, Duration::ZERO);
    laps.leave(Duration::ZERO);
    let summary = Summary {
        outcome: "refused",
        code: "policy_denied",
        verdict: "deny",
        masked_request: BTreeMap::from([("US_SSN".to_owned(), 1)]),
        answered: Answered {
            input_tokens: Some(3),
            ..Answered::default()
        },
        laps,
        ..Summary::default()
    };
    metrics.began();
    metrics.ended(&summary, Duration::ZERO);
    metrics.misconfigured("wrong_request_body_mode");
    metrics.reloaded(true);
    metrics.outdated("1.37.0");
    metrics.certificates_read("ext_proc", true);
    metrics.certificate_until("ext_proc", 1);
    metrics.handshakes_refused("ext_proc", 1);
    metrics.granted("issued");
    metrics.used("taken");
    metrics.hold(Duration::ZERO).end("approved");
    metrics
}

/// Everything that can be there, is.
fn full(metrics: &Metrics) -> Readings<'_> {
    let issuer = IssuerMetrics {
        issuer: "https://idp.example".to_owned(),
        accepted: 1,
        cache_hits: 1,
        refused: 1,
        fetches: 1,
        failed_fetches: 1,
        keys: 1,
        available: true,
        keys_age: Some(Duration::ZERO),
        introspections: Some((1, 1)),
    };
    let health = LedgerHealth {
        trouble: None,
        spool_bytes: 1 << 20,
        cap_bytes: 1 << 30,
        alarm_percent: 70,
        records: 7,
        synced: 5,
        published: Some(Published::default()),
        holders: vec![Held {
            holder: "file".to_owned(),
            records: 5,
            since: Instant::now(),
            failures: 2,
        }],
    };
    let source = SourceState {
        fetches: 1,
        failures: 0,
        age: Duration::from_secs(60),
        usable: true,
    };
    Readings {
        metrics,
        ready: true,
        now: Duration::ZERO,
        ledger: Some(health),
        control: Some(ControlReading {
            usable: true,
            pending: 2,
            unrecorded: 0,
            forged: 0,
        }),
        sealed: Some(9),
        bodies: (1_000, 2_000),
        sources: BTreeMap::from([("openai".to_owned(), source)]),
        identity: authenticator::Metrics {
            issuers: vec![issuer],
            refused_strangers: 1,
            refused_unproved: 1,
            remembered: 1,
        },
        #[cfg(feature = "saml")]
        saml: (
            vec![ProviderMetrics {
                entity_id: "https://saml.example".to_owned(),
                accepted: 1,
                refused: 1,
                fetches: 1,
                failed_fetches: 0,
                keys: Some(1),
            }],
            1,
        ),
        traces: Some(TraceCounts::default()),
    }
}

struct Told {
    help: String,
    labels: BTreeSet<String>,
}

/// Every metric by the name that is asked for.
fn metrics() -> BTreeMap<String, Told> {
    let metrics = counted();
    let text = full(&metrics).text();
    let lines = |of: &'static str| {
        let lines = text.lines().filter_map(move |line| line.strip_prefix(of));
        lines.filter_map(|rest| rest.split_once(' '))
    };
    let types: BTreeMap<_, _> = lines("# TYPE ").collect();
    let labels = |name: &str| {
        let begins = format!("{name}{{");
        let series = text.lines().filter(|line| line.starts_with(&begins));
        let labels = series.flat_map(|line| line.split(['{', ',']).skip(1));
        let labels = labels.filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
        labels.filter(|label| label != "le").collect()
    };
    lines("# HELP ")
        .map(|(name, help)| {
            let suffix = match types[name] {
                "counter" => "_total",
                "histogram" => "_bucket",
                _ => "",
            };
            let sampled = format!("{name}{suffix}");
            let told = Told {
                help: help.to_owned(),
                labels: labels(&sampled),
            };
            (sampled.trim_end_matches("_bucket").to_owned(), told)
        })
        .collect()
}

#[test]
fn every_metric_says_in_what_it_counts() {
    for (name, told) in metrics() {
        let help = told.help;
        let unit = help
            .strip_suffix("].")
            .and_then(|help| help.rsplit_once(" ["));
        let (_, unit) = unit.unwrap_or_else(|| panic!("{name}: {help}"));
        let expected = match name.trim_end_matches("_total").rsplit('_').next() {
            Some("seconds") => "s",
            Some("bytes") => "By",
            _ => unit,
        };
        assert_eq!(unit, expected, "{name}");
    }
}

#[test]
fn the_documentation_has_every_metric_with_its_labels_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let told = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `countersign_")?.split('|');
        let name = cells.next()?.trim_end_matches(['`', ' ']);
        let labels = cells.next()?.split('`').skip(1).step_by(2);
        let labels: BTreeSet<_> = labels.map(str::to_owned).collect();
        Some((format!("countersign_{name}"), labels))
    };
    let here = |name: &str| cfg!(feature = "saml") || !name.starts_with("countersign_saml");
    let told = told.lines().filter_map(row);
    let told: BTreeMap<_, _> = told.filter(|(name, _)| here(name)).collect();
    let there: BTreeMap<_, _> = metrics()
        .into_iter()
        .map(|(name, told)| (name, told.labels))
        .collect();
    assert!(there.len() > 50, "{}", there.len());
    assert_eq!(told, there);
}
