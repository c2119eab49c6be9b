//! What a connection manager, its filters and the service's cluster must be.

use serde_json::Value;

use super::{
    Found,
    shape::{Parts, Spot, any, at, field, is_set, text},
};

/// The header that tells Envoy's own answers from the model server's.
pub(super) const LOCAL_REPLY_MARK: &str = "x-countersign-local-reply";

/// What must have one value in the connection manager: path, value, code, why.
const CONNECTION: [(&str, &str, &str, &str); 5] = [
    (
        "normalize_path",
        "true",
        "normalize_path",
        "policy and upstream may read different paths",
    ),
    (
        "merge_slashes",
        "true",
        "merge_slashes",
        "policy and upstream may read different paths",
    ),
    (
        "path_with_escaped_slashes_action",
        "REJECT_REQUEST",
        "escaped_slashes",
        "policy and upstream may read different paths",
    ),
    (
        "common_http_protocol_options.headers_with_underscores_action",
        "REJECT_REQUEST",
        "underscores",
        "`x_api_key` is `x-api-key` to some servers",
    ),
    (
        "use_remote_address",
        "true",
        "remote_address",
        "callers say themselves where they call from",
    ),
];

/// What must have one value in ext_proc; the codes of the modes are one.
const PROCESSOR: [(&str, &str, &str, &str); 7] = [
    (
        "processing_mode.request_header_mode",
        "SEND",
        "processing_mode",
        "headers pass ungoverned",
    ),
    (
        "processing_mode.response_header_mode",
        "SEND",
        "processing_mode",
        "headers pass ungoverned",
    ),
    (
        "processing_mode.request_body_mode",
        "FULL_DUPLEX_STREAMED",
        "processing_mode",
        "bodies pass ungoverned or are cut",
    ),
    (
        "processing_mode.response_body_mode",
        "FULL_DUPLEX_STREAMED",
        "processing_mode",
        "bodies pass ungoverned or are cut",
    ),
    (
        "processing_mode.request_trailer_mode",
        "SEND",
        "processing_mode",
        "a body ended by trailers is not seen to end",
    ),
    (
        "processing_mode.response_trailer_mode",
        "SEND",
        "processing_mode",
        "a body ended by trailers is not seen to end",
    ),
    (
        "mutation_rules.disallow_is_error",
        "true",
        "mutation_rules",
        "a header change that Envoy does not make goes unnoticed",
    ),
];

/// What must not be set in ext_proc: path, code, why.
const PROCESSOR_NEVER: [(&str, &str, &str); 8] = [
    (
        "failure_mode_allow",
        "failure_mode_allow",
        "traffic passes ungoverned while the service fails; set it to false",
    ),
    (
        "allow_mode_override",
        "allow_mode_override",
        "an answer could switch a mode off; set it to false",
    ),
    (
        "observability_mode",
        "observability_mode",
        "nothing waits for a decision; remove it",
    ),
    (
        "disable_immediate_response",
        "disable_immediate_response",
        "refusals are not obeyed; remove it",
    ),
    (
        "allow_content_length_header",
        "content_length",
        "a wrong length is request smuggling; remove it",
    ),
    (
        "forward_rules",
        "forward_rules",
        "the policy does not see all headers; remove it",
    ),
    (
        "metadata_options.forwarding_namespaces",
        "metadata_forwarded",
        "metadata of other filters is sent to a service that has no use for it; remove it",
    ),
    (
        "max_message_timeout",
        "message_timeout",
        "an answer could prolong Envoy's timeouts; set it to 0s",
    ),
];

const ATTRIBUTES: [&str; 9] = [
    "source.address",
    "connection.mtls",
    "connection.requested_server_name",
    "connection.sha256_peer_certificate_digest",
    "connection.uri_san_peer_certificate",
    "connection.dns_san_peer_certificate",
    "connection.subject_peer_certificate",
    "xds.route_name",
    "xds.cluster_name",
];

pub(super) fn connection(manager: &Spot<'_>, found: &mut Found) {
    for (path, wanted, code, why) in CONNECTION {
        if !is(manager.value, path, wanted) {
            found.warning(
                code,
                &format!("{}.{path}", manager.path),
                format!("{why}; set it to {wanted}"),
            );
        }
    }
    // An upgrade may even have a filter chain of its own, without us.
    if let Some(upgrades) = manager
        .key("upgrade_configs")
        .filter(|set| is_set(set.value))
    {
        found.error(
            "upgrade",
            &upgrades.path,
            "what is said after an upgrade is not governed; remove it",
        );
    }
}

fn is(value: &Value, path: &str, wanted: &str) -> bool {
    at(value, path).is_some_and(|value| match value {
        Value::Bool(on) => *on == (wanted == "true") && matches!(wanted, "true" | "false"),
        value => value.as_str() == Some(wanted),
    })
}

/// Holds the filter chain against ours; yields the names of the filter and its guards.
pub(super) fn filters(manager: &Spot<'_>, service: &str, found: &mut Found) -> Vec<String> {
    let chain = manager.list("http_filters");
    let config = |spot: &Spot<'_>| {
        field(spot.value, "typed_config")
            .cloned()
            .unwrap_or_default()
    };
    for spot in chain
        .iter()
        .filter(|spot| spot.key("config_discovery").is_some())
    {
        found.warning(
            "filter_unseen",
            &spot.path,
            "the filter's configuration comes from elsewhere and was not looked at; write it here",
        );
    }
    let is_ours = |spot: &Spot<'_>| {
        text(&config(spot), "grpc_service.envoy_grpc.cluster_name") == Some(service)
    };
    let kind = |spot: &Spot<'_>, name| super::shape::is_type(&config(spot), name);
    let processors = |ours: bool| {
        chain
            .iter()
            .position(|spot| kind(spot, "ExternalProcessor") && is_ours(spot) == ours)
    };
    let path = format!("{}.http_filters", manager.path);
    let Some(ours) = processors(true) else {
        found.error(
            "ext_proc",
            &path,
            format!("requests reach clusters without ext_proc of the cluster `{service}`; add it"),
        );
        return Vec::new();
    };
    if let Some(other) = processors(false).and_then(|at| chain.get(at)) {
        found.warning(
            "second_ext_proc",
            &other.path,
            "two ext_proc filters in one chain hang or lose bodies; keep one",
        );
    }
    let lua = chain
        .iter()
        .position(|spot| kind(spot, "Lua") && is_response_guard(&config(spot)));
    let rbac = chain
        .iter()
        .position(|spot| kind(spot, "RBAC") && is_request_guard(&config(spot)));
    let xe = chain
        .iter()
        .position(|spot| kind(spot, "HeaderMutation") && removes_x_envoy(&config(spot)));
    match lua {
        None => found.error("response_guard", &path, "there is no guard that asks for `countersign.release`; add the Lua filter of envoy/envoy.yaml before ext_proc"),
        Some(at) if at > ours => found.error("response_guard_order", &path, "the response guard sees answers before ext_proc does; put it before ext_proc"),
        Some(_) => {}
    }
    match rbac {
        None => found.error("request_guard", &path, "no RBAC filter asks for `countersign.permit` and nothing else; add the one of envoy/envoy.yaml after ext_proc"),
        Some(at) if at < ours => found.error("request_guard_order", &path, "the request guard sees requests before ext_proc does; put it after ext_proc"),
        Some(_) => {}
    }
    if xe.is_none_or(|at| at > ours) {
        found.warning("x_envoy", &path, "a caller's x-envoy-* headers set timeouts and retries; remove them by a header_mutation filter before ext_proc");
    }
    let mut names = Vec::new();
    for spot in [Some(ours), lua, rbac]
        .into_iter()
        .flatten()
        .filter_map(|at| chain.get(at))
    {
        names.extend(text(spot.value, "name").map(str::to_owned));
        if field(spot.value, "disabled").is_some_and(is_set) {
            found.error(
                "disabled",
                &spot.path,
                "the filter is disabled unless a route enables it; remove `disabled`",
            );
        }
    }
    for spot in chain.iter().skip(ours) {
        if kind(spot, "Compressor") || kind(spot, "Decompressor") {
            found.error(
                "compression",
                &spot.path,
                "bodies reach ext_proc compressed, or hang; put it before ext_proc or remove it",
            );
        }
    }
    if let Some(spot) = chain.get(ours).and_then(|spot| spot.key("typed_config")) {
        processor(&spot, found);
    }
    names
}

fn processor(spot: &Spot<'_>, found: &mut Found) {
    for (path, wanted, code, why) in PROCESSOR {
        if !is(spot.value, path, wanted) {
            found.error(
                code,
                &format!("{}.{path}", spot.path),
                format!("{why}; set it to {wanted}"),
            );
        }
    }
    for (path, code, advice) in PROCESSOR_NEVER {
        if at(spot.value, path).is_some_and(is_set) {
            found.error(code, &format!("{}.{path}", spot.path), advice);
        }
    }
    let holds = |path: &str, name: &str| {
        at(spot.value, path).is_some_and(|list| any(list, &|item| item.as_str() == Some(name)))
    };
    if !holds(
        "metadata_options.receiving_namespaces.untyped",
        "countersign",
    ) {
        found.error("metadata_options", &spot.path, "the service cannot say what the guards ask for; set `metadata_options.receiving_namespaces: { untyped: [countersign] }`");
    }
    let absent: Vec<_> = ATTRIBUTES
        .into_iter()
        .filter(|name| !holds("request_attributes", name))
        .collect();
    if !absent.is_empty() {
        found.error("request_attributes", &spot.path, format!("facts of the connection and the route are withheld; add to `request_attributes`: {}", absent.join(", ")));
    }
    if !is(spot.value, "route_cache_action", "RETAIN")
        && !is(spot.value, "disable_clear_route_cache", "true")
    {
        found.error("route_cache", &spot.path, "the route may change after the credential was lent for it; set `route_cache_action: RETAIN`");
    }
}

fn is_response_guard(lua: &Value) -> bool {
    text(lua, "default_source_code.inline_string").is_some_and(|code| {
        [
            "envoy_on_response",
            "\"countersign\"",
            "\"release\"",
            "\"granted\"",
        ]
        .iter()
        .all(|part| code.contains(part))
    })
}

/// Policies are alternatives, and so are principals: one that does not ask for the permit is a way around it.
fn is_request_guard(rbac: &Value) -> bool {
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

fn removes_x_envoy(mutation: &Value) -> bool {
    at(mutation, "mutations.request_mutations").is_some_and(|all| {
        any(all, &|one| {
            text(one, "remove_on_match.key_matcher.prefix") == Some("x-envoy-")
        })
    })
}

/// Client certificates that Envoy takes unchecked, Countersign would believe.
pub(super) fn tls(listener: &Spot<'_>, found: &mut Found) {
    listener.each(&mut |spot| {
        if text(spot.value, "trust_chain_verification").is_some_and(|how| how != "VERIFY_TRUST_CHAIN") {
            found.error("client_untrusted", &spot.path, "client certificates of anybody are taken for identity; remove `trust_chain_verification`");
        }
        let checks = |value: &Value| {
            ["trusted_ca", "validation_context_sds_secret_config", "ca_certificate_provider_instance"]
                .iter()
                .any(|key| field(value, key).is_some())
        };
        let asks = spot.is_type("DownstreamTlsContext") && field(spot.value, "require_client_certificate").is_some_and(is_set);
        if asks && !any(spot.value, &checks) {
            found.error("client_ca", &spot.path, "client certificates are asked for but not checked; add a `validation_context` with `trusted_ca`");
        }
    });
}

pub(super) fn service_cluster(parts: &Parts<'_>, service: &str, found: &mut Found) {
    let Some(spot) = parts
        .clusters
        .iter()
        .find(|spot| text(spot.value, "name") == Some(service))
    else {
        found.warning("service_unseen", "", format!("the cluster `{service}` was not found; give the answer of `/config_dump`, or its name by `--service`"));
        return;
    };
    if !any(spot.value, &|value| {
        field(value, "connection_keepalive").is_some()
    }) {
        found.warning(
            "keepalive",
            &spot.path,
            "a frozen service hangs callers for minutes; set `connection_keepalive` of one second",
        );
    }
    let most = |value: &Value| {
        field(value, "max_requests")
            .and_then(Value::as_u64)
            .is_some_and(|most| most > 1024)
    };
    if !any(spot.value, &most) {
        found.warning(
            "max_requests",
            &spot.path,
            "every request in flight is one stream here, and 1024 are few; raise `max_requests`",
        );
    }
}
