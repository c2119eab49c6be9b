"""The way between Envoy and the service: mutual TLS with files that change, and strangers of every kind; a Unix socket and its mode."""

import contextlib
import shutil
import socket
import ssl
import threading
import time

import pytest
from stack import wait_until
from stack.caller import call
from stack.config import config
from stack.countersign import Countersign, run
from stack.envoy import Envoy, cluster, loopback, point
from stack.process import free_port
from stack.proofs import Authority, Identity
from stack.upstream import chat

ENVOY, SERVICE = "spiffe://example.org/envoy", "countersign.internal"
REFUSED = 'countersign_connections_refused_total{why="%s"}'
LOADS = 'countersign_certificate_loads_total{result="%s"}'
# The client's side of HTTP/2 that any server answers.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def put(file, target):
    """In one step, as who renews certificates does it."""
    fresh = target.with_suffix(".new")
    shutil.copy(file, fresh)
    fresh.replace(target)


class Secured:
    """The service on TCP with mutual TLS, and the authorities that Envoy and it go by."""

    def __init__(self, work, issuer, upstream, seconds=3600):
        self.work, self.upstream = work, upstream
        self.servers, self.clients = Authority(work, "servers"), Authority(work, "clients")
        self.cert, self.key, self.ca = (work / name for name in ["in-force.pem", "in-force.key", "in-force-ca.pem"])
        self.use(self.servers.issue("service", dns=SERVICE, server=True, seconds=seconds))
        put(self.clients.file, self.ca)
        self.envoy_identity = self.clients.issue("envoy", uri=ENVOY)
        self.port, http = free_port(), f"127.0.0.1:{free_port()}"
        files = {"cert": str(self.cert), "key": str(self.key), "client_ca": str(self.ca), "client_san": [ENVOY]}
        listen = {"ext_proc": {"address": f"tcp:127.0.0.1:{self.port}", "tls": files}, "http": http}
        self.service = Countersign(work, config(issuer, work, listen=listen))
        self.service.http = http

    def use(self, identity: Identity):
        put(identity.key, self.key)
        put(identity.certificate, self.cert)

    def envoy(self, name: str, identity: Identity | None) -> Envoy:
        """An Envoy that shows this certificate, or none."""

        def change(made):
            point(made, "countersign", loopback(self.port))
            shown = [{"certificate_chain": {"filename": str(identity.certificate)}, "private_key": {"filename": str(identity.key)}}] if identity else []
            names = [{"san_type": "DNS", "matcher": {"exact": SERVICE}}]
            cluster(made, "countersign")["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_certificates": shown,
                        "validation_context": {"trusted_ca": {"filename": str(self.servers.file)}, "match_typed_subject_alt_names": names},
                    },
                },
            }

        return Envoy(self.work, self.upstream.port, change=change, name=name)

    def shakes_hands(self, identity: Identity | None) -> bytes | None:
        """The certificate that the service shows to who shows this one; `None` where it does not serve them."""
        context = self.servers.client(identity)
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        try:
            with socket.create_connection(("127.0.0.1", self.port), 20) as plain, context.wrap_socket(plain) as secure:
                secure.sendall(HELLO)
                return secure.getpeercert(True) if secure.recv(1) else None
        except (ssl.SSLError, ConnectionError):
            return None

    def metric(self, name: str) -> float:
        return self.service.metrics().get(name, 0)


@pytest.fixture
def secured(tmp_path, oidc, upstream):
    made = Secured(tmp_path, oidc.issuer, upstream)
    upstream.answer = chat("Fine.")
    with made.service:
        yield made


def der(identity: Identity) -> bytes:
    return ssl.PEM_cert_to_DER_cert(identity.certificate.read_text())


def test_only_the_envoy_that_is_named_gets_in(secured, upstream, tokens):
    alice = tokens("alice-app")
    with secured.envoy("ours", secured.envoy_identity) as envoy:
        assert call(envoy.url, alice).status == 200
    left = secured.metric('countersign_state{name="not_after_seconds",part="certificate"}') - time.time()
    assert 3000 < left <= 3600
    upstream.requests.clear()
    others = Authority(secured.work, "others")
    strangers = {
        "none": None,
        "other-authority": others.issue("envoy", uri=ENVOY),
        "other-name": secured.clients.issue("other", uri=ENVOY + "2", dns="envoy.internal"),
        "no-name": secured.clients.issue("nameless"),
        "expired": secured.clients.issue("late", uri=ENVOY, seconds=-60),
        "a-server": secured.clients.issue("server", uri=ENVOY, server=True),
    }
    for name, identity in strangers.items():
        before = secured.metric(REFUSED % "handshake")
        with secured.envoy(name, identity) as envoy:
            assert call(envoy.url, alice).status == 500, name
        assert secured.metric(REFUSED % "handshake") > before, name
    assert upstream.requests == [], "nothing goes on ungoverned"
    assert secured.service.log_text().count("a connection to ext_proc is refused") <= 3, "one line for many"


def test_envoy_refuses_a_service_whose_certificate_expired(tmp_path, oidc, upstream, tokens):
    secured = Secured(tmp_path, oidc.issuer, upstream, seconds=15)
    expires = time.monotonic() + 15
    with secured.service as service:
        wait_until("it is said that the certificate expires soon", lambda: "expires soon" in service.log_text())
        wait_until("it has expired", lambda: time.monotonic() > expires and "has expired" in service.log_text())
        with secured.envoy("ours", secured.envoy_identity) as envoy:
            assert call(envoy.url, tokens("alice-app")).status == 500
        assert upstream.requests == []
        assert service.log_text().count("expires soon") == 1 and service.log_text().count("has expired") == 1
    done = run("serve", "--config", service.file)
    assert done.returncode != 0 and "holds a certificate that expired at" in done.stderr, done


def test_silent_and_plain_connections_keep_nobody_out(secured, tokens):
    with contextlib.ExitStack() as held:
        for _ in range(300):
            held.enter_context(socket.create_connection(("127.0.0.1", secured.port), 20, source_address=("127.0.0.2", 0)))
        wait_until("those over what one address may have are refused", lambda: secured.metric(REFUSED % "too_many") == 300 - 128)
        with socket.create_connection(("127.0.0.1", secured.port), 20) as plain:
            plain.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = plain.recv(1000)
            assert b"HTTP" not in answer
        with secured.envoy("ours", secured.envoy_identity) as envoy:
            assert call(envoy.url, tokens("alice-app"), seconds=5).status == 200, "while the others are silent"
        wait_until("the silent ones are let go", lambda: secured.metric(REFUSED % "slow") == 128, 30)
    assert secured.service.log_text().count("a connection to ext_proc is refused") <= 5, "one line for many"


def test_certificates_change_while_requests_flow(secured, tokens):
    alice, statuses, over = tokens("alice-app"), [], threading.Event()
    first = secured.shakes_hands(secured.envoy_identity)
    assert first and secured.shakes_hands(None) is None
    fresh = secured.servers.issue("renewed", dns=SERVICE, server=True)
    authority = Authority(secured.work, "clients-renewed")
    other_envoy = authority.issue("envoy", uri=ENVOY)
    with secured.envoy("ours", secured.envoy_identity) as envoy:

        def flow():
            while not over.is_set():
                statuses.append(call(envoy.url, alice).status)

        flowing = [threading.Thread(target=flow) for _ in range(4)]
        for one in flowing:
            one.start()
        try:
            wait_until("requests flow", lambda: len(statuses) > 20)
            secured.use(fresh)
            wait_until("the new certificate is shown", lambda: secured.shakes_hands(secured.envoy_identity) == der(fresh))
            assert secured.shakes_hands(other_envoy) is None
            put(authority.file, secured.ca)
            wait_until("the new authority counts", lambda: secured.shakes_hands(other_envoy) == der(fresh))
            assert secured.shakes_hands(secured.envoy_identity) is None, "the old one does not, for new connections"
            so_far = len(statuses)
            wait_until("requests flow on the connection there is", lambda: len(statuses) > so_far + 20)
        finally:
            over.set()
            for one in flowing:
                one.join()
        assert set(statuses) == {200}
        with secured.envoy("renewed", other_envoy) as renewed:
            assert call(renewed.url, alice).status == 200


def test_a_broken_file_is_told_once_and_the_old_ones_stay(secured):
    shown = secured.shakes_hands(secured.envoy_identity)
    good = secured.cert.read_bytes()
    said = "changed certificates cannot be used"
    late = secured.servers.issue("late", dns=SERVICE, server=True, seconds=-60)
    breaks = {
        "gone": secured.cert.unlink,
        "no certificate": lambda: secured.cert.write_text("nothing"),
        "expired": lambda: put(late.certificate, secured.cert),
        "not of the key": lambda: put(secured.clients.file, secured.cert),
    }
    for n, (name, broken) in enumerate(breaks.items(), 1):
        broken()
        wait_until(f"{name}: it is told", lambda: secured.metric(LOADS % "rejected") == n)
        looked_again = time.monotonic() + 2.5
        wait_until("it has looked again", lambda: time.monotonic() > looked_again)
        assert secured.service.log_text().count(said) == n, name
        assert secured.shakes_hands(secured.envoy_identity) == shown, name
    secured.cert.write_bytes(good)
    wait_until("it is in force again", lambda: secured.metric(LOADS % "accepted") == 1)
    assert secured.shakes_hands(secured.envoy_identity) == shown


def test_a_network_address_takes_tls_or_a_word_of_consent(tmp_path, oidc):
    listen = {"ext_proc": f"tcp:127.0.0.1:{free_port()}", "http": "127.0.0.1:0"}
    service = Countersign(tmp_path, config(oidc.issuer, tmp_path, listen=listen))
    done = run("serve", "--config", service.file)
    assert done.returncode != 0 and "a `tcp:` address needs `tls: { cert, key, client_ca }`, or `insecure: true`" in done.stderr, done


def test_a_socket_is_of_the_mode_that_is_said_and_a_stale_one_is_no_obstacle(tmp_path, oidc):
    service = Countersign(tmp_path, config(oidc.issuer, tmp_path))
    service.config["listen"]["ext_proc"] = {"address": f"unix:{service.socket}", "mode": "0660"}
    service.write()
    with service:
        service.kill()
        assert service.socket.is_socket(), "nobody took it away"
        service.start()
        assert service.socket.stat().st_mode & 0o777 == 0o660
        service.stop()
        assert not service.socket.exists()
