"""The scenario of ../README.md on kafka-python. usage: kafka_python.py BOOTSTRAP PREFIX"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import kafka
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import InvalidRecordError, KafkaError, SecurityDisabledError

from steps import CODECS, KEYLESS, Seen, begin, check, pairs, step, values

NEEDS = {}
LACKS = {"consumer-protocol": "classic groups only"}

# A poll comes back as soon as there are records. It must not end while its consumer joins: 3.0.12 then drops the join
# and stays in the group without a heartbeat, so that the other member waits for it.
POLL_MS = 2000

bootstrap, prefix = sys.argv[1:3]
topic, group = f"{prefix}-none", f"{prefix}-group"
partitions = [TopicPartition(topic, number) for number in range(4)]


def member_of(name, **more):
    return KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        metadata_max_age_ms=1000,
        **more,
    )


def produce(to, records, **more):
    more.setdefault("enable_idempotence", False)
    with KafkaProducer(bootstrap_servers=bootstrap, linger_ms=50, **more) as producer:
        sent = [producer.send(to, value, key) for key, value in records]
        for one in sent:
            one.get(timeout=15)


def read(consumer, count):
    seen = Seen()
    while seen.waits_for(count):
        for records in consumer.poll(timeout_ms=POLL_MS).values():
            for record in records:
                seen.add(record.value)
    return seen


def list_all():
    topics = admin.list_topics()
    check(f"{prefix}-from-klamm" in topics and topic in topics, f"topics: {topics}")


def list_one():
    (described,) = admin.describe_topics([topic])
    check(len(described["partitions"]) == 4, f"described: {described}")


def list_offsets():
    with KafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        ends = consumer.end_offsets(partitions)
    check(sum(ends.values()) == 100, f"ends: {ends}")


def read_klamm():
    with member_of(None) as reader:
        written = [TopicPartition(f"{prefix}-from-klamm", number) for number in range(4)]
        reader.assign(written)
        reader.seek_to_beginning(*written)
        read(reader, 500).expect(values(0, 500))


def subscribe_pattern():
    with member_of(f"{prefix}-pattern") as member:
        member.subscribe(pattern=f"^{prefix}-from-.*")
        read(member, 500).expect(values(0, 500))


def group_of_two():
    members = [member_of(group), member_of(group)]
    seen, stop = Seen(), threading.Event()

    def consume(member):
        member.subscribe([topic])
        while not stop.is_set():
            for records in member.poll(timeout_ms=POLL_MS).values():
                for record in records:
                    seen.add(record.value)
            # Committed at once: what moves to the other member must not be read there again.
            member.commit()

    with ThreadPoolExecutor() as pool:
        ends = [pool.submit(consume, member) for member in members]
        while seen.waits_for(10**6) and not any(end.done() for end in ends):
            if not seen.waits_for(100) and all(len(member.assignment()) == 2 for member in members):
                break
            time.sleep(0.02)
        stop.set()
        for end in ends:
            end.result()
    owned = [len(member.assignment()) for member in members]
    check(owned == [2, 2], f"partitions by member: {owned}")
    seen.expect(values(0, 100))
    return members


def commit(members):
    committed = [members[0].committed(partition) or 0 for partition in partitions]
    for member in members:
        member.close()
    check(sum(committed) == 100, f"committed: {committed}")


def resume():
    produce(topic, pairs(100, 10))
    member = member_of(group)
    member.subscribe([topic])
    read(member, 10).expect(values(100, 10))
    member.commit()
    return member


def list_groups():
    listed = [one["group_id"] for one in admin.list_groups()]
    check(group in listed, f"groups: {listed}")


def describe_group():
    described = admin.describe_groups([group])[group]
    check(described["group_state"] == "Stable" and len(described["members"]) == 1, f"described: {described}")


def group_offsets():
    offsets = admin.list_group_offsets(group)[group]
    check(sum(one.offset for one in offsets.values()) == 110, f"offsets: {offsets}")


def delete_topic():
    admin.delete_topics([f"{prefix}-acks-all"])
    check(f"{prefix}-acks-all" not in admin.list_topics(), "still listed")


def record_errors():
    to = f"{prefix}-compacted"
    admin.create_topics({to: {"num_partitions": 1, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}}})
    told = {}
    with KafkaProducer(bootstrap_servers=bootstrap, linger_ms=500) as producer:
        sent = [producer.send(to, b"value", None if number in KEYLESS else b"key") for number in range(10)]
        for number, one in enumerate(sent):
            try:
                one.get(timeout=15)
            except KafkaError as error:
                told[number] = error
    invalid = {number for number, error in told.items() if isinstance(error, InvalidRecordError)}
    another = {number for number, error in told.items() if "part of a batch" in str(error)}
    check(invalid == KEYLESS and len(another) == 10 - len(KEYLESS), f"told: {told}")


def transactions(name, numbers, work):
    """A transaction for each number; that of the largest is aborted."""
    with KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name, max_block_ms=15000) as producer:
        producer.init_transactions()
        for number in numbers:
            producer.begin_transaction()
            work(producer, number)
            if number == max(numbers):
                producer.abort_transaction()
            else:
                producer.commit_transaction()


def transaction():
    to = f"{prefix}-tx"

    def send(producer, first):
        for one in [producer.send(to, value, key) for key, value in pairs(first, 3)]:
            one.get(timeout=15)

    transactions(to, [0, 6, 3], send)
    with member_of(None, isolation_level="read_committed") as reader:
        written = [TopicPartition(to, number) for number in range(4)]
        reader.assign(written)
        reader.seek_to_beginning(*written)
        read(reader, 6).expect(values(0, 6))


def transaction_offsets():
    name, seen = f"{prefix}-tx-offsets", Seen()

    def commit(producer, offset):
        producer.send_offsets_to_transaction({partitions[0]: OffsetAndMetadata(offset, "", -1)}, name)

    transactions(name, [2, 5, 3], commit)
    committed = None
    while committed != 3 and seen.waits_for(1):
        offsets = admin.list_group_offsets(name)[name]
        committed = offsets[partitions[0]].offset if partitions[0] in offsets else None
        check(committed != 5, "an aborted offset is there")
    check(committed == 3, f"committed: {committed}")


def describe_configs():
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    check(described, "nothing described")


def alter_configs():
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "1000"})
    admin.alter_configs([resource], raise_on_unknown=False)


def delete_group():
    deleted = admin.delete_groups([group])
    check(deleted == {group: "OK"}, f"told {deleted}")


def describe_acls():
    everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    try:
        admin.describe_acls(ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, everything))
    except SecurityDisabledError:
        return
    check(False, "there are no rules, and nobody said so")


begin("kafka-python", kafka.__version__, NEEDS, LACKS)
admin = step("connect", lambda: KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10000))
step("create-topic", lambda: admin.create_topics({topic: {"num_partitions": 4, "replication_factor": 1}}))
step("metadata-all", list_all)
step("metadata-one", list_one)
for codec in CODECS:
    compression = None if codec == "none" else codec
    step(f"produce-{codec}", lambda: produce(f"{prefix}-{codec}", pairs(0, 100), compression_type=compression))
for acks in ["0", "1", "all"]:
    setting = acks if acks == "all" else int(acks)
    step(f"acks-{acks}", lambda: produce(f"{prefix}-acks-{acks}", pairs(0, 10), acks=setting))
step("idempotence", lambda: produce(f"{prefix}-idempotence", pairs(0, 10), enable_idempotence=True))
step("record-errors", record_errors)
step("list-offsets", list_offsets)
step("read-klamm", read_klamm)
step("subscribe-pattern", subscribe_pattern)
members = step("group-of-two", group_of_two)
step("commit", lambda: commit(members))
member = step("resume", resume)
step("list-groups", list_groups)
step("describe-group", describe_group)
step("group-offsets", group_offsets)
if member:
    member.close()
step("delete-topic", delete_topic)
step("transaction", transaction)
step("transaction-offsets", transaction_offsets)
step("describe-cluster", admin.describe_cluster)
step("describe-configs", describe_configs)
step("alter-configs", alter_configs)
step("create-partitions", lambda: admin.create_partitions({topic: 8}))
step("delete-records", lambda: admin.delete_records({TopicPartition(topic, 0): 1}))
step("delete-group-offsets", lambda: admin.delete_group_offsets(group, partitions))
step("delete-group", delete_group)
step("describe-acls", describe_acls)
admin.close()
