"""When a part fails, the answer is no: nothing goes on that is not governed and on record, and nothing is left behind."""

import contextlib
import resource
import shutil
import signal
import threading

import pytest
from conftest import kind
from stack import Answer, Countersign, Failed, Gateway, Upstream, config, wait_until
from stack.caller import begin, call, finish, prompt, read_until, text_of
from stack.envoy import http_filter
from stack.upstream import chat, paused

SSN = "536-22-8145"


@pytest.fixture
def go_on():
    """Set at the end, so that no model waits for nothing."""
    event = threading.Event()
    yield event
    event.set()


def sessions(records: list[dict]) -> dict[str, list[str]]:
    """The kinds of each session's records, over all chains, in order."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.get("session"):
            found.setdefault(record["session"], []).append(kind(record))
    return found


def closed_as(countersign, session: str) -> str:
    (closed,) = [record["closed"] for record in countersign.records() if record.get("session") == session and "closed" in record]
    return closed["outcome"]


def all_closed(countersign):
    """Every `opened` has exactly one `closed`, and the chain is as written."""
    for session, kinds in sessions(countersign.records()).items():
        assert kinds.count("opened") == kinds.count("closed") <= 1, (session, kinds)
    done = countersign.verify()
    assert done.returncode == 0, done.stdout + done.stderr


# --- the service dies ---


def test_a_kill_while_the_model_thinks(gateway, upstream, tokens, go_on):
    running = gateway()

    def thinks(request):
        go_on.wait(30)
        return chat(f"Ungoverned {SSN}")(request)

    upstream.answer = thinks
    with contextlib.closing(begin(running.envoy.url, tokens())) as connection:
        upstream.wait_for(1)
        running.countersign.kill()
        go_on.set()
        reply = finish(connection.getresponse())
    assert reply.status >= 500 and b"Ungoverned" not in reply.body
    (session, kinds), = sessions(running.countersign.records()).items()
    assert kinds == ["opened"], "it was on record before the model saw it"
    running.countersign.start()
    assert closed_as(running.countersign, session) == "unknown"
    upstream.answer = chat("Back again.")
    assert call(running.envoy.url, tokens()).status == 200, "the next request after a restart succeeds"
    all_closed(running.countersign)


def test_a_kill_in_the_middle_of_a_stream(gateway, upstream, tokens, go_on):
    running = gateway()
    upstream.answer = paused(f"Her number is {SSN}. Her other number is 536-22-", go_on, f"8145 and {SSN}.")
    with contextlib.closing(begin(running.envoy.url, tokens(), prompt(stream=True))) as connection:
        response = connection.getresponse()
        session = response.getheader("countersign-session")
        got = read_until(response, b"other number")
        running.countersign.kill()
        go_on.set()
        rest = finish(response)
    assert not rest.whole, "a client must see that the stream was cut"
    said = (got + rest.body).decode()
    assert SSN not in said and "536-22" not in said and "8145" not in said and "[DONE]" not in said
    assert "Her number is [US_SSN]" in text_of(got + rest.body)
    running.countersign.start()
    assert closed_as(running.countersign, session) == "unknown"
    all_closed(running.countersign)


def test_a_service_that_is_away_is_500_and_the_model_sees_nothing(gateway, upstream, tokens):
    running = gateway()
    running.countersign.kill()
    assert call(running.envoy.url, tokens()).status == 500 and upstream.requests == []


def test_a_frozen_service_is_given_up_and_the_model_sees_nothing(gateway, upstream, tokens):
    running = gateway()
    running.countersign.signal(signal.SIGSTOP)
    try:
        assert call(running.envoy.url, tokens(), seconds=20).status == 500
    finally:
        running.countersign.signal(signal.SIGCONT)
    assert upstream.requests == []
    upstream.answer = chat("Hello.")
    wait_until("it serves again", lambda: call(running.envoy.url, tokens()).status == 200)


# --- the service is told to stop ---


def test_a_signal_to_stop_lets_a_running_stream_come_to_its_end(gateway, upstream, tokens, go_on):
    running = gateway()
    upstream.answer = paused(f"First {SSN}, ", go_on, f"then {SSN}.")
    with contextlib.closing(begin(running.envoy.url, tokens(), prompt(stream=True))) as connection:
        response = connection.getresponse()
        got = read_until(response, b"First")
        running.countersign.signal(signal.SIGTERM)
        wait_until("it says that it is going", lambda: running.countersign.get("/readyz")[0] == 503)
        assert call(running.envoy.url, tokens()).status >= 500, "nothing new is begun"
        go_on.set()
        rest = finish(response)
    assert rest.whole and text_of(got + rest.body) == "First [US_SSN], then [US_SSN]." and rest.body.endswith(b"[DONE]\n\n")
    assert running.countersign.child.wait(20) == 0
    records = running.countersign.records()
    assert kind(records[-1]) == "shutdown" and records[-1]["shutdown"].get("cutSessions", 0) == 0
    assert len(upstream.requests) == 1
    all_closed(running.countersign)


@pytest.mark.long
def test_a_stream_that_does_not_end_is_cut_after_the_grace_and_closed_as_such(gateway, upstream, tokens, go_on):
    running = gateway()
    upstream.answer = paused("For ever ", go_on)
    with contextlib.closing(begin(running.envoy.url, tokens(), prompt(stream=True), seconds=60)) as connection:
        response = connection.getresponse()
        read_until(response, b"ever")
        running.countersign.signal(signal.SIGTERM)
        rest = finish(response)
        assert running.countersign.child.wait(60) == 0
    assert not rest.whole and b"[DONE]" not in rest.body
    assert closed_as(running.countersign, response.getheader("countersign-session")) == "shutdown"
    assert running.countersign.records()[-1]["shutdown"]["cutSessions"] == 1


def test_a_start_after_a_clean_stop_says_so_and_links_to_it(gateway, upstream, tokens):
    running = gateway()
    upstream.answer = chat("Hello.")
    assert call(running.envoy.url, tokens()).status == 200
    assert running.countersign.stop() == 0
    before = running.countersign.records()
    running.countersign.start()
    genesis = [record for record in running.countersign.records() if "genesis" in record][-1]["genesis"]
    assert genesis["previousClean"] is True and genesis["previousChain"] == before[-1]["chain"]
    assert int(genesis["previousSize"]) == len(before)


# --- the record cannot be written ---


class OnASmallDisk(Countersign):
    """Its files can be kept from growing, as on a full disk, with no special rights: see `fill` and `free`."""

    def command(self):
        return ["env", "--ignore-signal=XFSZ", *super().command()]

    def fill(self):
        segment = sorted(self.audit.glob("chains/*/*.seg"))[-1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (segment.stat().st_size, resource.RLIM_INFINITY))

    def free(self):
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def on_a_small_disk(running: Gateway) -> OnASmallDisk:
    running.countersign.stop()
    running.countersign.__class__ = OnASmallDisk
    return running.countersign.start()


def test_a_full_disk_is_503_and_over_when_there_is_room_again(gateway, upstream, tokens, go_on):
    running = gateway()
    small = on_a_small_disk(running)
    upstream.answer = chat("Hello.")
    # Longer than the log, so that it is the ledger that does not fit.
    assert call(running.envoy.url, tokens(), prompt("a" * 200_000)).status == 200
    seen = len(upstream.requests)
    small.fill()
    for _ in range(3):
        reply = call(running.envoy.url, tokens())
        assert (reply.status, reply.code) == (503, "audit_full"), reply
        assert reply.header("retry-after")
    assert len(upstream.requests) == seen, "what cannot be recorded is not forwarded"
    status, told = small.get("/readyz")
    assert status == 503 and b"audit log" in told
    assert call(running.envoy.url, tokens("bob-app")).status == 503, "nor is a refusal told that is on no record"
    small.free()
    wait_until("it serves again", lambda: call(running.envoy.url, tokens()).status == 200, 30, every=0.2)
    assert small.get("/readyz")[0] == 200
    all_closed(small)


def test_a_disk_that_fills_during_a_stream_cuts_it(gateway, upstream, tokens, go_on):
    running = gateway()
    small = on_a_small_disk(running)
    upstream.answer = chat("Hello.")
    assert call(running.envoy.url, tokens(), prompt("a" * 200_000)).status == 200
    upstream.answer = paused("Begun, ", go_on)
    with contextlib.closing(begin(running.envoy.url, tokens(), prompt(stream=True))) as connection:
        response = connection.getresponse()
        session = response.getheader("countersign-session")
        read_until(response, b"Begun")
        small.fill()
        go_on.set()
        rest = finish(response)
    assert not rest.whole and b"[DONE]" not in rest.body, "the end is not told that could not be recorded"
    small.free()
    upstream.answer = chat("Hello.")
    wait_until("it serves again", lambda: call(running.envoy.url, tokens()).status == 200, 30, every=0.2)
    running.countersign.stop()
    running.countersign.start()
    assert sessions(running.countersign.records())[session].count("closed") == 1
    all_closed(running.countersign)


def test_the_cap_of_the_log_is_kept_and_freed_room_is_used(gateway, upstream, tokens, tmp_path):
    running = gateway(audit={"segment": "1MiB", "spool_cap": "3MiB"})
    upstream.answer = chat("Hello.")
    assert call(running.envoy.url, tokens(), prompt("a" * 900_000)).status == 200
    running.countersign.stop()
    running.countersign.start()
    old = min(running.countersign.audit.glob("chains/*"))

    def full(length):
        reply = call(running.envoy.url, tokens(), prompt("a" * length))
        assert reply.status in (200, 503)
        return reply if reply.status == 503 else None

    for length in [300_000, 30_000, 3_000, 1]:  # what is large does not fit any more while what is small still does
        reply = wait_until("the log is full", lambda: full(length), 60)
        assert reply.code == "audit_full"
    size = sum(file.stat().st_size for file in running.countersign.audit.rglob("*") if file.is_file())
    assert size <= 3 << 20
    assert running.countersign.get("/readyz")[0] == 503
    shutil.move(old, tmp_path / "archived")
    wait_until("it serves again", lambda: call(running.envoy.url, tokens()).status == 200, 30, every=0.2)
    for session, kinds in sessions(running.countersign.records()).items():
        assert kinds.count("opened") == kinds.count("closed"), (session, kinds)


def test_two_services_on_one_directory_are_refused(gateway, oidc, tmp_path):
    running = gateway()
    usual = config(oidc.issuer, tmp_path, audit={"dir": str(running.countersign.audit)})
    second = Countersign(tmp_path / "second", usual)
    with pytest.raises(Failed, match="in use by another"):
        second.start()
    assert running.countersign.get("/readyz")[0] == 200
    second.__exit__()


def test_a_second_service_does_not_take_the_socket_of_the_first(gateway, oidc, upstream, tokens, tmp_path):
    running = gateway()
    usual = config(oidc.issuer, tmp_path, listen={"ext_proc": f"unix:{running.countersign.socket}", "http": "127.0.0.1:0"})
    second = Countersign(tmp_path / "second", usual)
    with pytest.raises(Failed):
        second.start()
    upstream.answer = chat("Hello.")
    assert call(running.envoy.url, tokens()).status == 200
    second.__exit__()


def test_a_log_that_cannot_be_told_does_not_stop_the_service(oidc, upstream, tokens, tmp_path):
    """Standard error on a full disk: what cannot be logged is lost, requests are not."""

    class Mute(Countersign):
        def command(self):
            return ["sh", "-c", 'exec "$0" "$@" 2>/dev/full', *super().command()]

    running = Gateway(tmp_path, config(oidc.issuer, tmp_path), upstream.port)
    running.countersign.__class__ = Mute
    upstream.answer = chat("Hello.")
    with running:
        assert [call(running.envoy.url, tokens()).status for _ in range(3)] == [200] * 3
        assert running.countersign.stop() == 0
        all_closed(running.countersign)


# --- Envoy does not do its part ---


@pytest.mark.parametrize("mode, value", [
    ("request_body_mode", "BUFFERED"), ("request_body_mode", "NONE"), ("response_body_mode", "STREAMED"), ("response_body_mode", "NONE"),
])
def test_an_envoy_that_does_not_send_everything_is_not_served(gateway, upstream, tokens, mode, value):
    def change(envoy):
        modes = http_filter(envoy, "envoy.filters.http.ext_proc")["processing_mode"]
        modes[mode] = value

    running = gateway(change=change)
    assert call(running.envoy.url, tokens()).status == 500 and upstream.requests == []
    assert any(name.startswith("countersign_envoy_misconfigured_total") for name in running.countersign.metrics())


def test_a_model_that_breaks_off_is_told_to_the_caller_and_the_record(site, go_on):
    half = paused("Half a ", go_on)
    site.upstream.answer = Answer(200, half.headers, half.pieces[:3], break_off=True)
    with contextlib.closing(begin(site.url, site.tokens(), prompt(stream=True))) as connection:
        response = connection.getresponse()
        read_until(response, b"Half a")
        go_on.set()
        rest = finish(response)
    assert not rest.whole and b"[DONE]" not in rest.body
    session = response.getheader("countersign-session")
    wait_until("it is closed", lambda: [r for r in site.records(session) if "closed" in r])
    assert closed_as(site.countersign, session) != "completed"


def test_a_model_that_is_away_is_an_error_and_closed_as_such(gateway, tokens):
    with Upstream() as gone:
        port = gone.port
    running = gateway(port=port)
    reply = call(running.envoy.url, tokens())
    assert reply.status in (502, 503, 504)
    assert closed_as(running.countersign, reply.session) != "completed"
    all_closed(running.countersign)
