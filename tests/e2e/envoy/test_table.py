"""The table, row by row, against every release of Envoy that we stand for; one Envoy a release."""

import pytest
from rig import SSN, Rig
from stack import wait_until
from stack.caller import text_of
from stack.envoy import CURRENT, versions
from table import ROWS

IDS = [f"{row.group}: {row.name}".lower().replace(" ", "-") for row in ROWS]


@pytest.fixture(scope="module", params=versions(), ids=lambda version: f"envoy-{version}")
def rig(request, oidc, tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("rig"), oidc, request.param) as running:
        yield running
    assert "RuntimeError" not in running.envoy.log_text()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row(rig, row, request):
    if row.longest and not request.config.getoption("--long"):
        pytest.skip("only with --long")
    if row.long and rig.version != CURRENT and not request.config.getoption("--long"):
        pytest.skip("on the newest Envoy only, unless --long")
    if rig.version in row.hangs:
        pytest.skip("it is known to hang on this release")
    rig.begin(row.model)
    try:
        reply = row.call(rig)
        check_client(row, reply)
        rig.go_on.set()
        rig.settle(*(row.ledger if isinstance(row.ledger, tuple) else (row.ledger,)))
    finally:
        rig.go_on.set()
    check_upstream(row, rig)
    if row.loud:
        # A filter that only watches speaks to the service beside the request: it may be over before the service has heard of it.
        wait_until("the metric tells", rig.loud)
    assert rig.loud() == row.loud, "the metric"
    assert rig.used() == row.uses, "uses of approvals"
    if row.memory:
        assert rig.grew < row.memory << 20, f"the service grew by {rig.grew >> 20} MiB"


def check_client(row, reply):
    if row.client is None:
        return
    wanted = row.client.status if isinstance(row.client.status, tuple) else (row.client.status,)
    assert reply.status in wanted, (reply.status, reply.body[:300])
    assert reply.whole == row.client.whole or (len(wanted) > 1 and not row.client.whole), "whole"
    assert row.unseen or row.stand_in or SSN.encode() not in reply.body + str(reply.headers).encode()
    if row.client.code:
        assert reply.code == row.client.code
    if row.client.text:
        assert row.client.text in said(reply), reply.body[:300]


def said(reply) -> str:
    """What the model said, as the caller read it."""
    if (reply.header("content-type") or "").startswith("text/event-stream"):
        return text_of(reply.body)
    return reply.json["choices"][0]["message"]["content"]


def check_upstream(row, rig):
    assert len(rig.arrivals) == row.reached, [arrival.line for arrival in rig.arrivals]
    for arrival in rig.arrivals:
        assert arrival.whole or not row.whole, "it did not arrive whole"
        if not row.stand_in:
            assert row.unseen or SSN.encode() not in arrival.body, "masked"
            assert rig.token() not in str(arrival.headers), "the caller's token"
