//! Upgrades: refused unless a policy says so, and then passed as they are, which the record says.

use secrecy::ExposeSecret;

use super::bench::*;
use crate::exchange::{Headers, Input};

/// Asks for a WebSocket at `host`; what `more` names replaces what stands there.
fn asks(caller: &str, host: &str, more: &[(&str, &str)]) -> Headers {
    let usual = [
        (":method", "GET"),
        (":authority", host),
        (":path", "/v1/realtime?model=gpt-realtime"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
    ];
    let kept = usual
        .into_iter()
        .filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    head_with(
        caller,
        &kept.chain(more.iter().copied()).collect::<Vec<_>>(),
    )
}

#[test]
fn an_upgrade_passes_unseen_where_a_policy_says_so_and_the_record_says_that() {
    let mut bench = Bench::new();
    bench.hidden.clear();
    bench.head(asks("alice", "sockets.example", &[]));
    assert_eq!(bench.kinds(), ["opened"]);
    assert!(bench.seen.upstream_head.is_some() && bench.upstream().is_empty());
    let opened = bench.opened();
    assert_eq!(opened.request.unscanned, ["websocket"]);
    assert_eq!(
        (
            opened.request.payload.as_str(),
            opened.request.body.as_str()
        ),
        ("omit", "")
    );
    assert_eq!(opened.decision.policies, ["sockets"]);

    bench.answer_head(101, &[("upgrade", "websocket")]);
    assert!(bench.seen.head.is_some());
    bench.body(b"one", false).answer("two", false);
    bench.body(&[b'x'; 200_000], false).answer("", true);
    assert_eq!(bench.upstream().len(), 200_003);
    assert_eq!(bench.answered(), "two");
    let closed = bench.closed();
    assert_eq!(
        (closed.outcome.as_str(), closed.code.as_str(), closed.status),
        ("completed", "unseen", 101)
    );
    assert_eq!(bench.seen.end, Some(End::Finished));
}

#[test]
fn an_upgrade_is_refused_where_no_policy_says_so_or_what_is_asked_for_is_another() {
    for (caller, host, more, code) in [
        ("alice", "api.example", &[][..], "upgrade_refused"),
        (
            "mallory",
            "sockets.example",
            &[("upgrade", "h2c")],
            "upgrade_refused",
        ),
        (
            "alice",
            "sockets.example",
            &[(":method", "CONNECT")],
            "upgrade_refused",
        ),
        (
            "alice",
            "sockets.example",
            &[(":protocol", "websocket")],
            "upgrade_refused",
        ),
        ("ian", "sockets.example", &[], "policy_denied"),
        ("free-sockets", "sockets.example", &[], "grant_out_of_scope"),
    ] {
        let mut bench = Bench::new();
        bench.head(asks(caller, host, more));
        bench.refusal(403, code);
        assert!(bench.seen.upstream_head.is_none(), "{code}");
    }
}

#[test]
fn nothing_is_sent_behind_an_upgrade_before_it_was_made() {
    let mut early = Bench::new();
    early.head(asks("alice", "sockets.example", &[]));
    early.body(b"POST /v1/other HTTP/1.1\r\n", false);
    assert_eq!(early.upstream(), "");
    early.refusal(403, "upgrade_refused");
    assert_eq!(early.closed().outcome, "refused_response");

    let mut earlier = Bench::new();
    earlier.ledger = Ledger::Slow;
    earlier.head(asks("alice", "sockets.example", &[]));
    earlier
        .body(b"POST /v1/other HTTP/1.1\r\n", false)
        .durable();
    assert!(earlier.seen.upstream_head.is_none());

    for status in [200, 403, 426] {
        let mut declined = Bench::new();
        declined.head(asks("alice", "sockets.example", &[]));
        declined.answer_head(status, &[]);
        declined.refusal(502, "unknown_response_shape");
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_refused() {
    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hello"));
    bench.answer_head(101, &[("upgrade", "x")]);
    bench.refusal(502, "unknown_response_shape");
}

#[test]
fn a_caller_who_leaves_a_socket_has_it_closed_on_record() {
    let mut bench = Bench::new();
    bench.head(asks("alice", "sockets.example", &[]));
    bench.answer_head(101, &[]).answer("two", false);
    bench.handle(Input::Gone);
    assert_eq!(
        (
            bench.closed().outcome.as_str(),
            bench.closed().code.as_str()
        ),
        ("cut_short", "stream_ended")
    );
}

#[test]
fn a_key_among_the_protocols_does_not_go_upstream() {
    let offered = "sec-websocket-protocol";
    for (fields, set) in [
        (
            vec![(
                offered,
                "realtime, openai-insecure-api-key.sk-own, openai-beta.realtime-v1",
            )],
            Some("realtime, openai-beta.realtime-v1"),
        ),
        (
            vec![
                (offered, "realtime"),
                (offered, "OpenAI-Insecure-API-Key.sk-own"),
            ],
            Some("realtime"),
        ),
        (vec![(offered, "openai-insecure-api-key.sk-own")], None),
    ] {
        let mut bench = Bench::new();
        bench.hidden.clear();
        bench.head(asks("alice", "sockets.example", &fields));
        let mutation = bench.seen.upstream_head.as_ref().unwrap();
        let found = mutation.set.iter().find(|(name, _)| name == offered);
        assert_eq!(found.map(|(_, value)| value.expose_secret()), set);
        assert_eq!(
            mutation.remove.iter().any(|name| name == offered),
            set.is_none()
        );
    }
    let mut bench = Bench::new();
    bench.hidden.clear();
    bench.head(asks(
        "alice",
        "sockets.example",
        &[(offered, "realtime, x")],
    ));
    let mutation = bench.seen.upstream_head.as_ref().unwrap();
    let names = mutation
        .set
        .iter()
        .map(|(name, _)| name)
        .chain(&mutation.remove);
    assert!(
        names.into_iter().all(|name| name != offered),
        "left as it is"
    );
}
