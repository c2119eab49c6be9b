"""The records that are stored parse with any protobuf JSON parser against the published schema, and mean the same."""

import importlib.resources
import json
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "countersign/audit/v1/audit.proto"
SAMPLES = (ROOT / "proto/countersign/audit/v1/samples.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    out = tmp_path_factory.mktemp("schema")
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    assert protoc.main(["protoc", f"-I{ROOT}/proto", f"-I{well_known}", f"--python_out={out}", SCHEMA]) == 0
    sys.path.insert(0, str(out))
    try:
        from countersign.audit.v1 import audit_pb2
    finally:
        sys.path.remove(str(out))
    return audit_pb2


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: list(json.loads(sample))[-1])
def test_a_record_is_proto3_json(schema, sample):
    # Strict: a field the schema does not know is an error.
    record = json_format.Parse(sample, schema.Record())
    again = json_format.MessageToDict(record, always_print_fields_with_no_presence=False)
    assert again == without_defaults(json.loads(sample))


def test_the_samples_hold_every_field_of_every_event(schema):
    """A field the schema knows and the program never writes would go unnoticed otherwise."""
    events = {}
    for sample in SAMPLES:
        record = json_format.Parse(sample, schema.Record())
        events[record.WhichOneof("event")] = record
    assert set(events) == {field.name for field in schema.Record.DESCRIPTOR.oneofs_by_name["event"].fields}
    for name, record in events.items():
        assert list(empty_fields(getattr(record, name), name)) == []


def empty_fields(message, path):
    present = {field.name for field, _ in message.ListFields()}
    for field in message.DESCRIPTOR.fields:
        if field.name not in present:
            yield f"{path}.{field.name}"
        elif field.message_type and not field.is_repeated and field.message_type.full_name.startswith("countersign"):
            yield from empty_fields(getattr(message, field.name), f"{path}.{field.name}")


def without_defaults(value, arbitrary=False):
    """What proto3 JSON leaves out, left out; except in `claims`, which are JSON of the issuer's own."""
    if isinstance(value, dict) and not arbitrary:
        kept = {key: without_defaults(item, key == "claims") for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ("", 0, "0", False, [], {})}
    return value
