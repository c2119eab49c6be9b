//! The guards against a service that ends its stream early yet cleanly, and the one against a caller's x-envoy-*.

use serde_json::Value;

use super::shape::{any, at, field, is_set, text};

/// The configuration that we ship, whose response guard others are compared with.
const SHIPPED: &str = include_str!("../../envoy/envoy.yaml");

/// What a Lua filter is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lua {
    /// The response guard that we ship.
    Guard,
    /// It names what the guard asks for, yet differs from the one that we ship.
    Changed,
    /// Something else.
    Other,
}

/// What this Lua filter is.
pub(super) fn lua(config: &Value) -> Lua {
    let Some(code) =
        text(config, "default_source_code.inline_string").or_else(|| text(config, "inline_code"))
    else {
        return Lua::Other;
    };
    let parts = [
        "envoy_on_response",
        "\"countersign\"",
        "\"release\"",
        "\"granted\"",
    ];
    if code.split_whitespace().eq(shipped_guard()) {
        Lua::Guard
    } else if parts.iter().all(|part| code.contains(part)) {
        Lua::Changed
    } else {
        Lua::Other
    }
}

/// The words of the guard that we ship: the block under `inline_string`, to the first line that stands further left.
fn shipped_guard() -> impl Iterator<Item = &'static str> {
    let block = SHIPPED
        .split_once("inline_string: |")
        .map_or("", |(_, block)| block);
    let lines = block.lines().skip(1);
    let margin = lines.clone().next().map_or(0, indent);
    lines
        .take_while(move |line| line.trim().is_empty() || indent(line) >= margin)
        .flat_map(str::split_whitespace)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Policies are alternatives, and so are principals: one that does not ask for the permit is a way around it.
pub(super) fn is_request_guard(rbac: &Value) -> bool {
    let allows = at(rbac, "rules.action").is_none_or(|action| action.as_str() == Some("ALLOW"));
    let policies = at(rbac, "rules.policies").and_then(Value::as_object);
    let all = policies.is_some_and(|policies| {
        !policies.is_empty()
            && policies.values().all(|policy| {
                let principals = field(policy, "principals").and_then(Value::as_array);
                principals.is_some_and(|all| !all.is_empty() && all.iter().all(asks_for_the_permit))
            })
    });
    allows && all && field(rbac, "matcher").is_none()
}

fn asks_for_the_permit(principal: &Value) -> bool {
    let Some(matcher) =
        at(principal, "sourced_metadata.metadata_matcher").or_else(|| field(principal, "metadata"))
    else {
        return false;
    };
    let source = text(principal, "sourced_metadata.metadata_source");
    let path = field(matcher, "path").and_then(Value::as_array);
    let key = path
        .and_then(|path| path.first())
        .and_then(|first| text(first, "key"));
    source.is_none_or(|source| source == "DYNAMIC")
        && text(matcher, "filter") == Some("countersign")
        && key == Some("permit")
        && path.is_some_and(|path| path.len() == 1)
        && text(matcher, "value.string_match.exact") == Some("granted")
        && field(matcher, "invert").is_none_or(|invert| !is_set(invert))
}

/// Whether a header_mutation filter takes every x-envoy-* off.
pub(super) fn removes_x_envoy(mutation: &Value) -> bool {
    at(mutation, "mutations.request_mutations").is_some_and(|all| {
        any(all, &|one| {
            text(one, "remove_on_match.key_matcher.prefix") == Some("x-envoy-")
        })
    })
}
