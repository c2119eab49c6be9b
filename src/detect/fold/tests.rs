//! How texts are seen.

use super::*;

fn folded(raw: &str) -> (String, Vec<(usize, usize)>) {
    let mut room = Folding::default();
    let view = View::of(raw, &mut room);
    let places = (0..=view.text.len()).map(|at| (view.end(at), view.start(at)));
    (view.text.to_owned(), places.collect())
}

#[test]
fn what_only_looks_different_is_seen_as_plain() {
    for (raw, expected) in [
        ("plain", "plain"),
        ("１２３－４５", "123-45"),
        ("ａ＠ｂ．ｃｏ", "a@b.co"),
        ("1\u{A0}2\u{202F}3\u{3000}4", "1 2 3 4"),
        ("1‐2‑3‒4–5—6―7−8", "1-2-3-4-5-6-7-8"),
        ("٤۴߄४᠔𝟒𝟜🯴", "44444444"),
        (
            "1\u{AD}2\u{200B}3\u{2060}4\u{FE0F}5\u{34F}6\u{E0101}",
            "123456",
        ),
        ("\u{FEFF}é日Ω²①½", "é日Ω²①½"),
    ] {
        assert_eq!(seen(raw), expected, "{raw:?}");
        assert_eq!(Past::none().is_plain(raw), raw == expected, "{raw:?}");
    }
}

#[test]
fn every_decimal_digit_of_unicode_is_seen_as_one() {
    let nd = regex_automata::meta::Regex::new(r"^\p{Nd}$").unwrap();
    for c in '\u{80}'..=char::MAX {
        let like = matches!(seen_as(c), Seen::Like(b'0'..=b'9'));
        assert_eq!(like, nd.is_match(c.to_string().as_str()), "{c:?}");
    }
    assert_eq!(seen("０９٠٩𝟎𝟗𝟘𝟿"), "09090909");
}

#[test]
fn places_are_told_in_the_text_as_it_came() {
    let (text, places) = folded("a\u{AD}１\u{200B}\u{200B}b");
    assert_eq!(text, "a1b");
    assert_eq!(places, [(0, 0), (1, 3), (6, 12), (13, 13)]);
    let (text, places) = folded("\u{200B}é–\u{FE0F}");
    assert_eq!(text, "é-");
    assert_eq!(places, [(0, 3), (4, 4), (5, 5), (8, 11)]);
}

#[test]
fn more_unseen_than_seen_is_seen() {
    let unseen = "\u{200B}".repeat(Past::CREDIT / 3);
    assert_eq!(seen(&format!("1{unseen}2")), "12");
    assert_eq!(seen(&format!("1{unseen}\u{200B}2")), "1\u{200B}2");
    let between: String = (0..1000).map(|_| "abc\u{200B}").collect();
    assert_eq!(seen(&between).len(), 3000);
}

#[test]
fn an_escape_is_seen_as_what_it_stands_for() {
    for (raw, expected) in [
        (
            r"\n4111 \tx \\r\\n",
            "\\\u{B}4111 \\\u{B}x \\\\\u{B}\\\\\u{B}",
        ),
        (r"\u003ca\u0040b\u003e \u00e9 \\u00E9", "<a@b> é é"),
        (r"03\/12\\/1985 https:\/\/", "03/12/1985 https://"),
        // escapes of what only looks different, and of what is not seen
        (r"\uff11\u00a02\u200b3", "1 23"),
        // ends of lines, half of a pair
        (r"a\u000ab \ud83d\ude00.", "a\u{B}b \u{B}\u{B}."),
        // the backslashes before it are two at most
        (r"\\\\u0040 \\\/", r"\\@ \/"),
        ("a%40b %2b49 %2B1 %4 50%", "a@b +49 +1 %4 50%"),
        (
            "k%3D1%26d%3A03%2F12%20%22x%22%0A%25 %41%C3%A9%zz",
            "k=1&d:03/12%%x%%% %41%C3%A9%zz",
        ),
        ("a%2540b %253D1 %2541 %25zz", "a@b =1 %41 %zz"),
        ("1%20(2)%203%20x%20 4%2520 5%252067", "1 (2) 3%x% 4% 5 67"),
        // a number behind a percent sign
        ("5%4012888x5%40128888", "5@12888x5%40128888"),
        // colours
        (
            "\u{1B}[31m1\u{1B}[0;1m2\u{1B}[m\u{1B}[K \u{1B}[31 \u{1B}x",
            "12 \u{1B}[31 \u{1B}x",
        ),
        (
            r"\u001b[31m1\\x1B[38;5;196m2\033[0m3\e[m \u001b \e \x1b[2J",
            "123 \u{B} \\e \\x1b[2J",
        ),
        // no escapes
        (
            r"\x41 \d \ \\ \u12 \uzzzz \U0041 C:\Docs \é",
            r"\x41 \d \ \\ \u12 \uzzzz \U0041 C:\Docs \é",
        ),
        (r"u0041 n /", "u0041 n /"),
    ] {
        assert_eq!(seen(raw), expected, "{raw:?}");
        assert_eq!(Past::none().is_plain(raw), raw == expected, "{raw:?}");
    }
    let (text, places) = folded(r"\na\u0040b");
    assert_eq!(text, "\\\u{B}a@b");
    assert_eq!(places, [(0, 0), (1, 1), (2, 2), (3, 3), (9, 9), (10, 10)]);
}

#[test]
fn characters_are_told_one_by_one() {
    let told: Vec<_> = characters("a\\n１\\\\u00e9\u{AD}é%40").collect();
    let expected = [
        ("a", 'a'),
        ("\\", '\\'),
        ("n", ESCAPE),
        ("１", '1'),
        (r"\\u00e9", 'é'),
        ("\u{AD}", '\u{AD}'),
        ("é", 'é'),
        ("%40", '@'),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_may_become_an_escape_is_unfinished() {
    for (text, bytes) in [
        ("", 0),
        (r"a\", 1),
        (r"a\\", 2),
        (r"a\\\\", 2),
        (r"\u", 2),
        (r"\\u0", 4),
        (r"\\\u00e", 6),
        (r"\u00e9", 0),
        (r"\\n", 0),
        (r"\x4", 0),
        (r"\u001b", 6),
        ("bu00", 0),
        ("u", 0),
        ("abc", 0),
        ("50%", 1),
        ("a%4", 2),
        ("a%2", 2),
        ("a%3", 2),
        ("a%3D", 0),
        ("a%8", 0),
        ("a%40", 3),
        ("a%4012345", 8),
        ("a%40123456", 0),
        ("a%40b", 0),
        ("a%20", 3),
        ("a%25", 3),
        ("a%254", 4),
        ("a%254012345", 10),
        ("a%25z", 0),
        ("a\u{1B}", 1),
        ("a\u{1B}[0;31", 6),
        ("a\u{1B}[0;31m", 0),
        ("a\u{1B}[00000000000000000", 0),
        (r"\\\u001b[38;5;196", 16),
        (r"\x1", 3),
        (r"\033[1", 6),
        (r"\e", 2),
        (r"\ex", 0),
    ] {
        assert_eq!(unfinished(text), bytes, "{text:?}");
        assert!(bytes <= UNFINISHED);
    }
}

#[test]
fn a_text_folded_in_pieces_is_folded_as_a_whole() {
    let raw = format!(
        r"a１{}–b{}c\n\\n\u0041\\\u00e9\/x\é\\\\\\t%40%2B%4\u12\u20%253D1%202%25\u001b[1m\\x1b[38;5;1mx%4012345",
        "\u{200B}".repeat(80),
        "\u{AD}é".repeat(90)
    );
    let mut room = Folding::default();
    for (at, _) in raw.char_indices() {
        // What is unfinished is awaited.
        let at = at - unfinished(&raw[..at]);
        let mut past = Past::none();
        past.pass(&raw, at);
        let mut behind = Past::none();
        let head = room.fold(&raw[..at], 0, &mut behind).text.to_owned();
        assert_eq!(past, behind);
        let tail = room.fold(&raw[at..], 0, &mut past).text;
        assert_eq!(head + tail, seen(&raw), "at {at}");
    }
}
