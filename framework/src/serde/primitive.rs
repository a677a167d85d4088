//! Strings, bytes and numbers, byte for byte as Kafka's own serializers write them.

use std::sync::Arc;

use bytes::Bytes;

use super::{DefaultSerde, Serde, SerdeError};

/// UTF-8 text without a length: `String` and `Arc<str>`. Kafka's `StringSerializer`.
#[derive(Debug, Clone, Copy, Default)]
pub struct StringSerde;

/// The bytes themselves: `Bytes` (without a copy) and `Vec<u8>`. Kafka's `ByteArraySerializer`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BytesSerde;

/// Integers and floats of fixed width, big-endian, and `bool` as one byte 0 or 1. Kafka's `LongSerializer`,
/// `IntegerSerializer`, `ShortSerializer`, `FloatSerializer`, `DoubleSerializer` and `BooleanSerializer`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NumberSerde;

/// `()` as no bytes: for a key or value that carries nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitSerde;

impl Serde<String> for StringSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("text/plain")
    }

    fn serialize(&self, _topic: &str, value: &String) -> Result<Bytes, SerdeError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<String, SerdeError> {
        Ok(text::<String>(bytes)?.to_owned())
    }
}

impl Serde<Arc<str>> for StringSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("text/plain")
    }

    fn serialize(&self, _topic: &str, value: &Arc<str>) -> Result<Bytes, SerdeError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<Arc<str>, SerdeError> {
        Ok(text::<Arc<str>>(bytes)?.into())
    }
}

fn text<T>(bytes: &Bytes) -> Result<&str, SerdeError> {
    std::str::from_utf8(bytes).map_err(|error| SerdeError::deserialize::<T>("UTF-8", bytes.len(), error))
}

impl Serde<Bytes> for BytesSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/octet-stream")
    }

    fn serialize(&self, _topic: &str, value: &Bytes) -> Result<Bytes, SerdeError> {
        Ok(value.clone())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<Bytes, SerdeError> {
        Ok(bytes.clone())
    }
}

impl Serde<Vec<u8>> for BytesSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/octet-stream")
    }

    fn serialize(&self, _topic: &str, value: &Vec<u8>) -> Result<Bytes, SerdeError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<Vec<u8>, SerdeError> {
        Ok(bytes.to_vec())
    }
}

impl Serde<()> for UnitSerde {
    fn serialize(&self, _topic: &str, (): &()) -> Result<Bytes, SerdeError> {
        Ok(Bytes::new())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<(), SerdeError> {
        match bytes.len() {
            0 => Ok(()),
            length_bytes => Err(SerdeError::deserialize::<()>("no bytes", length_bytes, "there are some")),
        }
    }
}

impl Serde<bool> for NumberSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/octet-stream")
    }

    fn serialize(&self, _topic: &str, value: &bool) -> Result<Bytes, SerdeError> {
        Ok(Bytes::from_static(if *value { &[1] } else { &[0] }))
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<bool, SerdeError> {
        match bytes[..] {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(SerdeError::deserialize::<bool>("one byte, 0 or 1", bytes.len(), "it is not")),
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Serde<$number> for NumberSerde {
            fn content_type(&self) -> Option<&'static str> {
                Some("application/octet-stream")
            }

            fn serialize(&self, _topic: &str, value: &$number) -> Result<Bytes, SerdeError> {
                Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
            }

            fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<$number, SerdeError> {
                bytes[..].try_into().map(<$number>::from_be_bytes).map_err(|_| {
                    let reason = format!("it takes exactly {} bytes", size_of::<$number>());
                    SerdeError::deserialize::<$number>("big-endian", bytes.len(), reason)
                })
            }
        }

        impl DefaultSerde for $number {
            type Serde = NumberSerde;
        }
    )*};
}

numbers!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64);

impl DefaultSerde for bool {
    type Serde = NumberSerde;
}

impl DefaultSerde for String {
    type Serde = StringSerde;
}

impl DefaultSerde for Arc<str> {
    type Serde = StringSerde;
}

impl DefaultSerde for Bytes {
    type Serde = BytesSerde;
}

impl DefaultSerde for Vec<u8> {
    type Serde = BytesSerde;
}

impl DefaultSerde for () {
    type Serde = UnitSerde;
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    #[track_caller]
    fn round_trip<T: DefaultSerde + PartialEq + Debug>(value: T, written: &[u8]) {
        let serde = T::Serde::default();
        let bytes = serde.serialize("t", &value).unwrap();
        assert_eq!(bytes, written);
        assert_eq!(serde.deserialize("t", &bytes).unwrap(), value);
    }

    #[test]
    fn written_like_kafkas_serializers() {
        round_trip("ä".to_owned(), &[0xc3, 0xa4]);
        round_trip::<Arc<str>>("a".into(), b"a");
        round_trip(Bytes::from_static(b"\0x"), b"\0x");
        round_trip(vec![1_u8, 2], &[1, 2]);
        round_trip(-2_i64, &[255, 255, 255, 255, 255, 255, 255, 254]);
        round_trip(258_i32, &[0, 0, 1, 2]);
        round_trip(7_u16, &[0, 7]);
        round_trip(1.5_f64, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        round_trip(true, &[1]);
        round_trip((), b"");
    }

    #[test]
    fn wrong_bytes_are_errors_that_name_the_type() {
        let error = Serde::<i64>::deserialize(&NumberSerde, "t", &Bytes::from_static(b"abc")).unwrap_err();
        assert_eq!(error.to_string(), "3 bytes are not a i64 in big-endian: it takes exactly 8 bytes");
        assert!(Serde::<String>::deserialize(&StringSerde, "t", &Bytes::from_static(&[0xff])).is_err());
        assert!(Serde::<bool>::deserialize(&NumberSerde, "t", &Bytes::from_static(&[2])).is_err());
        assert!(Serde::<()>::deserialize(&UnitSerde, "t", &Bytes::from_static(&[2])).is_err());
    }
}
