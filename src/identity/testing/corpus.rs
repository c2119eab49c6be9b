//! The tokens that attack, read from `tests/data/jwt` (made by `make.py` there).

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

use super::rules;
use crate::identity::{IssuerRules, KeySet};

/// The files of cases; the others are a setting and stories.
pub(crate) const FILES: [&str; 11] = [
    "algorithms",
    "audiences",
    "duplicates",
    "form",
    "headers",
    "issuers",
    "keys",
    "kinds",
    "signatures",
    "subjects",
    "times",
];

/// One token and what it must be answered with.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) token: String,
    /// `ok` or the code of the refusal.
    pub(crate) expect: String,
    pub(crate) rules: String,
    pub(crate) keys: String,
}

/// A document of the corpus as it was written.
pub(crate) fn document(name: &str) -> Value {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/jwt", name]
        .iter()
        .collect();
    serde_json::from_slice(&fs::read(file.with_extension("json")).unwrap()).unwrap()
}

pub(crate) fn cases(file: &str) -> Vec<Case> {
    let mut document = document(file);
    let cases = document["cases"].as_array_mut().unwrap();
    cases.drain(..).map(|case| read(file, &case)).collect()
}

fn read(file: &str, case: &Value) -> Case {
    let text = |name: &str| case[name].as_str().unwrap().to_owned();
    let named = |name: &str| case[name].as_str().unwrap_or("usual").to_owned();
    Case {
        name: format!("{file}: {}", text("case")),
        token: token(&case["token"]),
        expect: text("expect"),
        rules: named("rules"),
        keys: named("keys"),
    }
}

/// A text, or pieces of which some say how often they come.
pub(crate) fn token(written: &Value) -> String {
    match written {
        Value::String(text) => text.clone(),
        Value::Array(pieces) => pieces.iter().map(token).collect(),
        rule => {
            let times = usize::try_from(rule["times"].as_u64().unwrap()).unwrap();
            rule["repeat"].as_str().unwrap().repeat(times)
        }
    }
}

/// What the cases run under.
pub(crate) struct Setting(Value);

impl Setting {
    pub(crate) fn read() -> Self {
        Self(document("setting"))
    }

    /// Each of these names is in the setting.
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        self.0[kind].as_object().unwrap().keys().cloned().collect()
    }

    pub(crate) fn jwks(&self, name: &str) -> Vec<u8> {
        let set = &self.0["key_sets"][name];
        assert!(set.is_object(), "no key set {name}");
        set.to_string().into_bytes()
    }

    pub(crate) fn keys(&self, name: &str) -> KeySet {
        KeySet::parse(&self.jwks(name)).unwrap()
    }

    /// The usual rules with what the setting changes in them.
    pub(crate) fn rules(&self, name: &str) -> IssuerRules {
        let mut rules = rules();
        let changes: &Map<String, Value> = self.0["rules"][name].as_object().unwrap();
        for (member, value) in changes {
            let text = || value.as_str().unwrap().to_owned();
            let list = || {
                value
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| one.as_str().unwrap())
            };
            match member.as_str() {
                "algorithms" => {
                    rules.algorithms = list().map(|name| name.parse().unwrap()).collect()
                }
                "audiences" => rules.audiences = list().map(str::to_owned).collect(),
                "allow_id_tokens" => rules.allow_id_tokens = value.as_bool().unwrap(),
                "clock_skew_s" => rules.clock_skew = Duration::from_secs(value.as_u64().unwrap()),
                "person_claim" => rules.person_claim = Some(text()),
                "owner_claim" => rules.owner_claim = Some(text()),
                unknown => panic!("no rule {unknown}"),
            }
        }
        rules
    }
}
