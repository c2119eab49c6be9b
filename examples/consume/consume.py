#!/usr/bin/env python3
"""Reads Countersign's audit topic as a SIEM would: each record once, in the order of its chain, with an alarm where one is missing.

    consume.py --brokers HOST:PORT [--topic T] [--group G] [--until-end] [--property NAME=VALUE]...

Prints each new record as a line of JSON on standard output. On standard error: GAP where a record is missing, CHANGED where one
came again with other bytes, BROKEN where one does not follow the one before it. With --until-end it stops at the end the topic
had when it began, and exits 1 if there was any alarm. Needs the package `confluent-kafka`.

Delivery is at least once, so a stretch of records may come again: what was seen is dropped by (chain, seq). Offsets are committed
behind what was printed, so that a restart repeats rather than loses. What a consumer must remember per chain is one number and
one hash; this one keeps them in memory and, after a restart, takes the first record of a chain it sees for the beginning.
"""

import argparse
import hashlib
import re
import struct
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError

POSITION = re.compile(rb'\{"chain":"([0-9a-f]{32})","seq":"(0|[1-9][0-9]{0,19})","prevHash":"([0-9a-f]{64})"')
# Hashes kept of each chain's last records, to tell a repeat from a forgery.
KEPT = 10_000


def record_hash(chain: bytes, seq: int, previous: bytes, record: bytes) -> bytes:
    head = b"countersign/record/v1\0" + chain + struct.pack(">Q", seq) + previous + struct.pack(">Q", len(record))
    return hashlib.sha256(head + record).digest()


class Chains:
    """What was seen of each chain."""

    def __init__(self):
        self.next, self.head, self.recent, self.alarms = {}, {}, {}, 0

    def alarm(self, what: str, chain: bytes, seq: int, why: str):
        self.alarms += 1
        print(f"{what} chain {chain.hex()} record {seq}: {why}", file=sys.stderr, flush=True)

    def is_new(self, record: bytes) -> bool:
        position = POSITION.match(record)
        if not position:
            print("FOREIGN a message that is no record was passed over", file=sys.stderr, flush=True)
            return False
        chain, seq, previous = bytes.fromhex(position[1].decode()), int(position[2]), bytes.fromhex(position[3].decode())
        found = record_hash(chain, seq, previous, record)
        expected = self.next.get(chain, seq)
        recent = self.recent.setdefault(chain, {})
        if seq < expected:
            if recent.get(seq, found) != found:
                self.alarm("CHANGED", chain, seq, "it came again with other bytes")
            return False
        if seq > expected:
            self.alarm("GAP", chain, seq, f"records {expected} to {seq - 1} are missing")
        elif chain in self.head and previous != self.head[chain]:
            self.alarm("BROKEN", chain, seq, "it does not follow the record before it")
        self.next[chain], self.head[chain] = seq + 1, found
        recent[seq] = found
        recent.pop(seq - KEPT, None)
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", default="countersign.audit.v1")
    parser.add_argument("--group", default="countersign-example")
    parser.add_argument("--until-end", action="store_true")
    parser.add_argument("--property", action="append", default=[], metavar="NAME=VALUE", help="a librdkafka property")
    arguments = parser.parse_args()
    consumer = Consumer({
        "bootstrap.servers": arguments.brokers, "group.id": arguments.group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "enable.partition.eof": arguments.until_end, "isolation.level": "read_committed",
        **dict(pair.split("=", 1) for pair in arguments.property),
    })
    chains, ended, partitions = Chains(), set(), set()

    def assigned(consumer, given):
        partitions.update(p.partition for p in given)
        if arguments.until_end:
            for p in given:
                p.offset = OFFSET_BEGINNING
        consumer.assign(given)

    consumer.subscribe([arguments.topic], on_assign=assigned)
    try:
        while not (arguments.until_end and partitions and ended >= partitions):
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    print(f"kafka: {message.error()}", file=sys.stderr, flush=True)
                else:
                    ended.add(message.partition())
                continue
            if chains.is_new(message.value()):
                sys.stdout.buffer.write(message.value() + b"\n")
                sys.stdout.buffer.flush()
            consumer.commit(message, asynchronous=True)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()
    return 1 if arguments.until_end and chains.alarms else 0


if __name__ == "__main__":
    sys.exit(main())
