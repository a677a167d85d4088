//! States: plain, behind an `Arc`, generic types, trait objects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use klamm::prelude::*;

trait Store: Send + Sync {
    fn put(&self, _text: &str) {}
}

#[derive(Clone)]
struct Pool<T>(T);

#[kafka_listener(topics = "t", group = "g")]
async fn handle(
    Value(text): Value<String>,
    State(counts): State<Arc<Mutex<HashMap<String, u64>>>>,
    State(Pool(_inner)): State<Pool<String>>,
    State(store): State<Arc<dyn Store>>,
) {
    *counts.lock().unwrap().entry(text.clone()).or_default() += 1;
    store.put(&text);
}
