//! `AvroSerde` without a registry: each value in Avro's single-object encoding, which names the schema by fingerprint.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;

use super::record_type::{AvroRecord, AvroType, Parsed};
use super::resolved::Resolved;
use crate::serde::{Serde, SerdeError};

/// What a value in single-object encoding begins with.
const MARKER: [u8; 2] = [0xc3, 0x01];
/// The marker and the fingerprint.
const PREFIX_BYTES: usize = 10;

/// Writes values in Avro's single-object encoding: two bytes, the fingerprint of the schema, and the value. What was
/// written with an older schema is read when that was added with [`older`](Self::older); where schemas change often, a
/// registry knows them all: `#[record(avro, registry)]`.
///
/// Avro's numbers are signed: an `i64` is a `long`, an `i32` an `int`, and a `u64` has no form among them.
#[derive(Clone, Default)]
pub struct AvroSerde {
    /// Texts by fingerprint.
    older: Arc<HashMap<[u8; 8], Arc<str>>>,
}

impl AvroSerde {
    /// Reads and writes with the type's own schema.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also reads what was written with this schema.
    ///
    /// # Errors
    /// The text is no schema.
    pub fn older(mut self, schema: &str) -> Result<Self, SerdeError> {
        let older = AvroType::parse(schema);
        let fingerprint = older.parsed::<Self>()?.fingerprint;
        Arc::make_mut(&mut self.older).insert(fingerprint, schema.into());
        Ok(self)
    }

    fn resolved<T: AvroRecord>(&self, fingerprint: [u8; 8], length: usize) -> Result<Resolved, SerdeError> {
        let parsed = T::avro_type().parsed::<T>()?;
        let made = match self.older.get(&fingerprint) {
            _ if fingerprint == parsed.fingerprint => Ok(Resolved::own(parsed)),
            Some(text) => Resolved::new(parsed, text, &[]),
            None => Err(format!(
                "it was written with a schema of the fingerprint {:016x}, which is not known here (add it with \
                 `AvroSerde::older`, or use a registry: `#[record(avro, registry)]`)",
                u64::from_le_bytes(fingerprint)
            )),
        };
        made.map_err(|reason| SerdeError::deserialize::<T>("Avro", length, reason))
    }
}

/// Adds a value in its own schema, or another one.
pub(super) fn write<T: Serialize>(
    parsed: &Parsed,
    with: Option<&Resolved>,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), SerdeError> {
    let schema = match with {
        Some(with) => with.writer().map_err(|reason| SerdeError::serialize::<T>("Avro", reason))?,
        None => parsed.schema,
    };
    let written = GenericDatumWriter::builder(schema).build().and_then(|writer| writer.write_ser(out, value));
    written.map(drop).map_err(|error| SerdeError::serialize::<T>("Avro", error))
}

impl<T: AvroRecord + Serialize + DeserializeOwned> Serde<T> for AvroSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/avro")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        let parsed = T::avro_type().parsed::<T>()?;
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&parsed.fingerprint);
        write(parsed, None, value, &mut out)?;
        Ok(out.into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        let wrong = |reason: &str| SerdeError::deserialize::<T>("Avro", bytes.len(), reason.to_owned());
        let Some((prefix, value)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(wrong("a single object begins with ten bytes that tell its schema"));
        };
        let Some((&MARKER, fingerprint)) = prefix.split_first_chunk::<2>() else {
            return Err(wrong(
                "it does not begin with Avro's mark of a single object, c3 01 (values with a schema id in front are \
                 read with `#[record(avro, registry)]`)",
            ));
        };
        let fingerprint = fingerprint.try_into().map_err(|_| wrong("its fingerprint is cut off"))?;
        self.resolved::<T>(fingerprint, bytes.len())?.read(value)
    }
}

impl fmt::Debug for AvroSerde {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AvroSerde").field("older", &self.older.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use ::serde::Deserialize;

    use super::*;

    const OLD: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "int"}]}"#;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: i64,
        note: Option<String>,
    }

    impl AvroRecord for Order {
        fn avro_type() -> &'static AvroType {
            static TYPE: LazyLock<AvroType> = LazyLock::new(|| {
                AvroType::parse(
                    r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"},
                        {"name": "note", "type": ["null", "string"], "default": null}]}"#,
                )
            });
            &TYPE
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct OldOrder {
        id: i32,
    }

    impl AvroRecord for OldOrder {
        fn avro_type() -> &'static AvroType {
            static TYPE: LazyLock<AvroType> = LazyLock::new(|| AvroType::parse(OLD));
            &TYPE
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Broken;

    impl AvroRecord for Broken {
        fn avro_type() -> &'static AvroType {
            static TYPE: LazyLock<AvroType> = LazyLock::new(|| AvroType::parse(r#"{"type": "nothing"}"#));
            &TYPE
        }
    }

    #[test]
    fn round_trip_and_older_schemas() {
        let order = Order { id: 7, note: Some("x".to_owned()) };
        let bytes = AvroSerde::new().serialize("t", &order).unwrap();
        assert_eq!(bytes[..2], MARKER);
        assert_eq!(bytes[10..], [14, 2, 2, b'x']);
        assert_eq!(Serde::<Order>::deserialize(&AvroSerde::new(), "t", &bytes).unwrap(), order);

        let old = AvroSerde::new().serialize("t", &OldOrder { id: -1 }).unwrap();
        let unknown = Serde::<Order>::deserialize(&AvroSerde::new(), "t", &old).unwrap_err().to_string();
        assert!(unknown.contains("fingerprint") && unknown.contains("AvroSerde::older"), "{unknown}");
        let serde = AvroSerde::new().older(OLD).unwrap();
        assert_eq!(Serde::<Order>::deserialize(&serde, "t", &old).unwrap(), Order { id: -1, note: None });
    }

    #[test]
    fn a_schema_that_is_none_and_bytes_that_are_none() {
        let broken = AvroSerde::new().serialize("t", &Broken).unwrap_err().to_string();
        assert!(broken.contains("the Avro schema of") && broken.contains("Broken is none"), "{broken}");
        let read = |bytes: &'static [u8]| {
            Serde::<Order>::deserialize(&AvroSerde::new(), "t", &Bytes::from_static(bytes))
                .unwrap_err()
                .to_string()
        };
        assert!(read(b"").contains("ten bytes"));
        assert!(read(&[0; 20]).contains("c3 01"));
    }
}
