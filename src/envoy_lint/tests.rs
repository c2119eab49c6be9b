//! The file we ship is clean, and each rule fires alone when the line it asks for is changed.

use serde_json::{Value, json};

use super::*;

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const CHAIN: &str = "/http_filters";
const PROC: &str = "/http_filters/2/typed_config";
const RULES: &str = "/http_filters/3/typed_config/rules";
const ROUTE: &str = "/route_config/virtual_hosts/0/routes/0";

fn shipped() -> Value {
    crate::config::yaml(include_str!("../../envoy/envoy.yaml")).unwrap()
}

fn manager(config: &mut Value) -> &mut Value {
    config.pointer_mut(MANAGER).unwrap()
}

fn codes(config: &Value, lending: &Lending) -> Vec<&'static str> {
    let mut codes: Vec<_> = lint(config, "countersign", lending)
        .unwrap()
        .into_iter()
        .map(|finding| finding.code)
        .collect();
    codes.dedup();
    codes
}

/// Sets (or with null removes) `key` of the object at `at` in the connection manager we ship.
fn with(at: &str, key: &str, value: Value) -> Value {
    let mut config = shipped();
    let object = manager(&mut config).pointer_mut(at).unwrap();
    let object = object.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(key).unwrap();
    } else {
        object.insert(key.to_owned(), value);
    }
    config
}

#[test]
fn what_we_ship_is_clean() {
    assert_eq!(
        lint(&shipped(), "countersign", &Lending::default()),
        Ok(vec![])
    );
}

#[test]
fn each_change_is_found_and_nothing_else() {
    let action = format!("{ROUTE}/route");
    let modes = format!("{PROC}/processing_mode");
    let policies = format!("{RULES}/policies");
    let grpc = format!("{PROC}/grpc_service/envoy_grpc");
    let options = format!("{PROC}/metadata_options");
    let table: Vec<(&str, &str, &str, Value)> = vec![
        ("normalize_path", "", "normalize_path", json!(false)),
        ("merge_slashes", "", "merge_slashes", Value::Null),
        (
            "escaped_slashes",
            "",
            "path_with_escaped_slashes_action",
            json!("UNESCAPE_AND_FORWARD"),
        ),
        ("underscores", "", "common_http_protocol_options", json!({})),
        ("remote_address", "", "use_remote_address", json!(false)),
        (
            "upgrade",
            "",
            "upgrade_configs",
            json!([{"upgrade_type": "websocket"}]),
        ),
        ("local_reply_mark", "", "local_reply_config", Value::Null),
        (
            "local_reply_forged",
            "/route_config",
            "response_headers_to_remove",
            Value::Null,
        ),
        ("routes_unseen", "/route_config", "vhds", json!({})),
        (
            "failure_mode_allow",
            PROC,
            "failure_mode_allow",
            json!(true),
        ),
        (
            "failure_mode_allow",
            PROC,
            "failureModeAllow",
            Value::Bool(true),
        ),
        (
            "allow_mode_override",
            PROC,
            "allow_mode_override",
            json!(true),
        ),
        (
            "observability_mode",
            PROC,
            "observability_mode",
            json!(true),
        ),
        (
            "disable_immediate_response",
            PROC,
            "disable_immediate_response",
            json!(true),
        ),
        (
            "content_length",
            PROC,
            "allow_content_length_header",
            json!(true),
        ),
        (
            "forward_rules",
            PROC,
            "forward_rules",
            json!({"disallowed_headers": {}}),
        ),
        ("message_timeout", PROC, "max_message_timeout", json!("10s")),
        ("mutation_rules", PROC, "mutation_rules", Value::Null),
        ("metadata_options", PROC, "metadata_options", Value::Null),
        (
            "request_attributes",
            PROC,
            "request_attributes",
            json!(["source.address"]),
        ),
        ("route_cache", PROC, "route_cache_action", Value::Null),
        (
            "metadata_forwarded",
            &options,
            "forwarding_namespaces",
            json!({"untyped": ["x"]}),
        ),
        (
            "processing_mode",
            &modes,
            "request_header_mode",
            json!("SKIP"),
        ),
        (
            "processing_mode",
            &modes,
            "response_header_mode",
            json!("SKIP"),
        ),
        (
            "processing_mode",
            &modes,
            "request_body_mode",
            json!("BUFFERED_PARTIAL"),
        ),
        (
            "processing_mode",
            &modes,
            "response_body_mode",
            json!("NONE"),
        ),
        (
            "processing_mode",
            &modes,
            "request_trailer_mode",
            Value::Null,
        ),
        (
            "processing_mode",
            &modes,
            "response_trailer_mode",
            json!("SKIP"),
        ),
        ("disabled", "/http_filters/1", "disabled", json!(true)),
        ("disabled", "/http_filters/2", "disabled", json!(true)),
        ("disabled", "/http_filters/3", "disabled", json!(true)),
        ("ext_proc", &grpc, "cluster_name", json!("other")),
        (
            "response_guard",
            "/http_filters/1/typed_config/default_source_code",
            "inline_string",
            json!("function envoy_on_response(r) end"),
        ),
        ("request_guard", RULES, "action", json!("LOG")),
        (
            "request_guard",
            &policies,
            "also",
            json!({"permissions": [{"any": true}], "principals": [{"any": true}]}),
        ),
        (
            "request_guard",
            "/http_filters/3/typed_config",
            "matcher",
            json!({}),
        ),
        (
            "x_envoy",
            "/http_filters/0/typed_config",
            "mutations",
            json!({}),
        ),
        (
            "filter_unseen",
            "/http_filters/4",
            "config_discovery",
            json!({}),
        ),
        (
            "retries",
            &action,
            "retry_policy",
            json!({"retry_on": "5xx"}),
        ),
        (
            "retries",
            "/route_config/virtual_hosts/0",
            "retryPolicy",
            json!({"retry_on": "5xx"}),
        ),
        (
            "retries",
            &action,
            "hedge_policy",
            json!({"hedge_on_per_try_timeout": true}),
        ),
        (
            "mirror",
            &action,
            "request_mirror_policies",
            json!([{"cluster": "copy"}]),
        ),
        (
            "internal_redirect",
            &action,
            "internal_redirect_policy",
            json!({}),
        ),
        ("cluster_header", &action, "cluster_header", json!("x-to")),
        (
            "upgrade",
            &action,
            "upgrade_configs",
            json!([{"upgrade_type": "websocket"}]),
        ),
        ("route_timeout", &action, "timeout", Value::Null),
        ("route_idle_timeout", &action, "idle_timeout", Value::Null),
        ("route_name", ROUTE, "name", Value::Null),
        (
            "override",
            ROUTE,
            "typed_per_filter_config",
            json!({"envoy.filters.http.ext_proc": {"disabled": true}}),
        ),
        (
            "override",
            ROUTE,
            "typedPerFilterConfig",
            json!({"other": {"@type": "x/a.RBACPerRoute"}}),
        ),
        (
            "override",
            "/route_config",
            "typed_per_filter_config",
            json!({"envoy.filters.http.lua": {"disabled": true}}),
        ),
    ];
    for (code, at, key, value) in table {
        let config = match key {
            // Two spellings of one field do not stand together.
            "failureModeAllow" => {
                let mut config = with(at, "failure_mode_allow", Value::Null);
                manager(&mut config).pointer_mut(at).unwrap()[key] = value;
                config
            }
            _ => with(at, key, value),
        };
        assert_eq!(codes(&config, &Lending::default()), [code], "{at} {key}");
    }
}

#[test]
fn the_order_of_filters_is_looked_at() {
    let moved = |from: usize, to: usize| {
        let mut config = shipped();
        let chain = manager(&mut config).pointer_mut(CHAIN).unwrap();
        let chain = chain.as_array_mut().unwrap();
        let filter = chain.remove(from);
        chain.insert(to, filter);
        codes(&config, &Lending::default())
    };
    assert_eq!(moved(1, 2), ["response_guard_order"]);
    assert_eq!(moved(3, 2), ["request_guard_order"]);
    assert_eq!(moved(0, 2), ["x_envoy"]);
    let added = |at: usize, filter: Value| {
        let mut config = shipped();
        let chain = manager(&mut config).pointer_mut(CHAIN).unwrap();
        chain.as_array_mut().unwrap().insert(at, filter);
        codes(&config, &Lending::default())
    };
    let compressor = json!({"name": "c", "typed_config": {"@type": "x/a.v3.Compressor"}});
    assert_eq!(added(4, compressor.clone()), ["compression"]);
    assert_eq!(added(0, compressor), Vec::<&str>::new());
    let other = json!({"name": "e", "typed_config": {"@type": "x/a.v3.ExternalProcessor"}});
    assert_eq!(added(0, other), ["second_ext_proc"]);
}

#[test]
fn listeners_and_the_service_are_looked_at() {
    let tls = |context: Value| {
        let mut config = shipped();
        config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] =
            json!({"name": "tls", "typed_config": context});
        codes(&config, &Lending::default())
    };
    let downstream = "x/envoy.v3.DownstreamTlsContext";
    assert_eq!(
        tls(json!({"@type": downstream, "require_client_certificate": true})),
        ["client_ca"]
    );
    let context = json!({"trusted_ca": {"filename": "ca"}});
    let checked = json!({"@type": downstream, "require_client_certificate": true,
        "common_tls_context": {"validation_context": context}});
    assert_eq!(tls(checked.clone()), Vec::<&str>::new());
    let mut untrusted = checked;
    untrusted["common_tls_context"]["validation_context"]["trust_chain_verification"] =
        json!("ACCEPT_UNTRUSTED");
    assert_eq!(tls(untrusted), ["client_untrusted"]);

    let mut config = shipped();
    let filters = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    filters
        .as_array_mut()
        .unwrap()
        .push(json!({"typed_config": {"@type": "x/a.TcpProxy", "cluster": "model"}}));
    assert_eq!(codes(&config, &Lending::default()), ["tcp_proxy"]);

    for (key, code) in [
        ("typed_extension_protocol_options", "keepalive"),
        ("circuit_breakers", "max_requests"),
    ] {
        let mut config = shipped();
        config["static_resources"]["clusters"][1]
            .as_object_mut()
            .unwrap()
            .remove(key)
            .unwrap();
        assert_eq!(codes(&config, &Lending::default()), [code]);
    }
    let mut config = shipped();
    config["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap()
        .pop();
    assert_eq!(codes(&config, &Lending::default()), ["service_unseen"]);
}

#[test]
fn what_a_credential_is_lent_to_must_be_there_and_be_one() {
    let lending = |routes: &[&str], clusters: &[&str]| Lending {
        routes: routes.iter().map(ToString::to_string).collect(),
        clusters: clusters.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(
        codes(&shipped(), &lending(&["model"], &["model"])),
        Vec::<&str>::new()
    );
    assert_eq!(codes(&shipped(), &lending(&["gone"], &[])), ["lend_route"]);
    assert_eq!(
        codes(&shipped(), &lending(&[], &["gone"])),
        ["lend_cluster"]
    );
    let mut config = shipped();
    let routes = manager(&mut config)
        .pointer_mut("/route_config/virtual_hosts/0/routes")
        .unwrap();
    let mut twin = routes[0].clone();
    twin["route"]["cluster"] = json!("elsewhere");
    routes.as_array_mut().unwrap().push(twin);
    assert_eq!(
        codes(&config, &lending(&["model"], &[])),
        ["lend_cluster_many"]
    );
}

#[test]
fn a_dump_is_read_with_its_dynamic_parts() {
    let mut config = shipped();
    let resources = config["static_resources"].clone();
    let table = manager(&mut config)["route_config"].clone();
    let mut listener = resources["listeners"][0].clone();
    let inside = MANAGER
        .strip_prefix("/static_resources/listeners/0")
        .unwrap();
    let inner = listener
        .pointer_mut(inside)
        .unwrap()
        .as_object_mut()
        .unwrap();
    inner.remove("route_config");
    inner.insert("rds".to_owned(), json!({"route_config_name": "models"}));
    let clusters: Vec<_> = resources["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| json!({"cluster": c}))
        .collect();
    let mut dump = json!({"configs": [
        {"@type": "x/a.ListenersConfigDump", "dynamic_listeners": [{"name": "l", "active_state": {"listener": listener}}]},
        {"@type": "x/a.RoutesConfigDump", "dynamic_route_configs": [{"route_config": table}]},
        {"@type": "x/a.ClustersConfigDump", "dynamic_active_clusters": clusters},
    ]});
    assert_eq!(codes(&dump, &Lending::default()), Vec::<&str>::new());
    dump["configs"][1]["dynamic_route_configs"][0]["route_config"]["request_mirror_policies"] =
        json!([{"cluster": "copy"}]);
    assert_eq!(codes(&dump, &Lending::default()), ["mirror"]);
    dump["configs"][1]["dynamic_route_configs"] = json!([]);
    assert_eq!(codes(&dump, &Lending::default()), ["routes_unseen"]);
    assert!(lint(&json!({"configs": []}), "countersign", &Lending::default()).is_err());
}
