//! Requests that a person must approve: what is released is what was approved, once, and nothing else ever.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::bench::*;
use crate::{
    approval::{Fate, Given, State},
    exchange::{Headers, Input, Lending, Rules},
};

pub(super) fn risky() -> String {
    prompt(&format!("my number is {SSN}, hello"))
}

fn to_held(caller: &str, more: &[(&str, &str)]) -> Headers {
    let more: Vec<_> = [(":authority", "held.example")]
        .iter()
        .chain(more)
        .copied()
        .collect();
    head_with(caller, &more)
}

/// Asks on the connection that holds requests with an SSN in them.
pub(super) fn ask(bench: &mut Bench, body: &str, more: &[(&str, &str)]) {
    bench.head(to_held("alice", more));
    bench.body(body.as_bytes(), true);
}

/// One that waits.
fn waiting() -> Bench {
    let mut bench = Bench::new();
    ask(&mut bench, &risky(), &[]);
    bench
}

pub(super) fn approve(bench: &Bench) {
    let fate = bench
        .office
        .lock()
        .unwrap()
        .decide("bob", "security", Given::Approve);
    assert!(matches!(fate, Fate::Counts(_)), "{fate:?}");
}

fn ticket<'b>(bench: &'b Bench, name: &str) -> Option<&'b str> {
    set(&bench.seen.immediate.as_ref().unwrap().headers, name)
}

/// The same rules with one connection changed by hand.
pub(super) fn changed(
    bench: &Bench,
    connection: &str,
    change: impl Fn(&mut crate::exchange::Connection),
) -> Arc<Rules> {
    let now = &bench.rules;
    let connections = now.connections.iter().map(|known| {
        if known.name != connection {
            return known.clone();
        }
        let mut copy = super::rules::copy(known);
        change(&mut copy);
        Arc::new(copy)
    });
    Arc::new(Rules {
        connections: connections.collect(),
        digest: "another".into(),
        limits: now.limits,
        budget: now.budget.clone(),
        strangers: now.strangers.clone(),
        admission: now.admission.clone(),
        risk: now.risk.clone(),
        time_zone: now.time_zone.clone(),
        approvals: now.approvals.clone(),
    })
}

#[test]
fn a_request_waits_is_approved_and_goes_as_it_was_approved() {
    let mut bench = waiting();
    assert!(bench.seen.upstream_head.is_none() && bench.seen.records.is_empty());
    let (id, token, patience) = bench.holding.clone().unwrap();
    assert_eq!(
        (id.as_str(), token.as_str()),
        ("session-1", "token-of-alice")
    );
    assert_eq!(patience.as_secs(), 45);
    let asked = bench.office.lock().unwrap().only().asked.clone();
    assert_eq!(asked.requirement.reasons, ["an SSN in the prompt"]);
    assert_eq!(asked.view.findings["US_SSN"], 1);
    assert!(asked.view.excerpt[0].contains("my number is [US_SSN], hello"));
    assert_eq!(
        (asked.view.model.as_str(), asked.view.not_shown),
        ("gpt-4o", 0)
    );

    approve(&bench);
    bench.look();
    assert!(bench.upstream().contains("[US_SSN]"));
    let opened = bench.opened();
    let approval = opened.decision.approval.as_ref().unwrap();
    assert_eq!(
        (approval.id.as_str(), approval.state.as_str()),
        ("session-1", "consumed")
    );
    assert_eq!(
        (
            approval.votes[0].subject.as_str(),
            approval.votes[0].given.as_str()
        ),
        ("bob", "approve")
    );
    assert_eq!(approval.request_sha256, asked.request.to_string());
    bench.answer_json().answer(&completion("ok"), true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    assert_eq!(bench.office.lock().unwrap().only().state, State::Consumed);
}

#[test]
fn what_policy_does_not_ask_for_is_not_asked() {
    let mut bench = Bench::new();
    ask(&mut bench, &prompt("hello"), &[]);
    assert!(bench.seen.upstream_ended);
    assert_eq!(bench.office.lock().unwrap().register.iter().count(), 0);
    assert!(bench.opened().decision.approval.is_none());
}

#[test]
fn who_is_not_told_yes_in_time_gets_a_ticket_and_joins_with_the_same_request() {
    let mut bench = waiting();
    bench.look();
    let refusal = bench.refusal(403, "approval_required");
    assert_eq!(
        set(&refusal.headers, "countersign-approval"),
        Some("session-1")
    );
    assert_eq!(set(&refusal.headers, "x-should-retry"), Some("false"));
    assert_eq!(
        set(&refusal.headers, "location"),
        Some("https://gateway.example/api/v1/approvals/session-1")
    );
    assert!(set(&refusal.headers, "retry-after").is_some());
    let refused = bench.refused();
    assert_eq!(refused.decision.verdict, "hold");
    assert_eq!(refused.decision.approval.as_ref().unwrap().state, "pending");

    // The SDK's own retry differs in how it travels, and in nothing else.
    let mut again = bench.next();
    let travels = [
        ("x-stainless-retry-count", "1"),
        ("x-request-id", "another"),
        ("traceparent", "00-1-2-3"),
        ("user-agent", "curl"),
        ("countersign-approval", "session-1"),
    ];
    ask(&mut again, &risky(), &travels);
    assert_eq!(again.holding.as_ref().unwrap().0.as_str(), "session-1");
    approve(&again);
    again.look();
    assert!(again.seen.upstream_ended);
    let approval = again.opened().decision.approval.clone().unwrap();
    assert_eq!(approval.asked_by_session, "session-1");
}

#[test]
fn an_approval_releases_one_request() {
    let mut first = waiting();
    // Both wait; a place is free again for the second only because the first gave its own back.
    let mut second = first.next();
    ask(&mut second, &risky(), &[]);
    approve(&first);
    first.look();
    assert!(first.seen.upstream_ended);
    second.look();
    second.refusal(403, "approval_used");
    assert!(second.seen.upstream.is_empty());
    // Repeated, it is another question.
    let mut third = second.next();
    ask(&mut third, &risky(), &[]);
    assert_eq!(third.holding.as_ref().unwrap().0.as_str(), "session-3");
}

#[test]
fn a_no_is_a_no_and_too_late_is_a_no() {
    let mut bench = waiting();
    bench
        .office
        .lock()
        .unwrap()
        .decide("bob", "security", Given::Deny);
    bench.look();
    bench.refusal(403, "approval_denied");
    assert_eq!(
        bench.refused().decision.approval.as_ref().unwrap().state,
        "denied"
    );
    let mut again = bench.next();
    ask(&mut again, &risky(), &[]);
    again.look();
    again.refusal(403, "approval_denied");

    let mut late = waiting();
    late.office.lock().unwrap().now += jiff::SignedDuration::from_secs(601);
    late.look();
    late.refusal(403, "approval_expired");
}

#[test]
fn the_caller_cannot_approve() {
    let bench = waiting();
    let fate = bench
        .office
        .lock()
        .unwrap()
        .decide("alice", "security", Given::Approve);
    assert!(matches!(fate, Fate::Ignored(_)));
}

#[test]
fn another_byte_header_method_or_caller_is_another_request() {
    let mut first = waiting();
    let mut same = |body: &str, caller: &str, more: &[(&str, &str)]| {
        let mut bench = first.next();
        bench.head(to_held(caller, more));
        bench.body(body.as_bytes(), true);
        let joined = bench.holding.as_ref().unwrap().0.as_str() == "session-1";
        // It waits no longer, so that its place is free.
        bench.handle(Input::Gone);
        joined
    };
    assert!(same(&risky(), "alice", &[]));
    assert!(!same(&format!("{} ", risky()), "alice", &[]));
    let other = crate::approval::Id::new("session-2").unwrap();
    assert!(
        first
            .office
            .lock()
            .unwrap()
            .register
            .approval(&other)
            .is_some()
    );
    for more in [
        ("openai-organization", "org-1"),
        ("accept", "text/event-stream"),
        (":path", "/v1/chat/completions?x=1"),
    ] {
        let mut bench = waiting();
        let mut next = bench.next();
        ask(&mut next, &risky(), &[more]);
        assert_ne!(
            next.holding.as_ref().unwrap().0.as_str(),
            "session-1",
            "{more:?}"
        );
        bench.handle(Input::Gone);
    }
    let mut bench = waiting();
    let mut fred = bench.next();
    fred.head(to_held("fred", &[]));
    fred.body(risky().as_bytes(), true);
    assert_ne!(fred.holding.as_ref().unwrap().0.as_str(), "session-1");
}

#[test]
fn what_changed_after_the_approval_is_not_released() {
    // The connection's policies.
    let mut bench = waiting();
    approve(&bench);
    let rules = changed(&bench, "held", |held| {
        let mut policies = held.chain.policies().to_vec();
        policies.pop();
        held.chain = crate::policy::Chain::new(policies);
    });
    bench.look_under(rules);
    bench.refusal(403, "no_policy_allows");
    assert_eq!(
        bench.office.lock().unwrap().only().state,
        State::Approved,
        "nothing was used up"
    );

    // Where a token is looked for: what was shown does no more.
    let mut bench = waiting();
    approve(&bench);
    let rules = changed(&bench, "held", |held| held.token_header = "api-key");
    bench.look_under(rules);
    bench.refusal(401, "token_missing");

    // More is asked for now.
    let mut bench = waiting();
    approve(&bench);
    let stricter = bench
        .rules
        .connections
        .iter()
        .find(|known| known.name == "deferred")
        .unwrap();
    let ask_always = stricter.chain.policies()[0].clone();
    let rules = changed(&bench, "held", |held| {
        let mut policies = held.chain.policies().to_vec();
        policies.insert(0, ask_always.clone());
        held.chain = crate::policy::Chain::new(policies);
    });
    bench.look_under(rules);
    bench.refusal(403, "approval_mismatch");
    assert!(bench.seen.upstream.is_empty());

    // Another credential would be lent; another connection would take it.
    let mut bench = waiting();
    approve(&bench);
    let rules = changed(&bench, "held", |held| {
        let lending = held.lender.current();
        held.lender = Arc::new(Lending::nothing(lending.guard.clone()));
    });
    bench.look_under(rules);
    bench.refusal(403, "approval_mismatch");
    let mut bench = waiting();
    approve(&bench);
    let rules = changed(&bench, "held", |held| held.name = "renamed".into());
    bench.look_under(rules);
    bench.refusal(404, "unknown_connection");
}

#[test]
fn a_token_that_counts_no_more_releases_nothing() {
    let mut bench = Bench::new();
    ask(&mut bench, &risky(), &[]);
    approve(&bench);
    let (id, _, patience) = bench.holding.take().unwrap();
    bench.holding = Some((id, "token-of-mallory".into(), patience));
    bench.look();
    assert_eq!(bench.seen.immediate.as_ref().unwrap().status, 401);
    assert!(bench.seen.upstream.is_empty());
    let mut other = waiting();
    approve(&other);
    let (id, _, patience) = other.holding.take().unwrap();
    other.holding = Some((id, "token-of-fred".into(), patience));
    other.look();
    other.refusal(403, "approval_mismatch");
}

#[test]
fn a_caller_who_leaves_leaves_the_question_and_a_shutdown_hands_out_the_ticket() {
    let mut bench = waiting();
    bench.handle(Input::Gone);
    assert_eq!(bench.refused().decision.code, "caller_gone");
    assert_eq!(bench.office.lock().unwrap().only().state, State::Pending);

    let mut bench = waiting();
    bench.handle(Input::Shutdown);
    bench.refusal(503, "shutting_down");
    assert_eq!(ticket(&bench, "countersign-approval"), Some("session-1"));
}

#[test]
fn the_caller_says_how_they_would_wait() {
    let patience = |host: &str, prefer: &[(&str, &str)]| {
        let mut bench = Bench::new();
        let more: Vec<_> = [(":authority", host)]
            .iter()
            .chain(prefer)
            .copied()
            .collect();
        bench.head(head_with("alice", &more));
        bench.body(risky().as_bytes(), true);
        bench.holding.as_ref().unwrap().2.as_secs()
    };
    assert_eq!(patience("held.example", &[]), 45);
    assert_eq!(patience("held.example", &[("prefer", "wait=7")]), 7);
    assert_eq!(patience("held.example", &[("prefer", "wait=7000")]), 45);
    assert_eq!(patience("held.example", &[("prefer", "respond-async")]), 0);
    assert_eq!(
        patience("held.example", &[("prefer", "respond-async, wait=9")]),
        9
    );
    assert_eq!(patience("deferred.example", &[]), 0);
    assert_eq!(patience("deferred.example", &[("prefer", "wait=9")]), 9);

    let mut bench = Bench::new();
    ask(&mut bench, &risky(), &[("prefer", "respond-async")]);
    bench.look();
    bench.refusal(202, "approval_required");
    assert_eq!(bench.refused().status, 202);
    assert!(
        !bench
            .seen
            .immediate
            .as_ref()
            .unwrap()
            .headers
            .iter()
            .any(|(name, value)| { name == "content-type" && value.expose_secret().is_empty() })
    );
}

#[test]
fn as_many_are_held_as_may_be_and_the_others_get_a_ticket() {
    let mut first = waiting();
    let mut second = first.next();
    ask(&mut second, &prompt(&format!("another {SSN}")), &[]);
    assert_eq!(
        second.holding.as_ref().unwrap().2.as_secs(),
        0,
        "one of each caller"
    );
    second.look();
    second.refusal(403, "approval_required");
    // And as many pending.
    let mut third = second.next();
    ask(&mut third, &prompt(&format!("a third {SSN}")), &[]);
    third.refusal(429, "too_many_approvals");
}

#[test]
fn what_could_change_afterwards_is_refused_by_name() {
    let mut bench = Bench::new();
    let body = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x.example/y.png"}}]}]}"#;
    bench.head(head_with("alice", &[(":authority", "deferred.example")]));
    bench.body(body.as_bytes(), true);
    let refusal = bench.refusal(403, "mutable_content");
    assert!(String::from_utf8_lossy(&refusal.body).contains("url"));
    assert_eq!(bench.office.lock().unwrap().register.iter().count(), 0);
}

#[test]
fn while_the_control_log_cannot_be_reached_nothing_is_asked_and_nothing_released() {
    let mut bench = Bench::new();
    bench.office.lock().unwrap().reachable = false;
    ask(&mut bench, &risky(), &[]);
    bench.refusal(503, "approvals_unavailable");

    let mut bench = waiting();
    approve(&bench);
    bench.office.lock().unwrap().reachable = false;
    bench.look();
    bench.refusal(503, "approvals_unavailable");
    assert!(bench.seen.upstream.is_empty());
}

#[test]
fn nothing_is_forwarded_where_the_release_cannot_be_recorded() {
    let mut bench = waiting();
    approve(&bench);
    bench.ledger = Ledger::Fails("audit_full");
    bench.look();
    bench.refusal(503, "audit_full");
    assert!(bench.seen.upstream.is_empty());
    // It is spent all the same: whether it was forwarded must never be a matter of doubt.
    assert_eq!(bench.office.lock().unwrap().only().state, State::Consumed);
}

#[test]
fn what_envoy_may_not_say_while_a_request_waits_ends_it() {
    let mut bench = waiting();
    bench.handle(Input::ResponseHeaders(answer_head(200, &[]), false));
    assert!(bench.seen.upstream.is_empty());
    assert!(bench.seen.end.is_some() || bench.seen.immediate.is_some());
}

#[test]
fn people_who_share_an_account_do_not_join_what_another_asked() {
    let mut bob = Bench::new();
    bob.head(to_held("shared-bob", &[]));
    bob.body(risky().as_bytes(), true);
    let mut eve = bob.next();
    eve.head(to_held("shared-eve", &[]));
    eve.body(risky().as_bytes(), true);
    assert_ne!(
        eve.holding.as_ref().unwrap().0,
        bob.holding.as_ref().unwrap().0
    );
    // Nor does one go by what they approved themselves, should the token say so only now.
    let eve_approves = |party: &str| crate::approval::Party {
        issuer: "https://idp.example".into(),
        subject: party.into(),
        also: std::collections::BTreeSet::from(["person:eve".to_owned()]),
    };
    let mut bob = Bench::new();
    bob.head(to_held("shared-bob", &[]));
    bob.body(risky().as_bytes(), true);
    let fate =
        bob.office
            .lock()
            .unwrap()
            .decide_as(eve_approves("eve"), "security", Given::Approve);
    assert!(matches!(fate, Fate::Counts(_)));
    let (id, _, patience) = bob.holding.take().unwrap();
    bob.holding = Some((id, "token-of-shared-eve".into(), patience));
    bob.look();
    bob.refusal(403, "approval_mismatch");
}

#[test]
fn who_does_not_say_which_person_they_are_is_not_asked_for() {
    let mut bench = Bench::new();
    bench.head(to_held("unnamed", &[]));
    bench.body(risky().as_bytes(), true);
    bench.refusal(403, "person_unknown");
    let mut harmless = Bench::new();
    harmless.head(to_held("unnamed", &[]));
    harmless.body(prompt("hello").as_bytes(), true);
    assert!(harmless.seen.upstream_ended, "only approvals ask who it is");
}

#[test]
fn one_approval_is_not_made_two_requests_by_retries() {
    for header in [
        "x-envoy-retry-on",
        "x-envoy-max-retries",
        "x-envoy-hedge-on-per-try-timeout",
    ] {
        let mut bench = Bench::new();
        ask(&mut bench, &risky(), &[(header, "5")]);
        bench.refusal(400, "retries_asked");
    }
}

#[test]
fn a_body_too_large_to_be_held_gets_a_ticket() {
    let mut bench = Bench::with(4 << 20, 1 << 20, 256 << 20, 100);
    let body = prompt(&format!("my number is {SSN} {}", "x".repeat(1 << 20)));
    ask(&mut bench, &body, &[]);
    assert_eq!(bench.holding.as_ref().unwrap().2.as_secs(), 0);
}

#[test]
fn all_that_are_held_leave_room_for_those_who_need_not_wait() {
    let long = |name: &str| prompt(&format!("{name} {SSN} {}", "x".repeat(900 << 10)));
    let hold = |mut bench: Bench, caller: &str| {
        bench.head(to_held(caller, &[]));
        bench.body(long(caller).as_bytes(), true);
        let patience = bench.holding.as_ref().unwrap().2.as_secs();
        (bench, patience)
    };
    let (mut first, patience) = hold(Bench::with(4 << 20, 1 << 20, 256 << 20, 100), "alice");
    assert_eq!(patience, 45);
    // Each has a place, but both together would take over what they may.
    let (mut second, patience) = hold(first.next(), "bob");
    assert_eq!(patience, 0);
    let third = second.next();
    drop((first, second));
    let (third, patience) = hold(third, "carol");
    assert_eq!(patience, 45);
    drop(third);
}

#[test]
fn headers_that_upstreams_obey_are_part_of_the_request() {
    for header in [
        "x-forwarded-user",
        "x-forwarded-groups",
        "x-forwarded-host",
        "baggage",
        "x-forwarded-client-cert",
    ] {
        let mut bench = waiting();
        let mut next = bench.next();
        ask(&mut next, &risky(), &[(header, "admin")]);
        assert_ne!(
            next.holding.as_ref().unwrap().0.as_str(),
            "session-1",
            "{header}"
        );
    }
}
