//! `TestRegistry`: a schema registry in the test's process.
//!
//! ```text
//! routes.rs   which request means what: the REST API                 (pure)
//! store.rs    subjects, versions, ids, compatibility, deletion       (pure)
//! fault.rs    what a registry says no with
//! server.rs   HTTP around them
//! ```

mod fault;
mod routes;
mod server;
mod store;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use klamm_runtime::{Net, Tasks, TcpNet};

use crate::serde::registry::{SchemaRegistry, SchemaRegistryBuilder};
use store::Store;

/// A schema registry in the test's process, with the REST API of Confluent's: subjects, versions, ids, compatibility
/// (checked for Avro), modes, soft and hard deletion. Nothing of it is kept when it is dropped.
///
/// ```
/// # #[cfg(all(feature = "avro", feature = "macros"))] mod example {
/// use klamm::prelude::*;
/// use klamm::testing::TestKit;
///
/// const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#;
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
/// #[record(avro, registry, schema = ORDER)]
/// struct Order {
///     id: i64,
/// }
///
/// #[kafka_listener(topics = "orders", group = "billing")]
/// async fn bill(order: Order) {
///     assert_eq!(order.id, 7);
/// }
///
/// #[klamm::test]
/// async fn reads_what_is_registered(kit: TestKit) {
///     let registry = kit.registry().await.client().build().unwrap();
///     let app = kit.app().state(registry).listener(bill).start().await;
///     app.template::<String, Order>("orders").send("k", Order { id: 7 }).await.unwrap();
///     app.handled("bill", 1).await;
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct TestRegistry {
    shared: Arc<Shared>,
    net: Arc<dyn Net>,
    address: Arc<str>,
    /// Ends when the last handle goes.
    _tasks: Tasks,
}

/// What the handle and the server see.
#[derive(Default)]
struct Shared {
    store: Mutex<Store>,
    script: Mutex<Script>,
}

/// How it misbehaves, and what it was asked.
#[derive(Default)]
struct Script {
    failures: Vec<u16>,
    login: Option<String>,
    requests: Vec<String>,
}

impl TestRegistry {
    /// A registry on TCP, on a free port of this machine: for programs in other languages.
    pub async fn on_tcp() -> Self {
        Self::start(Arc::new(TcpNet), "127.0.0.1:0").await
    }

    /// A registry at an address of a network.
    pub async fn start(net: Arc<dyn Net>, address: &str) -> Self {
        let listener = net.bind(address).await;
        let listener =
            listener.unwrap_or_else(|error| panic!("the test registry cannot listen on {address}: {error}"));
        let (shared, tasks) = (Arc::<Shared>::default(), Tasks::new());
        let address = listener.local_address().into();
        tasks.spawn("test registry", server::serve(listener, Arc::clone(&shared)));
        Self { shared, net, address, _tasks: tasks }
    }

    /// Where it is: `http://127.0.0.1:...`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The settings of a client of it.
    pub fn client(&self) -> SchemaRegistryBuilder {
        SchemaRegistry::builder(self.url()).net(Arc::clone(&self.net))
    }

    /// Answers the next requests with this HTTP status, `times` times.
    pub fn fail_next(&self, status: u16, times: usize) {
        self.script().failures.extend(std::iter::repeat_n(status, times));
    }

    /// Answers only those who log in with this name and password.
    pub fn require_login(&self, user: &str, password: &str) {
        let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        self.script().login = Some(login);
    }

    /// Everything that it was asked, as `GET /schemas/ids/1`, in order.
    pub fn requests(&self) -> Vec<String> {
        self.script().requests.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TestRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TestRegistry").field(&self.url()).finish()
    }
}
