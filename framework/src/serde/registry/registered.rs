//! `Registered<S>`: values with the id of their schema in front, the schema in a registry.

use std::any::TypeId;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::client::SchemaRegistry;
use super::known::{Fetched, Found, Written};
use super::wire::{begin, split};
use super::{RegistryError, Schema, SchemaReference, Version};
use crate::serde::{Lookup, LookupError, Serde, SerdeError};

/// How many schemas one may use, all together: references can go in circles.
const REFERENCES_MAX: usize = 100;

/// How long a schema that is there waits for the names of its subjects, which are only for messages.
const SUBJECTS_WAIT: Duration = Duration::from_secs(2);

/// A format whose schemas a registry keeps: what [`Registered`] needs of it for values of type `T`.
pub trait RegistryFormat<T>: fmt::Debug + Default + Clone + Send + Sync + 'static {
    /// A schema in the form in which a `T` is written with it, or read from it.
    type Compiled: Send + Sync + 'static;

    /// The schema that the type has here.
    ///
    /// # Errors
    /// The type's schema is none.
    fn schema() -> Result<&'static TypeSchema, SerdeError>;

    /// A schema that somebody wrote values with, made ready for reading a `T` from them; also for writing one.
    /// `referenced` are the schemas that it uses.
    ///
    /// # Errors
    /// Why a `T` cannot be read.
    fn compile(schema: &Schema, referenced: &[Arc<str>]) -> Result<Self::Compiled, String>;

    /// Adds the value to `out`, as `with` has it, or the type's own schema.
    ///
    /// # Errors
    /// The value does not fit the schema.
    fn write(value: &T, with: Option<&Self::Compiled>, out: &mut Vec<u8>) -> Result<(), SerdeError>;

    /// Reads a value that was written with this schema. The bytes come from outside: never panic on them.
    ///
    /// # Errors
    /// The bytes are something else.
    fn read(written_with: &Self::Compiled, bytes: &[u8]) -> Result<T, SerdeError>;
}

/// The schema of a type, and the name of the record in it.
#[derive(Debug, Clone)]
pub struct TypeSchema {
    /// The schema.
    pub schema: Schema,
    /// Its full name, as `shop.Order`.
    pub name: String,
}

/// Values in the format `S`, with the id of their schema in front, as Confluent's serializers write them.
///
/// A type names it with `#[record(avro, registry)]`; the registry is then the one that the app has as
/// [`state`](crate::App::state). Elsewhere it is handed over: `Registered::<AvroSerde>::new(Some(registry))`.
///
/// The first value of a schema makes the serde ask the registry: it returns [`SerdeError::Pending`], and listeners and
/// templates wait and call again. With a serde of your own in hand, [`deserialize`](crate::serde::deserialize) and
/// [`serialize`](crate::serde::serialize) do that.
pub struct Registered<S> {
    registry: Option<SchemaRegistry>,
    is_key: bool,
    format: PhantomData<fn() -> S>,
}

impl<S> Registered<S> {
    /// With this registry; without one, every value is an error that says so.
    pub fn new(registry: Option<SchemaRegistry>) -> Self {
        Self { registry, is_key: false, format: PhantomData }
    }

    /// For keys: the subject is `<topic>-key`.
    #[must_use]
    pub fn for_keys(mut self) -> Self {
        self.is_key = true;
        self
    }
}

impl<S> Default for Registered<S> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<S> Clone for Registered<S> {
    fn clone(&self) -> Self {
        Self { registry: self.registry.clone(), is_key: self.is_key, format: PhantomData }
    }
}

impl<S: 'static> fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("format", &std::any::type_name::<S>())
            .field("registry", &self.registry)
            .field("is_key", &self.is_key)
            .finish()
    }
}

const NO_REGISTRY: &str = "there is no schema registry: give the app one, \
                           `App::state(SchemaRegistry::builder(url).build()?)`, or the serde, \
                           `Registered::new(Some(registry))`";

impl<T: 'static, S: RegistryFormat<T>> Serde<T> for Registered<S> {
    fn serialize(&self, topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        let registry = self
            .registry
            .as_ref()
            .ok_or_else(|| SerdeError::serialize::<T>("Confluent's wire format", NO_REGISTRY))?;
        let written = registry.written_with::<S, T>(topic, self.is_key)?;
        let latest = match &written.latest {
            Some(latest) => Some(registry.compiled::<S, T>(latest.id)?),
            None => None,
        };
        let mut out = begin(written.id);
        S::write(value, latest.as_deref(), &mut out)?;
        Ok(out.into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        let wrong = |reason: &dyn fmt::Display| {
            SerdeError::deserialize::<T>("Confluent's wire format", bytes.len(), reason.to_string())
        };
        let registry = self.registry.as_ref().ok_or_else(|| wrong(&NO_REGISTRY))?;
        let (id, payload) = split(bytes).map_err(|error| wrong(&error))?;
        let written_with = registry.compiled::<S, T>(id)?;
        S::read(&written_with, payload)
    }
}

impl SchemaRegistry {
    /// The schema of an id, ready for reading or writing a `T`.
    fn compiled<S: RegistryFormat<T>, T: 'static>(&self, id: i32) -> Result<Arc<S::Compiled>, SerdeError> {
        type Made<C> = Result<Arc<C>, String>;
        let reader = TypeId::of::<(S, T)>();
        let refused = |reason: &String| SerdeError::Schema(reason.as_str().into());
        let (compiled, found) = {
            let known = self.known();
            (known.compiled(reader, id), known.schema(id, Instant::now()))
        };
        if let Some(Ok(made)) = compiled.map(Arc::downcast::<Made<S::Compiled>>) {
            return made.as_ref().as_ref().map(Arc::clone).map_err(refused);
        }
        let fetched = match found {
            Found::Schema(fetched) => fetched,
            Found::Missing(error) => return Err(SerdeError::Lookup(LookupError::permanent(error))),
            Found::Unknown => {
                let registry = self.clone();
                let what = format!("the schema with the id {id} at {}", self.url());
                return Err(SerdeError::Pending(Lookup::new(what, async move {
                    registry.fetched(id).await.map(drop).map_err(lookup_error)
                })));
            }
        };
        let made: Made<S::Compiled> = S::compile(&fetched.schema, &fetched.referenced).map(Arc::new).map_err(|reason| {
            format!(
                "the schema with the id {id} ({}) cannot be read as a {}: {reason} (give new fields a default, or set \
                 the subject's compatibility, `set_compatibility`, so that such a schema is refused)",
                under(&fetched.subjects),
                std::any::type_name::<T>()
            )
        });
        self.known().learn_compiled(reader, id, Arc::new(made.clone()));
        made.map_err(|reason| refused(&reason))
    }

    /// With which id, and with which schema, a `T` is written to a topic.
    fn written_with<S: RegistryFormat<T>, T: 'static>(
        &self,
        topic: &str,
        is_key: bool,
    ) -> Result<Arc<Written>, SerdeError> {
        let writer = TypeId::of::<(S, T)>();
        if let Some(written) = self.known().written(writer, is_key, topic, Instant::now()) {
            return Ok(written);
        }
        let schema = S::schema()?;
        let subject = self.inner().settings.naming.subject(topic, &schema.name, is_key);
        let what = format!("the schema of {} under `{subject}` at {}", schema.name, self.url());
        let (registry, topic): (_, Arc<str>) = (self.clone(), topic.into());
        Err(SerdeError::Pending(Lookup::new(what, async move {
            let key = format!("{is_key} {writer:?} {topic} {subject}");
            let asking = registry.clone();
            let ask =
                async move { asking.learn_written(writer, is_key, topic, &subject, &schema.schema).await };
            registry.inner().flights.join(key, ask).await.map_err(lookup_error)
        })))
    }

    async fn learn_written(
        &self,
        writer: TypeId,
        is_key: bool,
        topic: Arc<str>,
        subject: &str,
        schema: &Schema,
    ) -> Result<(), RegistryError> {
        let settings = &self.inner().settings;
        let (written, until) = if settings.use_latest {
            let latest = self.version(subject, Version::Latest).await?;
            let referenced = self.referenced(latest.id, &latest.schema).await?;
            let subjects = vec![subject.to_owned()];
            let fetched = Arc::new(Fetched { id: latest.id, schema: latest.schema, referenced, subjects });
            self.known().learn_schema(Arc::clone(&fetched));
            let until = Instant::now() + settings.latest_ttl;
            (Written { id: latest.id, latest: Some(fetched) }, Some(until))
        } else if settings.auto_register {
            (Written { id: self.register(subject, schema).await?, latest: None }, None)
        } else {
            let found = self.find(subject, schema).await.map_err(|error| match error {
                RegistryError::NotFound { url, message, .. } => {
                    RegistryError::NotRegistered { url, subject: subject.into(), message }
                }
                other => other,
            })?;
            (Written { id: found.id, latest: None }, None)
        };
        self.known().learn_written(writer, is_key, topic, written, until);
        Ok(())
    }

    /// The schema of an id with all that it uses: remembered, or asked for once by all who want it.
    pub(super) async fn fetched(&self, id: i32) -> Result<Arc<Fetched>, RegistryError> {
        for _ in 0..2 {
            let found = self.known().schema(id, Instant::now());
            match found {
                Found::Schema(fetched) => return Ok(fetched),
                Found::Missing(error) => return Err(error),
                Found::Unknown => {
                    let registry = self.clone();
                    let ask = async move { registry.fetch(id).await };
                    self.inner().flights.join(format!("id {id}"), ask).await?;
                }
            }
        }
        Err(RegistryError::Strange { url: self.url(), reason: "it gave a schema that was not kept".into() })
    }

    async fn fetch(&self, id: i32) -> Result<(), RegistryError> {
        let fetched = self.fetch_with_all_it_uses(id).await.inspect_err(|error| {
            if !error.is_transient() {
                let now = Instant::now();
                let until = now + self.inner().settings.missing_ttl;
                self.known().learn_missing(id, error.clone(), now, until);
            }
        })?;
        self.known().learn_schema(Arc::new(fetched));
        Ok(())
    }

    async fn fetch_with_all_it_uses(&self, id: i32) -> Result<Fetched, RegistryError> {
        let schema = self.ask_for_id(id).await?;
        let referenced = self.referenced(id, &schema).await?;
        let subjects = timeout(SUBJECTS_WAIT, self.subjects_of(id)).await.unwrap_or_default();
        Ok(Fetched { id, schema, referenced, subjects })
    }

    /// The texts of all schemas that one uses, each before the one that needs it.
    async fn referenced(&self, id: i32, schema: &Schema) -> Result<Vec<Arc<str>>, RegistryError> {
        enum Step {
            Ask(SchemaReference),
            Take(Arc<str>),
        }
        let (mut texts, mut seen) = (Vec::new(), HashSet::new());
        let asked =
            |references: &[SchemaReference]| references.iter().rev().cloned().map(Step::Ask).collect();
        let mut steps: Vec<Step> = asked(&schema.references);
        while let Some(step) = steps.pop() {
            let reference = match step {
                Step::Take(text) => {
                    texts.push(text);
                    continue;
                }
                Step::Ask(reference) => reference,
            };
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            if seen.len() > REFERENCES_MAX {
                return Err(self.unusable(id, &format!("it uses more than {REFERENCES_MAX} others")));
            }
            let found = self.version(&reference.subject, Version::Number(reference.version)).await?;
            steps.push(Step::Take(found.schema.text));
            steps.extend(asked(&found.schema.references));
        }
        Ok(texts)
    }
}

fn under(subjects: &[String]) -> String {
    match subjects {
        [] => "under a subject that the registry does not tell".to_owned(),
        [one] => format!("under `{one}`"),
        several => format!("under `{}`", several.join("`, `")),
    }
}

fn lookup_error(error: RegistryError) -> LookupError {
    match error.is_transient() {
        true => LookupError::transient(error),
        false => LookupError::permanent(error),
    }
}
