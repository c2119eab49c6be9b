//! Callers with grants: narrowed to what the grant is for, and to how often.

use super::bench::*;
use crate::{
    approval::{Event, Fate, Given, Ignored, Revoked, State},
    exchange::Input,
};

fn revoke(bench: &Bench, grant: &str) {
    let until = NOON.as_second() + 60;
    let event = Event::Revoked(Revoked {
        grant: grant.to_owned(),
        until,
        by: None,
        share: String::new(),
    });
    bench.office.lock().unwrap().append(&event);
}

#[test]
fn a_grant_for_one_call_is_good_for_one_call() {
    let mut bench = Bench::new();
    bench.ask("once-openai", &prompt("hello"));
    assert!(bench.upstream().contains("hello"));
    let opened = bench.opened().clone();
    let held = opened.identity.grant.unwrap();
    assert_eq!((held.id.as_str(), held.max_uses), ("grant-once-openai", 1));
    assert_eq!(opened.decision.grant_use, 1);
    assert_eq!(opened.identity.subject, "once-openai");

    let mut second = bench.next();
    second.ask("once-openai", &prompt("hello"));
    second.refusal(403, "grant_used_up");
    assert!(second.seen.upstream_head.is_none());
    assert_eq!(second.refused().decision.code, "grant_used_up");
    assert_eq!(second.refused().decision.grant_use, 0);
}

#[test]
fn a_grant_whose_uses_are_not_counted_asks_nobody() {
    let mut bench = Bench::new();
    bench.office.lock().unwrap().reachable = false;
    bench.ask("free-openai", &prompt("hello"));
    assert!(bench.upstream().contains("hello"));
    assert_eq!(bench.opened().decision.grant_use, 0);
}

#[test]
fn a_grant_is_good_for_nothing_but_what_it_says() {
    let mut other_connection = Bench::new();
    other_connection.ask("once-gemini", &prompt("hello"));
    other_connection.refusal(403, "grant_out_of_scope");
    assert!(other_connection.seen.upstream_head.is_none());

    let mut other_model = Bench::new();
    let body = prompt("hello").replace("gpt-4o", "o3");
    assert_ne!(body, prompt("hello"));
    other_model.ask("once-openai", &body);
    other_model.refusal(403, "grant_out_of_scope");
    assert!(other_model.seen.upstream_head.is_none());
    // What was refused was not used.
    assert_eq!(
        other_model
            .office
            .lock()
            .unwrap()
            .register
            .used("grant-once-openai"),
        0
    );

    let mut other_method = Bench::new();
    other_method.head(head_with(
        "once-anthropic",
        &[
            (":authority", "claude.example"),
            (":path", "/v1/messages"),
            ("x-api-key", "token-of-once-anthropic"),
            ("anthropic-version", "2023-06-01"),
        ],
    ));
    other_method.body(b"{}", true);
    other_method.refusal(403, "grant_out_of_scope");
}

#[test]
fn a_grant_gives_nothing_that_its_holder_may_not() {
    let mut bench = Bench::new();
    bench.head(head_with("free-odd", &[(":authority", "odd.example")]));
    bench.body(prompt("hello").as_bytes(), true);
    bench.refusal(403, "policy_error");
}

#[test]
fn one_use_is_sent_upstream_once() {
    let mut bench = Bench::new();
    let retries = [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "9")];
    bench.head(head_with("once-openai", &retries));
    bench.body(prompt("hello").as_bytes(), true);
    bench.refusal(400, "retries_asked");
    assert_eq!(
        bench
            .office
            .lock()
            .unwrap()
            .register
            .used("grant-once-openai"),
        0
    );
}

#[test]
fn a_grant_that_ends_while_its_body_comes_counts_no_more() {
    let mut bench = Bench::new();
    bench.head(head_with("free-openai", &[]));
    bench.pass(std::time::Duration::from_secs(60));
    bench.body(prompt("hello").as_bytes(), true);
    bench.refusal(401, "token_expired");
    assert!(bench.seen.upstream_head.is_none());
}

#[test]
fn a_use_that_cannot_be_taken_is_no_use() {
    let mut unreachable = Bench::new();
    unreachable.office.lock().unwrap().reachable = false;
    unreachable.ask("once-openai", &prompt("hello"));
    unreachable.refusal(503, "grants_unavailable");
    assert!(unreachable.seen.upstream_head.is_none());

    let mut revoked = Bench::new();
    revoke(&revoked, "grant-once-openai");
    revoked.ask("once-openai", &prompt("hello"));
    revoked.refusal(401, "grant_revoked");
    assert!(revoked.seen.upstream_head.is_none());

    let mut late = Bench::new();
    late.office.lock().unwrap().now = NOON + jiff::SignedDuration::from_hours(1);
    late.ask("once-openai", &prompt("hello"));
    late.refusal(403, "grant_used_up");
}

#[test]
fn who_has_used_too_many_grants_is_told_so_and_others_are_not_kept_out() {
    let mut bench = Bench::new();
    let share = crate::approval::share("https://idp.example", "once-openai");
    let used = |n: usize| {
        Event::Used(crate::approval::Use {
            grant: format!("before-{n}"),
            max_uses: 1,
            until: NOON.as_second() + 60,
            session: "another".to_owned(),
            share: share.clone(),
        })
    };
    let mut office = bench.office.lock().unwrap();
    let ignored = |fate| matches!(fate, Fate::Ignored(Ignored::TooManyGrants));
    let most = (0..crate::approval::MAX_GRANTS).find(|n| ignored(office.append(&used(*n))));
    assert!(most.is_some());
    drop(office);
    let mut other = bench.next();
    bench.ask("once-openai", &prompt("hello"));
    bench.refusal(429, "too_many_grants");
    assert!(bench.seen.upstream_head.is_none());
    assert_eq!(bench.refused().decision.grant_use, 0);
    other.head(head_with("once-held", &[(":authority", "held.example")]));
    other.body(prompt("hello").as_bytes(), true);
    assert!(other.upstream().contains("hello"));
}

#[test]
fn who_hangs_up_while_a_use_is_taken_has_used_it_and_nothing_goes_on() {
    let mut bench = Bench::new();
    bench.slow_control = true;
    bench.ask("once-openai", &prompt("hello"));
    assert!(bench.seen.records.is_empty() && bench.seen.upstream_head.is_none());
    bench.handle(Input::Gone);
    bench.slow_control = false;
    bench.handle(Input::Tick);
    assert!(bench.seen.upstream_head.is_none());
    assert_eq!(bench.refused().decision.code, "caller_gone");
    assert_eq!(bench.refused().decision.grant_use, 1);
    let mut second = bench.next();
    second.ask("once-openai", &prompt("hello"));
    second.refusal(403, "grant_used_up");
}

#[test]
fn a_request_that_needs_both_spends_both_and_a_used_grant_spends_no_approval() {
    let ask = |bench: &mut Bench| {
        bench.head(head_with("once-held", &[(":authority", "held.example")]));
        bench.body(prompt(&format!("my number is {SSN}")).as_bytes(), true);
    };
    let approve = |bench: &Bench| {
        bench
            .office
            .lock()
            .unwrap()
            .decide("bob", "security", Given::Approve);
    };
    let mut bench = Bench::new();
    ask(&mut bench);
    assert_eq!(
        bench
            .office
            .lock()
            .unwrap()
            .register
            .used("grant-once-held"),
        0
    );
    approve(&bench);
    bench.look();
    assert!(bench.upstream().contains("[US_SSN]"));
    assert_eq!(bench.opened().decision.grant_use, 1);
    assert_eq!(
        bench.opened().decision.approval.as_ref().unwrap().state,
        "consumed"
    );

    let mut used = Bench::new();
    ask(&mut used);
    approve(&used);
    used.office
        .lock()
        .unwrap()
        .append(&Event::Used(crate::approval::Use {
            grant: "grant-once-held".to_owned(),
            max_uses: 1,
            until: NOON.as_second() + 60,
            session: "another".to_owned(),
            share: String::new(),
        }));
    used.look();
    used.refusal(403, "grant_used_up");
    assert!(used.seen.upstream_head.is_none());
    assert_eq!(used.office.lock().unwrap().only().state, State::Approved);
}
