//! Several types on one topic that are only known when the program runs: a registry of types by name.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::tagged::{TYPE_HEADER, header_text, set_header};
use super::{DefaultSerde, HeaderList, Serde, SerdeError};

/// A value of one of the types that a [`Types`] knows.
pub struct AnyRecord {
    value: Box<dyn Any + Send>,
    type_name: &'static str,
}

impl AnyRecord {
    /// A value that will be written by the name of its type.
    pub fn new<T: Send + 'static>(value: T) -> Self {
        Self { value: Box::new(value), type_name: type_name::<T>() }
    }

    /// Whether it is a `T`.
    pub fn is<T: 'static>(&self) -> bool {
        self.value.is::<T>()
    }

    /// The value, if it is a `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }

    /// The value, if it is a `T`.
    ///
    /// # Errors
    /// It is something else, and comes back.
    pub fn take<T: 'static>(self) -> Result<T, Self> {
        let Self { value, type_name } = self;
        value.downcast().map(|value| *value).map_err(|value| Self { value, type_name })
    }

    /// The Rust type of the value.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }
}

impl fmt::Debug for AnyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyRecord").field(&self.type_name).finish()
    }
}

/// Types by logical names, which stand in a header: no name of a Rust type goes on the wire, so that types can be
/// renamed and read by others. An enum does the same at compile time: [`Tagged`](super::Tagged).
///
/// ```
/// use klamm::client::Headers;
/// use klamm::serde::{AnyRecord, Serde, Types};
///
/// let types = Types::new().with::<String>("note").with::<i64>("count");
/// let mut headers = Vec::new();
/// let bytes = types.serialize_record("t", &mut headers, &AnyRecord::new(7_i64))?;
/// let headers = Headers::from(headers);
/// assert_eq!(headers.last("klamm-type"), Some(Some(&b"count"[..])));
/// assert_eq!(types.deserialize_record("t", &headers, &bytes)?.get::<i64>(), Some(&7));
/// # Ok::<(), klamm::serde::SerdeError>(())
/// ```
#[derive(Clone)]
pub struct Types {
    header: Arc<str>,
    known: Vec<Known>,
}

#[derive(Clone)]
struct Known {
    name: Arc<str>,
    type_id: TypeId,
    serde: Arc<dyn Serde<AnyRecord>>,
}

/// The serde of a `T` as one of an [`AnyRecord`].
#[derive(Debug)]
struct Erased<T, S>(S, std::marker::PhantomData<fn() -> T>);

impl<T: fmt::Debug + Send + 'static, S: Serde<T>> Serde<AnyRecord> for Erased<T, S> {
    fn serialize(&self, topic: &str, value: &AnyRecord) -> Result<Bytes, SerdeError> {
        self.serialize_record(topic, &mut HeaderList::new(), value)
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<AnyRecord, SerdeError> {
        self.0.deserialize(topic, bytes).map(AnyRecord::new)
    }

    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &AnyRecord,
    ) -> Result<Bytes, SerdeError> {
        let value = value.get::<T>().ok_or_else(|| {
            SerdeError::serialize::<T>("another type", format!("it is a {}", value.type_name()))
        })?;
        self.0.serialize_record(topic, headers, value)
    }

    fn deserialize_record(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: &Bytes,
    ) -> Result<AnyRecord, SerdeError> {
        self.0.deserialize_record(topic, headers, bytes).map(AnyRecord::new)
    }
}

impl Types {
    /// No types yet; by the header [`TYPE_HEADER`].
    pub fn new() -> Self {
        Self { header: TYPE_HEADER.into(), known: Vec::new() }
    }

    /// By another header, as [`SPRING_TYPE_HEADER`](super::SPRING_TYPE_HEADER) with the names of Java classes.
    #[must_use]
    pub fn header(mut self, name: impl Into<Arc<str>>) -> Self {
        self.header = name.into();
        self
    }

    /// Adds a type by its logical name. Of two types by one name the first counts, and of two names of one type.
    #[must_use]
    pub fn with<T: DefaultSerde + fmt::Debug>(self, name: impl Into<Arc<str>>) -> Self {
        self.with_serde::<T>(name, T::Serde::default())
    }

    /// Adds a type that is written by this serde.
    #[must_use]
    pub fn with_serde<T: fmt::Debug + Send + 'static>(
        mut self,
        name: impl Into<Arc<str>>,
        serde: impl Serde<T>,
    ) -> Self {
        let serde = Arc::new(Erased::<T, _>(serde, std::marker::PhantomData));
        self.known.push(Known { name: name.into(), type_id: TypeId::of::<T>(), serde });
        self
    }

    fn unknown(&self, name: &str) -> SerdeError {
        let known = self.known.iter().map(|known| known.name.to_string()).collect();
        SerdeError::UnknownType { header: (*self.header).into(), name: name.into(), known }
    }

    fn no_header(&self) -> SerdeError {
        SerdeError::NoType { header: self.header.to_string() }
    }
}

impl Default for Types {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.known.iter().map(|known| &known.name).collect();
        f.debug_struct("Types").field("header", &self.header).field("known", &names).finish()
    }
}

impl Serde<AnyRecord> for Types {
    /// Fails: without headers nobody could read it.
    fn serialize(&self, _topic: &str, _value: &AnyRecord) -> Result<Bytes, SerdeError> {
        Err(self.no_header())
    }

    /// Fails: the bytes alone do not say what they are.
    fn deserialize(&self, _topic: &str, _bytes: &Bytes) -> Result<AnyRecord, SerdeError> {
        Err(self.no_header())
    }

    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &AnyRecord,
    ) -> Result<Bytes, SerdeError> {
        let type_id = (*value.value).type_id();
        let known = self.known.iter().find(|known| known.type_id == type_id);
        let known = known.ok_or_else(|| self.unknown(value.type_name()))?;
        let bytes = known.serde.serialize_record(topic, headers, value)?;
        set_header(headers, &self.header, &known.name);
        Ok(bytes)
    }

    fn deserialize_record(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: &Bytes,
    ) -> Result<AnyRecord, SerdeError> {
        let name = header_text(headers, &self.header).ok_or_else(|| self.no_header())?;
        let known = self.known.iter().find(|known| *known.name == *name);
        known.ok_or_else(|| self.unknown(&name))?.serde.deserialize_record(topic, headers, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_types_are_told() {
        let types = Types::new().with::<String>("note");
        let mut headers = HeaderList::new();
        let said = types.serialize_record("t", &mut headers, &AnyRecord::new(7_i64)).unwrap_err().to_string();
        assert!(said.contains("`i64`") && said.contains("note"), "{said}");
        assert!(headers.is_empty());
        let other: Headers = [("klamm-type", "count")].into_iter().collect();
        let said = types.deserialize_record("t", &other, &Bytes::new()).unwrap_err().to_string();
        assert!(said.contains("`count`"), "{said}");
        assert!(matches!(types.serialize("t", &AnyRecord::new(())), Err(SerdeError::NoType { .. })));
    }

    #[test]
    fn a_value_comes_back_when_it_is_something_else() {
        let value = AnyRecord::new("a".to_owned());
        assert!(value.is::<String>() && value.get::<i64>().is_none());
        let value = value.take::<i64>().unwrap_err();
        assert_eq!(value.take::<String>().unwrap(), "a");
    }
}
