use klamm::prelude::*;

#[derive(Serialize, Deserialize)]
struct Placed;

#[derive(Record)]
#[record(json, header = "type")]
struct NoEnum;

#[derive(Record)]
#[record(json, header = "type")]
enum WithFields {
    Placed { id: u64 },
}

#[derive(Record)]
#[record(json, header = "type")]
enum TwoOfAName {
    Placed(Placed),
    #[record(name = "Placed")]
    Other(Placed),
}

#[derive(Record)]
#[record(json, header = "type")]
enum UnknownWord {
    #[record(rename = "x")]
    Placed(Placed),
}

#[derive(Record)]
#[record(json, header = "type")]
enum Generic<T> {
    Placed(T),
}

#[derive(Record)]
#[record(json, header = "")]
enum NoHeader {
    Placed(Placed),
}

#[derive(Record)]
#[record(json, header = "type")]
enum Empty {}

fn main() {}
