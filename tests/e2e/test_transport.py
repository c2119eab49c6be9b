"""Between Envoy and the service: mutual TLS with a real Envoy, strangers, and certificates that change while requests flow."""

import contextlib
import hashlib
import http.client
import shutil
import socket
import ssl
import threading
import time

import pytest
from stack import Gateway, config, free_port, wait_until
from stack.caller import call
from stack.countersign import Countersign, run
from stack.envoy import Envoy, cluster, loopback, point
from stack.proofs import Authority
from stack.upstream import chat

ENVOY = "spiffe://example.org/envoy"
TRUSTED = {"server": "countersign.example.org", "client": ENVOY}


def by_tls(port: int, authority: Authority, identity, name: str = TRUSTED["server"]):
    """A change of Envoy's configuration: it calls the service at this port by TLS 1.3, trusts this authority, and shows this identity."""

    def change(envoy: dict):
        point(envoy, "countersign", loopback(port))
        context = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {
                "trusted_ca": {"filename": str(authority.file)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
            },
        }
        if identity:
            context["tls_certificates"] = [{"certificate_chain": {"filename": str(identity.certificate)}, "private_key": {"filename": str(identity.key)}}]
        cluster(envoy, "countersign")["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                             "sni": name, "common_tls_context": context},
        }

    return change


class Mesh:
    """A gateway whose two parts know one another by certificates, in files that can be changed."""

    def __init__(self, oidc, upstream, work, seconds=3600, **changed):
        self.oidc, self.upstream, self.work = oidc, upstream, work
        self.authority, self.port = Authority(work, "authority"), free_port()
        self.server = self.authority.issue("server", dns=TRUSTED["server"], server=True, seconds=seconds)
        self.client = self.authority.issue("envoy", uri=ENVOY)
        self.files = {name: str(work / f"in-use-{name}.pem") for name in ("cert", "key", "client_ca")}
        self.install(cert=self.server.certificate, key=self.server.key, client_ca=self.authority.file)
        usual = config(oidc.issuer, work)
        self.http = f"127.0.0.1:{free_port()}"
        usual["listen"] = {"ext_proc": {"address": f"tcp:127.0.0.1:{self.port}", "tls": {**self.files, **changed}}, "http": self.http}
        self.gateway = Gateway(work, usual, upstream.port)
        self.gateway.countersign.http = self.http
        self.gateway.envoy = Envoy(work, upstream.port, change=by_tls(self.port, self.authority, self.client))
        self.countersign = self.gateway.countersign

    def install(self, **files):
        """Puts copies into place, each in one step."""
        for name, file in files.items():
            fresh = f"{self.files[name]}.new"
            shutil.copy(file, fresh)
            (self.work / fresh).replace(self.files[name])

    def envoy(self, identity, authority: Authority | None = None, name: str = TRUSTED["server"]) -> Envoy:
        """Another Envoy, that shows this identity."""
        return Envoy(self.work, self.upstream.port, change=by_tls(self.port, authority or self.authority, identity, name), name="other")

    def presented(self, identity=None, source: str = "127.0.0.1") -> str:
        """The fingerprint of the certificate the service shows now to somebody with `identity`, after it took theirs."""
        with self.connection(identity, source) as connection:
            return hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()

    @contextlib.contextmanager
    def connection(self, identity=None, source: str = "127.0.0.1"):
        context = self.authority.client(identity)
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", self.port), 10, (source, 0)) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                # In TLS 1.3 a client learns of its refusal with the first bytes it reads: here the settings of HTTP/2.
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                if not connection.recv(9):
                    raise ConnectionError("closed")
                yield connection

    def refused(self) -> float:
        return self.countersign.metrics().get('countersign_handshakes_refused_total{listener="ext_proc"}', 0)

    def loads(self, result: str) -> float:
        return self.countersign.metrics().get(f'countersign_certificate_loads_total{{listener="ext_proc",result="{result}"}}', 0)


@pytest.fixture
def mesh(tmp_path, oidc, upstream):
    """`mesh(client_names=[…])` starts one."""
    upstream.answer = chat("Hello there.")
    with contextlib.ExitStack() as running:

        def start(**changed) -> Mesh:
            made = Mesh(oidc, upstream, tmp_path, **changed)
            running.enter_context(made.gateway)
            return made

        yield start


def test_envoy_and_the_service_know_one_another(mesh, tokens):
    made = mesh(client_names=[ENVOY, "other.example.org"])
    assert call(made.gateway.envoy.url, tokens()).status == 200
    with made.connection(made.client) as connection:
        assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    assert made.refused() == 0


@pytest.mark.parametrize(("who", "said"), [
    ("nobody", "peer sent no certificates"),
    ("of another authority", "UnknownIssuer"),
    ("expired", "certificate is not valid after"),
    ("a server", "extended key usage"),
    ("of another name", "none of the names"),
])
def test_a_stranger_is_refused_and_nothing_is_served_ungoverned(mesh, upstream, tokens, tmp_path, who, said):
    made = mesh(client_names=[ENVOY])
    authority = made.authority
    identity = {
        "nobody": lambda: None,
        "of another authority": lambda: Authority(tmp_path, "strange").issue("envoy", uri=ENVOY),
        "expired": lambda: authority.issue("late", uri=ENVOY, seconds=-60),
        "a server": lambda: authority.issue("turned", uri=ENVOY, server=True),
        "of another name": lambda: authority.issue("neighbour", uri=f"{ENVOY}/other", dns="spiffe.example.org"),
    }[who]()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        made.presented(identity)
    with made.envoy(identity) as stranger:
        assert call(stranger.url, tokens()).status == 500
    assert upstream.requests == []
    wait_until("it is counted", lambda: made.refused() >= 2)
    assert said in made.countersign.log_text()
    # The others go on.
    assert call(made.gateway.envoy.url, tokens()).status == 200


@pytest.mark.parametrize("what", ["another name", "another authority"])
def test_a_service_that_envoy_does_not_know_gets_no_request(mesh, upstream, tokens, tmp_path, what):
    made = mesh()
    if what == "another name":
        other = made.envoy(made.client, name="someone-else.example.org")
    else:
        other = made.envoy(made.client, Authority(tmp_path, "strange"))
    with other:
        assert call(other.url, tokens()).status == 500
    assert upstream.requests == []


def test_a_certificate_that_expires_is_told_of_and_then_refused_by_envoy(mesh, upstream, tokens):
    made = mesh(seconds=20)
    service = made.countersign
    left = service.metrics()['countersign_certificate_not_after_seconds{listener="ext_proc"}'] - time.time()
    assert left <= 20
    wait_until("it is told", lambda: "expires soon" in service.log_text())
    wait_until("it has expired", lambda: "the certificate has expired" in service.log_text(), 40)
    with made.envoy(made.client) as other:
        assert call(other.url, tokens()).status == 500
    assert upstream.requests == []
    assert service.log_text().count("expires soon") == 1 and service.log_text().count("the certificate has expired") == 1
    service.stop()
    done = run("serve", "--config", service.file)
    assert done.returncode != 0 and "holds a certificate that expired at" in done.stderr, done


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


def test_certificates_change_while_requests_flow(mesh, upstream, tokens, tmp_path):
    made = mesh()
    stop, failed, answered = threading.Event(), [], []

    def flow(url):
        while not stop.is_set():
            reply = call(url, tokens())
            (answered if reply.status == 200 else failed).append(reply)

    flowing = threading.Thread(target=flow, args=(made.gateway.envoy.url,))
    flowing.start()
    try:
        for n in range(3):
            fresh = made.authority.issue(f"server-{n}", dns=TRUSTED["server"], server=True)
            # For a moment the key is not the certificate's: what is in force stays.
            made.install(cert=fresh.certificate)
            made.install(key=fresh.key)
            wait_until("the new one is shown", lambda fresh=fresh: made.presented(made.client) == fresh.digest.hex())
        successor = Authority(tmp_path, "successor")
        heir = successor.issue("envoy", uri=ENVOY)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            made.presented(heir)
        both = tmp_path / "both.pem"
        both.write_bytes(made.authority.file.read_bytes() + successor.file.read_bytes())
        made.install(client_ca=both)

        def counts(identity):
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                return bool(made.presented(identity))

        wait_until("both count", lambda: counts(heir))
        assert counts(made.client)
        made.install(client_ca=successor.file)
        wait_until("the old one counts no more", lambda: not counts(made.client))
        assert counts(heir)
        # Whoever is connected stays so.
        so_far = len(answered)
        wait_until("it flows on", lambda: len(answered) > so_far + 20)
        with made.envoy(heir) as other:
            assert call(other.url, tokens()).status == 200
    finally:
        stop.set()
        flowing.join(30)
    assert not failed and len(answered) > 20, failed


def looks(made: Mesh) -> float:
    return sum(value for name, value in made.countersign.metrics().items() if name.startswith("countersign_config_loads_total"))


@pytest.mark.parametrize("what", ["missing", "broken", "empty", "expired"])
def test_files_that_cannot_be_used_leave_the_old_in_force_and_it_is_said_once(mesh, tokens, what):
    made = mesh()
    before = made.presented(made.client)
    target = made.work / made.files["client_ca"]
    if what == "missing":
        target.unlink()
    elif what == "expired":
        made.install(cert=made.authority.issue("late", dns=TRUSTED["server"], server=True, seconds=-60).certificate)
    else:
        target.write_text("" if what == "empty" else "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    wait_until("it noticed", lambda: made.loads("rejected") == 1)
    # Looked at again twice meanwhile: it follows the configuration by the same clock.
    for line in ("# one", "# two"):
        made.countersign.file.write_text(f"{made.countersign.file.read_text()}{line}\n")
        before_that = looks(made)
        wait_until("it looked", lambda before_that=before_that: looks(made) > before_that)
    assert made.loads("rejected") == 1
    assert made.countersign.log_text().count("the old ones stay") == 1
    assert made.presented(made.client) == before and call(made.gateway.envoy.url, tokens()).status == 200
    made.install(client_ca=made.authority.file, cert=made.server.certificate)
    wait_until("the good files are read again", lambda: made.loads("accepted") == 1)


def test_a_certificate_that_came_too_early_waits_for_its_time(mesh, tokens):
    made = mesh()
    before = made.presented(made.client)
    early = made.authority.issue("early", dns=TRUSTED["server"], server=True, since=6)
    made.install(key=early.key, cert=early.certificate)
    wait_until("it is told", lambda: "a certificate that is good from" in made.countersign.log_text())
    assert made.presented(made.client) == before and call(made.gateway.envoy.url, tokens()).status == 200
    wait_until("its time has come", lambda: made.presented(made.client) == early.digest.hex(), 30)
    assert made.countersign.log_text().count("a certificate that is good from") == 1


def test_who_does_not_come_to_an_end_with_a_handshake_keeps_nobody_out(mesh, tokens):
    made = mesh()
    with contextlib.ExitStack() as held:
        # All of this machine, but of other addresses.
        for turn in range(640):
            held.enter_context(socket.create_connection(("127.0.0.1", made.port), 10, (f"127.0.0.{2 + turn % 10}", 0)))
        wait_until("handshakes are given up for newer ones", lambda: made.refused() >= 640 - 256)
        with made.envoy(made.client) as other:
            assert call(other.url, tokens()).status == 200
    with socket.create_connection(("127.0.0.1", made.port), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in plain.recv(100), "plain text is not answered as such"
    assert call(made.gateway.envoy.url, tokens()).status == 200


def test_the_api_speaks_tls_where_it_is_told_to(oidc, tmp_path, upstream, tokens):
    authority, port = Authority(tmp_path, "authority"), free_port()
    server, client = authority.issue("api", server=True), authority.issue("monitor", dns="monitor.example.org")
    usual = config(oidc.issuer, tmp_path)
    gateway = Gateway(tmp_path, usual, upstream.port)
    service = gateway.countersign
    tls = {"cert": str(server.certificate), "key": str(server.key), "client_ca": str(authority.file), "client_names": ["monitor.example.org"]}
    service.config["listen"] = {"ext_proc": f"unix:{service.socket}", "http": {"address": f"127.0.0.1:{port}", "tls": tls}}
    service.write()

    def ask(identity=None, path="/readyz"):
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=authority.client(identity))
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def ready():
        with contextlib.suppress(OSError):
            return ask(client)[0] == 200

    service.is_ready = ready
    upstream.answer = chat("Hello there.")
    with gateway:
        assert call(gateway.envoy.url, tokens()).status == 200
        assert b"countersign_exchanges_total" in ask(client, "/metrics")[1]
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            ask()
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            ask(authority.issue("somebody", dns="somebody.example.org"))
        plain = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            plain.request("GET", "/metrics")
            plain.getresponse()
        assert gateway.countersign.stop() == 0
