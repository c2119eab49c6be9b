"""The parts themselves: what the other tests stand on really does what they assume."""

import json
import urllib.error
import urllib.request

import pytest
import yaml
from compose_spec import PyCompose
from openai import OpenAI
from stack import ROOT, Answer, ModelSim, OidcProvider, RealModel
from stack.envoy import SHIPPED, cluster, http_filter, http_manager, shipped, validate
from stack.model import says
from stack.oidc import AUDIENCE, claims
from stack.process import fetch
from stack.upstream import chat


def client(port: int) -> OpenAI:
    return OpenAI(api_key="unused", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)


def ask(openai: OpenAI, text: str, stream: bool, **options):
    """The answer's text, in the pieces it came in."""
    answer = openai.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}], stream=stream, **options)
    if not stream:
        return [answer.choices[0].message.content]
    return [event.choices[0].delta.content for event in answer if event.choices and event.choices[0].delta.content]


def test_the_provider_issues_a_jwt_with_groups(oidc):
    said = claims(oidc.token("alice-app"))
    assert (said["iss"], said["aud"], said["groups"]) == (oidc.issuer, AUDIENCE, ["finance"])
    assert claims(oidc.token("bob-app"))["groups"] == ["interns"]
    assert "groups" not in claims(oidc.token("nobody-app"))
    assert claims(oidc.token("alice-app", resource="urn:other"))["aud"] == "urn:other"


def test_the_provider_rotates_its_keys_and_keeps_them_over_an_outage(tmp_path):
    def published(provider):
        configuration = json.loads(fetch(f"{provider.issuer}/.well-known/openid-configuration")[1])
        return [key["kid"] for key in json.loads(fetch(configuration["jwks_uri"])[1])["keys"]]

    with OidcProvider(tmp_path) as provider:
        provider.set_ttl(7)
        said = claims(provider.token())
        assert said["exp"] - said["iat"] == 7

        first = published(provider)
        new = provider.rotate()
        assert published(provider) == [new, *first]
        only = provider.rotate(keep=False, alg="ES256")
        assert published(provider) == [only]
        assert provider.token()

        issuer = provider.issuer
        provider.stop()
        assert fetch(f"{issuer}/jwks")[0] == 0
        provider.start()
        assert (provider.issuer, published(provider)) == (issuer, [only])


def test_the_simulator_streams_text_cut_at_seven_characters(tmp_path):
    text = "Your card is 4111 1111 1111 1111."
    with ModelSim(tmp_path, [{"match": {"userMessage": "card"}, "response": {"content": text}}], chunk=7) as sim:
        assert ask(client(sim.port), "my card?", stream=True) == [text[i : i + 7] for i in range(0, len(text), 7)]
        assert ask(client(sim.port), "my card?", stream=False) == [text]


def test_the_simulator_of_the_compose_file_has_an_answer_for_everything(tmp_path):
    fixtures = json.loads((ROOT / "examples/compose/fixtures.json").read_text())["fixtures"]
    with ModelSim(tmp_path, fixtures) as sim:
        assert "social security" in ask(client(sim.port), "Tell me about the customer", stream=False)[0]
        assert ask(client(sim.port), "anything else", stream=False) == ["Hello from the model."]


def test_the_recorder_sees_every_byte_and_answers_as_told(upstream):
    upstream.answer = chat("My SSN is 536-22-8145.", size=4, cut=11)
    assert "".join(ask(client(upstream.port), "hello", stream=True)) == "My SSN is 536-22-8145."
    assert ask(client(upstream.port), "hello", stream=False) == ["My SSN is 536-22-8145."]
    assert [r.path for r in upstream.requests] == ["/v1/chat/completions"] * 2
    assert upstream.last.json["messages"][0]["content"] == "hello"
    assert upstream.last.header("Authorization") == "Bearer unused"

    upstream.answer = Answer.json({"error": {"message": "busy", "code": "busy"}}, status=429)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{upstream.port}/x", data=b"\x00\xff", timeout=5)
    assert refused.value.code == 429 and upstream.last.body == b"\x00\xff"


def test_the_broker_keeps_what_was_produced(kafka):
    from confluent_kafka import Producer

    kafka.create_topic("setup", partitions=2)
    producer = Producer({"bootstrap.servers": kafka.address})
    for n in range(10):
        producer.produce("setup", key=f"chain-{n % 2}", value=f"record {n}", headers=[("ce_id", str(n).encode())])
    assert producer.flush(10) == 0
    messages = kafka.consume("setup", 10)
    assert sorted(m.value().decode() for m in messages) == [f"record {n}" for n in range(10)]
    assert {m.key(): m.partition() for m in messages}.keys() == {b"chain-0", b"chain-1"}


def test_a_broker_outage_loses_nothing(tmp_path):
    from confluent_kafka import Producer
    from stack import broker

    with broker(tmp_path) as kafka:
        if not kafka.keeps_data:
            pytest.skip("this broker keeps its data in memory")
        kafka.create_topic("kept")
        producer = Producer({"bootstrap.servers": kafka.address})
        producer.produce("kept", value="before")
        assert producer.flush(10) == 0
        kafka.kill()
        kafka.start()
        assert kafka.consume("kept", 1)[0].value() == b"before"


def test_the_real_model_says_what_its_grammar_allows(tmp_path):
    if not RealModel.installed():
        pytest.skip("the real model is not installed")
    text = "My card is 4111 1111 1111 1111, ok?"
    with RealModel(tmp_path) as model:
        pieces = ask(client(model.port), "What is your card?", stream=True, extra_body={"grammar": says(text)})
        assert "".join(pieces) == text and len(pieces) > 3


def test_envoy_accepts_the_configuration_as_it_is_shipped():
    assert validate(SHIPPED) == ""


def test_envoy_says_what_is_wrong_with_a_configuration(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(SHIPPED.read_text().replace("failure_mode_allow:", "failure_mode_alow:"))
    assert "failure_mode_alow" in validate(broken)


def test_the_shipped_filter_governs_everything_and_fails_closed():
    filter_ = http_filter(shipped(), "envoy.filters.http.ext_proc")
    assert filter_["failure_mode_allow"] is False and filter_["allow_mode_override"] is False
    assert filter_["processing_mode"] == {
        "request_header_mode": "SEND", "request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND",
        "response_header_mode": "SEND", "response_body_mode": "FULL_DUPLEX_STREAMED", "response_trailer_mode": "SEND"}


def test_the_compose_file_is_valid_and_every_image_is_pinned():
    text = (ROOT / "docker-compose.yml").read_text()
    PyCompose.from_yaml(text).validate()

    compose = yaml.safe_load(text)
    services = compose["services"]
    assert set(services) >= {"envoy", "countersign", "kafka", "oidc", "model", "topics"}
    for name, service in services.items():
        assert "healthcheck" in service, f"{name} has no health check"
        assert service.get("build") == "." or any(c.isdigit() for c in service["image"].rpartition(":")[2]), f"{name} is not pinned"
        # The validator does not look at these.
        assert set(service.get("depends_on", {})) <= set(services)
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            there = (ROOT / source).is_file() if source.startswith("./") else source in compose["volumes"]
            assert there, f"{name} mounts {source}, which is not there"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port} to everyone"
    assert services["envoy"]["user"] == "10001:10001" and "USER 10001:10001" in (ROOT / "Dockerfile").read_text()


def test_the_compose_parts_agree_on_names_and_addresses():
    config = yaml.safe_load((ROOT / "examples/compose/countersign.yaml").read_text())
    sockets = cluster(shipped(), "countersign")["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert config["listen"]["ext_proc"] == "unix:" + sockets[0]["endpoint"]["address"]["pipe"]["path"]
    route = http_manager(shipped())["route_config"]["virtual_hosts"][0]["routes"][0]
    assert config["connections"][0]["lend_to"] == {"routes": [route["name"]], "clusters": [route["route"]["cluster"]]}
    realm = json.loads((ROOT / "examples/compose/realm.json").read_text())
    host = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["oidc"]["environment"]["KC_HOSTNAME"]
    assert config["identity"]["issuers"][0]["issuer"] == f"{host}/realms/{realm['realm']}"


def test_a_compose_file_with_a_fault_is_refused():
    with pytest.raises(ValueError):
        PyCompose.from_yaml("services: {a: {image: 'x:1', restarts: always}}").validate()
    with pytest.raises(ValueError):
        PyCompose.from_yaml("services: {a: {image: 'x:1', secrets: [nowhere]}}").validate()
