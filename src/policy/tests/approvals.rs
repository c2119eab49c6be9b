//! What is owed before a call may go on, and what releases it.

use std::time::Duration;

use super::*;
use crate::approval::{Requirement, Slot, Wait};

fn rule(slots: &[(&str, u8)], seconds: u64, wait: Wait) -> ApprovalRule {
    let slot = |(group, distinct): &(&str, u8)| Slot {
        group: (*group).to_owned(),
        distinct: *distinct,
    };
    ApprovalRule {
        requirement: Requirement {
            slots: slots.iter().map(slot).collect(),
            reasons: vec![format!("within {seconds} s")],
            break_glass: BTreeSet::from(["incident".to_owned()]),
            expires_ms: seconds * 1000,
        },
        wait,
        max_hold: Duration::from_secs(45),
        mutable: true,
    }
}

fn ask(slots: &[(&str, u8)], seconds: u64, wait: Wait) -> Effect {
    Effect::RequireApproval(rule(slots, seconds, wait))
}

fn held(chain: &Chain, case: &Case) -> Pending {
    match chain.evaluate(&case.request()).outcome {
        Outcome::Hold(pending) => pending,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_approval_is_owed_only_where_the_call_would_be_allowed() {
    let chain = chain(&[
        (
            "review",
            "risk >= 50",
            ask(&[("security", 1)], 600, Wait::Hold),
        ),
        (
            "mask",
            "true",
            mask(&[("US_SSN", Operator::Replace)], &[], &[]),
        ),
        (
            "legal",
            "findings.US_SSN > 0",
            ask(&[("legal", 2), ("security", 1)], 60, Wait::Defer),
        ),
        ("no-tools", "request.tools", deny("no tools")),
        ("staff", r#""staff" in principal.groups"#, Effect::Allow),
    ]);
    let mut risky = Case::new().in_groups(&["staff"]);
    risky.risk = 50;
    let mut tools = risky.clone();
    tools.call.tools = true;
    let cases = [
        (
            Case::new().in_groups(&["staff"]),
            "allow request[US_SSN=Replace] response[] | by mask,staff",
        ),
        (
            risky.clone(),
            "hold for security in 600000 ms, Hold 45s mutable, request[US_SSN] | by review,mask,staff",
        ),
        (
            risky.clone().with("US_SSN", 1),
            "hold for security+legal+legal in 60000 ms, Defer 45s mutable, request[US_SSN] | by review,mask,legal,staff",
        ),
        (tools, "deny: no tools | by review,mask,no-tools"),
        (
            risky.clone().in_groups(&[]),
            "deny by default | by review,mask",
        ),
    ];
    for (case, expected) in cases {
        assert_eq!(told(&chain.evaluate(&case.request())), expected);
    }
    assert!(chain.can_allow());
    assert_eq!(chain.ends_at(), None);
}

#[test]
fn what_stands_behind_the_deciding_policy_asks_for_nothing() {
    let chain = chain(&[
        ("allow", "true", Effect::Allow),
        ("late", "true", ask(&[("security", 1)], 60, Wait::Hold)),
    ]);
    assert_eq!(
        told(&chain.evaluate(&Case::new().request())),
        "allow request[] response[] | by allow"
    );
    // Asking for an approval ends nothing, so that alone allows nothing.
    let alone = super::chain(&[("ask", "true", ask(&[("security", 1)], 60, Wait::Hold))]);
    assert_eq!((alone.ends_at(), alone.can_allow()), (None, false));
    assert_eq!(
        told(&alone.evaluate(&Case::new().request())),
        "deny by default | by ask"
    );
}

#[test]
fn of_two_rules_the_stricter_part_of_each_stands() {
    use Wait::{Caller, Defer, Hold};
    for (one, other, both) in [
        (Hold, Hold, Hold),
        (Hold, Caller, Caller),
        (Caller, Defer, Defer),
        (Hold, Defer, Defer),
        (Defer, Defer, Defer),
    ] {
        for (one, other) in [(one, other), (other, one)] {
            let mut sum = rule(&[("a", 1)], 60, one);
            sum.add(&rule(&[("a", 1)], 60, other));
            assert_eq!(sum.wait, both, "{one:?} {other:?}");
        }
    }
    let mut sum = rule(&[("a", 2)], 60, Hold);
    let other = ApprovalRule {
        max_hold: Duration::from_secs(5),
        mutable: false,
        ..rule(&[("a", 1), ("b", 1)], 600, Hold)
    };
    sum.add(&other);
    assert_eq!(sum.requirement.seats().collect::<Vec<_>>(), ["a", "a", "b"]);
    assert_eq!(
        (sum.requirement.expires_ms, sum.max_hold, sum.mutable),
        (60_000, other.max_hold, false)
    );
    // And the other way round it comes to the same.
    let mut back = other.clone();
    back.add(&rule(&[("a", 2)], 60, Hold));
    assert_eq!(
        (
            back.requirement.seats().count(),
            back.max_hold,
            back.mutable
        ),
        (3, other.max_hold, false)
    );
}

#[test]
fn a_permit_is_for_what_was_asked_for_and_not_for_less() {
    let review = |slots: &[(&str, u8)], seconds| {
        chain(&[
            (
                "mask",
                "true",
                mask(&[("US_SSN", Operator::Replace)], &[], &[]),
            ),
            ("review", "true", ask(slots, seconds, Wait::Hold)),
            ("allow", "true", Effect::Allow),
        ])
    };
    let granted = rule(&[("security", 1), ("legal", 1)], 600, Wait::Hold).requirement;
    let now = |slots: &[(&str, u8)], seconds| {
        held(&review(slots, seconds), &Case::new()).released(&granted)
    };
    let permit = now(&[("security", 1), ("legal", 1)], 600).unwrap();
    assert_eq!(permit.obligations().mask_request.len(), 1);
    assert!(
        now(&[("legal", 1)], 600).is_ok(),
        "less is asked for by now"
    );
    assert!(now(&[("legal", 1)], 900).is_ok());
    for (slots, seconds) in [
        (&[("security", 2), ("legal", 1)][..], 600),
        (&[("security", 1), ("legal", 1), ("privacy", 1)], 600),
        (&[("Security", 1)], 600),
        (&[("security", 1), ("legal", 1)], 599),
    ] {
        assert_eq!(
            now(slots, seconds).unwrap_err(),
            Denial::NotApproved,
            "{slots:?} {seconds}"
        );
    }
    // Who might decide alone then may not any more.
    let mut granted = granted.clone();
    granted.break_glass.insert("admins".to_owned());
    let pending = held(&review(&[("security", 1)], 600), &Case::new());
    assert_eq!(pending.released(&granted).unwrap_err(), Denial::NotApproved);
}

#[test]
fn the_most_that_a_chain_asks_for_is_known() {
    let asking = chain(&[
        ("a", "risk > 1", ask(&[("security", 9)], 60, Wait::Hold)),
        (
            "b",
            "risk > 2",
            ask(&[("security", 3), ("legal", 8)], 30, Wait::Hold),
        ),
        ("c", "true", Effect::Allow),
    ]);
    let most = asking.most_owed().unwrap();
    assert_eq!(
        (
            most.requirement.seats().count(),
            most.requirement.expires_ms
        ),
        (17, 30_000)
    );
    assert_eq!(Chain::default().most_owed(), None);
}

#[test]
fn a_digest_tells_apart_whatever_decides_differently_and_nothing_else() {
    let base = || {
        vec![
            (
                "mask",
                "true",
                mask(
                    &[("US_SSN", Operator::Replace)],
                    &[("CREDIT_CARD", Operator::Redact)],
                    &["fraud"],
                ),
            ),
            (
                "review",
                "risk > 5",
                ask(&[("security", 1)], 60, Wait::Hold),
            ),
            ("no", "request.tools", deny("no")),
            ("allow", "request.stream", Effect::Allow),
        ]
    };
    let digest = chain(&base()).digest();
    assert_eq!(digest, chain(&base()).digest(), "the same again");
    assert_eq!(digest, chain(&base()).clone().digest());
    assert_ne!(Chain::default().digest(), [0; 32]);
    assert_eq!(Chain::default().digest(), Chain::new(Vec::new()).digest());

    let mut seen = BTreeSet::from([digest]);
    let mut differs = |policies: Vec<(&str, &str, Effect)>| {
        assert!(seen.insert(chain(&policies).digest()), "{policies:?}");
    };
    for at in 0..4 {
        let mut renamed = base();
        renamed[at].0 = "other";
        differs(renamed);
        let mut asked = base();
        asked[at].1 = "request.stream && request.tools";
        differs(asked);
        let mut shorter = base();
        shorter.remove(at);
        differs(shorter);
        let mut turned = base();
        turned.rotate_left(at);
        if at > 0 {
            differs(turned);
        }
    }
    // The same meaning by other words is other words.
    let mut respelled = base();
    respelled[1].1 = "risk  > 5";
    differs(respelled);
    let effect = |at: usize, effect: Effect| {
        let mut policies = base();
        policies[at].2 = effect;
        policies
    };
    let restore = |tool_arguments, links| {
        mask(
            &[(
                "US_SSN",
                Operator::Vault(crate::mask::Restore {
                    tool_arguments,
                    links,
                }),
            )],
            &[],
            &[],
        )
    };
    let card = ("CREDIT_CARD", Operator::Redact);
    for changed in [
        mask(&[("US_SSN", Operator::Redact)], &[card], &["fraud"]),
        mask(&[("US_SSN", Operator::KeepLast(4))], &[card], &["fraud"]),
        mask(&[("US_SSN", Operator::KeepLast(3))], &[card], &["fraud"]),
        mask(&[("EMAIL_ADDRESS", Operator::Replace)], &[card], &["fraud"]),
        mask(&[card], &[("US_SSN", Operator::Replace)], &["fraud"]),
        mask(&[("US_SSN", Operator::Replace), card], &[], &["fraud"]),
        mask(&[("US_SSN", Operator::Replace)], &[card], &[]),
        mask(&[("US_SSN", Operator::Replace)], &[card], &["fraud", "x"]),
        restore(false, false),
        restore(true, false),
        restore(false, true),
        restore(true, true),
        Effect::Allow,
        deny(""),
    ] {
        differs(effect(0, changed));
    }
    differs(effect(2, deny("not")));
    let with = |change: &dyn Fn(&mut ApprovalRule)| {
        let mut rule = rule(&[("security", 1)], 60, Wait::Hold);
        change(&mut rule);
        effect(1, Effect::RequireApproval(rule))
    };
    differs(with(&|rule| rule.wait = Wait::Defer));
    differs(with(&|rule| rule.wait = Wait::Caller));
    differs(with(&|rule| rule.mutable = false));
    differs(with(&|rule| rule.max_hold += Duration::from_nanos(1)));
    differs(with(&|rule| rule.requirement.expires_ms += 1));
    differs(with(&|rule| {
        rule.requirement.reasons.push("more".to_owned())
    }));
    differs(with(&|rule| rule.requirement.reasons.clear()));
    differs(with(&|rule| rule.requirement.break_glass.clear()));
    differs(with(&|rule| rule.requirement.slots[0].distinct = 2));
    differs(with(&|rule| {
        rule.requirement.slots[0].group = "legal".to_owned()
    }));
    // The same letters, cut elsewhere.
    differs(with(&|rule| {
        rule.requirement.reasons = vec!["ab".to_owned(), "c".to_owned()]
    }));
    differs(with(&|rule| {
        rule.requirement.reasons = vec!["a".to_owned(), "bc".to_owned()]
    }));
    differs(with(&|rule| {
        rule.requirement.reasons = vec!["ab".to_owned()];
        rule.requirement.break_glass = BTreeSet::from(["c".to_owned()]);
    }));
}
