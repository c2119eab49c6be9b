//! What a listener and its connection manager must be.

use std::time::Duration;

use serde_json::Value;

use super::{
    Found, Ours,
    shape::{Spot, any, at, field, is, is_set, kind, seconds, text},
};

/// The header that tells Envoy's own answers from the model server's.
pub(super) const LOCAL_REPLY_MARK: &str = "x-countersign-local-reply";

/// How long Envoy lets a stream be idle where nothing is said.
const STREAM_IDLE: Duration = Duration::from_secs(300);

/// Network filters that let no request past the connection manager, by type.
const HARMLESS: [&str; 9] = [
    "HttpConnectionManager",
    "RBAC",
    "ConnectionLimit",
    "LocalRateLimit",
    "RateLimit",
    "ExtAuthz",
    "SniDynamicForwardProxyFilterConfig",
    "SetFilterState",
    "GeoipFilter",
];

/// What must have one value: path, value, code, why.
const WANTED: [(&str, &str, &str, &str); 5] = [
    ("normalize_path", "true", "normalize_path", PATHS),
    ("merge_slashes", "true", "merge_slashes", PATHS),
    (
        "path_with_escaped_slashes_action",
        "REJECT_REQUEST",
        "escaped_slashes",
        PATHS,
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

const PATHS: &str = "policy and upstream may read different paths";

pub(super) const UNGOVERNED: &str = "what is said after an upgrade is not governed; remove it";

/// What must not be set: path, code, whether it is an error, why.
const NEVER: [(&str, &str, bool, &str); 8] = [
    (
        "http2_protocol_options.allow_connect",
        "upgrade",
        true,
        "what is said in a tunnel is not governed; remove it",
    ),
    (
        "http3_protocol_options.allow_extended_connect",
        "upgrade",
        true,
        "what is said in a tunnel is not governed; remove it",
    ),
    (
        "path_normalization_options",
        "path_normalization",
        true,
        "paths are changed by rules that are not looked at, and policy and upstream may read different ones; remove it",
    ),
    (
        "http_protocol_options.allow_chunked_length",
        "chunked_length",
        true,
        "a request with two lengths is request smuggling; remove it",
    ),
    (
        "internal_address_config.unix_sockets",
        "internal_address",
        false,
        "callers that count as internal may set x-envoy-*; set it to false",
    ),
    (
        "internal_address_config.cidr_ranges",
        "internal_address",
        false,
        "callers that count as internal may set x-envoy-*; remove it",
    ),
    (
        "common_http_protocol_options.max_stream_duration",
        "stream_duration",
        false,
        "long answers and held requests are cut; remove it",
    ),
    (
        "original_ip_detection_extensions",
        "remote_address",
        false,
        "the caller's address is taken from what the caller sent; remove it",
    ),
];

/// Holds a listener against what it must be, apart from its connection managers.
pub(super) fn listener(listener: &Spot<'_>, found: &mut Found) {
    let mut chains = listener.list("filter_chains");
    chains.extend(listener.key("default_filter_chain"));
    let mut filters: Vec<_> = chains
        .iter()
        .flat_map(|chain| chain.list("filters"))
        .collect();
    let udp = listener.list("listener_filters").into_iter();
    filters.extend(udp.filter(|filter| filter_kind(filter) == Some("UdpProxyConfig")));
    for filter in &filters {
        match filter_kind(filter) {
            Some(known) if HARMLESS.contains(&known) => {}
            Some("TcpProxy" | "UdpProxyConfig") => found.error("tcp_proxy", &filter.path, "bytes pass without any filter of HTTP; route to models through an HTTP connection manager"),
            _ => found.warning("network_filter", &filter.path, "a network filter that is not known here, and bytes may pass by it; check that it leads to no model, or remove it"),
        }
    }
    certificates(listener, found);
}

fn filter_kind<'c>(filter: &Spot<'c>) -> Option<&'c str> {
    field(filter.value, "typed_config").and_then(kind)
}

/// Fields that hold a TLS context towards callers without saying its type.
const CONTEXTS: [&str; 2] = ["downstream_tls_context", "tls_socket_config"];

/// Client certificates that Envoy takes unchecked, Countersign would believe.
fn certificates(listener: &Spot<'_>, found: &mut Found) {
    listener.each(&mut |spot| {
        if text(spot.value, "trust_chain_verification").is_some_and(|how| how != "VERIFY_TRUST_CHAIN") {
            found.error("client_untrusted", &spot.path, "client certificates of anybody are taken for identity; remove `trust_chain_verification`");
        }
        let asks = spot.is_tls_context("DownstreamTlsContext", &CONTEXTS) && field(spot.value, "require_client_certificate").is_some_and(is_set);
        if asks && !any(spot.value, &checks_certificates) {
            found.error("client_ca", &spot.path, "client certificates are asked for but not checked; add a `validation_context` with `trusted_ca`");
        }
    });
}

/// Whether this says whose certificates are taken.
pub(super) fn checks_certificates(value: &Value) -> bool {
    [
        "trusted_ca",
        "validation_context_sds_secret_config",
        "ca_certificate_provider_instance",
        "system_root_certs",
    ]
    .iter()
    .any(|key| field(value, key).is_some())
}

/// Holds a connection manager against what it must be, apart from filters and routes.
pub(super) fn manager(manager: &Spot<'_>, ours: &Ours, found: &mut Found) {
    for (path, wanted, code, why) in WANTED {
        if !is(manager.value, path, wanted) {
            let path = format!("{}.{path}", manager.path);
            found.warning(code, &path, format!("{why}; set it to {wanted}"));
        }
    }
    for (path, code, error, advice) in NEVER {
        if at(manager.value, path).is_some_and(is_set) {
            let path = format!("{}.{path}", manager.path);
            match error {
                true => found.error(code, &path, advice),
                false => found.warning(code, &path, advice),
            }
        }
    }
    if let Some(upgrades) = manager
        .key("upgrade_configs")
        .filter(|set| is_set(set.value))
    {
        upgraded(&upgrades, found);
    }
    for key in ["strip_matching_host_port", "strip_any_host_port"] {
        if ours.names_ports && field(manager.value, key).is_some_and(is_set) {
            let path = format!("{}.{key}", manager.path);
            found.warning("strip_port", &path, "policy never sees the port that `hosts` of a connection name, so another connection or none is found; remove it");
        }
    }
    if !marks_local_replies(manager.value) {
        found.warning("local_reply_mark", &manager.path, "not all of Envoy's own answers are marked, so the response guard replaces them; take `local_reply_config` of envoy/envoy.yaml");
    }
}

/// What stands here is for every route, and may have a filter chain of its own, without us, which a route that switches the
/// upgrade on again takes as well.
fn upgraded(upgrades: &Spot<'_>, found: &mut Found) {
    let items = upgrades.items();
    let all = |test: fn(&Spot<'_>) -> bool| {
        let is_ours = |one: &Spot<'_>| !field(one.value, "filters").is_some_and(is_set);
        !items.is_empty() && items.iter().all(|one| is_ours(one) && test(one))
    };
    if all(is_off) {
        return;
    }
    let advice = match all(|one| is_off(one) || is_websocket(one)) {
        true => {
            "WebSockets are let through on every route, also where no policy has `allow_upgrade`; remove it, and set `upgrade_configs` on the routes whose policies do"
        }
        false => UNGOVERNED,
    };
    found.error("upgrade", &upgrades.path, advice);
}

/// Whether an entry of `upgrade_configs` switches its upgrade off.
pub(super) fn is_off(upgrade: &Spot<'_>) -> bool {
    is(upgrade.value, "enabled", "false")
}

pub(super) fn is_websocket(upgrade: &Spot<'_>) -> bool {
    text(upgrade.value, "upgrade_type").is_some_and(|kind| kind.eq_ignore_ascii_case("websocket"))
}

/// How long a stream may be idle where its route does not say; `None` is for ever.
pub(super) fn stream_idle(manager: &Spot<'_>) -> Option<Duration> {
    field(manager.value, "stream_idle_timeout").map_or(Some(STREAM_IDLE), |value| {
        seconds(value).filter(|limit| !limit.is_zero())
    })
}

/// The first mapper that matches is taken, so each must add the mark, and one must match everything.
fn marks_local_replies(manager: &Value) -> bool {
    let mappers = at(manager, "local_reply_config.mappers").and_then(Value::as_array);
    mappers.is_some_and(|mappers| {
        let all = |mapper: &Value| {
            let comparison = at(mapper, "filter.status_code_filter.comparison");
            comparison.is_some_and(|comparison| {
                text(comparison, "op") == Some("GE")
                    && at(comparison, "value.default_value")
                        .is_none_or(|least| least.as_u64() == Some(0))
            })
        };
        mappers.iter().any(all)
            && mappers.iter().all(|mapper| {
                field(mapper, "headers_to_add").is_some_and(|added| {
                    any(added, &|one| text(one, "key") == Some(LOCAL_REPLY_MARK))
                })
            })
    })
}
