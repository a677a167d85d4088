//! What the keys and values of a topic are, for documents about an app.

use std::any::{TypeId, type_name};

use super::{DefaultSerde, Serde};

/// The type of a record's key or value, and how it is written: what an extractor tells of what it reads
/// ([`Needs::value`](crate::listener::Needs::value)), for documents about an app.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
#[cfg_attr(not(feature = "asyncapi"), expect(dead_code, reason = "documents about an app read it"))]
pub struct Payload {
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    /// The media type of the bytes, where one is known.
    pub(crate) content_type: Option<&'static str>,
    /// A header and what stands in it, where that tells the types of a topic apart.
    pub(crate) tag: Option<(&'static str, &'static str)>,
    pub(crate) schema: Option<SchemaText>,
}

/// A schema that is a text of its own.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "asyncapi"), expect(dead_code, reason = "documents about an app read it"))]
pub(crate) struct SchemaText {
    /// The media type of the schema.
    pub(crate) format: &'static str,
    /// `None`: the type has none, or one that is wrong.
    pub(crate) text: fn() -> Option<&'static str>,
}

impl Payload {
    /// A `T`, written as bytes of this media type (`application/json`).
    pub fn of<T: 'static>(content_type: Option<&'static str>) -> Self {
        Self {
            type_id: TypeId::of::<T>(),
            type_name: type_name::<T>(),
            content_type,
            tag: None,
            schema: None,
        }
    }

    /// A `T`, written by its default serde.
    pub fn written<T: DefaultSerde>() -> Self {
        Self::of::<T>(T::Serde::default().content_type())
    }

    /// Its schema, which is a text, by the media type of what the schema is written in.
    #[must_use]
    pub fn with_schema(self, format: &'static str, text: fn() -> Option<&'static str>) -> Self {
        Self { schema: Some(SchemaText { format, text }), ..self }
    }

    /// It is what stands under this name in this header.
    #[must_use]
    pub fn tagged(self, header: &'static str, name: &'static str) -> Self {
        Self { tag: Some((header, name)), ..self }
    }
}

/// What JSON Schema calls a type that is written in one piece; `None` for all others.
pub(crate) fn kind_of(type_id: TypeId) -> Option<&'static str> {
    let is = |ids: &[TypeId]| ids.contains(&type_id);
    if is(&[TypeId::of::<String>(), TypeId::of::<std::sync::Arc<str>>(), TypeId::of::<Box<str>>()]) {
        return Some("string");
    }
    if is(&[TypeId::of::<bool>()]) {
        return Some("boolean");
    }
    if is(&[TypeId::of::<f32>(), TypeId::of::<f64>()]) {
        return Some("number");
    }
    let signed = [TypeId::of::<i8>(), TypeId::of::<i16>(), TypeId::of::<i32>(), TypeId::of::<i64>()];
    let unsigned = [TypeId::of::<u8>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()];
    let wide = [TypeId::of::<i128>(), TypeId::of::<u128>()];
    (is(&signed) || is(&unsigned) || is(&wide)).then_some("integer")
}
