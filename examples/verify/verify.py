#!/usr/bin/env python3
"""Checks a Countersign audit log, or a proof from it, with no code of Countersign's: docs/audit-format.md is all it knows.

    verify.py --dir DIR [--checkpoint FILE]... [--trust FILE]... [--json]
    verify.py --proof FILE [--trust FILE]... [--json]

Exit code 0: nothing is wrong; 1: something is, and the first bad record of every chain is named; 2: it could not be checked.
Needs Python 3.9; signatures need the package `cryptography` (only with --trust).
"""

import argparse
import base64
import binascii
import hashlib
import itertools
import json
import re
import struct
import sys
from pathlib import Path

ZERO = bytes(32)
MAX_RECORD = 960 << 10
MAX_RECORDS = 65_536  # in one proof
SEGMENT = struct.Struct(">8sI16sQ32sI")  # magic, version, chain id, first seq, hash before it, CRC
FRAME = struct.Struct(">IIQ32sQI")  # length, CRC of the record, seq, record hash, records on disk, CRC
POSITION = re.compile(rb'\{"chain":"([0-9a-f]{32})","seq":"(0|[1-9][0-9]{0,19})","prevHash":"([0-9a-f]{64})","time":"([^"]{1,40})"')


class Cannot(Exception):
    """It cannot be checked: exit code 2."""


class Wrong(Exception):
    """What was found is not what was written: exit code 1."""


def sha256(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def record_hash(chain: bytes, seq: int, previous: bytes, record: bytes) -> bytes:
    return sha256(b"countersign/record/v1\0", chain, struct.pack(">Q", seq), previous, struct.pack(">Q", len(record)), record)


def leaf_hash(chain: bytes, seq: int, of_record: bytes, payload: bytes = ZERO) -> bytes:
    return sha256(b"\0", chain, struct.pack(">Q", seq), of_record, payload)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1", left, right)


class Tree:
    """RFC 6962, section 2.1, kept as the roots of its perfect subtrees."""

    def __init__(self, size: int = 0, nodes: tuple = ()):
        self.nodes, self.size = list(nodes), size

    def push(self, leaf: bytes):
        carry = self.size
        while carry & 1:
            leaf, carry = node_hash(self.nodes.pop(), leaf), carry >> 1
        self.nodes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self.nodes:
            return sha256()
        root = self.nodes[-1]
        for left in reversed(self.nodes[:-1]):
            root = node_hash(left, root)
        return root


def root_by_path(leaf: bytes, index: int, size: int, path: list):
    """RFC 9162, section 2.1.3.2; None where the path is not as long as such a tree's."""
    if index >= size:
        return None
    at, last = index, size - 1
    for sibling in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            leaf = node_hash(sibling, leaf)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            leaf = node_hash(leaf, sibling)
        at, last = at >> 1, last >> 1
    return leaf if last == 0 else None


# --- checkpoints: C2SP signed notes ---


class Checkpoint:
    def __init__(self, note: str):
        text, found, _ = note.partition("\n\n")
        lines = (text + "\n").split("\n")
        if not found or len(lines) < 4:
            raise Wrong("a checkpoint is no signed note")
        origin = re.fullmatch(r"countersign/(.+)/([0-9a-f]{32})", lines[0])
        if not origin or not re.fullmatch(r"0|[1-9][0-9]*", lines[1]):
            raise Wrong("a checkpoint is none of Countersign's")
        self.origin, self.chain, self.size = lines[0], bytes.fromhex(origin[2]), int(lines[1])
        self.root = base64.b64decode(lines[2], validate=True)
        self.signed, self.signatures = (text + "\n").encode(), note[len(text) + 2 :]

    def is_signed_by(self, keys: list) -> bool:
        return is_signed(self.signed.decode(), self.signatures, keys)


def is_signed(text: str, signatures: str, keys: list) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for line in signatures.split("\n"):
        found = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/=]+)", line)
        if not found:
            continue
        blob = base64.b64decode(found[2], validate=True)
        for name, key_id, public in keys:
            if (name, key_id) != (found[1], blob[:4]):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], text.encode())
                return True
            except InvalidSignature:
                pass
    return False


def with_successors(trusted: list, statements: list) -> list:
    """The trusted keys, and those that they introduce, directly or through one another."""
    trusted, grown = list(trusted), True
    while grown:
        grown = False
        for statement in statements:
            text, _, signatures = statement.partition("\n\n")
            found = re.fullmatch("countersign/key/v1\n([^\n]+)", text)
            if found and key(found[1]) not in trusted and is_signed(text + "\n", signatures, trusted):
                trusted.append(key(found[1]))
                grown = True
    return trusted


def notes(text: str):
    """The notes of a file that holds one after the other; a torn last one is left out."""
    for found in re.finditer("(?:^|(?<=\n))((?:[^\n]+\n){3,}?\n(?:\u2014[^\n]*\n)+)", text):
        yield found[1]


def key(line: str):
    name, key_id, encoded = re.fullmatch(r"([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)", line.strip()).groups()
    raw = base64.b64decode(encoded, validate=True)
    if raw[:1] != b"\1" or len(raw) != 33 or sha256(name.encode() + b"\n", raw)[:4].hex() != key_id:
        raise Cannot(f"`{line.strip()}` is no public key of an Ed25519 signer")
    return name, bytes.fromhex(key_id), raw[1:]


def keys(files: list) -> list:
    found = []
    for file in files:
        lines = [line for line in Path(file).read_text().splitlines() if line.strip()]
        if not lines:
            raise Cannot(f"`{file}` holds no key")
        try:
            found += map(key, lines)
        except AttributeError:
            raise Cannot(f"`{file}` holds a line that is no public key") from None
    return found


# --- a directory ---


def records(chain: Path, chain_id: bytes, first: int, is_last: bool):
    """Yields (seq, hash, record) from the segment that begins with `first` on, as the frames say; raises Wrong at what is no frame."""
    segments = sorted(path for path in chain.glob("*.seg") if int(path.stem) >= first)
    for number, path in enumerate(segments):
        data = path.read_bytes()
        if len(data) < SEGMENT.size:
            if is_last and number == len(segments) - 1:
                return
            raise Wrong(f"`{path.name}` is too short for a segment")
        magic, version, of_chain, *_ = SEGMENT.unpack_from(data)
        if (magic, version, of_chain) != (b"CSGNWAL1", 1, chain_id):
            raise Wrong(f"`{path.name}` is no segment of this chain")
        at = SEGMENT.size
        while at < len(data):
            whole = at + FRAME.size <= len(data)
            if whole:
                length, crc, seq, of_record, _, own_crc = FRAME.unpack_from(data, at)
                whole = binascii.crc32(data[at : at + FRAME.size - 4]) == own_crc and at + FRAME.size + length <= len(data)
            if not whole:
                # The end of a log that is being written, or that a crash has torn.
                if is_last and number == len(segments) - 1:
                    return
                raise Wrong(f"`{path.name}` holds no whole record at byte {at}")
            record = data[at + FRAME.size : at + FRAME.size + length]
            if binascii.crc32(record) != crc:
                raise Wrong(f"`{path.name}` holds a damaged record at byte {at}")
            yield seq, of_record, record
            at += FRAME.size + length


class Chain:
    """What was found of one chain."""

    def __init__(self, chain_id: bytes):
        self.id, self.size, self.head, self.tree, self.whole, self.genesis = chain_id, 0, ZERO, Tree(), 0, None
        self.pruned, self.stump, self.signed = 0, None, 0

    def begin_behind(self, text: bytes):
        """The file `pruned`: what is kept of records that are not there any more."""
        stump = json.loads(text)
        nodes = [bytes.fromhex(node) for node in stump["frontier"]]
        size = int(stump["records"])
        if stump["format"] != "countersign/pruned/v2" or bytes.fromhex(stump["chain"]) != self.id or not size:
            raise Wrong("what is kept of pruned records is of another chain")
        if len(nodes) != bin(size).count("1") or any(len(node) != 32 for node in nodes):
            raise Wrong("what is kept of pruned records is no tree of their number")
        self.pruned = self.size = size
        self.head, self.tree, self.stump = bytes.fromhex(stump["head"]), Tree(size, nodes), sha256(text).hex()
        # Its genesis is under the same tree as the others: checked as one of a proof, up to the largest perfect subtree.
        genesis = stump["genesis"].encode()
        position = POSITION.match(genesis)
        if not position or (bytes.fromhex(position[1].decode()), int(position[2]), bytes.fromhex(position[3].decode())) != (self.id, 0, ZERO):
            raise Wrong("what is kept of pruned records does not begin with the chain's first")
        leaf = leaf_hash(self.id, 0, record_hash(self.id, 0, ZERO, genesis))
        path = [bytes.fromhex(node) for node in stump["path"]]
        if any(len(node) != 32 for node in path) or root_by_path(leaf, 0, 1 << size.bit_length() - 1, path) != nodes[0]:
            raise Wrong("the genesis that is kept is not the one under the tree of pruned records")
        self.genesis = json.loads(genesis).get("genesis")
        if self.genesis is None:
            raise Wrong("the first record is no genesis")

    def take(self, seq: int, of_record, record: bytes):
        position = POSITION.match(record)
        if not position or len(record) > MAX_RECORD:
            raise Wrong("the record does not begin with its position")
        if bytes.fromhex(position[1].decode()) != self.id:
            raise Wrong("the record is of another chain")
        if seq != self.size or int(position[2]) != seq:
            raise Wrong(f"a record of place {int(position[2])} stands in place {self.size}")
        if bytes.fromhex(position[3].decode()) != self.head:
            raise Wrong("the record does not follow the one before it")
        found = record_hash(self.id, seq, self.head, record)
        if of_record is not None and of_record != found:
            raise Wrong("the record is not the one that was hashed")
        if seq == 0:
            self.genesis = json.loads(record).get("genesis")
            if self.genesis is None:
                raise Wrong("the first record is no genesis")
        self.tree.push(leaf_hash(self.id, seq, found))
        self.size, self.head = self.size + 1, found


def check_directory(directory: Path, outside: list, trusted: list):
    """(faults, chains): faults are (chain, seq, what)."""
    faults, chains = [], []
    expected, announced = {}, set()
    if trusted:
        trusted = with_successors(trusted, introductions(directory))
    for note in outside:
        checkpoint = Checkpoint(note)
        if trusted and not checkpoint.is_signed_by(trusted):
            raise Cannot(f"the checkpoint of {checkpoint.origin} from outside is not signed by a trusted key")
        expected.setdefault(checkpoint.chain, {}).setdefault(checkpoint.size, []).append((checkpoint.root, True))
    if not (directory / "chains").is_dir():
        raise Cannot(f"`{directory}` is no ledger directory")
    paths = sorted(path for path in (directory / "chains").iterdir() if re.fullmatch(r"\d{8}-[0-9a-f]{32}", path.name))
    for path in paths:
        chain = Chain(bytes.fromhex(path.name[9:]))
        chains.append(chain)
        marks = expected.setdefault(chain.id, {})
        beside = path / "checkpoints"
        try:
            if (path / "pruned").exists():
                chain.begin_behind((path / "pruned").read_bytes())
            for note in notes(beside.read_text()) if beside.exists() else ():
                checkpoint = Checkpoint(note)
                if checkpoint.chain != chain.id or (trusted and not checkpoint.is_signed_by(trusted)):
                    raise Wrong("a checkpoint beside the log is of another chain, or not signed by a trusted key")
                marks.setdefault(checkpoint.size, []).append((checkpoint.root, False))
            # Of fewer records than are gone: there is nothing to compare it with.
            for size in [size for size in marks if size < chain.pruned]:
                del marks[size]
            # What begins behind pruned records is compared once before the first of the others.
            for taken in itertools.chain([None], records(path, chain.id, chain.pruned, path == paths[-1])):
                if taken is not None:
                    chain.take(*taken)
                    announced.update((taken[0], *told) for told in stumps(taken[2]))
                for root, is_outside in marks.pop(chain.size, ()):
                    if root != chain.tree.root():
                        raise Wrong(f"the first {chain.size} records are not those of a checkpoint: re-hashed")
                    chain.signed = chain.size
                    if is_outside:
                        chain.whole = chain.size
            if marks:
                raise Wrong(f"a checkpoint says {max(marks)} records: truncated")
        except Wrong as wrong:
            faults.append((chain.id, chain.size, str(wrong)))
            chain.whole = 0
        expected.pop(chain.id, None)
    sound = {chain.id for chain in chains} - {chain for chain, _, _ in faults}
    # A record that no checkpoint of its own chain covers says nothing: anybody can append one.
    signed = {chain.id: chain.signed for chain in chains}
    told = {(by, of, size, stump) for seq, by, of, size, stump in announced if seq < signed.get(by, 0)}
    for chain in chains:
        said = [by for by, of, size, stump in told if (of, size, stump) == (chain.id.hex(), chain.pruned, chain.stump)]
        if chain.pruned and not sound.intersection(said):
            faults.append((chain.id, 0, f"the first {chain.pruned} records are not there, and no record says that they were pruned"))
    faults += [(chain, 0, "a checkpoint names the chain and it is missing") for chain, marks in expected.items() if marks]
    if chains and (chains[0].genesis or {}).get("previousChain"):
        faults.append(missing_before(chains[0]))
    for before, chain in zip(chains, chains[1:]):
        said = chain.genesis or {}
        if said.get("previousChain") != before.id.hex():
            faults.append(missing_before(chain))
        elif (int(said.get("previousSize", 0)), said.get("previousHead")) != (before.size, before.head.hex()):
            faults.append((before.id, before.size, "the next chain's genesis says it ended otherwise"))
        elif said.get("previousRoot") and said["previousRoot"] != before.tree.root().hex():
            faults.append((before.id, 0, "the next chain's genesis names another root: what is kept of pruned records is of others"))
    return faults, chains


def missing_before(chain):
    """The fault of a chain that continues one that is not there before it."""
    named = (chain.genesis or {}).get("previousChain") or ""
    if re.fullmatch("[0-9a-f]{32}", named):
        return bytes.fromhex(named), 0, "a later chain continues it and it is missing"
    return chain.id, 0, "the genesis does not name the chain before it"


def stumps(record: bytes):
    """What a record says of records that were pruned: (chain that says it, pruned chain, how many, hash of what is kept of them)."""
    if b',"pruned":{' in record:
        told = json.loads(record)
        if pruned := told.get("pruned"):
            yield bytes.fromhex(told["chain"]), pruned["chain"], int(pruned["records"]), pruned["stumpSha256"]


def introductions(directory: Path) -> list:
    """The statements in the log by which keys introduce others. They are worth the signatures on them, whatever the log is."""
    found = []
    for segment in sorted(directory.glob("chains/*/*.seg")):
        for told in re.findall(rb',"rotated":(\{"key":"[^"]*","introductions":\[.*?\]\})', segment.read_bytes(), re.DOTALL):
            try:
                found += json.loads(told)["introductions"]
            except ValueError:
                pass
    return found


# --- a proof ---


def check_proof(proof: dict, trusted: list) -> list:
    """The places of the records that are proven; raises Wrong."""
    if not isinstance(proof, dict) or proof.get("format") != "countersign/proof/v1":
        raise Cannot("the file is no proof")
    if not 0 < len(proof["records"]) <= MAX_RECORDS:
        raise Wrong(f"it is no proof of 1 to {MAX_RECORDS} records")
    checkpoints, last = {}, {}
    if trusted:
        trusted = with_successors(trusted, proof.get("introductions", []))
    for note in proof["checkpoints"]:
        checkpoint = Checkpoint(note)
        if trusted and not checkpoint.is_signed_by(trusted):
            raise Wrong(f"the checkpoint of {checkpoint.origin} is not signed by a trusted key")
        if checkpoints.setdefault(checkpoint.chain, checkpoint) is not checkpoint:
            raise Wrong("it has two checkpoints of one chain")
    places = []
    for number, proven in enumerate(proof["records"]):
        record = proven["record"].encode()
        position = POSITION.match(record)
        if not position or len(record) > MAX_RECORD:
            raise Wrong(f"record {number} does not begin with its position")
        chain, seq, previous = bytes.fromhex(position[1].decode()), int(position[2]), bytes.fromhex(position[3].decode())
        if json.loads(record).get("session", "") != proof["session"]:
            raise Wrong(f"record {number} is not of the session")
        if last.get(chain, -1) >= seq:
            raise Wrong(f"record {number} is out of order")
        if chain not in checkpoints:
            raise Wrong(f"record {number} is in a chain without a checkpoint")
        payload = bytes.fromhex(proven.get("payloadHash", "")) or ZERO
        leaf = leaf_hash(chain, seq, record_hash(chain, seq, previous, record), payload)
        path = [bytes.fromhex(node) for node in proven["path"]]
        if any(len(node) != 32 for node in [payload, *path]):
            raise Wrong(f"record {number} has a path of something else than hashes")
        if root_by_path(leaf, seq, checkpoints[chain].size, path) != checkpoints[chain].root:
            raise Wrong(f"record {number} is not what the checkpoint covers")
        places.append((chain, seq))
        last[chain] = seq
    return places


# --- the command line ---


def run(arguments) -> int:
    trusted = keys(arguments.trust)
    signatures = "checked" if trusted else "not checked"
    if arguments.proof:
        if arguments.checkpoint:
            raise Cannot("a proof carries its checkpoint: give --trust, not --checkpoint")
        try:
            places = check_proof(json.loads(Path(arguments.proof).read_text()), trusted)
        except Wrong as wrong:
            print(json.dumps({"verdict": "not proven", "fault": str(wrong)}) if arguments.json else f"NOT PROVEN: {wrong}")
            return 1
        found = [{"chain": c.hex(), "seq": s} for c, s in places]
        print(json.dumps({"verdict": "proven", "signatures": signatures, "records": found}) if arguments.json
              else f"proven: {len(places)} records; signatures of checkpoints were {signatures}")
        return 0
    outside = [note for file in arguments.checkpoint for note in notes(Path(file).read_text())]
    faults, chains = check_directory(Path(arguments.dir), outside, trusted)
    verdict = "tampered" if faults else "whole" if any(c.whole for c in chains) else "consistent, unanchored"
    if arguments.json:
        print(json.dumps({
            "verdict": verdict, "signatures": signatures,
            "chains": [{"chain": c.id.hex(), "records": c.size - c.pruned, "pruned_records": c.pruned, "whole_records": c.whole} for c in chains],
            "faults": [{"chain": c.hex(), "seq": s, "cause": what} for c, s, what in faults]}, indent=2))
    else:
        for chain, seq, what in faults:
            print(f"chain {chain.hex()} record {seq}: {what}")
        print(f"{verdict}: {sum(c.size - c.pruned for c in chains)} records in {len(chains)} chains")
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dir", help="a ledger directory")
    source.add_argument("--proof", help="a file that `countersign proof` wrote")
    parser.add_argument("--checkpoint", action="append", default=[], help="checkpoints that were kept outside")
    parser.add_argument("--trust", action="append", default=[], help="public keys that checkpoints must be signed with")
    parser.add_argument("--json", action="store_true")
    try:
        return run(parser.parse_args())
    except (Cannot, OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, struct.error) as error:
        print(f"verify.py: {error!r}" if not isinstance(error, Cannot) else f"verify.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
