//! Scores.

use super::*;

fn weights() -> Risk {
    Risk {
        entities: BTreeMap::from([("US_SSN".into(), 10), ("CREDIT_CARD".into(), 7)]),
        models: [("gpt-4o-mini*", 1), ("gpt-*", 5), ("*", 20)]
            .map(|(name, score)| (ModelPattern::new(name).unwrap(), score))
            .into(),
        per_kib: 2,
        tools: 15,
    }
}

#[test]
fn a_score_is_the_sum_of_what_was_found_and_asked_for() {
    let call = |model: &str, tools: bool, body_bytes: u64| Call {
        model: model.to_owned(),
        tools,
        body_bytes,
        ..Call::default()
    };
    for (call, findings, expected) in [
        (call("gpt-4o-mini-2024", false, 0), vec![], 1),
        (call("GPT-4o", false, 1023), vec![], 5),
        (call("gpt-4o", false, 1024), vec![], 7),
        (call("llama", true, 0), vec![], 35),
        (call("", false, 0), vec![], 20),
        (
            call("gpt-4o", false, 0),
            vec![("US_SSN", 2), ("CREDIT_CARD", 1), ("URL", 99)],
            32,
        ),
        (call("gpt-4o", false, 0), vec![("US_SSN", 10)], 105),
        (call("gpt-4o", false, 0), vec![("US_SSN", 11)], 105),
        (call("gpt-4o", false, 0), vec![("US_SSN", u64::MAX)], 105),
        (
            call("gpt-4o", false, u64::MAX),
            vec![],
            5 + 2 * (1 << 54) - 2,
        ),
    ] {
        let findings = findings
            .into_iter()
            .map(|(entity, count)| (entity.into(), count))
            .collect();
        assert_eq!(
            weights().score(&call, &findings),
            expected,
            "{call:?} {findings:?}"
        );
        assert_eq!(Risk::default().score(&call, &findings), 0);
    }
}

#[test]
fn the_highest_score_is_the_highest_there_is_and_no_lower_one() {
    let heavy = Risk {
        entities: BTreeMap::from([("US_SSN".into(), u32::MAX)]),
        models: vec![(ModelPattern::new("*").unwrap(), u32::MAX)],
        per_kib: u32::MAX,
        tools: u32::MAX,
    };
    let call = Call {
        tools: true,
        body_bytes: u64::MAX,
        ..Call::default()
    };
    assert_eq!(
        heavy.score(&call, &BTreeMap::from([("US_SSN".into(), u64::MAX)])),
        i64::MAX
    );
}

#[test]
fn a_model_is_matched_whole() {
    for (pattern, model, expected) in [
        ("gpt-4o", "gpt-4o", true),
        ("gpt-4o", "gpt-4o-mini", false),
        ("gpt-4o", "x-gpt-4o", false),
        ("gpt-4o*", "gpt-4o", true),
        ("*4o", "gpt-4o", true),
        ("*4o", "gpt-4o-mini", false),
        ("*", "", true),
        ("**", "a", true),
        ("gpt-*-mini", "gpt-4o-mini", true),
        ("gpt-*-mini", "gpt-mini", false),
        ("gpt-*-mini", "gpt-4o-mini-2", false),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("*ab*ab*", "abxab", true),
        ("*ab*ab*", "abab", true),
        ("*ab*ab*", "aab", false),
        ("gpt.4", "gptx4", false),
        ("Claude-[a]", "claude-[A]", true),
        ("é*", "éa", true),
        ("é*", "ea", false),
    ] {
        let found = ModelPattern::new(pattern).unwrap().matches(model);
        assert_eq!(found, expected, "{pattern} {model}");
    }
    for pattern in ["", "a\nb", &"a".repeat(201)] {
        assert_eq!(ModelPattern::new(pattern), None, "{pattern}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever adds to a request never gets below a threshold by it.
    #[test]
    fn more_of_anything_never_lowers_the_score(
        weights in prop::array::uniform4(any::<u32>()), tools in any::<bool>(),
        bytes in any::<u64>(), more_bytes in any::<u64>(), found in any::<u64>(), more_found in any::<u64>(),
    ) {
        let risk = Risk {
            entities: BTreeMap::from([("A".into(), weights[0]), ("B".into(), weights[1])]),
            models: Vec::new(),
            per_kib: weights[2],
            tools: weights[3],
        };
        let call = |tools, body_bytes| Call { tools, body_bytes, ..Call::default() };
        let score = risk.score(&call(tools, bytes), &BTreeMap::from([("A".into(), found)]));
        let more = BTreeMap::from([("A".into(), found.saturating_add(more_found)), ("B".into(), more_found)]);
        prop_assert!(score >= 0);
        prop_assert!(risk.score(&call(true, bytes.saturating_add(more_bytes)), &more) >= score);
    }
}
