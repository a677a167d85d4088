"""The scenario of ../README.md on confluent-kafka, that is librdkafka. usage: confluent.py BOOTSTRAP PREFIX"""

import subprocess
import sys

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions as GroupPartitions
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, AdminClient
from confluent_kafka.admin import ConfigResource, NewPartitions, NewTopic, ResourcePatternType, ResourceType

from steps import CODECS, KEYLESS, Seen, begin, check, pairs, step, values

NEEDS = {
    "consumer-protocol": "ConsumerGroupHeartbeat",
}
LACKS = {"delete-group-offsets": "no such call"}
# What came later than the oldest version here.
SINCE = {
    "record-errors": (2, 4),
    "describe-cluster": (2, 3),
    "alter-configs": (2, 3),
    "delete-records": (2, 6),
    "consumer-protocol": (2, 4),
}

bootstrap, prefix = sys.argv[1:3]
topic, group = f"{prefix}-none", f"{prefix}-group"


def settings(**more):
    return {"bootstrap.servers": bootstrap, **{key.replace("_", "."): value for key, value in more.items()}}


def members_of(name, **more):
    return Consumer(
        settings(group_id=name, auto_offset_reset="earliest", enable_auto_commit=False)
        | {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "topic.metadata.refresh.interval.ms": 1000}
        | {key.replace("_", "."): value for key, value in more.items()}
    )


def only(futures, seconds=10):
    """The result of a call about one thing."""
    (future,) = futures.values()
    return future.result(seconds)


def produce(to, records, **more):
    errors = []
    producer = Producer(settings(linger_ms=50, **more))
    for key, value in records:
        producer.produce(to, value, key, on_delivery=lambda error, _: errors.append(error))
    check(producer.flush(15) == 0, "not all records were delivered")
    failed = [error for error in errors if error]
    check(not failed, f"{len(failed)} of {len(errors)}: {failed[:1]}")


def read(consumer, count, seconds=30):
    seen = Seen(seconds)
    while seen.waits_for(count):
        for message in consumer.consume(100, 0.2):
            if message.error():
                raise KafkaException(message.error())
            seen.add(message.value())
    return seen


def connect():
    brokers = admin.list_topics(f"{prefix}-from-klamm", timeout=10).brokers
    check(len(brokers) == 1, f"brokers: {brokers}")


def list_all():
    topics = admin.list_topics(timeout=10).topics
    check(f"{prefix}-from-klamm" in topics and topic in topics, f"topics: {sorted(topics)}")


def list_one():
    topics = admin.list_topics(topic, timeout=10).topics
    check(list(topics) == [topic] and len(topics[topic].partitions) == 4, f"topics: {topics}")


def list_offsets():
    reader = members_of("unused")
    ends = [reader.get_watermark_offsets(TopicPartition(topic, number), 10)[1] for number in range(4)]
    reader.close()
    check(sum(ends) == 100, f"ends: {ends}")


def read_klamm():
    reader = members_of("unused")
    reader.assign([TopicPartition(f"{prefix}-from-klamm", number, 0) for number in range(4)])
    read(reader, 500).expect(values(0, 500))
    reader.close()


def subscribe_pattern():
    member = members_of(f"{prefix}-pattern")
    member.subscribe([f"^{prefix}-from-.*"])
    read(member, 500).expect(values(0, 500))
    member.close()


def group_of_two():
    members = [members_of(group), members_of(group)]
    for member in members:
        member.subscribe([topic])
    seen, settled = Seen(), False
    while seen.waits_for(100) or not settled:
        check(seen.waits_for(10**6), f"{len(seen.values)} records, partitions by member not two and two")
        for member in members:
            # One by one, and committed at once: what moves to the other member must not be read there again.
            while message := member.poll(0.05):
                if message.error():
                    raise KafkaException(message.error())
                seen.add(message.value())
                member.commit(message=message, asynchronous=False)
        settled = all(len(member.assignment()) == 2 for member in members)
    seen.expect(values(0, 100))
    return members


def commit(members):
    committed = members[0].committed([TopicPartition(topic, number) for number in range(4)], 10)
    for member in members:
        member.close()
    check(sum(one.offset for one in committed) == 100, f"committed: {committed}")


def resume():
    produce(topic, pairs(100, 10))
    member = members_of(group)
    member.subscribe([topic])
    read(member, 10).expect(values(100, 10))
    member.commit(asynchronous=False)
    return member


def list_groups():
    listed = admin.list_consumer_groups().result(10)
    check(group in {one.group_id for one in listed.valid}, f"groups: {listed.valid} {listed.errors}")


def describe_group():
    described = only(admin.describe_consumer_groups([group]))
    owned = [len(member.assignment.topic_partitions) for member in described.members]
    check(described.state.name == "STABLE" and owned == [4], f"{described.state} {owned}")


def group_offsets():
    partitions = only(admin.list_consumer_group_offsets([GroupPartitions(group)])).topic_partitions
    check(sum(one.offset for one in partitions) == 110, f"offsets: {partitions}")


def delete_topic():
    only(admin.delete_topics([f"{prefix}-acks-all"]))
    check(f"{prefix}-acks-all" not in admin.list_topics(timeout=10).topics, "still listed")


def record_errors():
    to = f"{prefix}-compacted"
    only(admin.create_topics([NewTopic(to, 1, 1, config={"cleanup.policy": "compact"})]))
    told = {}
    producer = Producer(settings(linger_ms=500))
    for number in range(10):
        key = None if number in KEYLESS else b"key"
        producer.produce(to, str(number), key, on_delivery=lambda error, sent: told.update({int(sent.value()): error}))
    producer.flush(15)
    codes = {number: error.code() if error else None for number, error in told.items()}
    invalid, other = KafkaError.INVALID_RECORD, KafkaError._INVALID_DIFFERENT_RECORD
    wanted = {number: invalid if number in KEYLESS else other for number in range(10)}
    check(codes == wanted, f"told: {codes}")


def transactions(name, numbers, work):
    """A transaction for each number; that of the largest is aborted."""
    producer = Producer(settings(transactional_id=name))
    producer.init_transactions(15)
    for number in numbers:
        producer.begin_transaction()
        work(producer, number)
        if number == max(numbers):
            producer.abort_transaction(15)
        else:
            producer.commit_transaction(15)


def transaction():
    to = f"{prefix}-tx"

    def send(producer, first):
        for key, value in pairs(first, 3):
            producer.produce(to, value, key)
        check(producer.flush(15) == 0, "not all records were delivered")

    transactions(to, [0, 6, 3], send)
    reader = members_of("unused", isolation_level="read_committed")
    reader.assign([TopicPartition(to, number, 0) for number in range(4)])
    read(reader, 6).expect(values(0, 6))
    reader.close()


def transaction_offsets():
    name, seen = f"{prefix}-tx-offsets", Seen()
    member = members_of(name)

    def commit(producer, offset):
        offsets = [TopicPartition(topic, 0, offset)]
        producer.send_offsets_to_transaction(offsets, member.consumer_group_metadata(), 15)

    transactions(name, [2, 5, 3], commit)
    committed = None
    while committed != 3 and seen.waits_for(1):
        committed = member.committed([TopicPartition(topic, 0)], 10)[0].offset
        check(committed != 5, "an aborted offset is there")
    check(committed == 3, f"committed: {committed}")
    member.close()


def alter_configs():
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry  # Not in every version.

    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    only(admin.incremental_alter_configs([ConfigResource("TOPIC", topic, incremental_configs=[entry])]))


def delete_group():
    """In a process of its own: librdkafka aborts where the broker does not have DeleteGroups."""
    deletes = (
        "import sys; from confluent_kafka.admin import AdminClient\n"
        "admin = AdminClient({'bootstrap.servers': sys.argv[1]})\n"
        "admin.delete_consumer_groups([sys.argv[2]], request_timeout=3)[sys.argv[2]].result(10)"
    )
    child = subprocess.run([sys.executable, "-c", deletes, bootstrap, group], capture_output=True, text=True)
    said = child.stderr.strip().splitlines()[-1:]
    check(child.returncode >= 0, f"aborted: {said}")
    check(child.returncode == 0, said)


def describe_acls():
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    # What it is told, SECURITY_DISABLED, it keeps to itself.
    check(not admin.describe_acls(everything).result(10), "there are no rules")


def consumer_protocol():
    group_id = f"{prefix}-next"
    member = Consumer(settings(group_id=group_id, group_protocol="consumer", auto_offset_reset="earliest"))
    member.subscribe([f"{prefix}-from-klamm"])
    seen = read(member, 500, seconds=5)
    member.close()
    # Where the broker has no such groups it looks for another coordinator for ever, and tells nobody.
    check(seen.values, "nothing read: it goes on trying")
    seen.expect(values(0, 500))


admin = AdminClient(settings())
version = tuple(confluent_kafka.libversion()[1] >> shift & 0xFF for shift in (24, 16, 8))
later = {name: since for name, since in SINCE.items() if version < since}
LACKS |= {name: f"came with {major}.{minor}" for name, (major, minor) in later.items()}
begin("librdkafka", ".".join(map(str, version)), NEEDS, LACKS)

step("connect", connect)
step("create-topic", lambda: only(admin.create_topics([NewTopic(topic, 4, 1)])))
step("metadata-all", list_all)
step("metadata-one", list_one)
for codec in CODECS:
    step(f"produce-{codec}", lambda: produce(f"{prefix}-{codec}", pairs(0, 100), compression_type=codec))
for acks in ["0", "1", "all"]:
    step(f"acks-{acks}", lambda: produce(f"{prefix}-acks-{acks}", pairs(0, 10), acks=acks))
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
step("describe-cluster", lambda: admin.describe_cluster().result(10))
step("describe-configs", lambda: only(admin.describe_configs([ConfigResource("TOPIC", topic)])))
step("alter-configs", alter_configs)
step("create-partitions", lambda: only(admin.create_partitions([NewPartitions(topic, 8)])))
step("delete-records", lambda: only(admin.delete_records([TopicPartition(topic, 0, 1)])))
step("delete-group", delete_group)
step("describe-acls", describe_acls)
step("consumer-protocol", consumer_protocol)
