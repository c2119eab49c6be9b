mod own;

use proptest::prelude::*;

use super::{super::tests::*, *};
use crate::dialect::{Channel, Passed};

/// A field with a length.
fn put(number: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(u64::from(number) << 3 | 2, &mut out);
    wire::put_varint(bytes.as_ref().len() as u64, &mut out);
    out.extend_from_slice(bytes.as_ref());
    out
}

/// A field that is a number.
fn number(field: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(u64::from(field) << 3, &mut out);
    wire::put_varint(value, &mut out);
    out
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_frame(message, &mut out);
    out
}

fn tensor(name: &str, datatype: &str, contents: Option<&[&str]>) -> Vec<u8> {
    let mut tensor = [put(1, name), put(2, datatype), put(3, [1])].concat();
    if let Some(texts) = contents {
        let texts: Vec<u8> = texts.iter().flat_map(|text| put(8, text)).collect();
        tensor.extend(put(5, texts));
    }
    tensor
}

/// Elements of a BYTES tensor as raw contents have them.
fn raw(texts: &[&str]) -> Vec<u8> {
    let element = |text: &&str| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        [&length[..], text.as_bytes()].concat()
    };
    texts.iter().flat_map(element).collect()
}

fn parameter(key: &str, value: &str) -> Vec<u8> {
    put(4, [put(1, key), put(2, put(3, value))].concat())
}

/// A request with `text` in each place that a text may have.
fn asked(text: &str) -> Vec<u8> {
    [
        put(1, "llama"),
        put(3, "id-1"),
        parameter("prompt", text),
        put(5, tensor("text_input", "BYTES", Some(&[text, ""]))),
        put(5, tensor("temperature", "FP32", None)),
    ]
    .concat()
}

fn asked_raw(text: &str) -> Vec<u8> {
    [
        put(1, "llama"),
        put(5, tensor("text_input", "BYTES", None)),
        put(5, tensor("mask", "FP32", None)),
        put(7, raw(&[text, "and 1111"])),
        put(7, [0x31_u8; 8]),
    ]
    .concat()
}

/// An answer whose message says `text`, in both forms.
fn said(text: &str, in_raw: bool) -> Vec<u8> {
    let head = [put(1, "llama"), put(2, "1"), put(3, "id-1")].concat();
    match in_raw {
        true => [
            head,
            put(5, tensor("text_output", "BYTES", None)),
            put(6, raw(&[text])),
        ]
        .concat(),
        false => [head, put(5, tensor("text_output", "BYTES", Some(&[text])))].concat(),
    }
}

const KIND: Option<&str> = Some("application/grpc");

fn request(name: &str, body: &[u8]) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (dialect, endpoint) = endpoint("kserve", name);
    dialect.read_request(endpoint, endpoint.path, KIND, Bytes::copy_from_slice(body))
}

fn answer(name: &str, pieces: &[&[u8]]) -> (Result<Passed, ShapeError>, Runs) {
    let (dialect, endpoint) = endpoint("kserve", name);
    let mut reader = dialect.read_response(endpoint, 200, KIND).unwrap();
    let mut filter = Runs::default();
    let passed = read(&mut *reader, pieces.iter().copied(), &mut filter);
    (passed, filter)
}

fn refusal(name: &str, message: &[u8]) -> &'static str {
    request(name, &framed(message)).unwrap_err().code
}

#[test]
fn every_method_of_the_protocol_that_is_open_is_in_the_schema() {
    for endpoint in kserve::ENDPOINTS {
        let method = kserve::method(endpoint).unwrap();
        let about_a_model = endpoint.name.starts_with("model_");
        assert_eq!(!method.model.is_empty(), about_a_model, "{}", endpoint.name);
        let streams = endpoint.name == "model_stream_infer";
        assert_eq!(
            (method.asks_often, method.answers_often),
            (streams, streams)
        );
    }
}

#[test]
fn a_request_is_masked_in_every_place_and_nothing_else_changes() {
    for (make, texts) in [(asked as fn(&str) -> _, 4), (asked_raw, 2)] {
        let body = framed(&make("call 555-0100 now"));
        let read = request("model_infer", &body).unwrap();
        assert_eq!(
            (read.model(), read.stream(), read.tools()),
            ("llama", false, false)
        );
        assert_eq!(read.texts().len(), texts);
        assert!(read.unscanned().is_empty());
        assert_eq!(read.rewrite(&mut |_| None), body, "as it came");
        let expected = make("call [\"N\"] now");
        let expected = match texts {
            2 => {
                let (was, is) = (raw(&["and 1111"]), raw(&["and [\"N\"]"]));
                // The length of the tensor's contents stands before them.
                let text = raw(&["call [\"N\"] now"]);
                let (before, _) = expected.split_at(expected.len() - put(7, [0; 8]).len());
                let before = &before[..before.len() - put(7, [text.clone(), was].concat()).len()];
                [before, &put(7, [text, is].concat()), &put(7, [0x31_u8; 8])].concat()
            }
            _ => expected,
        };
        assert_eq!(read.rewrite(&mut mask), framed(&expected));
    }
}

#[test]
fn names_of_tensors_and_keys_of_parameters_say_what_a_text_is() {
    let read = request("model_infer", &framed(&asked("x"))).unwrap();
    let labels: Vec<_> = read
        .texts()
        .iter()
        .map(|text| text.label.to_owned())
        .collect();
    assert_eq!(labels, ["", "prompt", "text_input", "text_input"]);
    let read = request("model_infer", &framed(&asked_raw("x"))).unwrap();
    assert!(read.texts().iter().all(|text| text.label == "text_input"));
}

#[test]
fn what_people_see_of_a_request_names_every_field_and_shows_its_texts_masked() {
    let read = request("model_infer", &framed(&asked("call 555-0100"))).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&read.shown(&mut mask)).unwrap();
    assert_eq!(shown["model_name"], "llama");
    assert_eq!(shown["inputs.0.contents.bytes_contents.0"], "call [\"N\"]");
    assert_eq!(shown["inputs.1.datatype"], "FP32");
    let read = request("model_infer", &framed(&asked_raw("hi"))).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&read.shown(&mut mask)).unwrap();
    assert_eq!(shown["raw_input_contents.0.0"], "hi");
    assert_eq!(shown["raw_input_contents.1"], "(8 bytes)");
}

#[test]
fn what_two_readers_could_take_differently_is_refused() {
    let model = || put(1, "llama");
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("unknown_field", [model(), put(99, "x")].concat()),
        (
            "unknown_field",
            [
                model(),
                put(5, [tensor("t", "BYTES", None), put(9, "x")].concat()),
            ]
            .concat(),
        ),
        ("duplicate_field", [model(), put(1, "other")].concat()),
        (
            "duplicate_field",
            [
                model(),
                put(4, put(2, [put(3, "x"), number(1, 1)].concat())),
            ]
            .concat(),
        ),
        ("invalid_protobuf", [model(), number(3, 1)].concat()),
        ("invalid_protobuf", vec![0x0b, 0x0c]),
        (
            "invalid_protobuf",
            vec![0x0a, 0x85, 0x00, b'l', b'l', b'a', b'm', b'a'],
        ),
        ("invalid_protobuf", vec![0x0a, 0x09, b'l']),
        ("invalid_protobuf", vec![0xff; 11]),
        ("invalid_utf8", [model(), put(3, [0xff])].concat()),
        ("missing_model", vec![]),
        ("missing_model", put(1, "")),
        ("invalid_model", put(1, "a\nb")),
        (
            "unknown_datatype",
            [model(), put(5, tensor("t", "STRING", None))].concat(),
        ),
        ("unknown_datatype", [model(), put(5, put(1, "t"))].concat()),
        (
            "invalid_tensor",
            [
                model(),
                put(5, tensor("t", "BYTES", None)),
                put(7, [9, 0, 0, 0, b'x']),
            ]
            .concat(),
        ),
        (
            "invalid_tensor",
            [model(), put(5, tensor("t", "BYTES", None)), put(7, [1, 0])].concat(),
        ),
        ("invalid_tensor", [model(), put(7, raw(&["x"]))].concat()),
        (
            "invalid_tensor",
            [
                model(),
                put(5, tensor("t", "BYTES", Some(&["x"]))),
                put(7, raw(&["x"])),
            ]
            .concat(),
        ),
        (
            "invalid_tensor",
            [
                model(),
                put(5, tensor("t", "BYTES", None)),
                put(5, tensor("u", "BYTES", None)),
                put(7, raw(&["x"])),
            ]
            .concat(),
        ),
        (
            "shared_memory",
            [
                model(),
                put(
                    5,
                    [
                        tensor("t", "BYTES", None),
                        put(
                            4,
                            [put(1, "shared_memory_region"), put(2, put(3, "r"))].concat(),
                        ),
                    ]
                    .concat(),
                ),
            ]
            .concat(),
        ),
        (
            "shared_memory",
            [
                model(),
                put(
                    6,
                    [
                        put(1, "t"),
                        put(
                            2,
                            [put(1, "shared_memory_region"), put(2, put(3, "r"))].concat(),
                        ),
                    ]
                    .concat(),
                ),
            ]
            .concat(),
        ),
        (
            "too_many_fields",
            [
                model(),
                put(5, tensor("t", "BYTES", None)),
                put(7, vec![0; 4 * 70_000]),
            ]
            .concat(),
        ),
    ];
    for (n, (code, message)) in table.iter().enumerate() {
        assert_eq!(refusal("model_infer", message), *code, "case {n}");
    }
}

#[test]
fn frames_are_plain_and_whole_and_as_many_as_the_method_has() {
    let one = framed(&asked("x"));
    let two = [&one[..], &one].concat();
    let other = [&one[..], &framed(&put(1, "mistral"))].concat();
    let code = |name, body: &[u8]| request(name, body).unwrap_err().code;
    assert_eq!(code("model_infer", &two), "too_many_messages");
    assert!(request("model_stream_infer", &two).is_ok());
    assert_eq!(code("model_stream_infer", &other), "conflicting_model");
    assert_eq!(code("model_stream_infer", &[]), "no_message");
    assert_eq!(code("model_infer", &[]), "no_message");
    assert_eq!(code("model_infer", &one[..one.len() - 1]), "cut_message");
    assert_eq!(code("model_infer", &one[..3]), "cut_message");
    let flagged = |flag| [&[flag], &one[1..]].concat();
    assert_eq!(code("model_infer", &flagged(1)), "compressed_message");
    assert_eq!(code("model_infer", &flagged(2)), "invalid_frame");
    assert_eq!(
        code("model_infer", &[0, 0xff, 0, 0, 0]),
        "message_too_large"
    );
    let many = framed(&put(1, "llama")).repeat(1025);
    assert_eq!(code("model_stream_infer", &many), "too_many_messages");
}

#[test]
fn bytes_that_are_no_text_are_named_and_an_answer_with_them_is_refused_where_it_is_masked() {
    let body = [
        put(1, "llama"),
        put(5, tensor("t", "BYTES", None)),
        put(7, [1, 0, 0, 0, 0xff]),
    ];
    let body = framed(&body.concat());
    let mut read = request("model_infer", &body).unwrap();
    assert_eq!(read.unscanned(), ["bytes"]);
    assert_eq!(read.strip(&|_| true), Err("bytes"));
    assert_eq!(read.strip(&|_| false), Ok(()));
    let message = [
        put(5, tensor("t", "BYTES", None)),
        put(6, [1, 0, 0, 0, 0xff]),
    ]
    .concat();
    let message = framed(&message);
    assert_eq!(
        answer("model_infer", &[&message]).0.unwrap_err().code,
        "invalid_utf8"
    );
    let (dialect, endpoint) = endpoint("kserve", "model_infer");
    let mut reader = dialect.read_response(endpoint, 200, KIND).unwrap();
    let passed = read_all(&mut *reader, &message);
    assert_eq!(passed.terminal, message);
    assert_eq!(reader.facts().unscanned, ["bytes"]);
}

#[test]
fn what_nobody_should_send_is_refused_in_answers_or_looked_at() {
    let one = |message: Vec<u8>| answer("model_infer", &[&framed(&message)]).0;
    let element = |text: &[u8]| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        let raw = put(6, [&length[..], text].concat());
        one([put(5, tensor("t", "BYTES", None)), raw].concat())
    };
    for bad in [
        &b"4111 \xed\xa0\x80"[..],
        b"4111 \xc0\xb4111",
        b"4111 \xf4\x90\x80\x80",
        b"4111 \xff",
    ] {
        assert_eq!(one(put(3, bad)).unwrap_err().code, "invalid_utf8");
        assert_eq!(element(bad).unwrap_err().code, "invalid_utf8");
    }
    assert_eq!(
        one([said("x", true), put(3, "other")].concat())
            .unwrap_err()
            .code,
        "duplicate_field"
    );
    for text in [
        "\0 4111\0".to_owned(),
        "4".repeat(10_000),
        "4111-".repeat(2_000_000),
        "[".repeat(1000) + "4111",
    ] {
        let passed = element(text.as_bytes()).unwrap().terminal;
        assert!(!String::from_utf8_lossy(&passed).contains("4111"));
    }
    // A group in a group, a thousand deep: no schema of ours has any.
    let deep = (0..1000).fold(Vec::new(), |inner, _| put(5, inner));
    assert!(one(deep).is_err());
}

fn read_all(reader: &mut dyn ResponseBody, body: &[u8]) -> Passed {
    read(reader, [body], &mut Open).unwrap()
}

#[test]
fn an_answer_of_one_message_leaves_at_its_end_and_says_what_it_is() {
    for in_raw in [false, true] {
        let body = framed(&said("call 555-0100", in_raw));
        let (passed, filter) = answer("model_infer", &[&body[..7], &body[7..]]);
        let passed = passed.unwrap();
        assert!(passed.now.is_empty());
        assert_eq!(passed.terminal, framed(&said("call [\"N\"]", in_raw)));
        let field = match in_raw {
            true => "raw_output_contents.0.0",
            false => "outputs.0.contents.bytes_contents.0",
        };
        let channel = Channel {
            choice: 0,
            field: field.to_owned(),
        };
        assert_eq!(filter.texts, [(channel, "call 555-0100".to_owned())]);
    }
    let two = framed(&said("x", true)).repeat(2);
    assert_eq!(
        answer("model_infer", &[&two]).0.unwrap_err().code,
        "too_many_messages"
    );
    let (dialect, endpoint) = endpoint("kserve", "model_infer");
    let mut reader = dialect.read_response(endpoint, 200, KIND).unwrap();
    assert!(!reader.incremental());
    read_all(&mut *reader, &framed(&said("x", true)));
    assert_eq!(reader.facts().model.as_deref(), Some("llama"));
    assert_eq!(reader.facts().id.as_deref(), Some("id-1"));
    assert!(reader.facts().complete);
}

#[test]
fn the_lent_credential_leaves_in_no_word_either() {
    let message = [put(1, LENT), put(3, LENT)].concat();
    let (passed, _) = answer("model_infer", &[&framed(&message)]);
    let expected = [put(1, GONE), put(3, GONE)].concat();
    assert_eq!(passed.unwrap().terminal, framed(&expected));
}

#[test]
fn a_bad_message_leaves_nothing_that_came_with_it_nor_after_it() {
    let stream = |text: &str| framed(&put(2, said(text, true)));
    let (good, bad) = (stream("fine"), framed(&put(7, "x")));
    let (dialect, endpoint) = endpoint("kserve", "model_stream_infer");
    let mut reader = dialect.read_response(endpoint, 200, KIND).unwrap();
    assert!(reader.incremental());
    assert_eq!(reader.push(&good, &mut Open).unwrap().now, good);
    for bytes in [[&good[..], &bad].concat(), good.clone()] {
        let fault = reader.push(&bytes, &mut Open).unwrap_err();
        assert_eq!(fault.code, "unknown_field");
    }
    assert_eq!(reader.finish(&mut Open).unwrap_err().code, "unknown_field");
    let (passed, _) = answer("model_stream_infer", &[&good, &good[..4]]);
    assert_eq!(passed.unwrap_err().code, "cut_message");
}

#[test]
fn trailers_tell_how_it_went_and_what_they_say_is_masked() {
    let dialect = endpoint("kserve", "model_infer").0;
    let told = |name: &str, value: &[u8]| dialect.trailer(name, value, &mut Runs::default());
    assert_eq!(told("grpc-status", b"5"), Trailer::Kept);
    assert_eq!(told("grpc-status", b"5 555-0100"), Trailer::Dropped);
    assert_eq!(told("grpc-message", b"no model %C3%BC"), Trailer::Kept);
    let changed = Trailer::Changed("no [\"N\"] %C3%BC %25".to_owned());
    assert_eq!(told("grpc-message", b"no 555%2D0100 %C3%BC %25"), changed);
    assert_eq!(
        told("x-note", b"call 555-0100"),
        Trailer::Changed("call [\"N\"]".to_owned())
    );
    assert_eq!(told("x-note", b"\xff"), Trailer::Dropped);
    assert_eq!(told("grpc-status-details-bin", b"CAUS"), Trailer::Dropped);
    assert_eq!(
        dialect.trailer("grpc-status-details-bin", b"CAUS", &mut Open),
        Trailer::Kept
    );
}

#[test]
fn a_content_type_that_is_not_protobufs_is_refused() {
    let (dialect, endpoint) = endpoint("kserve", "model_infer");
    let body = || Bytes::from(framed(&asked("x")));
    for kind in [
        "application/json",
        "application/grpc+json",
        "application/grpc-web",
        "text/plain",
    ] {
        let read = dialect.read_request(endpoint, "", Some(kind), body());
        assert_eq!(read.unwrap_err().code, "unsupported_content_type");
        assert!(dialect.read_response(endpoint, 200, Some(kind)).is_err());
    }
    assert!(dialect.read_request(endpoint, "", None, body()).is_err());
    assert!(
        dialect
            .read_request(endpoint, "", Some("application/grpc+proto"), body())
            .is_ok()
    );
    assert!(dialect.read_response(endpoint, 503, KIND).is_err());
    assert!(is_grpc("application/grpc+json; x") && !is_grpc("application/grpc-web"));
}

proptest! {
    #[test]
    fn a_stream_is_masked_the_same_however_it_is_cut(
        texts in prop::collection::vec(text(), 0..5),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        in_raw: bool,
    ) {
        let stream = |masks: fn(&str) -> String| -> Vec<u8> {
            texts.iter().flat_map(|text| framed(&put(2, said(&masks(text), in_raw)))).collect()
        };
        let body = stream(str::to_owned);
        let (passed, filter) = answer("model_stream_infer", &cut(&body, &cuts));
        prop_assert_eq!(passed.unwrap().now, stream(masked));
        let seen: Vec<_> = filter.texts.into_iter().map(|(_, text)| text).collect();
        prop_assert_eq!(seen, texts);
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_read_leaves_as_it_came(
        mut body in prop::collection::vec(any::<u8>(), 0..80),
        at in any::<prop::sample::Index>(),
    ) {
        let _ = request("model_stream_infer", &body);
        let _ = answer("model_stream_infer", &[&body]);
        let mut message = asked_raw("call 555-0100");
        let place = at.index(message.len());
        message[place] ^= body.pop().unwrap_or(1);
        let message = framed(&message);
        if let Ok(read) = request("model_infer", &message) {
            prop_assert_eq!(read.rewrite(&mut |_| None), message);
        }
    }
}

#[test]
fn a_model_is_a_word_that_nobody_masks() {
    for model in [
        "llama(212)555-0100",
        "llama two",
        "\u{ff4c}lama",
        "llama\u{200b}",
    ] {
        let message = [put(1, model), put(5, tensor("a", "FP32", None))].concat();
        assert_eq!(refusal("model_infer", &message), "invalid_model", "{model}");
    }
}

#[test]
fn a_long_name_of_a_tensor_is_not_kept_for_each_of_its_elements() {
    let (name, texts) = ("n".repeat(100_000), vec![""; 1_000]);
    let message = [
        put(1, "llama"),
        put(5, tensor(&name, "BYTES", Some(&texts))),
    ]
    .concat();
    let read = request("model_infer", &framed(&message)).unwrap();
    let labels = read.texts().into_iter().map(|text| text.label.len());
    assert!(labels.max().unwrap() <= 64);
}

#[test]
fn fields_are_counted_over_all_messages_of_a_request() {
    let texts = vec![""; 30_000];
    let message = [put(1, "llama"), put(5, tensor("a", "BYTES", Some(&texts)))].concat();
    let two = [framed(&message), framed(&message)].concat();
    assert!(request("model_stream_infer", &two).is_ok());
    let three = [two, framed(&message)].concat();
    let fault = request("model_stream_infer", &three).unwrap_err();
    assert_eq!(fault.code, "too_many_fields");
}

#[test]
fn what_is_no_escape_is_read_as_it_stands() {
    let dialect = endpoint("kserve", "model_infer").0;
    let mut seen = Runs::default();
    dialect.trailer("grpc-message", b"call %+1 and %4", &mut seen);
    let told = format!("{seen:?}");
    assert!(told.contains("call %+1 and %4"), "{told}");
}

#[test]
fn what_a_request_is_taken_apart_into_is_counted() {
    let texts = vec![""; 10_000];
    let message = [put(1, "llama"), put(5, tensor("a", "BYTES", Some(&texts)))].concat();
    let body = framed(&message);
    assert!(body.len() < 25_000);
    let memory = request("model_infer", &body).unwrap().memory();
    assert!((1 << 20..8 << 20).contains(&memory), "{memory}");
    let few = request("model_infer", &framed(&asked("x"))).unwrap();
    assert!(few.memory() < 16 << 10);
}
