//! An argument that the program makes by itself, alone, in an option, in a tuple and in a batch.

use klamm::listener::{Delivery, FromRecord, Needs};
use klamm::prelude::*;
use klamm::serde::Payload;

struct Tenant(String);

impl FromRecord for Tenant {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        delivery
            .source_topic()
            .split_once('.')
            .map(|(tenant, _)| Self(tenant.to_owned()))
            .ok_or(Rejection::NoKey)
    }

    fn needs(needs: &mut Needs) {
        needs.state::<u64>();
        needs.value(Payload::of::<String>(Some("text/plain")));
    }
}

#[kafka_listener(topics = "a.t", group = "g")]
async fn alone(Tenant(tenant): Tenant, _other: Option<Tenant>) {
    println!("{tenant}");
}

#[kafka_listener(topics = "a.t", group = "g", batch)]
async fn of_a_batch(_tenants: Batch<(Tenant, Value<String>)>) {}
