//! A ledger that is slow, or fails.

use super::bench::*;
use crate::exchange::{Input, journal::RECORD_EACH};

#[test]
fn nothing_goes_upstream_before_it_is_on_record() {
    let mut bench = Bench::new();
    bench.ledger = Ledger::Slow;
    bench.ask("alice", &prompt("hi"));
    assert!(bench.is_recording() && bench.seen.upstream_head.is_none());
    bench.durable();
    assert!(bench.seen.upstream_ended);
}

#[test]
fn a_failing_ledger_refuses_the_request() {
    let mut bench = Bench::new();
    bench.ledger = Ledger::Fails("audit_full");
    bench.ask("alice", &prompt(&format!("my {SSN}")));
    bench.refusal(503, "audit_full");
    assert!(bench.seen.upstream_head.is_none());
    assert!(
        bench.exchange().summary().masked_request.is_empty(),
        "nothing was forwarded"
    );
    assert_eq!(bench.exchange().summary().outcome, "refused");

    let mut bench = Bench::new();
    bench.ledger = Ledger::Fails("audit_unavailable");
    bench.ask("ian", &prompt("hi"));
    bench.refusal(503, "audit_unavailable");
}

#[test]
fn a_slow_ledger_holds_back_a_bounded_rest() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    let event = chunk(&"abc ".repeat(250));
    for _ in 0..100 {
        // The bench checks after each how much left that is not on record.
        bench.answer(&event, false);
    }
    let left = bench.seen.answer.len();
    assert!(
        left > RECORD_EACH,
        "what is being recorded does not hold up the rest at once: {left}"
    );
    assert!(bench.rules.budget.used() >= 100 * event.len() - left);
    while bench.is_recording() {
        bench.durable();
    }
    assert_eq!(bench.seen.answer.len(), 100 * event.len());
    bench.answer(&(stop() + DONE), true);
    assert!(!contains(&bench.seen.answer, "[DONE]"));
    while bench.is_recording() {
        bench.durable();
    }
    assert!(bench.answered().ends_with(DONE));
    assert_eq!(bench.recorded()["0.content"], "abc ".repeat(25_000));
}

#[test]
fn one_large_piece_leaves_no_faster_than_it_is_recorded() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    let event = chunk(&"abc ".repeat(250));
    bench.answer(&event.repeat(300), false);
    assert!(bench.seen.answer.len() <= 2 * RECORD_EACH + 2 * event.len());
    while bench.is_recording() {
        bench.durable();
    }
    assert_eq!(bench.seen.answer.len(), 300 * event.len());
}

#[test]
fn a_stream_that_outgrows_what_may_be_held_is_refused() {
    let mut bench = Bench::with(1 << 20, 64 << 10, 1 << 20, 10);
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    let event = chunk(&"abc ".repeat(250));
    for _ in 0..100 {
        bench.answer(&event, false);
    }
    while bench.is_recording() {
        bench.durable();
    }
    assert_eq!(bench.seen.end, Some(End::Aborted("response_too_large")));
    assert_eq!(
        bench.recorded()["0.content"],
        content(&bench.seen.answer),
        "what was withheld is not said to have left"
    );
}

#[test]
fn one_record_is_written_at_a_time() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    bench.answer(&chunk("one "), false).handle(Input::Tick);
    // The bench refuses a second record while one is under way.
    bench.answer(&chunk("two "), false).handle(Input::Tick);
    bench.durable().handle(Input::Tick).durable();
    assert_eq!(bench.kinds(), ["opened", "delivered", "delivered"]);
}

#[test]
fn a_stream_that_outgrows_the_memory_of_all_is_refused() {
    let mut bench = Bench::with(1 << 20, 1 << 20, 100_000, 10);
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    let event = chunk(&"abc ".repeat(250));
    for _ in 0..100 {
        bench.answer(&event, false);
        assert!(bench.rules.budget.used() <= 100_000);
    }
    while bench.is_recording() {
        bench.durable();
    }
    assert_eq!(bench.seen.end, Some(End::Aborted("overloaded")));
}

#[test]
fn a_request_counts_as_often_as_it_is_in_memory() {
    let body = prompt(&"word ".repeat(20_000));
    let mut bench = Bench::with(1 << 20, 1 << 20, 2 * body.len(), 10);
    bench.ask("alice", &body);
    bench.refusal(503, "overloaded");

    // And a little for where its few texts are.
    let mut bench = Bench::with(1 << 20, 1 << 20, 3 * body.len() + 4096, 10);
    bench.ledger = Ledger::Slow;
    bench.ask("alice", &body);
    // To be forwarded, and on its way into the record.
    assert_eq!(bench.rules.budget.used(), 2 * body.len());
    bench.durable();
    // Whoever hands it to Envoy, which may be slow to read, still has it.
    assert_eq!(bench.rules.budget.used(), body.len());
    bench.answer_stream();
    assert_eq!(bench.rules.budget.used(), 0);
}

#[test]
fn what_a_body_is_taken_apart_into_counts_too() {
    let parts = r#"{"type":"text","text":"a"},"#.repeat(5_000);
    let parts = parts.trim_end_matches(',');
    let message = format!(r#"{{"role":"user","content":[{parts}]}}"#);
    let body = format!(r#"{{"model":"gpt-4o-mini","messages":[{message}]}}"#);
    let mut bench = Bench::with(1 << 20, 1 << 20, 3 * body.len() + 4096, 10);
    bench.ask("alice", &body);
    bench.refusal(503, "overloaded");
    assert_eq!(bench.rules.budget.used(), 0);

    let mut bench = Bench::with(1 << 20, 1 << 20, 10 * body.len(), 10);
    bench.ask("alice", &body).answer_stream();
    assert_eq!(bench.seen.end, Some(End::Finished));
}

#[test]
fn an_answer_counts_until_it_was_handed_on() {
    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hi")).answer_json();
    bench.ledger = Ledger::Slow;
    let text = "word ".repeat(20_000);
    let answer = completion(&text);
    bench.answer(&answer, true);
    assert!(bench.rules.budget.used() >= answer.len() + text.len());
    bench.durable();
    assert_eq!(bench.seen.answer.len(), answer.len());
    assert_eq!(bench.rules.budget.used(), answer.len());
}

#[test]
fn the_end_waits_for_closed() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    bench.answer(&(chunk("hello") + &stop() + DONE), false);
    assert_eq!(content(&bench.seen.answer), "hello");
    assert!(!contains(&bench.seen.answer, "[DONE]") && bench.is_recording());
    bench.answer("", true);
    assert!(!bench.seen.answer_ended);
    bench.durable();
    assert!(bench.answered().ends_with(DONE) && bench.seen.answer_ended);
    assert_eq!(bench.seen.end, Some(End::Finished));
}

#[test]
fn a_part_that_is_lost_ends_the_answer_and_closed_says_so() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    bench.answer(&chunk("hello "), false).handle(Input::Tick);
    bench.lost("audit_unavailable");
    assert!(bench.is_recording(), "`closed` is tried all the same");
    bench.durable();
    assert_eq!(
        (
            bench.closed().outcome.as_str(),
            bench.closed().code.as_str()
        ),
        ("refused_response", "audit_unavailable")
    );
    assert_eq!(bench.seen.end, Some(End::Aborted("audit_unavailable")));
    assert!(bench.answered().contains("\"code\":\"audit_unavailable\""));
}

#[test]
fn a_part_that_is_lost_counts_even_where_the_answer_is_over() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Slow;
    bench
        .answer(&chunk("hello "), false)
        .handle(Input::Tick)
        .answer(&(stop() + DONE), true);
    bench.lost("audit_unavailable").durable();
    assert_eq!(bench.closed().code, "audit_unavailable");
    assert!(!contains(&bench.seen.answer, "[DONE]"));
}

#[test]
fn a_lost_closed_keeps_the_end_back() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.ledger = Ledger::Fails("audit_unavailable");
    bench.answer(&(chunk("hello") + &stop() + DONE), true);
    assert!(!contains(&bench.seen.answer, "[DONE]"));
    assert_eq!(bench.seen.end, Some(End::Aborted("audit_unavailable")));
    let summary = bench.exchange().summary();
    assert_eq!(
        (summary.outcome, summary.code),
        ("refused_response", "audit_unavailable")
    );

    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hi")).answer_json();
    bench.ledger = Ledger::Fails("audit_unavailable");
    bench.answer(&completion("hello"), true);
    bench.refusal(503, "audit_unavailable");
    assert_eq!(bench.exchange().summary().outcome, "refused_response");
}
