//! Texts made to be expensive, and values too long to be held.

use super::*;

/// Texts of about `len` bytes made to be expensive: everything nearly matches.
fn hostile(len: usize) -> Vec<String> {
    let unit = |unit: &str| unit.repeat(len / unit.len());
    vec![
        unit("@"),
        unit("1"),
        unit("-"),
        unit("a"),
        unit("a-"),
        unit("a."),
        unit("1 "),
        unit("1-"),
        unit("+1"),
        unit("+1 "),
        unit("1.1."),
        unit("a:"),
        unit("::1"),
        unit("A1 "),
        unit("DE89 "),
        unit("4111 "),
        unit("eyJ"),
        unit("eyJabcdefgh."),
        unit("sk-"),
        unit("-----BEGIN "),
        unit("-----BEGIN PRIVATE KEY-----\n"),
        unit("a@a."),
        unit(&format!("{}@b.co ", "a-".repeat(130))),
        unit(&format!("a@{}co ", "b.".repeat(140))),
        unit("日"),
        unit("日@"),
        unit("note: "),
        unit("ssn 000000000 "),
        unit("000-00-0000 "),
        unit("+999 999 999 999 999 "),
        unit(r"\"),
        unit(r"\\n"),
        unit(r"\u0061"),
        unit(r"\\u0040\/"),
        unit("%40"),
        unit("_1"),
    ]
}

#[test]
fn hostile_text_costs_its_length_not_its_square() {
    // The reach bounds what one byte can cost. Twice the text may cost twice as much and not four times.
    let cost = |text: &str, piece: usize| {
        let mut effort = Effort::default();
        if piece == usize::MAX {
            BUILTIN.scanner().hits(text, &mut effort).for_each(drop);
        } else {
            effort = stream(&BUILTIN, &cut(text, &[piece])).1.effort();
        }
        (effort.walked + effort.searched + effort.checked) as f64 / text.len() as f64
    };
    for piece in [1, 4096, usize::MAX] {
        for (short, long) in hostile(12 << 10).iter().zip(hostile(36 << 10)) {
            let shown: String = long.chars().take(30).collect();
            let (short, long) = (cost(short, piece), cost(&long, piece));
            assert!(
                long < short * 1.5 + 8.0,
                "{shown} by {piece}: {short} a byte, then {long}"
            );
            assert!(
                long < 3.0 * MAX_REACH as f64,
                "{shown} by {piece}: {long} a byte"
            );
        }
    }
}

#[test]
fn a_megabyte_of_near_misses_stays_within_the_buffer() {
    for text in ["@", "1", "-", "a", "eyJ"].map(|unit| unit.repeat((1 << 20) / unit.len())) {
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(5)
            .map(|piece| std::str::from_utf8(piece).unwrap())
            .collect();
        let (out, _) = stream(&BUILTIN, &pieces);
        assert_eq!(out, mask(&BUILTIN, &text).0);
    }
}

#[test]
fn what_outgrows_the_reach_is_masked_and_swallowed_not_released() {
    let body = "MIIEabcd+/\n".repeat(500);
    let secret = "x".repeat(5000);
    for (text, expected) in [
        (
            format!("key: -----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\nbye"),
            "key: [PRIVATE_KEY]\nbye",
        ),
        (
            format!("key: -----BEGIN PRIVATE KEY-----\n{body}"),
            "key: [PRIVATE_KEY]",
        ),
        (
            format!("t eyJ{secret}.eyJ{secret}.{secret} bye"),
            "t [JWT] bye",
        ),
        (format!("a note: {secret}\nbye"), "a [NOTE]\nbye"),
        (format!("a note: 日本{secret}日本"), "a [NOTE]"),
        (format!("B-{}é", "1".repeat(3000)), "[BADGE]é"),
        (
            format!("B-{} 123-45-6789", "1".repeat(3000)),
            "[BADGE] [US_SSN]",
        ),
    ] {
        assert_eq!(mask(&PLAN, &text).0, expected);
        for piece in [1, 3, 1000, 1024, 1025, 5000] {
            assert_eq!(
                stream(&PLAN, &cut(&text, &[piece])).0,
                expected,
                "cut by {piece}"
            );
        }
    }
}

#[test]
fn a_value_that_outgrows_its_reach_before_it_shows_what_it_is_is_masked() {
    let catalog = Catalog::with_custom(&[Custom {
        entity: "HANDLE".into(),
        regex: "[a-z]+%[a-z]+".into(),
        context: Vec::new(),
    }]);
    let wanted = ["HANDLE".into(), "US_SSN".into(), "JWT".into()].into();
    let scanner = catalog.unwrap().scanner(&wanted).unwrap();
    let plan = Arc::new(Plan::new(scanner, &BTreeMap::new()));
    let oracle = Oracle::new(plan.scanner());
    for len in [1000, 1023, 1024, 1025, 1500] {
        let long = "a".repeat(len);
        let text =
            format!("x%y 123-45-6789 {long} 123-45-6789 eyJ{long} {long}%b{long}. 123-45-6789");
        assert_eq!(plan.scanner().find(&text), oracle.find(&text), "{len}");
        for piece in [1, 100, 4096] {
            let (out, _) = stream(&plan, &cut(&text, &[piece]));
            assert_eq!(out, mask(&plan, &text).0, "{len} cut by {piece}");
        }
    }
}
