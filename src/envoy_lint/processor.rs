//! What the ext_proc filter must be.

use super::{
    Found,
    shape::{Spot, any, at, field, is, is_set},
};

/// What must have one value: path, value, code, why.
const WANTED: [(&str, &str, &str, &str); 7] = [
    (
        "processing_mode.request_header_mode",
        "SEND",
        "processing_mode",
        HEADERS,
    ),
    (
        "processing_mode.response_header_mode",
        "SEND",
        "processing_mode",
        HEADERS,
    ),
    (
        "processing_mode.request_body_mode",
        "FULL_DUPLEX_STREAMED",
        "processing_mode",
        BODIES,
    ),
    (
        "processing_mode.response_body_mode",
        "FULL_DUPLEX_STREAMED",
        "processing_mode",
        BODIES,
    ),
    (
        "processing_mode.request_trailer_mode",
        "SEND",
        "processing_mode",
        TRAILERS,
    ),
    (
        "processing_mode.response_trailer_mode",
        "SEND",
        "processing_mode",
        TRAILERS,
    ),
    (
        "mutation_rules.disallow_is_error",
        "true",
        "mutation_rules",
        "a header change that Envoy does not make goes unnoticed",
    ),
];

const HEADERS: &str = "headers pass ungoverned";
const BODIES: &str = "bodies pass ungoverned or are cut";
const TRAILERS: &str = "a body ended by trailers is not seen to end";

/// What must not be set: path, code, why.
const NEVER: [(&str, &str, &str); 10] = [
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
    (
        "message_timeout",
        "message_timeout",
        "Envoy keeps to it in no mode that is governed; remove it, `connection_keepalive` of the service's cluster is what finds a frozen service",
    ),
    (
        "grpc_service.envoy_grpc.retry_policy",
        "retries",
        "one request would be asked about twice; remove it",
    ),
];

/// What may be there besides, or is looked at above.
const KNOWN: [&str; 23] = [
    "@type",
    "allow_content_length_header",
    "allow_mode_override",
    "allowed_override_modes",
    "deferred_close_timeout",
    "disable_clear_route_cache",
    "disable_immediate_response",
    "emit_client_span",
    "failure_mode_allow",
    "filter_metadata",
    "forward_rules",
    "grpc_service",
    "max_message_timeout",
    "message_timeout",
    "metadata_options",
    "mutation_rules",
    "observability_mode",
    "processing_mode",
    "request_attributes",
    "response_attributes",
    "route_cache_action",
    "stat_prefix",
    "status_on_error",
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

/// Holds the filter's configuration against ours.
pub(super) fn judge(spot: &Spot<'_>, found: &mut Found) {
    for (path, wanted, code, why) in WANTED {
        if !is(spot.value, path, wanted) {
            let path = format!("{}.{path}", spot.path);
            found.error(code, &path, format!("{why}; set it to {wanted}"));
        }
    }
    for (path, code, advice) in NEVER {
        if at(spot.value, path).is_some_and(is_set) {
            found.error(code, &format!("{}.{path}", spot.path), advice);
        }
    }
    let strange = |name: &str| {
        !KNOWN
            .iter()
            .any(|known| name == *known || name == super::shape::camel(known))
    };
    for child in spot.children() {
        let name = child.path.rsplit('.').next().unwrap_or_default();
        if strange(name) && is_set(child.value) {
            found.error(
                "ext_proc_unknown",
                &child.path,
                "it is not known here what this does to the filter; remove it",
            );
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
    // Only one of the two may be set; RETAIN is the newer spelling.
    let retained = is(spot.value, "route_cache_action", "RETAIN")
        || (field(spot.value, "route_cache_action").is_none()
            && is(spot.value, "disable_clear_route_cache", "true"));
    if !retained {
        found.error("route_cache", &spot.path, "the route may change after the credential was lent for it; set `route_cache_action: RETAIN`");
    }
}
