use klamm::prelude::*;

#[derive(Serialize, Deserialize, Record)]
struct Unsaid;

#[derive(Serialize, Deserialize, Record)]
#[record(xml)]
struct Unknown;

#[derive(Serialize, Deserialize, Record)]
#[record(json, bincode)]
struct Both;

fn main() {}
