//! The chain of HTTP filters: ours and the guards are there, in order, for every request; nothing behind them changes what was decided.

use serde_json::Value;

use super::{
    Found,
    guards::{self, Lua},
    processor,
    shape::{Parts, Spot, any, field, is_set, kind, text},
};

/// Filters that may stand behind ours, by type: they change nothing that policy read.
const BEHIND: [&str; 4] = ["RBAC", "Buffer", "Router", "UpstreamCodec"];

/// A filter of the chain, with the configuration that counts.
struct Filter<'c> {
    spot: Spot<'c>,
    config: Option<Spot<'c>>,
}

impl<'c> Filter<'c> {
    fn value(&self) -> &'c Value {
        self.config
            .as_ref()
            .map_or(&Value::Null, |config| config.value)
    }

    fn kind(&self) -> Option<&'c str> {
        kind(self.value())
    }
}

/// Holds the chain against ours; yields the names of the filters that no route may override.
pub(super) fn chain(
    manager: &Spot<'_>,
    parts: &Parts<'_>,
    service: &str,
    found: &mut Found,
) -> Vec<String> {
    let all: Vec<_> = manager
        .list("http_filters")
        .into_iter()
        .map(|spot| configured(spot, parts, found))
        .collect();
    let path = format!("{}.http_filters", manager.path);
    let is_ours = |filter: &Filter<'_>| {
        text(filter.value(), "grpc_service.envoy_grpc.cluster_name") == Some(service)
    };
    let first = |wanted: &dyn Fn(&Filter<'_>) -> bool| all.iter().position(wanted);
    let of = |filter: &Filter<'_>, name| filter.kind() == Some(name);

    let Some(ours) = first(&|filter| of(filter, "ExternalProcessor") && is_ours(filter)) else {
        found.error(
            "ext_proc",
            &path,
            format!("requests reach clusters without ext_proc of the cluster `{service}`; add it"),
        );
        return Vec::new();
    };
    let lua = first(&|filter| of(filter, "Lua") && guards::lua(filter.value()) != Lua::Other);
    let rbac = first(&|filter| of(filter, "RBAC") && guards::is_request_guard(filter.value()));
    let x_envoy =
        first(&|filter| of(filter, "HeaderMutation") && guards::removes_x_envoy(filter.value()));
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
    if x_envoy.is_none_or(|at| at > ours) {
        found.warning("x_envoy", &path, "a caller's x-envoy-* headers set timeouts and retries; remove them by a header_mutation filter before ext_proc");
    }
    let needed = [Some(ours), lua, rbac, x_envoy];
    for (at, filter) in all.iter().enumerate() {
        if needed.contains(&Some(at)) {
            conditional(filter, found);
        } else {
            other(filter, at > ours, found);
        }
        if x_envoy == Some(at) && any(filter.value(), &says_ours) {
            found.error("permit_forged", &filter.spot.path, FORGED);
        }
        if lua == Some(at) && guards::lua(filter.value()) == Lua::Changed {
            found.warning("response_guard_changed", &filter.spot.path, "the response guard is not the one of envoy/envoy.yaml, and what it does was not looked at; take that one");
        }
    }
    if let Some(config) = all.get(ours).and_then(|filter| filter.config.as_ref()) {
        processor::judge(config, found);
    }
    let needed = needed.into_iter().flatten().filter_map(|at| all.get(at));
    needed
        .filter_map(|filter| text(filter.spot.value, "name").map(str::to_owned))
        .collect()
}

/// The filter with its configuration, which a dump may hold apart.
fn configured<'c>(spot: Spot<'c>, parts: &Parts<'c>, found: &mut Found) -> Filter<'c> {
    let mut config = spot.key("typed_config");
    if spot.key("config_discovery").is_some() {
        let name = text(spot.value, "name");
        let known = parts
            .extensions
            .iter()
            .find(|known| name.is_some() && text(known.value, "name") == name);
        config = known.and_then(|known| known.key("typed_config"));
        if config.is_none() {
            found.warning("filter_unseen", &spot.path, "the filter's configuration comes from elsewhere and was not looked at; write it here, or give the answer of `/config_dump`");
        }
    }
    Filter { spot, config }
}

/// A filter that every request needs must not be left out for some.
fn conditional(filter: &Filter<'_>, found: &mut Found) {
    for key in ["disabled", "is_optional"] {
        if field(filter.spot.value, key).is_some_and(is_set) {
            found.error(
                "disabled",
                &filter.spot.path,
                format!("requests can pass without this filter; remove `{key}`"),
            );
        }
    }
}

const FORGED: &str =
    "another filter names what the guards ask for, and could say it in our stead; remove it";

/// Whether this names something of ours.
fn says_ours(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.contains("countersign"))
}

/// A filter that is none of ours. What stands before ours changes requests before policy reads them, and answers after
/// they were released, so little can go wrong there.
fn other(filter: &Filter<'_>, behind: bool, found: &mut Found) {
    let path = &filter.spot.path;
    let Some(kind) = filter.kind() else {
        if filter.spot.key("config_discovery").is_none() {
            found.error(
                "filter_unknown",
                path,
                "it cannot be told what this filter is; give it a `typed_config` with a `@type`",
            );
        }
        return;
    };
    // A second processor is named as such; the rest could set the metadata that the guards ask for.
    match kind {
        "ExternalProcessor" => found.warning("second_ext_proc", path, "two ext_proc filters in one chain hang or lose bodies; keep one"),
        kind if kind != "RBAC" && any(filter.value(), &says_ours) => found.error("permit_forged", path, FORGED),
        "ExtensionWithMatcher" | "Composite" => found.error("matcher", path, "a matcher chooses which filters a request meets, and that was not followed; put filters into the chain itself"),
        "CacheConfig" | "CacheV2Config" => found.error("cache", path, "answers are given from a cache, without a decision; remove it"),
        "Tap" => found.error("tap", path, "copies of requests and answers leave; remove it"),
        "Compressor" | "Decompressor" if behind => found.error("compression", path, "bodies reach ext_proc compressed, or hang; put it before ext_proc or remove it"),
        _ if behind && !BEHIND.contains(&kind) => found.error("filter_behind", path, "it can change what was decided on, or answers before they are looked at; put it before ext_proc or remove it"),
        "Router" if field(filter.value(), "upstream_http_filters").is_some_and(is_set) => found.error("filter_behind", path, "filters before the upstream can change what was decided on; remove `upstream_http_filters`"),
        _ => {}
    }
}
