//! Partitions by name, with and without a group.

use klamm::listener::{Partitions, StartAt};
use klamm::prelude::*;

#[kafka_listener(partitions = [Partitions::all("prices").start_at(StartAt::Beginning)])]
async fn table(_price: Value<i64>) {}

#[kafka_listener(partitions = [Partitions::of("a", 0..4), Partitions::of("b", [1, 3])], group = "g")]
async fn some(_value: Value<String>) {}

#[kafka_listener(partitions = vec![Partitions::of("a", 7)])]
async fn one(_value: Value<String>) {}
