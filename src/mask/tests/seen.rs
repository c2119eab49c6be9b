//! Text that is not seen as it is: what only looks different, what is unseen, what is written as an escape.

use super::*;

#[test]
fn what_only_looks_different_is_masked_as_it_came() {
    for (text, expected) in [
        ("ssn １２３-４５-６７８９.", "ssn [US_SSN]."),
        (
            "card 4111\u{A0}1111\u{A0}1111\u{A0}1234 x",
            "card 4111\u{A0}1111\u{A0}1111\u{A0}1234 x",
        ),
        (
            "card ４111\u{A0}1111\u{A0}1111\u{A0}1111 x",
            "card ****\u{A0}****\u{A0}****\u{A0}1111 x",
        ),
        ("a@b\u{200B}.co\u{200B} x", "[EMAIL_ADDRESS]\u{200B} x"),
        (
            "\u{200B}123–45–67\u{AD}89\u{FE0F}.",
            "\u{200B}[US_SSN]\u{FE0F}.",
        ),
        ("\u{FEFF}# x — ‘y’\u{200B}", "\u{FEFF}# x — ‘y’\u{200B}"),
        ("\u{202A}+1 (212) 555‑0100\u{202C}", "\u{202A}\u{202C}"),
        ("s\u{200D}k-lent-123-45-6789", "[UPSTREAM_CREDENTIAL]"),
    ] {
        assert_eq!(mask(&PLAN, text).0, expected);
        for piece in [1, 2, 3] {
            assert_eq!(stream(&PLAN, &cut(text, &[piece])).0, expected);
        }
    }
}

#[test]
fn what_is_unseen_behind_a_value_belongs_to_it_only_if_it_goes_on() {
    let long = "1".repeat(3000);
    for (behind, expected) in [
        ("\u{200B}", "[BADGE]\u{200B}"),
        ("\u{200B}1\u{200B}\u{AD}1\u{AD}", "[BADGE]\u{AD}"),
        ("\u{200B}é", "[BADGE]\u{200B}é"),
        ("\u{200B} a@b.co", "[BADGE]\u{200B} [EMAIL_ADDRESS]"),
    ] {
        let text = format!("B-{long}{behind}");
        assert_eq!(mask(&PLAN, &text).0, expected);
        for piece in [1, 2, 5, 1024] {
            assert_eq!(stream(&PLAN, &cut(&text, &[piece])).0, expected);
        }
    }
}

#[test]
fn an_escape_hides_nothing_and_stays_whole() {
    for (text, expected) in [
        // JSON in a text, as agents send it, and JSON in that
        (
            r#"{"note": "pay\n4111 1111 1111 1111\tAKIAIOSFODNN7EXAMPLE"}"#,
            r#"{"note": "pay\n[CREDIT_CARD]\t[AWS_ACCESS_KEY]"}"#,
        ),
        (
            r#"{\"note\": \"ssn\\n123-45-6789\\u003ca@b.co\\u003e\"}"#,
            r#"{\"note\": \"ssn\\n[US_SSN]\\u003c[EMAIL_ADDRESS]\\u003e\"}"#,
        ),
        (r"\u003ca@b.co\u003e", r"\u003c[EMAIL_ADDRESS]\u003e"),
        (r#"\"123-45-6789\""#, r#"\"[US_SSN]\""#),
        // an escape inside a value goes with it, whole
        (r"to jos\u00e9@b.co.", "to [EMAIL_ADDRESS]."),
        (r"to jos\\u00e9@b.co.", "to [EMAIL_ADDRESS]."),
        (r"a\u0040b.co\n", r"[EMAIL_ADDRESS]\n"),
        (r"\u0031\u0032\u0033-45-6789", "[US_SSN]"),
        (r"born 03\/12\/1985", "born [DATE_OF_BIRTH]"),
        ("?mail=a%40b.co&x", "?mail=[EMAIL_ADDRESS]&x"),
        ("tel %2B442079460958", "tel [PHONE_NUMBER]"),
        (
            r"-----BEGIN PRIVATE KEY-----\nMIIE\r\nabc=\\n-----END PRIVATE KEY-----\n",
            r"[PRIVATE_KEY]\n",
        ),
        (
            "k=-----BEGIN%20PRIVATE%20KEY-----%0D%0AMII%2B%0A123-45-6789%0Ax%0A-----END%20PRIVATE%20KEY-----%0A&x",
            "k=[PRIVATE_KEY]-45-6789%0Ax%0A-----END%20PRIVATE%20KEY-----%0A&x",
        ),
        (
            "k=-----BEGIN+EC+PRIVATE+KEY-----%0AMII%2F12%0A34%3D%0A-----END+EC+PRIVATE+KEY-----%0A",
            "k=[PRIVATE_KEY]%0A",
        ),
        (
            "iban=gb82%20west%201234%205698%207654%2032&x",
            "iban=[IBAN_CODE]&x",
        ),
        // what is no escape: a path, a login, their values
        (r"C:\new\a@b.co", r"C:\new\[EMAIL_ADDRESS]"),
        (r"CORP\nick@b.co", r"CORP\n[EMAIL_ADDRESS]"),
        (r"C:\Docs\123-45-6789.txt", r"C:\Docs\[US_SSN].txt"),
        (r"50% of 123-45-6789%", r"50% of [US_SSN]%"),
    ] {
        assert_eq!(mask(&BUILTIN, text).0, expected);
        for piece in [1, 2, 3, 5] {
            assert_eq!(
                stream(&BUILTIN, &cut(text, &[piece])).0,
                expected,
                "{piece}"
            );
        }
    }
    let mut masker = Masker::new(BUILTIN.clone());
    for (piece, held) in [("say ", 0), ("\\", 1), ("n", 0), ("\\u00", 4), ("2c", 0)] {
        masker.push(piece, &mut String::new());
        assert_eq!(masker.held(), held, "{piece}");
    }
}

#[test]
fn the_longest_way_to_write_a_value_is_held_within_the_bound() {
    let unseen = "\u{200B}".repeat(80);
    for len in [900, 1021, 1022, 1023, 1500] {
        // Each digit an escape of seven characters, an unseen one for each three.
        let digits: String = (0..len)
            .map(|i| {
                if i % 3 == 0 {
                    "\u{200B}\\\\u0031"
                } else {
                    "\\\\u0031"
                }
            })
            .collect();
        let text = format!("B-{unseen}{digits}. a@b.co");
        let (whole, _) = mask(&PLAN, &text);
        assert_eq!(whole, "[BADGE]. [EMAIL_ADDRESS]", "{len}");
        for piece in [1, 5, 3000] {
            assert_eq!(stream(&PLAN, &cut(&text, &[piece])).0, whole, "{len}");
        }
    }
}

#[test]
fn a_detector_that_speaks_of_backslashes_still_finds_them() {
    let catalog = Catalog::with_custom(&[Custom {
        entity: "LOGIN".into(),
        regex: r"\b[A-Z]+\\+(?:nt\\)?\w+".into(),
        context: Vec::new(),
    }]);
    let scanner = catalog.unwrap().scanner(&["LOGIN".into()].into()).unwrap();
    let plan = Arc::new(Plan::new(scanner, &BTreeMap::new()));
    for login in [r"CORP\nick", r"CORP\\tom", r"CORP\nt\bob", r"CORP\ada"] {
        let text = format!("by {login}.");
        assert_eq!(mask(&plan, &text).0, "by [LOGIN].");
        assert_eq!(stream(&plan, &cut(&text, &[1])).0, "by [LOGIN].");
    }
}

#[test]
fn what_joins_a_value_to_a_name_stays() {
    for (text, expected) in [
        ("card_4111111111111111.pdf", "card_************1111.pdf"),
        ("_536-22-8145_", "_[US_SSN]_"),
        ("tel_2125550187 x", "tel_ x"),
    ] {
        assert_eq!(mask(&PLAN, text).0, expected);
        assert_eq!(stream(&PLAN, &cut(text, &[1])).0, expected);
    }
}
