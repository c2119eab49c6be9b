//! gRPC: what is told in trailers, and to whom refusals are told so.

use std::time::Duration;

use super::bench::*;
use crate::exchange::{Headers, Input};

/// A field with a length below 128.
fn put(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 128);
    [&[number << 3 | 2, length], bytes].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

fn message(model: &str, tensor: &str, raw: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let tensor = put(5, [put(1, tensor), put(2, "BYTES")].concat());
    let element = put(raw, [&length[..], text.as_bytes()].concat());
    [put(1, model), tensor, element].concat()
}

fn asked(text: &str) -> Vec<u8> {
    framed(&message("llama", "text_input", 7, text))
}

fn said(text: &str) -> Vec<u8> {
    message("llama", "text_output", 6, text)
}

fn head(path: &str, more: &[(&str, &str)]) -> Headers {
    let usual = [
        (":authority", "kserve.example"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-accept-encoding", "gzip"),
    ];
    let usual = usual
        .iter()
        .filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    let all: Vec<_> = usual.chain(more).copied().collect();
    head_with("alice", &all)
}

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn trailers(fields: &[(&str, &str)]) -> Input {
    Input::ResponseTrailers(fields.iter().copied().collect())
}

fn body(bytes: &[u8]) -> Input {
    Input::ResponseBody(bytes.to_vec().into(), false)
}

#[test]
fn a_call_is_masked_both_ways_and_its_trailers_leave() {
    let mut bench = Bench::new();
    bench.head(head(INFER, &[]));
    bench.body(&asked(&format!("it is {SSN}")), true);
    assert_eq!(bench.seen.upstream, asked("it is [US_SSN]"));
    let upstream = bench.seen.upstream_head.as_ref().unwrap();
    assert!(
        upstream
            .remove
            .iter()
            .any(|name| name == "grpc-accept-encoding")
    );
    let request = &bench.opened().request;
    assert_eq!((request.model.as_str(), request.stream), ("llama", false));
    let shown: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(shown["raw_input_contents.0.0"], "it is [US_SSN]");

    bench.answer_head(200, &[GRPC]);
    bench.handle(body(&framed(&said(&format!("pay with {CARD}")))));
    assert!(bench.seen.head.is_none(), "the answer is not over");
    bench.handle(trailers(&[("grpc-status", "0"), ("x-note", "fine")]));
    assert_eq!(bench.seen.answer, framed(&said("pay with [CREDIT_CARD]")));
    let left = bench.seen.trailers.as_ref().unwrap();
    assert!(left.set.is_empty() && left.remove.is_empty());
    let closed = bench.closed();
    assert_eq!((closed.outcome.as_str(), closed.status), ("completed", 200));
    let recorded = bench.recorded();
    assert_eq!(
        recorded["0.raw_output_contents.0.0"],
        "pay with [CREDIT_CARD]"
    );
}

#[test]
fn messages_of_a_stream_leave_as_they_come() {
    let mut bench = Bench::new();
    bench.head(head(STREAM, &[]));
    bench.body(&[asked("one"), asked("two")].concat(), true);
    assert!(bench.opened().request.stream);
    bench.answer_head(200, &[GRPC]);
    let event = |text: &str| framed(&put(2, said(text)));
    bench.handle(body(&event(&format!("a {SSN}"))));
    assert_eq!(bench.seen.answer, event("a [US_SSN]"));
    bench.handle(body(&event("b")));
    bench.handle(trailers(&[("grpc-status", "0")]));
    assert_eq!(
        bench.seen.answer,
        [event("a [US_SSN]"), event("b")].concat()
    );
    assert_eq!(bench.closed().outcome, "completed");
}

#[test]
fn a_value_spread_over_messages_is_cut_off_where_it_must_be_masked_and_never_on_record() {
    let event = |id: &str, text: &str| {
        let said = [put(3, id), said(text)].concat();
        framed(&put(2, said))
    };
    let asked = || [asked("one"), asked("two")].concat();
    let (one, two) = SSN.split_at(7);
    let mut bench = Bench::new();
    bench.head(head(STREAM, &[])).body(&asked(), true);
    bench.answer_head(200, &[GRPC]);
    bench.handle(body(&event("a", &format!("it is {one}"))));
    // Another request's answer is another text.
    bench.handle(body(&event("b", two)));
    let before = bench.seen.answer.len();
    bench.handle(body(&event("a", two)));
    assert_eq!(bench.seen.answer.len(), before);
    assert_eq!(bench.seen.end, Some(End::Aborted("unknown_response_shape")));
    assert!(bench.closed().reason.contains("several messages"));

    // A value that follows its word, or stands at the end of one message and before the next, is none of that kind.
    let mut bench = Bench::new();
    bench.head(head(STREAM, &[])).body(&asked(), true);
    bench.answer_head(200, &[GRPC]);
    for text in [
        "her social security number is ",
        "536228145",
        &format!("and {SSN}"),
        "1, 2",
        CARD,
    ] {
        bench.handle(body(&event("a", text)));
    }
    let masked = [
        "her social security number is ",
        "[US_SSN]",
        "and [US_SSN]",
        "1, 2",
        "[CREDIT_CARD]",
    ];
    let expected: Vec<u8> = masked.iter().flat_map(|text| event("a", text)).collect();
    assert_eq!(bench.seen.answer, expected);
    bench.handle(trailers(&[("grpc-status", "0")]));
    assert_eq!(bench.closed().masked["US_SSN"], "replace");
    assert_eq!(bench.closed().findings["US_SSN"], 2);

    // Who may see values sees them as they are dealt out; the record shows none.
    let mut bench = Bench::new();
    bench.hidden.clear();
    bench.head(head(STREAM, &[("authorization", "Bearer token-of-fred")]));
    bench.body(&asked(), true);
    bench.answer_head(200, &[GRPC]);
    bench.handle(body(
        &[event("a", &format!("it is {one}")), event("a", two)].concat(),
    ));
    bench.handle(trailers(&[("grpc-status", "0")]));
    assert_eq!(bench.closed().outcome, "completed");
    assert_eq!(
        bench.recorded()["0.infer_response.raw_output_contents.0.0"],
        "it is [US_SSN]"
    );
}

#[test]
fn an_error_of_the_upstreams_is_one_on_record_and_says_nothing_unmasked() {
    let told = format!("no such card {CARD}");
    let fields = [("grpc-status", "5"), ("grpc-message", &told)];
    let masked = "no such card [CREDIT_CARD]";

    let mut bench = Bench::new();
    bench.head(head(INFER, &[])).body(&asked("x"), true);
    bench.answer_head(200, &[GRPC]).handle(trailers(&fields));
    let left = bench.seen.trailers.as_ref().unwrap();
    assert_eq!(set(&left.set, "grpc-message"), Some(masked));
    let closed = bench.closed();
    assert_eq!(
        (closed.outcome.as_str(), closed.status),
        ("upstream_error", 404)
    );
    assert_eq!(bench.recorded()["0.trailers"], masked);

    // The same in the head of an answer that has nothing else.
    let mut bench = Bench::new();
    bench.head(head(INFER, &[])).body(&asked("x"), true);
    let all: Vec<_> = [GRPC].into_iter().chain(fields).collect();
    bench.handle(Input::ResponseHeaders(answer_head(200, &all), true));
    let left = bench.seen.head.as_ref().unwrap();
    assert_eq!(set(&left.set, "grpc-message"), Some(masked));
    assert!(!left.remove.iter().any(|name| name == "grpc-status"));
    let closed = bench.closed();
    assert_eq!(
        (closed.outcome.as_str(), closed.status),
        ("upstream_error", 404)
    );
    assert_eq!(bench.recorded()["0.trailers"], masked);
}

#[test]
fn refusals_are_grpcs() {
    let refused = |path: &str, more: &[(&str, &str)], body: &[u8]| {
        let mut bench = Bench::new();
        bench.head(head(path, more));
        if bench.seen.end.is_none() {
            bench.body(body, true);
        }
        let immediate = bench.seen.immediate.take().unwrap();
        assert!(set(&immediate.headers, "content-type").is_none());
        let message = String::from_utf8(immediate.body.to_vec()).unwrap();
        assert!(message.starts_with(&format!("{}: ", immediate.code)));
        (immediate.grpc_status, immediate.code)
    };
    let ok = asked("x");
    let compressed = [&[1], &ok[1..]].concat();
    let load = "/inference.GRPCInferenceService/RepositoryModelLoad";
    let health = "/grpc.health.v1.Health/Check";
    assert_eq!(
        refused(INFER, &[("authorization", "")], &ok),
        (Some(16), "token_missing")
    );
    assert_eq!(refused(load, &[], &ok), (Some(7), "endpoint_not_allowed"));
    assert_eq!(refused(health, &[], &ok), (Some(7), "endpoint_not_allowed"));
    assert_eq!(
        refused(INFER, &[(":authority", "plain.example")], &ok),
        (Some(12), "unknown_connection")
    );
    assert_eq!(
        refused(INFER, &[("grpc-encoding", "gzip")], &ok),
        (Some(12), "encoded_request")
    );
    assert_eq!(
        refused(INFER, &[], &compressed),
        (Some(3), "compressed_message")
    );
    assert_eq!(
        refused(INFER, &[], &vec![0; 2 << 20]),
        (Some(8), "request_too_large")
    );
    let other = framed(&message("mistral", "text_input", 7, "x"));
    assert_eq!(refused(INFER, &[], &other), (Some(7), "policy_denied"));
}

#[test]
fn a_small_request_of_very_many_parts_counts_for_what_it_takes() {
    // Elements without text, two bytes each: the body alone would have its place many times over.
    let tensor = [put(1, "a"), put(2, "BYTES"), vec![0x2a, 0xa0, 0x9c, 0x01]].concat();
    let parts = put(8, "").repeat(10_000);
    let length = tensor.len() + parts.len();
    let length = [
        (length & 0x7f) as u8 | 0x80,
        (length >> 7 & 0x7f) as u8 | 0x80,
        (length >> 14) as u8,
    ];
    let message = [put(1, "llama"), vec![0x2a], length.to_vec(), tensor, parts].concat();
    let body = framed(&message);
    for (memory, passes) in [(32 << 20, true), (1 << 20, false)] {
        let mut bench = Bench::with(1 << 20, 1 << 20, memory, 100);
        bench.head(head(INFER, &[])).body(&body, true);
        match passes {
            true => assert_eq!(bench.seen.upstream, body),
            false => assert_eq!(bench.refusal(503, "overloaded").grpc_status, Some(14)),
        }
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_refused_or_cut() {
    let mut bench = Bench::new();
    bench.head(head(INFER, &[])).body(&asked("x"), true);
    bench.answer_head(200, &[GRPC]);
    bench.handle(body(&framed(&put(9, "x"))));
    let immediate = bench.refusal(502, "unknown_response_shape");
    assert_eq!(immediate.grpc_status, Some(13));

    let mut bench = Bench::new();
    bench.head(head(STREAM, &[])).body(&asked("x"), true);
    bench.answer_head(200, &[GRPC]);
    bench.handle(body(&framed(&put(9, "x"))));
    assert_eq!(bench.seen.end, Some(End::Aborted("unknown_response_shape")));
    assert!(bench.seen.answer.is_empty() && bench.seen.trailers.is_none());

    let mut bench = Bench::new();
    bench.head(head(INFER, &[])).body(&asked("x"), true);
    bench.answer_head(200, &[GRPC, ("grpc-encoding", "gzip")]);
    bench.refusal(502, "encoded_response");
}

#[test]
fn who_waits_for_an_answer_before_ending_their_side_is_told_that_none_will_come() {
    let (nearly, rest) = (Duration::from_millis(9_900), Duration::from_millis(200));
    let piece = |bytes: &[u8]| Input::RequestBody(bytes.to_vec().into(), false);
    let one = asked("one");
    let mut bench = Bench::new();
    bench.head(head(STREAM, &[])).handle(piece(&one));
    assert!(bench.wants_tick());
    bench.later(nearly).handle(Input::Tick);
    // Who goes on is not silent.
    bench.handle(piece(&one)).later(nearly).handle(Input::Tick);
    assert!(bench.seen.end.is_none());
    bench.later(rest).handle(Input::Tick);
    let immediate = bench.refusal(400, "caller_waits");
    assert_eq!(immediate.grpc_status, Some(3));
    let told = String::from_utf8(immediate.body.to_vec()).unwrap();
    assert!(told.contains("was not ended within 10 seconds"), "{told}");

    // Who is in the middle of a message is slow, and where only one message may come, or none, nobody can wait for an answer to it.
    for (path, bytes) in [
        (STREAM, &one[..one.len() - 1]),
        (STREAM, &[]),
        (INFER, &one),
    ] {
        let mut bench = Bench::new();
        bench.head(head(path, &[])).handle(piece(bytes));
        bench.later(10 * nearly).handle(Input::Tick);
        assert!(bench.seen.end.is_none(), "{path}");
    }

    // Nor while it is decided on what was said whole.
    let mut bench = Bench::new();
    bench.head(head(STREAM, &[])).body(&one, true);
    bench.later(10 * nearly);
    assert_eq!(bench.seen.upstream, one);
}
