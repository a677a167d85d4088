//! Avro: compact, with a schema that says what was written and can change.
//!
//! ```text
//! record_type.rs   AvroType: the schema of a type
//! resolved.rs      a writer's schema and a type's, made ready for reading
//! single.rs        AvroSerde by itself: Avro's single-object encoding
//! registered.rs    AvroSerde in a registry
//! ```

mod record_type;
#[cfg(feature = "schema-registry")]
mod registered;
mod resolved;
mod single;

pub use apache_avro::{AvroSchema, Schema as AvroSchemaText};
pub use record_type::{AvroRecord, AvroType};
pub use single::AvroSerde;
