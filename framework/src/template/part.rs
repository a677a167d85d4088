//! `Part`: what goes into a record without a template that names its type.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};

use super::error::SendError;
use super::outgoing::written;
use crate::serde::{DefaultSerde, HeaderList, SerdeError};

/// What becomes the bytes of a key or value, and headers that go with them; no bytes for what is written as null.
pub(super) type Writing = BoxFuture<'static, Result<(Option<Bytes>, HeaderList), SendError>>;

/// A key or value to send: anything that says how it is written, or text.
pub trait Part {
    /// Its bytes.
    #[doc(hidden)]
    fn write(self, part: &'static str, topic: &Arc<str>, wrong: fn(SerdeError) -> SendError) -> Writing;
}

impl<T: DefaultSerde> Part for T {
    fn write(self, part: &'static str, topic: &Arc<str>, wrong: fn(SerdeError) -> SendError) -> Writing {
        let topic = Arc::clone(topic);
        async move {
            let mut headers = HeaderList::new();
            let serde = T::Serde::default();
            let bytes = written(part, &serde, &topic, &mut headers, Some(self), wrong).await?;
            Ok((bytes, headers))
        }
        .boxed()
    }
}

impl Part for &str {
    fn write(self, _: &'static str, _: &Arc<str>, _: fn(SerdeError) -> SendError) -> Writing {
        let bytes = Bytes::copy_from_slice(self.as_bytes());
        ready(Ok((Some(bytes), HeaderList::new()))).boxed()
    }
}
