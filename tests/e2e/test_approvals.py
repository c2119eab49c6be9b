"""A person must approve: through real Envoy, with real SDKs, over restarts; what is released is what was approved, once."""

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest
from conftest import kind
from stack import Gateway, Upstream, config, wait_until
from stack.caller import begin, call, finish, prompt
from stack.envoy import http_manager
from stack.process import ROOT
from stack.upstream import Answer, chat

SSN = "536-22-8145"
RISKY = f"my number is {SSN}, is that a problem?"


def office(oidc, work, **changed) -> dict:
    """The usual gateway, where a prompt with an SSN in it needs somebody of `security`."""
    usual = config(oidc.issuer, work)
    usual["identity"]["issuers"][0]["person_claim"] = "email"
    rule = {"approvers": [{"group": "security", "distinct": 1}], "expires": "10m", "wait": "hold", "max_hold": "30s",
            "reasons": ["an SSN in the prompt"], "break_glass": ["incident"], **changed}
    usual["policies"].insert(0, {"name": "ask-for-ssn", "when": '"US_SSN" in findings', "then": {"require_approval": rule}})
    usual["connections"][0]["policies"].insert(0, "ask-for-ssn")
    usual["approvals"] = {"max_holds": 3000, "max_holds_per_principal": 3000, "max_pending_per_principal": 20_000,
                          "public_url": "http://127.0.0.1:8480"}
    usual["limits"] = {"streams": 5_000, "streams_per_principal": 5_000}
    usual["access"] = {"approver": ["security"], "auditor": ["audit"], "admin": ["admins"]}
    return usual


class Office:
    """A gateway that asks, and the people around it."""

    def __init__(self, gateway, oidc, upstream):
        self.gateway, self.oidc, self.upstream = gateway, oidc, upstream
        self.url, self.countersign = gateway.envoy.url, gateway.countersign

    def token(self, who="alice", groups=("finance",), **claims):
        claims = {"auth_time": int(time.time()), "email": f"{who}@example.com", **claims}
        return self.oidc.sign(sub=who, groups=list(groups), stolen=True, **claims)

    def api(self, method, path, token=None, body=None):
        """Our own API: status and JSON."""
        connection = http.client.HTTPConnection(self.countersign.http, timeout=30)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        data = None
        if body is not None:
            headers["content-type"], data = "application/json", json.dumps(body)
        connection.request(method, f"/api/v1/approvals{path}", data, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def pending(self) -> list[dict]:
        status, listed = self.api("GET", "?state=pending", self.token("sam", ["security"]))
        assert status == 200, listed
        return listed["approvals"]

    def wait_for(self, n=1) -> list[dict]:
        return wait_until(f"{n} approvals are pending", lambda: len(found := self.pending()) >= n and found)

    def decide(self, approval: dict, decision="approve", who="sam", groups=("security",), reason="looked at it", **claims):
        if "binding" not in approval:
            # A list does not say what is to be decided on: whoever decides has looked at it, and that is on record.
            status, approval = self.api("GET", f"/{approval['id']}", self.token("sam", ["security"]))
            assert status == 200, approval
        body = {"decision": decision, "binding": approval["binding"], "reason": reason}
        return self.api("POST", f"/{approval['id']}/decision", self.token(who, groups, **claims), body)

    def records(self, action=None) -> list[dict]:
        found = [record["approval"] for record in self.countersign.records() if kind(record) == "approval"]
        return [one for one in found if action in (None, one["action"])]


@pytest.fixture
def office_of(tmp_path, oidc):
    """Starts a gateway that asks: `office_of(wait="defer")`."""
    running = []

    def start(upstream, envoy=None, more=None, **changed):
        work = tmp_path / f"office-{len(running)}"
        work.mkdir()
        usual = office(oidc, work, **changed)
        if more:
            more(usual)
        gateway = Gateway(work, usual, upstream.port, envoy).start()
        running.append(gateway)
        return Office(gateway, oidc, upstream)

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def desk(office_of, upstream):
    return office_of(upstream)


def test_a_held_request_is_released_by_an_approver_and_by_nobody_else(desk):
    alice = desk.token()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, desk.url, alice, prompt(RISKY))
        (approval,) = desk.wait_for()
        assert desk.upstream.requests == []
        status, shown = desk.api("GET", f"/{approval['id']}", desk.token("sam", ["security"]))
        assert status == 200 and SSN not in json.dumps(shown), shown
        assert "[US_SSN]" in json.dumps(shown) and "an SSN in the prompt" in json.dumps(shown)
        # Not the caller, under whatever account; not somebody of another group; not with a proof of yesterday.
        for who, groups, claims, code in [
            ("alice", ["security"], {}, "own_request"),
            ("alice-admin", ["security"], {"email": "alice@example.com"}, "own_request"),
            ("alice-proxy", ["security"], {"act": {"sub": "alice"}}, "own_request"),
            ("bob", ["finance"], {}, "not_asked"),
            ("root", ["admins"], {}, "not_asked"),
        ]:
            status, answer = desk.decide(approval, who=who, groups=groups, **claims)
            assert (status, answer["error"]["code"]) == (403, code), (who, answer)
        status, answer = desk.decide(approval, auth_time=int(time.time()) - 86_400)
        assert (status, answer["error"]["code"]) == (401, "authentication_too_old"), answer
        assert desk.decide({**approval, "binding": "00" * 32})[0] in (409, 422)
        assert not asked.done() and desk.upstream.requests == []
        status, answer = desk.decide(approval)
        assert status == 200, answer
        reply = asked.result(30)
    assert reply.status == 200
    assert SSN not in desk.upstream.requests[0].body.decode()
    opened = next(record["opened"] for record in desk.countersign.records() if kind(record) == "opened")
    went_by = opened["decision"]["approval"]
    assert (went_by["id"], went_by["state"]) == (approval["id"], "consumed")
    assert [(vote["subject"], vote["given"]) for vote in went_by["votes"]] == [("sam", "approve")]
    actions = [record["action"] for record in wait_until("it is on record", lambda: desk.records("consumed") and desk.records())]
    assert [action for action in actions if action not in ("seen", "rejected")] == ["asked", "approved", "consumed"]
    assert "seen" in actions
    assert {record["code"] for record in desk.records("rejected")} >= {"own_request", "not_asked"}
    assert desk.countersign.verify().returncode == 0


def test_a_no_is_told_and_is_on_record(desk):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, desk.url, desk.token(), prompt(RISKY))
        (approval,) = desk.wait_for()
        assert desk.decide(approval, "deny")[0] == 200
        reply = asked.result(30)
    assert (reply.status, reply.code) == (403, "approval_denied")
    assert desk.upstream.requests == []
    assert desk.records("denied")[0]["subject"] == "sam"


def test_a_deferred_request_survives_a_restart_and_goes_once(office_of, upstream):
    desk = office_of(upstream, wait="defer")
    alice = desk.token()
    reply = call(desk.url, alice, prompt(RISKY))
    assert (reply.status, reply.code) == (403, "approval_required")
    ticket = reply.header("countersign-approval")
    assert reply.header("x-should-retry") == "false" and reply.header("retry-after")
    assert reply.header("location").endswith(f"/api/v1/approvals/{ticket}")
    late = call(desk.url, alice, prompt(RISKY), {"prefer": "respond-async"})
    assert late.status == 202 and late.header("countersign-approval") == ticket
    # The caller sees how it stands and nothing else; nobody else but approvers sees it at all.
    status, seen = desk.api("GET", f"/{ticket}", alice)
    assert status == 200 and seen["state"] == "pending" and "excerpt" not in json.dumps(seen)
    assert desk.api("GET", f"/{ticket}", desk.token("mallory"))[0] == 404
    (approval,) = desk.pending()
    assert desk.decide(approval)[0] == 200
    desk.countersign.kill()
    desk.countersign.start()
    assert desk.api("GET", f"/{ticket}", alice)[1]["state"] == "approved"
    # One byte more is another request; so is another header that means something.
    assert call(desk.url, alice, prompt(RISKY + " ")).status == 403
    assert call(desk.url, alice, prompt(RISKY), {"openai-organization": "org-2"}).status == 403
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: call(desk.url, alice, prompt(RISKY)), range(8)))
    assert sorted(reply.status for reply in replies) == [200] + [403] * 7, [reply.status for reply in replies]
    assert len(upstream.requests) == 1


def test_the_official_sdks_ask_once_and_raise_a_typed_error(office_of, upstream):
    upstream.answer = chat("it is a made-up one")
    desk = office_of(upstream, wait="defer")
    client = openai.OpenAI(base_url=f"{desk.url}/v1", api_key=desk.token(), timeout=30)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": RISKY}])
    assert refused.value.code == "approval_required"
    ticket = refused.value.response.headers["countersign-approval"]
    assert [approval["id"] for approval in desk.pending()] == [ticket], "one intent, one approval"
    assert desk.decide(desk.pending()[0])[0] == 200
    done = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": RISKY}])
    assert done.choices[0].message.content


def test_an_sdk_that_gives_up_and_tries_again_joins_its_own_question(desk):
    desk.upstream.answer = chat("it is a made-up one")
    client = openai.OpenAI(base_url=f"{desk.url}/v1", api_key=desk.token(), timeout=1.0, max_retries=8)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.chat.completions.create, model="gpt-4o-mini", messages=[{"role": "user", "content": RISKY}])
        wait_until("it has tried more than once", lambda: len([record for record in desk.countersign.records() if kind(record) == "refused"]) >= 1)
        assert len(desk.wait_for()) == 1, "one intent, one approval"
        assert desk.decide(desk.pending()[0])[0] == 200
        assert asked.result(60).choices[0].message.content
    assert len(desk.upstream.requests) == 1


def test_a_hold_outlives_the_idle_timeout_of_the_stream_and_the_caller_may_leave(desk):
    alice = desk.token()
    connection = begin(desk.url, alice, prompt(RISKY))
    (approval,) = desk.wait_for()
    connection.close()
    wait_until("that the caller left is on record", lambda: [record for record in desk.countersign.records()
                                                             if kind(record) == "refused" and record["refused"]["decision"]["code"] == "caller_gone"])
    assert desk.decide(approval)[0] == 200
    assert desk.upstream.requests == []
    reply = call(desk.url, alice, prompt(RISKY))
    assert reply.status == 200, "the repeat goes by what was approved"


def test_a_shutdown_during_a_hold_hands_out_the_ticket(desk):
    alice = desk.token()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, desk.url, alice, prompt(RISKY))
        (approval,) = desk.wait_for()
        assert desk.countersign.stop() == 0
        reply = asked.result(60)
    assert reply.status == 503 and reply.header("countersign-approval") == approval["id"], reply
    desk.countersign.start()
    assert desk.decide(approval)[0] == 200
    assert call(desk.url, alice, prompt(RISKY)).status == 200


def test_what_nobody_decides_expires_and_is_on_record(office_of, upstream):
    desk = office_of(upstream, expires="2s", max_hold="20s")
    reply = call(desk.url, desk.token(), prompt(RISKY))
    assert (reply.status, reply.code) == (403, "approval_expired")
    wait_until("that it expired is on record", lambda: desk.records("expired"))


def test_two_persons_of_two_groups_and_break_glass(office_of, upstream):
    desk = office_of(upstream, wait="defer", approvers=[{"group": "security"}, {"group": "legal"}])
    alice = desk.token()
    assert call(desk.url, alice, prompt(RISKY)).status == 403
    (approval,) = desk.pending()
    assert desk.decide(approval, who="sam", groups=["security", "legal"])[0] == 200
    # One human with two accounts fills one seat.
    status, answer = desk.decide(approval, who="sam-2", groups=["legal"], email="sam@example.com")
    assert (status, answer["error"]["code"]) == (403, "decided_already")
    assert call(desk.url, alice, prompt(RISKY)).status == 403
    assert desk.decide(approval, who="lea", groups=["legal"])[0] == 200
    assert call(desk.url, alice, prompt(RISKY)).status == 200
    # Another one, alone and loudly.
    assert call(desk.url, alice, prompt(RISKY + " again")).status == 403
    (approval,) = desk.pending()
    assert desk.decide(approval, "break_glass", who="eve", groups=["incident"], reason="")[0] == 403
    assert desk.decide(approval, "break_glass", who="eve", groups=["incident"])[0] == 200
    assert call(desk.url, alice, prompt(RISKY + " again")).status == 200
    given = [vote["given"] for record in desk.records("approved") for vote in record["approval"]["votes"]]
    assert "break_glass" in given


def test_a_policy_that_became_stricter_wins_at_release(desk):
    alice = desk.token()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, desk.url, alice, prompt(RISKY))
        (approval,) = desk.wait_for()
        changed = json.loads(json.dumps(desk.countersign.config))
        changed["policies"].append({"name": "nobody", "when": 'request.method == "POST"', "then": {"deny": {"reason": "closed now"}}})
        changed["connections"][0]["policies"].insert(0, "nobody")
        before = len(desk.countersign.records())
        desk.countersign.write(changed)
        wait_until("the new rules are in force", lambda: [record for record in desk.countersign.records()[before:]
                                                          if kind(record) == "config" and record["config"]["accepted"]])
        assert desk.decide(approval)[0] == 200
        reply = asked.result(30)
    assert (reply.status, reply.code) == (403, "policy_denied")
    assert desk.upstream.requests == []


def test_many_are_held_at_once_in_bounded_memory_and_all_go(request, office_of):
    many = 2_000 if request.config.getoption("--long") else 300

    def resident(service) -> int:
        lines = open(f"/proc/{service.pid}/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    with Upstream() as upstream:
        desk = office_of(upstream, max_hold="10m")
        alice = desk.token()
        assert call(desk.url, alice, prompt("warm")).status == 200
        before = resident(desk.countersign)
        connections = [begin(desk.url, alice, prompt(f"{RISKY} {n} {'x' * 2_000}"), seconds=300) for n in range(many)]
        wait_until("all are pending", lambda: desk.countersign.metrics().get("countersign_approvals_pending", 0) >= many
                   or len(desk.api("GET", f"?state=pending&limit=1000", desk.token("sam", ["security"]))[1]["approvals"]) >= min(many, 1000), 120)
        each = (resident(desk.countersign) - before) / many
        print(f"{many} held: {each / 1024:.0f} KiB each")
        assert each < 256 * 1024
        began = time.monotonic()
        status, listed = desk.api("GET", "?state=pending&limit=1000", desk.token("sam", ["security"]))
        print(f"{len(listed['approvals'])} listed in {time.monotonic() - began:.3f} s")
        sam = desk.token("sam", ["security"])
        seen: set = set()
        while pending := [one for one in desk.api("GET", "?state=pending&limit=1000", sam)[1]["approvals"] if one["id"] not in seen]:
            for approval in pending:
                seen.add(approval["id"])
                assert desk.decide(approval, reason="all of them")[0] == 200
        assert len(seen) == many
        for connection in connections:
            assert finish(connection.getresponse()).status == 200
            connection.close()
        assert len(upstream.requests) == many + 1
        assert desk.countersign.verify().returncode == 0


def to_anthropic(usual: dict):
    """The same rules for the Messages API."""
    usual["connections"][0] |= {"dialect": "anthropic", "endpoints": ["messages"], "token": "authorization"}
    usual["connections"][0]["credential"] |= {"header": "x-api-key", "format": "{}"}
    usual["policies"][-1]["when"] = '"finance" in principal.groups'


def test_the_anthropic_sdk_asks_once_and_raises_a_typed_error(office_of, upstream):
    upstream.answer = lambda request: Answer.json({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [{"type": "text", "text": "a made-up one"}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 5}})
    desk = office_of(upstream, more=to_anthropic, wait="defer")
    client = anthropic.Anthropic(base_url=desk.url, api_key=desk.token(), timeout=30)
    asked = {"model": "claude", "max_tokens": 50, "messages": [{"role": "user", "content": RISKY}]}
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        client.messages.create(**asked)
    assert refused.value.body["error"]["code"] == "approval_required"
    assert [approval["id"] for approval in desk.pending()] == [refused.value.response.headers["countersign-approval"]]
    assert desk.decide(desk.pending()[0])[0] == 200
    assert client.messages.create(**asked).content[0].text == "a made-up one"


def test_the_helper_of_the_examples_waits_for_the_decision(office_of, upstream):
    sys.path.insert(0, str(ROOT / "examples/approvals"))
    from retry import approved

    upstream.answer = chat("it is a made-up one")
    desk = office_of(upstream, wait="defer")
    client = openai.OpenAI(base_url=f"{desk.url}/v1", api_key=desk.token(), timeout=30)
    heard = []
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(approved, lambda: client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": RISKY}]), 60, heard.append)
        (approval,) = desk.wait_for()
        assert desk.decide(approval)[0] == 200
        assert asked.result(60).choices[0].message.content
    assert len(heard) == 1 and approval["id"] in heard[0]


def idle(seconds: str):
    """Envoy's route gives a silent stream up after so long."""

    def change(manager_config: dict):
        for host in http_manager(manager_config)["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                if "route" in route:
                    route["route"]["idle_timeout"] = seconds

    return change


def test_a_hold_that_envoy_gives_up_on_is_on_record_and_the_question_stands(office_of, upstream):
    desk = office_of(upstream, envoy=idle("2s"))
    reply = call(desk.url, desk.token(), prompt(RISKY))
    assert reply.status in (408, 504), reply
    wait_until("it is on record", lambda: [record for record in desk.countersign.records() if kind(record) == "refused"
                                           and record["refused"]["decision"]["code"] in ("request_timeout", "caller_gone")])
    assert desk.decide(desk.pending()[0])[0] == 200
    assert upstream.requests == []
    assert call(desk.url, desk.token(), prompt(RISKY)).status == 200


@pytest.mark.long
def test_a_request_is_held_for_ninety_seconds_and_then_released(office_of, upstream):
    desk = office_of(upstream, max_hold="3m")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, desk.url, desk.token(), prompt(RISKY), seconds=200)
        (approval,) = desk.wait_for()
        # The wait itself is what is tested.
        time.sleep(90)
        assert not asked.done()
        assert desk.decide(approval)[0] == 200
        assert asked.result(60).status == 200


def test_the_api_takes_only_tokens_for_it_where_it_has_an_audience_and_those_call_no_models(office_of, upstream):
    desk = office_of(upstream, more=lambda usual: usual["access"].update(audience="countersign-api"), wait="defer")
    ticket = call(desk.url, desk.token(), prompt(RISKY)).header("countersign-approval")
    status, answer = desk.api("GET", "?state=pending", desk.token("sam", ["security"]))
    assert (status, answer["error"]["code"]) == (401, "audience_wrong"), answer
    for_api = desk.token("sam", ["security"], aud="countersign-api")
    status, approval = desk.api("GET", f"/{ticket}", for_api)
    assert status == 200
    body = {"decision": "approve", "binding": approval["binding"], "reason": "fine"}
    assert desk.api("POST", f"/{ticket}/decision", desk.token("sam", ["security"]), body)[0] == 401
    refused = call(desk.url, desk.token(aud="countersign-api"), prompt(RISKY))
    assert (refused.status, refused.code) == (401, "audience_wrong")
    assert upstream.requests == []
    assert desk.api("POST", f"/{ticket}/decision", for_api, body)[0] == 200
    assert call(desk.url, desk.token(), prompt(RISKY)).status == 200
