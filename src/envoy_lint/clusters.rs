//! What clusters must be: the service's, and those that governed requests reach.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    Found, Ours,
    connection::checks_certificates,
    copies,
    routes::{self, Reached},
    shape::{Parts, Spot, any, at, field, is_set, seconds, text, whole},
    sockets,
};

/// The longest that a frozen service may go unnoticed, in seconds.
const NOTICED_WITHIN: u64 = 60;

/// What limits whose certificates are taken to one name.
const NAMES: [&str; 5] = [
    "match_typed_subject_alt_names",
    "match_subject_alt_names",
    "verify_certificate_hash",
    "verify_certificate_spki",
    "validation_context_sds_secret_config",
];

/// What does so from the name that is called.
const OWN_NAME: [&str; 2] = ["auto_san_validation", "auto_sni_san_validation"];

/// Holds the cluster that Countersign is against what it must be.
pub(super) fn service(parts: &Parts<'_>, service: &str, found: &mut Found) {
    let Some(spot) = parts.cluster(service) else {
        found.warning("service_unseen", "", format!("the cluster `{service}` was not found; give the answer of `/config_dump`, or its name by `--service`"));
        return;
    };
    let prompt = |value: &Value| {
        let limit = |key: &str| at(value, &format!("connection_keepalive.{key}")).and_then(seconds);
        limit("interval")
            .zip(limit("timeout"))
            .is_some_and(|(every, within)| (every + within).as_secs() <= NOTICED_WITHIN)
    };
    if !any(spot.value, &prompt) {
        found.warning("keepalive", &spot.path, "a frozen service hangs callers for minutes; set `connection_keepalive: { interval: 1s, timeout: 1s }`");
    }
    let thresholds = at(spot.value, "circuit_breakers.thresholds").and_then(Value::as_array);
    let most = thresholds
        .into_iter()
        .flatten()
        .filter(|one| text(one, "priority").is_none_or(|priority| priority == "DEFAULT"));
    if !most
        .filter_map(|one| field(one, "max_requests").and_then(whole))
        .any(|most| most > 1024)
    {
        found.warning(
            "max_requests",
            &spot.path,
            "every request in flight is one stream here, and 1024 are few; raise `max_requests`",
        );
    }
    if is_open(spot) {
        found.error("service_plain", &spot.path, "who stands between can read every prompt and answer in Countersign's stead; use a Unix socket, or TLS with a client certificate");
    }
    tls(spot, found);
    sockets::judge(spot, found);
}

/// Holds the clusters that governed requests reach, and those that credentials are lent to, against what they must be.
pub(super) fn reached(reached: &Reached, parts: &Parts<'_>, ours: &Ours, found: &mut Found) {
    let lent_to = ours.lend_to_clusters.iter().map(String::as_str);
    let lent_to = lent_to.filter(|name| parts.cluster(name).is_some());
    let names: BTreeSet<_> = reached.clusters().chain(lent_to).collect();
    for name in names {
        let Some(spot) = parts.cluster(name) else {
            found.warning("cluster_unseen", "", format!("routes lead to the cluster `{name}`, which was not found and not looked at; give the answer of `/config_dump`"));
            continue;
        };
        chosen_by_caller(spot, found);
        tls(spot, found);
        copies::look(spot, ours, found);
        sockets::judge(spot, found);
        spot.each(&mut |below| {
            routes::behind_our_back(&below, found);
            if let Some(filters) = below.key("http_filters").filter(|set| {
                any(set.value, &|one| {
                    one.get("@type").is_some() && !super::shape::is_type(one, "UpstreamCodec")
                })
            }) {
                found.error(
                    "filter_behind",
                    &filters.path,
                    "filters before the upstream can change what was decided on; remove it",
                );
            }
        });
    }
}

/// Clusters whose hosts the request names get the credential to wherever the caller likes.
fn chosen_by_caller(spot: &Spot<'_>, found: &mut Found) {
    let kind = text(spot.value, "cluster_type.name").unwrap_or_default();
    let original =
        text(spot.value, "type") == Some("ORIGINAL_DST") || kind == "envoy.cluster.original_dst";
    if original || kind.contains("dynamic_forward_proxy") {
        found.error(
            "cluster_dynamic",
            &spot.path,
            "the caller chooses the host that gets the request and its credential; name the hosts",
        );
    } else if !kind.is_empty() && !kind.starts_with("envoy.cluster.") {
        found.warning(
            "cluster_unknown",
            &spot.path,
            "it cannot be told which hosts this cluster has; use a type that names them",
        );
    }
}

/// Fields that hold a TLS context towards an upstream without saying its type.
const CONTEXTS: [&str; 2] = ["upstream_tls_context", "tls_socket_config"];

/// Whether every connection is protected from its first byte, whichever transport socket it takes.
fn is_protected(cluster: &Spot<'_>) -> bool {
    let chosen = cluster.list("transport_socket_matches");
    let chosen = chosen.iter().map(|chosen| chosen.key("transport_socket"));
    let mut all = chosen.chain([cluster.key("transport_socket")]);
    all.all(|socket| socket.as_ref().is_some_and(sockets::is_protecting))
}

/// Whether what is said to a cluster can be read between here and there.
pub(super) fn is_open(cluster: &Spot<'_>) -> bool {
    !is_protected(cluster) && !is_local(cluster)
}

/// Groups of hosts that are not written under `lb_endpoints`.
const ELSEWHERE: [&str; 2] = ["leds_cluster_locality_config", "load_balancer_endpoints"];

/// Whether all hosts are written here, and are this host.
fn is_local(cluster: &Spot<'_>) -> bool {
    let groups = cluster
        .key("load_assignment")
        .map_or_else(Vec::new, |all| all.list("endpoints"));
    let hosts: Vec<_> = groups
        .iter()
        .flat_map(|group| group.list("lb_endpoints"))
        .collect();
    let fetched = |group: &Spot<'_>| ELSEWHERE.iter().any(|key| group.key(key).is_some());
    takes_written_hosts(cluster)
        && !groups.iter().any(fetched)
        && !hosts.is_empty()
        && hosts.iter().all(is_local_host)
}

/// Whether a cluster of this type has the hosts of its `load_assignment` and no others.
fn takes_written_hosts(cluster: &Spot<'_>) -> bool {
    const STATED: [&str; 3] = ["STATIC", "STRICT_DNS", "LOGICAL_DNS"];
    const NAMED: [&str; 3] = [
        "envoy.cluster.static",
        "envoy.cluster.strict_dns",
        "envoy.cluster.logical_dns",
    ];
    let Some(custom) = cluster.key("cluster_type") else {
        return text(cluster.value, "type").is_none_or(|stated| STATED.contains(&stated));
    };
    match field(custom.value, "typed_config") {
        Some(config) => super::shape::is_type(config, "DnsCluster"),
        None => text(custom.value, "name").is_some_and(|name| NAMED.contains(&name)),
    }
}

/// Whether every address of a host is on this one; an internal listener's own filters are judged like any listener's.
fn is_local_host(host: &Spot<'_>) -> bool {
    let near = |address: &Value| {
        is_loopback(address) || field(address, "envoy_internal_address").is_some()
    };
    let Some(endpoint) = host.key("endpoint") else {
        return false;
    };
    let more = endpoint.list("additional_addresses");
    let mut all = more
        .iter()
        .chain([&endpoint])
        .map(|one| field(one.value, "address"));
    all.all(|address| address.is_some_and(near))
}

/// Whether this address is a Unix socket or one that only this host reaches.
pub(super) fn is_loopback(address: &Value) -> bool {
    let host = text(address, "socket_address.address");
    let loopback =
        |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    field(address, "pipe").is_some() || host.is_some_and(loopback)
}

/// Whether the host at the other end is who it should be.
fn tls(cluster: &Spot<'_>, found: &mut Found) {
    let own_name = OWN_NAME.iter().any(|key| {
        any(cluster.value, &|value| {
            field(value, key).is_some_and(is_set)
        })
    });
    cluster.each(&mut |spot| {
        if spot.is_type("Alts") && !field(spot.value, "peer_service_accounts").is_some_and(is_set) {
            found.error("upstream_name", &spot.path, "any service account is taken; add `peer_service_accounts`");
        }
        if !spot.is_tls_context("UpstreamTlsContext", &CONTEXTS) {
            return;
        }
        let has = |key: &str| any(spot.value, &|value| field(value, key).is_some_and(is_set));
        if !any(spot.value, &checks_certificates) {
            found.error("upstream_ca", &spot.path, "any certificate is taken, so anybody between can answer and read the credential; add a `validation_context` with `trusted_ca`");
        } else if !own_name && !NAMES.iter().any(|key| has(key)) {
            found.error("upstream_name", &spot.path, "the certificate of any host is taken; add `match_typed_subject_alt_names`");
        }
        let untrusted = |value: &Value| text(value, "trust_chain_verification").is_some_and(|how| how != "VERIFY_TRUST_CHAIN");
        if any(spot.value, &untrusted) {
            found.error("upstream_untrusted", &spot.path, "certificates that do not hold are taken; remove `trust_chain_verification`");
        }
        for key in ["allow_expired_certificate", "allow_renegotiation"] {
            if has(key) {
                found.error("upstream_untrusted", &spot.path, format!("what TLS checks is weakened; remove `{key}`"));
            }
        }
        let old = |value: &Value| {
            ["tls_minimum_protocol_version", "tls_maximum_protocol_version"].iter().any(|key| matches!(text(value, key), Some("TLSv1_0" | "TLSv1_1")))
        };
        if any(spot.value, &old) {
            found.error("upstream_tls_version", &spot.path, "TLS older than 1.2 is spoken; remove the limit");
        }
    });
}
