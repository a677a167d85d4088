//! A test kit: an in-process broker on an in-memory network and disk, records in and out, and assertions that wait.
//!
//! ```
//! use klamm::prelude::*;
//! use klamm::testing::TestKit;
//!
//! #[kafka_listener(topics = "names", group = "greeters")]
//! async fn greet(Value(name): Value<String>, State(greetings): State<Template<String, String>>) -> Result<(), Error> {
//!     greetings.send(name.clone(), format!("hello {name}")).await?;
//!     Ok(())
//! }
//!
//! #[klamm::test]
//! async fn greets_everybody(kit: TestKit) {
//!     let app = kit.app().state(kit.template::<String, String>("greetings")).listener(greet).start().await;
//!     kit.send("names", "k", "klamm").await;
//!     app.handled("greet", 1).await;
//!     assert_eq!(kit.topic("greetings").next_value::<String>().await, "hello klamm");
//!     assert_eq!(kit.committed("greeters", "names", 0).await, Some(1));
//!     kit.topic("names-dlt").stays_empty().await;
//! }
//! # fn main() {}
//! ```
//!
//! With `KLAMM_TEST=host:port` the same tests run against that cluster, on real time. Their topics and groups are then
//! those of the cluster: use a fresh one, or names of your own per test. Tests that need the paused clock
//! (`#[klamm::test(needs_paused_clock)]`) are skipped there with a word.
//!
//! Everything here panics when something is wrong: it is for tests.

#![allow(clippy::panic)] // A failed test is a panic.

mod app;
mod in_process;
mod kit;
mod probe;
#[cfg(feature = "schema-registry")]
mod registry;
mod run;

pub use app::{RunningTestApp, TestApp};
pub use kit::{TestKit, TestPart};
pub use probe::TopicProbe;
#[cfg(feature = "schema-registry")]
pub use registry::TestRegistry;
#[doc(hidden)]
pub use run::{__TestResult, __TestSettings, __run};
