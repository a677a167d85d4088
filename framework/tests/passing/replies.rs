//! Answers: to whoever asks, to a topic, or an error instead.

use klamm::prelude::*;

#[derive(Serialize, Deserialize, Record)]
#[record(json)]
struct Quote {
    cents: i64,
}

#[kafka_listener(topics = "requests", group = "g")]
async fn to_whoever_asks(_request: Value<String>) -> Reply<Quote> {
    Quote { cents: 7 }.into()
}

#[kafka_listener(topics = "requests", group = "g", send_to = "quotes")]
async fn to_a_topic(_request: Value<String>) -> Reply<Json<Vec<Quote>>> {
    Reply::new(Json(Vec::new())).header("kind", "none")
}

#[kafka_listener(topics = "requests", group = "g")]
async fn perhaps(Value(text): Value<String>) -> Result<Reply<String>, String> {
    if text.is_empty() { Err("nothing is asked".to_owned()) } else { Ok(text.into()) }
}
