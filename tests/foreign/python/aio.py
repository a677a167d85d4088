"""The scenario of ../README.md on aiokafka. usage: aio.py BOOTSTRAP PREFIX"""

import asyncio
import sys

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from steps import CODECS, Seen, async_step, begin, check, pairs, values

NEEDS = {
}
LACKS = {
    "record-errors": "a batch fails as a whole",
    "delete-group": "no such call",
    "delete-group-offsets": "no such call",
    "describe-acls": "no such call",
    "consumer-protocol": "classic groups only",
}

bootstrap, prefix = sys.argv[1:3]
topic, group = f"{prefix}-none", f"{prefix}-group"
partitions = [TopicPartition(topic, number) for number in range(4)]


def member_of(name, *topics, **more):
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        group_id=name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        metadata_max_age_ms=1000,
        **more,
    )


async def produce(to, records, **more):
    more.setdefault("request_timeout_ms", 15000)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=50, **more) as producer:
        sent = [await producer.send(to, value, key) for key, value in records]
        await asyncio.gather(*sent)


async def read(consumer, count):
    seen = Seen()
    while seen.waits_for(count):
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                seen.add(record.value)
    return seen


def succeeded(response):
    """An answer whose topics carry no error; aiokafka hands it over as it came."""
    for _, code, *_ in response.topic_errors if hasattr(response, "topic_errors") else response.topic_error_codes:
        if code:
            raise for_code(code)()


async def list_all():
    topics = await admin.list_topics()
    check(f"{prefix}-from-klamm" in topics and topic in topics, f"topics: {topics}")


async def list_one():
    (described,) = await admin.describe_topics([topic])
    check(len(described["partitions"]) == 4, f"described: {described}")


async def list_offsets():
    async with member_of(None) as consumer:
        ends = await consumer.end_offsets(partitions)
    check(sum(ends.values()) == 100, f"ends: {ends}")


async def read_klamm():
    async with member_of(None) as reader:
        reader.assign([TopicPartition(f"{prefix}-from-klamm", number) for number in range(4)])
        (await read(reader, 500)).expect(values(0, 500))


async def subscribe_pattern():
    member = member_of(f"{prefix}-pattern")
    member.subscribe(pattern=f"^{prefix}-from-.*")
    async with member:
        (await read(member, 500)).expect(values(0, 500))


async def group_of_two():
    members = [member_of(group, topic), member_of(group, topic)]
    await asyncio.gather(*(member.start() for member in members))
    seen, settled = Seen(), False
    while seen.waits_for(100) or not settled:
        check(seen.waits_for(10**6), f"{len(seen.values)} records, partitions by member not two and two")
        for member in members:
            for records in (await member.getmany(timeout_ms=100)).values():
                for record in records:
                    seen.add(record.value)
                # Committed at once: what moves to the other member must not be read there again.
                await member.commit()
        settled = all(len(member.assignment()) == 2 for member in members)
    seen.expect(values(0, 100))
    return members


async def commit(members):
    owned = [(member, partition) for member in members for partition in member.assignment()]
    committed = [await member.committed(partition) or 0 for member, partition in owned]
    for member in members:
        await member.stop()
    check(sum(committed) == 100, f"committed: {committed}")


async def resume():
    await produce(topic, pairs(100, 10))
    member = member_of(group, topic)
    await member.start()
    (await read(member, 10)).expect(values(100, 10))
    await member.commit()
    return member


async def list_groups():
    listed = await admin.list_consumer_groups()
    check(group in {one[0] for one in listed}, f"groups: {listed}")


async def describe_group():
    (response,) = await admin.describe_consumer_groups([group])
    (described,) = response.to_object()["groups"]
    check(described["state"] == "Stable" and len(described["members"]) == 1, f"described: {described}")


async def group_offsets():
    offsets = await admin.list_consumer_group_offsets(group)
    check(sum(one.offset for one in offsets.values()) == 110, f"offsets: {offsets}")


async def delete_topic():
    succeeded(await admin.delete_topics([f"{prefix}-acks-all"]))
    check(f"{prefix}-acks-all" not in await admin.list_topics(), "still listed")


async def transactions(name, numbers, work):
    """A transaction for each number; that of the largest is aborted."""

    async def whole():
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
        try:
            await producer.start()
            for number in numbers:
                await producer.begin_transaction()
                await work(producer, number)
                if number == max(numbers):
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()
        finally:
            await producer.stop()

    # It has no limit of its own for the first step of a transactional producer.
    await asyncio.wait_for(whole(), 15)


async def transaction():
    to = f"{prefix}-tx"

    async def send(producer, first):
        for key, value in pairs(first, 3):
            await producer.send_and_wait(to, value, key)

    await transactions(to, [0, 6, 3], send)
    async with member_of(None, isolation_level="read_committed") as reader:
        reader.assign([TopicPartition(to, number) for number in range(4)])
        (await read(reader, 6)).expect(values(0, 6))


async def transaction_offsets():
    name, seen = f"{prefix}-tx-offsets", Seen()

    async def commit(producer, offset):
        await producer.send_offsets_to_transaction({partitions[0]: offset}, name)

    await transactions(name, [2, 5, 3], commit)
    committed = None
    while committed != 3 and seen.waits_for(1):
        offsets = await admin.list_consumer_group_offsets(name)
        committed = offsets[partitions[0]].offset if partitions[0] in offsets else None
        check(committed != 5, "an aborted offset is there")
    check(committed == 3, f"committed: {committed}")


def configs(**settings):
    return [ConfigResource(ConfigResourceType.TOPIC, topic, settings or None)]


async def main():
    global admin
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10000)
    await async_step("connect", admin.start)
    await async_step("create-topic", lambda: created([NewTopic(topic, 4, 1)]))
    await async_step("metadata-all", list_all)
    await async_step("metadata-one", list_one)
    for codec in CODECS:
        compression = None if codec == "none" else codec
        await async_step(
            f"produce-{codec}", lambda: produce(f"{prefix}-{codec}", pairs(0, 100), compression_type=compression)
        )
    for acks in ["0", "1", "all"]:
        setting = acks if acks == "all" else int(acks)
        await async_step(f"acks-{acks}", lambda: produce(f"{prefix}-acks-{acks}", pairs(0, 10), acks=setting))
    await async_step(
        "idempotence", lambda: produce(f"{prefix}-idempotence", pairs(0, 10), enable_idempotence=True)
    )
    await async_step("list-offsets", list_offsets)
    await async_step("read-klamm", read_klamm)
    await async_step("subscribe-pattern", subscribe_pattern)
    members = await async_step("group-of-two", group_of_two)
    await async_step("commit", commit, members)
    member = await async_step("resume", resume)
    await async_step("list-groups", list_groups)
    await async_step("describe-group", describe_group)
    await async_step("group-offsets", group_offsets)
    if member:
        await member.stop()
    await async_step("delete-topic", delete_topic)
    await async_step("transaction", transaction)
    await async_step("transaction-offsets", transaction_offsets)
    await async_step("describe-cluster", admin.describe_cluster)
    await async_step("describe-configs", lambda: admin.describe_configs(configs()))
    await async_step("alter-configs", lambda: admin.alter_configs(configs(**{"retention.ms": "1000"})))
    await async_step("create-partitions", lambda: admin.create_partitions({topic: NewPartitions(8)}))
    records = {TopicPartition(topic, 0): RecordsToDelete(1)}
    await async_step("delete-records", lambda: admin.delete_records(records))
    await admin.close()


async def created(topics):
    succeeded(await admin.create_topics(topics))


begin("aiokafka", aiokafka.__version__, NEEDS, LACKS)
asyncio.run(main())
