//! A question and its answer: `app.request` waits for the reply that another service sends.
//!
//! Run it with `cargo run -p klamm-examples --bin request_reply`. It brings a broker of its own, and who answers is a
//! plain client: any service that copies the correlation id will do, one of spring-kafka with `@SendTo`, for instance.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic};
use klamm::prelude::*;
use klamm::template::request::ReplyTo;

/// Answers texts with their lengths, and nothing with an error.
async fn answer(client: Client) -> klamm::Result<()> {
    let producer = client.producer().build()?;
    let mut consumer = client.consumer().assign([("texts", 0)]).from_beginning().start().await?;
    while let Some(request) = consumer.next().await.transpose()? {
        let Some(reply_to) = ReplyTo::of(&request.headers) else { continue };
        let length = request.value.map_or(0, |text| text.len() as i64);
        producer
            .send(match length {
                0 => reply_to.failure("Empty", "there is nothing to measure"),
                length => reply_to.reply(length.to_be_bytes().to_vec()),
            })
            .await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let idle = Listener::on("nothing").group("idle").handle(async || {});
    let topics = ["texts", "texts-replies"].map(|name| NewTopic::new(name).partitions(1));
    let app =
        topics.into_iter().fold(App::new(broker.bootstrap()), App::topic).listener(idle).start().await?;

    let ask = async {
        let length: i64 = app.request("texts", "klamm".to_owned()).timeout(Duration::from_secs(10)).await?;
        println!("klamm has {length} letters");
        let nothing = app.request::<_, i64>("texts", String::new()).await;
        println!("{}", nothing.map_or_else(|error| error.to_string(), |length| length.to_string()));
        Ok::<_, Error>(())
    };
    tokio::select! {
        asked = ask => asked?,
        answered = answer(app.client().clone()) => answered?,
    }
    app.shutdown(Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}
