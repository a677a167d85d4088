//! `Field`: what can stand in a message, and how each type is written in the current version.

use bytes::Bytes;

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::primitives::{Records, Utf8Bytes, Uuid};

/// A value inside a message. `#[derive(Message)]` implements it for structures.
pub trait Field: Sized {
    /// A lower bound of the encoded size in bytes, over all versions.
    const MIN_SIZE: usize;

    /// Appends the value in the encoder's version.
    fn put(&self, out: &mut Encoder) -> Result<(), EncodeError>;

    /// Reads a value in the decoder's version.
    fn take(input: &mut Decoder) -> Result<Self, DecodeError>;

    /// Appends the value or null. Structures put a byte before themselves: -1 for null, 1 otherwise.
    fn put_nullable(value: Option<&Self>, out: &mut Encoder) -> Result<(), EncodeError> {
        match value {
            Some(value) => {
                out.put_i8(1);
                value.put(out)
            }
            None => {
                out.put_i8(-1);
                Ok(())
            }
        }
    }

    /// Reads a value or null.
    fn take_nullable(input: &mut Decoder) -> Result<Option<Self>, DecodeError> {
        match input.take_i8()? {
            -1 => Ok(None),
            1 => Self::take(input).map(Some),
            other => Err(input.error(DecodeErrorKind::InvalidMarker(other))),
        }
    }
}

/// For derived code: a field that is nullable in some versions only.
#[doc(hidden)]
pub fn put_option<T: Field>(
    value: &Option<T>,
    nullable: bool,
    field: &'static str,
    out: &mut Encoder,
) -> Result<(), EncodeError> {
    match value {
        value if nullable => T::put_nullable(value.as_ref(), out),
        Some(value) => value.put(out),
        None => Err(EncodeError::NullField { field, version: out.version() }),
    }
}

/// For derived code: a field that is nullable in some versions only.
#[doc(hidden)]
pub fn take_option<T: Field>(nullable: bool, input: &mut Decoder) -> Result<Option<T>, DecodeError> {
    if nullable { T::take_nullable(input) } else { T::take(input).map(Some) }
}

macro_rules! fixed_field {
    ($($type:ty: $size:literal $put:ident $take:ident;)*) => {$(
        impl Field for $type {
            const MIN_SIZE: usize = $size;

            fn put(&self, out: &mut Encoder) -> Result<(), EncodeError> {
                out.$put(*self);
                Ok(())
            }

            fn take(input: &mut Decoder) -> Result<Self, DecodeError> {
                input.$take()
            }
        }
    )*};
}

fixed_field! {
    bool: 1 put_bool take_bool;
    i8: 1 put_i8 take_i8;
    i16: 2 put_i16 take_i16;
    i32: 4 put_i32 take_i32;
    i64: 8 put_i64 take_i64;
    u16: 2 put_u16 take_u16;
    u32: 4 put_u32 take_u32;
    f64: 8 put_f64 take_f64;
    Uuid: 16 put_uuid take_uuid;
}

impl Field for Utf8Bytes {
    const MIN_SIZE: usize = 1;

    fn put(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_string(self)
    }

    fn take(input: &mut Decoder) -> Result<Self, DecodeError> {
        input.take_string()
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_nullable_string(value.map(|text| &**text))
    }

    fn take_nullable(input: &mut Decoder) -> Result<Option<Self>, DecodeError> {
        input.take_nullable_string()
    }
}

impl Field for Bytes {
    const MIN_SIZE: usize = 1;

    fn put(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_bytes(self)
    }

    fn take(input: &mut Decoder) -> Result<Self, DecodeError> {
        input.take_bytes()
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_nullable_bytes(value.map(|bytes| &**bytes))
    }

    fn take_nullable(input: &mut Decoder) -> Result<Option<Self>, DecodeError> {
        input.take_nullable_bytes()
    }
}

impl Field for Records {
    const MIN_SIZE: usize = 1;

    fn put(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_records(Some(self))
    }

    fn take(input: &mut Decoder) -> Result<Self, DecodeError> {
        input.take_bytes().map(Self::Bytes)
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_records(value)
    }

    fn take_nullable(input: &mut Decoder) -> Result<Option<Self>, DecodeError> {
        Ok(input.take_nullable_bytes()?.map(Self::Bytes))
    }
}

impl<T: Field> Field for Vec<T> {
    const MIN_SIZE: usize = 1;

    fn put(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.put_array_len(Some(self.len()))?;
        self.iter().try_for_each(|element| element.put(out))
    }

    fn take(input: &mut Decoder) -> Result<Self, DecodeError> {
        Self::take_nullable(input)?.ok_or_else(|| input.error(DecodeErrorKind::UnexpectedNull))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder) -> Result<(), EncodeError> {
        match value {
            Some(elements) => elements.put(out),
            None => out.put_array_len(None),
        }
    }

    fn take_nullable(input: &mut Decoder) -> Result<Option<Self>, DecodeError> {
        let Some(count) = input.take_array_len(T::MIN_SIZE)? else { return Ok(None) };
        input.expect_elements(count, size_of::<T>())?;
        // The count is possible but not yet true, and an element takes more room here than on the wire. So no more is
        // allocated ahead than the bytes that are left; the rest when so many elements have arrived, and at once, for a
        // vector that grows step by step holds its elements twice.
        let affordable = input.remaining() / size_of::<T>().max(1) + 1;
        let mut elements = Self::with_capacity(count.min(affordable));
        for index in 0..count {
            if index == elements.capacity() {
                elements.reserve_exact(count - index);
            }
            elements.push(T::take(input)?);
        }
        Ok(Some(elements))
    }
}
