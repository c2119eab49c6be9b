//! Files, good and bad, and what is said of them.

use std::fs;

use super::*;
use crate::dialect::{Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError};

/// A dialect that is only named, never spoken.
#[derive(Debug)]
struct Named;

impl Dialect for Named {
    fn name(&self) -> &'static str {
        "openai"
    }
    fn endpoints(&self) -> &'static [Endpoint] {
        &[
            Endpoint {
                name: "chat_completions",
                method: "POST",
                path: "/chat/completions",
            },
            Endpoint {
                name: "models",
                method: "GET",
                path: "/models",
            },
        ]
    }
    fn read_request(
        &self,
        _: &Endpoint,
        _: Option<&str>,
        _: bytes::Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        unreachable!()
    }
    fn read_response(
        &self,
        _: &Endpoint,
        _: u16,
        _: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        unreachable!()
    }
    fn error(&self, _: &ErrorShape<'_>) -> (&'static str, bytes::Bytes) {
        unreachable!()
    }
    fn error_event(&self, _: &ErrorShape<'_>) -> bytes::Bytes {
        unreachable!()
    }
}

fn parse(text: &str) -> Result<Config, Faults> {
    parse_as(text, "config.yaml")
}

fn parse_as(text: &str, file: &str) -> Result<Config, Faults> {
    let entities: Vec<Entity> = [
        "AWS_ACCESS_KEY",
        "CREDIT_CARD",
        "EMAIL_ADDRESS",
        "IBAN_CODE",
        "IP_ADDRESS",
        "PHONE_NUMBER",
        "US_SSN",
    ]
    .map(Entity::from)
    .to_vec();
    let detector = |custom: &CustomDetector| {
        regex_automata::meta::Regex::new(&custom.regex)
            .map(drop)
            .map_err(|_| "not a valid pattern".to_owned())
    };
    Config::parse(
        text,
        file,
        &Known {
            dialects: &[&Named],
            entities: &entities,
            detector: &detector,
        },
    )
}

fn example(name: &str) -> String {
    fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_examples_are_valid() {
    for name in ["countersign.yaml", "full.yaml"] {
        if let Err(faults) = parse_as(&example(name), name) {
            panic!("{faults}");
        }
    }
}

#[test]
fn the_published_schema_is_current() {
    let path = format!(
        "{}/docs/schema/config.schema.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let current = format!("{:#}\n", json_schema());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == current,
        "docs/schema/config.schema.json is not current: run the tests with UPDATE_SCHEMA=1"
    );
}
