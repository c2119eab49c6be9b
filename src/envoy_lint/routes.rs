//! What a route table does with requests behind the filters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Found, Lending, rules,
    shape::{self, Parts, Spot, camel, field, is_set, is_type, text},
};

/// Keys anywhere in a route table that send a request again, or to somewhere else; with what to do.
const BEHIND_OUR_BACK: [(&str, &str, &str); 7] = [
    (
        "retry_policy",
        "retries",
        "retries send one approval or single-use grant again; remove it",
    ),
    (
        "retry_policy_typed_config",
        "retries",
        "retries send one approval or single-use grant again; remove it",
    ),
    (
        "hedge_policy",
        "retries",
        "hedging sends one request several times; remove it",
    ),
    (
        "request_mirror_policies",
        "mirror",
        "copies of requests leave for another cluster; remove it",
    ),
    (
        "internal_redirect_policy",
        "internal_redirect",
        "the upstream's redirect is followed with what was decided for another path; remove it",
    ),
    (
        "internal_redirect_action",
        "internal_redirect",
        "the upstream's redirect is followed with what was decided for another path; remove it",
    ),
    (
        "cluster_header",
        "cluster_header",
        "a header chooses the cluster, and with it who gets the credential; name the cluster",
    ),
];

/// Whether any route of the table leads to a cluster, rather than to an answer of Envoy's.
pub(super) fn reaches_a_cluster(table: &Value) -> bool {
    let leads = |value: &Value| {
        [
            "cluster",
            "weighted_clusters",
            "cluster_header",
            "cluster_specifier_plugin",
            "inline_cluster_specifier_plugin",
        ]
        .iter()
        .any(|key| field(value, key).is_some())
    };
    // Virtual hosts that are fetched one by one may lead anywhere.
    field(table, "vhds").is_some() || shape::any(table, &leads)
}

/// Which clusters each route name leads to.
#[derive(Default)]
pub(super) struct Names(BTreeMap<String, BTreeSet<String>>);

/// Looks at every route of `table`; `ours` are the names of the filters that must not be overridden.
pub(super) fn table(table: &Spot<'_>, ours: &[String], names: &mut Names, found: &mut Found) {
    if table.key("vhds").is_some() {
        found.warning(
            "routes_unseen",
            &table.path,
            "its virtual hosts come from elsewhere and were not looked at; check them as well",
        );
    }
    let removed = field(table.value, "response_headers_to_remove").is_some_and(|names| {
        shape::any(names, &|name| {
            name.as_str() == Some(rules::LOCAL_REPLY_MARK)
        })
    });
    if !removed {
        found.error("local_reply_forged", &table.path, format!("a model server can pass its answer off as Envoy's and past the response guard; add `response_headers_to_remove: [{}]`", rules::LOCAL_REPLY_MARK));
    }
    table.each(&mut |spot| {
        for (key, code, advice) in BEHIND_OUR_BACK {
            if let Some(set) = spot.key(key).filter(|set| is_set(set.value)) {
                found.error(code, &set.path, advice);
            }
        }
        if let Some(upgrades) = spot.key("upgrade_configs").filter(|set| is_set(set.value)) {
            found.error(
                "upgrade",
                &upgrades.path,
                "what is said after an upgrade is not governed; remove it",
            );
        }
        for key in ["typed_per_filter_config", &camel("typed_per_filter_config")] {
            if let Some(overrides) = spot.value.get(key) {
                let overrides = Spot {
                    path: format!("{}.{key}", spot.path),
                    value: overrides,
                };
                overridden(&overrides, ours, found);
            }
        }
        if let Some(action) = spot.key("route").filter(|_| spot.key("match").is_some()) {
            route(&spot, &action, names, found);
        }
    });
}

fn overridden(overrides: &Spot<'_>, ours: &[String], found: &mut Found) {
    let Some(map) = overrides.value.as_object() else {
        return;
    };
    for (name, value) in map {
        let ours = ours.contains(name)
            || shape::any(value, &|value| {
                ["ExtProcPerRoute", "LuaPerRoute", "RBACPerRoute"]
                    .iter()
                    .any(|kind| is_type(value, kind))
            });
        if ours {
            found.error(
                "override",
                &format!("{}.{name}", overrides.path),
                "a route switches off or changes the filter or a guard; remove it",
            );
        }
    }
}

fn route(spot: &Spot<'_>, action: &Spot<'_>, names: &mut Names, found: &mut Found) {
    if text(action.value, "timeout") != Some("0s") {
        found.warning(
            "route_timeout",
            &action.path,
            "answers that stream for long are cut; set `timeout: 0s`",
        );
    }
    if field(action.value, "idle_timeout").is_none() {
        found.warning("route_idle_timeout", &action.path, "requests held for an approval are cut by the connection manager's limit; set `idle_timeout` above the longest hold");
    }
    let Some(name) = text(spot.value, "name").filter(|name| !name.is_empty()) else {
        found.warning(
            "route_name",
            &spot.path,
            "the route has no name, so no record tells it and nothing can be lent to it; name it",
        );
        return;
    };
    let clusters = names.0.entry(name.to_owned()).or_default();
    action.each(&mut |below| {
        let weighted = below
            .path
            .contains("clusters[")
            .then(|| text(below.value, "name"))
            .flatten();
        clusters.extend(text(below.value, "cluster").or(weighted).map(str::to_owned));
    });
}

impl Names {
    /// Whether what our configuration lends credentials to is there, and is one thing.
    pub(super) fn judge(&self, lending: &Lending, parts: &Parts<'_>, found: &mut Found) {
        for route in &lending.routes {
            match self.0.get(route).map(BTreeSet::len) {
                None => found.warning("lend_route", "", format!("`lend_to` names the route `{route}`, which is not there; name one that is")),
                Some(0 | 1) => {}
                Some(_) => found.error("lend_cluster_many", "", format!("`lend_to` names the route `{route}`, which leads to several clusters: all of them get the credential; lend to one cluster by name")),
            }
        }
        for cluster in &lending.clusters {
            if !parts
                .clusters
                .iter()
                .any(|spot| text(spot.value, "name") == Some(cluster))
            {
                found.warning("lend_cluster", "", format!("`lend_to` names the cluster `{cluster}`, which is not there; name one that is"));
            }
        }
    }
}
