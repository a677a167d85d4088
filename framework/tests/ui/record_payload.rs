use klamm::prelude::*;

struct Placed;

#[derive(Record)]
#[record(header = "type")]
enum Untaught {
    Placed(Placed),
}

fn main() {}
