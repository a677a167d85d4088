use klamm::prelude::*;

#[kafka_listener(topics = "in", group = "g", transactional, dispatch = by_key, ack = record)]
async fn forward(Value(text): Value<String>, tx: Tx) -> Result<(), Error> {
    tx.send("out", "k", text).await?;
    Ok(())
}

fn main() {}
