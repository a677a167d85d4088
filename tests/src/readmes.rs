//! The programs in the crates' README files and in the guides, as documentation tests of this crate: here they may use
//! every crate of the house, and the packages stay free of it.

#[doc = include_str!("../../broker/README.md")]
struct Broker;
#[doc = include_str!("../../client/README.md")]
struct Client;
#[doc = include_str!("../../framework/README.md")]
struct Framework;
#[doc = include_str!("../../macros/README.md")]
struct Macros;
#[doc = include_str!("../../docs/client.md")]
struct ClientGuide;
#[doc = include_str!("../../docs/coming-from-kafka-streams.md")]
struct ComingFromKafkaStreams;
#[doc = include_str!("../../docs/coming-from-spring.md")]
struct ComingFromSpring;
#[doc = include_str!("../../docs/dead-letters.md")]
struct DeadLetters;
#[doc = include_str!("../../docs/listeners.md")]
struct Listeners;
#[doc = include_str!("../../docs/observing.md")]
struct Observing;
#[doc = include_str!("../../docs/sending.md")]
struct Sending;
#[doc = include_str!("../../docs/streams.md")]
struct Streams;
#[doc = include_str!("../../protocol/README.md")]
struct Protocol;
#[doc = include_str!("../../protocol/derive/README.md")]
struct ProtocolDerive;
#[doc = include_str!("../../runtime/README.md")]
struct Runtime;
