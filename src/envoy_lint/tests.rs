//! The file we ship is clean, and each rule fires alone when the line it asks for is changed.

use serde_json::{Value, json};

use super::{connection::LOCAL_REPLY_MARK as LOCAL_REPLY, *};

const DOCS: &str = include_str!("../../docs/add-to-an-existing-envoy.md");
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

fn ours() -> Ours {
    Ours {
        service: "countersign".to_owned(),
        lend_to_routes: Vec::new(),
        lend_to_clusters: Vec::new(),
        lent_headers: Vec::new(),
        allows_websockets: false,
        longest_hold: Duration::from_secs(600),
        names_ports: false,
    }
}

fn found(config: &Value) -> Vec<&'static str> {
    codes(config, &ours())
}

fn codes(config: &Value, ours: &Ours) -> Vec<&'static str> {
    let mut codes: Vec<_> = lint(config, ours)
        .unwrap()
        .into_iter()
        .map(|finding| finding.code)
        .collect();
    for code in &codes {
        assert!(
            DOCS.contains(&format!("`{code}`")),
            "{code} is not in the docs"
        );
    }
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
    assert_eq!(lint(&shipped(), &ours()), Ok(vec![]));
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
        ("hold_cut", &action, "idle_timeout", Value::Null),
        ("hold_cut", &action, "idle_timeout", json!("600s")),
        ("message_timeout", PROC, "message_timeout", json!("5s")),
        ("retries", &grpc, "retry_policy", json!({})),
        (
            "ext_proc_unknown",
            PROC,
            "processing_request_modifier",
            json!({}),
        ),
        ("disabled", "/http_filters/0", "disabled", json!(true)),
        ("disabled", "/http_filters/2", "is_optional", json!(true)),
        (
            "path_normalization",
            "",
            "path_normalization_options",
            json!({}),
        ),
        (
            "chunked_length",
            "",
            "http_protocol_options",
            json!({"allow_chunked_length": true}),
        ),
        (
            "upgrade",
            "/http2_protocol_options",
            "allow_connect",
            json!(true),
        ),
        (
            "internal_address",
            "/internal_address_config",
            "unix_sockets",
            json!(true),
        ),
        (
            "internal_address",
            "/internal_address_config",
            "cidr_ranges",
            json!([{"address_prefix": "10.0.0.0"}]),
        ),
        (
            "remote_address",
            "",
            "original_ip_detection_extensions",
            json!([{"name": "x"}]),
        ),
        (
            "stream_duration",
            "/common_http_protocol_options",
            "max_stream_duration",
            json!("60s"),
        ),
        (
            "stream_duration",
            &action,
            "max_stream_duration",
            json!({"max_stream_duration": "60s"}),
        ),
        ("path_rewrite", &action, "prefix_rewrite", json!("/v2")),
        (
            "path_rewrite",
            &action,
            "regex_rewrite",
            json!({"substitution": "/"}),
        ),
        (
            "path_rewrite",
            &action,
            "path_rewrite_policy",
            json!({"name": "template"}),
        ),
        (
            "host_rewrite",
            &action,
            "host_rewrite",
            json!("%REQ(x-host)%"),
        ),
        (
            "host_rewrite",
            &action,
            "host_rewrite_header",
            json!("x-host"),
        ),
        (
            "cluster_plugin",
            &action,
            "cluster_specifier_plugin",
            json!("x"),
        ),
        (
            "headers_added",
            ROUTE,
            "request_headers_to_add",
            json!([{"header": {"key": "Authorization", "value": "Bearer x"}}]),
        ),
        (
            "local_reply_forged",
            "/route_config/virtual_hosts/0",
            "response_headers_to_add",
            json!([{"header": {"key": "x-countersign-local-reply", "value": "1"}}]),
        ),
        (
            "local_reply_mark",
            "/local_reply_config/mappers/0/filter/status_code_filter/comparison/value",
            "default_value",
            json!(500),
        ),
        (
            "override",
            ROUTE,
            "typed_per_filter_config",
            json!({"envoy.filters.http.rbac": {"@type": "x/envoy.config.route.v3.FilterConfig", "disabled": true}}),
        ),
        (
            "override",
            "/route_config/virtual_hosts/0",
            "typed_per_filter_config",
            json!({"envoy.filters.http.header_mutation": {"@type": "x/a.v3.HeaderMutationPerRoute"}}),
        ),
        (
            "cluster_unseen",
            &action,
            "weighted_clusters",
            json!({"clusters": [{"name": "model", "weight": 1}, {"name": "other", "weight": 1}]}),
        ),
        (
            "override",
            &action,
            "weighted_clusters",
            json!({"clusters": [{"name": "model", "weight": 1,
            "typed_per_filter_config": {"envoy.filters.http.ext_proc": {"@type": "x/a.v3.ExtProcPerRoute", "disabled": true}}}]}),
        ),
        (
            "response_guard_changed",
            "/http_filters/1/typed_config/default_source_code",
            "inline_string",
            json!(
                "function envoy_on_response(r) if nil then r:x()[\"countersign\"][\"release\"] == \"granted\" end end"
            ),
        ),
        (
            "filter_behind",
            "/http_filters/4/typed_config",
            "upstream_http_filters",
            json!([{"name": "x"}]),
        ),
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
        assert_eq!(found(&config), [code], "{at} {key}");
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
        found(&config)
    };
    assert_eq!(moved(1, 2), ["response_guard_order"]);
    assert_eq!(moved(3, 2), ["request_guard_order"]);
    assert_eq!(moved(0, 2), ["x_envoy"]);
    let added = |at: usize, filter: Value| {
        let mut config = shipped();
        let chain = manager(&mut config).pointer_mut(CHAIN).unwrap();
        chain.as_array_mut().unwrap().insert(at, filter);
        found(&config)
    };
    let compressor = json!({"name": "c", "typed_config": {"@type": "x/a.v3.Compressor"}});
    let filter =
        |kind: &str| json!({"name": "f", "typed_config": {"@type": format!("x/a.v3.{kind}")}});
    assert_eq!(added(4, filter("Buffer")), Vec::<&str>::new());
    assert_eq!(added(4, filter("Wasm")), ["filter_behind"]);
    assert_eq!(added(0, filter("JwtAuthentication")), Vec::<&str>::new());
    assert_eq!(added(0, filter("CacheConfig")), ["cache"]);
    assert_eq!(added(0, filter("Tap")), ["tap"]);
    assert_eq!(added(0, filter("Composite")), ["matcher"]);
    assert_eq!(added(0, json!({"name": "f"})), ["filter_unknown"]);
    let forged = json!({"name": "f", "typed_config": {"@type": "x/a.v3.Config", "rules": [{"metadata_namespace": "countersign"}]}});
    assert_eq!(added(0, forged), ["permit_forged"]);
    assert_eq!(added(4, compressor.clone()), ["compression"]);
    assert_eq!(added(0, compressor), Vec::<&str>::new());
    let other = json!({"name": "e", "typed_config": {"@type": "x/a.v3.ExternalProcessor"}});
    assert_eq!(added(0, other), ["second_ext_proc"]);
}

#[test]
fn a_filter_behind_a_matcher_is_not_there() {
    let mut config = shipped();
    let filter = manager(&mut config).pointer_mut("/http_filters/2").unwrap();
    let inner = filter["typed_config"].take();
    filter["typed_config"] = json!({"@type": "x/a.v3.ExtensionWithMatcher",
        "extension_config": {"name": "p", "typed_config": inner}});
    assert_eq!(found(&config), ["ext_proc"]);
}

#[test]
fn clusters_are_looked_at() {
    let with = |cluster: usize, key: &str, value: Value| {
        let mut config = shipped();
        config["static_resources"]["clusters"][cluster][key] = value;
        found(&config)
    };
    let tls = |context: Value, more: Value| {
        let mut all = json!({"@type": "x/a.v3.UpstreamTlsContext", "common_tls_context": {"validation_context": context}});
        all["common_tls_context"]["tls_params"] = more;
        json!({"name": "tls", "typed_config": all})
    };
    let san = json!([{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}]);
    let good = json!({"trusted_ca": {"filename": "ca"}, "match_typed_subject_alt_names": san});
    for cluster in [0, 1] {
        let with = |context, more| with(cluster, "transport_socket", tls(context, more));
        assert_eq!(with(good.clone(), Value::Null), Vec::<&str>::new());
        assert_eq!(with(json!({}), Value::Null), ["upstream_ca"]);
        assert_eq!(
            with(json!({"trusted_ca": {"filename": "ca"}}), Value::Null),
            ["upstream_name"]
        );
        assert_eq!(
            with(
                good.clone(),
                json!({"tls_maximum_protocol_version": "TLSv1_1"})
            ),
            ["upstream_tls_version"]
        );
        for (key, value) in [
            ("trust_chain_verification", json!("ACCEPT_UNTRUSTED")),
            ("allow_expired_certificate", json!(true)),
        ] {
            let mut weak = good.clone();
            weak[key] = value;
            assert_eq!(with(weak, Value::Null), ["upstream_untrusted"]);
        }
    }
    assert_eq!(with(0, "type", json!("ORIGINAL_DST")), ["cluster_dynamic"]);
    let custom = |name: &str| json!({"name": name});
    assert_eq!(
        with(
            0,
            "cluster_type",
            custom("envoy.clusters.dynamic_forward_proxy")
        ),
        ["cluster_dynamic"]
    );
    assert_eq!(
        with(0, "cluster_type", custom("envoy.clusters.aggregate")),
        ["cluster_unknown"]
    );
    let options = |key: &str, value: Value| json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {key: value}});
    assert_eq!(
        with(
            0,
            "typed_extension_protocol_options",
            options("retry_policy", json!({}))
        ),
        ["retries"]
    );
    let filters = json!([{"name": "h", "typed_config": {"@type": "x/a.v3.HeaderMutation"}}]);
    assert_eq!(
        with(
            0,
            "typed_extension_protocol_options",
            options("http_filters", filters)
        ),
        ["filter_behind"]
    );
    let at = |host: &str| json!({"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": 1}}}}]}]});
    assert_eq!(
        with(1, "load_assignment", at("10.0.0.1")),
        ["service_plain"]
    );
    assert_eq!(
        with(1, "load_assignment", at("127.0.0.1")),
        Vec::<&str>::new()
    );
    assert_eq!(
        with(
            1,
            "circuit_breakers",
            json!({"thresholds": [{"max_requests": 1024}]})
        ),
        ["max_requests"]
    );
    let keepalive = json!({"interval": "1s", "timeout": "90s"});
    assert_eq!(
        with(
            1,
            "typed_extension_protocol_options",
            options("connection_keepalive", keepalive)
        ),
        ["keepalive"]
    );
}

#[test]
fn the_rest_of_the_bootstrap_is_looked_at() {
    let mut config = shipped();
    config["admin"]["address"]["socket_address"]["address"] = json!("0.0.0.0");
    assert_eq!(found(&config), ["admin_open"]);
    config["admin"]["address"] = json!({"pipe": {"path": "/run/envoy"}});
    assert_eq!(found(&config), Vec::<&str>::new());
    for (layer, code) in [
        (
            json!({"static_layer": {"envoy.reloadable_features.x": false}}),
            Some("runtime_flag"),
        ),
        (
            json!({"static_layer": {"envoy": {"reloadable_features": {"x": true}}}}),
            Some("runtime_flag"),
        ),
        (
            json!({"static_layer": {"countersign.local_reply.min_status": 500}}),
            Some("runtime_flag"),
        ),
        (
            json!({"static_layer": {"overload.global_downstream_max_connections": 5}}),
            None,
        ),
        (json!({"rtds_layer": {"name": "x"}}), Some("runtime_unseen")),
        (json!({"admin_layer": {}}), None),
    ] {
        config["layered_runtime"] = json!({"layers": [layer]});
        assert_eq!(found(&config), code.into_iter().collect::<Vec<_>>());
    }
    let mut config = shipped();
    config["dynamic_resources"] = json!({"lds_config": {"ads": {}}});
    assert_eq!(found(&config), ["listeners_unseen"]);
}

#[test]
fn what_our_configuration_says_counts() {
    let longer = |seconds| Ours {
        longest_hold: Duration::from_secs(seconds),
        ..ours()
    };
    assert_eq!(codes(&shipped(), &longer(1799)), Vec::<&str>::new());
    assert_eq!(codes(&shipped(), &longer(1800)), ["hold_cut"]);
    let never = with(&format!("{ROUTE}/route"), "idle_timeout", json!("0s"));
    assert_eq!(codes(&never, &longer(1800)), Vec::<&str>::new());
    let stripped = with("", "strip_any_host_port", json!(true));
    assert_eq!(found(&stripped), Vec::<&str>::new());
    let ports = Ours {
        names_ports: true,
        ..ours()
    };
    assert_eq!(codes(&stripped, &ports), ["strip_port"]);
}

#[test]
fn listeners_and_the_service_are_looked_at() {
    let tls = |context: Value| {
        let mut config = shipped();
        config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] =
            json!({"name": "tls", "typed_config": context});
        found(&config)
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
    assert_eq!(found(&config), ["tcp_proxy"]);
    let filters = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    filters[1] = json!({"name": "envoy.filters.network.redis_proxy"});
    assert_eq!(found(&config), ["network_filter"]);

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
        assert_eq!(found(&config), [code]);
    }
    let mut config = shipped();
    config["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap()
        .pop();
    assert_eq!(found(&config), ["service_unseen"]);
}

#[test]
fn what_a_credential_is_lent_to_must_be_there_and_be_one() {
    let lending = |routes: &[&str], clusters: &[&str]| Ours {
        lend_to_routes: routes.iter().map(ToString::to_string).collect(),
        lend_to_clusters: clusters.iter().map(ToString::to_string).collect(),
        ..ours()
    };
    assert_eq!(
        codes(&shipped(), &lending(&["model"], &["model"])),
        ["lend_plain"],
        "the model server we ship a place for is another host, and speaks no TLS"
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
    twin["route"]["cluster"] = json!("countersign");
    routes.as_array_mut().unwrap().push(twin);
    assert_eq!(
        codes(&config, &lending(&["model"], &[])),
        ["lend_cluster_many", "lend_plain"]
    );
}

#[test]
fn a_lent_credential_is_not_copied_anywhere() {
    let logged = |format: &str| json!([{"typed_config": {"@type": "x/a.FileAccessLog", "log_format": {"json_format": {"a": format}}}}]);
    let action = format!("{ROUTE}/route");
    let table: Vec<(&str, &str, Value)> = vec![
        ("", "access_log", logged("%REQ(AUTHORIZATION)%")),
        ("", "access_log", logged("of %REQ(x-y?x-api-key):10%")),
        (
            "",
            "access_log",
            logged("%CEL(request.headers['api-key'])%"),
        ),
        (
            "",
            "access_log",
            json!([{"typed_config": {"@type": "x/a.HttpGrpcAccessLogConfig", "additional_request_headers_to_log": ["x-y", "Cookie"]}}]),
        ),
        (
            "",
            "access_log",
            json!([{"typed_config": {"@type": "x/a.OpenTelemetryAccessLogConfig", "attributes": {"values": [
                {"key": "a", "value": {"string_value": "%REQ(cookie)%"}}]}}}]),
        ),
        (
            "",
            "access_log",
            json!([{"typed_config": {"@type": "x/a.HttpGrpcAccessLogConfig", "common_config": {"custom_tags": [
                {"tag": "a", "request_header": {"name": "DPoP"}}]}}}]),
        ),
        (
            "",
            "tracing",
            json!({"custom_tags": [{"tag": "a", "request_header": {"name": "x-goog-api-key"}}]}),
        ),
        (
            ROUTE,
            "tracing",
            json!({"custom_tags": [{"tag": "a", "request_header": {"name": "proxy-authorization"}}]}),
        ),
        (
            "/http_filters/4/typed_config",
            "upstream_log",
            logged("%REQ(authorization)%"),
        ),
        (
            &action,
            "response_headers_to_add",
            json!([{"header": {"key": "x-echo", "value": "%REQ(authorization)%"}}]),
        ),
    ];
    for (at, key, value) in table {
        let config = with(at, key, value.clone());
        assert_eq!(found(&config), ["credential_copied"], "{key}: {value}");
    }
    let custom = with("", "access_log", logged("%REQ(X-Llm-Key)%"));
    assert_eq!(found(&custom), Vec::<&str>::new());
    let lent = Ours {
        lent_headers: vec!["x-llm-key".to_owned()],
        ..ours()
    };
    assert_eq!(codes(&custom, &lent), ["credential_copied"]);
    let harmless = with("", "access_log", logged("authorization %REQ(:PATH)%"));
    assert_eq!(found(&harmless), Vec::<&str>::new());
    let mut config = shipped();
    config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] =
        json!({"typed_config": {"@type": "x/envoy.extensions.transport_sockets.tap.v3.Tap"}});
    assert_eq!(found(&config), ["tap"]);
}

/// An access log that writes `format`.
fn log_of(format: &str) -> Value {
    json!([{"typed_config": {"@type": "x/a.FileAccessLog", "log_format": {"text_format_source": {"inline_string": format}}}}])
}

#[test]
fn each_way_to_read_a_request_header_into_a_log_is_known() {
    for format in [
        "%REQ(Proxy-Authorization)%",
        "%REQ(dpop)%",
        "%REQUEST_HEADER(AUTHORIZATION)%",
        "of %REQUEST_HEADER(X-Y?X-Api-Key):4%, and more",
        "%REQ_WITHOUT_QUERY(Cookie)%",
        "%TYPED_CEL(request.headers['authorization'])%",
        "%TYPED_CEL(request.headers)%",
        "%CEL(request.headers[ 'author' + 'ization' ])%",
        "%CEL(request.headers.map(name, name))%",
        "%CEL(request['headers'])%",
        "%TYPED_CEL(request)%",
        r#"%COALESCE({"operators": [{"command": "REQ", "param": "x-y?authorization"}]}):9%"#,
        r#"%COALESCE({"operators": ["REQUESTED_SERVER_NAME", {"command": "REQUEST_HEADER", "param": "cookie"}]})%"#,
        "%PROTOCOL% %REQ(x-y):10% %REQ(x-api-key)%",
    ] {
        let logged = with("", "access_log", log_of(format));
        assert_eq!(found(&logged), ["credential_copied"], "{format}");
        let tags = json!({"custom_tags": [{"tag": "a", "value": format}]});
        let traced = with(ROUTE, "tracing", tags);
        assert_eq!(found(&traced), ["credential_copied"], "{format}");
    }
    for format in [
        "authorization %REQ(:PATH):10% cookie %START_TIME(%s)%",
        "%REQUEST_HEADER(x-request-id)% %RESPONSE_HEADER(x-y)%",
        "%CEL(request.headers['x-request-id'] + request.path)%",
        "%CEL('x-y' in request.headers)% %CEL(request.headers.referer)%",
        "%CEL(has(request.headers.referer) ? 'request' : response.headers['x-y'])%",
        r#"%COALESCE({"operators": [{"command": "REQ", "param": ":authority"}]})%"#,
    ] {
        let config = with("", "access_log", log_of(format));
        assert_eq!(found(&config), Vec::<&str>::new(), "{format}");
    }
}

#[test]
fn a_log_that_cannot_be_read_here_is_named() {
    let written = |source: Value| json!([{"typed_config": {"@type": "x/a.StdoutAccessLog", "log_format": {"text_format_source": source}}}]);
    let kind = |kind: &str| json!([{"typed_config": {"@type": kind}}]);
    let formatter = |kind: &str| {
        json!([{"typed_config": {"@type": "x/a.StdoutAccessLog", "log_format": {"json_format": {},
            "formatters": [{"typed_config": {"@type": format!("x/a.v3.{kind}")}}]}}}])
    };
    let headers = |excluded: Value| {
        let formatter = json!({"typed_config": {"@type": "x/envoy.extensions.formatter.all_headers.v3.AllHeaders", "exclude_headers": excluded}});
        json!([{"typed_config": {"@type": "x/a.StdoutAccessLog", "log_format": {
            "text_format_source": {"inline_string": "%REQ_ALL_HEADERS%"}, "formatters": [formatter]}}}])
    };
    let all = [
        "Authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "dpop",
    ];
    let table = [
        (
            written(json!({"filename": "format"})),
            Some("format_unseen"),
        ),
        (
            written(json!({"environment_variable": "FORMAT"})),
            Some("format_unseen"),
        ),
        (
            written(json!({"inline_bytes": "JVJFUShhdXRob3JpemF0aW9uKSU="})),
            Some("format_unseen"),
        ),
        (kind("x/a.v3.WasmAccessLog"), Some("access_log_unknown")),
        (
            kind("x/a.v3.DynamicModuleAccessLog"),
            Some("access_log_unknown"),
        ),
        (json!([{"name": "x"}]), Some("access_log_unknown")),
        (
            kind("x/envoy.extensions.access_loggers.stats.v3.Config"),
            None,
        ),
        (kind("x/a.v3.OpenTelemetryAccessLogConfig"), None),
        (formatter("Cel"), None),
        (formatter("DynamicModuleFormatter"), Some("format_unseen")),
        (headers(json!([])), Some("credential_copied")),
        (
            headers(json!(["authorization", "cookie", "set-cookie"])),
            Some("credential_copied"),
        ),
        (headers(json!(all)), None),
    ];
    for (log, code) in table {
        let code: Vec<_> = code.into_iter().collect();
        assert_eq!(found(&with("", "access_log", log.clone())), code, "{log}");
        let router = with("/http_filters/4/typed_config", "upstream_log", log.clone());
        assert_eq!(found(&router), code, "{log}");
    }
    let lent = Ours {
        lent_headers: vec!["x-llm-key".to_owned()],
        ..ours()
    };
    let config = with("", "access_log", headers(json!(all)));
    assert_eq!(codes(&config, &lent), ["credential_copied"]);
}

#[test]
fn a_rate_limit_at_the_end_of_a_request_copies_what_it_counts_by() {
    let limits = |done: bool, header: &str| {
        let action =
            json!({"request_headers": {"header_name": header, "descriptor_key": "caller"}});
        let limits = json!([{"apply_on_stream_done": done, "actions": [action]}]);
        found(&with(&format!("{ROUTE}/route"), "rate_limits", limits))
    };
    assert_eq!(limits(true, "Authorization"), ["credential_copied"]);
    assert_eq!(limits(true, "x-y"), Vec::<&str>::new());
    assert_eq!(limits(false, "authorization"), Vec::<&str>::new());
}

#[test]
fn websockets_are_let_through_where_policy_may_allow_them() {
    let action = format!("{ROUTE}/route");
    let allowing = Ours {
        allows_websockets: true,
        ..ours()
    };
    let plain = with(
        &action,
        "upgrade_configs",
        json!([{"upgrade_type": "websocket"}]),
    );
    assert_eq!(codes(&plain, &allowing), Vec::<&str>::new());
    for more in [
        json!([{"upgrade_type": "CONNECT"}]),
        json!([{"upgrade_type": "websocket", "connect_config": {}}]),
        json!([{"upgrade_type": "websocket"}, {"upgrade_type": "h2c"}]),
    ] {
        let config = with(&action, "upgrade_configs", more);
        assert_eq!(codes(&config, &allowing), ["upgrade"]);
    }
    let everywhere = with(
        "",
        "upgrade_configs",
        json!([{"upgrade_type": "websocket"}]),
    );
    assert_eq!(codes(&everywhere, &allowing), ["upgrade"]);
    let says = |config: &Value, ours: &Ours| lint(config, ours).unwrap()[0].message.clone();
    assert!(says(&everywhere, &allowing).contains("on the routes"));
    assert!(says(&plain, &ours()).contains("allow_upgrade"));
}

#[test]
fn an_upgrade_that_is_switched_off_is_none() {
    for kind in ["websocket", "CONNECT"] {
        let off = json!([{"upgrade_type": kind, "enabled": false}]);
        for at in [&format!("{ROUTE}/route"), ""] {
            let config = with(at, "upgrade_configs", off.clone());
            assert_eq!(found(&config), Vec::<&str>::new(), "{kind} {at}");
        }
    }
    // A route that switches it on again takes the chain that stands here.
    let own =
        json!([{"upgrade_type": "websocket", "enabled": false, "filters": [{"name": "router"}]}]);
    assert_eq!(found(&with("", "upgrade_configs", own)), ["upgrade"]);
    let on = json!([{"upgrade_type": "websocket", "enabled": false}, {"upgrade_type": "CONNECT"}]);
    let config = with(&format!("{ROUTE}/route"), "upgrade_configs", on);
    assert_eq!(found(&config), ["upgrade"]);
}

/// The cluster `model` we ship, elsewhere than on this host, with these transport sockets.
fn model_elsewhere(sockets: &Value) -> Value {
    let mut config = shipped();
    let clusters = config["static_resources"]["clusters"].as_array_mut();
    let model = clusters
        .unwrap()
        .iter_mut()
        .find(|cluster| cluster["name"] == "model")
        .unwrap();
    for (key, value) in sockets.as_object().unwrap() {
        model[key] = value.clone();
    }
    let endpoint = &mut model["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    endpoint["address"]["socket_address"]["address"] = json!("models.example");
    config
}

#[test]
fn what_is_lent_travels_in_tls_only() {
    let lending = Ours {
        lend_to_clusters: vec!["model".to_owned()],
        ..ours()
    };
    let context = json!({"common_tls_context": {"validation_context": {
        "trusted_ca": {"filename": "ca"}, "match_typed_subject_alt_names": [{"san_type": "DNS"}]}}});
    let mut typed = context.clone();
    typed["@type"] = json!("x/a.UpstreamTlsContext");
    let tls = json!({"name": "tls", "typed_config": typed});
    let quic = |context: &Value| json!({"typed_config": {"@type": "x/a.QuicUpstreamTransport", "upstream_tls_context": context}});
    let start = json!({"typed_config": {"@type": "x/a.UpstreamStartTlsConfig", "tls_socket_config": context}});
    let plain = json!({"typed_config": {"@type": "x/a.RawBuffer"}});
    let either = json!([{"name": "a", "match": {}, "transport_socket": tls}, {"name": "b", "match": {}, "transport_socket": plain}]);
    for (sockets, codes_found) in [
        (json!({}), vec!["lend_plain"]),
        (json!({"transport_socket": tls}), vec![]),
        (json!({"transport_socket": quic(&context)}), vec![]),
        (
            json!({"transport_socket": start}),
            vec!["lend_plain", "starttls"],
        ),
        (
            json!({"transport_socket": tls, "transport_socket_matches": either}),
            vec!["lend_plain"],
        ),
        // Contexts without a type of their own are looked at like any other.
        (
            json!({"transport_socket": quic(&json!({}))}),
            vec!["upstream_ca"],
        ),
    ] {
        let config = model_elsewhere(&sockets);
        assert_eq!(codes(&config, &lending), codes_found, "{sockets}");
    }
}

#[test]
fn a_cluster_is_on_this_host_where_all_its_hosts_are() {
    let lending = Ours {
        lend_to_clusters: vec!["model".to_owned()],
        ..ours()
    };
    let at = |address: Value| json!({"load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}});
    let host = |host: &str| json!({"socket_address": {"address": host, "port_value": 1}});
    let with = |changes: &Value| {
        let mut config = shipped();
        let clusters = config["static_resources"]["clusters"].as_array_mut();
        let mut all = clusters.unwrap().iter_mut();
        let model = all.find(|cluster| cluster["name"] == "model").unwrap();
        for (key, value) in changes.as_object().unwrap() {
            model[key] = value.clone();
        }
        codes(&config, &lending)
    };
    for near in [
        host("127.0.0.1"),
        host("::1"),
        json!({"pipe": {"path": "/run/model"}}),
        json!({"envoy_internal_address": {"server_listener_name": "l"}}),
    ] {
        assert_eq!(with(&at(near.clone())), Vec::<&str>::new(), "{near}");
    }
    assert_eq!(with(&at(host("models.example"))), ["lend_plain"]);
    // Health checks go to an address of their own, and a control plane names hosts that are not written here.
    let mut checked = at(host("models.example"));
    checked["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["health_check_config"] =
        json!({"address": host("127.0.0.1")});
    assert_eq!(with(&checked), ["lend_plain"]);
    let mut fetched = at(host("127.0.0.1"));
    fetched["type"] = json!("EDS");
    assert_eq!(with(&fetched), ["lend_plain"]);
    for (kind, codes_found) in [
        ("DnsCluster", vec![]),
        ("RedisClusterConfig", vec!["lend_plain"]),
    ] {
        let mut custom = at(host("localhost"));
        custom["cluster_type"] =
            json!({"name": "envoy.cluster.x", "typed_config": {"@type": format!("x/a.v3.{kind}")}});
        assert_eq!(with(&custom), codes_found, "{kind}");
    }
    let mut grouped = at(host("127.0.0.1"));
    grouped["load_assignment"]["endpoints"][0]["load_balancer_endpoints"] = json!({});
    assert_eq!(with(&grouped), ["lend_plain"]);
    let mut bound = at(host("127.0.0.1"));
    bound["upstream_bind_config"] =
        json!({"extra_source_addresses": [{"address": {"address": "10.0.0.1", "port_value": 0}}]});
    assert_eq!(with(&bound), Vec::<&str>::new());
}

#[test]
fn what_is_lent_to_is_looked_at_though_no_route_that_is_seen_leads_there() {
    let mut config = model_elsewhere(&json!({"type": "ORIGINAL_DST", "transport_socket":
        {"typed_config": {"@type": "x/a.UpstreamTlsContext"}}}));
    let route = manager(&mut config).pointer_mut(ROUTE).unwrap();
    route["route"]["cluster"] = json!("countersign");
    let lending = Ours {
        lend_to_clusters: vec!["model".to_owned()],
        ..ours()
    };
    assert_eq!(found(&config), Vec::<&str>::new());
    assert_eq!(codes(&config, &lending), ["cluster_dynamic", "upstream_ca"]);
}

/// Transport sockets as Envoy names them, around `inner`.
fn socket(kind: &str, inner: &Value) -> Value {
    json!({"name": "s", "typed_config": {"@type": format!("x/envoy.extensions.transport_sockets.{kind}"), "transport_socket": inner}})
}

/// TLS towards an upstream whose certificate is checked.
fn good_tls() -> Value {
    json!({"typed_config": {"@type": "x/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": "ca"}, "match_typed_subject_alt_names": [{"san_type": "DNS"}]}}}})
}

#[test]
fn each_transport_socket_is_taken_for_what_it_is() {
    let lending = Ours {
        lend_to_clusters: vec!["model".to_owned()],
        ..ours()
    };
    let (tls, nothing) = (good_tls(), Value::Null);
    let raw = socket("raw_buffer.v3.RawBuffer", &nothing);
    let alts = |accounts: Value| {
        json!({"typed_config": {"@type": "x/envoy.extensions.transport_sockets.alts.v3.Alts",
        "handshaker_service": "h", "peer_service_accounts": accounts}})
    };
    let start = json!({"typed_config": {"@type": "x/envoy.extensions.transport_sockets.starttls.v3.UpstreamStartTlsConfig",
        "tls_socket_config": tls["typed_config"]}});
    let module = json!({"typed_config": {"@type": "x/envoy.extensions.transport_sockets.dynamic_modules.v3.DynamicModuleTransportSocket",
        "transport_socket_config": tls, "implements_secure_transport": true}});
    let table: Vec<(Value, &[&str])> = vec![
        (tls.clone(), &[]),
        (raw.clone(), &["lend_plain"]),
        (
            json!({"name": "envoy.transport_sockets.raw_buffer"}),
            &["lend_plain"],
        ),
        (socket("tcp_stats.v3.Config", &tls), &[]),
        (socket("tcp_stats.v3.Config", &raw), &["lend_plain"]),
        (
            socket("internal_upstream.v3.InternalUpstreamTransport", &tls),
            &[],
        ),
        (
            socket("proxy_protocol.v3.ProxyProtocolUpstreamTransport", &tls),
            &[],
        ),
        (
            socket("proxy_protocol.v3.ProxyProtocolUpstreamTransport", &raw),
            &["lend_plain"],
        ),
        (
            socket("http_11_proxy.v3.Http11ProxyUpstreamTransport", &tls),
            &[],
        ),
        (
            socket("http_11_proxy.v3.Http11ProxyUpstreamTransport", &nothing),
            &["lend_plain"],
        ),
        (socket("tap.v3.Tap", &tls), &["tap"]),
        (
            socket("tcp_stats.v3.Config", &socket("tap.v3.Tap", &raw)),
            &["lend_plain", "tap"],
        ),
        (alts(json!(["models@example"])), &[]),
        (alts(json!([])), &["upstream_name"]),
        (start, &["lend_plain", "starttls"]),
        // What is inside one that is not known says nothing of what it does.
        (
            socket("other.v3.Wrapper", &tls),
            &["lend_plain", "socket_unknown"],
        ),
        (json!({"name": "x"}), &["lend_plain", "socket_unknown"]),
        (module, &["lend_plain", "socket_unknown"]),
        (
            socket("s2a.v3.S2AConfiguration", &nothing),
            &["lend_plain", "socket_unknown"],
        ),
    ];
    for (socket, wanted) in table {
        let config = model_elsewhere(&json!({"transport_socket": socket}));
        assert_eq!(codes(&config, &lending), wanted, "{socket}");
    }
}

#[test]
fn what_is_between_envoy_and_the_service_is_taken_for_what_it_is() {
    let elsewhere = json!({"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}}}}]}]});
    let with = |socket: &Value| {
        let mut config = shipped();
        let service = &mut config["static_resources"]["clusters"][1];
        service["load_assignment"] = elsewhere.clone();
        service["transport_socket"] = socket.clone();
        found(&config)
    };
    let tls = good_tls();
    assert_eq!(with(&tls), Vec::<&str>::new());
    assert_eq!(
        with(&socket("tcp_stats.v3.Config", &tls)),
        Vec::<&str>::new()
    );
    assert_eq!(with(&socket("tap.v3.Tap", &tls)), ["tap"]);
    assert_eq!(
        with(&socket("other.v3.Wrapper", &tls)),
        ["service_plain", "socket_unknown"]
    );
    let start = json!({"typed_config": {"@type": "x/envoy.extensions.transport_sockets.starttls.v3.UpstreamStartTlsConfig",
        "tls_socket_config": tls["typed_config"]}});
    assert_eq!(with(&start), ["service_plain", "starttls"]);
}

#[test]
fn what_is_between_callers_and_envoy_is_taken_for_what_it_is() {
    let with = |socket: Value| {
        let mut config = shipped();
        config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = socket;
        found(&config)
    };
    let typed = |kind: &str, key: &str, context: Value| json!({"typed_config": {"@type": format!("x/envoy.extensions.transport_sockets.{kind}"), key: context}});
    let context = json!({"common_tls_context": {}});
    let quic = typed(
        "quic.v3.QuicDownstreamTransport",
        "downstream_tls_context",
        context.clone(),
    );
    let tls = typed(
        "tls.v3.DownstreamTlsContext",
        "common_tls_context",
        json!({}),
    );
    assert_eq!(with(quic), Vec::<&str>::new());
    assert_eq!(with(tls.clone()), Vec::<&str>::new());
    assert_eq!(
        with(socket("tcp_stats.v3.Config", &tls)),
        Vec::<&str>::new()
    );
    assert_eq!(
        with(socket("raw_buffer.v3.RawBuffer", &Value::Null)),
        Vec::<&str>::new()
    );
    assert_eq!(with(socket("tap.v3.Tap", &tls)), ["tap"]);
    assert_eq!(
        with(socket("rustls.v3.RustlsDownstreamTlsContext", &Value::Null)),
        ["socket_unknown"]
    );
    assert_eq!(
        with(typed(
            "starttls.v3.StartTlsConfig",
            "tls_socket_config",
            context
        )),
        ["starttls"]
    );
    let unchecked = json!({"require_client_certificate": true});
    assert_eq!(
        with(typed(
            "starttls.v3.StartTlsConfig",
            "tls_socket_config",
            unchecked
        )),
        ["client_ca", "starttls"]
    );
}

#[test]
fn client_certificates_over_quic_are_checked_too() {
    let mut config = shipped();
    config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({"typed_config": {
        "@type": "x/a.QuicDownstreamTransport", "downstream_tls_context": {"require_client_certificate": true}}});
    assert_eq!(found(&config), ["client_ca"]);
}

#[test]
fn the_filter_that_removes_headers_does_not_speak_for_us() {
    let mut config = shipped();
    let filters = manager(&mut config)["http_filters"].as_array_mut().unwrap();
    let mutation = filters
        .iter_mut()
        .find(|filter| {
            filter["typed_config"]["@type"]
                .as_str()
                .unwrap()
                .ends_with("HeaderMutation")
        })
        .unwrap();
    mutation["typed_config"]["mutations"]["response_mutations"] =
        json!([{"append": {"header": {"key": LOCAL_REPLY, "value": "1"}}}]);
    assert_eq!(found(&config), ["permit_forged"]);
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
        {"@type": "x/a.BootstrapConfigDump", "bootstrap": {"admin": config["admin"]}},
        {"@type": "x/a.ListenersConfigDump", "dynamic_listeners": [{"name": "l", "active_state": {"listener": listener}}]},
        {"@type": "x/a.RoutesConfigDump", "dynamic_route_configs": [{"route_config": table}]},
        {"@type": "x/a.ClustersConfigDump", "dynamic_active_clusters": clusters},
    ]});
    assert_eq!(found(&dump), Vec::<&str>::new());
    dump["configs"][2]["dynamic_route_configs"][0]["route_config"]["request_mirror_policies"] =
        json!([{"cluster": "copy"}]);
    assert_eq!(found(&dump), ["mirror"]);
    dump["configs"][2]["dynamic_route_configs"][0]["route_config"]
        .as_object_mut()
        .unwrap()
        .remove("request_mirror_policies");

    // The routes are chosen by scope.
    let mut scoped = dump.clone();
    let inside = format!("/configs/1/dynamic_listeners/0/active_state/listener{inside}");
    let inner = scoped.pointer_mut(&inside).unwrap();
    inner.as_object_mut().unwrap().remove("rds");
    inner["scoped_routes"] = json!({"name": "scopes", "scoped_rds": {}});
    assert_eq!(found(&scoped), ["routes_unseen"]);
    let scope = |table: &str| json!({"name": "scopes", "scoped_route_configs": [{"name": "a", "route_config_name": table}]});
    let dump_of = |scope: Value| json!({"@type": "x/a.ScopedRoutesConfigDump", "dynamic_scoped_route_configs": [scope]});
    let configs = scoped["configs"].as_array_mut().unwrap();
    configs.push(dump_of(scope("models")));
    assert_eq!(found(&scoped), Vec::<&str>::new());
    scoped["configs"][4] = dump_of(scope("gone"));
    assert_eq!(found(&scoped), ["routes_unseen"]);

    // A filter's configuration stands apart.
    let mut discovered = dump.clone();
    let filter = discovered
        .pointer_mut(&format!("{inside}/http_filters/2"))
        .unwrap();
    let mut config = filter["typed_config"].take();
    *filter =
        json!({"name": "envoy.filters.http.ext_proc", "config_discovery": {"type_urls": ["x"]}});
    assert_eq!(found(&discovered), ["filter_unseen", "ext_proc"]);
    let ecds = |config: &Value| {
        json!({"@type": "x/a.EcdsConfigDump", "ecds_filters": [
        {"ecds_filter": {"@type": "x/a.TypedExtensionConfig", "name": "envoy.filters.http.ext_proc", "typed_config": config}}]})
    };
    discovered["configs"]
        .as_array_mut()
        .unwrap()
        .push(ecds(&config));
    assert_eq!(found(&discovered), Vec::<&str>::new());
    let mut copying = config.clone();
    copying["grpc_service"]["initial_metadata"] =
        json!([{"key": "x-copy", "value": "%REQ(authorization)%"}]);
    discovered["configs"][4] = ecds(&copying);
    assert_eq!(found(&discovered), ["credential_copied"]);
    config["failure_mode_allow"] = json!(true);
    discovered["configs"][4] = ecds(&config);
    assert_eq!(found(&discovered), ["failure_mode_allow"]);

    dump["configs"][2]["dynamic_route_configs"] = json!([]);
    assert_eq!(found(&dump), ["routes_unseen"]);
    dump["configs"].as_array_mut().unwrap().remove(0);
    assert_eq!(found(&dump), ["routes_unseen", "bootstrap_unseen"]);
    assert!(lint(&json!({"configs": []}), &ours()).is_err());
}
