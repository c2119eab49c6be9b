"""What the end-to-end tests share: the real parts, started once where they keep no state of a test."""

import pytest
from stack import Gateway, OidcProvider, Upstream, broker, config
from stack.caller import call
from stack.upstream import chat


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests marked `long`")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        skip = pytest.mark.skip(reason="only with --long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """Where the parts that live for the whole run keep their logs."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="session")
def oidc(work):
    """The OpenID provider. A test that rotates keys or stops it starts one of its own."""
    with OidcProvider(work, ttl=3600) as provider:
        yield provider


@pytest.fixture(scope="session")
def kafka(work):
    """A broker. A test that stops it starts one of its own."""
    with broker(work) as running:
        yield running


@pytest.fixture
def upstream():
    """The recording model server."""
    with Upstream() as server:
        yield server


@pytest.fixture
def gateway(tmp_path, oidc, upstream):
    """Starts Envoy and Countersign before the recording model server: `gateway(section={…})` replaces sections of the usual configuration."""
    started = []

    def start(change=None, port=None, **sections):
        work = tmp_path / f"gateway-{len(started)}"
        work.mkdir()
        running = Gateway(work, config(oidc.issuer, work, **sections), port or upstream.port, change).start()
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def tokens(oidc):
    """`tokens("alice-app")`: one token per program, as a program would keep it."""
    kept = {}

    def token(client="alice-app"):
        if client not in kept:
            kept[client] = oidc.token(client)
        return kept[client]

    return token


class Site:
    """The gateway that tests share who look only at their own requests."""

    def __init__(self, gateway, upstream, tokens):
        self.gateway, self.upstream, self.tokens = gateway, upstream, tokens
        self.url, self.countersign = gateway.envoy.url, gateway.countersign

    def call(self, *arguments, client="alice-app", token=None, **options):
        """A request, with alice's token unless another is given; `client=None` sends none."""
        if token is None and client is not None:
            token = self.tokens(client)
        return call(self.url, token, *arguments, **options)

    def openai(self, client="alice-app", **options):
        return self.gateway.openai(self.tokens(client), **{"timeout": 20, **options})

    def records(self, session: str) -> list[dict]:
        """What is on record about one session."""
        return [record for record in self.countersign.records() if record.get("session") == session]

    def refused(self, reply, status: int, code: str) -> dict:
        """Looks at a refusal from every side: what the caller got, that the model saw nothing, that it is on record. Returns the record."""
        assert (reply.status, reply.code) == (status, code), reply
        assert self.upstream.requests == [], "it reached the model"
        records = self.records(reply.session)
        assert [kind(record) for record in records] == ["refused"], records
        refused = records[0]["refused"]
        assert (refused["decision"]["verdict"], refused["decision"]["code"], refused["status"]) == ("deny", code, status)
        return refused


def kind(record: dict) -> str:
    """What a record is of."""
    (found,) = set(record) & {"genesis", "opened", "delivered", "closed", "refused", "unauthenticated", "config", "shutdown",
                                "pruned", "rotated", "erased", "discarded", "approval", "grant"}
    return found


def connections(usual: dict) -> list[dict]:
    """The usual connection and, under paths of their own, some that differ in one thing."""
    return [
        {**usual, "name": "elsewhere", "match": {"path_prefix": "/elsewhere/v1"}, "lend_to": {"routes": ["other"], "clusters": ["another"]}},
        {**usual, "name": "keyed", "match": {"path_prefix": "/keyed/v1"}, "token": "api-key",
         "credential": {**usual["credential"], "header": "x-api-key", "format": "{}"}},
        {**usual, "name": "clearance", "match": {"path_prefix": "/clearance/v1"}, "policies": ["cleared", "allow-all"]},
        {**usual, "name": "silent", "match": {"path_prefix": "/silent/v1"}, "payload": "omit"},
        {**usual, "name": "plain", "match": {"path_prefix": "/plain/v1"}, "policies": ["allow-all"]},
        usual,
    ]


@pytest.fixture(scope="session")
def site_of_all(work, oidc, tokens):
    usual = config(oidc.issuer, work)
    usual["connections"] = connections(usual["connections"][0])
    usual["policies"] += [
        {"name": "cleared", "when": "principal.claims.clearance >= 2", "then": {"deny": {"reason": "cleared people work elsewhere"}}},
        {"name": "allow-all", "when": "true", "then": {"allow": {}}},
    ]
    usual["identity"]["issuers"][0]["claims"] = ["clearance"]
    usual["limits"] = {"request_body": "8MiB"}
    with Upstream() as upstream, Gateway(work / "site", usual, upstream.port) as gateway:
        yield Site(gateway, upstream, tokens)


@pytest.fixture
def site(site_of_all):
    """A shared gateway before a model that says hello; what the model saw is this test's alone."""
    site_of_all.upstream.requests.clear()
    site_of_all.upstream.answer = chat("Hello there.")
    return site_of_all
