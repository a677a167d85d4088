use klamm::prelude::*;

#[derive(Record)]
#[record(json)]
struct Order;

fn main() {}
