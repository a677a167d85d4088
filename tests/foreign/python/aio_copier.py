"""Copies records in transactions on aiokafka, as ../README.md has it.
usage: aio_copier.py BOOTSTRAP GROUP TRANSACTIONAL_ID INPUT OUTPUT SEED

aiokafka does not tell the group's coordinator which member commits (KIP-447), so each partition has a transactional id
of its own: who is given the partition takes it over and fences whoever had it, and reads on from what was committed."""

import asyncio
import random
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

bootstrap, group, transactional_id, source, output, seed = sys.argv[1:7]
random.seed(int(seed))
# It has no limit of its own for what a producer is asked to do.
STEP_SECONDS = 15


class Abort(Exception):
    """The transaction in hand shall not be committed."""


class Copier(ConsumerRebalanceListener):
    """Lives until its consumer fails."""

    def __init__(self):
        self.producers = {}  # Of the partitions that were taken over.
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            client_id=transactional_id,
            group_id=group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=2000,
            heartbeat_interval_ms=200,
            fetch_max_wait_ms=100,
            retry_backoff_ms=50,
        )
        self.consumer.subscribe([source], listener=self)
        self.taken_over = set()

    def on_partitions_revoked(self, revoked):
        self.taken_over.clear()

    def on_partitions_assigned(self, assigned):
        # It reads on from offsets that it has just asked for, and a transaction may have been open meanwhile.
        self.taken_over.clear()

    async def live(self):
        await self.consumer.start()
        while True:
            for partition in self.consumer.assignment() - self.taken_over:
                await self.take_over(partition)
            found = await self.consumer.getmany(timeout_ms=100, max_records=random.randint(1, 60))
            for partition, records in found.items():
                # What was read before somebody took the partition over is read again.
                if partition in self.taken_over:
                    await self.copy(partition, records)

    async def take_over(self, partition):
        await self.give_up(partition)
        self.taken_over.add(partition)
        try:
            producer = AIOKafkaProducer(
                bootstrap_servers=bootstrap,
                transactional_id=f"{group}-{partition.partition}",
                transaction_timeout_ms=3000,
                retry_backoff_ms=50,
            )
            self.producers[partition] = producer
            await asyncio.wait_for(producer.start(), STEP_SECONDS)
            committed = await asyncio.wait_for(self.consumer.committed(partition), STEP_SECONDS)
            if partition in self.consumer.assignment():
                self.consumer.seek(partition, committed or 0)
        except (KafkaError, TimeoutError) as failed:
            say("not taken over", repr(failed))
            self.taken_over.discard(partition)

    async def copy(self, partition, records):
        """One transaction with these records."""
        producer = self.producers[partition]
        try:
            async with producer.transaction():
                for record in records:
                    await producer.send(output, record.value, record.key)
                await producer.send_offsets_to_transaction({partition: records[-1].offset + 1}, group)
                if random.randrange(10) == 0:
                    raise Abort("by chance")
            say("commit", len(records))
        except Exception as failed:  # Some of what is wrong it says with an assertion.
            say("abort", repr(failed))
            self.taken_over.discard(partition)

    async def give_up(self, partition):
        producer = self.producers.pop(partition, None)
        if producer is not None:
            try:
                await asyncio.wait_for(producer.stop(), STEP_SECONDS)
            except (KafkaError, TimeoutError) as failed:
                say("not stopped", repr(failed))


def say(*words):
    print(*words, flush=True)


async def main():
    while True:
        copier = Copier()
        try:
            await copier.live()
        except Exception as failed:
            say("anew", repr(failed))
        for partition in list(copier.producers):
            await copier.give_up(partition)
        await copier.consumer.stop()
        await asyncio.sleep(0.05)


asyncio.run(main())
