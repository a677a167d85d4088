use klamm::prelude::*;

#[derive(Serialize, Deserialize, Record)]
#[record(json, registry)]
struct NoSchema;

#[derive(Serialize, Deserialize, Record)]
#[record(json, schema = "{}")]
struct SchemaOfJson;

#[derive(Serialize, Deserialize, Record)]
#[record(avro, schema = "\"int\"", schema_file = "order.avsc")]
struct TwoSchemas;

#[derive(Serialize, Deserialize, Record)]
#[record(avro, message = "Order")]
struct MessageOfAvro;

#[derive(Serialize, Deserialize, Record)]
#[record(avro, registry, header = "type")]
enum RegistryAndHeader {}

#[derive(Serialize, Deserialize, Record)]
#[record(json, topic = "a", topic = "b")]
struct TwoTopics;

#[derive(Serialize, Deserialize, Record)]
#[record(json, key = id)]
struct NoSuchKey {
    number: u64,
}

#[derive(Serialize, Deserialize, Record)]
#[record(avro, schema = "\"int\"")]
struct GenericAvro<T>(T);

#[derive(Record)]
#[record(json)]
union Neither {
    a: u8,
    b: u8,
}

fn main() {}
