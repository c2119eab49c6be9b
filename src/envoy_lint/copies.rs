//! Whether a lent credential is copied to where nobody lent it: into logs, traces and answers.
//!
//! A header that Countersign sets is a request header like any other to all of Envoy that runs behind it, and what Envoy
//! logs at the end of a request ran behind it.

use serde_json::Value;

use super::{
    Found, Ours,
    shape::{Spot, is_type},
};

/// Headers that credentials are known to come in.
pub(super) const CREDENTIALS: [&str; 5] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
];

/// Keys of things that name request headers to copy.
const NAMING: [&str; 2] = ["additional_request_headers_to_log", "request_header"];

/// What of Envoy's formatting reads request headers, in lower case, up to the name.
const READING: [&str; 3] = ["%req(", "%cel(", "%req_without_query("];

/// Looks for copies in `spot` and all below it.
pub(super) fn look(spot: &Spot<'_>, ours: &Ours, found: &mut Found) {
    spot.each(&mut |below| {
        let name = below.path.rsplit('.').next().unwrap_or_default();
        let names = NAMING
            .iter()
            .any(|key| name == *key || name == super::shape::camel(key));
        let header = match below.value {
            Value::String(text) => formatted(text, ours),
            value if names => super::shape::any_text(value, &|text| credential(text, ours)),
            _ => None,
        };
        if let Some(header) = header {
            found.error("credential_copied", &below.path, format!("`{header}` holds the lent credential behind Countersign, and is copied here; remove it"));
        }
    });
}

/// Whether Envoy's own tap of connections is below: it sees everything in the clear.
pub(super) fn tapped(spot: &Spot<'_>, found: &mut Found) {
    spot.each(&mut |below| {
        let of_a_socket = |value: &Value| {
            let kind = value.get("@type").and_then(Value::as_str);
            is_type(value, "Tap") && kind.is_some_and(|kind| kind.contains("transport_sockets"))
        };
        if of_a_socket(below.value) {
            found.error(
                "tap",
                &below.path,
                "copies of requests and answers leave; remove it",
            );
        }
    });
}

/// The credential's header that a format writes, if any.
fn formatted(text: &str, ours: &Ours) -> Option<String> {
    let text = text.to_ascii_lowercase();
    READING.iter().find_map(|reading| {
        text.split(reading).skip(1).find_map(|rest| {
            let end = rest.find(")%").or_else(|| rest.find("):"));
            let read = &rest[..end.unwrap_or(rest.len())];
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
            read.split(word).find_map(|name| credential(name, ours))
        })
    })
}

fn credential(name: &str, ours: &Ours) -> Option<String> {
    let known = CREDENTIALS.iter().copied();
    let mut known = known.chain(ours.lent_headers.iter().map(String::as_str));
    known
        .find(|known| known.eq_ignore_ascii_case(name.trim()))
        .map(str::to_owned)
}
