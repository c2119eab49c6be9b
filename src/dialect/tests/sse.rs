use proptest::prelude::*;

use super::{
    super::{
        ShapeError,
        sse::{Block, Framing},
    },
    cut,
};

fn blocks(framing: &mut Framing, pieces: &[&[u8]]) -> Result<Vec<Block<'static>>, ShapeError> {
    let mut out = Vec::new();
    for piece in pieces {
        framing.push(piece);
        while framing.advance()? {
            out.push(framing.block()?.into_owned());
        }
    }
    Ok(out)
}

fn encoded(block: &Block<'_>, data: Option<&str>, lines: &[(usize, String)]) -> String {
    let mut out = Vec::new();
    block.encode(data, lines, &mut out);
    String::from_utf8(out).unwrap()
}

/// The data that the end of the stream has cut off.
fn rest(framing: &mut Framing) -> Option<Block<'static>> {
    let any = framing.rest().unwrap();
    any.then(|| framing.block().unwrap().into_owned())
}

/// What a client of the specification dispatches: (event, data, id).
fn dispatched(blocks: &[Block<'_>]) -> Vec<(String, String)> {
    let event = |block: &Block<'_>| {
        let name = block
            .fields()
            .filter(|(_, field)| field.name == "event")
            .last()
            .map(|(_, field)| field.value);
        Some((
            name.unwrap_or_default().to_owned(),
            block.data()?.into_owned(),
        ))
    };
    blocks.iter().filter_map(event).collect()
}

#[test]
fn the_examples_of_the_specification() {
    // WHATWG HTML 9.2.6, the four streams shown there.
    let table: &[(&str, &[(&str, &str)])] = &[
        (
            "data: YHOO\ndata: +2\ndata: 10\n\n",
            &[("", "YHOO\n+2\n10")],
        ),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
            &[("", "first event"), ("", "second event")],
        ),
        ("data\n\ndata\ndata\n\ndata:", &[("", ""), ("", "\n")]),
        ("data:test\n\ndata: test\n\n", &[("", "test"), ("", "test")]),
        (
            "event: add\r\ndata: 73857293\r\n\r\nevent: remove\rdata: 2153\r\r",
            &[("add", "73857293"), ("remove", "2153")],
        ),
        ("\u{feff}data: marked\n\n", &[("", "marked")]),
        ("data: \u{feff}inside\n\n", &[("", "\u{feff}inside")]),
    ];
    for (stream, expected) in table {
        let blocks = blocks(&mut Framing::default(), &[stream.as_bytes()]).unwrap();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, data)| ((*name).to_owned(), (*data).to_owned()))
            .collect();
        assert_eq!(dispatched(&blocks), expected, "{stream:?}");
    }
}

#[test]
fn a_changed_event_keeps_its_fields_their_order_and_its_line_ends() {
    let stream = "\u{feff}: hello\r\nid: 7\r\ndata:a\r\nevent: x\r\ndata: b\r\nodd:field\r\n\r\n";
    let blocks = blocks(&mut Framing::default(), &[stream.as_bytes()]).unwrap();
    let [comment, event] = &blocks[..] else {
        panic!("{blocks:?}")
    };
    assert_eq!(encoded(comment, None, &[]), "\u{feff}: hello\r\n");
    assert_eq!(event.data().unwrap(), "a\nb");
    assert_eq!(
        encoded(event, Some("c"), &[]),
        "id: 7\r\ndata: c\r\nevent: x\r\nodd:field\r\n\r\n"
    );
    assert_eq!(
        encoded(event, Some("c\nd"), &[]),
        "id: 7\r\ndata: c\r\ndata: d\r\nevent: x\r\nodd:field\r\n\r\n"
    );
    // A line end in a value would end the event and begin one of the model's own.
    let forged = vec![(0, "id: 1\n\ndata: forged".to_owned())];
    assert_eq!(
        encoded(event, None, &forged),
        "id: 1  data: forged\r\ndata:a\r\nevent: x\r\ndata: b\r\nodd:field\r\n\r\n"
    );
}

#[test]
fn a_keep_alive_leaves_at_once_and_an_event_only_whole() {
    let mut framing = Framing::default();
    assert_eq!(blocks(&mut framing, &[b": ping\n"]).unwrap().len(), 1);
    assert_eq!(blocks(&mut framing, &[b"data: x\n"]).unwrap().len(), 0);
    assert_eq!(rest(&mut framing).unwrap().data().unwrap(), "x");
    assert_eq!(rest(&mut framing), None);
}

#[test]
fn a_line_end_that_was_cut_is_one_line_end() {
    for line_end in ["\n", "\r\n", "\r"] {
        let stream = "data: a\ndata: b\n\n".replace('\n', line_end);
        for at in 0..=stream.len() {
            let (front, end) = stream.as_bytes().split_at(at);
            let blocks = blocks(&mut Framing::default(), &[front, end]).unwrap();
            assert_eq!(
                dispatched(&blocks),
                [(String::new(), "a\nb".to_owned())],
                "{stream:?} cut at {at}"
            );
        }
    }
}

#[test]
fn an_event_over_the_cap_is_an_error_before_it_ends() {
    let mut framing = Framing::with_cap(16);
    assert_eq!(
        blocks(&mut framing, &[b"data: 89012345\n\n"])
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        blocks(&mut framing, &[b"data: 89012345678"])
            .unwrap_err()
            .code,
        "event_too_large"
    );
    let long = b"data: 890123456\n\n";
    assert_eq!(
        blocks(&mut Framing::with_cap(16), &[long])
            .unwrap_err()
            .code,
        "event_too_large"
    );
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert_eq!(
        blocks(&mut Framing::default(), &[b"data: \xc3\n\n"])
            .unwrap_err()
            .code,
        "invalid_utf8"
    );
}

proptest! {
    /// For every stream and every way of cutting it: the same events, and unchanged they are the bytes that came.
    #[test]
    fn cutting_changes_nothing(
        pieces in prop::collection::vec(prop::sample::select(&["\r", "\n", "\r\n", "data", ":", " ", "é", "\u{feff}", "x", "id: 1", "data: y"][..]), 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let stream = pieces.concat();
        let mut whole = Framing::default();
        let expected = dispatched(&blocks(&mut whole, &[stream.as_bytes()]).unwrap());
        let mut framing = Framing::default();
        let mut found = blocks(&mut framing, &cut(stream.as_bytes(), &cuts)).unwrap();
        prop_assert_eq!(dispatched(&found), expected);
        found.extend(rest(&mut framing));
        let passed: String = found.iter().map(|block| encoded(block, None, &[])).collect();
        prop_assert_eq!(passed, stream);
        prop_assert_eq!(rest(&mut framing), None);
    }
}
