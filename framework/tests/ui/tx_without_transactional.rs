use klamm::prelude::*;

#[kafka_listener(topics = "in", group = "g")]
async fn forward(Value(text): Value<String>, tx: Tx) -> Result<(), Error> {
    tx.send("out", "k", text).await?;
    Ok(())
}

fn main() {}
