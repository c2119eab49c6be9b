//! Chains as people write them, and what they decide.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

mod approvals;
mod risk;

use super::*;
use crate::identity::{Principal, testing};

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
            .collect()
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
fn what_expressions_mean() {
    let case = Case::new()
        .in_groups(&["finance", "ai-users"])
        .claiming("department", json!("sales"))
        .claiming("clearance", json!(2))
        .claiming("teams", json!(["red", "blue"]))
        .with("US_SSN", 2);
    for (when, expected) in [
        (
            r#"principal.issuer == "https://idp.example" && principal.subject == "alice""#,
            true,
        ),
        (r#"principal.groups.exists(g, g.startsWith("ai-"))"#, true),
        (r#"principal.groups.all(g, g.startsWith("ai-"))"#, false),
        (
            r#"principal.groups.filter(g, g != "finance") == ["ai-users"]"#,
            true,
        ),
        (r#"principal.groups.map(g, size(g)) == [7, 8]"#, true),
        (r#"principal.groups.exists_one(g, g == "finance")"#, true),
        (r#"principal["groups"] == ["finance", "ai-users"]"#, true),
        (
            r#"principal.claims.department in ["sales", "support"]"#,
            true,
        ),
        (r#"principal.claims["department"] == "sales""#, true),
        ("principal.claims.clearance >= 2", true),
        ("principal.claims.clearance == 2.0", true),
        ("principal.claims.clearance < 2.5", true),
        (r#""red" in principal.claims.teams"#, true),
        (
            r#"has(principal.claims.department) && "clearance" in principal.claims"#,
            true,
        ),
        (
            r#"request.method == "POST" && request.endpoint == "chat_completions""#,
            true,
        ),
        (
            r#"request.path.endsWith("/completions") && request.authority.contains("gateway")"#,
            true,
        ),
        (
            "request.stream && !request.tools && request.body_bytes < 1000",
            true,
        ),
        (r#"request.model.matches("^gpt-4o(-mini)?$")"#, true),
        (r#"matches(request.model, "^o[0-9]")"#, false),
        (r#"principal.groups.exists(g, g.matches("^fin"))"#, true),
        (
            r#"connection.name == "openai" && connection.dialect == "openai""#,
            true,
        ),
        (
            "string(request.body_bytes) == \"120\" && request.body_bytes % 2 == 0",
            true,
        ),
        (
            "request.body_bytes > 100 ? request.stream : request.tools",
            true,
        ),
    ] {
        assert_eq!(case.holds(when), Ok(expected), "{when}");
    }
}

#[test]
fn what_was_not_found_counts_zero_and_is_not_in_findings() {
    let case = Case::new().with("US_SSN", 2).with("CREDIT_CARD", 0);
    for (when, expected) in [
        ("findings.US_SSN == 2", true),
        (r#"findings["US_SSN"] == 2"#, true),
        ("findings.EMAIL_ADDRESS == 0", true),
        (r#"findings["EMAIL_ADDRESS"] == 0"#, true),
        (r#""US_SSN" in findings"#, true),
        (r#""EMAIL_ADDRESS" in findings"#, false),
        (r#""CREDIT_CARD" in findings"#, false),
        ("has(findings.US_SSN)", true),
        ("has(findings.EMAIL_ADDRESS)", false),
        ("size(findings) == 1", true),
        ("findings.exists(entity, findings[entity] > 1)", true),
        (r#"findings.all(entity, entity.startsWith("US_"))"#, true),
        (
            "findings.US_SSN + findings.EMAIL_ADDRESS + findings.CREDIT_CARD > 1",
            true,
        ),
    ] {
        assert_eq!(case.holds(when), Ok(expected), "{when}");
    }
}

#[test]
fn the_time_is_what_the_request_was_given() {
    let mut case = Case::new();
    case.risk = 40;
    case.time = Some(LocalTime {
        hour: 22,
        minute: 5,
        weekday: 7,
    });
    for (when, expected) in [
        (
            "time.weekday == 7 && time.hour == 22 && time.minute == 5",
            true,
        ),
        ("time.hour < 8 || time.hour >= 18 || time.weekday > 5", true),
        ("time[\"hour\"] * 60 + time.minute == 1325", true),
        ("\"hour\" in time && has(time.weekday)", true),
        ("risk >= 40 && risk < 41", true),
        ("risk > 40", false),
        ("findings.US_SSN > 0 ? risk > 10 : risk > 50", false),
    ] {
        assert_eq!(case.holds(when), Ok(expected), "{when}");
    }
    // Not knowing the time is no reason to let something pass, in whichever way it is asked for.
    case.time = None;
    for when in [
        "time.hour < 8",
        "!(time.hour < 8)",
        "time.weekday in [6, 7]",
    ] {
        assert!(case.holds(when).is_err(), "{when}");
    }
    assert_eq!(case.holds("risk == 40"), Ok(true));
}

#[test]
fn a_date_is_cut_to_what_conditions_may_know() {
    for (date, hour, minute, weekday) in [
        ((2026, 3, 1, 23, 59), 23, 59, 7),
        ((2026, 3, 2, 0, 0), 0, 0, 1),
        ((2024, 2, 29, 12, 30), 12, 30, 4),
    ] {
        let (year, month, day, h, m) = date;
        let at = jiff::civil::date(year, month, day).at(h, m, 59, 0);
        let expected = LocalTime {
            hour,
            minute,
            weekday,
        };
        assert_eq!(LocalTime::from(at), expected);
    }
}

#[test]
fn faults_of_expressions() {
    for (when, expected) in [
        (
            "time.hours > 3",
            vec!["1:5 `time` has no field `hours` (hour)"],
        ),
        (
            "time > 3",
            vec!["1:6 `>` cannot be applied to a map and a int"],
        ),
        (
            "risk",
            vec!["1:1 the condition must be a bool, and this is a int"],
        ),
        ("risk.score > 3", vec!["1:5 a int has no field `score`"]),
        ("rsk > 3", vec!["1:1 unknown variable `rsk` (risk)"]),
        (
            "time.hour == \"8\"",
            vec!["1:11 a int is never equal to a string"],
        ),
        (
            "principal.groups.exists(time, true)",
            vec!["1:24 the loop variable `time` hides the variable of that name"],
        ),
        ("", vec!["1:1 the expression is empty"]),
        (
            "request.model ==",
            vec!["1:17 not a valid CEL expression: unexpected the end"],
        ),
        (
            "principle.groups == []",
            vec!["1:1 unknown variable `principle` (principal)"],
        ),
        (
            r#""a" in principal.grops"#,
            vec!["1:17 `principal` has no field `grops` (groups)"],
        ),
        (
            r#"request["modle"] == "a""#,
            vec!["1:8 `request` has no field `modle` (model)"],
        ),
        (
            r#""modle" in request"#,
            vec!["1:9 `request` has no field `modle` (model)"],
        ),
        (
            "request[request.model] == \"a\"",
            vec!["1:8 name the field of `request` by a literal"],
        ),
        (
            "findings.US_SNN > 0",
            vec!["1:9 unknown entity `US_SNN`: no detector finds it (US_SSN)"],
        ),
        (
            r#"findings["US_SSM"] > 0"#,
            vec!["1:9 unknown entity `US_SSM`: no detector finds it (US_SSN)"],
        ),
        (
            r#""US_SNN" in findings"#,
            vec!["1:10 unknown entity `US_SNN`: no detector finds it (US_SSN)"],
        ),
        (
            "has(findings.US_SNN)",
            vec!["1:4 unknown entity `US_SNN`: no detector finds it (US_SSN)"],
        ),
        (
            "findings[request.model] > 0",
            vec![
                "1:9 `findings[…]` takes an entity in quotes or the variable of a loop over `findings`",
            ],
        ),
        (
            "principal.claims.departmnt == \"a\"",
            vec!["1:17 claim `departmnt` is not listed under `claims` of any issuer (department)"],
        ),
        (
            "request.model == 3",
            vec!["1:15 a string is never equal to a int"],
        ),
        (
            "3 in principal.groups",
            vec!["1:3 a int is never in a list of string"],
        ),
        (
            "request.body_bytes < \"a\"",
            vec!["1:20 `<` cannot be applied to a int and a string"],
        ),
        (
            "request.model && true",
            vec!["1:15 `&&` takes bools, and one side is a string"],
        ),
        (
            "!request.model",
            vec!["1:1 `!` takes bools, and one side is a string"],
        ),
        (
            "request.model",
            vec!["1:8 the condition must be a bool, and this is a string"],
        ),
        (
            "principal.claims.department",
            vec![
                "1:17 the condition must be a bool, and this may be anything; compare it, as in `… == true`",
            ],
        ),
        (
            "request.model.startWith(\"a\")",
            vec!["1:24 unknown method `startWith` (startsWith)"],
        ),
        (
            "siz(request.model) > 1",
            vec!["1:4 unknown function `siz` (size)"],
        ),
        (
            "request.model.startsWith(1)",
            vec!["1:25 `startsWith` cannot be applied to string and int"],
        ),
        (
            "request.model.matches(request.path)",
            vec![
                "1:22 the pattern of `matches` must be a literal, so that it is checked when the file loads",
            ],
        ),
        (
            "request.model.matches(\"(\")",
            vec!["1:22 not a valid pattern: unclosed group"],
        ),
        (
            "request.model.matches(\"[a-z]{1000}{1000}\")",
            vec!["1:22 the pattern is too big once compiled; use smaller repetition counts"],
        ),
        (
            "principal.groups.exists(g)",
            vec!["1:24 `exists` takes a variable and an expression, as in `list.exists(x, …)`"],
        ),
        (
            "principal.groups.exists(request, true)",
            vec!["1:24 the loop variable `request` hides the variable of that name"],
        ),
        (
            "request.model.exists(g, true)",
            vec!["1:21 only a list or a map can be looped over, and this is a string"],
        ),
        (
            "{\"a\": true}[\"a\"]",
            vec!["1:1 map and message literals are not supported in a condition"],
        ),
        (
            "a.b{c: true}",
            vec!["1:4 map and message literals are not supported in a condition"],
        ),
        (
            "timestamp(\"2020-01-01T00:00:00Z\") > timestamp(\"2020-01-01T00:00:00Z\")",
            vec![
                "1:10 unknown function `timestamp`",
                "1:46 unknown function `timestamp`",
            ],
        ),
        (
            "1 / 0 == 1",
            vec!["1:7 this fails for every request: division by zero"],
        ),
        (
            "request.stream &&\n  request.modle == \"a\" &&\n  findings.US_SNN > 1",
            vec![
                "2:10 `request` has no field `modle` (model)",
                "3:11 unknown entity `US_SNN`: no detector finds it (US_SSN)",
            ],
        ),
    ] {
        assert_eq!(faults(when), expected, "{when}");
    }
}

#[test]
fn a_column_counts_characters_not_bytes() {
    assert_eq!(
        faults("\"äöü€\" in principal.grops"),
        ["1:20 `principal` has no field `grops` (groups)"]
    );
}

#[test]
fn what_costs_too_much_is_refused_when_it_loads() {
    let cases = [
        (
            format!("request.model == \"{}\"", "a".repeat(MAX_CHARS)),
            "longer than",
        ),
        (
            format!("{}true{}", "(".repeat(60), ")".repeat(60)),
            "nested more than",
        ),
        (
            format!("{}true", "!".repeat(401)),
            "more than 400 operators",
        ),
        (format!("[{}] == []", "1,".repeat(2010)), "too complex"),
        (format!("1{} == 1", " + 1".repeat(100)), "too complex"),
        (format!("request{} == 1", ".a".repeat(100)), "too complex"),
        (
            "principal.groups.all(a, [1].all(b, [1].all(c, true)))".to_owned(),
            "loops nest at most 2 deep",
        ),
        (
            "principal.groups.exists(a, principal.groups.exists(b, a == b))".to_owned(),
            "cannot stand inside another such loop",
        ),
        (
            "principal.groups.exists(a, findings.exists(b, a == b))".to_owned(),
            "cannot stand inside another such loop",
        ),
    ];
    for (when, expected) in cases {
        let faults = faults(&when);
        assert!(
            faults.iter().any(|fault| fault.contains(expected)),
            "{when}: {faults:?}"
        );
    }
    let permitted = r#"principal.groups.exists(a, ["x", "y"].exists(b, a == b + "1"))"#;
    assert_eq!(Case::new().in_groups(&["y1"]).holds(permitted), Ok(true));
}

/// The parser, the checker and the evaluator recurse; a thread's usual stack must do for whatever is let through to them.
#[test]
fn the_deepest_of_every_shape_fits_a_thread() {
    let shapes = [
        ("1", " + 1", " == 1"),
        ("true", " == true", ""),
        ("1", " in [1]", ""),
        ("principal", ".a", ""),
        ("[1]", "[0]", " == 1"),
        ("true", " ? true : true", ""),
        ("true", " && true", ""),
        ("", "!", "true"),
        ("1 == ", "-", "1"),
        ("", "(", "true"),
        ("size(", "size(", ""),
        ("", "[", ""),
        ("request.model", ".size()", " == 1"),
        ("", "[1].exists(x, ", "true"),
        ("", "true ? ", "true"),
    ];
    for (before, again, after) in shapes {
        for times in [5, 11, 12, 20, 23, 40, 100, 190, 390, 2000] {
            let when = format!("{before}{}{after}", again.repeat(times));
            let usual = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
            let outcome = usual
                .spawn(move || compile(&when).map(drop))
                .unwrap()
                .join();
            assert!(outcome.is_ok(), "{before}{again}… {times} times");
        }
    }
}

#[test]
fn a_condition_that_does_not_depend_on_the_request_is_known() {
    for (when, expected) in [
        ("true", Some(true)),
        ("false", Some(false)),
        ("!false", Some(true)),
        ("1 == 1", Some(true)),
        ("size(\"abc\") > 3", Some(false)),
        ("[1, 2].exists(x, x == 2)", Some(true)),
        ("\"abc\".matches(\"^a\")", Some(true)),
        ("true || request.stream", Some(true)),
        ("request.stream || 2 > 1", Some(true)),
        ("request.stream && false", Some(false)),
        ("1 == 1 ? true : request.stream", Some(true)),
        ("request.stream", None),
        ("request.stream && true", None),
        ("request.stream || false", None),
        ("principal.groups.exists(g, true)", None),
    ] {
        assert_eq!(compile(when).unwrap().constant(), expected, "{when}");
    }
}

#[test]
fn a_claim_that_is_needed_but_not_asked_for_is_known() {
    for (when, expected) in [
        (
            "principal.claims.clearance > 2",
            Some("principal.claims.clearance"),
        ),
        (
            "request.stream && principal.claims.clearance > 2",
            Some("principal.claims.clearance"),
        ),
        (
            "has(principal.claims.clearance) && principal.claims.clearance > 2",
            None,
        ),
        ("principal.grant.max_uses > 2", Some("principal.grant")),
        ("has(principal.grant) && principal.grant.approved", None),
        ("request.stream", None),
    ] {
        assert_eq!(
            compile(when).unwrap().unguarded().map(str::to_owned),
            expected.map(str::to_owned),
            "{when}"
        );
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
