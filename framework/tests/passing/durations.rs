//! Durations as text in every unit, and as expressions.

use std::time::Duration;

use klamm::prelude::*;

const LONG: Duration = Duration::from_secs(90);

#[kafka_listener(topics = "t", group = "g", revoke_deadline = "1500ms", slow_after = "2m", idle_after = "1h")]
async fn texts() {}

#[kafka_listener(topics = "t", group = "g", revoke_deadline = LONG, slow_after = LONG * 2, idle_after = LONG / 2)]
async fn expressions() {}
