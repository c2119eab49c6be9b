//! Whether a lent credential is copied to where nobody lent it: into logs, traces and answers.
//!
//! A header that Countersign sets is a request header like any other to all of Envoy that runs behind it, and what Envoy
//! logs at the end of a request ran behind it.

use serde_json::Value;

use super::{
    Found, Ours,
    shape::{Spot, any_text, camel, field, is_set, kind},
};

/// Headers that credentials, and what proves them, are known to come in.
pub(super) const CREDENTIALS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "dpop",
];

/// Keys of things that name request headers to copy.
const NAMING: [&str; 2] = ["additional_request_headers_to_log", "request_header"];

/// Commands of Envoy's formatting that read the request headers they name, in lower case.
const READING: [&str; 3] = ["%req(", "%request_header(", "%req_without_query("];

/// Commands that evaluate an expression over all of the request, in lower case.
const EVALUATING: [&str; 3] = ["%cel(", "%typed_cel(", "%coalesce("];

/// Keys of lists of access logs.
const LOGS: [&str; 2] = ["access_log", "upstream_log"];

/// Access logs that write what their configuration names and nothing else, by type.
const KNOWN_LOGS: [&str; 8] = [
    "FileAccessLog",
    "StdoutAccessLog",
    "StderrAccessLog",
    "HttpGrpcAccessLogConfig",
    "TcpGrpcAccessLogConfig",
    "OpenTelemetryAccessLogConfig",
    "FluentdAccessLogConfig",
    "SyslogAccessLogConfig",
];

/// Formatters whose commands are looked at here, or read no request header, by type.
const KNOWN_FORMATTERS: [&str; 6] = [
    "AllHeaders",
    "Cel",
    "FileContent",
    "GenericSecret",
    "Metadata",
    "ReqWithoutQuery",
];

const ALL: &str = "all request headers are copied here, and the lent credential is one of them behind Countersign; name those that are wanted";

/// Looks for copies in `spot` and all below it.
pub(super) fn look(spot: &Spot<'_>, ours: &Ours, found: &mut Found) {
    spot.each(&mut |below| {
        if let Some(copied) = copied(&below, ours) {
            found.error("credential_copied", &below.path, copied);
        }
        unseen(&below, found);
    });
}

/// What is wrong where `spot` itself copies a credential.
fn copied(spot: &Spot<'_>, ours: &Ours) -> Option<String> {
    if let Value::String(text) = spot.value {
        let text = text.to_ascii_lowercase();
        return formatted(&text, ours)
            .map(one)
            .or_else(|| evaluates_all(&text).then(|| ALL.to_owned()));
    }
    if spot.is_type("AllHeaders") {
        return not_excluded(spot, ours);
    }
    // What is counted when the request is over is read behind Countersign.
    let counted = field(spot.value, "apply_on_stream_done").is_some_and(is_set);
    let named = if counted {
        field(spot.value, "actions")
    } else {
        is_called(spot, &NAMING).then_some(spot.value)
    };
    named
        .and_then(|value| any_text(value, &|text| credential(text, ours)))
        .map(one)
}

fn one(header: String) -> String {
    format!(
        "`{header}` holds a credential, the lent one behind Countersign, and is copied here; remove it"
    )
}

/// The formatter that writes all headers but some.
fn not_excluded(formatter: &Spot<'_>, ours: &Ours) -> Option<String> {
    let excluded = formatter.list("exclude_headers");
    let is_excluded = |name: &str| {
        let names = excluded.iter().filter_map(|one| one.value.as_str());
        names.into_iter().any(|one| one.eq_ignore_ascii_case(name))
    };
    let missing: Vec<_> = credentials(ours)
        .filter(|name| !is_excluded(name))
        .collect();
    (!missing.is_empty())
        .then(|| format!("{ALL}, or add to `exclude_headers`: {}", missing.join(", ")))
}

/// Whether the key of `spot` is one of `names`.
fn is_called(spot: &Spot<'_>, names: &[&str]) -> bool {
    let last = spot.path.rsplit('.').next().unwrap_or_default();
    names
        .iter()
        .any(|name| last == *name || last == camel(name))
}

/// Names what is written by means that are not known here.
fn unseen(spot: &Spot<'_>, found: &mut Found) {
    if let Some(source) = spot.key("text_format_source")
        && field(source.value, "inline_string").is_none()
    {
        found.warning("format_unseen", &source.path, "the format comes from elsewhere and was not looked at, and could copy the lent credential; write it as `inline_string`");
    }
    if is_called(spot, &LOGS) {
        for log in spot.items() {
            if !field(log.value, "typed_config").is_some_and(is_known_log) {
                found.warning("access_log_unknown", &log.path, "it is not known here what of a request this log copies, and the lent credential is there to be copied; check it, or use another");
            }
        }
    }
    if is_called(spot, &["formatters"]) {
        for formatter in spot.items() {
            let kind = field(formatter.value, "typed_config").and_then(kind);
            if !kind.is_some_and(|kind| KNOWN_FORMATTERS.contains(&kind)) {
                found.warning("format_unseen", &formatter.path, "it is not known here what of a request this writes, and the lent credential is there to be copied; check it, or remove it");
            }
        }
    }
}

fn is_known_log(config: &Value) -> bool {
    let full = config.get("@type").and_then(Value::as_str);
    kind(config).is_some_and(|kind| KNOWN_LOGS.contains(&kind))
        || full.is_some_and(|full| full.contains(".access_loggers.stats."))
}

/// The credential's header that a format in lower case writes by its name, if any.
fn formatted(text: &str, ours: &Ours) -> Option<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    READING.iter().chain(&EVALUATING).find_map(|command| {
        parameters(text, command)
            .find_map(|read| read.split(word).find_map(|name| credential(name, ours)))
    })
}

/// Whether a format in lower case evaluates an expression that reads more request headers than it names.
fn evaluates_all(text: &str) -> bool {
    EVALUATING
        .iter()
        .any(|command| parameters(text, command).any(reads_all))
}

/// What stands between the brackets of each `command` in `text`, as Envoy finds their end: `%COMMAND(this)%`, `%COMMAND(this):9%`.
fn parameters<'t>(text: &'t str, command: &str) -> impl Iterator<Item = &'t str> {
    let closes = |after: &str| {
        let length = after.strip_prefix(':').unwrap_or(after);
        length
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .starts_with('%')
    };
    text.split(command).skip(1).map(move |rest| {
        let mut ends = rest.match_indices(')').map(|(at, _)| at);
        let end = ends.find(|at| closes(&rest[at + 1..]));
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Whether an expression reads the request's headers otherwise than one by its name: `request.headers` as a whole, or by a
/// name that is only found out.
fn reads_all(expression: &str) -> bool {
    expression.match_indices("request").any(|(at, name)| {
        let (before, after) = (&expression[..at], &expression[at + name.len()..]);
        let part = before.ends_with(is_of_a_name) || after.starts_with(is_of_a_name);
        let literal = before.ends_with(['\'', '"']) && after.starts_with(['\'', '"']);
        !part
            && !literal
            && match member(after) {
                Some(("headers", rest)) => member(rest).is_none() && !is_only_tested(before, rest),
                Some(_) => false,
                None => true,
            }
    })
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether it is only asked if a name is there: `'x' in request.headers`.
fn is_only_tested(before: &str, rest: &str) -> bool {
    let before = before.trim_end();
    before
        .strip_suffix("in")
        .is_some_and(|before| !before.ends_with(is_of_a_name))
        && !rest.trim_start().starts_with(['.', '['])
}

/// The member that `rest` reads of what stands before it, and what follows: `.name`, `['name']`.
fn member(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.trim_start();
    if let Some(name) = rest.strip_prefix('.') {
        let name = name.trim_start();
        let end = name.find(|c| !is_of_a_name(c)).unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        let is_call = rest.trim_start().starts_with('(');
        return (!name.is_empty() && !is_call).then_some((name, rest));
    }
    let index = rest.strip_prefix('[')?.trim_start();
    let quote = index.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (name, rest) = index.strip_prefix(quote)?.split_once(quote)?;
    let rest = rest.trim_start().strip_prefix(']')?;
    Some((name, rest))
}

/// Names of all headers that credentials come in.
fn credentials(ours: &Ours) -> impl Iterator<Item = &str> {
    let lent = ours.lent_headers.iter().map(String::as_str);
    CREDENTIALS.iter().copied().chain(lent)
}

fn credential(name: &str, ours: &Ours) -> Option<String> {
    credentials(ours)
        .find(|known| known.eq_ignore_ascii_case(name.trim()))
        .map(str::to_owned)
}
