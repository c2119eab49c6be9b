//! What spans say, and what becomes of them where nobody takes them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, sync::Mutex};

use opentelemetry_sdk::error::OTelSdkError;

use super::*;
use crate::exchange::{Answered, Called, Laps, Phase};

/// Keeps what it is given, once it may.
#[derive(Clone, Debug, Default)]
struct Keeps {
    spans: Arc<Mutex<Vec<SpanData>>>,
    refuses: bool,
    gate: Arc<Mutex<()>>,
}

impl SpanExporter for Keeps {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        drop(self.gate.lock().unwrap());
        if self.refuses {
            return Err(OTelSdkError::InternalFailure("refused".to_owned()));
        }
        self.spans.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn traces(keeps: &Keeps, principals: bool, sample_ratio: Option<f64>) -> Traces {
    let options = TraceOptions {
        endpoint: None,
        headers: HashMap::new(),
        sample_ratio,
        principals,
        replica: "replica-1".to_owned(),
    };
    Traces::with(&options, keeps.clone())
}

fn summary() -> Summary {
    let mut laps = Laps::default();
    laps.enter(Phase::Identify, Duration::from_millis(1));
    laps.enter(Phase::Upstream, Duration::from_millis(4));
    laps.leave(Duration::from_millis(90));
    Summary {
        connection: "openai".into(),
        outcome: "completed",
        status: 200,
        authenticated: true,
        caller: Some(("https://idp.example".into(), "alice".into())),
        masked_request: BTreeMap::from([("US_SSN".into(), 2)]),
        verdict: "allow",
        policies: vec!["mask-personal".into()],
        trace: TraceParent::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        called: Some(Called {
            dialect: "openai",
            endpoint: "chat_completions",
            model: "gpt-4o".into(),
            stream: true,
        }),
        answered: Answered {
            input_tokens: Some(3),
            ..Answered::default()
        },
        laps,
        ..Summary::default()
    }
}

fn tell(traces: &Traces, summary: &Summary) {
    let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    traces.tell("session-1", summary, ended, Duration::from_millis(100));
}

fn told(keeps: &Keeps, traces: &Traces) -> Vec<SpanData> {
    traces.provider.force_flush().unwrap();
    std::mem::take(&mut *keeps.spans.lock().unwrap())
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key.as_str() == name);
    found.map(|one| one.value.to_string())
}

#[test]
fn an_exchange_is_a_span_of_the_callers_trace_with_a_child_for_each_phase() {
    let keeps = Keeps::default();
    let traces = traces(&keeps, false, None);
    tell(&traces, &summary());
    let spans = told(&keeps, &traces);
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["identify", "upstream", "chat gpt-4o"]);
    let whole = &spans[2];
    assert_eq!(
        (
            whole.span_context.trace_id().to_string().as_str(),
            whole.parent_span_id.to_string().as_str()
        ),
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    );
    for child in &spans[..2] {
        assert_eq!(child.parent_span_id, whole.span_context.span_id());
        assert_eq!(child.span_context.trace_id(), whole.span_context.trace_id());
    }
    let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 - 100 + ms);
    assert_eq!((whole.start_time, whole.end_time), (at(0), at(100)));
    assert_eq!((spans[1].start_time, spans[1].end_time), (at(4), at(90)));
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4o"),
        ("gen_ai.usage.input_tokens", "3"),
        ("http.response.status_code", "200"),
        ("countersign.session", "session-1"),
        ("countersign.verdict", "allow"),
        ("countersign.policies", "[\"mask-personal\"]"),
        ("countersign.masked.request.US_SSN", "2"),
    ] {
        assert_eq!(attribute(whole, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(attribute(whole, "error.type"), None);
    assert_eq!(attribute(whole, "gen_ai.usage.output_tokens"), None);
    let all = format!("{spans:?}");
    assert!(
        !all.contains("alice") && !all.contains("idp.example"),
        "nobody asked for names"
    );
    assert_eq!(traces.counts().sent, 3);
}

#[test]
fn callers_are_named_where_the_configuration_says_so() {
    let keeps = Keeps::default();
    let traces = traces(&keeps, true, None);
    tell(&traces, &summary());
    let spans = told(&keeps, &traces);
    assert_eq!(attribute(&spans[2], "enduser.id").as_deref(), Some("alice"));
}

#[test]
fn a_refusal_is_an_error_by_its_code_and_a_long_name_is_cut() {
    let keeps = Keeps::default();
    let traces = traces(&keeps, false, None);
    let refused = Summary {
        outcome: "refused",
        code: "policy_denied",
        called: Some(Called {
            model: "ü".repeat(1_000),
            ..summary().called.unwrap()
        }),
        trace: None,
        ..summary()
    };
    tell(&traces, &refused);
    let spans = told(&keeps, &traces);
    let whole = &spans[2];
    assert_eq!(whole.status, Status::error("policy_denied"));
    assert_eq!(
        attribute(whole, "error.type").as_deref(),
        Some("policy_denied")
    );
    assert_eq!(
        attribute(whole, "gen_ai.request.model").unwrap().len(),
        NAME
    );
    assert_eq!(whole.parent_span_id, SpanId::INVALID, "a trace of its own");
}

#[test]
fn whoever_began_the_trace_says_whether_it_is_kept_and_of_ours_the_ratio_does() {
    let keeps = Keeps::default();
    let traces = traces(&keeps, false, Some(0.0));
    let unsampled = Summary {
        trace: TraceParent::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        ..summary()
    };
    let ours = Summary {
        trace: None,
        ..summary()
    };
    tell(&traces, &unsampled);
    tell(&traces, &ours);
    assert_eq!(told(&keeps, &traces).len(), 0);
    assert_eq!(traces.counts(), TraceCounts::default());
    tell(&traces, &summary());
    assert_eq!(told(&keeps, &traces).len(), 3);
}

#[test]
fn what_finds_no_place_is_counted_and_strangers_leave_half_of_the_places() {
    let keeps = Keeps::default();
    let traces = traces(&keeps, false, None);
    let slow = keeps.gate.lock().unwrap();
    let stranger = Summary {
        authenticated: false,
        ..summary()
    };
    for _ in 0..WAITING {
        tell(&traces, &stranger);
    }
    let half = WAITING / 2 / 3 * 3;
    let counts = traces.counts();
    assert_eq!((counts.waiting, counts.dropped), (half, 3 * WAITING - half));
    for _ in 0..WAITING {
        tell(&traces, &summary());
    }
    let full = WAITING / 3 * 3;
    assert_eq!(traces.counts().waiting, full);
    drop(slow);
    assert_eq!(told(&keeps, &traces).len() as u64, full);
    let counts = traces.counts();
    assert_eq!((counts.waiting, counts.sent), (0, full));
    assert_eq!(counts.sent + counts.dropped, 6 * WAITING);
}

#[test]
fn a_collector_that_refuses_is_counted() {
    let keeps = Keeps {
        refuses: true,
        ..Keeps::default()
    };
    let traces = traces(&keeps, false, None);
    tell(&traces, &summary());
    let _refused = traces.provider.force_flush();
    let counts = traces.counts();
    assert_eq!((counts.failed, counts.sent, counts.waiting), (3, 0, 0));
}
