//! A broker for tests that misbehaves on request: how does your service take an error, a slow answer, a lost one?
//!
//! A [`FakeBroker`] keeps topics, groups and transactions as a real broker does, as far as a client can see. In
//! front of that stands a script: the next requests of an API get an error, come late, lose their connection before
//! or after they are carried out, are never answered, or are answered with something that is not true.
//!
//! ```
//! use klamm_client::testing::{Answer, FakeBroker};
//! use klamm_client::{ApiKey, ErrorCode, ProduceError, Record};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = FakeBroker::start().await?;
//! broker.topic("orders", 3);
//! let client = broker.client().await?;
//! let producer = client.producer().build()?;
//!
//! // The leader moves twice, and the answer to the third attempt gets lost: the record is there once all the same.
//! broker.next(ApiKey::Produce, 2, Answer::Error(ErrorCode::NotLeaderOrFollower));
//! broker.next(ApiKey::Produce, 1, Answer::DisconnectAfter);
//! producer.send(Record::to("orders").partition(0).value("a")).await?;
//! assert_eq!(broker.values("orders", 0), ["a"]);
//! assert_eq!(broker.requests(ApiKey::Produce), 4);
//!
//! // One partition is forbidden; the others are not.
//! broker.always_for(("orders", 1), ApiKey::Produce, Answer::Error(ErrorCode::TopicAuthorizationFailed));
//! let error = producer.send(Record::to("orders").partition(1).value("b")).await.unwrap_err();
//! assert!(!error.is_retriable());
//! producer.send(Record::to("orders").partition(2).value("c")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! [`FakeBroker::start_in_memory`] needs no sockets. On tokio's paused clock (`#[tokio::test(start_paused = true)]`) a
//! request timeout of half a minute then takes no time at all, and the test is the same in every run.
//!
//! # What it is not
//!
//! It has one node, classic groups, and transactions of the flow before KIP-890, which do not time out. It offers
//! no fetch sessions, no groups of KIP-848, no share groups and, of administration, the creation of topics and the
//! description of groups; nothing is ever deleted. A login always succeeds, unless the script says otherwise. To
//! try out what your service does when all is well, take the real broker: `klamm`'s feature `testing`. A [`FaultyNet`]
//! has the same script between a client and brokers that are real.
//!
//! ```text
//! broker.rs         what a test calls
//! script.rs         what a test wants to happen (pure)
//! serve.rs          one connection
//! received.rs       requests as they came in (pure)
//! answers/          what is answered, by the API (pure)
//! state.rs          everything that the broker knows (pure)
//! log.rs            the log of one partition (pure)
//! group.rs          a classic group (pure)
//! transactions.rs   the coordinator of transactions (pure)
//! faults.rs         the script between a client and a real broker
//! through.rs        one connection of that
//! watched.rs        what came by there (pure)
//! ```

mod answers;
mod broker;
mod faults;
mod group;
mod log;
mod received;
mod script;
mod serve;
mod state;
mod through;
mod transactions;
mod watched;

pub use broker::FakeBroker;
pub use faults::FaultyNet;
pub use klamm_protocol::records::{OwnedRecord, RecordBatch};
pub use received::SeenRequest;
pub use script::{Answer, Exchange, Tamper, Target};
pub use watched::{SeenCommit, SeenFetch};
