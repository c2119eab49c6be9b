//! Where traces go.

use super::*;

fn top(lines: &str) -> String {
    with("audit: {", &format!("{lines}\naudit: {{"))
}

#[test]
fn nothing_is_sent_unless_the_file_says_so() {
    assert_eq!(parse(&top("telemetry: {}")).unwrap().otlp, None);
    let silent = Otlp::default();
    assert_eq!(
        parse(&top("telemetry: { otlp: {} }")).unwrap().otlp,
        Some(silent)
    );
}

#[test]
fn a_collector_and_what_it_is_told() {
    let written = "telemetry: { otlp: { endpoint: \"https://otel.example:4318\", headers: { x-key: { env: OTEL_KEY } }, sample_ratio: 0.25, principals: true } }";
    let config = parse(&top(written)).unwrap();
    let otlp = config.otlp.unwrap();
    assert_eq!(
        otlp.endpoint.unwrap().as_str(),
        "https://otel.example:4318/"
    );
    assert_eq!(otlp.headers["x-key"], SecretSource::Env("OTEL_KEY".into()));
    assert_eq!((otlp.sample_ratio, otlp.principals), (Some(0.25), true));
}

#[test]
fn slips_are_told() {
    for (otlp, expected) in [
        (
            "endpoint: collector:4318",
            "telemetry.otlp.endpoint: not a URL; write `https://HOST:PORT`",
        ),
        (
            "endpoint: \"http://a:b@c.example\"",
            "telemetry.otlp.endpoint: a URL shows in logs; put what is secret under `headers`",
        ),
        (
            "endpoint: \"http://c.example/v1/traces\"",
            "telemetry.otlp.endpoint: `/v1/traces` is added; leave it out",
        ),
        (
            "endpoint: \"http://c.example?k=v\"",
            "telemetry.otlp.endpoint: takes no query and no fragment",
        ),
        (
            "endpoint: \"http://c.example\", headers: { x: { env: X } }",
            "telemetry.otlp.endpoint: `headers` must not go over `http://`",
        ),
        (
            "headers: { X-Key: { env: X } }",
            "telemetry.otlp.headers.X-Key: not a header's name; write it in lower case",
        ),
        (
            "headers: { x: {} }",
            "telemetry.otlp.headers.x: say where the secret is: `file` or `env`",
        ),
        (
            "sample_ratio: 1.5",
            "telemetry.otlp.sample_ratio: must be at most 1.0",
        ),
        (
            "sample: 1",
            "telemetry.otlp: unknown key `sample` (did you mean `sample_ratio`?)",
        ),
    ] {
        let faults = faults_of(&top(&format!("telemetry: {{ otlp: {{ {otlp} }} }}")));
        assert_eq!(faults, [format!("29: {expected}")], "{otlp}");
    }
}
