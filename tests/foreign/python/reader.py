"""Reads a topic on a client for Python, as ../README.md has it.
usage: reader.py librdkafka|aiokafka|kafka-python BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES"""

import asyncio
import sys

client, bootstrap, topic, count, fetch_bytes = sys.argv[1:6]
partitions, fetch_bytes = range(int(count)), int(fetch_bytes)


def say(*words):
    print(*words, flush=True)


def librdkafka():
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "no group",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": fetch_bytes,
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
        }
    )
    consumer.assign([TopicPartition(topic, index, OFFSET_BEGINNING) for index in partitions])
    while True:
        message = consumer.poll(0.2)
        if message is not None and message.error():
            say("told", message.error().name())
        elif message is not None:
            say("record", message.partition(), message.offset())


async def aiokafka():
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=fetch_bytes,
        fetch_max_wait_ms=100,
        retry_backoff_ms=50,
    )
    consumer.assign([TopicPartition(topic, index) for index in partitions])
    await consumer.start()
    async for record in consumer:
        say("record", record.partition, record.offset)


def kafka_python():
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=fetch_bytes,
        fetch_max_wait_ms=100,
        retry_backoff_ms=50,
        reconnect_backoff_max_ms=200,
    )
    consumer.assign([TopicPartition(topic, index) for index in partitions])
    while True:
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                say("record", record.partition, record.offset)


if client == "librdkafka":
    librdkafka()
elif client == "aiokafka":
    asyncio.run(aiokafka())
else:
    kafka_python()
