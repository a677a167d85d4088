//! A bound on how deep and how many: bytes that say "and inside of it another" a million times must not use up the
//! stack, nor "a thousand million times nothing" a processor. For formats whose libraries have no such bounds.

use std::cell::Cell;
use std::fmt;

use ::serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// How deep a value may be nested; the bound that `serde_json` has.
pub(super) const DEPTH_MAX: usize = 128;
/// How many elements all lists of one value may have together: elements of no size take no bytes.
const ELEMENTS_MAX: usize = 1 << 26;

/// A `T` whose depth is bounded while it is read.
pub(super) struct Bounded<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements = Cell::new(ELEMENTS_MAX);
        let bounds = Bounds { depth: DEPTH_MAX, elements: &elements };
        T::deserialize(Within { inner: deserializer, bounds }).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Bounds<'b> {
    depth: usize,
    elements: &'b Cell<usize>,
}

impl<'b> Bounds<'b> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(E::custom(format_args!("it is nested deeper than {DEPTH_MAX} levels"))),
        }
    }

    fn one_more<E: Error>(self) -> Result<(), E> {
        let left = self.elements.get().checked_sub(1);
        self.elements.set(left.ok_or_else(|| E::custom("it has too many elements"))?);
        Ok(())
    }
}

/// A deserializer, visitor, seed or access, and what may still be in it.
struct Within<'b, X> {
    inner: X,
    bounds: Bounds<'b>,
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $ty:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Within { inner: visitor, bounds: self.bounds })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Within<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any(); deserialize_bool(); deserialize_i8(); deserialize_i16(); deserialize_i32();
        deserialize_i64(); deserialize_i128(); deserialize_u8(); deserialize_u16(); deserialize_u32();
        deserialize_u64(); deserialize_u128(); deserialize_f32(); deserialize_f64(); deserialize_char();
        deserialize_str(); deserialize_string(); deserialize_bytes(); deserialize_byte_buf();
        deserialize_option(); deserialize_unit(); deserialize_seq(); deserialize_map();
        deserialize_identifier(); deserialize_ignored_any();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $ty:ty),*) => {$(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str,
        visit_string: String, visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let bounds = self.bounds.deeper()?;
        self.inner.visit_some(Within { inner: deserializer, bounds })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let bounds = self.bounds.deeper()?;
        self.inner.visit_newtype_struct(Within { inner: deserializer, bounds })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let bounds = self.bounds.deeper()?;
        self.inner.visit_seq(Within { inner: access, bounds })
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let bounds = self.bounds.deeper()?;
        self.inner.visit_map(Within { inner: access, bounds })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let bounds = self.bounds.deeper()?;
        self.inner.visit_enum(Within { inner: access, bounds })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Within<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Within { inner: deserializer, bounds: self.bounds })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Within<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.bounds.one_more()?;
        self.inner.next_element_seed(Within { inner: seed, bounds: self.bounds })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Within<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.bounds.one_more()?;
        self.inner.next_key_seed(Within { inner: seed, bounds: self.bounds })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Within { inner: seed, bounds: self.bounds })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Within<'b, A> {
    type Error = A::Error;
    type Variant = Within<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let bounds = self.bounds;
        let (value, variant) = self.inner.variant_seed(Within { inner: seed, bounds })?;
        Ok((value, Within { inner: variant, bounds }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Within<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Within { inner: seed, bounds: self.bounds })
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Within { inner: visitor, bounds: self.bounds })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Within { inner: visitor, bounds: self.bounds })
    }
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use std::collections::BTreeMap;

    use ::serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Nothing,
        Number(i64),
        Pair(u8, Option<String>),
        Named { inner: Vec<Shape>, by_name: BTreeMap<String, Shape> },
    }

    #[test]
    fn everything_passes_through() {
        let by_name = BTreeMap::from([("a".to_owned(), Shape::Pair(1, Some("x".to_owned())))]);
        let shape =
            Shape::Named { inner: vec![Shape::Nothing, Shape::Number(-3), Shape::Pair(2, None)], by_name };
        let text = serde_json::to_string(&shape).unwrap();
        assert_eq!(serde_json::from_str::<Bounded<Shape>>(&text).unwrap().0, shape);
    }

    #[test]
    fn too_deep_is_an_error() {
        // `serde_json` has the same bound, which is counted differently: 100 levels of ours are well below it.
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(serde_json::from_str::<Bounded<serde_json::Value>>(&nested(100)).is_ok());
        let mut deep = serde_json::Deserializer::from_str("[[[[]]]]");
        let elements = Cell::new(10);
        let bounds = Bounds { depth: 3, elements: &elements };
        let read = serde_json::Value::deserialize(Within { inner: &mut deep, bounds });
        assert!(read.unwrap_err().to_string().contains("deeper"));
    }

    #[test]
    fn too_many_is_an_error() {
        let mut list = serde_json::Deserializer::from_str("[1, 2, [3, 4]]");
        let elements = Cell::new(5);
        let bounds = Bounds { depth: 9, elements: &elements };
        let read = serde_json::Value::deserialize(Within { inner: &mut list, bounds });
        assert!(read.unwrap_err().to_string().contains("too many"));
    }
}
