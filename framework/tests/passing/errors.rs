//! What a listener may fail with.

use klamm::prelude::*;

#[derive(Debug)]
struct Own;

impl std::fmt::Display for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("own")
    }
}

impl std::error::Error for Own {}

#[kafka_listener(topics = "t", group = "g")]
async fn own() -> Result<(), Own> {
    Err(Own)
}

#[kafka_listener(topics = "t", group = "g")]
async fn of_klamm() -> klamm::Result<()> {
    Err(Own)?
}

#[kafka_listener(topics = "t", group = "g")]
async fn text() -> Result<(), String> {
    Err("text".to_owned())
}

#[kafka_listener(topics = "t", group = "g")]
async fn borrowed() -> Result<(), &'static str> {
    Err("text")
}

#[kafka_listener(topics = "t", group = "g")]
async fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Err(Own.into())
}
