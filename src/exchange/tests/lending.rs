//! What is lent to whom: the value of the last moment, one per model, looked for in whatever comes back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::SecretString;

use super::{
    approvals::{approve, ask, changed, risky},
    bench::*,
};
use crate::{
    approval::State,
    detect::Catalog,
    exchange::{Choice, Guard, Hidden, Lender, Lending, Lent, Rules},
    policy::ModelPattern,
};

/// Lends what it is told to.
#[derive(Debug)]
struct Hand(Mutex<Arc<Lending>>);

impl Lender for Hand {
    fn current(&self) -> Arc<Lending> {
        self.0.lock().unwrap().clone()
    }
}

impl Hand {
    fn new(secrets: &[(&str, &str, Option<&str>)]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Arc::new(lending(secrets)))))
    }

    fn gives(&self, secrets: &[(&str, &str, Option<&str>)]) {
        *self.0.lock().unwrap() = Arc::new(lending(secrets));
    }
}

/// Models (none: all), name and value of each credential.
fn lending(secrets: &[(&str, &str, Option<&str>)]) -> Lending {
    let catalog = Arc::new(Catalog::builtin().unwrap());
    let hidden = Hidden {
        looked_for: catalog.defaults().clone(),
        catalog,
        named: std::collections::BTreeMap::new(),
    };
    let values = secrets.iter().filter_map(|(.., value)| *value);
    let guard = Guard::new(values.map(SecretString::from).collect(), &hidden).unwrap();
    let choice = |(models, name, value): &(&str, &str, Option<&str>)| Choice {
        models: ModelPattern::new(models).into_iter().collect(),
        name: (*name).to_owned(),
        lent: value.map(|value| {
            Arc::new(Lent {
                value: SecretString::from(format!("Bearer {value}")),
                until: None,
            })
        }),
    };
    Lending {
        header: "authorization".into(),
        choices: secrets.iter().map(choice).collect(),
        guard: Arc::new(guard),
    }
}

fn with(bench: &mut Bench, connection: &str, hand: &Arc<Hand>) -> Arc<Rules> {
    changed(bench, connection, |known| known.lender = hand.clone())
}

/// A bench whose usual connection lends what `hand` gives.
fn lends(hand: &Arc<Hand>) -> Bench {
    let mut bench = Bench::new();
    let rules = with(&mut bench, "openai", hand);
    Bench::under(rules)
}

fn authorization(bench: &Bench) -> Option<&str> {
    set(&bench.seen.upstream_head.as_ref()?.set, "authorization")
}

fn on_record(bench: &Bench, text: &str) -> bool {
    let events = bench.seen.records.iter();
    let mut events = events.map(|event| format!("{event:?}"));
    events.any(|event| event.contains(text))
}

fn asking_for(model: &str) -> String {
    prompt("hi").replace("gpt-4o", model)
}

const FIRST: &str = "sk-first-0123456789";
const SECOND: &str = "sk-second-0123456789";
const THIRD: &str = "sk-third-0123456789";

#[test]
fn the_value_of_the_moment_it_is_forwarded_is_lent_and_looked_for_to_the_end() {
    let hand = Hand::new(&[("", "file:a", Some(FIRST))]);
    let mut bench = lends(&hand);
    bench.hidden = vec![SECOND];
    bench.ledger = Ledger::Slow;
    let path = format!("/v1/chat/completions?known={SECOND}");
    bench.head(head_with("alice", &[(":path", &path)]));
    hand.gives(&[("", "file:a", Some(SECOND))]);
    bench.body(streamed(&format!("do you know {SECOND}?")).as_bytes(), true);
    // It is being put on record: what changes now changes nothing for this one.
    hand.gives(&[("", "file:a", Some(THIRD))]);
    bench.durable();
    assert_eq!(authorization(&bench), Some(&*format!("Bearer {SECOND}")));
    assert_eq!(bench.opened().lent, "file:a");
    let fields = [
        ("content-type", "text/event-stream"),
        ("x-echo", &format!("a {SECOND} b")),
    ];
    bench.answer_head(200, &fields);
    let removed = &bench.seen.head.as_ref().unwrap().remove;
    assert!(removed.iter().any(|name| name == "x-echo"), "{removed:?}");
    for piece in [
        "It is ",
        &SECOND[..7],
        &SECOND[7..],
        ". And again: ",
        SECOND,
        ".",
    ] {
        bench.answer(&chunk(piece), false);
    }
    hand.gives(&[("", "file:a", None)]);
    bench.ledger = Ledger::Durable;
    if bench.is_recording() {
        bench.durable();
    }
    bench.answer(&stop(), false).answer(DONE, true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    let said = content(&bench.seen.answer);
    assert_eq!(said.matches("[UPSTREAM_CREDENTIAL]").count(), 2, "{said}");
    assert!(!on_record(&bench, SECOND));
    assert_eq!(bench.closed().outcome, "completed");
}

#[test]
fn each_model_gets_its_own_and_no_answer_tells_another() {
    let hand = Hand::new(&[
        ("o3*", "env:O3", Some(SECOND)),
        ("GPT-4o-mini", "vault:v", Some(THIRD)),
        ("", "file:a", Some(FIRST)),
    ]);
    for (model, expected) in [
        ("gpt-4o", FIRST),
        ("o3-pro", SECOND),
        ("O3", SECOND),
        ("gpt-4o-mini", THIRD),
        ("gpt-4o-mini-2", FIRST),
    ] {
        let mut bench = lends(&hand);
        bench.hidden = vec![FIRST, SECOND, THIRD];
        bench.ask("alice", &asking_for(model));
        let told = authorization(&bench);
        assert_eq!(told, Some(&*format!("Bearer {expected}")), "{model}");
        let text = format!("{FIRST} {SECOND} {THIRD}");
        bench.answer_json().answer(&completion(&text), true);
        assert_eq!(bench.seen.end, Some(End::Finished));
        let masked = bench.answered().matches("[UPSTREAM_CREDENTIAL]").count();
        assert_eq!(masked, 3, "{model}");
        assert!([FIRST, SECOND, THIRD].iter().all(|s| !on_record(&bench, s)));
    }
}

#[test]
fn what_cannot_be_had_is_refused_on_record_until_it_can() {
    let hand = Hand::new(&[("o3", "vault:v", None), ("", "file:a", Some(FIRST))]);
    let mut bench = lends(&hand);
    bench.ask("alice", &asking_for("o3"));
    let refusal = bench.refusal(503, "credential_unavailable");
    assert_eq!(set(&refusal.headers, "retry-after"), Some("1"));
    assert!(bench.seen.upstream_head.is_none() && bench.seen.upstream.is_empty());
    assert_eq!(bench.kinds(), ["refused"]);
    let refused = bench.refused();
    let code = &refused.decision.code;
    assert_eq!(
        (&*refused.request.model, &**code),
        ("o3", "credential_unavailable")
    );

    // The other model's is there, and who may not call at all learns nothing of either.
    let mut bench = Bench::under(bench.rules.clone());
    bench.ask("alice", &asking_for("gpt-4o"));
    assert_eq!(authorization(&bench), Some(&*format!("Bearer {FIRST}")));
    let mut bench = Bench::under(bench.rules.clone());
    bench.ask("ian", &asking_for("o3"));
    bench.refusal(403, "policy_denied");

    hand.gives(&[("o3", "vault:v", Some(SECOND)), ("", "file:a", Some(FIRST))]);
    let mut bench = Bench::under(bench.rules.clone());
    bench.ask("alice", &asking_for("o3"));
    assert_eq!(authorization(&bench), Some(&*format!("Bearer {SECOND}")));
}

/// One on the connection that holds, under what `hand` gives.
fn held(hand: &Arc<Hand>) -> Bench {
    let mut bench = Bench::new();
    let rules = with(&mut bench, "held", hand);
    let mut bench = Bench::under(rules);
    ask(&mut bench, &risky(), &[]);
    assert!(bench.holding.is_some());
    bench
}

#[test]
fn an_approval_is_for_the_credentials_name_and_what_is_lent_is_of_its_release() {
    let hand = Hand::new(&[("", "vault:v", Some(FIRST))]);
    let mut bench = held(&hand);
    hand.gives(&[("", "vault:v", Some(SECOND))]);
    approve(&bench);
    bench.look();
    assert_eq!(authorization(&bench), Some(&*format!("Bearer {SECOND}")));

    // Another one's name, or one for this model only: somebody else's key was approved.
    for other in [
        &[("", "vault:w", Some(FIRST))][..],
        &[
            ("gpt-4o", "env:B", Some(SECOND)),
            ("", "vault:v", Some(FIRST)),
        ],
    ] {
        let hand = Hand::new(&[("", "vault:v", Some(FIRST))]);
        let mut bench = held(&hand);
        hand.gives(other);
        approve(&bench);
        bench.look();
        bench.refusal(403, "approval_mismatch");
        assert!(bench.seen.upstream_head.is_none());
    }

    // Of another model: nobody's business.
    let hand = Hand::new(&[("", "vault:v", Some(FIRST))]);
    let mut bench = held(&hand);
    hand.gives(&[("o3", "env:B", Some(SECOND)), ("", "vault:v", Some(FIRST))]);
    approve(&bench);
    bench.look();
    assert_eq!(authorization(&bench), Some(&*format!("Bearer {FIRST}")));
}

#[test]
fn an_approval_is_not_spent_on_a_credential_that_cannot_be_had() {
    let hand = Hand::new(&[("", "vault:v", Some(FIRST))]);
    let mut bench = held(&hand);
    hand.gives(&[("", "vault:v", None)]);
    approve(&bench);
    bench.look();
    bench.refusal(503, "credential_unavailable");
    assert_eq!(bench.office.lock().unwrap().only().state, State::Approved);
    // The same request again, once it is there.
    hand.gives(&[("", "vault:v", Some(SECOND))]);
    let mut again = bench.next();
    ask(&mut again, &risky(), &[]);
    again.look();
    assert_eq!(authorization(&again), Some(&*format!("Bearer {SECOND}")));
    assert_eq!(again.office.lock().unwrap().only().state, State::Consumed);
}

#[test]
fn long_tokens_are_looked_for_as_short_ones_are() {
    // As long as access tokens are, longer than a masker holds, and as long as a credential may be.
    for length in [900, 1024, 1025, 2500, 16 << 10] {
        let token: String = (0..length)
            .map(|i: usize| char::from(b'a' + u8::try_from(i * i % 26).unwrap()))
            .collect();
        let token = &*Box::leak(token.into_boxed_str());
        let hand = Hand::new(&[("", "oauth2:o", Some(token))]);
        for cut in [1000, 7, length] {
            let mut bench = lends(&hand);
            bench.hidden = vec![token];
            bench.ask("fred", &streamed("hi"));
            bench.answer_stream();
            bench.answer(&chunk("It is "), false);
            for piece in token.as_bytes().chunks(cut) {
                bench.answer(&chunk(std::str::from_utf8(piece).unwrap()), false);
            }
            bench.answer(&chunk(", keep it."), false);
            bench.answer(&stop(), false).answer(DONE, true);
            let said = content(&bench.seen.answer);
            assert_eq!(
                said, "It is [UPSTREAM_CREDENTIAL], keep it.",
                "{length} by {cut}"
            );
            assert!(!on_record(&bench, &token[..200]));
        }
    }
}

#[test]
fn where_one_begins_another_all_of_it_is_hidden() {
    let (short, long) = ("sk-0123456789", "sk-0123456789-and-more");
    let hand = Hand::new(&[("o3", "a", Some(short)), ("", "b", Some(long))]);
    let mut bench = lends(&hand);
    bench.hidden = vec![short, "and-more"];
    bench.ask("fred", &prompt("hi"));
    bench
        .answer_json()
        .answer(&completion(&format!("{long} {short}.")), true);
    assert!(
        bench
            .answered()
            .contains("[UPSTREAM_CREDENTIAL] [UPSTREAM_CREDENTIAL].")
    );
}

#[test]
fn what_has_expired_is_not_lent_and_still_looked_for() {
    let seconds = Duration::from_secs;
    let mut lending = lending(&[("o3", "a", Some(FIRST)), ("", "b", Some(SECOND))]);
    let lent = |until| {
        let value = SecretString::from("v");
        Some(Arc::new(Lent { value, until }))
    };
    lending.choices[0].lent = lent(Some(seconds(5)));
    lending.choices[1].lent = lent(None);
    assert!(lending.is_fresh(seconds(4)) && !lending.is_fresh(seconds(5)));
    let there = |lending: &Lending| -> Vec<bool> {
        lending.choices.iter().map(|c| c.lent.is_some()).collect()
    };
    assert_eq!(there(&lending.at(seconds(4))), [true, true]);
    let later = lending.at(seconds(5));
    assert_eq!(there(&later), [false, true]);
    let secrets = [FIRST, SECOND].map(SecretString::from);
    assert!(later.guard.guards_exactly(&secrets));
    assert!(!later.guard.guards_exactly(&secrets[..1]));
    let told = format!("{lending:?}");
    assert!(!told.contains("sk-"), "{told}");
}

#[test]
fn a_sealed_original_has_none_of_them() {
    let hand = Hand::new(&[("o3", "a", Some(FIRST)), ("", "b", Some(SECOND))]);
    let mut bench = Bench::new();
    let rules = with(&mut bench, "sealed", &hand);
    let mut bench = Bench::under(rules);
    bench.head(head_with("alice", &[(":authority", "sealed.example")]));
    bench.body(prompt(&format!("is it {FIRST}?")).as_bytes(), true);
    bench.answer_json();
    bench.answer(&completion(&format!("no, {SECOND}")), true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    let (asked, answered) = super::sealed::unsealed(&bench);
    for sealed in [asked, answered] {
        assert!(contains(&sealed, "[CREDENTIAL]"));
        assert!(!contains(&sealed, FIRST) && !contains(&sealed, SECOND));
    }
}
