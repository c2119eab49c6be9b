//! What a route table does with requests behind the filters.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    Found, Ours, clusters,
    connection::{LOCAL_REPLY_MARK, UNGOVERNED, is_off, is_websocket},
    copies::CREDENTIALS,
    shape::{self, Parts, Spot, field, is_set, is_type, seconds, text},
};

/// Keys anywhere in a route table or a cluster that send a request again, elsewhere or otherwise; with what to do.
const BEHIND_OUR_BACK: [(&str, &str, &str); 16] = [
    ("retry_policy", "retries", AGAIN),
    ("retry_policy_typed_config", "retries", AGAIN),
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
    ("internal_redirect_policy", "internal_redirect", REDIRECT),
    ("internal_redirect_action", "internal_redirect", REDIRECT),
    (
        "cluster_header",
        "cluster_header",
        "a header chooses the cluster, and with it who gets the credential; name the cluster",
    ),
    ("cluster_specifier_plugin", "cluster_plugin", PLUGIN),
    ("inline_cluster_specifier_plugin", "cluster_plugin", PLUGIN),
    ("prefix_rewrite", "path_rewrite", REWRITE),
    ("regex_rewrite", "path_rewrite", REWRITE),
    ("path_rewrite_policy", "path_rewrite", REWRITE),
    ("path_rewrite", "path_rewrite", REWRITE),
    ("host_rewrite", "host_rewrite", HOST),
    ("host_rewrite_header", "host_rewrite", HOST),
    ("host_rewrite_path_regex", "host_rewrite", HOST),
];

const AGAIN: &str = "retries send one approval or single-use grant again; remove it";
const REDIRECT: &str =
    "the upstream's redirect is followed with what was decided for another path; remove it";
const PLUGIN: &str =
    "a plug-in chooses the cluster, and with it who gets the credential; name the cluster";
const REWRITE: &str =
    "policy and upstream read different paths; remove it, and let callers use the upstream's path";
const HOST: &str =
    "the caller chooses the host that the upstream reads; use `host_rewrite_literal`";

/// Headers that nobody may set on a request behind the decision, besides those that only Countersign may.
const NOT_TO_ADD: [&str; 3] = [":path", ":authority", "host"];

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

/// Whether `spot` itself sends a request again, elsewhere or otherwise.
pub(super) fn behind_our_back(spot: &Spot<'_>, found: &mut Found) {
    for (key, code, advice) in BEHIND_OUR_BACK {
        if let Some(set) = spot.key(key).filter(|set| is_set(set.value)) {
            found.error(code, &set.path, advice);
        }
    }
}

/// Where routes lead.
#[derive(Default)]
pub(super) struct Reached {
    clusters: BTreeSet<String>,
    by_route: BTreeMap<String, BTreeSet<String>>,
}

/// What a route table is held against.
pub(super) struct Judge<'a> {
    /// Filters that no route may override.
    pub(super) names: &'a [String],
    pub(super) longest_hold: Duration,
    /// Whether some policy allows WebSockets.
    pub(super) allows_websockets: bool,
    /// How long a stream may be idle where its route does not say; `None` is for ever.
    pub(super) idle: Option<Duration>,
}

impl Judge<'_> {
    /// Looks at everything in `table`.
    pub(super) fn table(&self, table: &Spot<'_>, reached: &mut Reached, found: &mut Found) {
        if table.key("vhds").is_some() {
            found.warning(
                "routes_unseen",
                &table.path,
                "its virtual hosts come from elsewhere and were not looked at; check them as well",
            );
        }
        let marks =
            |names: &Value| shape::any(names, &|name| name.as_str() == Some(LOCAL_REPLY_MARK));
        if !field(table.value, "response_headers_to_remove").is_some_and(marks) {
            found.error("local_reply_forged", &table.path, format!("a model server can pass its answer off as Envoy's and past the response guard; add `response_headers_to_remove: [{LOCAL_REPLY_MARK}]`"));
        }
        table.each(&mut |spot| {
            behind_our_back(&spot, found);
            if let Some(added) = spot
                .key("response_headers_to_add")
                .filter(|added| marks(added.value))
            {
                found.error(
                    "local_reply_forged",
                    &added.path,
                    "every answer is passed off as Envoy's and past the response guard; remove it",
                );
            }
            if let Some(added) = spot.key("request_headers_to_add") {
                headers_added(&added, found);
            }
            if let Some(upgrades) = spot.key("upgrade_configs").filter(|set| is_set(set.value)) {
                self.upgrades(&upgrades, found);
            }
            if let Some(overrides) = spot.key("typed_per_filter_config") {
                self.overridden(&overrides, found);
            }
            let is_route = spot.key("match").is_some() || spot.is_type("Route");
            if let Some(action) = spot.key("route").filter(|_| is_route) {
                self.route(&spot, &action, reached, found);
            }
        });
    }

    /// WebSockets are let through by policy, which has to have said so.
    fn upgrades(&self, upgrades: &Spot<'_>, found: &mut Found) {
        let is_plain = |one: &&Spot<'_>| {
            let plain = one.key("connect_config").is_none() && one.key("filters").is_none();
            plain && is_websocket(one)
        };
        let all = upgrades.items();
        let open: Vec<_> = all.iter().filter(|one| !is_off(one)).collect();
        match open.iter().all(is_plain) {
            true if self.allows_websockets || (open.is_empty() && !all.is_empty()) => {}
            true => found.warning("upgrade", &upgrades.path, "no policy that was seen allows WebSockets, so the upgrade is of no use; remove it, or give the configuration with `allow_upgrade` by `--config`"),
            false => found.error("upgrade", &upgrades.path, UNGOVERNED),
        }
    }

    fn overridden(&self, overrides: &Spot<'_>, found: &mut Found) {
        const KINDS: [&str; 4] = [
            "ExtProcPerRoute",
            "LuaPerRoute",
            "RBACPerRoute",
            "HeaderMutationPerRoute",
        ];
        for (name, value) in overrides.value.as_object().into_iter().flatten() {
            let ours = self.names.contains(name)
                || shape::any(value, &|value| {
                    KINDS.iter().any(|kind| is_type(value, kind))
                });
            if ours {
                let path = format!("{}.{name}", overrides.path);
                found.error(
                    "override",
                    &path,
                    "a route switches off or changes the filter or a guard; remove it",
                );
            }
        }
    }

    fn route(&self, spot: &Spot<'_>, action: &Spot<'_>, reached: &mut Reached, found: &mut Found) {
        if field(action.value, "timeout").and_then(seconds) != Some(Duration::ZERO) {
            found.warning(
                "route_timeout",
                &action.path,
                "answers that stream for long are cut; set `timeout: 0s`",
            );
        }
        let idle = field(action.value, "idle_timeout").map_or(self.idle, |value| {
            seconds(value).filter(|limit| !limit.is_zero())
        });
        if idle.is_some_and(|idle| idle <= self.longest_hold) {
            let hold = self.longest_hold.as_secs();
            found.warning("hold_cut", &action.path, format!("requests held for an approval, up to {hold}s, are cut before it is over; set `idle_timeout` well above that"));
        }
        if let Some(limit) = action.key("max_stream_duration").filter(|limit| {
            shape::any(limit.value, &|value| {
                seconds(value).is_some_and(|s| !s.is_zero())
            })
        }) {
            found.warning(
                "stream_duration",
                &limit.path,
                "long answers and held requests are cut; remove it",
            );
        }
        let clusters = clusters_of(action);
        reached.clusters.extend(clusters.iter().cloned());
        match text(spot.value, "name").filter(|name| !name.is_empty()) {
            Some(name) => reached.by_route.entry(name.to_owned()).or_default().extend(clusters),
            None => found.warning("route_name", &spot.path, "the route has no name, so no record tells it and nothing can be lent to it; name it"),
        }
    }
}

fn clusters_of(action: &Spot<'_>) -> BTreeSet<String> {
    let one = text(action.value, "cluster").into_iter();
    let weighted = action
        .key("weighted_clusters")
        .map_or_else(Vec::new, |all| all.list("clusters"));
    let weighted = weighted
        .iter()
        .filter_map(|cluster| text(cluster.value, "name"));
    one.chain(weighted).map(str::to_owned).collect()
}

fn headers_added(added: &Spot<'_>, found: &mut Found) {
    for header in added.items() {
        let name = text(header.value, "header.key")
            .unwrap_or_default()
            .to_ascii_lowercase();
        if NOT_TO_ADD.contains(&&*name) || CREDENTIALS.contains(&&*name) {
            found.error("headers_added", &header.path, format!("Envoy sets `{name}` after it was decided and lent; remove it, and let Countersign lend the credential"));
        }
    }
}

impl Reached {
    /// The clusters that governed requests reach.
    pub(super) fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.iter().map(String::as_str)
    }

    /// Whether what our configuration lends credentials to is there, and is one thing.
    pub(super) fn lending(&self, ours: &Ours, parts: &Parts<'_>, found: &mut Found) {
        for route in &ours.lend_to_routes {
            match self.by_route.get(route).map(BTreeSet::len) {
                None => found.warning("lend_route", "", format!("`lend_to` names the route `{route}`, which is not there; name one that is")),
                Some(0 | 1) => {}
                Some(_) => found.error("lend_cluster_many", "", format!("`lend_to` names the route `{route}`, which leads to several clusters: all of them get the credential; lend to one cluster by name")),
            }
        }
        for cluster in &ours.lend_to_clusters {
            if parts.cluster(cluster).is_none() {
                found.warning("lend_cluster", "", format!("`lend_to` names the cluster `{cluster}`, which is not there; name one that is"));
            }
        }
        let on_routes = ours
            .lend_to_routes
            .iter()
            .filter_map(|route| self.by_route.get(route));
        let lent_to: BTreeSet<&String> =
            on_routes.flatten().chain(&ours.lend_to_clusters).collect();
        for spot in lent_to.into_iter().filter_map(|name| parts.cluster(name)) {
            if clusters::is_open(spot) {
                found.warning(
                    "lend_plain",
                    &spot.path,
                    "the lent credential can be read between Envoy and this cluster; use TLS",
                );
            }
        }
    }
}
