//! The pieces of a text are masked as the whole is, and held no longer than they must be.

use super::*;

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

proptest! {
    #![proptest_config(cases(500))]

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

/// One example of each detector, and of each notation.
const EXAMPLES: &[&str] = &[
    "123-45-6789",
    "SSN: 123 45 6789",
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
    "GB82%20WEST%201234%205698%207654%2032",
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
    "-----BEGIN%20PRIVATE%20KEY-----%0AMIIE%0A-----END%20PRIVATE%20KEY-----",
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
