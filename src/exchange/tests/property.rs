//! For every order of messages, every cut and every mood of the ledger, what the bench checks holds.

use proptest::{collection::vec, prelude::*, sample::select};

use super::bench::*;
use crate::exchange::{Headers, Input};

#[derive(Clone)]
enum Step {
    Head(&'static str, bool),
    Body(Vec<u8>, bool),
    RequestTrailers,
    AnswerHead(u16, &'static str, bool),
    Answer(Vec<u8>, bool),
    AnswerTrailers,
    Authenticated,
    Durable,
    Lost,
    Mood(Ledger),
    SlowAuthenticator,
    Tick,
    Gone,
    Shutdown,
}

/// Bodies as text, so that a failing case can be read.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Head(caller, end) => write!(f, "Head({caller}, {end})"),
            Self::Body(bytes, end) => write!(f, "Body({:?}, {end})", text(bytes)),
            Self::RequestTrailers => f.write_str("RequestTrailers"),
            Self::AnswerHead(status, kind, end) => write!(f, "AnswerHead({status}, {kind}, {end})"),
            Self::Answer(bytes, end) => write!(f, "Answer({:?}, {end})", text(bytes)),
            Self::AnswerTrailers => f.write_str("AnswerTrailers"),
            Self::Authenticated => f.write_str("Authenticated"),
            Self::Durable => f.write_str("Durable"),
            Self::Lost => f.write_str("Lost"),
            Self::Mood(mood) => write!(f, "Mood({mood:?})"),
            Self::SlowAuthenticator => f.write_str("SlowAuthenticator"),
            Self::Tick => f.write_str("Tick"),
            Self::Gone => f.write_str("Gone"),
            Self::Shutdown => f.write_str("Shutdown"),
        }
    }
}

/// Text with and without what must be masked, whole and in parts.
fn text() -> impl Strategy<Value = String> {
    let words = select(vec![
        "hello",
        SSN,
        "",
        CARD,
        "4111 1111",
        "bob@example.com",
        LENT,
        "sk-lent-",
        "-",
        "536-22",
        "\u{e9}",
    ]);
    // Each word for itself: what follows a value on its heels may make it something else.
    vec(words, 0..6).prop_map(|words| words.iter().map(|word| format!(" {word} .")).collect())
}

/// Chunks whose text is cut anywhere.
fn cut() -> impl Strategy<Value = Vec<u8>> {
    (text(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let at = text.floor_char_boundary(at.index(text.len() + 1));
        (chunk(&text[..at]) + &chunk(&text[at..])).into_bytes()
    })
}

fn answer() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => text().prop_map(|text| chunk(&text).into_bytes()),
        4 => cut(),
        1 => (1..30_usize).prop_map(|n| chunk("many words ").repeat(n * 10).into_bytes()),
        2 => Just(stop().into_bytes()),
        2 => Just(DONE.as_bytes().to_vec()),
        2 => text().prop_map(|text| completion(&text).into_bytes()),
        1 => Just(b": keep-alive\n\n".to_vec()),
        1 => Just(b"data: {\"odd\":true}\n\n".to_vec()),
        1 => vec(any::<u8>(), 0..40),
        1 => Just(Vec::new()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let callers = || select(vec!["alice", "alice", "ian", "nobody", "mallory"]);
    let body = prop_oneof![
        4 => text().prop_map(|text| prompt(&text).into_bytes()),
        1 => vec(any::<u8>(), 0..60),
        1 => Just(Vec::new()),
        1 => Just(vec![b' '; 5000]),
    ];
    let kinds = select(vec![
        "application/json",
        "text/event-stream",
        "text/event-stream",
        "text/html",
    ]);
    let moods = select(vec![
        Ledger::Durable,
        Ledger::Durable,
        Ledger::Slow,
        Ledger::Fails("audit_full"),
    ]);
    prop_oneof![
        1 => (callers(), weighted(0.1)).prop_map(|(caller, end)| Step::Head(caller, end)),
        2 => (body, any::<bool>()).prop_map(|(body, end)| Step::Body(body, end)),
        1 => Just(Step::RequestTrailers),
        2 => (select(vec![200, 200, 429, 504]), kinds, weighted(0.1)).prop_map(|(status, kind, end)| Step::AnswerHead(status, kind, end)),
        12 => (answer(), weighted(0.1)).prop_map(|(bytes, end)| Step::Answer(bytes, end)),
        1 => Just(Step::AnswerTrailers),
        2 => Just(Step::Authenticated),
        6 => Just(Step::Durable),
        1 => Just(Step::Lost),
        2 => moods.prop_map(Step::Mood),
        1 => Just(Step::SlowAuthenticator),
        3 => Just(Step::Tick),
        1 => Just(Step::Gone),
        1 => Just(Step::Shutdown),
    ]
}

fn weighted(odds: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(odds)
}

fn play(bench: &mut Bench, step: Step) {
    match step {
        Step::Head(caller, end) => _ = bench.head_on(head(caller), "model", end),
        Step::Body(bytes, end) => _ = bench.body(&bytes, end),
        Step::RequestTrailers => _ = bench.handle(Input::RequestTrailers),
        Step::AnswerHead(status, kind, end) => {
            let headers = answer_head(status, &[("content-type", kind)]);
            bench.handle(Input::ResponseHeaders(headers, end));
        }
        Step::Answer(bytes, end) => _ = bench.handle(Input::ResponseBody(bytes.into(), end)),
        Step::AnswerTrailers => {
            let trailers: Headers = [("x-t", LENT)].into_iter().collect();
            bench.handle(Input::ResponseTrailers(trailers));
        }
        Step::Authenticated if bench.is_authenticating() && bench.seen.end.is_none() => {
            bench.authenticated();
        }
        Step::Durable if bench.is_recording() => _ = bench.durable(),
        Step::Lost if bench.is_recording() => _ = bench.lost("audit_unavailable"),
        Step::Mood(mood) => bench.ledger = mood,
        Step::SlowAuthenticator => bench.slow_authenticator = true,
        Step::Tick if bench.wants_tick() => _ = bench.handle(Input::Tick),
        Step::Gone => _ = bench.handle(Input::Gone),
        Step::Shutdown => _ = bench.handle(Input::Shutdown),
        _ => {}
    }
}

/// Whatever was said, a hang-up ends it, and all that was opened is closed.
fn end(bench: &mut Bench) {
    bench.ledger = Ledger::Durable;
    bench.handle(Input::Gone);
    while bench.is_recording() {
        bench.durable();
    }
    assert!(bench.seen.end.is_some(), "it hangs");
    let kinds = bench.kinds();
    let of = |wanted: &str| kinds.iter().filter(|kind| **kind == wanted).count();
    assert!(of("closed") == of("opened") || bench.has_failed() && of("closed") < of("opened"));
    assert_eq!(
        bench.rules.admission.inside(),
        0,
        "a place is not given back"
    );
}

proptest! {

    #[test]
    fn any_order_of_messages_keeps_every_promise(steps in vec(step(), 0..40)) {
        let mut bench = Bench::with(4096, 40_000, 100_000, 10);
        for step in steps {
            play(&mut bench, step);
        }
        end(&mut bench);
    }

    #[test]
    fn any_answer_to_a_forwarded_request_keeps_every_promise(
        kind in select(vec!["application/json", "text/event-stream", "text/event-stream", "text/event-stream"]),
        steps in vec(step(), 0..60),
    ) {
        let mut bench = Bench::with(4096, 40_000, 200_000, 10);
        bench.ask("alice", &streamed("hi")).answer_head(200, &[("content-type", kind)]);
        for step in steps {
            // What belongs to the request would only end it.
            if !matches!(step, Step::Head(..) | Step::Body(..) | Step::RequestTrailers | Step::AnswerHead(..)) {
                play(&mut bench, step);
            }
        }
        end(&mut bench);
    }
}
