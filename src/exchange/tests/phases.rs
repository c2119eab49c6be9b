//! Where the time went, and what is told of it besides.

use std::time::Duration;

use super::{
    approvals::{approve, ask, risky},
    bench::*,
};
use crate::exchange::{Called, Input, Phase, TraceParent};

const SECOND: Duration = Duration::from_secs(1);

/// What each phase took, in whole seconds, in the order they ended.
fn laps(bench: &Bench) -> Vec<(Phase, u64)> {
    let laps = bench.exchange().summary().laps.over();
    laps.iter()
        .map(|lap| (lap.phase, lap.took.as_secs()))
        .collect()
}

#[test]
fn every_wait_is_laid_to_what_was_waited_for() {
    let mut bench = Bench::new();
    (bench.ledger, bench.slow_authenticator) = (Ledger::Slow, true);
    bench.head(head("alice")).pass(2 * SECOND);
    bench.authenticated().pass(9 * SECOND);
    bench
        .body(prompt("hello").as_bytes(), true)
        .pass(3 * SECOND);
    bench.durable().pass(4 * SECOND);
    // What is recorded while the answer goes on is no phase of its own.
    bench.answer_stream().pass(60 * SECOND);
    bench.answer(&chunk("hi"), false);
    bench.handle(Input::Tick).pass(70 * SECOND).durable();
    bench
        .answer(&(stop() + DONE), false)
        .pass(5 * SECOND)
        .durable();
    bench.answer("", true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    let expected = [
        (Phase::Identify, 2),
        (Phase::Decide, 0),
        (Phase::MaskRequest, 0),
        (Phase::RecordOpened, 3),
        (Phase::Upstream, 4),
        (Phase::MaskAnswer, 0),
        (Phase::RecordClosed, 5),
    ];
    assert_eq!(laps(&bench), expected);
}

#[test]
fn who_was_held_was_asked_about_twice_and_the_verdict_is_the_first() {
    let mut bench = Bench::new();
    ask(&mut bench, &risky(), &[]);
    bench.pass(20 * SECOND);
    approve(&bench);
    bench.look();
    let phases: Vec<_> = laps(&bench);
    let expected = [
        (Phase::Identify, 0),
        (Phase::Decide, 0),
        (Phase::MaskRequest, 0),
        (Phase::Hold, 20),
        (Phase::Decide, 0),
        (Phase::MaskRequest, 0),
        (Phase::Claim, 0),
        (Phase::RecordOpened, 0),
    ];
    assert_eq!(phases, expected);
    assert_eq!(bench.exchange().summary().verdict, "hold");
}

#[test]
fn a_phase_that_the_end_cuts_short_counts_too() {
    let mut bench = Bench::new();
    ask(&mut bench, &risky(), &[]);
    bench.pass(7 * SECOND).handle(Input::Gone);
    assert!(
        laps(&bench).contains(&(Phase::Hold, 7)),
        "{:?}",
        laps(&bench)
    );
    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hello")).pass(9 * SECOND);
    bench.handle(Input::Gone);
    assert!(laps(&bench).contains(&(Phase::Upstream, 9)));
}

#[test]
fn within_an_input_a_stopwatch_tells_the_time() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let mut bench = Bench::new();
    // A second passes whenever somebody looks.
    let seconds = AtomicU64::new(0);
    bench.timed_by(Box::new(move || {
        Duration::from_secs(seconds.fetch_add(1, Ordering::Relaxed))
    }));
    bench.ask("alice", &prompt("hello"));
    let laps = laps(&bench);
    assert!(
        laps.contains(&(Phase::Decide, 1)) && laps.contains(&(Phase::MaskRequest, 1)),
        "{laps:?}"
    );
}

#[test]
fn names_are_told_as_records_have_them() {
    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hello").replace("gpt-4o", SSN));
    bench.answer_json();
    bench.answer(&completion("hi").replace("gpt-4o-2024", CARD), true);
    let summary = bench.exchange().summary();
    let called = Called {
        dialect: "openai",
        endpoint: "chat_completions",
        model: "[US_SSN]".into(),
        stream: false,
    };
    assert_eq!(summary.called, Some(called));
    assert_eq!(summary.answered.input_tokens, Some(3));
    assert_eq!(summary.answered.output_tokens, Some(5));
    let told = format!("{summary:?}");
    assert!(!told.contains(SSN) && !told.contains(CARD), "{told}");
    assert_eq!(summary.verdict, "allow");
    assert_eq!(summary.policies, ["mask-personal", "allow-staff"]);
}

#[test]
fn what_envoy_says_of_the_trace_counts_before_the_callers_word() {
    let value = |n: u8| format!("00-{:032x}-{:016x}-01", n, n);
    let trace = |n: u8| TraceParent {
        trace_id: n.into(),
        span_id: n.into(),
        sampled: true,
    };
    for (header, envoy, expected) in [
        (value(1), String::new(), Some(1)),
        (value(1), value(2), Some(2)),
        (value(1), "none".to_owned(), Some(1)),
        ("none".to_owned(), String::new(), None),
    ] {
        let mut bench = Bench::new();
        bench.traceparent = envoy;
        bench.head(head_with("alice", &[("traceparent", &header)]));
        bench.body(prompt("hello").as_bytes(), true);
        assert_eq!(bench.exchange().summary().trace, expected.map(trace));
        let recorded = expected.map_or_else(String::new, |n: u8| format!("{n:032x}"));
        assert_eq!(bench.opened().endpoint.trace_id, recorded);
    }
}
