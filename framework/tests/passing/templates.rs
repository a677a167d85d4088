//! Templates as arguments, beside records and batches.

use klamm::prelude::*;
use klamm::template::SendError;

#[kafka_listener(topics = "t", group = "g")]
async fn one(Value(text): Value<String>, out: Template<String, String>) -> Result<(), SendError> {
    out.send("k", text).await?;
    Ok(())
}

#[kafka_listener(topics = "t", group = "g", batch)]
async fn several(
    batch: Batch<Value<i64>>,
    out: Template<(), Json<Vec<i64>>>,
    more: Template<String, String>,
) {
    let _ = (batch, out, more);
}

#[test]
fn works() {
    let app = App::new("b:1").template::<String, String>("out").template::<(), Json<Vec<i64>>>("sums");
    let _ = app.listener(one).listener(several);
}
