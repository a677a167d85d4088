//! Which trace a record belongs to: W3C's `traceparent`, `tracestate` and `baggage`, from the headers of the record
//! that is handled into those of all that is sent meanwhile, whether or not anybody exports spans.
//!
//! A listener handles each record in a span (`process`, level info, target `klamm::delivery`). With the feature
//! `opentelemetry`, and a [`tracing_opentelemetry`](https://docs.rs/tracing-opentelemetry) layer in the subscriber,
//! that span is a child of the one that the record's headers name, and what the handler sends names it. Without, what
//! the handler sends names what the record did. Either way the context goes with templates' records, transactions' and
//! requests, with replies, copies for retry topics and dead letters.
//!
//! ```text
//! w3c.rs      the headers' texts       (pure)
//! context.rs  TraceContext
//! otel.rs     spans and their contexts
//! ```

mod context;
#[cfg(feature = "opentelemetry")]
mod otel;
mod w3c;

pub use context::TraceContext;
pub(crate) use context::{links, propagate};
