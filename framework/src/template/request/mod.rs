//! Request and reply: a record that asks, and the record that answers it. What spring's `ReplyingKafkaTemplate` is,
//! on the same headers, so that either side may be spring's.
//!
//! ```no_run
//! # use klamm::prelude::*;
//! # use std::time::Duration;
//! # #[derive(Serialize, Deserialize)] struct QuoteRequest;
//! # #[derive(Serialize, Deserialize)] struct Quote;
//! # async fn f(app: klamm::AppHandle) -> klamm::Result<()> {
//! let quote: Json<Quote> = app.request("quote-requests", Json(QuoteRequest)).timeout(Duration::from_secs(2)).await?;
//! # Ok(()) }
//! ```
//!
//! Replies come to a topic of their own, `<topic>-replies` unless another is named, and there to one partition that
//! the request names. It is read without a group, from where it ends when the first request is made: so no reply is
//! missed, nobody else's offsets are touched, and nothing is left over. Instances may share a partition: each takes
//! its own replies.
//!
//! ```text
//! requester.rs     `Requester`: settings
//! ask.rs           `Request`: one request, from its making to its reply
//! desk.rs          the place where replies come in
//! correlations.rs  who waits for which reply       (pure)
//! reply_to.rs      the headers                     (pure)
//! ```

mod ask;
mod correlations;
mod desk;
mod error;
mod reply_to;
mod requester;

pub use ask::{Replies, Request};
pub use correlations::ReplyStats;
pub use error::ReplyError;
#[cfg(any(test, feature = "asyncapi"))]
pub(crate) use reply_to::CORRELATION_ID;
#[cfg(test)]
pub(crate) use reply_to::REPLY_PARTITION;
pub(crate) use reply_to::REPLY_TOPIC;
pub use reply_to::ReplyTo;
pub(crate) use requester::Requests;
pub use requester::{Requester, RequesterBuilder};
