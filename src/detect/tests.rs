//! What each detector finds and what it leaves, as tables.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::*;
use std::{collections::BTreeSet, sync::LazyLock};

static SCANNER: LazyLock<Arc<Scanner>> = LazyLock::new(|| {
    let catalog = Catalog::builtin().unwrap();
    catalog.scanner(catalog.entities()).unwrap()
});

/// In each text the values between `«` and `»` are found as `entity`, and nothing else is.
fn check(entity: &str, texts: &[&str]) {
    for marked in texts {
        let text = marked.replace(['«', '»'], "");
        let findings = SCANNER.find(&text);
        let found: Vec<_> = findings
            .iter()
            .map(|f| (&*f.entity, text.get(f.start..f.end).unwrap()))
            .collect();
        let expected: Vec<_> = marked
            .split('«')
            .skip(1)
            .map(|rest| (entity, rest.split('»').next().unwrap()))
            .collect();
        assert_eq!(found, expected, "{entity} in {text:?}");
    }
}

#[test]
fn us_ssn() {
    check(
        "US_SSN",
        &[
            "my SSN is «123-45-6789».",
            "«123 45 6789»",
            "«899-99-9999»",
            "«001-01-0001»",
            "SSN: «123456789»",
            "social security number «078051120»",
            "-«219-09-9999»",
            // never issued
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-4567",
            "123-45-0000",
            // mixed separators, longer numbers, other groupings
            "123-45 6789",
            "123 45-6789",
            "123-45-67890",
            "9123-45-6789",
            "1-123-45-6789",
            "123-45-6789-1",
            "123.45.6789",
            "123456789",
            "order 123456789",
            "ssn one two three four five 123456789",
        ],
    );
}

#[test]
fn credit_card() {
    check(
        "CREDIT_CARD",
        &[
            "«4111 1111 1111 1111»",
            "«4111-1111-1111-1111»",
            "«4111111111111111»",
            "«4222222222222»",
            "«5500005555555559»",
            "«2223003122003222»",
            "«378282246310005»",
            "«3714 496353 98431»",
            "«6011000990139424»",
            "«3530111333300000»",
            "«30569309025904»",
            "«6200000000000005»",
            "«6759649826438453»",
            // what follows a card is neither part of it nor hides it
            "card «4111 1111 1111 1111» 12/27 999",
            "«4111111111111111» 3 items",
            "«4111 1111 1111 1111» 1234 5678",
            // wrong check digit, nobody's range, wrong length for the range, a fraction, letters around
            "4111 1111 1111 1112",
            "1234567812345670",
            "9111111111111119",
            "37828224631000",
            "41111111111111111",
            "0.4111111111111111",
            "x4111111111111111",
            "4111111111111111x",
            "4111  1111  1111  1111",
        ],
    );
}

#[test]
fn email_address() {
    let long = format!("{}@example.com", "a".repeat(65));
    check(
        "EMAIL_ADDRESS",
        &[
            "write to «jane.doe+tag@mail.example.co.uk».",
            "<«a@b.co»>",
            "mailto:«a_b%c@x-y.org»?subject=",
            "«o'brien@x.ie»",
            "«jürgen@müller.de»",
            "«用户@例子.广告»",
            "请联系«john@x.com»谢谢",
            "«a@b.co».",
            "«a@xn--fiqs8s.xn--fiqs8s»",
            "“«a@b.co»”",
            "«a@b.co»-",
            "--«a@b.co»",
            "«a@b.co».1",
            "a@b",
            "a@b.c",
            "a@1.2.3.4x",
            "@b.co",
            "a@.co",
            "a..«b@c.co»",
            "a.@b.co",
            "a@-b.co",
            &long,
        ],
    );
}

#[test]
fn phone_number() {
    check(
        "PHONE_NUMBER",
        &[
            "call «+1 (212) 555-0100» now",
            "«+12125550100»",
            "«+44 20 7946 0958»",
            "«+49 30 901820»",
            "«+33 1 42 68 53 00»",
            "«+81 3-3224-5111»",
            "«(212) 555-0187»",
            "«212-555-0187»",
            "«212.555.0187»",
            "«1-212-555-0187»",
            "phone: «2125550187»",
            "«(212)555-0187x42»",
            "«212-555-0187 ext. 42»",
            "Phone: «020 7946 0958»",
            "call «030 901820» now",
            "mobile «(11) 91234-5678»",
            "tel. «01 42 68 53 00»",
            "020 7946 0958",
            "call 2024-05-06",
            "«001-212-555-0187x55»",
            "«0049 30 901820»",
            "«+1-212-555-0187 ext 5»",
            "0012125550187",
            "call «0477 11 28 98»",
            "call 06.05.2024",
            "call 12 34",
            "«+44 20 7946 0958» 2024",
            "tel «12125550187»",
            "2125550187",
            "order 2125550187",
            "+999 123 456 789",
            "112-555-0187",
            "212-155-0187",
            "+1 212 555",
            "99-212-555-0187",
            "212-555-01878",
            "555-0187",
        ],
    );
}

#[test]
fn iban_code() {
    check(
        "IBAN_CODE",
        &[
            "«DE89 3704 0044 0532 0130 00»",
            "«DE89370400440532013000»",
            "«GB82 WEST 1234 5698 7654 32»",
            "«FR1420041010050500013M02606»",
            "«NO9386011117947»",
            "«MT84MALT011000012345MTLCAST001S»",
            "IBAN «DE89370400440532013000» BIC COBADEFF",
            "«DE89370400440532013000»,",
            "DE89370400440532013001",
            "XX89370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130000",
            "DE89370400440532013000x",
            "my iban is «de89370400440532013000» and",
        ],
    );
}

#[test]
fn ip_address() {
    check(
        "IP_ADDRESS",
        &[
            "from «10.0.0.1».",
            "«255.255.255.255»",
            "http://«192.168.0.1»:8080/",
            "«10.0.0.0»/8",
            "«2001:db8::ff00:42:8329»",
            "[«::1»]:80",
            "«fe80::1»%eth0",
            "«::ffff:10.0.0.1»",
            "«1:2:3:4:5:6:7:8»",
            "«2001:db8::»",
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "version 1.2.3.4",
            "v1.2.3.4",
            "v 1.2.3.4",
            "Chrome/120.0.0.0",
            "1.2.3.4567",
            "12:30:45",
            "std::vec",
            "a::b",
            "Foo::bad1",
            "::",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "dead:beef",
        ],
    );
}

#[test]
fn secrets() {
    check(
        "AWS_ACCESS_KEY",
        &[
            "«AKIAIOSFODNN7EXAMPLE»",
            "key=«ASIAIOSFODNN7EXAMPLE»;",
            "AKIAIOSFODNN7EXAMPL",
            "AKIAIOSFODNN7EXAMPLEX",
            "xAKIAIOSFODNN7EXAMPLE",
            "akiaiosfodnn7example",
        ],
    );
    check(
        "GITHUB_TOKEN",
        &[
            "«ghp_0123456789abcdefghijABCDEFGHIJ012345»",
            "ghp_0123456789",
        ],
    );
    check(
        "ANTHROPIC_KEY",
        &["«sk-ant-api03-abcdefghij_klmnop-qrst»", "sk-ant-api03"],
    );
    check(
        "OPENAI_KEY",
        &[
            "«sk-proj-abcdefghijklmnopqrstuvwx»",
            "«sk-abcdefghijklmnopqrstuvwx»",
            "sk-learn",
            "task-abcdefghijklmnopqrstuvwx",
        ],
    );
    check(
        "GOOGLE_API_KEY",
        &["«AIzaSyA1234567890abcdefghijklmnopqrstuv»", "AIzaSy"],
    );
    check("SLACK_TOKEN", &["«xoxb-123456789012-abcdef»", "xoxb-"]);
    check(
        "STRIPE_KEY",
        &["«sk_live_0123456789abcdefghijklmn»", "sk_live_"],
    );
    check(
        "JWT",
        &[
            "Bearer «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N»",
            "eyJhbGciOiJIUzI1NiJ9",
        ],
    );
    check(
        "PRIVATE_KEY",
        &[
            "x «-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----»\n",
            "«-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----»\\n",
            "starts with «-----BEGIN PRIVATE KEY-----» and goes on",
            "-----BEGIN CERTIFICATE-----\nMIIE\n",
        ],
    );
}

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
    let catalog = catalog.with_credential("123-45-6789").unwrap();
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
    let catalog = Catalog::builtin().unwrap().with_credential(secret).unwrap();
    let scanner = catalog.scanner(&BTreeSet::new()).unwrap();
    assert_eq!(scanner.find(&format!("x{secret}y")).len(), 1);
    assert_eq!(scanner.find("correctxhorse(batteryystaple)"), []);
    for shown in [
        format!("{scanner:?}"),
        format!("{catalog:?}"),
        format!("{:?}", catalog.with_credential("")),
    ] {
        assert!(!shown.contains("horse"), "{shown}");
    }
    assert_eq!(
        catalog.with_credential("").unwrap_err(),
        DetectorError::Credential
    );
    assert_eq!(
        catalog.with_credential(&"x".repeat(20_000)).unwrap_err(),
        DetectorError::Credential
    );
    let other = catalog
        .with_credential("another")
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
