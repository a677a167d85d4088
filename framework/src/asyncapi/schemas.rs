//! Which types have a JSON Schema: those that the macros saw, and those that the app names.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
#[cfg(feature = "macros")]
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Schemas by type. Looked up, never gone through. Public only for what the macros write.
#[derive(Clone)]
pub struct Schemas(HashMap<TypeId, Make>);

type Make = fn(&mut SchemaGenerator) -> Schema;

impl Schemas {
    /// Those that the macros saw.
    pub(crate) fn declared() -> Self {
        #[cfg_attr(not(feature = "macros"), allow(unused_mut))]
        let mut schemas = Self(HashMap::new());
        #[cfg(feature = "macros")]
        inventory::iter::<DeclaredSchemas>.into_iter().for_each(|declared| (declared.0)(&mut schemas));
        schemas
    }

    /// Adds that of a type.
    pub(crate) fn add<T: JsonSchema + 'static>(&mut self) {
        self.0.insert(TypeId::of::<T>(), SchemaGenerator::subschema_for::<T>);
    }

    pub(super) fn make(&self, type_id: TypeId, generator: &mut SchemaGenerator) -> Option<Schema> {
        self.0.get(&type_id).map(|make| make(generator))
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schemas({})", self.0.len())
    }
}

/// Types that a macro saw.
#[cfg(feature = "macros")]
#[derive(Debug)]
pub struct DeclaredSchemas(fn(&mut Schemas));

#[cfg(feature = "macros")]
impl DeclaredSchemas {
    /// Those that `note` notes.
    pub const fn new(note: fn(&mut Schemas)) -> Self {
        Self(note)
    }
}

#[cfg(feature = "macros")]
inventory::collect!(DeclaredSchemas);

/// Whether a type has a schema, asked where the type is known: of the two methods `note` the one that takes one
/// reference less is found first, if its bound holds.
#[cfg(feature = "macros")]
#[derive(Debug)]
pub struct SchemaOf<T>(PhantomData<fn() -> T>);

#[cfg(feature = "macros")]
impl<T> SchemaOf<T> {
    /// The question.
    pub const NEW: Self = Self(PhantomData);
}

/// It has one.
#[cfg(feature = "macros")]
pub trait HasSchema {
    /// Notes it.
    fn note(&self, schemas: &mut Schemas);
}

#[cfg(feature = "macros")]
impl<T: JsonSchema + 'static> HasSchema for SchemaOf<T> {
    fn note(&self, schemas: &mut Schemas) {
        schemas.add::<T>();
    }
}

/// It has none.
#[cfg(feature = "macros")]
pub trait HasNoSchema {
    /// Notes nothing.
    fn note(&self, _schemas: &mut Schemas) {}
}

#[cfg(feature = "macros")]
impl<T> HasNoSchema for &SchemaOf<T> {}
