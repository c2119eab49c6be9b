"""`countersign lint-envoy` on what a real Envoy says it runs: nothing in ours, and what was changed in one that was changed."""

import json
import subprocess
import urllib.request

import pytest
import yaml
from stack import Envoy
from stack.countersign import binary
from stack.envoy import http_manager


def lint(*arguments, text: str = "") -> tuple[int, list[str], str]:
    """Exit code, the codes found, and the standard error."""
    run = subprocess.run([binary(), "lint-envoy", "--json", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=30)
    findings = json.loads(run.stdout)["findings"] if run.stdout else []
    for one in findings:
        assert set(one) == {"code", "severity", "path", "message"} and one["severity"] in ("error", "warning")
    return run.returncode, [one["code"] for one in findings], run.stderr


def dump(work, change=None) -> str:
    with Envoy(work, 9, change=change) as envoy:
        with urllib.request.urlopen(f"{envoy.admin}/config_dump", timeout=10) as answer:
            return answer.read().decode()


def test_what_envoy_runs_of_ours_is_clean(tmp_path):
    assert lint("-", text=dump(tmp_path)) == (0, [], "")


def bypass(config):
    manager = http_manager(config)
    filters = {one["name"].rsplit(".", 1)[1]: one for one in manager["http_filters"]}
    filters["ext_proc"]["typed_config"]["failure_mode_allow"] = True
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]
    route["route"]["retry_policy"] = {"retry_on": "5xx", "num_retries": 2}
    route["route"]["prefix_rewrite"] = "/v2/"
    route["route"]["idle_timeout"] = "10s"
    route["typed_per_filter_config"] = {
        "envoy.filters.http.rbac": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True, "config": {}}
    }
    config["layered_runtime"] = {"layers": [{"name": "static", "static_layer": {"envoy.reloadable_features.ext_proc_graceful_grpc_close": True}}]}


def test_what_was_changed_is_found_in_what_envoy_runs(tmp_path):
    code, found, _ = lint("-", text=dump(tmp_path, bypass))
    assert code == 1
    assert sorted(found) == ["failure_mode_allow", "hold_cut", "override", "path_rewrite", "retries", "runtime_flag"]


def copying(config):
    manager = http_manager(config)
    formats = manager["access_log"][0]["typed_config"]["log_format"]["json_format"]
    formats["one"] = "%REQUEST_HEADER(X-OTHER?AUTHORIZATION):9%"
    formats["first"] = '%COALESCE({"operators": [{"command": "REQ", "param": "x-other"}, {"command": "REQ", "param": "x-api-key"}]})%'
    formats["all"] = "%TYPED_CEL(request.headers)%"
    formats["harmless"] = "%CEL(request.headers['x-request-id'])%"
    manager["tracing"] = {"custom_tags": [{"tag": "cookie", "request_header": {"name": "cookie"}}]}
    manager["upgrade_configs"] = [{"upgrade_type": "websocket", "enabled": False}]
    sockets = "type.googleapis.com/envoy.extensions.transport_sockets"
    tls = {"common_tls_context": {}}
    start = {"name": "start", "typed_config": {"@type": f"{sockets}.starttls.v3.UpstreamStartTlsConfig", "tls_socket_config": tls}}
    stats = {"name": "stats", "typed_config": {"@type": f"{sockets}.tcp_stats.v3.Config", "transport_socket": start}}
    model = next(one for one in config["static_resources"]["clusters"] if one["name"] == "model")
    model["transport_socket"] = stats


def test_copies_and_what_is_wrapped_are_found_in_what_envoy_runs(tmp_path):
    code, found, _ = lint("-", text=dump(tmp_path, copying))
    assert (code, sorted(found)) == (1, ["credential_copied"] * 4 + ["starttls", "upstream_ca"])


def from_files(work, change=None):
    """Listeners, routes and clusters come from files, as a control plane would send them."""

    def split(config):
        if change:
            change(config)
        resources = config["static_resources"]
        manager = http_manager(config)
        table = manager.pop("route_config")
        manager["rds"] = {"route_config_name": table["name"], "config_source": source(work, "routes")}
        kinds = {
            "routes": ("route.v3.RouteConfiguration", [table]),
            "listeners": ("listener.v3.Listener", resources["listeners"]),
            "clusters": ("cluster.v3.Cluster", resources["clusters"]),
        }
        for name, (kind, items) in kinds.items():
            typed = [{"@type": f"type.googleapis.com/envoy.config.{kind}", **item} for item in items]
            (work / f"{name}.yaml").write_text(yaml.safe_dump({"version_info": "1", "resources": typed}))
        config["static_resources"] = {}
        config["node"] = {"id": "gateway", "cluster": "gateways"}
        config["dynamic_resources"] = {"lds_config": source(work, "listeners"), "cds_config": source(work, "clusters")}

    return split


def source(work, name):
    return {"resource_api_version": "V3", "path_config_source": {"path": str(work / f"{name}.yaml")}}


def test_what_a_control_plane_sent_is_looked_at(tmp_path):
    clean, dirty = tmp_path / "clean", tmp_path / "dirty"
    clean.mkdir()
    dirty.mkdir()
    assert lint("-", text=dump(clean, from_files(clean))) == (0, [], "")
    code, found, _ = lint("-", text=dump(dirty, from_files(dirty, bypass)))
    assert (code, sorted(found)) == (1, ["failure_mode_allow", "hold_cut", "override", "path_rewrite", "retries", "runtime_flag"])


def test_lines_for_people_and_exit_codes(tmp_path, gateway):
    running = gateway()
    envoy, config = running.envoy.file, running.countersign.file
    run = subprocess.run([binary(), "lint-envoy", envoy, "--config", config], capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout) == (0, f"{envoy}: nothing found\n")

    changed = yaml.safe_load(envoy.read_text())
    http_manager(changed)["route_config"]["virtual_hosts"][0]["routes"][0]["name"] = "other"
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(changed))
    run = subprocess.run([binary(), "lint-envoy", other, "--config", config], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert "warning[lend_route] `lend_to` names the route `model`, which is not there" in run.stdout
    assert run.stdout.endswith("1 found\n")

    assert lint(other, "--config", tmp_path / "missing.yaml")[0] == 2
    for text in ["", "[", "{}", "admin: {}", '{"configs": []}', "a: 1\na: 2"]:
        code, found, error = lint("-", text=text)
        assert (code, found) == (2, []) and error.count("\n") == 1, text
    assert lint(tmp_path / "missing.yaml")[0] == 2


@pytest.mark.parametrize("shape", ["null", "[1]", '{"static_resources": {"listeners": {"a": 1}}}', '{"configs": [{"@type": 7}]}'])
def test_odd_trees_are_refused_and_not_called_clean(shape):
    assert lint("-", text=shape)[0] == 2
