"""gRPC by a descriptor set of the user's own: a service of nobody's, through the gateway, with a real client and server."""

import importlib
import shutil
import subprocess
import sys
from concurrent import futures

import grpc
import pytest
from google.protobuf import any_pb2, descriptor_pb2
from stack import ROOT, UPSTREAM_KEY, Countersign, config, wait_until
from stack.countersign import run
from stack.envoy import cluster
from stack.gateway import Gateway

CARD, SSN = "4111 1111 1111 1111", "536-22-8145"
SOURCE = ROOT / "tests/data/grpc"
SERVICE = "acme.llm.v1.Writer"


def compiled(source, to, *more):
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{source}", "--include_imports", f"--descriptor_set_out={to}", *more, "writer.proto"],
                   check=True, timeout=60)
    return to


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """Messages and stubs, as protoc makes them."""
    work = tmp_path_factory.mktemp("writer")
    compiled(SOURCE, work / "all.binpb", f"--python_out={work}", f"--grpc_python_out={work}")
    sys.path.insert(0, str(work))
    yield importlib.import_module("writer_pb2"), importlib.import_module("writer_pb2_grpc")
    sys.path.remove(str(work))


@pytest.fixture(scope="module")
def pb(writer):
    return writer[0]


@pytest.fixture(scope="module")
def model(writer):
    pb, service = writer

    class Writer(service.WriterServicer):
        def __init__(self):
            self.seen, self.metadata = [], []

        def note(self, request, context):
            self.seen.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            context.set_trailing_metadata((("x-served-by", "writer-7"), ("x-note", f"for {SSN}")))

        def said(self, request):
            said = request.turns[-1].content if request.turns else request.prompt
            choice = pb.GenerateResponse.Choice(text=f"you said {said!r}; pay with {CARD}", raw=f"or {CARD}".encode())
            choice.drafts.add(text=f"draft for {SSN}")
            return pb.GenerateResponse(id="a-1", choices=[choice])

        def Generate(self, request, context):  # noqa: N802
            self.note(request, context)
            if request.prompt.startswith("fail"):
                context.abort(grpc.StatusCode.NOT_FOUND, f"nobody has {SSN}")
            return self.said(request)

        def Tell(self, request, context):  # noqa: N802
            self.note(request, context)
            # An `id` of a protocol of one's own says nothing: these are one text all the same.
            for piece in ("536-", "22-", "8145") if request.prompt == "deal" else ():
                yield pb.GenerateResponse(id=piece[:2], choices=[pb.GenerateResponse.Choice(text=piece)])
            for n in range(3):
                yield pb.GenerateResponse(id=str(n), choices=[pb.GenerateResponse.Choice(text=f"{n}: {request.prompt}; {CARD}")])

        def Chat(self, requests, context):  # noqa: N802
            for request in requests:
                self.note(request, context)
                yield self.said(request)

        def Embed(self, request, context):  # noqa: N802
            self.note(request, context)
            return pb.EmbedResponse(values=[0.5, -1.25])

        def Health(self, request, context):  # noqa: N802
            self.note(request, context)
            return pb.HealthResponse(fine=True)

    model = Writer()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service.add_WriterServicer_to_server(model, server)
    model.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield model
    server.stop(None).wait()


@pytest.fixture(autouse=True)
def forgotten(model):
    model.seen.clear()
    model.metadata.clear()


def speak_http2(envoy):
    cluster(envoy, "model")["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }


def written(issuer, work, **more):
    """The usual configuration before the service of [`SOURCE`]; all but `Embed` is open."""
    usual = config(issuer, work)
    (base,) = usual["connections"]
    shutil.copy(SOURCE / "writer.binpb", work / "writer.binpb")
    usual["connections"] = [{**base, "name": "writer", "match": {"hosts": ["*"]}, "dialect": "grpc",
                             "endpoints": [f"{SERVICE}/{name}" for name in ("Generate", "Tell", "Chat", "Health")],
                             "schema": {"file": str(work / "writer.binpb"), "model": "options.model"},
                             "policies": ["no-big", "mask-personal", "allow-all"], **more}]
    usual["policies"] = [usual["policies"][1],
                         {"name": "no-big", "when": f'request.model == "big" && request.endpoint == "{SERVICE}/Generate"',
                          "then": {"deny": {"reason": "big is not for everybody"}}},
                         {"name": "allow-all", "when": "true", "then": "allow"}]
    return usual


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, oidc, model):
    work = tmp_path_factory.mktemp("schema")
    with Gateway(work, written(oidc.issuer, work), model.port, speak_http2) as gateway:
        yield gateway


@pytest.fixture
def metadata(tokens):
    return (("authorization", f"Bearer {tokens()}"),)


@pytest.fixture
def channel(gateway):
    with grpc.insecure_channel(f"127.0.0.1:{gateway.envoy.port}") as channel:
        yield channel


@pytest.fixture
def stub(writer, channel):
    return writer[1].WriterStub(channel)


@pytest.fixture
def ask(pb):
    def ask(prompt=None, model="small", **more):
        return pb.GenerateRequest(options=pb.Options(model=model, temperature=0.25), prompt=prompt, **more)

    return ask


def refused(call, code, stable):
    with pytest.raises(grpc.RpcError) as denied:
        call()
    assert (denied.value.code(), denied.value.details().split(":")[0]) == (code, stable), denied.value.details()


def records(gateway, kind):
    return [record for record in gateway.countersign.records() if kind in record]


def test_the_descriptor_set_is_its_sources(tmp_path):
    fresh = compiled(SOURCE, tmp_path / "writer.binpb").read_bytes()
    kept = (SOURCE / "writer.binpb").read_bytes()
    assert descriptor_pb2.FileDescriptorSet.FromString(fresh) == descriptor_pb2.FileDescriptorSet.FromString(kept)


def test_a_unary_call_is_masked_both_ways_and_its_trailers_arrive(gateway, pb, model, stub, metadata, ask):
    request = ask(turns=[pb.Turn(role="user", content=f"who has {SSN}?")], notes={"of": SSN}, seed=42, raw_prompt=f"is it {SSN}".encode())
    response, call = stub.Generate.with_call(request, metadata=metadata, timeout=20)
    (choice,) = response.choices
    assert choice.text == "you said 'who has [US_SSN]?'; pay with [CREDIT_CARD]"
    assert choice.raw == b"or [CREDIT_CARD]" and choice.drafts[0].text == "draft for [US_SSN]"
    assert response.id == "a-1"
    (seen,) = model.seen
    assert (seen.turns[0].content, dict(seen.notes), seen.raw_prompt) == ("who has [US_SSN]?", {"of": "[US_SSN]"}, b"is it [US_SSN]")
    assert (seen.options.temperature, seen.seed) == (0.25, 42)
    assert model.metadata[0]["authorization"] == f"Bearer {UPSTREAM_KEY}"
    trailers = dict(call.trailing_metadata())
    assert trailers["x-served-by"] == "writer-7" and trailers["x-note"] == "for [US_SSN]"
    opened = records(gateway, "opened")[-1]["opened"]
    assert opened["request"]["model"] == "small" and "who has [US_SSN]?" in opened["request"]["body"]
    everything = str(gateway.countersign.records())
    assert SSN not in everything and CARD not in everything


def test_messages_of_a_stream_are_masked_each(model, stub, metadata, ask):
    call = stub.Tell(ask(f"it is {SSN}"), metadata=metadata, timeout=20)
    said = [(message.id, message.choices[0].text) for message in call]
    assert said == [(str(n), f"{n}: it is [US_SSN]; [CREDIT_CARD]") for n in range(3)]
    assert dict(call.trailing_metadata())["x-served-by"] == "writer-7"


def test_a_caller_that_streams_is_answered_message_by_message(model, stub, metadata, ask):
    answers = stub.Chat(iter([ask(f"a {SSN}"), ask("b")]), metadata=metadata, timeout=20)
    assert [answer.choices[0].text.split(";")[0] for answer in answers] == ["you said 'a [US_SSN]'", "you said 'b'"]


def test_a_value_dealt_out_over_messages_cuts_the_stream(gateway, stub, metadata, ask):
    said = []
    with pytest.raises(grpc.RpcError):
        for message in stub.Tell(ask("deal"), metadata=metadata, timeout=20):
            said.append(message.choices[0].text)
    assert said == ["536-", "22-"]
    assert records(gateway, "closed")[-1]["closed"]["code"] == "unknown_response_shape"


def test_a_status_of_the_upstreams_arrives_masked(stub, metadata, ask):
    with pytest.raises(grpc.RpcError) as failed:
        stub.Generate(ask("fail"), metadata=metadata, timeout=20)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "nobody has [US_SSN]")


def test_a_method_about_no_model_passes(pb, stub, metadata):
    assert stub.Health(pb.HealthRequest(), metadata=metadata, timeout=20).fine


def test_what_the_schema_does_not_say_is_refused(pb, model, stub, channel, metadata, ask):
    def raw(message, method="Generate"):
        return lambda: channel.unary_unary(f"/{SERVICE}/{method}")(message, metadata=metadata, timeout=20)

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    refused(raw(ask("x").SerializeToString() + b"\x9a\x06\x01x"), invalid, "unknown_field")
    refused(raw(b"\x0a\xff"), invalid, "invalid_protobuf")
    refused(raw(ask("x", model="").SerializeToString()), invalid, "missing_model")
    refused(raw(b"", "Train"), grpc.StatusCode.PERMISSION_DENIED, "endpoint_not_allowed")
    refused(lambda: stub.Embed(pb.EmbedRequest(model="small"), metadata=metadata, timeout=20), grpc.StatusCode.PERMISSION_DENIED, "endpoint_not_allowed")
    refused(lambda: stub.Generate(ask("x", model="big"), metadata=metadata, timeout=20), grpc.StatusCode.PERMISSION_DENIED, "policy_denied")
    packed = any_pb2.Any(type_url="type.example/x", value=b"text")
    for request in (ask(extra=packed), ask(raw_prompt=b"\xff\xfe")):
        with pytest.raises(grpc.RpcError) as denied:
            stub.Generate(request, metadata=metadata, timeout=20)
        assert denied.value.details().startswith("unscannable"), denied.value.details()
    assert model.seen == []


def test_check_says_what_the_descriptor_set_does_not_have(tmp_path, oidc):
    def checked(**more):
        usual = written(oidc.issuer, tmp_path, **more)
        file = Countersign(tmp_path, usual).file
        return run("check", "--config", file)

    schema = {"file": str(tmp_path / "writer.binpb"), "model": "options.model"}
    fine = checked()
    assert fine.returncode == 0, fine.stderr
    for more, told in [
        ({"endpoints": [f"{SERVICE}/Generte"]}, f"the descriptor set has no method `{SERVICE}/Generte` (did you mean `{SERVICE}/Generate`?)"),
        ({"schema": {**schema, "model": "options.modle"}}, "has a field `options.modle` (did you mean `options.model`?)"),
        ({"fields": ["turns.contnt"]}, "has a field `turns.contnt` (did you mean `turns.content`?)"),
        ({"schema": {**schema, "file": str(tmp_path / "none.binpb")}}, "schema.file: cannot read"),
        ({"schema": {**schema, "file": str(SOURCE / "writer.proto")}}, "not a descriptor set with all its imports"),
    ]:
        done = checked(**more)
        assert done.returncode == 1 and told in done.stderr, done.stderr


def test_a_changed_descriptor_set_is_put_into_force_and_one_without_our_methods_is_not(tmp_path, oidc, model, writer, tokens, ask):
    work, old = tmp_path / "gateway", tmp_path / "old"
    work.mkdir(), old.mkdir()
    text = (SOURCE / "writer.proto").read_text()
    seedless = "\n".join(line for line in text.splitlines() if "seed" not in line)
    usual = written(oidc.issuer, work)
    live = work / "writer.binpb"

    def put(text):
        (old / "writer.proto").write_text(text)
        compiled(old, tmp_path / "fresh.binpb").replace(live)

    put(seedless)
    with Gateway(work, usual, model.port, speak_http2) as gateway, grpc.insecure_channel(f"127.0.0.1:{gateway.envoy.port}") as channel:
        stub = writer[1].WriterStub(channel)
        metadata = (("authorization", f"Bearer {tokens()}"),)
        generate = lambda: stub.Generate(ask("x", seed=1), metadata=metadata, timeout=20)
        refused(generate, grpc.StatusCode.INVALID_ARGUMENT, "unknown_field")
        put(text)

        def taken():
            try:
                return generate()
            except grpc.RpcError:
                return None

        wait_until("the new descriptor set is in force", taken)
        put(text.replace("rpc Generate", "rpc Other"))
        wait_until("the one after is refused", lambda: "has no method" in gateway.countersign.log_text())
        assert generate()
