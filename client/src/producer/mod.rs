//! Sending: records are gathered into a batch per partition, and one background task delivers the batches.
//!
//! ```text
//! record.rs        what is sent, and where it went
//! builder.rs       settings
//! handle.rs        Producer: partition choice, back-pressure, enqueue
//! delivery.rs      the future of one record's fate
//! ```

mod builder;
mod delivery;
mod handle;
mod record;

pub use builder::{Acks, ProducerBuilder};
pub use delivery::Delivery;
pub use handle::Producer;
pub use record::{Record, RecordMetadata};
