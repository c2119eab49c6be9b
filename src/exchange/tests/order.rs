//! Messages at odd times: duplicates, hang-ups, shutdowns, Envoy's own answers.

use super::bench::*;
use std::time::Duration;

use crate::{
    exchange::{Attributes, Exchange, Headers, Input, Output},
    identity::TokenError,
};

type Phase = (&'static str, fn(&mut Bench));

/// Where an exchange can stand, and how it gets there.
const PHASES: [Phase; 11] = [
    ("nothing came", |_| {}),
    ("the token is being checked", |bench| {
        bench.slow_authenticator = true;
        bench.head(head("alice"));
    }),
    ("the body is awaited", |bench| {
        bench.head(head("alice")).body(b"{", false);
    }),
    ("opened is being written", |bench| {
        bench.ledger = Ledger::Slow;
        bench.ask("alice", &streamed("hi"));
    }),
    ("a refusal is being written", |bench| {
        bench.ledger = Ledger::Slow;
        bench.ask("ian", &streamed("hi"));
    }),
    ("the answer is awaited", |bench| {
        bench.ask("alice", &streamed("hi"));
    }),
    ("a document arrives", |bench| {
        bench
            .ask("alice", &prompt("hi"))
            .answer_json()
            .answer("{", false);
    }),
    ("a stream flows", |bench| {
        bench
            .ask("alice", &streamed("hi"))
            .answer_stream()
            .answer(&chunk("one "), false);
    }),
    ("a part is being written", |bench| {
        bench.ask("alice", &streamed("hi")).answer_stream();
        bench.ledger = Ledger::Slow;
        bench.answer(&chunk("one "), false).handle(Input::Tick);
    }),
    ("closed is being written", |bench| {
        bench.ask("alice", &streamed("hi")).answer_stream();
        bench.ledger = Ledger::Slow;
        bench.answer(&(chunk("one") + &stop() + DONE), false);
    }),
    ("the upstream has yet to end", |bench| {
        bench.ask("alice", &streamed("hi")).answer_stream();
        bench.answer(&(chunk("one") + &stop() + DONE), false);
    }),
];

fn at(phase: usize) -> (&'static str, Bench) {
    let (name, reach) = PHASES[phase];
    let mut bench = Bench::new();
    reach(&mut bench);
    assert!(bench.seen.end.is_none(), "{name}");
    (name, bench)
}

/// Whatever is being written gets written.
fn settle(bench: &mut Bench) {
    bench.ledger = Ledger::Durable;
    if bench.is_recording() {
        bench.durable();
    }
}

#[test]
fn a_hang_up_ends_every_phase_and_closes_what_was_opened() {
    for phase in 0..PHASES.len() {
        let (name, mut bench) = at(phase);
        bench.handle(Input::Gone);
        settle(&mut bench);
        assert!(bench.seen.end.is_some(), "{name}");
        let given = bench.seen.head.is_some();
        let status = bench.exchange().summary().status;
        assert!(
            given == (status == 200) || bench.seen.immediate.is_some(),
            "{name}"
        );
        let kinds = bench.kinds();
        let closed = kinds.iter().filter(|kind| **kind == "closed").count();
        assert_eq!(
            closed,
            kinds.iter().filter(|kind| **kind == "opened").count(),
            "{name}"
        );
        match name {
            "closed is being written" | "the upstream has yet to end" => {
                assert_eq!(bench.closed().outcome, "completed");
            }
            _ if closed == 1 => assert_eq!(bench.closed().outcome, "cut_short", "{name}"),
            _ => {}
        }
    }
}

#[test]
fn a_caller_who_left_before_the_end_was_on_record_did_not_get_it() {
    let (_, mut bench) = at(8);
    bench.answer(&(stop() + DONE), true).handle(Input::Gone);
    settle(&mut bench);
    assert_eq!(bench.closed().outcome, "cut_short");
    assert_eq!(bench.seen.end, Some(End::Aborted("stream_ended")));
}

#[test]
fn a_shutdown_tells_whom_it_still_can_and_cuts_the_rest() {
    for phase in 0..PHASES.len() {
        let (name, mut bench) = at(phase);
        bench.handle(Input::Shutdown);
        settle(&mut bench);
        match name {
            "nothing came" | "the token is being checked" => {
                bench.refusal(503, "shutting_down");
                assert!(bench.kinds().is_empty());
            }
            "the body is awaited" => {
                bench.refusal(503, "shutting_down");
                assert_eq!(bench.kinds(), ["refused"]);
            }
            "a refusal is being written" => {
                bench.refusal(403, "policy_denied");
            }
            "opened is being written" | "the answer is awaited" | "a document arrives" => {
                let immediate = bench.seen.immediate.as_ref().expect(name);
                assert_eq!((immediate.status, immediate.code), (503, "shutting_down"));
                assert_eq!(bench.closed().outcome, "shutdown", "{name}");
                assert_eq!(
                    bench.seen.upstream_head.is_some(),
                    name != "opened is being written"
                );
            }
            "a stream flows" | "a part is being written" => {
                assert_eq!(
                    bench.seen.end,
                    Some(End::Aborted("shutting_down")),
                    "{name}"
                );
                assert_eq!(bench.closed().outcome, "shutdown");
                assert!(bench.answered().contains("\"code\":\"shutting_down\""));
            }
            "closed is being written" => {
                assert_eq!(bench.closed().outcome, "completed");
                assert!(bench.answered().ends_with(DONE));
                assert_eq!(
                    bench.seen.end,
                    Some(End::Aborted("stream_ended")),
                    "the upstream has yet to end"
                );
            }
            _ => assert_eq!(
                bench.seen.end,
                Some(End::Aborted("shutting_down")),
                "an early good end"
            ),
        }
    }
}

#[test]
fn messages_that_cannot_come_end_the_exchange_in_an_error() {
    let head = || Input::RequestHeaders(head("alice"), Attributes::default(), false);
    let body = || Input::RequestBody("late".into(), false);
    let answered = || Input::ResponseHeaders(answer_head(200, &[]), false);
    let trailers = || Input::ResponseTrailers(Headers::default());
    type Message<'a> = &'a dyn Fn() -> Input;
    let cases: [(&str, Message<'_>, &[usize]); 6] = [
        ("request headers", &head, &[1, 2, 3, 5, 6, 7, 8, 10]),
        ("request body", &body, &[0, 3, 5, 6, 7, 8, 10]),
        (
            "request trailers",
            &|| Input::RequestTrailers,
            &[0, 3, 5, 6, 7, 8, 10],
        ),
        ("response headers", &answered, &[6, 7, 8, 10]),
        (
            "response body",
            &|| Input::ResponseBody("early".into(), false),
            &[0, 1, 2, 5],
        ),
        ("response trailers", &trailers, &[0, 1, 2, 5]),
    ];
    for (message, input, phases) in cases {
        for phase in phases {
            let (name, mut bench) = at(*phase);
            bench.handle(input());
            settle(&mut bench);
            assert_eq!(
                bench.seen.end,
                Some(End::Aborted("unexpected_message")),
                "{message} while {name}"
            );
            if let Some("closed") = bench.kinds().last().copied() {
                let expected = if *phase == 10 {
                    "completed"
                } else {
                    "protocol_error"
                };
                assert_eq!(bench.closed().outcome, expected, "{message} while {name}");
            }
        }
    }
}

#[test]
fn what_envoy_sends_behind_an_end_changes_nothing() {
    for phase in [3, 4, 5, 6, 7, 8, 9, 10] {
        let (name, mut bench) = at(phase);
        bench.body(b"", true).body(b"", false);
        assert!(bench.seen.end.is_none(), "{name}");
    }
    let (_, mut bench) = at(4);
    bench
        .body(b"still on its way", true)
        .handle(Input::RequestTrailers);
    bench.durable();
    bench.refusal(403, "policy_denied");

    let (_, mut bench) = at(9);
    bench
        .answer("more", false)
        .answer("", true)
        .answer("", true)
        .handle(Input::ResponseTrailers(Headers::default()));
    bench.durable();
    assert_eq!(bench.seen.end, Some(End::Finished));
    assert!(bench.answered().ends_with(DONE));

    let (_, mut bench) = at(10);
    bench.answer("data: more\n\n", false);
    assert!(bench.seen.end.is_none());
    bench.answer("", true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    assert!(
        bench.answered().ends_with(DONE),
        "what follows the terminal event is dropped"
    );
}

#[test]
fn empty_pieces_are_no_end() {
    let mut bench = Bench::new();
    bench
        .head(head("alice"))
        .body(b"", false)
        .body(prompt("hi").as_bytes(), false)
        .body(b"", false);
    assert!(!bench.is_recording() && bench.seen.records.is_empty());
    bench.body(b"", true);
    assert!(bench.seen.upstream_ended);
    bench
        .answer_stream()
        .answer("", false)
        .answer(&chunk("a"), false)
        .answer("", false)
        .answer(&(stop() + DONE), true);
    assert_eq!(bench.seen.end, Some(End::Finished));
}

#[test]
fn a_body_that_arrives_while_the_token_is_checked_waits() {
    let mut bench = Bench::new();
    bench.slow_authenticator = true;
    bench.ask("alice", &prompt("hi"));
    assert!(bench.seen.records.is_empty());
    bench.authenticated();
    assert!(bench.seen.upstream_ended);

    let mut bench = Bench::new();
    bench.slow_authenticator = true;
    bench.ask("mallory", &prompt("hi")).authenticated();
    bench.refusal(401, "token_bad_signature");
}

#[test]
fn who_sends_slowly_is_looked_at_again_when_all_is_here() {
    let prompt = prompt("hi");
    let slow = |seconds: u64| {
        let mut bench = Bench::new();
        bench.head(head("alice"));
        bench.slow_authenticator = true;
        bench.body(prompt.get(..9).unwrap().as_bytes(), false);
        bench.pass(Duration::from_secs(seconds));
        bench.body(prompt.get(9..).unwrap().as_bytes(), true);
        bench
    };
    let mut quick = slow(9);
    assert!(!quick.is_authenticating() && quick.seen.upstream_ended);

    let mut still = slow(10);
    assert!(still.is_authenticating() && still.seen.records.is_empty());
    still.authenticated();
    assert!(still.seen.upstream_ended);

    let mut gone = slow(10);
    gone.handle(Input::Authenticated(Err(TokenError::GrantRevoked)));
    gone.refusal(401, "grant_revoked");
    assert_eq!(gone.kinds(), ["refused"]);
    assert!(gone.seen.upstream_head.is_none());
    quick.handle(Input::Gone);
}

#[test]
fn a_request_without_a_body_is_decided_at_once() {
    let mut bench = Bench::new();
    bench.head_on(head("alice"), "model", true);
    bench.refusal(400, "empty_body");
}

#[test]
fn envoy_giving_up_while_we_decide_is_told_on_and_nothing_is_forwarded() {
    for phase in [1, 2, 3, 4] {
        let (name, mut bench) = at(phase);
        let fields = [("content-type", "text/plain")];
        bench.answer_head(504, &fields);
        if bench.seen.end.is_none() {
            bench.answer("upstream request timeout", true);
        }
        settle(&mut bench);
        assert!(bench.seen.upstream_head.is_none(), "{name}");
        assert_eq!(bench.seen.end, Some(End::Finished), "{name}");
        match phase {
            1 => _ = bench.refusal(504, "request_timeout"),
            2 => {
                bench.refusal(504, "request_timeout");
                assert_eq!(bench.kinds(), ["refused"]);
            }
            3 => {
                assert_eq!(bench.kinds(), ["opened", "closed"]);
                assert_eq!(bench.closed().code, "request_timeout");
            }
            _ => assert_eq!(bench.seen.immediate.as_ref().unwrap().code, "policy_denied"),
        }
    }
}

#[test]
fn a_record_nobody_asked_for_ends_it() {
    let (_, mut bench) = at(7);
    bench.handle(Input::Recorded(Ok(())));
    assert_eq!(bench.seen.end, Some(End::Aborted("record_not_asked_for")));
    assert_eq!(bench.kinds().last(), Some(&"closed"));
}

#[test]
fn nothing_is_said_after_the_end() {
    let bench = Bench::new();
    let mut exchange = Exchange::new(bench.rules.clone(), "s".into(), None, NOON);
    let mut out: Vec<Output> = Vec::new();
    exchange.handle(std::time::Duration::ZERO, Input::Gone, &mut out);
    assert_eq!(out.len(), 1);
    exchange.handle(std::time::Duration::ZERO, Input::Shutdown, &mut out);
    exchange.handle(std::time::Duration::ZERO, Input::RequestTrailers, &mut out);
    assert_eq!(out.len(), 1);
}
