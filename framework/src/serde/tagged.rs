//! Several types on one topic, told apart by a header.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::{HeaderList, Serde, SerdeError};

/// The header that names a record's type, where nothing else is said.
pub const TYPE_HEADER: &str = "klamm-type";
/// The header in which spring-kafka's JSON serializer names a record's type.
pub const SPRING_TYPE_HEADER: &str = "__TypeId__";

/// An enum whose variants are the types of one topic; `#[derive(Record)] #[record(header = "...")]` implements it.
///
/// ```
/// # #[cfg(all(feature = "macros", feature = "json"))] {
/// use klamm::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// struct Placed { id: u64 }
/// #[derive(Serialize, Deserialize)]
/// struct Cancelled { id: u64, why: String }
///
/// #[derive(Record)]
/// #[record(json, header = "klamm-type")]
/// enum OrderEvent {
///     #[record(name = "order.placed")]
///     Placed(Placed),
///     #[record(name = "order.cancelled")]
///     Cancelled(Cancelled),
/// }
///
/// #[kafka_listener(topics = "orders", group = "billing")]
/// async fn bill(event: OrderEvent) {
///     match event {
///         OrderEvent::Placed(order) => println!("{} is placed", order.id),
///         OrderEvent::Cancelled(order) => println!("{} is cancelled: {}", order.id, order.why),
///     }
/// }
/// # }
/// ```
///
/// A record that names another type is a rejection that says so, unless a variant takes the rest:
/// `#[record(other)] Other(UnknownRecord)`. With [`SPRING_TYPE_HEADER`] and the names of Java classes it reads and
/// writes what spring-kafka does.
pub trait Tagged: Sized + Send + 'static {
    /// The header.
    const HEADER: &'static str;
    /// What may stand in it.
    const NAMES: &'static [&'static str];

    /// The name and the bytes of the value in it.
    ///
    /// # Errors
    /// The value cannot be written.
    fn write(&self, topic: &str, headers: &mut HeaderList) -> Result<(Cow<'_, str>, Bytes), SerdeError>;

    /// The variant of this name; `None` where there is none.
    ///
    /// # Errors
    /// The bytes are something else than the name says.
    fn read(name: &str, topic: &str, headers: &Headers, bytes: &Bytes) -> Result<Option<Self>, SerdeError>;

    /// The variant that takes what has none.
    fn unknown(unknown: UnknownRecord) -> Option<Self>;
}

/// A record whose type is not known here, undecoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRecord {
    /// What stands in the header; empty where there is none.
    pub name: String,
    /// The value.
    pub bytes: Bytes,
}

/// Reads and writes an enum of types by header.
pub struct TaggedSerde<T>(PhantomData<fn() -> T>);

impl<T> Default for TaggedSerde<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for TaggedSerde<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<T: Tagged> fmt::Debug for TaggedSerde<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaggedSerde").field("header", &T::HEADER).field("names", &T::NAMES).finish()
    }
}

impl<T: Tagged> Serde<T> for TaggedSerde<T> {
    /// Fails: without headers nobody could read it.
    fn serialize(&self, _topic: &str, _value: &T) -> Result<Bytes, SerdeError> {
        Err(SerdeError::NoType { header: T::HEADER.to_owned() })
    }

    /// Fails: the bytes alone do not say what they are.
    fn deserialize(&self, _topic: &str, _bytes: &Bytes) -> Result<T, SerdeError> {
        Err(SerdeError::NoType { header: T::HEADER.to_owned() })
    }

    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &T,
    ) -> Result<Bytes, SerdeError> {
        let (name, bytes) = value.write(topic, headers)?;
        set_header(headers, T::HEADER, &name);
        Ok(bytes)
    }

    fn deserialize_record(&self, topic: &str, headers: &Headers, bytes: &Bytes) -> Result<T, SerdeError> {
        let name = header_text(headers, T::HEADER);
        if let Some(name) = &name
            && let Some(value) = T::read(name, topic, headers, bytes)?
        {
            return Ok(value);
        }
        let unknown =
            UnknownRecord { name: name.as_deref().unwrap_or_default().to_owned(), bytes: bytes.clone() };
        T::unknown(unknown).ok_or_else(|| match name {
            Some(name) => SerdeError::UnknownType {
                header: T::HEADER.into(),
                name: name.into(),
                known: T::NAMES.iter().map(|&name| name.to_owned()).collect(),
            },
            None => SerdeError::NoType { header: T::HEADER.to_owned() },
        })
    }
}

/// The text of the last header of this name.
pub(super) fn header_text<'a>(headers: &'a Headers, name: &str) -> Option<Cow<'a, str>> {
    headers.last(name).flatten().map(String::from_utf8_lossy)
}

/// Sets a header: what an earlier hop wrote there is replaced.
pub(super) fn set_header(headers: &mut HeaderList, name: &str, value: &str) {
    headers.retain(|(found, _)| **found != *name);
    headers.push((Arc::from(name), Some(Bytes::copy_from_slice(value.as_bytes()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_set_once() {
        let list =
            |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<Headers>().to_vec();
        let mut headers = list(&[("t", "a"), ("x", "1"), ("t", "b")]);
        set_header(&mut headers, "t", "c");
        set_header(&mut headers, "n", "d");
        assert_eq!(headers, list(&[("x", "1"), ("t", "c"), ("n", "d")]));
    }
}
