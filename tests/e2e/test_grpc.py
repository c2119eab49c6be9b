"""gRPC inference: Triton's own client through the gateway to a server that speaks the Open Inference Protocol."""

import queue
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
from google.protobuf import descriptor_pb2
from stack import ROOT, UPSTREAM_KEY, config, wait_until
from stack.envoy import cluster
from stack.gateway import Gateway
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as service
from tritonclient.utils import InferenceServerException

CARD, SSN = "4111 1111 1111 1111", "536-22-8145"
LIMIT = 64 << 20  # a client's own bound on messages
OPTIONS = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]


def texts_of(request):
    """The strings of a request's first tensor, however they came."""
    if request.inputs[0].contents.bytes_contents:
        return [text.decode() for text in request.inputs[0].contents.bytes_contents]
    raw, texts = request.raw_input_contents[0], []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


def answer(request, *texts, raw=True):
    response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    output = response.outputs.add(name="text_output", datatype="BYTES", shape=[len(texts)])
    encoded = [text.encode() for text in texts]
    if raw:
        response.raw_output_contents.append(b"".join(len(text).to_bytes(4, "little") + text for text in encoded))
    else:
        output.contents.bytes_contents.extend(encoded)
    scores = response.outputs.add(name="score", datatype="FP32", shape=[2])
    if raw:
        response.raw_output_contents.append(numpy.array([0.5, -1.25], dtype=numpy.float32).tobytes())
    else:
        scores.contents.fp32_contents.extend([0.5, -1.25])
    return response


class Model(service.GRPCInferenceServiceServicer):
    """Says what a test tells it to, and remembers what reached it."""

    def __init__(self):
        self.seen, self.metadata = [], []
        self.held = threading.Event()

    def note(self, request, context):
        self.seen.append(request)
        self.metadata.append(dict(context.invocation_metadata()))

    def ModelInfer(self, request, context):  # noqa: N802
        self.note(request, context)
        said = texts_of(request)[0]
        context.set_trailing_metadata((("x-served-by", "model-7"), ("x-note", f"for {SSN}")))
        if said.startswith("fail"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"nobody has {SSN}, 100 % sure")
        if said.startswith("wait"):
            self.held.wait(30)
        return answer(request, f"you said {said!r}; pay with {CARD}", raw=not said.startswith("typed"))

    def ModelStreamInfer(self, requests, context):  # noqa: N802
        for request in requests:
            self.note(request, context)
            said = texts_of(request)[0]
            for piece in ("536-", "22-", "8145") if said == "deal" else ():
                yield pb.ModelStreamInferResponse(infer_response=answer(request, piece))
            for n in range(3):
                yield pb.ModelStreamInferResponse(infer_response=answer(request, f"{n}: {said}; card {CARD}"))
            if said.startswith("fail"):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"no more for {SSN}")
            if said.startswith("odd"):
                yield pb.ModelStreamInferResponse(error_message=f"cannot tell {CARD}")

    def ServerLive(self, request, context):  # noqa: N802
        self.note(request, context)
        return pb.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):  # noqa: N802
        self.note(request, context)
        return pb.ModelReadyResponse(ready=True)

    def RepositoryModelLoad(self, request, context):  # noqa: N802
        self.note(request, context)
        return pb.RepositoryModelLoadResponse()


@pytest.fixture(scope="module")
def model():
    model = Model()
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    service.add_GRPCInferenceServiceServicer_to_server(model, server)
    model.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield model
    model.held.set()
    server.stop(None).wait()


def speak_http2(envoy):
    """What docs/dialects.md says that Envoy needs to speak to a gRPC server."""
    cluster(envoy, "model")["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, oidc, model):
    work = tmp_path_factory.mktemp("grpc")
    usual = config(oidc.issuer, work)
    (base,) = usual["connections"]
    usual["connections"] = [{**base, "name": "triton", "match": {"hosts": ["*"]}, "dialect": "kserve",
                             "endpoints": ["model_infer", "model_stream_infer", "model_ready", "server_live"],
                             "policies": ["no-mistral", "mask-personal", "allow-all"]}]
    usual["policies"] = [usual["policies"][1],
                         {"name": "no-mistral", "when": 'request.model == "mistral" && request.endpoint.startsWith("model_")',
                          "then": {"deny": {"reason": "mistral is not for everybody"}}},
                         {"name": "allow-all", "when": "true", "then": "allow"}]
    with Gateway(work, usual, model.port, speak_http2) as gateway:
        yield gateway


@pytest.fixture
def channel(gateway):
    with grpc.insecure_channel(f"127.0.0.1:{gateway.envoy.port}", options=OPTIONS) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return service.GRPCInferenceServiceStub(channel)


@pytest.fixture
def client(gateway, model):
    model.seen.clear()
    model.metadata.clear()
    with triton.InferenceServerClient(f"127.0.0.1:{gateway.envoy.port}") as client:
        yield client


@pytest.fixture
def token(tokens):
    return {"authorization": f"Bearer {tokens()}"}


@pytest.fixture
def metadata(token):
    return tuple(token.items())


def inputs(text, **more):
    said = triton.InferInput("text_input", [1], "BYTES")
    said.set_data_from_numpy(numpy.array([text.encode()], dtype=numpy.object_))
    heat = triton.InferInput("temperature", [1], "FP32")
    heat.set_data_from_numpy(numpy.array([0.25], dtype=numpy.float32))
    return {"inputs": [said, heat], **more}


def request(text, name="llama"):
    message = pb.ModelInferRequest(model_name=name, id="r-1")
    message.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents.append(text.encode())
    return message


def records(gateway, kind):
    return [record for record in gateway.countersign.records() if kind in record]


def test_what_is_built_in_is_what_the_file_says_and_as_triton_has_it():
    """The descriptor set is its source's, and every field of it is Triton's by number, name and type."""
    done = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}/proto/inference", "--descriptor_set_out=/dev/stdout", "kserve.proto"],
                          capture_output=True, check=True, timeout=60)
    built_in = (ROOT / "proto/inference/kserve.binpb").read_bytes()
    assert descriptor_pb2.FileDescriptorSet.FromString(done.stdout) == descriptor_pb2.FileDescriptorSet.FromString(built_in)

    def compare(message, prefix):
        theirs = pb.DESCRIPTOR.pool.FindMessageTypeByName(prefix + message.name)
        ours = {(field.number, field.name, field.type) for field in message.field}
        assert ours == {(field.number, field.name, field.type) for field in theirs.fields}, message.name
        for nested in message.nested_type:
            compare(nested, f"{prefix}{message.name}.")

    (file,) = descriptor_pb2.FileDescriptorSet.FromString(built_in).file
    assert len(file.message_type) > 10
    for message in file.message_type:
        compare(message, "inference.")


@pytest.mark.parametrize("how", ["raw", "typed"])
def test_a_unary_call_is_masked_both_ways(gateway, model, client, token, stub, metadata, how):
    if how == "raw":
        result = client.infer("llama", headers=token, request_id="id-7", parameters={"note": f"of {SSN}"}, **inputs(f"who has {SSN}?"))
        (said,) = result.as_numpy("text_output")
        assert result.as_numpy("score").tolist() == [0.5, -1.25]
        assert result.get_response().id == "id-7"
        said = said.decode()
    else:
        response = stub.ModelInfer(request(f"typed: who has {SSN}?"), metadata=metadata, timeout=20)
        (said,) = [text.decode() for text in response.outputs[0].contents.bytes_contents]
        assert list(response.outputs[1].contents.fp32_contents) == [0.5, -1.25]
    assert said.endswith("who has [US_SSN]?'; pay with [CREDIT_CARD]")
    seen, metadata = model.seen[-1], model.metadata[-1]
    assert texts_of(seen)[0].endswith("who has [US_SSN]?")
    assert metadata["authorization"] == f"Bearer {UPSTREAM_KEY}"
    if how == "raw":
        assert seen.parameters["note"].string_param == "of [US_SSN]"
        assert numpy.frombuffer(seen.raw_input_contents[1], dtype=numpy.float32).tolist() == [0.25]
    opened = records(gateway, "opened")[-1]["opened"]
    assert opened["request"]["model"] == "llama" and "[US_SSN]" in opened["request"]["body"]
    everything = str(gateway.countersign.records())
    assert SSN not in everything and CARD not in everything


def test_a_stream_is_masked_message_by_message(client, token, model):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result), headers=token)
    for n in range(2):
        client.async_stream_infer("llama", request_id=f"r-{n}", **inputs(f"it is {SSN}"))
    client.stop_stream()
    said = [answers.get(timeout=20) for _ in range(6)]
    assert [one.get_response().id for one in said] == ["r-0"] * 3 + ["r-1"] * 3
    assert [one.as_numpy("text_output")[0].decode() for one in said] == [f"{n}: it is [US_SSN]; card [CREDIT_CARD]" for n in range(3)] * 2
    assert answers.empty()
    assert [texts_of(seen) for seen in model.seen] == [["it is [US_SSN]"]] * 2


def test_an_error_inside_a_stream_is_masked(stub, metadata):
    messages = list(stub.ModelStreamInfer(iter([request("odd")]), metadata=metadata, timeout=20))
    assert [message.error_message for message in messages] == ["", "", "", "cannot tell [CREDIT_CARD]"]


def test_trailers_arrive_and_what_they_say_is_masked(stub, metadata):
    _, call = stub.ModelInfer.with_call(request("hello"), metadata=metadata, timeout=20)
    trailers = dict(call.trailing_metadata())
    assert trailers["x-served-by"] == "model-7" and trailers["x-note"] == "for [US_SSN]"
    assert call.code() == grpc.StatusCode.OK


def test_a_status_of_the_upstreams_arrives_masked_and_is_on_record(gateway, stub, metadata):
    with pytest.raises(grpc.RpcError) as failed:
        stub.ModelInfer(request("fail"), metadata=metadata, timeout=20)
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
    assert failed.value.details() == "nobody has [US_SSN], 100 % sure"
    assert dict(failed.value.trailing_metadata())["x-served-by"] == "model-7"
    closed = records(gateway, "closed")[-1]["closed"]
    assert (closed["outcome"], closed["status"]) == ("upstream_error", 404)

    answers = stub.ModelStreamInfer(iter([request("fail")]), metadata=metadata, timeout=20)
    with pytest.raises(grpc.RpcError) as failed:
        said = [message for message in answers]  # noqa: F841
    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failed.value.details() == "no more for [US_SSN]"


def test_a_deadline_ends_a_call_and_its_record(gateway, model, stub, metadata):
    model.held.clear()
    with pytest.raises(grpc.RpcError) as late:
        stub.ModelInfer(request("wait"), metadata=metadata, timeout=1)
    model.held.set()
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    session = records(gateway, "opened")[-1]["session"]
    ended = lambda: [record["closed"] for record in records(gateway, "closed") if record["session"] == session]
    (closed,) = wait_until("the call is closed on record", ended)
    assert closed["outcome"] == "cut_short"


def test_who_waits_for_an_answer_before_ending_a_stream_waits_in_vain(client, model, stub, metadata):
    """Decided on is what was said whole: nothing goes upstream before that."""
    silence = threading.Event()

    def requests():
        yield request("hello")
        silence.wait(20)

    with pytest.raises(grpc.RpcError) as late:
        next(stub.ModelStreamInfer(requests(), metadata=metadata, timeout=1))
    silence.set()
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert model.seen == []


def test_who_goes_on_waiting_is_told_that_no_answer_will_come(gateway, client, model, stub, metadata):
    silence = threading.Event()

    def requests():
        yield request("hello")
        silence.wait(40)

    with pytest.raises(grpc.RpcError) as told:
        next(stub.ModelStreamInfer(requests(), metadata=metadata, timeout=30))
    silence.set()
    assert told.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert told.value.details().startswith("caller_waits: ") and "not ended within 10 seconds" in told.value.details()
    assert model.seen == []
    assert records(gateway, "refused")[-1]["refused"]["decision"]["code"] == "caller_waits"


def test_a_value_dealt_out_over_messages_cuts_the_stream(gateway, model, stub, metadata):
    said = []
    with pytest.raises(grpc.RpcError) as cut:
        for message in stub.ModelStreamInfer(iter([request("deal")]), metadata=metadata, timeout=20):
            said.append(message.infer_response.raw_output_contents[0][4:].decode())
    assert said == ["536-", "22-"][:len(said)], "a client may throw away what came right before a reset, and no more than that"
    assert cut.value.code() != grpc.StatusCode.OK
    closed = records(gateway, "closed")[-1]["closed"]
    assert (closed["outcome"], closed["code"]) == ("refused_response", "unknown_response_shape")


def refused(call, code, stable):
    with pytest.raises(grpc.RpcError) as denied:
        call()
    assert (denied.value.code(), denied.value.details().split(":")[0]) == (code, stable), denied.value.details()
    return denied.value


def test_refusals_are_statuses_with_our_code(client, model, token, stub, channel, metadata):
    denied = refused(lambda: stub.ModelInfer(request("x", "mistral"), metadata=metadata, timeout=20),
                     grpc.StatusCode.PERMISSION_DENIED, "policy_denied")
    assert denied.details() == "policy_denied: mistral is not for everybody"
    assert "countersign-session" in dict(denied.initial_metadata()) | dict(denied.trailing_metadata())
    refused(lambda: stub.ModelReady(pb.ModelReadyRequest(name="mistral"), metadata=metadata, timeout=20),
            grpc.StatusCode.PERMISSION_DENIED, "policy_denied")
    refused(lambda: stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="llama"), metadata=metadata, timeout=20),
            grpc.StatusCode.PERMISSION_DENIED, "endpoint_not_allowed")
    refused(lambda: channel.unary_unary("/grpc.health.v1.Health/Check")(b"", metadata=metadata, timeout=20),
            grpc.StatusCode.PERMISSION_DENIED, "endpoint_not_allowed")
    refused(lambda: stub.ModelInfer(request("x"), timeout=20), grpc.StatusCode.UNAUTHENTICATED, "token_missing")
    refused(lambda: stub.ModelInfer(request("x"), metadata=(("authorization", "Bearer no"),), timeout=20),
            grpc.StatusCode.UNAUTHENTICATED, "token_not_jws")
    refused(lambda: stub.ModelInfer(request("x"), metadata=metadata, timeout=20, compression=grpc.Compression.Gzip),
            grpc.StatusCode.UNIMPLEMENTED, "encoded_request")
    refused(lambda: list(stub.ModelStreamInfer(iter([request("x"), request("x", "mistral")]), metadata=metadata, timeout=20)),
            grpc.StatusCode.INVALID_ARGUMENT, "conflicting_model")
    refused(lambda: channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\x0a\xff", metadata=metadata, timeout=20),
            grpc.StatusCode.INVALID_ARGUMENT, "invalid_protobuf")
    with pytest.raises(InferenceServerException, match="policy_denied"):
        client.infer("mistral", headers=token, **inputs("x"))
    assert model.seen == []


def test_methods_that_are_open_pass(client, token, model):
    assert client.is_server_live(headers=token)
    assert client.is_model_ready("llama", headers=token)
    assert len(model.seen) == 2


def test_a_big_message_passes_and_one_that_is_too_big_does_not(client, stub, metadata, model):
    text = "lorem ipsum " * 300_000
    response = stub.ModelInfer(request(f"{text}{SSN}"), metadata=metadata, timeout=60)
    (seen,) = model.seen
    assert texts_of(seen) == [f"{text}[US_SSN]"]
    assert len(response.raw_output_contents[0]) > len(text)
    refused(lambda: stub.ModelInfer(request("x" * (40 << 20)), metadata=metadata, timeout=60),
            grpc.StatusCode.RESOURCE_EXHAUSTED, "request_too_large")
