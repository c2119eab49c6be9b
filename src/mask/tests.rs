//! For every text and every way of cutting it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::detect::{Catalog, Custom, MAX_REACH, Terms, oracle::Oracle};

mod bounds;
mod cutting;
mod escapes;
mod labels;
mod seen;
mod terms;

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
    .with_credentials([CREDENTIAL])
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
    "١٢٣-45-6789",
    "4111\u{A0}1111\u{3000}1111\u{A0}1111",
    "12\u{AD}3–45‑67\u{200D}89",
    "\u{A0}",
    "—",
    "\u{200B}",
    "\u{FEFF}\u{FE0F}",
    r"\n",
    r"\\n",
    r"\u0040",
    r"\u00e9",
    r"\\u200b\uff11",
    r"\\\",
    r"\u00",
    r"\/",
    "a%40b.co",
    "%2B",
    "%3D",
    "%20",
    "%22",
    "%253A",
    "%25",
    "4111%201111%201111%201111",
    "%4012888888881881",
    "%201-45-6789",
    "%25212-555-0187",
    "%4.",
    "%22",
    "1 1111 1111 ",
    "\u{1B}[31m",
    "\u{1B}[0m\u{1B}[K",
    "\u{1B}",
    r"\u001b[0;31m",
    r"\\x1b[38;5;196m",
    r"\e[m",
    "40",
    "n",
    "u",
    HIDING,
];

/// More than a text has credit for.
const HIDING: &str = concat!(
    "\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}",
    "\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}\u{200D}",
    "\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}",
    "\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}\u{FEFF}",
    "\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}\u{AD}",
    "\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}\u{FE0F}",
    "\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}\u{202A}",
);

fn text() -> impl Strategy<Value = String> {
    let piece = (
        prop::sample::select(PIECES),
        0..100u8,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(piece, dice, index)| {
            let characters: Vec<char> = piece.chars().collect();
            let at = index.index(characters.len() + 1);
            match dice {
                ..15 => characters[..at].iter().collect(),
                15..25 => disguised(&characters, at),
                _ => piece.to_owned(),
            }
        });
    prop::collection::vec(piece, 1..14).prop_map(|pieces| pieces.concat())
}

/// The same value to a reader's eye.
fn disguised(characters: &[char], seed: usize) -> String {
    let unseen = ["", "", "\u{200B}", "\u{AD}\u{FE0F}"];
    let disguise = |(at, &c): (usize, &char)| {
        let wide = ('!'..='~').contains(&c) && (at + seed).is_multiple_of(3);
        let c = if wide {
            char::from_u32(c as u32 + 0xFEE0).unwrap()
        } else {
            c
        };
        format!("{c}{}", unseen[(at * 7 + seed) % unseen.len()])
    };
    characters.iter().enumerate().map(disguise).collect()
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
    let plain = |c: char| c.is_ascii() && !matches!(c, '\\' | '%');
    let plain = pieces.iter().all(|piece| piece.as_ref().chars().all(plain));
    for piece in pieces {
        masker.push(piece.as_ref(), &mut out);
        assert!(masker.held() <= plan.scanner().reach() || !plain);
        assert!(masker.held() <= Masker::HELD_BYTES);
        assert!(masker.buffered() <= Masker::BUFFER_BYTES);
    }
    masker.finish(&mut out);
    assert_eq!(masker.held(), 0);
    (out, masker)
}

/// How many texts, and from which seed: `./dev fuzz` asks for more, and others.
#[allow(
    clippy::disallowed_methods,
    reason = "how long to search, and where, is the tester's choice"
)]
fn asked(name: &str, default: u64) -> u64 {
    let asked = std::env::var(name).ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(default)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// A generator of numbers that is fast (Steele and Vigna, SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.below(13) {
            let piece = PIECES[self.below(PIECES.len())];
            let characters: Vec<char> = piece.chars().collect();
            let at = self.below(characters.len() + 1);
            match self.below(100) {
                ..15 => text.extend(&characters[..at]),
                15..25 => text.push_str(&disguised(&characters, at)),
                _ => text.push_str(piece),
            }
        }
        text
    }

    fn pieces(&mut self, text: &str) -> Vec<String> {
        let most = [1, 2, 7, 60][self.below(4)];
        let lengths: Vec<usize> = (0..5).map(|_| 1 + self.below(most)).collect();
        cut(text, &lengths)
    }
}

static CATALOG_BUILTIN: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());

static BUILTIN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let scanner = CATALOG_BUILTIN.scanner(CATALOG_BUILTIN.entities()).unwrap();
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
});

#[test]
fn text_that_nothing_can_come_of_leaves_at_once() {
    let mut masker = Masker::new(PLAN.clone());
    let mut out = String::new();
    for word in [
        "The ",
        "answer ",
        "is: ",
        "«yes», ",
        "of ",
        "course! ",
        "\n",
    ] {
        let before = out.len();
        masker.push(word, &mut out);
        assert_eq!((&out[before..], masker.held()), (word, 0));
    }
}

#[test]
fn a_masker_starts_anew_after_its_end() {
    let mut masker = Masker::new(PLAN.clone());
    let mut out = String::new();
    for piece in ["ssn 12", "3456789"] {
        masker.push(piece, &mut out);
        masker.finish(&mut out);
    }
    assert_eq!(out, "ssn 123456789", "two texts, not one");
    masker.push("#tag", &mut out);
    masker.finish(&mut out);
    assert_eq!(
        out, "ssn 123456789[LINE]",
        "the start of the second text is a start of text"
    );
}

#[test]
fn operators_put_in_place_what_they_say() {
    for (operator, value, expected) in [
        (Operator::Replace, "4111 1111 1111 1234", "[X]"),
        (Operator::Redact, "4111 1111 1111 1234", ""),
        (
            Operator::KeepLast(4),
            "4111 1111-1111 1234",
            "**** ****-**** 1234",
        ),
        (Operator::KeepLast(4), "123", "***"),
        (Operator::KeepLast(4), "1234", "****"),
        (Operator::KeepLast(4), "1-2345", "*-2345"),
        (Operator::KeepLast(0), "ab", "**"),
        (Operator::KeepLast(1), "日本", "*本"),
        (Operator::KeepLast(255), "a@b.co", "*@*.**"),
        (
            Operator::KeepLast(3),
            r"jos\u00e9\u0040b.co",
            "***\u{2A}\\u0040b.co",
        ),
        (Operator::KeepLast(4), r"a\u00e9b%40b.co\n", r"**b%40b.co\n"),
    ] {
        let catalog = Catalog::with_custom(&[Custom {
            entity: "X".into(),
            regex: ".{1,30}".into(),
            context: Vec::new(),
        }]);
        let scanner = catalog.unwrap().scanner(&["X".into()].into()).unwrap();
        let plan = Plan::new(scanner, &[("X".into(), operator)].into());
        assert_eq!(mask(&plan, value).0, expected, "{operator:?} of {value}");
    }
}

#[test]
fn a_plan_for_nothing_passes_everything_at_once() {
    let plan = Arc::new(Plan::new(
        CATALOG_BUILTIN.scanner(&BTreeSet::new()).unwrap(),
        &BTreeMap::new(),
    ));
    let mut masker = Masker::new(plan);
    let mut out = String::new();
    masker.push("123-45-678", &mut out);
    assert_eq!((&*out, masker.held()), ("123-45-678", 0));
}

#[test]
fn a_masker_can_move_to_another_thread_and_shows_no_text() {
    fn is_send<T: Send>(_: &T) {}
    let mut masker = Masker::new(PLAN.clone());
    is_send(&masker);
    masker.push("123-45-", &mut String::new());
    let shown = format!("{masker:?}");
    assert!(!shown.contains("123") && !shown.contains("lent"), "{shown}");
}
