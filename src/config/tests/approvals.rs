//! Approvals, the score, the time, and who is told.

use std::collections::BTreeSet;

use super::*;
use crate::{
    approval::{Freshness, Slot, Wait},
    policy::Effect,
};

/// A chain that asks, and where approvals are kept. `%` is what the policy asks for beside its approvers.
const ASKING: &str = "  - name: review\n    when: risk > 5\n    then: { require_approval: { approvers: [{ group: security }]% } }\napprovals: {}\ndetectors:\n";

fn asking(more: &str) -> String {
    with("[mask, allow]", "[mask, review, allow]").replace(
        "detectors:\n  - {",
        &format!("{ASKING}  - {{").replace('%', more),
    )
}

fn changed(from: &str, to: &str) -> String {
    let text = asking("");
    assert_eq!(text.matches(from).count(), 1, "`{from}`");
    text.replace(from, to)
}

fn rule(text: &str) -> crate::policy::ApprovalRule {
    let config = parse(text).unwrap_or_else(|faults| panic!("{faults}"));
    let policies = config.connections[0].chain.policies();
    let found = policies.iter().find_map(|policy| match &policy.then {
        Effect::RequireApproval(rule) => Some(rule.clone()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn what_is_not_said_of_an_approval_is_the_careful_thing() {
    let rule = rule(&asking(""));
    let slot = Slot {
        group: "security".to_owned(),
        distinct: 1,
    };
    assert_eq!(rule.requirement.slots, [slot]);
    assert_eq!(rule.requirement.reasons, ["review"]);
    assert_eq!(rule.requirement.break_glass, BTreeSet::new());
    assert_eq!(rule.requirement.expires_ms, 600_000);
    assert_eq!(
        (rule.wait, rule.max_hold, rule.mutable),
        (Wait::Hold, Duration::from_secs(45), false)
    );

    let config = parse_as(&asking(""), "/etc/countersign/config.yaml").unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(
        config.approvals,
        Some(Approvals {
            dir: "/etc/countersign/ledger/control".into(),
            max_holds: 2000,
            max_holds_per_principal: 50,
            max_pending_per_principal: 100,
            freshness: Freshness {
                within: Duration::from_secs(900),
                or_issued: false,
            },
            public_url: None,
            kafka: None,
            webhooks: Vec::new(),
        })
    );
    assert_eq!(config.alerts, None);
    assert_eq!(config.access, Access::default());
    assert_eq!(config.issuers[0].rules.api_audience, None);
    assert_eq!(config.risk, Risk::default());
    assert_eq!(config.time_zone, jiff::tz::TimeZone::UTC);
}

#[test]
fn what_is_said_is_what_is_meant() {
    let config = parse_as(&example("full.yaml"), "/etc/full.yaml")
        .unwrap_or_else(|faults| panic!("{faults}"));
    let chain = &config.connections[1].chain;
    let most = chain.most_owed().unwrap();
    assert_eq!(
        most.requirement.seats().collect::<Vec<_>>(),
        ["security", "legal", "legal"]
    );
    assert_eq!(most.requirement.expires_ms, 600_000);
    assert_eq!(
        (most.wait, most.max_hold, most.mutable),
        (Wait::Caller, Duration::from_secs(20), false)
    );
    assert_eq!(
        most.requirement.reasons,
        [
            "a risky request: look at what was found in it",
            "review-at-night"
        ]
    );

    let names = [
        config.issuers[0].rules.person_claim.as_deref(),
        config.issuers[0].rules.owner_claim.as_deref(),
    ];
    assert_eq!(names, [Some("employee_number"), Some("/service/owner")]);
    assert_eq!(config.risk.entities.len(), 2);
    assert_eq!(
        (
            config.risk.models[1].1,
            config.risk.per_kib,
            config.risk.tools
        ),
        (10, 1, 15)
    );
    assert_eq!(config.time_zone.iana_name(), Some("Europe/Berlin"));

    let approvals = config.approvals.unwrap();
    assert_eq!(
        approvals.dir,
        PathBuf::from("/var/lib/countersign/approvals")
    );
    assert_eq!(
        (
            approvals.max_holds,
            approvals.max_holds_per_principal,
            approvals.max_pending_per_principal
        ),
        (1000, 20, 40)
    );
    assert!(approvals.freshness.or_issued);
    assert_eq!(
        approvals.public_url.unwrap().as_str(),
        "https://gateway.example/approvals"
    );
    let kafka = approvals.kafka.unwrap();
    assert_eq!((kafka.root.name(), kafka.dev), ("countersign-root", true));
    assert_eq!(kafka.key, PathBuf::from("/etc/control.key"));
    let formats: Vec<_> = approvals
        .webhooks
        .into_iter()
        .map(|hook| hook.format)
        .collect();
    assert_eq!(
        formats,
        [
            WebhookFormat::Slack,
            WebhookFormat::Standard(SecretSource::Env("DESK_SECRET".to_owned()))
        ]
    );
    let alerts = config.alerts.unwrap();
    assert_eq!(alerts.topic.as_deref(), Some("eu.countersign.alerts"));
    let masked = MaskedAlert {
        count: 200,
        window: Duration::from_secs(600),
    };
    assert_eq!(alerts.masked_per_principal, Some(masked));
    assert!(config.access.approver.contains("legal"));
    let api = config.issuers[0].rules.api_audience.as_deref();
    assert_eq!(api, Some("countersign-api"));
}

#[test]
fn what_is_wrong_with_what_a_policy_asks_for() {
    let at = "28: policies[2].then.require_approval";
    for (more, expected) in [
        (
            ", expires: 999ms",
            format!("{at}.expires: must be between 1s and 24h"),
        ),
        (
            ", expires: 25h",
            format!("{at}.expires: must be between 1s and 24h"),
        ),
        (
            ", expires: 18446744073709551615d",
            format!("{at}.expires: must be between 1s and 24h"),
        ),
        (
            ", expires: 10",
            format!(
                "{at}.expires: not a duration; write a whole number with ms, s, m, h or d, as in `30s`"
            ),
        ),
        (
            ", max_hold: 11m",
            format!("{at}.max_hold: must be between 1s and 10m"),
        ),
        (
            ", max_hold: 0s",
            format!("{at}.max_hold: must be between 1s and 10m"),
        ),
        (
            ", wait: holds",
            format!("{at}.wait: must be `hold`, `defer`, `caller` (did you mean `hold`?)"),
        ),
        (
            ", reasons: [\"a\\nb\"]",
            format!("{at}.reasons[0]: a reason is one line of 1 to 200 characters"),
        ),
        (
            ", reasons: [a, \" \"]",
            format!("{at}.reasons[1]: a reason is one line of 1 to 200 characters"),
        ),
        (
            ", break_glass: [\"\"]",
            format!("{at}.break_glass[0]: a group's name has 1 to 256 bytes"),
        ),
        (
            ", approver: a",
            format!("{at}: unknown key `approver` (did you mean `approvers`?)"),
        ),
    ] {
        assert_eq!(faults_of(&asking(more)), [expected], "{more}");
    }
    for (approvers, expected) in [
        (
            "[]",
            format!("{at}.approvers: the list is empty; it needs at least one entry"),
        ),
        (
            "[{ group: a, distinct: 0 }]",
            format!("{at}.approvers[0].distinct: must be at least 1"),
        ),
        (
            "[{ group: a, distinct: 17 }]",
            format!("{at}.approvers[0].distinct: must be at most 16"),
        ),
        (
            "[{ group: \"\" }]",
            format!("{at}.approvers[0].group: a group's name has 1 to 256 bytes"),
        ),
        (
            "[{ group: a }, { group: a }]",
            format!("{at}.approvers[1].group: the group is listed already; raise its `distinct`"),
        ),
    ] {
        let text = changed("[{ group: security }]", approvers);
        assert_eq!(faults_of(&text), [expected], "{approvers}");
    }
}

#[test]
fn a_chain_asks_for_no_more_than_people_can_give_and_says_where_it_is_kept() {
    let unkept = changed("approvals: {}\n", "");
    assert_eq!(
        faults_of(&unkept),
        [
            "18: connections[0].policies: a policy of this chain asks for an approval: say where they are kept under `approvals`"
        ]
    );
    // What no connection uses asks for nothing.
    let idle = unkept.replace("[mask, review, allow]", "[mask, allow]");
    assert!(parse(&idle).is_ok());
    let none = with("audit: {", "approvals: {}\naudit: {");
    let warned = parse(&none).unwrap().warnings;
    assert_eq!(
        lines(&warned),
        ["29: approvals: no connection's policies ask for an approval, and no grants are made"]
    );

    let many = changed("[{ group: security }]", "[{ group: a, distinct: 16 }]");
    assert!(parse(&many).is_ok());
    let second = "  - { name: second, when: risk > 1, then: { require_approval: { approvers: [{ group: b }] } } }\napprovals: {}\n";
    let many = many
        .replace("approvals: {}\n", second)
        .replace("[mask, review, allow]", "[mask, review, second, allow]");
    assert_eq!(
        faults_of(&many),
        [
            "18: connections[0].policies: the policies of this chain ask for the approval of 17 persons together; at most 16"
        ]
    );
    // The same group's seats are the same seats.
    assert!(parse(&many.replace("group: b", "group: a")).is_ok());
}

#[test]
fn what_is_wrong_with_where_approvals_are_kept_and_who_is_told() {
    let kafka = |more: &str| {
        changed("approvals: {}\n", &format!("approvals: {{ {more} }}\n"))
            .replace("dir: ledger", "dir: ledger, kafka: { brokers: [a:1] }")
    };
    let root = "r+00000000+AYRwoVeX5ElDjotA2KF4iUUVbpK1dgyE7Vl5DGBELmsP";
    let at = "29: approvals";
    for (more, expected) in [
        (
            "max_holds: 0",
            vec![format!("{at}.max_holds: must be at least 1")],
        ),
        (
            "max_holds: 10, max_holds_per_principal: 11",
            vec![format!(
                "{at}.max_holds_per_principal: must be at most `max_holds`, which is 10"
            )],
        ),
        (
            "max_pending_per_principal: 25001",
            vec![format!(
                "{at}.max_pending_per_principal: must be at most 25000"
            )],
        ),
        (
            "fresh: 0s",
            vec![format!("{at}.fresh: must be between 1s and 24h")],
        ),
        (
            "public_url: http://gateway.example",
            vec![format!(
                "{at}.public_url: must be an https URL; http is accepted on loopback only"
            )],
        ),
        (
            "public_url: https://gateway.example?a=b",
            vec![format!(
                "{at}.public_url: must not carry a query or fragment"
            )],
        ),
        (
            "public_url: gateway",
            vec![format!(
                "{at}.public_url: not a URL; write it as in `https://idp.example`"
            )],
        ),
        (
            &format!(
                "kafka: {{ root: {root}, key: k, certificate: c, topic: countersign.audit.v1 }}"
            ),
            vec![format!(
                "{at}.kafka.root: not a verifier key; write the line `NAME+HASH+KEY` that belongs to the root's key"
            )],
        ),
        (
            "kafka: { root: countersign-root+3e996622+AYRwoVeX5ElDjotA2KF4iUUVbpK1dgyE7Vl5DGBELmsP, key: k, certificate: c, topic: countersign.audit.v1 }",
            vec![format!(
                "{at}.kafka.topic: the topic is already `audit.kafka.topic`"
            )],
        ),
        (
            "kafka: { key: k, certificate: c }",
            vec![format!("{at}.kafka: `root` is missing")],
        ),
        (
            "webhooks: [{ url: \"http://chat.example\", format: slack }]",
            vec![format!(
                "{at}.webhooks[0].url: must be an https URL; http is accepted on loopback only"
            )],
        ),
        (
            "webhooks: [{ url: \"https://chat.example\" }]",
            vec![format!(
                "{at}.webhooks[0]: a message that nobody can check is worth nothing: say where its `secret` is"
            )],
        ),
        (
            "webhooks: [{ url: \"https://chat.example\", format: slack, secret: { env: A } }]",
            vec![format!(
                "{at}.webhooks[0].secret: `slack` has no signature; leave `secret` out"
            )],
        ),
        (
            "webhooks: [{ url: \"https://chat.example\", secret: { env: A, file: b } }]",
            vec![format!(
                "{at}.webhooks[0].secret: name `file` or `env`, not both"
            )],
        ),
        (
            "webhooks: [{ url: \"https://u:sk-secret@chat.example\", format: slack }]",
            vec![format!(
                "{at}.webhooks[0].url: must not carry a user name or password"
            )],
        ),
        (
            "kafkas: {}",
            vec![format!(
                "{at}: unknown key `kafkas` (did you mean `kafka`?)"
            )],
        ),
    ] {
        assert_eq!(faults_of(&kafka(more)), expected, "{more}");
    }
    let alone = changed(
        "approvals: {}\n",
        "approvals: { kafka: { root: countersign-root+3e996622+AYRwoVeX5ElDjotA2KF4iUUVbpK1dgyE7Vl5DGBELmsP, key: k, certificate: c } }\nalerts: { topic: t }\n",
    );
    assert_eq!(
        faults_of(&alone),
        [
            "29: approvals.kafka: `kafka` needs brokers: say where they are under `audit.kafka`",
            "30: alerts.topic: `topic` needs brokers: say where they are under `audit.kafka`",
        ]
    );
    // Loopback is nobody else's, and a chat's address may have a query.
    for fine in [
        "public_url: \"http://127.0.0.1:8480/\", fresh_from: auth_time",
        "webhooks: [{ url: \"http://localhost:9/x?y=z\", format: slack }]",
    ] {
        assert_eq!(faults_of(&kafka(fine)), Vec::<String>::new());
    }
}

#[test]
fn alerts_and_access_and_their_slips() {
    let top = |lines: &str| with("audit: {", &format!("{lines}\naudit: {{"));
    for (lines, expected) in [
        (
            "alerts: { masked_per_principal: { count: 0 }, webhooks: [{ url: \"https://a.example\", format: slack }] }",
            "29: alerts.masked_per_principal.count: must be at least 1",
        ),
        (
            "alerts: { masked_per_principal: { count: 1, window: 0s }, webhooks: [{ url: \"https://a.example\", format: slack }] }",
            "29: alerts.masked_per_principal.window: must be between 1s and 24h",
        ),
        (
            "access: { auditors: [a] }",
            "29: access: unknown key `auditors` (did you mean `auditor`?)",
        ),
        (
            "access: { audience: gateway }",
            "29: access.audience: tokens of `https://idp.example` that call models are for `gateway` too; choose one that they are not for",
        ),
        (
            "access: { audience: \"\" }",
            "29: access.audience: the value is shorter than 1 character",
        ),
        (
            "access: { admin: [\"\"] }",
            "29: access.admin[0]: a group's name has 1 to 256 bytes",
        ),
        (
            "time_zone: Europe/Berlim",
            "29: time_zone: unknown time zone; write an IANA name such as `Europe/Berlin` (did you mean `Europe/Berlin`?)",
        ),
        (
            "time_zone: ../../etc/passwd",
            "29: time_zone: unknown time zone; write an IANA name such as `Europe/Berlin`",
        ),
        (
            "time_zone: \"\"",
            "29: time_zone: unknown time zone; write an IANA name such as `Europe/Berlin`",
        ),
        (
            "risk: { entities: { US_SNN: 1 } }",
            "29: risk.entities.US_SNN: unknown entity `US_SNN`: no detector finds it (did you mean `US_SSN`?)",
        ),
        (
            "risk: { entities: { US_SSN: 1000001 } }",
            "29: risk.entities.US_SSN: must be at most 1000000",
        ),
        (
            "risk: { entities: { US_SSN: -1 } }",
            "29: risk.entities.US_SSN: must be at least 0",
        ),
        (
            "risk: { tools: 1000001 }",
            "29: risk.tools: must be at most 1000000",
        ),
        (
            "risk: { per_kib: -1 }",
            "29: risk.per_kib: must be at least 0",
        ),
        (
            "risk: { models: [{ model: \"*\", score: 1 }, { model: a, score: 1 }] }",
            "29: risk.models[1].model: never reached: models[0] takes every model",
        ),
        (
            "risk: { models: [{ model: \"\", score: 1 }] }",
            "29: risk.models[0].model: a model's name has 1 to 200 characters on one line",
        ),
    ] {
        assert_eq!(faults_of(&top(lines)), [expected], "{lines}");
    }
    let nobody = parse(&top("alerts: {}")).unwrap();
    assert_eq!(nobody.alerts.unwrap().topic, None);
    assert_eq!(
        lines(&nobody.warnings),
        ["29: alerts: nobody is told: there is neither `audit.kafka` nor a webhook"]
    );
    for claim in ["person_claim", "owner_claim"] {
        let faults = faults_of(&with(
            "[department]",
            &format!("[department]\n      {claim}: /"),
        ));
        assert_eq!(
            faults,
            [format!(
                "11: identity.issuers[0].{claim}: name a claim, or write a JSON pointer such as `/ext/employee`"
            )]
        );
    }
}
