"""Copies records in transactions on librdkafka, as ../README.md has it.
usage: confluent_copier.py BOOTSTRAP GROUP TRANSACTIONAL_ID INPUT OUTPUT SEED"""

import random
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

bootstrap, group, transactional_id, source, output, seed = sys.argv[1:7]
random.seed(int(seed))


class Abort(Exception):
    """The transaction in hand shall not be committed."""


class Copier:
    """Lives until something fails that an abort does not mend."""

    def __init__(self):
        self.taken_away = False
        self.member = None
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": 3000,
                "reconnect.backoff.max.ms": 200,
            }
        )
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 2000,
                "heartbeat.interval.ms": 200,
                "fetch.wait.max.ms": 100,
                "reconnect.backoff.max.ms": 200,
            }
        )

    def live(self):
        retried(self.producer.init_transactions)
        self.consumer.subscribe([source], self.assigned, self.revoked, self.revoked)
        while True:
            message = self.poll(0.1)
            if message is not None:
                self.copy(message)

    def assigned(self, consumer, partitions):
        # As long as these are read, and not as it is later: a consumer whose session has ended is no member at once,
        # before it can tell, and a group takes offsets from who does not say that it is one.
        self.member = consumer.consumer_group_metadata()

    def revoked(self, _, partitions):
        # Records of these may be in the transaction: somebody else will copy them.
        self.taken_away = True

    def poll(self, seconds):
        message = self.consumer.poll(seconds)
        if message is not None and message.error():
            say("consumer", message.error())
            return None
        return message

    def copy(self, message):
        """One transaction that begins with this record."""
        self.taken_away = False
        self.producer.begin_transaction()
        offsets, copied, wanted = {}, 0, random.randint(1, 30)
        try:
            while message is not None:
                self.producer.produce(output, message.value(), message.key())
                offsets[message.partition()] = message.offset() + 1
                copied += 1
                message = self.poll(0.005) if copied < wanted else None
            if self.taken_away:
                raise Abort("a rebalance")
            offsets = [TopicPartition(source, partition, offset) for partition, offset in offsets.items()]
            retried(lambda: self.producer.send_offsets_to_transaction(offsets, self.member))
            if random.randrange(10) == 0:
                raise Abort("by chance")
            retried(self.producer.commit_transaction)
            say("commit", copied)
        except (Abort, KafkaException) as failed:
            if isinstance(failed, KafkaException) and not failed.args[0].txn_requires_abort():
                raise
            retried(self.producer.abort_transaction)
            say("abort", failed)
            self.rewind()

    def rewind(self):
        for at in self.consumer.committed(self.consumer.assignment(), 10):
            at.offset = at.offset if at.offset >= 0 else OFFSET_BEGINNING
            self.consumer.seek(at)


def retried(call):
    """As often as librdkafka says that it may be."""
    while True:
        try:
            return call()
        except KafkaException as failed:
            if not failed.args[0].retriable():
                raise


def say(*words):
    print(*words, flush=True)


while True:
    copier = Copier()
    try:
        copier.live()
    except KafkaException as failed:
        say("anew", failed)
    copier.producer.purge()
    copier.consumer.close()
