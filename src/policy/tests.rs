//! Chains as people write them, and what they decide.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

mod approvals;
mod expressions;
mod risk;

use super::*;
use crate::{
    detect::Entity,
    identity::{Principal, testing},
    mask::Operator,
};

fn vocabulary() -> Vocabulary {
    Vocabulary {
        entities: ["CREDIT_CARD", "US_SSN", "EMAIL_ADDRESS"]
            .map(Entity::from)
            .into(),
        claims: ["department", "clearance", "teams"]
            .map(String::from)
            .into(),
    }
}

fn compile(text: &str) -> Result<Expression, Vec<ExpressionFault>> {
    Expression::compile(text, &vocabulary())
}

/// The faults of an expression, each as `line:column message (suggestion)`.
fn faults(text: &str) -> Vec<String> {
    let spelled = |fault: ExpressionFault| {
        let suggestion = fault
            .suggestion
            .map(|meant| format!(" ({meant})"))
            .unwrap_or_default();
        format!(
            "{}:{} {}{suggestion}",
            fault.line, fault.column, fault.message
        )
    };
    compile(text)
        .err()
        .into_iter()
        .flatten()
        .map(spelled)
        .collect()
}

/// A caller, a call and its findings, with something to say about each.
#[derive(Clone)]
struct Case {
    principal: Principal,
    call: Call,
    findings: BTreeMap<Entity, u64>,
    risk: i64,
    time: Option<LocalTime>,
}

impl Case {
    fn new() -> Self {
        let call = Call {
            method: "POST".to_owned(),
            authority: "gateway.example".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            endpoint: "chat_completions".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            stream: true,
            tools: false,
            body_bytes: 120,
            upgrade: false,
        };
        Self {
            principal: testing::principal(),
            call,
            findings: BTreeMap::new(),
            risk: 0,
            time: Some(LocalTime::default()),
        }
    }

    fn in_groups(mut self, groups: &[&str]) -> Self {
        self.principal.groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self
    }

    fn claiming(mut self, name: &str, value: Json) -> Self {
        self.principal.claims.insert(name.to_owned(), value);
        self
    }

    fn with(mut self, entity: &str, count: u64) -> Self {
        self.findings.insert(entity.into(), count);
        self
    }

    fn request(&self) -> Request<'_> {
        Request {
            principal: &self.principal,
            call: &self.call,
            findings: &self.findings,
            connection: "openai",
            dialect: "openai",
            risk: self.risk,
            time: self.time,
        }
    }

    /// What a lone `allow` under this condition decides: true, false, or the fault.
    fn holds(&self, when: &str) -> Result<bool, String> {
        let chain = chain(&[("only", when, Effect::Allow)]);
        let verdict = chain.evaluate(&self.request());
        match verdict.outcome {
            Outcome::Allow(_) => Ok(true),
            Outcome::Hold(_) => Err("held".to_owned()),
            Outcome::Deny(Denial::ByDefault) => Ok(false),
            Outcome::Deny(_) => Err(verdict.faults.join("; ")),
        }
    }
}

fn chain(policies: &[(&str, &str, Effect)]) -> Chain {
    let policy = |(name, when, then): &(&str, &str, Effect)| {
        let when = compile(when).unwrap_or_else(|faults| panic!("`{when}`: {faults:?}"));
        Arc::new(Policy {
            name: (*name).to_owned(),
            when,
            then: then.clone(),
        })
    };
    Chain::new(policies.iter().map(policy).collect())
}

fn mask(request: &[(&str, Operator)], response: &[(&str, Operator)], exempt: &[&str]) -> Effect {
    let side = |side: &[(&str, Operator)]| {
        side.iter()
            .map(|(entity, operator)| (Entity::from(*entity), *operator))
            .collect::<BTreeMap<_, _>>()
            .into()
    };
    Effect::Mask(Masking {
        request: side(request),
        response: side(response),
        exempt_groups: exempt
            .iter()
            .map(|group| (*group).to_owned())
            .collect::<BTreeSet<_>>(),
    })
}

fn deny(reason: &str) -> Effect {
    Effect::Deny(reason.to_owned())
}

/// One line that says everything a verdict says.
fn told(verdict: &Verdict) -> String {
    let outcome = match &verdict.outcome {
        Outcome::Allow(permit) => {
            let side = |side: &BTreeMap<Entity, Operator>| {
                side.iter()
                    .map(|(entity, operator)| format!("{entity}={operator:?}"))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let Obligations {
                mask_request,
                mask_response,
            } = permit.obligations();
            format!(
                "allow request[{}] response[{}]",
                side(mask_request),
                side(mask_response)
            )
        }
        Outcome::Hold(pending) => {
            let requirement = pending.requirement();
            let seats: Vec<_> = requirement.seats().collect();
            let Obligations { mask_request, .. } = pending.obligations();
            let masked: Vec<_> = mask_request.keys().map(|entity| &**entity).collect();
            format!(
                "hold for {} in {} ms, {:?} {:?}{}, request[{}]",
                seats.join("+"),
                requirement.expires_ms,
                pending.wait(),
                pending.max_hold(),
                if pending.allows_mutable() {
                    " mutable"
                } else {
                    ""
                },
                masked.join(",")
            )
        }
        Outcome::Deny(Denial::NotApproved) => "deny: not approved".to_owned(),
        Outcome::Deny(Denial::Unseen) => "deny: unseen".to_owned(),
        Outcome::Deny(Denial::ByPolicy(reason)) => format!("deny: {reason}"),
        Outcome::Deny(Denial::ByDefault) => "deny by default".to_owned(),
        Outcome::Deny(Denial::CannotEvaluate) => "deny: cannot evaluate".to_owned(),
    };
    let mut told = format!("{outcome} | by {}", verdict.decided_by.join(","));
    if !verdict.exempt_from.is_empty() {
        told += &format!(" | exempt from {}", verdict.exempt_from.join(","));
    }
    if !verdict.faults.is_empty() {
        told += &format!(" | {}", verdict.faults.join("; "));
    }
    told
}

#[test]
fn an_upgrade_is_allowed_in_words_of_its_own_and_owes_nothing() {
    let allow = ("allow", "true", Effect::Allow);
    let upgrade = ("upgrade", "request.endpoint != 'x'", Effect::AllowUpgrade);
    let masking = mask(&[("US_SSN", Operator::Replace)], &[], &["staff"]);
    let masks = ("mask", "true", masking);
    let call = Case::new();
    let mut upgrades = call.clone();
    upgrades.call.upgrade = true;
    let staff = upgrades.clone().in_groups(&["staff"]);
    let say = |case: &Case, policies: &[(&str, &str, Effect)]| {
        told(&chain(policies).evaluate(&case.request()))
    };
    let (allow, upgrade, masks) = (&allow, &upgrade, &masks);
    for (case, policies, expected) in [
        (&upgrades, vec![allow.clone()], "deny by default | by "),
        (&call, vec![upgrade.clone()], "deny by default | by "),
        (
            &upgrades,
            vec![allow.clone(), upgrade.clone()],
            "allow request[] response[] | by upgrade",
        ),
        (
            &call,
            vec![upgrade.clone(), allow.clone()],
            "allow request[] response[] | by allow",
        ),
        (
            &upgrades,
            vec![masks.clone(), upgrade.clone()],
            "deny: unseen | by mask,upgrade",
        ),
        (
            &upgrades,
            vec![upgrade.clone(), masks.clone()],
            "allow request[] response[] | by upgrade",
        ),
        (
            &staff,
            vec![masks.clone(), upgrade.clone()],
            "allow request[] response[] | by upgrade | exempt from mask",
        ),
        (
            &upgrades,
            vec![("deny", "true", deny("no")), upgrade.clone()],
            "deny: no | by deny",
        ),
    ] {
        assert_eq!(say(case, &policies), expected);
    }
}

#[test]
fn the_chain_of_the_readme() {
    let chain = chain(&[
        (
            "block-interns",
            r#""interns" in principal.groups"#,
            deny("interns may not use this model"),
        ),
        (
            "mask-personal",
            "true",
            mask(
                &[("CREDIT_CARD", Operator::Replace)],
                &[("US_SSN", Operator::KeepLast(4))],
                &["fraud"],
            ),
        ),
        (
            "allow-finance",
            r#""finance" in principal.groups && request.model in ["gpt-4o-mini"]"#,
            Effect::Allow,
        ),
    ]);
    let mut other_model = Case::new().in_groups(&["finance"]);
    other_model.call.model = "gpt-4o".to_owned();
    let cases = [
        (Case::new(), "deny by default | by mask-personal"),
        (
            Case::new().in_groups(&["interns", "finance"]),
            "deny: interns may not use this model | by block-interns",
        ),
        (
            Case::new().in_groups(&["finance"]),
            "allow request[CREDIT_CARD=Replace] response[US_SSN=KeepLast(4)] | by mask-personal,allow-finance",
        ),
        (
            Case::new().in_groups(&["fraud", "finance"]),
            "allow request[] response[] | by allow-finance | exempt from mask-personal",
        ),
        (other_model, "deny by default | by mask-personal"),
    ];
    for (case, expected) in cases {
        assert_eq!(told(&chain.evaluate(&case.request())), expected);
    }
}

#[test]
fn no_policy_no_permit() {
    assert_eq!(
        told(&Chain::default().evaluate(&Case::new().request())),
        "deny by default | by "
    );
    assert!(!Chain::default().can_allow());
}

#[test]
fn what_stands_behind_the_deciding_policy_has_no_say() {
    let chain = chain(&[
        ("allow", "true", Effect::Allow),
        ("deny", "true", deny("too late")),
        (
            "mask",
            "true",
            mask(&[("US_SSN", Operator::Redact)], &[], &[]),
        ),
    ]);
    assert_eq!(
        told(&chain.evaluate(&Case::new().request())),
        "allow request[] response[] | by allow"
    );
}

#[test]
fn the_first_mask_of_an_entity_chooses_its_operator_and_the_second_adds_the_rest() {
    let chain = chain(&[
        (
            "first",
            "true",
            mask(&[("US_SSN", Operator::Redact)], &[], &[]),
        ),
        (
            "second",
            "true",
            mask(
                &[
                    ("US_SSN", Operator::Replace),
                    ("CREDIT_CARD", Operator::Replace),
                ],
                &[("US_SSN", Operator::Replace)],
                &[],
            ),
        ),
        ("allow", "true", Effect::Allow),
    ]);
    assert_eq!(
        told(&chain.evaluate(&Case::new().request())),
        "allow request[CREDIT_CARD=Replace,US_SSN=Redact] response[US_SSN=Replace] | by first,second,allow"
    );
}

#[test]
fn an_exemption_from_one_mask_is_none_from_another_of_the_same_entity() {
    let chain = chain(&[
        (
            "lenient",
            "true",
            mask(&[("US_SSN", Operator::Redact)], &[], &["fraud"]),
        ),
        (
            "strict",
            "true",
            mask(&[("US_SSN", Operator::Replace)], &[], &[]),
        ),
        ("allow", "true", Effect::Allow),
    ]);
    assert_eq!(
        told(&chain.evaluate(&Case::new().in_groups(&["fraud"]).request())),
        "allow request[US_SSN=Replace] response[] | by strict,allow | exempt from lenient"
    );
}

#[test]
fn a_condition_that_cannot_be_evaluated_denies_although_a_later_policy_would_allow() {
    let chain = chain(&[
        (
            "cleared",
            "principal.claims.clearance > 2",
            deny("too much clearance"),
        ),
        ("allow", "true", Effect::Allow),
    ]);
    for (case, expected) in [
        (
            Case::new().claiming("clearance", json!(1)),
            "allow request[] response[] | by allow",
        ),
        (
            Case::new().claiming("clearance", json!(3)),
            "deny: too much clearance | by cleared",
        ),
        (
            Case::new(),
            "deny: cannot evaluate | by cleared | policy `cleared`: no `clearance` in the request; guard it with has(…)",
        ),
        (
            Case::new().claiming("clearance", json!("top")),
            "deny: cannot evaluate | by cleared | policy `cleared`: `>` cannot be applied to string and int",
        ),
    ] {
        assert_eq!(told(&chain.evaluate(&case.request())), expected);
    }
}

#[test]
fn a_fault_never_carries_what_the_caller_sent() {
    let secret = "hunter2-secret";
    let case = Case::new()
        .claiming("department", json!(secret))
        .claiming("teams", json!({ secret: secret }));
    for when in [
        "principal.claims.department > 2",
        "principal.claims.department + 2 == 3",
        "principal.claims.teams[principal.claims.department].x == 1",
        "principal.claims.teams[\"a\"] == 1",
        "principal.claims[principal.claims.department] == 1",
        "int(principal.claims.department) == 1",
        "double(principal.claims.department) == 1.0",
        "principal.claims.department.exists(x, x == 1)",
        "principal.claims.department && true",
        "principal.claims.department ? true : false",
        "1 in principal.claims.department",
        "size(principal.claims.department) > 0 && principal.claims.department[0] == 1",
        "-principal.claims.department == 1",
    ] {
        let fault = case.holds(when).expect_err(when);
        assert!(!fault.contains(secret), "`{when}`: {fault}");
    }
}

#[test]
fn where_a_chain_ends_and_whether_it_can_allow() {
    let mask_all = || mask(&[("US_SSN", Operator::Replace)], &[], &[]);
    for (policies, ends_at, can_allow) in [
        (
            vec![
                ("a", "true", mask_all()),
                ("b", "request.stream", Effect::Allow),
            ],
            None,
            true,
        ),
        (
            vec![("a", "true", mask_all()), ("b", "true", Effect::Allow)],
            Some(1),
            true,
        ),
        (
            vec![("a", "true", deny("no")), ("b", "true", Effect::Allow)],
            Some(0),
            false,
        ),
        (vec![("a", "false", Effect::Allow)], None, false),
        (vec![("a", "true", mask_all())], None, false),
        (
            vec![
                ("a", "request.stream", deny("no")),
                ("b", "request.tools", Effect::Allow),
            ],
            None,
            true,
        ),
    ] {
        let chain = chain(&policies);
        assert_eq!(
            (chain.ends_at(), chain.can_allow()),
            (ends_at, can_allow),
            "{policies:?}"
        );
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
        "(a|sales|US_SSN)".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

/// Chains of one condition each that try every operator and function on a value of any type.
fn probing() -> Vec<Chain> {
    let d = "principal.claims.department";
    let c = "principal.claims.clearance";
    let conditions = [
        format!("{d} == {c}"),
        format!("{d} < {c}"),
        format!("{d} + {c} == {c}"),
        format!("{d} - {c} == 1"),
        format!("{d} * {c} == 1"),
        format!("{d} / {c} == 1"),
        format!("{d} % {c} == 1"),
        format!("-{d} == 1"),
        format!("{d} in {c}"),
        format!("{d}[{c}] == 1"),
        format!("{d}[0] == 1"),
        format!("{d}.a == 1 || has({d}.a.b)"),
        format!("{d} && {c}"),
        format!("{d} ? true : {c} == 1"),
        format!("size({d}) > 1"),
        format!("{d}.contains({c}) || {d}.startsWith({c}) || {d}.endsWith({c})"),
        format!("{d}.matches(\"^[a-z]+$\")"),
        format!("int({d}) == 1"),
        format!("double({d}) == 1.0"),
        format!("string({d}) == \"1\""),
        format!("{d}.exists(x, x == {c})"),
        format!("{d}.map(x, x + 1) == []"),
        format!("{d}.filter(x, x > {c}) == []"),
        format!("{d}.exists_one(x, x == {c})"),
        format!("findings.exists(e, findings[e] > {c})"),
        format!("request.model == {d} && principal.groups == {c}"),
    ];
    let chain = |condition: &String| chain(&[("probe", condition, deny("found"))]);
    conditions.iter().map(chain).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a token claims, evaluation ends in a verdict: no panic, and no permit from an error.
    #[test]
    fn any_claims_end_in_a_verdict(department in any_json(), clearance in any_json(), count in any::<u64>()) {
        static PROBING: LazyLock<Vec<Chain>> = LazyLock::new(probing);
        let case = Case::new().claiming("department", department).claiming("clearance", clearance).with("US_SSN", count);
        for chain in PROBING.iter() {
            let verdict = chain.evaluate(&case.request());
            prop_assert!(matches!(verdict.outcome, Outcome::Deny(_)));
            let failed = matches!(verdict.outcome, Outcome::Deny(Denial::CannotEvaluate));
            prop_assert_eq!(failed, !verdict.faults.is_empty());
        }
    }

    /// Whatever stands in a file, compiling it ends in an expression or in faults.
    #[test]
    fn any_text_compiles_or_is_at_fault(text in r#"([a-z.()\[\]{}"'!&|<>=+*/%?:, 0-9\\\n]|principal|request|findings|\.groups|\.model|has|\.exists\(x, |true|in |\PC){0,24}"#) {
        if let Err(faults) = compile(&text) {
            prop_assert!(!faults.is_empty());
            prop_assert!(faults.iter().all(|fault| fault.line >= 1 && fault.column >= 1));
        }
    }
}
