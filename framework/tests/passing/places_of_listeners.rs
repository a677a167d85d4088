//! Listeners in modules, in functions, with the same names, with attributes and documentation of their own.

mod billing {
    use klamm::prelude::*;

    /// Handles.
    #[kafka_listener(topics = "orders", group = "billing", id = "billing")]
    #[cfg_attr(unix, allow(clippy::unused_async))]
    pub async fn handle(_order: Value<String>) {}
}

mod audit {
    use klamm::prelude::*;

    #[kafka_listener(topics = "orders", group = "audit", id = "audit")]
    pub(crate) async fn handle(_order: Value<String>) {}
}

#[allow(dead_code)]
async fn outer() {
    use klamm::prelude::*;

    struct Local;

    impl klamm::listener::FromRecord for Local {
        type Rejection = Rejection;

        fn from_record(_: &klamm::listener::Delivery<'_>) -> Result<Self, Rejection> {
            Ok(Self)
        }
    }

    #[kafka_listener(topics = "orders", group = "inner")]
    async fn inner(_local: Local) {}

    inner(Local).await;
}

#[test]
fn works() {
    let _ = klamm::App::new("b:1").listener(billing::handle).listener(audit::handle).discover();
}
