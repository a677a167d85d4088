//! Serdes that hand over to another one: chosen by topic, or by a header that names the format.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;
use regex_lite::Regex;

use super::tagged::{header_text, set_header};
use super::{HeaderList, Serde, SerdeError};

/// The header that names a format, where nothing else is said.
pub const FORMAT_HEADER: &str = "klamm-format";
/// The header in which spring-kafka's `DelegatingSerializer` names one.
pub const SPRING_FORMAT_HEADER: &str = "spring.kafka.serialization.selector";

/// Another serde for each topic: the first rule that matches, or the one for the rest.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use klamm::serde::{ByTopic, JsonSerde, Serde, StringSerde};
///
/// let names: ByTopic<String> = ByTopic::new().topic("names", StringSerde).pattern("json-.*", JsonSerde);
/// assert_eq!(names.serialize("names", &"a".to_owned()).unwrap(), "a");
/// assert_eq!(names.serialize("json-names", &"a".to_owned()).unwrap(), "\"a\"");
/// assert!(names.serialize("other", &"a".to_owned()).is_err());
/// # }
/// ```
pub struct ByTopic<T> {
    rules: Vec<(TopicRule, Arc<dyn Serde<T>>)>,
    rest: Option<Arc<dyn Serde<T>>>,
}

/// A serde by the name of its format.
type Named<T> = (Arc<str>, Arc<dyn Serde<T>>);

#[derive(Debug, Clone)]
enum TopicRule {
    Name(Arc<str>),
    Pattern(Regex),
    /// A pattern that is none: it matches nothing, and says why where it would be used.
    Wrong(Arc<str>),
}

impl<T: 'static> ByTopic<T> {
    /// No rules yet: every topic is an error.
    pub fn new() -> Self {
        Self::default()
    }

    /// This topic.
    #[must_use]
    pub fn topic(mut self, name: impl Into<Arc<str>>, serde: impl Serde<T>) -> Self {
        self.rules.push((TopicRule::Name(name.into()), Arc::new(serde)));
        self
    }

    /// Every topic whose whole name matches. A pattern that is none is an error when a topic gets that far.
    #[must_use]
    pub fn pattern(mut self, pattern: &str, serde: impl Serde<T>) -> Self {
        let rule = match Regex::new(&format!("^(?:{pattern})$")) {
            Ok(pattern) => TopicRule::Pattern(pattern),
            Err(error) => TopicRule::Wrong(format!("the pattern `{pattern}` is none: {error}").into()),
        };
        self.rules.push((rule, Arc::new(serde)));
        self
    }

    /// All other topics.
    #[must_use]
    pub fn otherwise(mut self, serde: impl Serde<T>) -> Self {
        self.rest = Some(Arc::new(serde));
        self
    }

    fn of(&self, topic: &str) -> Result<&dyn Serde<T>, String> {
        for (rule, serde) in &self.rules {
            match rule {
                TopicRule::Name(name) if **name == *topic => return Ok(&**serde),
                TopicRule::Pattern(pattern) if pattern.is_match(topic) => return Ok(&**serde),
                TopicRule::Wrong(reason) => return Err(reason.to_string()),
                TopicRule::Name(_) | TopicRule::Pattern(_) => {}
            }
        }
        self.rest.as_deref().ok_or_else(|| {
            format!(
                "no rule for the topic `{topic}`: add `topic(..)`, `pattern(..)` or `otherwise(..)` to the \
                 `ByTopic`"
            )
        })
    }

    fn to_write(&self, topic: &str) -> Result<&dyn Serde<T>, SerdeError> {
        self.of(topic).map_err(|reason| SerdeError::serialize::<T>("a format by topic", reason))
    }

    fn to_read(&self, topic: &str, bytes: &Bytes) -> Result<&dyn Serde<T>, SerdeError> {
        self.of(topic)
            .map_err(|reason| SerdeError::deserialize::<T>("a format by topic", bytes.len(), reason))
    }
}

impl<T: 'static> Serde<T> for ByTopic<T> {
    fn serialize(&self, topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        self.to_write(topic)?.serialize(topic, value)
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        self.to_read(topic, bytes)?.deserialize(topic, bytes)
    }

    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &T,
    ) -> Result<Bytes, SerdeError> {
        self.to_write(topic)?.serialize_record(topic, headers, value)
    }

    fn deserialize_record(&self, topic: &str, headers: &Headers, bytes: &Bytes) -> Result<T, SerdeError> {
        self.to_read(topic, bytes)?.deserialize_record(topic, headers, bytes)
    }
}

/// Another serde for each format that a header names; what is written names its own.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use klamm::client::Headers;
/// use klamm::serde::{ByHeader, JsonSerde, Serde, StringSerde};
///
/// let names: ByHeader<String> =
///     ByHeader::new().format("json", JsonSerde).format("text", StringSerde).write_as("text");
/// let mut headers = Vec::new();
/// assert_eq!(names.serialize_record("t", &mut headers, &"a".to_owned()).unwrap(), "a");
/// assert_eq!(Headers::from(headers).last("klamm-format"), Some(Some(&b"text"[..])));
/// # }
/// ```
pub struct ByHeader<T> {
    header: Arc<str>,
    formats: Vec<Named<T>>,
    written: Option<Arc<str>>,
    without: Option<Arc<dyn Serde<T>>>,
}

impl<T: 'static> ByHeader<T> {
    /// By the header [`FORMAT_HEADER`].
    pub fn new() -> Self {
        Self::default()
    }

    /// By another header, as [`SPRING_FORMAT_HEADER`].
    #[must_use]
    pub fn header(mut self, name: impl Into<Arc<str>>) -> Self {
        self.header = name.into();
        self
    }

    /// What the header names `name`. The first format is the one that is written, until [`write_as`](Self::write_as).
    #[must_use]
    pub fn format(mut self, name: impl Into<Arc<str>>, serde: impl Serde<T>) -> Self {
        self.formats.push((name.into(), Arc::new(serde)));
        self
    }

    /// Writes in the format of this name.
    #[must_use]
    pub fn write_as(mut self, name: impl Into<Arc<str>>) -> Self {
        self.written = Some(name.into());
        self
    }

    /// Records without the header.
    #[must_use]
    pub fn without_header(mut self, serde: impl Serde<T>) -> Self {
        self.without = Some(Arc::new(serde));
        self
    }

    fn of(&self, name: &str) -> Option<&Named<T>> {
        self.formats.iter().find(|(found, _)| **found == *name)
    }

    fn to_write(&self) -> Result<&Named<T>, SerdeError> {
        let found = match &self.written {
            Some(name) => self.of(name),
            None => self.formats.first(),
        };
        found.ok_or_else(|| self.unknown(self.written.as_deref().unwrap_or_default()))
    }

    fn unknown(&self, name: &str) -> SerdeError {
        let known = self.formats.iter().map(|(name, _)| name.to_string()).collect();
        SerdeError::UnknownType { header: (*self.header).into(), name: name.into(), known }
    }

    fn no_header(&self) -> SerdeError {
        SerdeError::NoType { header: self.header.to_string() }
    }
}

impl<T: 'static> Serde<T> for ByHeader<T> {
    /// Only with [`without_header`](Self::without_header): there are no headers here.
    fn serialize(&self, topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        self.without.as_ref().ok_or_else(|| self.no_header())?.serialize(topic, value)
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        self.without.as_ref().ok_or_else(|| self.no_header())?.deserialize(topic, bytes)
    }

    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &T,
    ) -> Result<Bytes, SerdeError> {
        let (name, serde) = self.to_write()?;
        let bytes = serde.serialize_record(topic, headers, value)?;
        set_header(headers, &self.header, name);
        Ok(bytes)
    }

    fn deserialize_record(&self, topic: &str, headers: &Headers, bytes: &Bytes) -> Result<T, SerdeError> {
        let Some(name) = header_text(headers, &self.header) else {
            let without = self.without.as_ref().ok_or_else(|| self.no_header())?;
            return without.deserialize_record(topic, headers, bytes);
        };
        let (_, serde) = self.of(&name).ok_or_else(|| self.unknown(&name))?;
        serde.deserialize_record(topic, headers, bytes)
    }
}

// Not derived: `T` need not be anything.
impl<T> Default for ByTopic<T> {
    fn default() -> Self {
        Self { rules: Vec::new(), rest: None }
    }
}

impl<T> Clone for ByTopic<T> {
    fn clone(&self) -> Self {
        Self { rules: self.rules.clone(), rest: self.rest.clone() }
    }
}

impl<T> fmt::Debug for ByTopic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByTopic").field("rules", &self.rules).field("rest", &self.rest).finish()
    }
}

impl<T> Default for ByHeader<T> {
    fn default() -> Self {
        Self { header: FORMAT_HEADER.into(), formats: Vec::new(), written: None, without: None }
    }
}

impl<T> Clone for ByHeader<T> {
    fn clone(&self) -> Self {
        Self {
            header: Arc::clone(&self.header),
            formats: self.formats.clone(),
            written: self.written.clone(),
            without: self.without.clone(),
        }
    }
}

impl<T> fmt::Debug for ByHeader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByHeader")
            .field("header", &self.header)
            .field("formats", &self.formats)
            .field("written", &self.written)
            .field("without", &self.without)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serde::{BytesSerde, NumberSerde};

    #[test]
    fn the_first_rule_counts_and_a_broken_pattern_says_so() {
        let numbers: ByTopic<i64> =
            ByTopic::new().topic("a", NumberSerde).pattern("a|b(", NumberSerde).otherwise(NumberSerde);
        assert!(numbers.serialize("a", &1).is_ok());
        let said = numbers.serialize("b", &1).unwrap_err().to_string();
        assert!(said.contains("the pattern `a|b(` is none"), "{said}");
        let named: ByTopic<i64> = ByTopic::new().pattern("x|y", NumberSerde);
        assert!(named.serialize("xy", &1).is_err(), "the whole name must match");
        assert!(
            named
                .deserialize("z", &Bytes::new())
                .unwrap_err()
                .to_string()
                .contains("no rule for the topic `z`")
        );
    }

    #[test]
    fn the_header_chooses_and_unknown_ones_are_named() {
        let both: ByHeader<Vec<u8>> = ByHeader::new().header("f").format("raw", BytesSerde);
        let mut headers = HeaderList::new();
        let bytes = both.serialize_record("t", &mut headers, &vec![1]).unwrap();
        let headers = Headers::from(headers);
        assert_eq!(both.deserialize_record("t", &headers, &bytes).unwrap(), [1]);
        let other: Headers = [("f", "xml")].into_iter().collect();
        let said = both.deserialize_record("t", &other, &bytes).unwrap_err().to_string();
        assert!(said.contains("`xml`") && said.contains("raw"), "{said}");
        let none = both.deserialize_record("t", &Headers::new(), &bytes);
        assert!(matches!(none, Err(SerdeError::NoType { .. })));
        let lenient = both.without_header(BytesSerde);
        assert!(lenient.deserialize_record("t", &Headers::new(), &bytes).is_ok());
        assert!(lenient.serialize("t", &vec![]).is_ok());
    }
}
