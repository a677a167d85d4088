"""Reads and writes Avro with Confluent's own serializers, against a schema registry and a broker.

usage: schema_registry.py REGISTRY BOOTSTRAP TOPIC

Writes `python-0` to `python-9` to TOPIC, reads ten records that somebody else wrote to TOPIC-back, and asks the registry
what its client can ask. Prints one line for each thing that it found, and `done` last.
"""

import sys

from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

ORDER = """{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"""
# What the registry must refuse: a field that the records before do not have.
REFUSED = """{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "more", "type": "long"}]}"""


def code_of(call):
    try:
        call()
    except SchemaRegistryError as error:
        return f"{error.http_status_code} {error.error_code}"
    return "nothing"


def main():
    registry_url, bootstrap, topic = sys.argv[1:]
    registry = SchemaRegistryClient({"url": registry_url})

    serialize = AvroSerializer(registry, ORDER)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(10):
        value = {"id": number, "note": f"python-{number}"}
        context = SerializationContext(topic, MessageField.VALUE)
        producer.produce(topic, key=b"k", value=serialize(value, context))
    if producer.flush(30):
        sys.exit("records were not delivered")

    subject = f"{topic}-value"
    latest = registry.get_latest_version(subject)
    print("latest", latest.version, latest.schema_id)
    found = registry.lookup_schema(subject, Schema(ORDER, "AVRO"))
    print("found", found.version, found.schema_id)
    print("subjects", *sorted(registry.get_subjects()))
    print("versions", *registry.get_versions(subject))
    print("compatible", registry.test_compatibility(subject, Schema(ORDER, "AVRO")))
    print("compatible", registry.test_compatibility(subject, Schema(REFUSED, "AVRO")))
    print("refused", code_of(lambda: registry.register_schema(subject, Schema(REFUSED, "AVRO"))))
    print("missing", code_of(lambda: registry.get_latest_version("nobody")))
    print("unknown", code_of(lambda: registry.get_schema(4711)))
    print("invalid", code_of(lambda: registry.register_schema("other", Schema("{", "AVRO"))))

    deserialize = AvroDeserializer(registry)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{topic}-back"])
    read = 0
    while read < 10:
        message = consumer.poll(30)
        if message is None or message.error():
            sys.exit(f"nothing was read: {message and message.error()}")
        context = SerializationContext(message.topic(), MessageField.VALUE)
        value = deserialize(message.value(), context)
        print("read", value["id"], value["note"])
        read += 1
    consumer.close()

    registry.register_schema("gone", Schema('"string"', "AVRO"))
    print("deleted", *registry.delete_subject("gone"))
    print("deleted", *registry.delete_subject("gone", permanent=True))
    print("done")


main()
