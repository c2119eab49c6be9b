//! Connections whose messages are by a descriptor set.

use super::*;

const METHOD: &str = "acme.llm.v1.Writer/Generate";

/// A connection of the dialect `grpc` with these further lines, in a directory with the descriptor set.
fn with(endpoint: &str, more: &str) -> (String, String) {
    let dir = format!("{}/tests/data/grpc", env!("CARGO_MANIFEST_DIR"));
    let text = example("countersign.yaml");
    let (before, behind) = text.split_once("    dialect: openai\n").unwrap();
    let (_, behind) = behind.split_once("    endpoints:").unwrap();
    let (_, behind) = behind.split_once('\n').unwrap();
    let text = format!("{before}    dialect: grpc\n    endpoints: [{endpoint}]\n{more}{behind}");
    (text, format!("{dir}/config.yaml"))
}

fn told(endpoint: &str, more: &str) -> Vec<String> {
    let (text, file) = with(endpoint, more);
    let lines = |faults: Vec<Fault>| -> Vec<_> {
        let faults = faults.iter().map(|fault| {
            let text = fault.to_string();
            text.split_once(": ").unwrap().1.to_owned()
        });
        faults
            .filter(|fault| {
                fault.starts_with("connections[0]") && !fault.contains("OPENAI_API_KEY")
            })
            .collect()
    };
    match with_builtins(|known| Config::parse(&text, &file, known)) {
        Ok(config) => lines(config.missing()),
        Err(faults) => lines(faults.faults),
    }
}

#[test]
fn a_descriptor_set_is_read_and_what_is_asked_of_it_is_there() {
    let more = "    schema: { file: writer.binpb, model: options.model }\n    fields: [turns.content, choices]\n";
    assert_eq!(told(METHOD, more), [""; 0]);
    let (text, file) = with(METHOD, more);
    let config = with_builtins(|known| Config::parse(&text, &file, known)).unwrap();
    let connection = &config.connections[0];
    assert_eq!(connection.dialect.name(), "grpc");
    assert_eq!(
        connection.route.endpoints[0].path,
        "/acme.llm.v1.Writer/Generate"
    );
    assert!(connection.fields.only.is_empty());
    let two = "    schema: { file: writer.binpb, model: [options.model, model] }\n";
    assert_eq!(
        told(&format!("{METHOD}, acme.llm.v1.Writer/Embed"), two),
        [""; 0]
    );
}

#[test]
fn what_is_wrong_with_it_is_told_by_line_with_what_was_meant() {
    let table = [
        (
            METHOD,
            "",
            "connections[0].dialect: the dialect `grpc` needs a descriptor set: say where it is under `schema`",
        ),
        (
            "Generate",
            "    schema: { file: writer.binpb }\n",
            "connections[0].endpoints[0]: `Generate` is no method: write `package.Service/Method`",
        ),
        (
            METHOD,
            "    schema: { file: writer.binpb, model: [\"$.model\"] }\n",
            "connections[0].schema.model[0]: not a path of fields: write names with dots between, such as `options.model`",
        ),
        (
            METHOD,
            "    schema: { file: writer.binpb }\n    fields: [\"$.x\"]\n",
            "connections[0].fields[0]: not a path of fields: write names with dots between, such as `options.model`",
        ),
        (
            "acme.llm.v1.Writer/Genrate",
            "    schema: { file: writer.binpb }\n",
            "connections[0].endpoints[0]: the descriptor set has no method `acme.llm.v1.Writer/Genrate` (did you mean `acme.llm.v1.Writer/Generate`?)",
        ),
        (
            METHOD,
            "    schema: { file: writer.binpb, model: options.modl }\n",
            "connections[0].schema.model: no request of these endpoints has a field `options.modl` (did you mean `options.model`?)",
        ),
        (
            METHOD,
            "    schema: { file: writer.binpb }\n    fields: [turns.contents]\n",
            "connections[0].fields[0]: no message of these endpoints has a field `turns.contents` (did you mean `turns.content`?)",
        ),
    ];
    for (endpoint, more, expected) in table {
        assert_eq!(told(endpoint, more), [expected]);
    }
    let (text, file) = with(METHOD, "    schema: { file: none.binpb }\n");
    let config = with_builtins(|known| Config::parse(&text, &file, known)).unwrap();
    let missing = config.missing();
    let fault = missing
        .iter()
        .find(|fault| fault.path == "connections[0].schema.file")
        .unwrap();
    assert!(fault.message.starts_with("cannot read `"), "{fault}");
    let written = text
        .lines()
        .position(|line| line.contains("none.binpb"))
        .unwrap();
    assert_eq!(fault.line, written + 1);
    let [fault] = &told(METHOD, "    schema: { file: writer.proto }\n")[..] else {
        panic!("one fault")
    };
    assert!(
        fault.contains("not a descriptor set with all its imports"),
        "{fault}"
    );
}

#[test]
fn other_dialects_have_no_schema() {
    let text = example("countersign.yaml").replacen(
        "    dialect: openai\n",
        "    dialect: openai\n    schema: { file: writer.binpb }\n",
        1,
    );
    let faults = with_builtins(|known| Config::parse(&text, "config.yaml", known)).unwrap_err();
    let told = faults.to_string();
    assert!(
        told.contains(
            "only the dialect `grpc` has a schema to read: the others have theirs built in"
        ),
        "{told}"
    );
}
