"""What the end-to-end tests share: the real parts, started once where they keep no state of a test."""

import pytest
from stack import Gateway, OidcProvider, Upstream, broker, config


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
    with OidcProvider(work) as provider:
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
