//! `Part`: what goes into a record without a template that names its type.

use std::future::{Future, ready};
use std::sync::Arc;

use bytes::Bytes;

use super::error::SendError;
use super::outgoing::{Written, written};
use crate::serde::{AppSerdes, DefaultSerde, HeaderList, SerdeError};

/// A key or value to send: anything that says how it is written, or text.
pub trait Part: Send {
    /// Its bytes, none for what is written as null, and the headers that go with them.
    #[doc(hidden)]
    fn write(
        self,
        part: &'static str,
        topic: Arc<str>,
        serdes: AppSerdes,
        wrong: fn(SerdeError) -> SendError,
    ) -> impl Future<Output = Result<Written, SendError>> + Send;
}

impl<T: DefaultSerde> Part for T {
    async fn write(
        self,
        part: &'static str,
        topic: Arc<str>,
        serdes: AppSerdes,
        wrong: fn(SerdeError) -> SendError,
    ) -> Result<Written, SendError> {
        written(part, &serdes.of::<T>(part == "key"), &topic, Some(self), wrong).await
    }
}

impl Part for &str {
    fn write(
        self,
        _: &'static str,
        _: Arc<str>,
        _: AppSerdes,
        _: fn(SerdeError) -> SendError,
    ) -> impl Future<Output = Result<Written, SendError>> + Send {
        ready(Ok((Some(Bytes::copy_from_slice(self.as_bytes())), HeaderList::new())))
    }
}
