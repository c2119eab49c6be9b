"""One Envoy of one version with a route for every situation, the real service behind it, and the model server in front of it."""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import subprocess
import threading
import time

from stack import Countersign, Envoy, config, wait_until
from stack.countersign import binary
from stack.envoy import http_filter, http_manager, loopback
from stack.standin import Service, governs
from stack.wire import Http2Model, Model

SSN = "536-22-8145"
EXT_PROC = "envoy.filters.http.ext_proc"
RIGHT = {"request_header_mode": "SEND", "request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND",
         "response_header_mode": "SEND", "response_body_mode": "FULL_DUPLEX_STREAMED", "response_trailer_mode": "SEND"}

# Processing modes that would let something pass unseen, each on a host of its own: `response-none.test`.
WRONG = {
    "request-none": {"request_body_mode": "NONE"}, "request-streamed": {"request_body_mode": "STREAMED"},
    "request-buffered": {"request_body_mode": "BUFFERED"}, "request-partial": {"request_body_mode": "BUFFERED_PARTIAL"},
    "response-none": {"response_body_mode": "NONE"}, "response-streamed": {"response_body_mode": "STREAMED"},
    "response-buffered": {"response_body_mode": "BUFFERED"}, "response-partial": {"response_body_mode": "BUFFERED_PARTIAL"},
    "no-request-headers": {"request_header_mode": "SKIP"}, "no-response-headers": {"response_header_mode": "SKIP"},
    "no-request-trailers": {"request_trailer_mode": "SKIP"}, "no-response-trailers": {"response_trailer_mode": "SKIP"},
    "headers-only": {"request_body_mode": "NONE", "response_body_mode": "NONE"},
}


def per_route(**said) -> dict:
    return {EXT_PROC: {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute", **said}}


def service(cluster: str, **more) -> dict:
    return per_route(overrides={"grpc_service": {"envoy_grpc": {"cluster_name": cluster}}, **more})


def lay_out(envoy: dict, http2_model: int, standin: str):
    """Adds to the shipped configuration, of which nothing is taken away, a host a situation."""
    manager = http_manager(envoy)
    manager["http_protocol_options"] = {"accept_http_10": True, "enable_trailers": True}
    hosts = manager["route_config"]["virtual_hosts"]
    usual = hosts[0]["routes"][0]

    def host(name: str, route: dict | None = None, filters: dict | None = None):
        one = {**usual, "route": {**usual["route"], **(route or {})}}
        if filters:
            one["typed_per_filter_config"] = filters
        hosts.append({"name": name, "domains": [f"{name}.test"], "routes": [one]})

    for name, modes in WRONG.items():
        host(name, filters=per_route(overrides={"processing_mode": {**RIGHT, **modes}}))
    host("disabled", filters=per_route(disabled=True))
    host("lenient", filters=service("nobody", failure_mode_allow=True))
    host("nobody", filters=service("nobody"))
    host("unknown-service", filters=service("no-such-cluster"))
    host("tight", filters=service("tight"))
    host("standin", filters=service("standin"))
    host("http2", {"cluster": "http2"})
    host("idle", {"idle_timeout": "1s"})
    host("retries", {"retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 2,
                                      "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.02s"}}})
    host("upgrades", {"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "h2c"}]})
    clusters = envoy["static_resources"]["clusters"]
    model, ours = (next(one for one in clusters if one["name"] == name) for name in ("model", "countersign"))

    def cluster(base: dict, name: str, address: dict | None, **more):
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}] if address else []
        clusters.append({**base, "name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **more})

    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}}
    cluster(model, "http2", loopback(http2_model), typed_extension_protocol_options=http2)
    cluster(ours, "standin", {"pipe": {"path": standin}})
    cluster(ours, "nobody", {"pipe": {"path": "/nonexistent"}})
    socket = ours["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    cluster(ours, "tight", socket, circuit_breakers={"thresholds": [{"max_requests": 1}]})
    watch(envoy)


def watch(envoy: dict):
    """A second listener, whose filter only watches."""
    listeners = envoy["static_resources"]["listeners"]
    second = copy.deepcopy(listeners[0])
    second["name"] = "watching"
    only = {"static_resources": {"listeners": [second]}}
    filter_ = http_filter(only, EXT_PROC)
    filter_["observability_mode"] = True
    filter_["processing_mode"] = {**RIGHT, "request_body_mode": "STREAMED", "response_body_mode": "STREAMED"}
    http_manager(only)["route_config"]["virtual_hosts"] = http_manager(only)["route_config"]["virtual_hosts"][:1]
    listeners.append(second)


def rules(oidc, work) -> dict:
    """The usual rules; what asks for `gpt-approve` needs somebody, `/big` is not recorded, `/socket` lets WebSockets through, `/owing`
    would, but owes masking."""
    usual = config(oidc.issuer, work)
    usual["identity"]["issuers"][0]["person_claim"] = "email"
    rule = {"approvers": [{"group": "security", "distinct": 1}], "expires": "10m", "wait": "hold", "max_hold": "60s", "reasons": ["it says so"]}
    usual["policies"] += [
        {"name": "ask", "when": 'request.model == "gpt-approve"', "then": {"require_approval": rule}},
        {"name": "allow-approved", "when": 'request.model == "gpt-approve"', "then": {"allow": {}}},
    ]
    (connection,) = usual["connections"]
    connection["policies"] += ["ask", "allow-approved"]
    big = {**connection, "name": "big", "match": {"path_prefix": "/big/v1"}, "payload": "omit"}
    socket = {**connection, "name": "socket", "match": {"path_prefix": "/socket/v1"}, "policies": ["sockets", *connection["policies"]]}
    owing = {**socket, "name": "owing", "match": {"path_prefix": "/owing/v1"}, "policies": ["mask-personal", "sockets"]}
    usual["policies"].append({"name": "sockets", "when": '"finance" in principal.groups', "then": {"allow_upgrade": "websocket"}})
    usual["connections"] = [big, socket, owing, connection]
    usual["approvals"] = {"public_url": "http://127.0.0.1:8480"}
    usual["access"] = {"approver": ["security"]}
    usual["limits"] = {"request_body": "24MiB", "response_body": "24MiB"}
    return usual


class Following:
    """The audit records as they are written, by `countersign tail --follow`."""

    def __init__(self, audit):
        self.records: list[dict] = []
        self.child = subprocess.Popen([binary(), "tail", "--dir", audit, "--follow", "--format", "json"], stdout=subprocess.PIPE,
                                      stdin=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.records.append(json.loads(line))

    def stop(self):
        self.child.terminate()
        self.child.wait(10)
        self.child.stdout.close()


class Rig:
    def __init__(self, work, oidc, version: str):
        self.work, self.oidc, self.version = work, oidc, version
        self.parts: list = []
        self.tokens: dict[tuple, str] = {}

    def __enter__(self):
        try:
            self.model, self.http2_model = self.add(Model()), self.add(Http2Model())
            self.behave = governs
            self.standin = self.add(Service(lambda number, request: self.behave(number, request)))
            self.countersign = self.add(Countersign(self.work, rules(self.oidc, self.work)))
            self.ledger = Following(self.countersign.audit)
            self.envoy = self.add(Envoy(self.work, self.model.port, self.countersign.socket, self.lay_out, version=self.version))
        except BaseException:
            self.__exit__()
            raise
        return self

    def add(self, part):
        part.__enter__()
        self.parts.append(part)
        return part

    def lay_out(self, envoy: dict):
        lay_out(envoy, self.http2_model.port, str(self.standin.socket))

    def __exit__(self, *error):
        if hasattr(self, "ledger"):
            self.ledger.stop()
        for part in reversed(self.parts):
            part.__exit__(*error)

    def token(self, who: str = "alice", *groups: str) -> str:
        groups = groups or ("finance",)
        kept = self.tokens.get((who, groups))
        if kept is None:
            now = int(time.time())
            kept = self.oidc.sign(sub=who, groups=list(groups), exp=now + 3600, auth_time=now, email=f"{who}@example.com")
            self.tokens[who, groups] = kept
        return kept

    @property
    def arrivals(self) -> list:
        return self.model.arrivals + self.http2_model.arrivals

    def begin(self, play):
        """Forgets what was; from now on both model servers do this."""
        self.model.arrivals.clear()
        self.http2_model.arrivals.clear()
        self.said, self.go_on = threading.Event(), threading.Event()

        def played(wire):
            wire.rig = self
            play(wire)

        self.model.play = self.http2_model.play = played
        self.behave = governs
        self.mark = len(self.ledger.records)
        self.misconfigured = self.count_misconfigured()
        self.old = {approval["id"] for approval in self.api("GET", "?state=pending")["approvals"]}

    def count_misconfigured(self) -> float:
        return sum(value for name, value in self.countersign.metrics().items() if name.startswith("countersign_envoy_misconfigured_total"))

    def loud(self) -> bool:
        """Whether a wrong configuration of Envoy was counted since the row began."""
        return self.count_misconfigured() > self.misconfigured

    def recorded(self) -> list[str]:
        """What is on record of sessions since the row began."""
        told = []
        for record in self.ledger.records[self.mark:]:
            if "opened" in record:
                told.append("opened")
            elif "closed" in record:
                told.append(f"closed: {record['closed']['outcome']}")
            elif "refused" in record:
                told.append(f"refused: {record['refused']['decision']['code']}")
        return told

    def idle(self) -> bool:
        """Whether the service has no request in flight."""
        return self.countersign.metrics().get("countersign_streams") == 0

    def idle_soon(self):
        """Waits until nothing is under way and what was opened is closed on record."""
        wait_until("it is over", lambda: self.idle() and any(told.startswith("closed") for told in self.recorded()))

    def settle(self, *expected: list[str]):
        """Waits until nothing is under way and the ledger says one of these."""
        wait_until("all requests are over", self.idle, 30)
        # What is on record is read a moment later; that nothing is can be said only then.
        something = [one for one in expected if one]
        try:
            wait_until("the ledger says so", lambda: self.recorded() in (something or expected), 5)
        except Exception:
            if self.recorded() in expected:
                return
            raise AssertionError(f"the ledger says {self.recorded()}, not {expected}") from None

    def api(self, method: str, path: str, body=None) -> dict:
        """Our own API, as somebody of `security`."""
        connection = http.client.HTTPConnection(self.countersign.http, timeout=10)
        with contextlib.closing(connection):
            headers = {"authorization": f"Bearer {self.token('sam', 'security')}", "content-type": "application/json"}
            connection.request(method, f"/api/v1/approvals{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            assert answer.status == 200, told
            return told

    def pending(self) -> dict:
        """The approval that is waited for."""
        def new():
            return [one["id"] for one in self.api("GET", "?state=pending")["approvals"] if one["id"] not in self.old]

        (found,) = wait_until("an approval is asked for", new)
        return self.api("GET", f"/{found}")

    def approve(self, approval: dict):
        self.api("POST", f"/{approval['id']}/decision", {"decision": "approve", "binding": approval["binding"], "reason": "looked at it"})

    def used(self) -> int:
        """How many uses of approvals are on record since the row began."""
        return sum(record.get("approval", {}).get("action") == "consumed" for record in self.ledger.records[self.mark:])
