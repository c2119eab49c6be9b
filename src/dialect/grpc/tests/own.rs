//! Messages by a schema of the user's own.

use super::*;
use crate::dialect::Spoken;

const SET: &[u8] = include_bytes!("../../../../tests/data/grpc/writer.binpb");

fn endpoints(methods: &[&str]) -> Vec<Endpoint> {
    let methods = methods.iter();
    let full = methods.map(|name| method(&format!("acme.llm.v1.Writer/{name}")).unwrap());
    full.collect()
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn read_set(
    set: &[u8],
    endpoints: &[Endpoint],
    model: &[&str],
    fields: &[&str],
) -> Result<Spoken, Vec<SchemaFault>> {
    let (model, fields) = (owned(model), owned(fields));
    let asked = Asked {
        endpoints,
        model: &model,
        fields: &fields,
    };
    by_schema(set, &asked)
}

/// The dialect with every method open, under these fields, and the endpoint of `name`.
fn writer(name: &str, fields: &[&str]) -> (Spoken, Endpoint) {
    let endpoints = endpoints(&["Generate", "Tell", "Chat", "Embed", "Health"]);
    let model = ["options.model", "model"];
    let dialect = read_set(SET, &endpoints, &model, fields).unwrap();
    let endpoint = endpoints
        .into_iter()
        .find(|endpoint| endpoint.name.ends_with(name))
        .unwrap();
    (dialect, endpoint)
}

fn read_request(
    name: &str,
    fields: &[&str],
    message: &[u8],
) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (dialect, endpoint) = writer(name, fields);
    dialect.read_request(&endpoint, endpoint.path, KIND, framed(message).into())
}

/// A prompt in every place there is for one.
fn prompt(text: &str) -> Vec<u8> {
    [
        put(1, [put(1, "writer-7"), put(3, text)].concat()),
        put(2, [put(1, "user"), put(2, text)].concat()),
        put(3, [put(1, "note"), put(2, text)].concat()),
        put(5, text),
        number(7, 42),
    ]
    .concat()
}

/// An answer that says `text` in two places.
fn told(text: &str) -> Vec<u8> {
    let draft = put(3, put(1, text));
    [put(1, "a-1"), put(2, [put(2, text), draft].concat())].concat()
}

fn answered(name: &str, fields: &[&str], body: &[u8]) -> Result<Passed, ShapeError> {
    let (dialect, endpoint) = writer(name, fields);
    let mut reader = dialect.read_response(&endpoint, 200, KIND).unwrap();
    read(&mut *reader, [body], &mut Runs::default())
}

#[test]
fn every_string_is_text_and_so_are_bytes_but_for_the_model() {
    let read = read_request("/Generate", &[], &prompt("call 555-0100")).unwrap();
    assert_eq!((read.model(), read.stream()), ("writer-7", false));
    let texts: Vec<_> = read
        .texts()
        .iter()
        .map(|text| (text.label.to_owned(), text.text.to_owned()))
        .collect();
    let said = "call 555-0100";
    let expected = [
        ("stop", said),
        ("role", "user"),
        ("content", said),
        ("", "note"),
        ("note", said),
        ("raw_prompt", said),
    ];
    assert_eq!(
        texts,
        expected.map(|(label, text)| (label.to_owned(), text.to_owned()))
    );
    assert!(read.unscanned().is_empty());
    assert_eq!(read.rewrite(&mut mask), framed(&prompt("call [\"N\"]")));
    let shown: serde_json::Value = serde_json::from_str(&read.shown(&mut mask)).unwrap();
    assert_eq!(shown["options.model"], "writer-7");
    assert_eq!(shown["turns.0.content"], "call [\"N\"]");
    assert_eq!(shown["seed"], 42);
}

#[test]
fn only_chosen_fields_are_read_where_some_are() {
    let fields = ["turns.content", "choices.drafts", "raw_prompt"];
    let read = read_request("/Generate", &fields, &prompt("call 555-0100")).unwrap();
    assert_eq!(read.model(), "writer-7");
    assert_eq!(read.unscanned(), ["not_selected"]);
    let labels: Vec<_> = read
        .texts()
        .iter()
        .map(|text| text.label.to_owned())
        .collect();
    assert_eq!(labels, ["content", "raw_prompt"]);
    let shown: serde_json::Value = serde_json::from_str(&read.shown(&mut |_| None)).unwrap();
    assert_eq!(shown["notes.0.value"], "(13 bytes)");
    let passed = answered("/Generate", &fields, &framed(&told("call 555-0100"))).unwrap();
    let draft = put(3, put(1, "call [\"N\"]"));
    let expected = [
        put(1, "a-1"),
        put(2, [put(2, "call 555-0100"), draft].concat()),
    ]
    .concat();
    assert_eq!(passed.terminal, framed(&expected));
}

#[test]
fn the_lent_credential_leaves_in_no_field_that_is_not_chosen_either() {
    let message = [put(1, LENT), put(2, put(1, "x"))].concat();
    let passed = answered("/Generate", &["choices.text"], &framed(&message)).unwrap();
    let expected = [put(1, GONE), put(2, put(1, "x"))].concat();
    assert_eq!(passed.terminal, framed(&expected));
}

#[test]
fn messages_of_a_stream_are_masked_each() {
    let body = [framed(&told("call 555-0100")), framed(&told("hi"))].concat();
    let passed = answered("/Tell", &[], &body).unwrap();
    let expected = [framed(&told("call [\"N\"]")), framed(&told("hi"))].concat();
    assert_eq!(passed.now, expected);
    let fault = answered("/Generate", &[], &body).unwrap_err();
    assert_eq!(fault.code, "too_many_messages");
}

#[test]
fn texts_of_a_stream_are_one_whatever_their_messages_call_themselves() {
    let (dialect, endpoint) = writer("/Tell", &[]);
    let mut reader = dialect.read_response(&endpoint, 200, KIND).unwrap();
    let mut seen = Runs::default();
    let part = |id: &str| framed(&[put(1, id), put(2, put(1, "x"))].concat());
    read(&mut *reader, [&*[part("a"), part("b")].concat()], &mut seen).unwrap();
    let choices = seen.texts.iter().map(|(channel, _)| channel.choice);
    assert_eq!(choices.collect::<Vec<_>>(), [0; 4]);
    assert_eq!(reader.facts().id, None);
}

#[test]
fn bytes_that_are_no_text_are_named_and_refused_in_an_answer_that_is_masked() {
    let model = || put(1, put(1, "writer-7"));
    let any = put(6, [put(1, "type.example/x"), put(2, "text")].concat());
    for message in [[model(), put(5, [0xff])].concat(), [model(), any].concat()] {
        let read = read_request("/Generate", &[], &message).unwrap();
        assert_eq!(read.unscanned(), ["bytes"]);
    }
    let answer = framed(&put(2, put(2, [0xff])));
    assert_eq!(
        answered("/Generate", &[], &answer).unwrap_err().code,
        "invalid_utf8"
    );
}

#[test]
fn what_the_schema_does_not_have_is_refused() {
    let model = || put(1, put(1, "writer-7"));
    let code = |name, message: &[u8]| read_request(name, &[], message).unwrap_err().code;
    assert_eq!(
        code("/Generate", &[model(), put(9, "x")].concat()),
        "unknown_field"
    );
    assert_eq!(
        code("/Generate", &[model(), put(4, "x"), put(5, "y")].concat()),
        "duplicate_field"
    );
    assert_eq!(code("/Generate", &put(2, put(2, "x"))), "missing_model");
    assert_eq!(code("/Generate", &put(1, put(1, ""))), "missing_model");
    assert_eq!(
        code("/Generate", &put(1, put(1, "two words"))),
        "invalid_model"
    );
    assert_eq!(code("/Generate", &[0x0a, 0x09, b'l']), "invalid_protobuf");
    assert_eq!(code("/Embed", &put(2, "x")), "missing_model");
    assert_eq!(read_request("/Health", &[], &[]).unwrap().model(), "");
    let fault = answered("/Generate", &[], &framed(&put(9, "x"))).unwrap_err();
    assert_eq!(fault.code, "unknown_field");

    // A method that is not open, or of a dialect without a schema.
    let (dialect, _) = writer("/Generate", &[]);
    let other = method("acme.llm.v1.Writer/Train").unwrap();
    for dialect in [
        dialect,
        Spoken::BuiltIn(crate::dialect::by_name("grpc").unwrap()),
    ] {
        let fault = dialect.read_request(&other, other.path, KIND, Bytes::new());
        assert_eq!(fault.unwrap_err().code, "unknown_endpoint");
        assert!(dialect.read_response(&other, 200, KIND).is_err());
    }
}

#[test]
fn messages_of_one_request_name_one_model() {
    let (dialect, endpoint) = writer("/Chat", &[]);
    let body = |second: &[u8]| [framed(&prompt("x")), framed(second)].concat().into();
    let read = |second: &[u8]| dialect.read_request(&endpoint, endpoint.path, KIND, body(second));
    assert!(read(&prompt("y")).is_ok());
    assert_eq!(
        read(&put(1, put(1, "other"))).unwrap_err().code,
        "conflicting_model"
    );
    assert_eq!(read(&put(4, "y")).unwrap_err().code, "missing_model");
}

#[test]
fn every_fault_of_a_schema_is_told_at_once() {
    let all = endpoints(&["Generate", "Embed", "Health"]);
    let told = |set: &[u8], endpoints: &[Endpoint], model: &[&str], fields: &[&str]| -> Vec<_> {
        let faults = read_set(set, endpoints, model, fields)
            .unwrap_err()
            .into_iter();
        faults.map(|fault| (fault.part, fault.message)).collect()
    };
    let (part, message) = told(b"not one", &all, &[], &[]).remove(0);
    assert_eq!(part, SchemaPart::Set);
    assert!(
        message.starts_with("not a descriptor set with all its imports ("),
        "{message}"
    );
    let (_, message) = told(b"", &all, &[], &[]).remove(0);
    assert!(
        message.starts_with("there is no service in the descriptor set: "),
        "{message}"
    );
    let (_, message) = told(&vec![0; MAX_SCHEMA_BYTES + 1], &all, &[], &[]).remove(0);
    assert_eq!(message, "the descriptor set has more than 16 MiB");

    let faults = read_set(SET, &endpoints(&["Genrate", "Embed"]), &["nothing"], &[]).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].part, SchemaPart::Endpoint(0));
    assert!(
        faults[0]
            .known
            .contains(&"acme.llm.v1.Writer/Generate".to_owned())
    );

    let model = [
        "options.model",
        "turns.role",
        "options",
        "nothing",
        "prompt",
    ];
    assert_eq!(
        told(SET, &all, &model, &["turns", "seed", "choices.tex"]),
        [
            (SchemaPart::Model(1), "`turns.role` of `acme.llm.v1.Writer/Generate` cannot name a model: it must be a string that there is one of".to_owned()),
            (SchemaPart::Model(2), "`options` of `acme.llm.v1.Writer/Generate` cannot name a model: it must be a string that there is one of".to_owned()),
            (SchemaPart::Model(3), "no request of these endpoints has a field `nothing`".to_owned()),
            (SchemaPart::Model(4), "`acme.llm.v1.Writer/Generate` has its model in `options.model` already".to_owned()),
            (SchemaPart::Field(1), "`seed` holds no text".to_owned()),
            (SchemaPart::Field(2), "no message of these endpoints has a field `choices.tex`".to_owned()),
        ]
    );
    let faults = read_set(SET, &all, &[], &["choices.tex"]).unwrap_err();
    assert!(faults[0].known.contains(&"choices.text".to_owned()));
}

#[test]
fn a_method_is_named_in_full() {
    for wrong in [
        "Generate",
        "/a.B/C",
        "a.B/C/D",
        "a..B/C",
        "a.B/",
        "a.B/{model}",
        "a.B/*",
        "",
    ] {
        assert!(method(wrong).is_err(), "{wrong}");
    }
    let once = method("a.B/C").unwrap();
    assert_eq!(
        (once.name, once.path, once.method),
        ("a.B/C", "/a.B/C", "POST")
    );
    assert!(std::ptr::eq(once.path, method("a.B/C").unwrap().path));
}
