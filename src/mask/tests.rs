//! For every text and every way of cutting it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::detect::{Catalog, Custom, MAX_REACH, Terms, oracle::Oracle};

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
    "١٢٣-45-6789",
    "4111\u{A0}1111\u{3000}1111\u{A0}1111",
    "12\u{AD}3–45‑67\u{200D}89",
    "\u{A0}",
    "—",
    "\u{200B}",
    "\u{FEFF}\u{FE0F}",
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
    let plain = pieces.iter().all(|piece| piece.as_ref().is_ascii());
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

/// The same as below without a library: many more texts in the time, but a failure is not made smaller.
#[test]
fn a_hundred_thousand_texts_are_masked_the_same_however_they_are_cut() {
    let (texts, seed) = (asked("MASK_TEXTS", 100_000), asked("MASK_SEED", 1));
    println!("{texts} texts from seed {seed}");
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(thread << 40));
                for _ in 0..texts.div_ceil(threads) {
                    let text = dice.text();
                    let pieces = dice.pieces(&text);
                    let (whole, counts) = mask(&PLAN, &text);
                    let (out, masker) = stream(&PLAN, &pieces);
                    assert_eq!(out, whole, "{text:?} cut into {pieces:?}");
                    assert_eq!(masker.counts(), counts, "{text:?}");
                }
            });
        }
    });
}

/// Terms that begin like others, end in them, or look like what patterns find.
static TERMS: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let list = |entity: &str, terms: &[&str], fold_case, whole_word| Terms {
        entity: entity.into(),
        terms: terms.iter().map(|&term| term.into()).collect(),
        fold_case,
        whole_word,
    };
    let catalog = Catalog::builtin().unwrap().with_terms(&[
        list(
            "PROJECT",
            &[
                "Blue Heron",
                "blue heron two",
                "Straße",
                "heron",
                "Nord\u{2013}Süd",
            ],
            true,
            true,
        ),
        list("CODE", &["x1", "x12", "1234", "a@b"], false, false),
    ]);
    let catalog = catalog.unwrap();
    let scanner = catalog.scanner(catalog.defaults()).unwrap();
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
});

#[test]
fn terms_are_found_among_all_else() {
    for (text, masked) in [
        ("BLUE HERON", "[PROJECT]"),
        ("blue heron two", "[PROJECT]"),
        ("Blue Heron twofold", "[PROJECT] twofold"),
        ("Blue Herons", "Blue Herons"),
        ("in der STRAẞE", "in der [PROJECT]"),
        ("x1 x12 x123 X1", "[CODE] [CODE] [CODE]3 X1"),
        ("a@b a@b.co", "[CODE] [EMAIL_ADDRESS]"),
        ("SSN 123-45-6789 heron x1", "SSN [US_SSN] [PROJECT] [CODE]"),
        ("Blue\u{a0}Her\u{ad}on", "[PROJECT]"),
        ("Nord-Süd and Nord\u{2013}Süd", "[PROJECT] and [PROJECT]"),
    ] {
        assert_eq!(mask(&TERMS, text).0, masked, "{text}");
    }
    let taken = Catalog::builtin().unwrap().with_terms(&[Terms {
        entity: "US_SSN".into(),
        terms: vec!["a".into()],
        fold_case: true,
        whole_word: true,
    }]);
    assert!(taken.is_err());
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn terms_are_masked_the_same_however_the_text_is_cut(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "Blue", " ", "heron", "HERON", "Two", "x1", "2", "34", "Straß", "e", "é", "a@b", ".co", "123-45-6789", "\u{ad}",
        ]), 0..14),
        lengths in prop::collection::vec(1usize..8, 1..6),
    ) {
        let text = pieces.concat();
        let (whole, counts) = mask(&TERMS, &text);
        for lengths in [&lengths[..], &[1]] {
            let (out, masker) = stream(&TERMS, &cut(&text, lengths));
            prop_assert_eq!(&out, &whole, "{:?} cut by {:?}", text, lengths);
            prop_assert_eq!(masker.counts(), counts.clone());
        }
    }

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
    let mut runner = proptest::test_runner::TestRunner::new(cases(200));
    runner
        .run(&text(), |text| {
            let mut masker = Masker::new(PLAN.clone());
            for (at, c) in text.char_indices() {
                let end = at + c.len_utf8();
                masker.push(&text[at..end], &mut String::new());
                let head = &text[..end];
                prop_assert_eq!(masker.held(), oracle.held(head), "{:?}", head);
                let undecided = PLAN.scanner().undecided(head, 0, &mut Effort::default());
                prop_assert_eq!(undecided, oracle.undecided(head, 0), "{:?}", head);
            }
            Ok(())
        })
        .unwrap();
}

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

/// One example of each detector, and of each notation.
const EXAMPLES: &[&str] = &[
    "123-45-6789",
    "123 45 6789",
    "SSN: 123456789",
    "4111 1111 1111 1111",
    "378282246310005",
    "jane.doe+x@mail.example.com",
    "jürgen@müller.de",
    "用户@例子.广告",
    "+1 (212) 555-0100",
    "+442079460958",
    "(212) 555-0187",
    "phone 2125550187",
    "DE89 3704 0044 0532 0130 00",
    "10.0.0.1",
    "2001:db8::ff00:42:8329",
    "::ffff:10.0.0.1",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "sk-ant-api03-abcdefghijklmnopqrst",
    "sk-proj-abcdefghijklmnopqrstuvwx",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "xoxb-123456789012-abcdef",
    "sk_live_0123456789abcdefghijklmn",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
    CREDENTIAL,
    "B-12",
    "note: x",
    "<abc>",
];

#[test]
fn a_value_cut_in_two_anywhere_is_masked() {
    for example in EXAMPLES {
        let text = format!("is {example}\nnext");
        let (whole, counts) = mask(&PLAN, &text);
        assert_eq!(counts.values().sum::<u64>(), 1, "{example}");
        for (at, _) in text.char_indices() {
            let (out, _) = stream(&PLAN, &[&text[..at], &text[at..]]);
            assert_eq!(out, whole, "{example} cut at {at}");
        }
    }
}

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

static CATALOG_BUILTIN: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());

static BUILTIN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let scanner = CATALOG_BUILTIN.scanner(CATALOG_BUILTIN.entities()).unwrap();
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
});

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

#[test]
fn long_texts_around_every_bound_give_the_same_for_every_cutting() {
    let oracle = oracle();
    for filler in ["a", "a-", "日", "1.", "note: ", "eyJ", "x@y", "<", " "] {
        for len in [300, 320, 321, 1000, 1023, 1024, 1025, 1100, 4096, 5300] {
            let text = format!(
                "{}123-45-6789 a@b.co B-1 \n{}@b.co\n",
                filler.repeat(len / filler.len()),
                filler.repeat(30)
            );
            let (whole, _) = mask(&PLAN, &text);
            if len < 1200 {
                assert_eq!(
                    PLAN.scanner().find(&text),
                    oracle.find(&text),
                    "{len} of {filler}"
                );
            }
            for piece in [1, 7, 1024, 4096, usize::MAX] {
                assert_eq!(
                    stream(&PLAN, &cut(&text, &[piece])).0,
                    whole,
                    "{len} of {filler} cut by {piece}"
                );
            }
        }
    }
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

#[test]
fn a_word_before_a_value_counts_though_the_text_around_it_was_dropped() {
    for filler in 4080..4240 {
        let text = format!(
            "{}ssn one two three four 123456789.",
            ". ".repeat(filler / 2) + &"\n".repeat(filler % 2)
        );
        for piece in [1, 4096] {
            let (out, _) = stream(&PLAN, &cut(&text, &[piece]));
            assert!(
                out.ends_with("four [US_SSN]."),
                "{filler} bytes before, cut by {piece}"
            );
        }
    }
}

#[test]
fn a_value_across_the_end_of_a_search_is_found() {
    // Searches look 16 KiB ahead at a time.
    let oracle = oracle();
    for value in [
        "4111 1111 1111 1111 x jane.doe@mail.example.com 1",
        "sk-proj-abcdefghijklmnopqrstuvwx, name Großß #tag",
        "2001:db8::ff00:42:8329 or DE89 3704 0044 0532 0130 00",
    ] {
        let end = 16 << 10;
        for filler in (end - 60..end - 6).step_by(5).chain(end - 6..end + 3) {
            let text = format!("{}{value}", " ".repeat(filler));
            let found = PLAN.scanner().find(&text);
            assert_eq!(found.len(), 2);
            assert_eq!(found, oracle.find(&text), "{filler} bytes before {value}");
        }
    }
}
