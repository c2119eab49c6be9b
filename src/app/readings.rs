//! What metrics tell of the live handles at the moment somebody asks. docs/operations.md lists every metric; a test holds it to that.

use std::{collections::BTreeMap, iter::once, time::Duration};

#[cfg(feature = "saml")]
use crate::runtime::assertions::ProviderMetrics;
use crate::{
    runtime::{
        authenticator::{self, IssuerMetrics},
        ledger::LedgerHealth,
        lending::SourceState,
    },
    telemetry::{Metrics, Page, TraceCounts, Unit},
};

/// The live handles as they are now. What is not there has no value, and its metrics no series.
#[derive(Debug)]
pub(super) struct Readings<'a> {
    pub(super) metrics: &'a Metrics,
    /// Whether requests can be served.
    pub(super) ready: bool,
    /// By a clock that never goes back.
    pub(super) now: Duration,
    pub(super) ledger: Option<LedgerHealth>,
    pub(super) control: Option<ControlReading>,
    /// Bytes of sealed payloads.
    pub(super) sealed: Option<u64>,
    /// Bytes of bodies in memory, and how many they may be.
    pub(super) bodies: (usize, usize),
    /// Of each credential's source, by its name.
    pub(super) sources: BTreeMap<String, SourceState>,
    pub(super) identity: authenticator::Metrics,
    /// Of each identity provider, and how many assertions were of none.
    #[cfg(feature = "saml")]
    pub(super) saml: (Vec<ProviderMetrics>, u64),
    pub(super) traces: Option<TraceCounts>,
}

/// The control log as it is now.
#[derive(Debug)]
pub(super) struct ControlReading {
    pub(super) usable: bool,
    pub(super) pending: u32,
    pub(super) unrecorded: usize,
    pub(super) forged: u64,
}

type Row<'a, T> = (Vec<(&'static str, &'a str)>, T);

/// A value without labels.
fn one<'a, T>(value: T) -> std::iter::Once<Row<'a, T>> {
    once((Vec::new(), value))
}

/// The same, where there is one.
fn some<'a, T>(value: Option<T>) -> impl Iterator<Item = Row<'a, T>> {
    value.into_iter().flat_map(one)
}

fn number(n: u64) -> f64 {
    // Exact up to 9 petabytes.
    n as f64
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

impl Readings<'_> {
    /// Every metric in the OpenMetrics text format.
    pub(super) fn text(&self) -> String {
        let mut page = Page::default();
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("saml", if cfg!(feature = "saml") { "yes" } else { "no" }),
        ];
        page.gauge(
            "build_info",
            "Which build this is; always 1 [1]",
            once((build.to_vec(), 1.0)),
        );
        page.gauge(
            "ready",
            "1 where requests can be served, else 0 [1]",
            one(flag(self.ready)),
        );
        self.holds(&mut page);
        self.ledger(&mut page);
        self.checkpoints(&mut page);
        self.kafka(&mut page);
        self.control(&mut page);
        self.memory(&mut page);
        self.credentials(&mut page);
        self.identity(&mut page);
        self.issuers(&mut page);
        self.saml(&mut page);
        self.traces(&mut page);
        self.metrics.text(&page)
    }

    fn holds(&self, page: &mut Page) {
        let (held, since) = self.metrics.held();
        page.gauge(
            "holds",
            "Requests that wait for an approval now [requests]",
            one(held as f64),
        );
        let longest = since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since));
        page.measure(
            "holds_oldest",
            Unit::Seconds,
            "How long the request waits that waits longest; 0 where none does [s]",
            one(longest.as_secs_f64()),
        );
    }

    fn ledger(&self, page: &mut Page) {
        let health = self.ledger.as_ref();
        page.gauge(
            "ledger_writable",
            "1 where records can be written, else 0: every request is refused then [1]",
            some(health.map(|health| flag(health.writable()))),
        );
        page.measure(
            "ledger",
            Unit::Bytes,
            "What the log takes on disk [By]",
            some(health.map(|health| number(health.spool_bytes))),
        );
        page.measure(
            "ledger_cap",
            Unit::Bytes,
            "What the log may take on disk [By]",
            some(health.map(|health| number(health.cap_bytes))),
        );
        page.measure(
            "ledger_alarm",
            Unit::Ratios,
            "The highest alarm that is passed, of what the log may take: 0, 0.7, 0.85 or 0.95 [1]",
            some(health.map(|health| f64::from(health.alarm_percent) / 100.0)),
        );
        page.gauge(
            "ledger_records",
            "Records in the present chain [records]",
            some(health.map(|health| number(health.records))),
        );
        page.gauge(
            "ledger_unsynced_records",
            "Records of the present chain that are not on disk yet [records]",
            some(health.map(|health| number(health.records.saturating_sub(health.synced)))),
        );
        page.measure(
            "sealed",
            Unit::Bytes,
            "What sealed payloads take on disk [By]",
            some(self.sealed.map(number)),
        );
    }

    fn checkpoints(&self, page: &mut Page) {
        let holders = self.ledger.iter().flat_map(|health| &health.holders);
        page.measure(
            "checkpoint_age",
            Unit::Seconds,
            "Age of the newest checkpoint that each holder has [s]",
            holders.clone().map(|held| {
                let age = held.since.elapsed().as_secs_f64();
                (vec![("holder", held.holder.as_str())], age)
            }),
        );
        page.counter(
            "checkpoint_failures",
            "Attempts to give a holder a checkpoint that failed [attempts]",
            holders.map(|held| (vec![("holder", held.holder.as_str())], held.failures)),
        );
    }

    fn kafka(&self, page: &mut Page) {
        let published = self.ledger.as_ref();
        let published = published.and_then(|health| health.published.as_ref());
        page.gauge(
            "kafka_unacknowledged_records",
            "Records on disk that Kafka has not acknowledged [records]",
            some(published.map(|published| number(published.lag_records))),
        );
        page.measure(
            "kafka_oldest_unacknowledged",
            Unit::Seconds,
            "Age of the oldest record that Kafka has not acknowledged [s]",
            some(published.map(|published| {
                let age = published.oldest_unacked_age;
                age.unwrap_or_default().as_secs_f64()
            })),
        );
        page.counter(
            "kafka_producer_restarts",
            "Producers thrown away after a failure [producers]",
            some(published.map(|published| published.restarts)),
        );
    }

    fn control(&self, page: &mut Page) {
        let control = self.control.as_ref();
        page.gauge(
            "control_usable",
            "1 where the control log can be followed, else 0: nothing is approved or granted then [1]",
            some(control.map(|control| flag(control.usable))),
        );
        page.gauge(
            "approvals_pending",
            "Approvals that nobody has decided yet [approvals]",
            some(control.map(|control| f64::from(control.pending))),
        );
        page.gauge(
            "control_unrecorded_events",
            "Events of the control log that are not on record yet [events]",
            some(control.map(|control| control.unrecorded as f64)),
        );
        page.counter(
            "control_forged_events",
            "Events of the control log that nobody signed who counts [events]",
            some(control.map(|control| control.forged)),
        );
    }

    fn memory(&self, page: &mut Page) {
        let (used, cap) = self.bodies;
        page.measure(
            "held",
            Unit::Bytes,
            "Bodies held in memory, with their copies [By]",
            one(used as f64),
        );
        page.measure(
            "held_cap",
            Unit::Bytes,
            "What bodies held in memory may take; beyond it requests are refused [By]",
            one(cap as f64),
        );
    }

    fn credentials(&self, page: &mut Page) {
        let each = |value: fn(&SourceState) -> f64| {
            let sources = self.sources.iter();
            sources.map(move |(name, of)| (vec![("credential", name.as_str())], value(of)))
        };
        let counted = |value: fn(&SourceState) -> u64| {
            let sources = self.sources.iter();
            sources.map(move |(name, of)| (vec![("credential", name.as_str())], value(of)))
        };
        page.counter(
            "credential_fetches",
            "Fetches of a lent credential that ended [fetches]",
            counted(|of| of.fetches),
        );
        page.counter(
            "credential_failures",
            "Fetches of a lent credential that failed [fetches]",
            counted(|of| of.failures),
        );
        page.measure(
            "credential_age",
            Unit::Seconds,
            "Time since the last good fetch of a lent credential, or since the start [s]",
            each(|of| of.age.as_secs_f64()),
        );
        page.gauge(
            "credential_usable",
            "1 where the credential can be lent, else 0 [1]",
            each(|of| flag(of.usable)),
        );
    }

    fn identity(&self, page: &mut Page) {
        let identity = &self.identity;
        page.counter(
            "tokens_unknown_issuer",
            "Tokens refused before they could be laid to an issuer, and certificates that are nobody's [tokens]",
            one(identity.refused_strangers),
        );
        page.counter(
            "tokens_unproved",
            "Good tokens refused because what they are bound to was not shown [tokens]",
            one(identity.refused_unproved),
        );
        page.gauge(
            "tokens_remembered",
            "Verified tokens in memory, about [tokens]",
            one(number(identity.remembered)),
        );
    }

    fn issuers(&self, page: &mut Page) {
        let issuers = self.identity.issuers.iter();
        let counted = |value: fn(&IssuerMetrics) -> Option<u64>| {
            let issuers = issuers.clone();
            issuers.filter_map(move |of| Some((vec![("issuer", of.issuer.as_str())], value(of)?)))
        };
        let each = |value: fn(&IssuerMetrics) -> Option<f64>| {
            let issuers = issuers.clone();
            issuers.filter_map(move |of| Some((vec![("issuer", of.issuer.as_str())], value(of)?)))
        };
        page.counter(
            "issuer_tokens_accepted",
            "Tokens accepted, remembered ones among them [tokens]",
            counted(|of| Some(of.accepted)),
        );
        page.counter(
            "issuer_tokens_accepted_from_memory",
            "Tokens accepted because they had been verified before [tokens]",
            counted(|of| Some(of.cache_hits)),
        );
        page.counter(
            "issuer_tokens_refused",
            "Tokens refused [tokens]",
            counted(|of| Some(of.refused)),
        );
        page.counter(
            "issuer_key_fetches",
            "Fetches of keys that ended [fetches]",
            counted(|of| Some(of.fetches)),
        );
        page.counter(
            "issuer_key_fetch_failures",
            "Fetches of keys that failed [fetches]",
            counted(|of| Some(of.failed_fetches)),
        );
        page.gauge(
            "issuer_keys",
            "Usable keys [keys]",
            each(|of| Some(number(of.keys))),
        );
        page.measure(
            "issuer_keys_age",
            Unit::Seconds,
            "Time since keys were last fetched well; none before the first time [s]",
            each(|of| Some(of.keys_age?.as_secs_f64())),
        );
        page.gauge(
            "issuer_available",
            "1 where tokens of this issuer can be verified, else 0 [1]",
            each(|of| Some(flag(of.available))),
        );
        page.counter(
            "issuer_introspections",
            "Questions about opaque tokens that ended [questions]",
            counted(|of| Some(of.introspections?.0)),
        );
        page.counter(
            "issuer_introspection_failures",
            "Questions about opaque tokens that brought no answer [questions]",
            counted(|of| Some(of.introspections?.1)),
        );
    }

    #[cfg(feature = "saml")]
    fn saml(&self, page: &mut Page) {
        let (providers, strangers) = &self.saml;
        let providers = providers.iter();
        page.counter(
            "saml_assertions_accepted",
            "Assertions accepted [assertions]",
            providers
                .clone()
                .map(|of| (vec![("provider", of.entity_id.as_str())], of.accepted)),
        );
        page.counter(
            "saml_assertions_refused",
            "Assertions refused [assertions]",
            providers
                .clone()
                .map(|of| (vec![("provider", of.entity_id.as_str())], of.refused)),
        );
        page.gauge(
            "saml_provider_available",
            "1 where assertions of this provider can be verified, else 0 [1]",
            providers.map(|of| {
                let available = flag(of.keys.is_some());
                (vec![("provider", of.entity_id.as_str())], available)
            }),
        );
        page.counter(
            "saml_unknown_issuer",
            "Assertions refused before they could be laid to a provider [assertions]",
            one(*strangers),
        );
    }

    #[cfg(not(feature = "saml"))]
    fn saml(&self, _: &mut Page) {}

    fn traces(&self, page: &mut Page) {
        let counts = self.traces;
        let rows = counts.into_iter().flat_map(|counts| {
            [
                ("sent", counts.sent),
                ("failed", counts.failed),
                ("dropped", counts.dropped),
            ]
        });
        page.counter(
            "trace_spans",
            "Spans by what became of them: sent, failed or dropped [spans]",
            rows.map(|(result, n)| (vec![("result", result)], n)),
        );
        page.gauge(
            "trace_spans_waiting",
            "Spans that wait to be sent [spans]",
            some(counts.map(|counts| number(counts.waiting))),
        );
    }
}

#[cfg(test)]
mod tests;
