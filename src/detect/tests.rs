//! The catalog: custom detectors, lent credentials, scanners kept; what the built-in ones find is in `tables`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::{
    pattern::{Check, Pattern},
    *,
};
use std::collections::BTreeSet;

/// A catalog with one custom detector, or why there is none.
fn custom(
    entity: &str,
    regex: &str,
    context: &[&str],
) -> Result<Catalog, Vec<(usize, DetectorError)>> {
    Catalog::with_custom(&[Custom {
        entity: entity.into(),
        regex: regex.into(),
        context: context.iter().map(|&word| word.into()).collect(),
    }])
}

fn values<'t>(catalog: &Catalog, entity: &str, text: &'t str) -> Vec<&'t str> {
    let scanner = catalog.scanner(&[entity.into()].into()).unwrap();
    scanner
        .find(text)
        .iter()
        .map(|f| text.get(f.start..f.end).unwrap())
        .collect()
}

#[test]
fn custom_detectors_that_cannot_work_are_refused_with_the_reason() {
    let reason = |entity: &str, regex: &str| custom(entity, regex, &[]).unwrap_err().remove(0).1;
    for name in ["", "badge", "9X", "A-B", "_A", &"A".repeat(65)] {
        assert_eq!(reason(name, "x"), DetectorError::Name(name.into()));
    }
    for name in ["US_SSN", "EMAIL_ADDRESS", UPSTREAM_CREDENTIAL] {
        assert_eq!(reason(name, "x"), DetectorError::Taken(name.into()));
    }
    assert!(matches!(reason("BADGE", "B-("), DetectorError::Syntax(_)));
    assert!(
        matches!(reason("BADGE", "(?-u:\\xFF)"), DetectorError::Syntax(_)),
        "half a character"
    );
    for regex in ["", "x*", "a|", r"\b", "^$"] {
        assert_eq!(
            reason("BADGE", regex),
            DetectorError::MatchesEmpty,
            "{regex}"
        );
    }
    assert_eq!(reason("BADGE", "[a&&b]"), DetectorError::MatchesNothing);
    assert_eq!(reason("BADGE", "<.*?>"), DetectorError::UnboundedLazy);
    for regex in [r"\w{1000}", "((a{100}){100}){100}", &"(".repeat(100)] {
        assert!(
            matches!(
                reason("BADGE", regex),
                DetectorError::TooLarge(_) | DetectorError::Syntax(_)
            ),
            "{regex}"
        );
    }
}

#[test]
fn an_expression_over_its_budget_is_refused_however_it_comes_to_its_size() {
    let letters: Vec<String> = (0..60_000).map(|i| format!("x{i:x}y")).collect();
    let nested = (0..12).fold("a".to_owned(), |inner, _| {
        format!("(?:{inner}{inner}){{9}}")
    });
    for regex in [
        r"\w{1,1000}{1,1000}",
        r"((\w{1,100}){1,100}){1,100}",
        r"(?:\p{L}|\p{N}){600}",
        "(?i:[\u{E0}-\u{24F}]{9000})",
        "(?:a{0,1000}){0,1000}b",
        &letters.join("|"),
        &nested[..nested.len().min(100_000)],
    ] {
        let shown: String = regex.chars().take(40).collect();
        let fault = custom("BADGE", regex, &[]).unwrap_err().remove(0).1;
        assert_eq!(fault, DetectorError::TooLarge(1024), "{shown}");
        assert_eq!(
            fault.to_string(),
            "the expression compiles to more than 1024 KiB: use smaller counts or narrower classes"
        );
    }
}

#[test]
fn the_budget_is_that_of_one_expression_not_of_all_together() {
    let half = |i: usize| Custom {
        entity: format!("BADGE_{i}"),
        regex: format!("x{i}[a-f]{{12000}}"),
        context: Vec::new(),
    };
    let one = Pattern::custom("BADGE", &half(0).regex, Check::Always).map(drop);
    let twice = Pattern::custom("BADGE", &half(0).regex.repeat(2), Check::Always).map(drop);
    assert_eq!((one, twice), (Ok(()), Err(DetectorError::TooLarge(1024))));
    let catalog = Catalog::with_custom(&[half(0), half(1), half(2)]).unwrap();
    let scanner = catalog.scanner(&["BADGE_1".into(), "BADGE_2".into()].into());
    assert_eq!(scanner.unwrap().find("x2abc x1"), []);
}

#[test]
fn all_faults_of_all_custom_detectors_are_told_at_once() {
    let bad = |entity: &str, regex: &str, context: &[&str]| Custom {
        entity: entity.into(),
        regex: regex.into(),
        context: context.iter().map(|&word| word.into()).collect(),
    };
    let faults = Catalog::with_custom(&[
        bad("x", "y*", &["-"]),
        bad("OK", "y", &[]),
        bad("US_SSN", "y", &[]),
    ])
    .unwrap_err();
    let indices: Vec<usize> = faults.iter().map(|(i, _)| *i).collect();
    assert_eq!(indices, [0, 0, 0, 2]);
}

#[test]
fn custom_detectors_find_what_they_say() {
    let badge = custom("BADGE", r"\bB-\d+\b", &[]).unwrap();
    assert_eq!(
        values(&badge, "BADGE", "B-1, xB-2, B-345é B-6x"),
        ["B-1", "B-345"]
    );
    let name = custom("CLIENT", r"\p{Lu}\w+", &["client no", "kunde"]).unwrap();
    assert_eq!(
        values(&name, "CLIENT", "client no. Ödön; Ada, Kunde: Müller"),
        ["Ödön", "Ada", "Kunde", "Müller"]
    );
    assert_eq!(values(&name, "CLIENT", "no client Ödön"), [""; 0]);
    assert!(badge.contains("BADGE") && badge.contains("US_SSN") && !badge.contains("CLIENT"));
}

#[test]
fn a_custom_detector_may_be_written_in_characters_that_are_seen_as_others() {
    let text = "a no.\u{A0}１２ b no. 12 c—d c-d e.";
    for (regex, expected) in [
        ("no.\u{A0}１２", &["no.\u{A0}１２", "no. 12"][..]),
        ("c[—–]d", &["c—d", "c-d"]),
        (r"no\.\s\d+", &["no.\u{A0}１２", "no. 12"]),
        (r"e[^.]?", &["e"]),
    ] {
        let catalog = custom("BADGE", regex, &[]).unwrap();
        assert_eq!(values(&catalog, "BADGE", text), expected, "{regex}");
    }
}

#[test]
fn a_custom_detector_wins_over_a_built_in_one_and_the_credential_over_both() {
    let catalog = custom("EMPLOYEE", r"\d{3}-\d{2}-\d{4}", &[]).unwrap();
    let catalog = catalog.with_credentials(["123-45-6789"]).unwrap();
    let scanner = catalog.scanner(catalog.entities()).unwrap();
    let found: Vec<_> = scanner
        .find("123-45-6789 123-45-6788")
        .iter()
        .map(|f| f.entity.to_string())
        .collect();
    assert_eq!(found, [UPSTREAM_CREDENTIAL, "EMPLOYEE"]);
}

#[test]
fn a_lent_credential_is_found_by_every_scanner_and_shown_by_nothing() {
    let secret = "correct.horse(battery+staple)";
    let catalog = Catalog::builtin()
        .unwrap()
        .with_credentials([secret])
        .unwrap();
    let scanner = catalog.scanner(&BTreeSet::new()).unwrap();
    assert_eq!(scanner.find(&format!("x{secret}y")).len(), 1);
    assert_eq!(scanner.find("correctxhorse(batteryystaple)"), []);
    for shown in [
        format!("{scanner:?}"),
        format!("{catalog:?}"),
        format!("{:?}", catalog.with_credentials([""])),
    ] {
        assert!(!shown.contains("horse"), "{shown}");
    }
    assert_eq!(
        catalog.with_credentials([""]).unwrap_err(),
        DetectorError::Credential
    );
    assert_eq!(
        catalog
            .with_credentials(["x".repeat(20_000).as_str()])
            .unwrap_err(),
        DetectorError::Credential
    );
    let other = catalog
        .with_credentials(["another"])
        .unwrap()
        .scanner(&BTreeSet::new())
        .unwrap();
    assert_eq!(
        other.find(secret),
        [],
        "a new credential replaces the old one"
    );
}

#[test]
fn scanners_are_kept_and_unknown_names_refused() {
    let catalog = Catalog::builtin().unwrap();
    let ssn: BTreeSet<Entity> = ["US_SSN".into()].into();
    let first = catalog.scanner(&ssn).unwrap();
    assert!(Arc::ptr_eq(&first, &catalog.scanner(&ssn).unwrap()));
    assert_eq!(
        catalog.scanner(&["US_SNN".into()].into()).unwrap_err(),
        DetectorError::Unknown("US_SNN".into())
    );
    // more kinds of scanner than are kept
    let names: Vec<Entity> = catalog.entities().iter().cloned().collect();
    for a in &names {
        for b in &names[..3] {
            catalog.scanner(&[a.clone(), b.clone()].into()).unwrap();
        }
    }
    assert!(
        !Arc::ptr_eq(&first, &catalog.scanner(&ssn).unwrap()),
        "the oldest has made room"
    );
}

#[test]
fn a_scanner_for_nothing_finds_nothing() {
    let scanner = Catalog::builtin()
        .unwrap()
        .scanner(&BTreeSet::new())
        .unwrap();
    assert_eq!(scanner.find("123-45-6789"), []);
    assert_eq!(scanner.reach(), 0);
}

#[test]
fn what_outgrows_its_reach_is_found_as_far_as_it_fits() {
    let note = custom("NOTE", "note: .*", &[]).unwrap();
    let text = format!("a note: {}\nb", "é".repeat(5000));
    assert_eq!(
        values(&note, "NOTE", &text),
        [text.lines().next().unwrap().trim_start_matches("a ")]
    );
    let fixed = custom("FIXED", "x[a-z]{2000}", &[]).unwrap();
    let text = format!("-x{}-", "y".repeat(2000));
    assert_eq!(
        values(&fixed, "FIXED", &text),
        [&text[1..2002]],
        "up to its last character"
    );
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----",
        "MIIEabcd+/\n".repeat(200)
    );
    assert_eq!(values(&note, "PRIVATE_KEY", &format!("x\n{key}\ny")), [key]);
}

/// Where a match may be over there is no byte to look for, in a long text as in a short one.
#[test]
fn what_ends_where_the_text_does_is_found_behind_any_length() {
    for (regex, value) in [
        ("[a-z]{5}$", "abcde"),
        ("[A-Z]{2}[0-9]{4}(?:$|;)", "AB1234"),
        ("(?m)[a-z]{5}$", "abcde"),
        (r"[0-9]{3}\b", "123"),
    ] {
        let pattern = Pattern::custom("X", regex, Check::Always).unwrap();
        let scanner = Scanner::new(vec![pattern], Vec::new()).unwrap();
        for filler in [0, 10, 100, 1000, 20_000] {
            let text = format!("{}{value}", "Wort, ".repeat(filler));
            let found = scanner.find(&text);
            let found: Vec<&str> = found.iter().map(|f| &text[f.start..f.end]).collect();
            assert_eq!(found, [value], "{regex} behind {filler}");
        }
    }
}
