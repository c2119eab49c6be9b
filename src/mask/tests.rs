//! For every text and every way of cutting it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::detect::{Catalog, Custom, MAX_REACH, oracle::Oracle};

/// A lent credential with parts that other detectors know.
const CREDENTIAL: &str = "sk-lent-123-45-6789";

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let custom = |entity: &str, regex: &str, context: &[&str]| Custom {
        entity: entity.into(),
        regex: regex.into(),
        context: context.iter().map(|&word| word.into()).collect(),
    };
    Catalog::with_custom(&[
        custom("BADGE", r"\bB-\d+\b", &[]),
        custom("NAME", r"\p{Lu}\p{Ll}{2,5}ß", &["name"]),
        custom("NOTE", r"note: .*", &[]),
        custom("LAZY", r"<[^>]{1,9}?>", &[]),
        custom("LINE", r"(?m)^#\w{1,6}$", &[]),
    ])
    .unwrap()
    .with_credential(CREDENTIAL)
    .unwrap()
});

static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let scanner = CATALOG.scanner(CATALOG.entities()).unwrap();
    let operators = [
        ("CREDIT_CARD".into(), Operator::KeepLast(4)),
        ("PHONE_NUMBER".into(), Operator::Redact),
        ("NOTE".into(), Operator::KeepLast(2)),
    ];
    Arc::new(Plan::new(scanner, &operators.into()))
});

/// Oracles keep their automata in cells, so each test has its own.
fn oracle() -> Oracle {
    Oracle::new(PLAN.scanner())
}

const PIECES: &[&str] = &[
    "123-45-6789",
    "000-12-3456",
    "123 45 6789",
    "ssn ",
    "social security ",
    "123456789",
    "4111 1111 1111 1111",
    "4111-1111-1111-1112",
    "5500005555555559",
    "378282246310005",
    "a@b.co",
    "john.doe+x@mail.example.com",
    "john.",
    "doe",
    "@",
    "jürgen@müller.de",
    "请联系",
    "x@例子.广告",
    "+1 (212) 555-0100",
    "212-555-0187",
    "(415) 555-2671",
    "+44 20 7946 0958",
    "+49 30 901820",
    "phone ",
    "2125550187",
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "10.0.0.1",
    "256.1.1.1",
    "1.2.3.4.5",
    "v ",
    "Chrome/",
    "fe80::1",
    "2001:db8::ff00:42:8329",
    "::ffff:10.0.0.1",
    "12:30:45",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "sk-proj-abcdefghijklmnopqrstuvwx",
    "sk-ant-api03-abcdefghijklmnopqrst",
    "sk-lent-123-45-6789",
    "sk-lent-123-",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----",
    "\nMIIEpAIBAAKCAQEA\n",
    "-----END RSA PRIVATE KEY-----",
    "-----BEGIN ",
    "xoxb-123456789012-abcdef",
    "AIzaSyA1234567890abcdefghijklmnopqrstuvw",
    "sk_live_0123456789abcdefghijklmn",
    "B-12",
    "B-",
    "name ",
    "Großß",
    "Strauß",
    "note: ",
    "<abc>",
    "<",
    ">",
    "#tag",
    " ",
    "  ",
    "-",
    ".",
    ",",
    "1",
    "12",
    "123",
    "4",
    "eyJ",
    "sk-",
    "word",
    "the",
    "é",
    "\n",
    "\"",
    "_",
    "+",
    "(",
    ":",
    " 5",
    "A",
    "x",
    "\u{1F600}",
];

fn text() -> impl Strategy<Value = String> {
    let piece = (
        prop::sample::select(PIECES),
        0..100u8,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(piece, dice, cut)| {
            let characters: Vec<char> = piece.chars().collect();
            let len = if dice < 20 {
                cut.index(characters.len() + 1)
            } else {
                characters.len()
            };
            characters[..len].iter().collect::<String>()
        });
    prop::collection::vec(piece, 1..14).prop_map(|pieces| pieces.concat())
}

/// The text in pieces: after each piece as many characters as the next number says.
fn cut(text: &str, lengths: &[usize]) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut rest = &characters[..];
    let mut pieces = Vec::new();
    for &len in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        pieces.push(piece.iter().collect());
        rest = behind;
    }
    pieces
}

/// What a masker makes of the pieces. After each it is checked to hold no more than it may.
fn stream<S: AsRef<str>>(plan: &Arc<Plan>, pieces: &[S]) -> (String, Masker) {
    let mut masker = Masker::new(plan.clone());
    let mut out = String::new();
    for piece in pieces {
        masker.push(piece.as_ref(), &mut out);
        assert!(masker.held() <= plan.scanner().reach());
        assert!(masker.buffered() <= Masker::BUFFER_BYTES);
    }
    masker.finish(&mut out);
    assert_eq!(masker.held(), 0);
    (out, masker)
}

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("MASK_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default);
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn every_cutting_gives_what_the_whole_text_gives(
        text in text(),
        lengths in prop::collection::vec(1usize..8, 1..6),
    ) {
        let (whole, counts) = mask(&PLAN, &text);
        for lengths in [&lengths[..], &[1], &[usize::MAX]] {
            let (out, masker) = stream(&PLAN, &cut(&text, lengths));
            prop_assert_eq!(&out, &whole, "{:?} cut by {:?}", text, lengths);
            prop_assert_eq!(masker.counts(), counts.clone());
        }
    }
}

#[test]
fn the_scanner_finds_what_the_definition_says() {
    let oracle = oracle();
    let scanner = PLAN.scanner();
    let mut runner = proptest::test_runner::TestRunner::new(cases(2000));
    runner
        .run(&text(), |text| {
            prop_assert_eq!(scanner.find(&text), oracle.find(&text), "{:?}", text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_more_is_held_than_a_continuation_could_bear_on() {
    let oracle = oracle();
    let scanner = PLAN.scanner();
    let mut runner = proptest::test_runner::TestRunner::new(cases(300));
    runner
        .run(&text(), |text| {
            for (end, _) in text.char_indices() {
                let head = &text[..end];
                let mut effort = Effort::default();
                prop_assert_eq!(
                    scanner.undecided(head, 0, &mut effort),
                    oracle.undecided(head, 0),
                    "{:?}",
                    head
                );
            }
            Ok(())
        })
        .unwrap();
}
