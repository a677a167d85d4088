"""A member of a group on librdkafka, as ../README.md has it. usage: member.py BOOTSTRAP TOPIC GROUP PROTOCOL"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

bootstrap, topic, group, protocol = sys.argv[1:5]
COMMIT_EVERY = 100
done = {}  # By partition, where to go on behind what was processed and not committed.
leaving = threading.Event()


def say(*words):
    print(time.time_ns() // 1000, *words, flush=True)


def list_of(partitions):
    return ",".join(str(at.partition) for at in partitions)


def commit():
    offsets = [TopicPartition(topic, partition, offset) for partition, offset in done.items()]
    if not offsets:
        return
    for at in offsets:
        say("commit", at.partition, at.offset)
    try:
        for at in consumer.commit(offsets=offsets, asynchronous=False):
            if at.error is None:
                say("committed", at.partition, at.offset)
                done.pop(at.partition, None)
    except KafkaException as error:
        print(error, file=sys.stderr, flush=True)


def assigned(_, partitions):
    if partitions:
        say("assigned", list_of(partitions))


def revoked(_, partitions):
    commit()
    forget("revoked", partitions)


def lost(_, partitions):
    forget("lost", partitions)


def forget(what, partitions):
    for at in partitions:
        done.pop(at.partition, None)
    if partitions:
        say(what, list_of(partitions))


def wait_for_end():
    sys.stdin.buffer.read()
    leaving.set()


settings = {
    "bootstrap.servers": bootstrap,
    "group.id": group,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "fetch.wait.max.ms": 100,
}
if protocol == "consumer":
    settings["group.protocol"] = "consumer"
else:
    settings |= {
        "partition.assignment.strategy": protocol,
        "session.timeout.ms": 5000,
        "heartbeat.interval.ms": 500,
    }
consumer = Consumer(settings)
consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=lost)
threading.Thread(target=wait_for_end, daemon=True).start()
processed = 0
while not leaving.is_set():
    # One by one: the callbacks then never run between a record that is in hand and its line.
    message = consumer.poll(0.1)
    if message is not None and message.error():
        print(message.error(), file=sys.stderr, flush=True)
    elif message is not None:
        say("record", message.partition(), message.offset(), message.value().decode())
        done[message.partition()] = message.offset() + 1
        processed += 1
    if message is None or processed % COMMIT_EVERY == 0:
        commit()
consumer.close()
