//! What is sealed: the originals, for auditors and nobody else.

use std::collections::BTreeMap;

use super::{bench::*, rules::auditor};
use crate::audit::{
    record::{Event, Sealed},
    seal::{FrameKind, Opener, Part, UnsealError},
};

/// What an auditor reads of the session: the request and the answer.
pub(super) fn unsealed(bench: &Bench) -> (Vec<u8>, Vec<u8>) {
    let mut pieces = BTreeMap::new();
    let mut opener = None;
    for frame in &bench.seen.sealed {
        assert_eq!(frame.session, "session-1");
        match frame.kind {
            FrameKind::Keys => {
                assert!(opener.is_none(), "one key for a session");
                opener = Some(Opener::new("session-1", &frame.body, &auditor()).unwrap());
            }
            FrameKind::Piece(n) => _ = pieces.insert(n, frame.body.clone()),
            FrameKind::Erased => panic!("nothing was erased"),
        }
    }
    let opener = opener.expect("nothing is sealed");
    let open = |part, sealed: &Option<Sealed>| match sealed {
        Some(sealed) => opener
            .open::<UnsealError>(part, sealed, |n| Ok(pieces.get(&n).cloned()))
            .unwrap(),
        None => Vec::new(),
    };
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    for event in &bench.seen.records {
        match event {
            Event::Opened(opened) => request.extend(open(Part::Request, &opened.request.sealed)),
            Event::Refused(refused) => request.extend(open(Part::Request, &refused.request.sealed)),
            Event::Delivered(part) => answer.extend(open(Part::Answer, &part.sealed)),
            Event::Closed(closed) => answer.extend(open(Part::Answer, &closed.sealed)),
            _ => {}
        }
    }
    (request, answer)
}

fn ask(bench: &mut Bench, caller: &str, host: &str, body: &str) {
    bench.head(head_with(caller, &[(":authority", host)]));
    bench.body(body.as_bytes(), true);
}

#[test]
fn an_exempt_caller_sees_originals_and_the_record_holds_them_only_sealed() {
    let mut bench = Bench::new();
    bench.hidden.clear();
    let body = prompt(&format!("my number is {SSN}"));
    ask(&mut bench, "fred", "both.example", &body);
    assert!(bench.upstream().contains(SSN), "exempt from masking");
    let answer = completion(&format!("{SSN} is yours"));
    bench.answer_json().answer(&answer, true);
    assert!(bench.answered().contains(SSN));
    // The bench looks for it in every record.
    let request = &bench.opened().request;
    assert_eq!(request.payload, "masked+sealed");
    assert!(request.body.contains("[US_SSN]"));
    assert_eq!(bench.recorded()["0.content"], "[US_SSN] is yours");
    assert_eq!(unsealed(&bench), (body.into_bytes(), answer.into_bytes()));
}

#[test]
fn with_sealed_nothing_readable_is_on_record() {
    let mut bench = Bench::new();
    bench.hidden.clear();
    let body = streamed("quite harmless");
    ask(&mut bench, "alice", "sealed.example", &body);
    let request = &bench.opened().request;
    assert_eq!(
        (request.payload.as_str(), request.body.as_str()),
        ("sealed", "")
    );
    assert_eq!(
        request.forwarded_sha256, "",
        "a bare hash would confirm a guess"
    );
    bench.answer_stream();
    let mut sent = String::new();
    for n in 0..40 {
        let event = chunk(&format!("word {n} {} ", "and so on ".repeat(80)));
        bench
            .answer(&event, false)
            .handle(crate::exchange::Input::Tick);
        sent += &event;
    }
    let end = stop() + DONE;
    bench.answer(&end, true);
    sent += &end;
    assert!(bench.recorded().is_empty());
    let kinds = bench.kinds();
    assert!(kinds.len() > 5 && kinds.ends_with(&["closed"]), "{kinds:?}");
    for event in &bench.seen.records {
        let json = serde_json::to_string(event).unwrap();
        assert!(
            !json.contains("harmless") && !json.contains("so on"),
            "{json}"
        );
    }
    let (asked, answered) = unsealed(&bench);
    assert_eq!(String::from_utf8(asked).unwrap(), body);
    assert_eq!(String::from_utf8(answered).unwrap(), sent);
}

#[test]
fn the_transaction_digest_covers_what_is_sealed() {
    let digest = |text: &str| {
        let mut bench = Bench::new();
        ask(&mut bench, "alice", "sealed.example", &prompt("hi"));
        bench.answer_json().answer(&completion(text), true);
        bench.closed().transaction_sha256.clone()
    };
    assert_ne!(digest("yes"), digest("no"));
}

#[test]
fn what_is_refused_is_sealed_too() {
    let mut bench = Bench::new();
    let body = prompt("let me in");
    ask(&mut bench, "ian", "sealed.example", &body);
    bench.refusal(403, "policy_denied");
    assert_eq!(bench.refused().request.payload, "sealed");
    assert_eq!(unsealed(&bench).0, body.into_bytes());
}

#[test]
fn without_anything_to_seal_with_nothing_goes_upstream() {
    let mut bench = Bench::without_a_seed();
    ask(&mut bench, "alice", "sealed.example", &prompt("hi"));
    bench.refusal(503, "audit_unavailable");
    assert!(bench.seen.upstream_head.is_none() && bench.seen.records.is_empty());
    let mut bench = Bench::without_a_seed();
    bench.ask("alice", &prompt("hi"));
    assert!(
        bench.seen.upstream_ended,
        "where nothing is sealed none is needed"
    );
}

#[test]
fn frames_are_asked_for_with_the_record_that_commits_to_them() {
    let mut bench = Bench::new();
    bench.ledger = Ledger::Slow;
    ask(&mut bench, "alice", "sealed.example", &prompt("hi"));
    assert_eq!(bench.seen.sealed.len(), 2, "the keys and the request");
    assert!(
        bench.seen.upstream_head.is_none(),
        "before anything is durable"
    );
    bench.lost("audit_full");
    bench.refusal(503, "audit_full");
}

#[test]
fn the_lent_secret_is_not_sealed_where_the_upstream_repeats_it() {
    let mut bench = Bench::new();
    let body = prompt(&format!("is {LENT} yours"));
    ask(&mut bench, "alice", "sealed.example", &body);
    let answer = completion(&format!("your key is {LENT}"));
    bench.answer_json();
    for piece in answer.as_bytes().chunks(7) {
        bench.answer(std::str::from_utf8(piece).unwrap(), false);
    }
    bench.answer("", true);
    let (asked, answered) = unsealed(&bench);
    assert_eq!(asked, body.replace(LENT, "[CREDENTIAL]").into_bytes());
    assert_eq!(answered, answer.replace(LENT, "[CREDENTIAL]").into_bytes());
}

#[test]
fn what_waits_to_be_sealed_is_counted() {
    let mut bench = Bench::new();
    ask(&mut bench, "alice", "sealed.example", &streamed("hi"));
    bench.answer_stream();
    bench.ledger = Ledger::Slow;
    let event = chunk(&"abc ".repeat(250));
    for _ in 0..100 {
        bench.answer(&event, false);
    }
    assert!(
        bench.rules.budget.used() >= 150 * event.len(),
        "held back, and to be sealed"
    );
    while bench.is_recording() {
        bench.durable();
    }
    bench.answer(&(stop() + DONE), true);
    while bench.is_recording() {
        bench.durable();
    }
    assert!(
        bench.rules.budget.used() < event.len(),
        "all of it is given back"
    );
}
