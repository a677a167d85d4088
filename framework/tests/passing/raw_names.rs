//! Functions, arguments and fields that are called like keywords.

use klamm::prelude::*;

#[derive(Serialize, Deserialize, Record)]
#[record(json, key = r#type)]
struct r#Match {
    r#type: String,
}

#[kafka_listener(topics = "t", group = "g")]
async fn r#loop(r#match: r#Match, r#in: Key<String>) {
    println!("{} {}", r#match.r#type, r#in.0);
}

#[test]
fn works() {
    let _ = App::new("b:1").listener(r#loop);
}
