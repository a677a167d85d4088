//! Headers as a struct, in and out: what `#[derive(Headers)]` writes by hand.
//!
//! ```
//! use klamm::prelude::*;
//! use klamm::serde::{FromHeaders, IntoHeaders};
//!
//! #[derive(Debug, PartialEq, Headers)]
//! #[headers(rename_all = "kebab-case")]
//! struct Trace {
//!     trace_id: String,               // `trace-id`, as text
//!     #[header(big_endian)]
//!     attempt: i32,                   // four bytes
//!     tenant: Option<u64>,            // digits, or not there
//!     #[header(rename = "tag")]
//!     tags: Vec<String>,              // any number of `tag`
//! }
//!
//! # #[cfg(feature = "macros")] {
//! let trace = Trace { trace_id: "7f".into(), attempt: 2, tenant: None, tags: vec!["a".into(), "b".into()] };
//! let sent = Headers::from(trace.into_headers());
//! assert_eq!(sent.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["trace-id", "attempt", "tag", "tag"]);
//! assert_eq!(Trace::from_headers(&sent)?.attempt, 2);
//! # }
//! # Ok::<(), klamm::serde::HeaderError>(())
//! ```
//!
//! Such a struct is an argument of listeners by itself.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;
use thiserror::Error;

use super::{HeaderList, NumberSerde, Serde, SerdeError};

/// A type that is read from a record's headers; `#[derive(Headers)]` implements it.
pub trait FromHeaders: Sized + Send + 'static {
    /// Reads it.
    ///
    /// # Errors
    /// A header is missing, or there and wrong.
    fn from_headers(headers: &Headers) -> Result<Self, HeaderError>;
}

/// What can be sent along as headers: a struct with `#[derive(Headers)]`, [`Headers`], a [`HeaderList`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not headers",
    note = "`#[derive(Headers)]` makes a struct with named fields one"
)]
pub trait IntoHeaders {
    /// The names that it may have, where they are known.
    const NAMES: &'static [&'static str] = &[];

    /// Its headers, in order.
    fn into_headers(self) -> HeaderList;
}

impl IntoHeaders for Headers {
    fn into_headers(self) -> HeaderList {
        self.to_vec()
    }
}

impl IntoHeaders for HeaderList {
    fn into_headers(self) -> HeaderList {
        self
    }
}

/// Why headers are not the struct that was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// There is no header of this name, or it has no value.
    #[error("the record has no header `{name}`")]
    Missing {
        /// The header's name.
        name: &'static str,
    },
    /// The header is something else.
    #[error("the header `{name}` does not decode: {source}")]
    Wrong {
        /// The header's name.
        name: &'static str,
        /// What was wrong with it.
        source: SerdeError,
    },
}

/// The value of one header: text, or bytes as they are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the value of a header",
    label = "this type has no form in a header",
    note = "fields of `#[derive(Headers)]` are `String`, numbers, `bool`, `Bytes`, `Vec<u8>`, in `Option<...>` or \
     `Vec<...>`, and types of yours that implement `HeaderValue`"
)]
pub trait HeaderValue: Sized {
    /// Reads it. Headers come from outside: never panic on them.
    ///
    /// # Errors
    /// The bytes are something else.
    fn from_header(bytes: &[u8]) -> Result<Self, SerdeError>;

    /// Its bytes.
    fn to_header(&self) -> Bytes;
}

macro_rules! texts {
    ($($text:ty),*) => {$(
        impl HeaderValue for $text {
            fn from_header(bytes: &[u8]) -> Result<Self, SerdeError> {
                text::<Self>(bytes).map(Into::into)
            }

            fn to_header(&self) -> Bytes {
                Bytes::copy_from_slice(self.as_bytes())
            }
        }
    )*};
}

texts!(String, Arc<str>, Box<str>);

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl HeaderValue for $number {
            fn from_header(bytes: &[u8]) -> Result<Self, SerdeError> {
                let text = text::<Self>(bytes)?;
                text.parse().map_err(|error| SerdeError::deserialize::<Self>("text", bytes.len(), error))
            }

            fn to_header(&self) -> Bytes {
                self.to_string().into()
            }
        }
    )*};
}

numbers!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64, bool);

impl HeaderValue for Bytes {
    fn from_header(bytes: &[u8]) -> Result<Self, SerdeError> {
        Ok(Self::copy_from_slice(bytes))
    }

    fn to_header(&self) -> Bytes {
        self.clone()
    }
}

impl HeaderValue for Vec<u8> {
    fn from_header(bytes: &[u8]) -> Result<Self, SerdeError> {
        Ok(bytes.to_vec())
    }

    fn to_header(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

fn text<T>(bytes: &[u8]) -> Result<&str, SerdeError> {
    std::str::from_utf8(bytes).map_err(|error| SerdeError::deserialize::<T>("UTF-8", bytes.len(), error))
}

/// How one field becomes bytes: for what `#[derive(Headers)]` writes.
#[doc(hidden)]
pub trait Form<T> {
    fn read(&self, bytes: &[u8]) -> Result<T, SerdeError>;
    fn write(&self, value: &T) -> Option<Bytes>;
}

/// A [`HeaderValue`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Plain<T>(PhantomData<fn() -> T>);

/// The form of a [`HeaderValue`].
#[doc(hidden)]
pub fn plain<T: HeaderValue>() -> Plain<T> {
    Plain(PhantomData)
}

impl<T: HeaderValue> Form<T> for Plain<T> {
    fn read(&self, bytes: &[u8]) -> Result<T, SerdeError> {
        T::from_header(bytes)
    }

    fn write(&self, value: &T) -> Option<Bytes> {
        Some(value.to_header())
    }
}

/// A number as its bytes, the highest first.
#[doc(hidden)]
#[derive(Debug)]
pub struct BigEndian<T>(PhantomData<fn() -> T>);

/// A number that `#[header(big_endian)]` can be said of.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no number that has bytes in an order",
    label = "`big_endian` is for numbers",
    note = "without `big_endian` it is text, or bytes as they are"
)]
pub trait HeaderNumber {}

macro_rules! header_numbers {
    ($($number:ty),*) => {$(
        impl HeaderNumber for $number {}
    )*};
}

header_numbers!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64);

/// The form of a number.
#[doc(hidden)]
pub fn big_endian<T: HeaderNumber>() -> BigEndian<T> {
    BigEndian(PhantomData)
}

impl<T> Form<T> for BigEndian<T>
where
    NumberSerde: Serde<T>,
{
    fn read(&self, bytes: &[u8]) -> Result<T, SerdeError> {
        NumberSerde.deserialize("", &Bytes::copy_from_slice(bytes))
    }

    fn write(&self, value: &T) -> Option<Bytes> {
        NumberSerde.serialize("", value).ok()
    }
}

/// The last header of the name, which is the one that counts.
#[doc(hidden)]
pub fn required<T>(headers: &Headers, name: &'static str, form: impl Form<T>) -> Result<T, HeaderError> {
    optional(headers, name, form)?.ok_or(HeaderError::Missing { name })
}

/// The last header of the name; `None` where there is none, or one without a value.
#[doc(hidden)]
pub fn optional<T>(
    headers: &Headers,
    name: &'static str,
    form: impl Form<T>,
) -> Result<Option<T>, HeaderError> {
    let Some(bytes) = headers.last(name).flatten() else { return Ok(None) };
    form.read(bytes).map(Some).map_err(|source| HeaderError::Wrong { name, source })
}

/// All headers of the name, in order; those without a value are left out.
#[doc(hidden)]
pub fn repeated<T>(headers: &Headers, name: &'static str, form: impl Form<T>) -> Result<Vec<T>, HeaderError> {
    let read = |bytes| form.read(bytes).map_err(|source| HeaderError::Wrong { name, source });
    headers.all(name).flatten().map(read).collect()
}

/// Adds a header at the end.
#[doc(hidden)]
pub fn add<T>(headers: &mut HeaderList, name: &'static str, form: impl Form<T>, value: &T) {
    headers.push((Arc::from(name), form.write(value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn round_trip<T: HeaderValue + PartialEq + std::fmt::Debug>(value: T, written: &[u8]) {
        assert_eq!(value.to_header(), written);
        assert_eq!(T::from_header(written).unwrap(), value);
    }

    #[test]
    fn values_are_text_and_bytes_stay_bytes() {
        round_trip("ä".to_owned(), &[0xc3, 0xa4]);
        round_trip(-7_i64, b"-7");
        round_trip(1.5_f64, b"1.5");
        round_trip(true, b"true");
        round_trip(vec![0_u8, 255], &[0, 255]);
        assert!(i32::from_header(b"7 ").is_err());
        assert!(String::from_header(&[0xff]).is_err());
    }

    #[test]
    fn missing_wrong_and_several() {
        let mut headers: Headers = [("n", "1"), ("n", "x"), ("m", "2")].into_iter().collect();
        headers.push("null", None);
        let wrong = required(&headers, "n", plain::<i32>()).unwrap_err().to_string();
        assert!(
            wrong.starts_with("the header `n` does not decode: 1 bytes are not a i32 in text"),
            "{wrong}"
        );
        assert_eq!(required(&headers, "m", plain::<i32>()).unwrap(), 2);
        assert_eq!(repeated(&headers, "n", plain::<String>()).unwrap(), ["1", "x"]);
        assert_eq!(optional(&headers, "null", plain::<String>()).unwrap(), None);
        let missing = required(&headers, "o", big_endian::<i32>()).unwrap_err();
        assert!(matches!(missing, HeaderError::Missing { name: "o" }));
        assert!(matches!(required(&headers, "m", big_endian::<i32>()), Err(HeaderError::Wrong { .. })));
    }
}
