"""Who may do what: what no policy allows is refused, and the record says which policy decided."""

import json

import openai
import pytest
from stack.caller import prompt


def test_a_group_that_is_denied_gets_the_reason_and_is_on_record(site):
    with pytest.raises(openai.PermissionDeniedError) as error:
        site.openai("bob-app").chat.completions.create(**prompt("My card is 4111 1111 1111 1111"))
    said = error.value
    assert (said.status_code, said.code) == (403, "policy_denied")
    assert said.body["message"] == "interns may not use this model"
    assert site.upstream.requests == []
    (record,) = site.records(said.response.headers["countersign-session"])
    refused = record["refused"]
    assert refused["decision"]["policies"] == ["block-interns"] and refused["decision"]["verdict"] == "deny"
    assert refused["identity"]["subject"] == "bob-app" and refused["endpoint"]["connection"] == "openai"
    assert refused["request"]["findings"] == {"CREDIT_CARD": 1}
    assert "[CREDIT_CARD]" in refused["request"]["body"] and "4111" not in str(record)


@pytest.mark.parametrize("client, model, what", [
    ("sre-app", "gpt-4o-mini", "a group that no policy speaks of"),
    ("nobody-app", "gpt-4o-mini", "no group at all"),
    ("alice-app", "gpt-5-pro", "a model that no policy allows"),
], ids=lambda x: x.replace(" ", "-"))
def test_what_no_policy_allows_is_denied(site, client, model, what):
    refused = site.refused(site.call(prompt(model=model), client=client), 403, "no_policy_allows")
    assert refused["request"]["model"] == model, what


def test_what_policy_allows_says_which_policies_decided(site):
    completion = site.openai().chat.completions.with_raw_response.create(**prompt())
    opened = site.records(completion.headers["countersign-session"])[0]["opened"]
    assert opened["decision"]["verdict"] == "allow"
    assert opened["decision"]["policies"][-1] == "allow-finance"
    assert len(opened["decision"]["policyDigest"]) == 64


def test_a_condition_that_cannot_be_evaluated_denies(site):
    # `clearance` is no claim of alice's token: the first policy of this connection fails on her.
    reply = site.call(path="/clearance/v1/chat/completions")
    site.refused(reply, 403, "policy_error")
    assert "clearance" not in reply.json["error"]["message"], "how policies are written is nobody's business"
    # The operator is told which policy and why, on record and in the log.
    [fault] = site.records(reply.session)[-1]["refused"]["decision"]["faults"]
    assert fault.startswith("policy `") and "clearance" in fault
    logged = [line for line in map(json.loads, site.countersign.log_text().splitlines()) if line["fields"].get("session") == reply.session]
    assert fault in [line["fields"].get("fault") for line in logged]


def test_a_condition_on_a_claim_is_evaluated(site, oidc):
    reply = site.call(token=oidc.sign(clearance=3), path="/clearance/v1/chat/completions")
    assert "cleared" in site.refused(reply, 403, "policy_denied")["decision"]["policies"]
    assert site.call(token=oidc.sign(clearance=1), path="/clearance/v1/chat/completions").status == 200


@pytest.mark.parametrize("path", ["/v2/chat/completions", "/", "/v10/chat/completions", "/V1/chat/completions"])
def test_a_path_of_no_connection_is_404(site, path):
    reply = site.call(path=path)
    assert (reply.status, reply.code) == (404, "unknown_connection")
    assert site.upstream.requests == []


@pytest.mark.parametrize("method, path", [
    ("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("POST", "/v1/files"), ("DELETE", "/v1/chat/completions"),
    ("GET", "/v1/chat/completions"), ("POST", "/v1/chat/completions/x"), ("POST", "/v1/chat"),
])
def test_an_endpoint_that_is_not_open_is_403(site, method, path):
    refused = site.refused(site.call(method=method, path=path), 403, "endpoint_not_allowed")
    assert (refused["endpoint"]["method"], refused["endpoint"]["path"]) == (method, path)


def test_the_sdk_can_only_call_what_is_open(site):
    with pytest.raises(openai.PermissionDeniedError) as error:
        site.openai().embeddings.create(model="gpt-4o-mini", input="x")
    assert error.value.code == "endpoint_not_allowed" and site.upstream.requests == []


def test_two_connections_have_chains_of_their_own_and_one_record(site):
    # bob is an intern: refused on one connection, welcome on the one whose chain does not mind.
    assert site.call(client="bob-app").status == 403
    allowed = site.call(client="bob-app", path="/plain/v1/chat/completions")
    assert allowed.status == 200
    assert site.records(allowed.session)[0]["opened"]["endpoint"]["connection"] == "plain"
