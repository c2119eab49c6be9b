"""The alert rules and the dashboard that we ship: understood by the real Prometheus, about metrics that are there, and right."""

import json
import re

import pytest
import yaml
from stack import ROOT, wait_until
from stack.caller import call
from stack.prometheus import Prometheus, program, promtool

SHIPPED = ROOT / "docs" / "observability"
RULES = SHIPPED / "alerts.yaml"

pytestmark = pytest.mark.skipif(program("promtool") is None, reason="Prometheus is not here: ./dev setup says why")


def alerts() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def board() -> dict:
    return json.loads((SHIPPED / "dashboard.json").read_text())


def shown() -> list[str]:
    """Every expression of the dashboard, with its variables filled in."""
    queries = [target["expr"] for panel in board()["panels"] for target in panel.get("targets", [])]
    filled = [q.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$connection", ".*") for q in queries]
    assert not any("$" in query for query in filled)
    return filled


def documented() -> dict[str, set[str]]:
    """Metrics and their labels, as docs/operations.md has them; a unit test holds that to what the program exposes."""
    rows = re.findall(r"^\| `(countersign_\w+)` \|([^|]*)\|", (ROOT / "docs" / "operations.md").read_text(), re.M)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_expression_names_metrics_and_labels_that_are_there():
    known = documented()
    expressions = [rule["expr"] for rule in alerts()] + shown()
    used = set()
    for expression in expressions:
        names = set(re.findall(r"countersign_\w+", expression))
        labels = {"instance"}
        for name in names:
            base = re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name
            assert base in known, (name, expression)
            used.add(base)
            labels |= known[base] | ({"le"} if name.endswith("_bucket") else set())
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
        for grouped in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression):
            asked |= {label.strip() for label in grouped.split(",")}
        assert asked <= labels, (asked - labels, expression)
    # What nobody looks at, somebody should: everything but what another metric says in other words.
    unseen = set(known) - used - {"countersign_credential_age_seconds", "countersign_credential_fetches_total", "countersign_issuer_key_fetches_total",
                                  "countersign_issuer_keys", "countersign_issuer_introspections_total"}
    assert unseen == set()


def test_promtool_takes_the_rules_and_every_expression_of_the_dashboard(tmp_path):
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0 and f"{len(alerts())} rules found" in done.stdout, done
    rules = [{"record": f"shown:{n}", "expr": expression} for n, expression in enumerate(shown())]
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0 and f"{len(rules)} rules found" in done.stdout, done
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": [{"record": "shown:0", "expr": "sum by (rate("}]}]}))
    assert promtool("check", "rules", file).returncode != 0, "it looks"


ON = 'instance="gw-1"'
# Of each alert: series that let it fire, with the labels it fires with, and series that are all right. Twenty minutes of each, a value a minute.
CASES = {
    "CountersignNotReady": ({"countersign_ready{%s}": "0x20"}, {}, {"countersign_ready{%s}": "1x20"}),
    "CountersignEnvoyMisconfigured": ({'countersign_envoy_misconfigured_total{%s,why="wrong_request_body_mode"}': "_x17 1"},
                                      {"why": "wrong_request_body_mode"},
                                      {'countersign_envoy_misconfigured_total{%s,why="wrong_request_body_mode"}': "4x20"}),
    "CountersignCannotDo": ({'countersign_refusals_total{%s,connection="openai",code="audit_full"}': "0+3x20",
                             'countersign_refusals_total{%s,connection="openai",code="policy_denied"}': "0+9x20"},
                            {"connection": "openai", "code": "audit_full"},
                            {'countersign_refusals_total{%s,connection="openai",code="policy_denied"}': "0+9x20",
                             'countersign_refusals_total{%s,connection="openai",code="audit_full"}': "3x20"}),
    "CountersignMemoryNearlyFull": ({"countersign_held_bytes{%s}": "95x20", "countersign_held_cap_bytes{%s}": "100x20"}, {},
                                    {"countersign_held_bytes{%s}": "50x20", "countersign_held_cap_bytes{%s}": "100x20"}),
    "CountersignConfigRejected": ({'countersign_config_loads_total{%s,result="rejected"}': "_x14 1 1 1 1 1 1"}, {"result": "rejected"},
                                  {'countersign_config_loads_total{%s,result="accepted"}': "0+1x20"}),
    "CountersignCertificateRejected": ({'countersign_certificate_loads_total{%s,result="rejected"}': "_x14 1 1 1 1 1 1"}, {"result": "rejected"},
                                       {'countersign_certificate_loads_total{%s,result="accepted"}': "0+1x20"}),
    "CountersignCertificateExpires": ({'countersign_certificate_not_after_seconds{%s,listener="ext_proc"}': "86400x20"}, {"listener": "ext_proc"},
                                      {'countersign_certificate_not_after_seconds{%s,listener="ext_proc"}': "900000x20"}),
    "CountersignEnvoyOutdated": ({'countersign_envoy_outdated_total{%s,version="1.37.0"}': "_x17 1"}, {"version": "1.37.0"},
                                 {'countersign_envoy_outdated_total{%s,version="1.37.0"}': "4x20"}),
    "CountersignLedgerNotWritable": ({"countersign_ledger_writable{%s}": "1x18 0 0"}, {}, {"countersign_ledger_writable{%s}": "1x20"}),
    "CountersignLedgerFilling": ({"countersign_ledger_alarm_ratios{%s}": "0.85x20"}, {}, {"countersign_ledger_alarm_ratios{%s}": "0x20"}),
    "CountersignLedgerNearlyFull": ({"countersign_ledger_alarm_ratios{%s}": "0.95x20"}, {}, {"countersign_ledger_alarm_ratios{%s}": "0.85x20"}),
    "CountersignRecordsAreSlow": ({'countersign_phase_seconds_bucket{%s,phase="record_opened",le="0.5"}': "0x20",
                                   'countersign_phase_seconds_bucket{%s,phase="record_opened",le="1.0"}': "0+60x20",
                                   'countersign_phase_seconds_bucket{%s,phase="record_opened",le="+Inf"}': "0+60x20"}, {},
                                  {'countersign_phase_seconds_bucket{%s,phase="record_opened",le="0.5"}': "0+60x20",
                                   'countersign_phase_seconds_bucket{%s,phase="record_opened",le="+Inf"}': "0+60x20"}),
    "CountersignCheckpointOld": ({'countersign_checkpoint_age_seconds{%s,holder="file"}': "0+60x20"}, {"holder": "file"},
                                 {'countersign_checkpoint_age_seconds{%s,holder="file"}': "9x20"}),
    "CountersignKafkaBehind": ({"countersign_kafka_oldest_unacknowledged_seconds{%s}": "0+60x20"}, {},
                               {"countersign_kafka_oldest_unacknowledged_seconds{%s}": "200x20"}),
    "CountersignIssuerUnavailable": ({'countersign_issuer_available{%s,issuer="https://idp"}': "0x20"}, {"issuer": "https://idp"},
                                     {'countersign_issuer_available{%s,issuer="https://idp"}': "1x20"}),
    "CountersignIssuerKeysOld": ({'countersign_issuer_keys_age_seconds{%s,issuer="https://idp"}': "0+60x20"}, {"issuer": "https://idp"},
                                 {'countersign_issuer_keys_age_seconds{%s,issuer="https://idp"}': "300x20"}),
    "CountersignIntrospectionFails": ({'countersign_issuer_introspection_failures_total{%s,issuer="https://idp"}': "0+2x20"}, {"issuer": "https://idp"},
                                      {'countersign_issuer_introspection_failures_total{%s,issuer="https://idp"}': "7x20"}),
    "CountersignSamlProviderUnavailable": ({'countersign_saml_provider_available{%s,provider="https://saml"}': "0x20"}, {"provider": "https://saml"},
                                           {'countersign_saml_provider_available{%s,provider="https://saml"}': "1x20"}),
    "CountersignCredentialUnusable": ({'countersign_credential_usable{%s,credential="openai"}': "0x20"}, {"credential": "openai"},
                                      {'countersign_credential_usable{%s,credential="openai"}': "1x20"}),
    "CountersignControlLogUnusable": ({"countersign_control_usable{%s}": "0x20"}, {}, {"countersign_control_usable{%s}": "1x20"}),
    "CountersignControlLogForged": ({"countersign_control_forged_events_total{%s}": "0x15 1 1 1 1 1"}, {},
                                    {"countersign_control_forged_events_total{%s}": "1x20"}),
    "CountersignControlLogUnrecorded": ({"countersign_control_unrecorded_events{%s}": "3x20"}, {},
                                        {"countersign_control_unrecorded_events{%s}": "3x15 0 0 0 0 0"}),
    "CountersignHeldLong": ({"countersign_holds_oldest_seconds{%s}": "0+60x20"}, {}, {"countersign_holds_oldest_seconds{%s}": "45x20"}),
    "CountersignDecidesSlowly": ({'countersign_phase_seconds_bucket{%s,phase="decide",le="0.5"}': "0x20",
                                  'countersign_phase_seconds_bucket{%s,phase="decide",le="1.0"}': "0+60x20",
                                  'countersign_phase_seconds_bucket{%s,phase="decide",le="+Inf"}': "0+60x20"}, {},
                                 {'countersign_phase_seconds_bucket{%s,phase="upstream",le="0.5"}': "0x20",
                                  'countersign_phase_seconds_bucket{%s,phase="upstream",le="+Inf"}': "0+60x20"}),
    "CountersignTracesLost": ({'countersign_trace_spans_total{%s,result="dropped"}': "0+5x20"}, {"result": "dropped"},
                              {'countersign_trace_spans_total{%s,result="sent"}': "0+5x20"}),
}


def test_every_alert_has_its_cases():
    assert set(CASES) == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_where_it_should_and_is_silent_where_not(alert, tmp_path):
    (rule,) = [rule for rule in alerts() if rule["alert"] == alert]
    firing, labels, silent = CASES[alert]
    labels = {"instance": "gw-1", **labels}

    def series(of):
        return [{"series": name % ON, "values": values} for name, values in of.items()]

    def filled(text):
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], text)

    expected = {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": {k: filled(v) for k, v in rule["annotations"].items()}}
    test = tmp_path / "test.yaml"

    def write(expectations):
        test.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [
            {"interval": "1m", "input_series": series(of), "alert_rule_test": [{"eval_time": "19m", "alertname": alert, "exp_alerts": alerts}]}
            for of, alerts in expectations]}))
        return promtool("test", "rules", test)

    done = write([(firing, [expected]), (silent, []), ({}, [])])
    assert done.returncode == 0, done.stdout + done.stderr
    assert write([(firing, [])]).returncode != 0 and write([(silent, [expected])]).returncode != 0, "it looks"


def test_the_real_prometheus_reads_us_and_answers_what_the_dashboard_asks(gateway, tokens, tmp_path):
    if program("prometheus") is None:
        pytest.skip("only promtool is here")
    running = gateway()
    assert call(running.envoy.url, tokens()).status == 200
    assert call(running.envoy.url, tokens("bob-app")).status == 403
    with Prometheus(tmp_path, running.countersign.http, RULES) as prometheus:
        wait_until("it has scraped", lambda: prometheus.query("count(countersign_build_info)"))
        (target,) = prometheus.get("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        for expression in shown():
            prometheus.query(expression)
        wait_until("the rules were evaluated", lambda: all(
            rule["health"] == "ok" for group in prometheus.get("rules")["groups"] for rule in group["rules"]))
        refused = prometheus.query('sum by (code) (countersign_refusals_total)')
        assert [(r["metric"]["code"], r["value"][1]) for r in refused] == [("policy_denied", "1")]
        # Nothing is wrong, so nothing alarms.
        assert prometheus.get("alerts")["alerts"] == []
        # Of what there is now, every name is documented.
        names = {name for name in prometheus.get("label/__name__/values") if name.startswith("countersign_")}
        known = documented()
        assert {re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name for name in names} <= set(known)
        histogram = prometheus.query('count by (phase) (countersign_phase_seconds_count)')
        assert {"identify", "decide", "record_opened", "upstream"} <= {r["metric"]["phase"] for r in histogram}
