//! An interceptor as a value and as a call.

use klamm::listener::{Before, BoxError, Delivery, ListenInterceptor};
use klamm::prelude::*;

#[derive(Debug)]
struct OfTenant(&'static str);

impl ListenInterceptor for OfTenant {
    fn before(&self, delivery: &Delivery<'_>) -> Result<Before, BoxError> {
        Ok(if delivery.source_topic().starts_with(self.0) { Before::Handle } else { Before::Discard })
    }
}

#[kafka_listener(topics = "t", group = "g", intercept = OfTenant("a"))]
async fn handle() {}

#[test]
fn works() {
    let _ = App::new("b:1").intercept(OfTenant("b")).listener(handle);
}
