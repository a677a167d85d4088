"""The scenario of tests/foreign/README.md on confluent-kafka (a current librdkafka)."""

import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, prefix = sys.argv[1:3]


def check(holds, what):
    if not holds:
        print("failed:", what)
        sys.exit(1)


def produce(topic, codec, first, count):
    failed = []
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": True})
    for i in range(first, first + count):
        producer.produce(topic, key=f"key-{i}", value=f"value-{i}", on_delivery=lambda error, _: error and failed.append(error))
    check(producer.flush(30) == 0, f"{topic}: not all records were delivered")
    check(not failed, f"{topic}: {failed[:1]}")


def consumer(group):
    return Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )


def read_from_klamm(topic):
    reader = consumer("unused")
    partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
    reader.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    seen, deadline = set(), time.monotonic() + 30
    while len(seen) < 500 and time.monotonic() < deadline:
        message = reader.poll(0.2)
        if message and not message.error():
            value = message.value().decode()
            check(value not in seen, f"twice: {value}")
            seen.add(value)
    for i in range(500):
        check(f"value-{i}" in seen, f"missing from klamm: value-{i}")
    reader.close()


def group_of_two(topic, group):
    members = [consumer(group), consumer(group)]
    for member in members:
        member.subscribe([topic])
    seen, both, deadline = set(), False, time.monotonic() + 60
    while (len(seen) < 100 or not both) and time.monotonic() < deadline:
        for member in members:
            message = member.poll(0.1)
            if message and not message.error():
                value = message.value().decode()
                check(value not in seen, f"twice in the group: {value}")
                seen.add(value)
                member.commit(message=message, asynchronous=False)
        both = all(len(member.assignment()) == 2 for member in members)
    check(len(seen) == 100, f"the group saw {len(seen)} of 100")
    check(both, "two members own two partitions each")
    for member in members:
        member.close()


def resume(topic, group):
    member = consumer(group)
    member.subscribe([topic])
    seen, deadline = set(), time.monotonic() + 60
    while len(seen) < 10 and time.monotonic() < deadline:
        message = member.poll(0.2)
        if message and not message.error():
            seen.add(message.value().decode())
    check(seen == {f"value-{i}" for i in range(100, 110)}, f"resumed with {sorted(seen)}")
    member.commit(asynchronous=False)
    member.close()


read_from_klamm(f"{prefix}-from-klamm")
admin = AdminClient({"bootstrap.servers": bootstrap})
admin.create_topics([NewTopic(f"{prefix}-none", 4, 1)])[f"{prefix}-none"].result(10)
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    produce(f"{prefix}-{codec}", codec, 0, 100)
group_of_two(f"{prefix}-none", f"{prefix}-group")
produce(f"{prefix}-none", "none", 100, 10)
resume(f"{prefix}-none", f"{prefix}-group")
print("ok")
