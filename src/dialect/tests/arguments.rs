use proptest::prelude::*;

use super::{
    super::{Channel, arguments::Arguments},
    Open, Runs, cut_text, masked_value, value, written,
};

fn through(pieces: &[&str], filter: &mut dyn super::TextFilter) -> String {
    let channel = Channel {
        choice: 0,
        field: "tool_calls.0.arguments".to_owned(),
    };
    let mut arguments = Arguments::default();
    let mut out = String::new();
    for piece in pieces {
        arguments.push(piece, &channel, filter, &mut out).unwrap();
    }
    arguments.finish(&channel, filter, &mut out);
    out
}

#[test]
fn values_are_masked_wherever_arguments_have_them() {
    let table = [
        (r#"{"ssn":"078-05-1120"}"#, r#"{"ssn":"[\"N\"]"}"#),
        (
            r#"{"ssn":"\u0030\u003778\u002d05-1120!"}"#,
            r#"{"ssn":"[\"N\"]!"}"#,
        ),
        (
            r#"{"card" : 4111111111111111 , "n":12}"#,
            r#"{"card" : "[\"N\"]" , "n":12}"#,
        ),
        (r#"{"4111111111111111":true}"#, r#"{"[\"N\"]":true}"#),
        (r#"["12","34"]"#, r#"["12","34"]"#),
        (
            r#"{"a":"x"}{"b":"\u0031234"}"#,
            r#"{"a":"x"}{"b":"[\"N\"]"}"#,
        ),
        ("12345", r#""[\"N\"]""#),
        (
            r#"{"1111":1,"a":{"2222":2,"b":[{"3333":3}]},"4444":4,"5555-6666":5,"c":{"7777":6}}"#,
            r#"{"[\"N\"]":1,"a":{"[\"N\"]":2,"b":[{"[\"N\"]":3}]},"[\"N\"]_2":4,"[\"N\"]_3":5,"c":{"[\"N\"]":6}}"#,
        ),
        (r#"{"card":4.111e3}"#, r#"{"card":"[\"N\"]"}"#),
        (r#"{"card":-4111000E-3 }"#, r#"{"card":"[\"N\"]" }"#),
        (r#"{"n":1.2e1,"f":1e400}"#, r#"{"n":1.2e1,"f":1e400}"#),
        // Not JSON: plain text from there on.
        ("card 4111-1111", "card [\"N\"]"),
        ("{card: 1234}", "{card: [\"N\"]}"),
        ("{\"a\": 1234-5678}", "{\"a\": [\"N\"]}"),
        ("{\"a\": \"12\\q34\", 1234", "{\"a\": \"12\\q34\", [\"N\"]"),
        ("{\"a\": \"1234", "{\"a\": \"[\\\"N\\\"]"),
        ("{\"a\": \"x\\u12", "{\"a\": \"x\\u12"),
        ("{\"a\": 1234", "{\"a\": \"[\\\"N\\\"]\""),
        ("", ""),
    ];
    for (arguments, expected) in table {
        for at in 0..=arguments.len() {
            let pieces = cut_text(arguments, &[at]);
            let left = through(&pieces, &mut Runs::default());
            assert_eq!(left, expected, "{arguments}, cut at {at}");
        }
    }
}

#[test]
fn arguments_nested_too_deep_are_refused() {
    let channel = Channel::default();
    let deep = "[".repeat(65);
    let fault = Arguments::default()
        .push(&deep, &channel, &mut Runs::default(), &mut String::new())
        .unwrap_err();
    assert_eq!(fault.code, "too_deep");
}

proptest! {
    /// For every JSON written in any way and cut anywhere: valid JSON with each text masked as if seen whole.
    #[test]
    fn json_stays_json_and_is_masked_text_by_text(
        value in value(),
        whims in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let arguments = written(&value, &mut whims.into_iter());
        let out = through(&cut_text(&arguments, &cuts), &mut Runs::default());
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), masked_value(&value));
    }

    /// For every text, JSON or not, every way of cutting it gives the same.
    #[test]
    fn cutting_changes_nothing(
        pieces in prop::collection::vec(prop::sample::select(
            &["{", "}", "[", "]", "\"", "\"a\"", ":", ",", " ", "\\", "\\ud83d", "\\ude00", "\\u003", "1", "23-", "-", "e5", "true", "null", "x", "é"][..]
        ), 0..24),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let arguments = pieces.concat();
        let whole = through(&[&arguments], &mut Runs::default());
        prop_assert_eq!(through(&cut_text(&arguments, &cuts), &mut Runs::default()), whole);
        prop_assert_eq!(through(&cut_text(&arguments, &cuts), &mut Open), arguments);
    }
}
