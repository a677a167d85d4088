//! Listeners that start later, in groups, and again after they ended.

use std::time::Duration;

use klamm::prelude::*;

const STARTS: bool = cfg!(unix);

#[kafka_listener(topics = "t", group = "g", auto_start = false, container_group = "tables")]
async fn later() {}

#[kafka_listener(topics = "t", group = "g", auto_start = STARTS, container_group = format!("{}-{}", "a", 1))]
async fn perhaps() {}

#[kafka_listener(topics = "t", group = "g", restart = Backoff::exponential(Duration::from_secs(1)).forever())]
async fn again() {}
