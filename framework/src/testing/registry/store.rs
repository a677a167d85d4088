//! What a registry keeps: schemas by id, versions by subject, and which may follow which. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::Fault;
use crate::serde::avro_shape::{Shape, reads};
use crate::serde::registry::{Compatibility, Schema, SchemaReference, SchemaType};

/// A registry's content. Everything is in order, so that the same requests give the same answers.
pub(super) struct Store {
    schemas: BTreeMap<i32, Schema>,
    next_id: i32,
    subjects: BTreeMap<String, Subject>,
    compatibility: Compatibility,
    compatibilities: BTreeMap<String, Compatibility>,
    mode: String,
    modes: BTreeMap<String, String>,
}

/// Versions are numbered for ever: one that was deleted does not come back.
#[derive(Default)]
struct Subject {
    versions: BTreeMap<i32, Entry>,
    last: i32,
}

#[derive(Clone, Copy)]
struct Entry {
    id: i32,
    is_deleted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Latest,
    Number(i32),
}

/// Id, version, schema.
type Placed<'a> = (i32, i32, &'a Schema);

impl Default for Store {
    fn default() -> Self {
        Self {
            schemas: BTreeMap::new(),
            next_id: 1,
            subjects: BTreeMap::new(),
            compatibility: Compatibility::Backward,
            compatibilities: BTreeMap::new(),
            mode: "READWRITE".to_owned(),
            modes: BTreeMap::new(),
        }
    }
}

impl Store {
    pub(super) fn by_id(&self, id: i32) -> Result<&Schema, Fault> {
        self.schemas.get(&id).ok_or_else(Fault::no_schema)
    }

    /// Subject and version of each place that has the id, deleted ones left out.
    pub(super) fn places_of(&self, id: i32) -> impl Iterator<Item = (&str, i32)> {
        self.subjects.iter().flat_map(move |(name, subject)| {
            let versions =
                subject.versions.iter().filter(move |(_, entry)| entry.id == id && !entry.is_deleted);
            versions.map(|(version, _)| (name.as_str(), *version))
        })
    }

    pub(super) fn subjects(&self, prefix: &str, with_deleted: bool) -> Vec<&str> {
        let there = self.subjects.iter().filter(|(name, subject)| {
            name.starts_with(prefix) && subject.seen(with_deleted).next().is_some()
        });
        there.map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn versions(&self, subject: &str, with_deleted: bool) -> Result<Vec<i32>, Fault> {
        Ok(self.subject(subject, with_deleted)?.seen(with_deleted).map(|(version, _)| version).collect())
    }

    pub(super) fn version(
        &self,
        subject: &str,
        which: Which,
        with_deleted: bool,
    ) -> Result<Placed<'_>, Fault> {
        let mut seen = self.subject(subject, with_deleted)?.seen(with_deleted);
        let found = match which {
            Which::Latest => seen.last().ok_or_else(|| Fault::no_version("latest")),
            Which::Number(number) => {
                seen.find(|(version, _)| *version == number).ok_or_else(|| Fault::no_version(number))
            }
        };
        let (version, entry) = found?;
        Ok((entry.id, version, self.by_id(entry.id)?))
    }

    pub(super) fn find(
        &self,
        subject: &str,
        schema: &Schema,
        with_deleted: bool,
    ) -> Result<Placed<'_>, Fault> {
        let wanted = same_form(schema);
        let seen = self.subject(subject, with_deleted)?.seen(with_deleted);
        for (version, entry) in seen {
            let schema = self.by_id(entry.id)?;
            if same_form(schema) == wanted {
                return Ok((entry.id, version, schema));
            }
        }
        Err(Fault::no_schema())
    }

    pub(super) fn register(&mut self, subject: &str, schema: Schema) -> Result<i32, Fault> {
        self.shape(&schema)?;
        if self.mode(Some(subject), true)? == "READONLY" {
            return Err(Fault::new(42_205, format!("Subject {subject} is in read-only mode")));
        }
        if let Ok((id, ..)) = self.find(subject, &schema, false) {
            return Ok(id);
        }
        let faults = self.faults(subject, None, &schema)?;
        if !faults.is_empty() {
            let message = format!(
                "Schema being registered is incompatible with an earlier schema: {}",
                faults.join("; ")
            );
            return Err(Fault::new(409, message));
        }
        let form = same_form(&schema);
        let known = self.schemas.iter().find(|(_, known)| same_form(known) == form).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            let id = self.next_id;
            self.next_id += 1;
            self.schemas.insert(id, schema);
            id
        });
        let subject = self.subjects.entry(subject.to_owned()).or_default();
        subject.last += 1;
        subject.versions.insert(subject.last, Entry { id, is_deleted: false });
        Ok(id)
    }

    /// What keeps a schema from following one version, or, without one, those that the subject's level names.
    pub(super) fn faults(
        &self,
        subject: &str,
        which: Option<Which>,
        schema: &Schema,
    ) -> Result<Vec<String>, Fault> {
        let level = self.compatibility(Some(subject), true)?;
        let new = self.shape(schema)?;
        let earlier: Vec<i32> = match which {
            Some(which) => vec![self.version(subject, which, false)?.0],
            None => {
                let seen = self.subjects.get(subject).into_iter().flat_map(|subject| subject.seen(false));
                let all: Vec<i32> = seen.map(|(_, entry)| entry.id).collect();
                let first = if is_transitive(level) { 0 } else { all.len().saturating_sub(1) };
                all[first..].to_vec()
            }
        };
        let mut faults = Vec::new();
        for id in earlier {
            let old = self.by_id(id)?;
            if old.schema_type != schema.schema_type && level != Compatibility::None {
                faults.push(format!("{} cannot follow {}", schema.schema_type, old.schema_type));
                continue;
            }
            // Of JSON Schema and Protobuf nothing is compared.
            if let (Some(new), Some(old)) = (&new, self.shape(old)?) {
                faults.extend(misfits(level, new, &old));
            }
        }
        Ok(faults)
    }

    pub(super) fn delete_subject(&mut self, name: &str, permanent: bool) -> Result<Vec<i32>, Fault> {
        let subject = self.subjects.get(name).ok_or_else(|| Fault::no_subject(name))?;
        let living = subject.seen(false).next().is_some();
        match (living, permanent) {
            (true, true) => {
                let message =
                    format!("Subject '{name}' was not deleted first before being permanently deleted");
                return Err(Fault::new(40_405, message));
            }
            (false, false) => {
                let message =
                    format!("Subject '{name}' was soft deleted. Set permanent=true to delete permanently");
                return Err(Fault::new(40_404, message));
            }
            _ => {}
        }
        let versions: Vec<i32> = subject.seen(permanent).map(|(version, _)| version).collect();
        for version in &versions {
            self.check_unreferenced(name, *version)?;
        }
        if permanent {
            self.subjects.remove(name);
            self.forget_unused();
        } else if let Some(subject) = self.subjects.get_mut(name) {
            subject.versions.values_mut().for_each(|entry| entry.is_deleted = true);
        }
        Ok(versions)
    }

    pub(super) fn delete_version(&mut self, name: &str, which: Which, permanent: bool) -> Result<i32, Fault> {
        let (_, version, _) = self.version(name, which, true)?;
        self.check_unreferenced(name, version)?;
        let subject = self.subjects.get_mut(name).ok_or_else(|| Fault::no_subject(name))?;
        let entry = subject.versions.get_mut(&version).ok_or_else(|| Fault::no_version(version))?;
        match (entry.is_deleted, permanent) {
            (true, false) => {
                let message = format!(
                    "Subject '{name}' version {version} was soft deleted. Set permanent=true to delete permanently"
                );
                return Err(Fault::new(40_406, message));
            }
            (false, true) => {
                let message = format!(
                    "Subject '{name}' version {version} was not deleted first before being permanently deleted"
                );
                return Err(Fault::new(40_407, message));
            }
            (false, false) => entry.is_deleted = true,
            (true, true) => {
                subject.versions.remove(&version);
                self.forget_unused();
            }
        }
        Ok(version)
    }

    /// The ids of schemas that use this version.
    pub(super) fn referenced_by(&self, subject: &str, version: i32) -> Vec<i32> {
        let names =
            |reference: &SchemaReference| reference.subject == subject && reference.version == version;
        let using = self.schemas.iter().filter(|(_, schema)| schema.references.iter().any(names));
        using.map(|(id, _)| *id).collect()
    }

    pub(super) fn compatibility(
        &self,
        subject: Option<&str>,
        to_global: bool,
    ) -> Result<Compatibility, Fault> {
        let Some(subject) = subject else { return Ok(self.compatibility) };
        let own = self.compatibilities.get(subject).copied();
        own.or_else(|| to_global.then_some(self.compatibility)).ok_or_else(|| {
            Fault::new(
                40_408,
                format!("Subject '{subject}' does not have subject-level compatibility configured"),
            )
        })
    }

    pub(super) fn set_compatibility(&mut self, subject: Option<&str>, level: Compatibility) {
        match subject {
            Some(subject) => drop(self.compatibilities.insert(subject.to_owned(), level)),
            None => self.compatibility = level,
        }
    }

    pub(super) fn unset_compatibility(&mut self, subject: Option<&str>) -> Result<Compatibility, Fault> {
        match subject {
            Some(subject) => self.compatibilities.remove(subject).ok_or_else(|| Fault::no_subject(subject)),
            None => Ok(std::mem::replace(&mut self.compatibility, Compatibility::Backward)),
        }
    }

    pub(super) fn mode(&self, subject: Option<&str>, to_global: bool) -> Result<&str, Fault> {
        let Some(subject) = subject else { return Ok(&self.mode) };
        let own = self.modes.get(subject);
        own.or_else(|| to_global.then_some(&self.mode)).map(String::as_str).ok_or_else(|| {
            Fault::new(40_409, format!("Subject '{subject}' does not have subject-level mode configured"))
        })
    }

    pub(super) fn set_mode(&mut self, subject: Option<&str>, mode: &str) {
        match subject {
            Some(subject) => drop(self.modes.insert(subject.to_owned(), mode.to_owned())),
            None => self.mode = mode.to_owned(),
        }
    }

    fn subject(&self, name: &str, with_deleted: bool) -> Result<&Subject, Fault> {
        let subject = self.subjects.get(name).filter(|subject| subject.seen(with_deleted).next().is_some());
        subject.ok_or_else(|| Fault::no_subject(name))
    }

    fn check_unreferenced(&self, subject: &str, version: i32) -> Result<(), Fault> {
        if self.referenced_by(subject, version).is_empty() {
            return Ok(());
        }
        let message = format!("One or more references exist to the schema {subject} version {version}");
        Err(Fault::new(42_206, message))
    }

    /// Ids that no subject has any more.
    fn forget_unused(&mut self) {
        let subjects = &self.subjects;
        self.schemas.retain(|id, _| {
            subjects.values().any(|subject| subject.versions.values().any(|entry| entry.id == *id))
        });
    }

    /// Whether a schema is one; the shape of an Avro schema.
    fn shape(&self, schema: &Schema) -> Result<Option<Shape>, Fault> {
        match schema.schema_type {
            SchemaType::Avro => {
                let mut texts = Vec::new();
                self.referenced(schema, &mut texts, 0)?;
                let shape = Shape::parse(&schema.text, texts.iter().map(|text| &**text));
                shape.map(Some).map_err(Fault::invalid_schema)
            }
            SchemaType::Json => match serde_json::from_str::<serde_json::Value>(&schema.text) {
                Ok(value) if value.is_object() || value.is_boolean() => Ok(None),
                _ => Err(Fault::invalid_schema("it is no JSON object")),
            },
            SchemaType::Protobuf if schema.text.trim().is_empty() => {
                Err(Fault::invalid_schema("it is empty"))
            }
            SchemaType::Protobuf => Ok(None),
        }
    }

    /// The texts of what a schema uses, each before the one that needs it.
    fn referenced(&self, schema: &Schema, texts: &mut Vec<Arc<str>>, depth: usize) -> Result<(), Fault> {
        if depth > 32 {
            return Err(Fault::invalid_schema("its references go too deep"));
        }
        for SchemaReference { subject, version, .. } in &schema.references {
            let found = self.version(subject, Which::Number(*version), true);
            let (_, _, used) = found.map_err(|fault| Fault::invalid_schema(fault.message))?;
            self.referenced(used, texts, depth + 1)?;
            if !texts.contains(&used.text) {
                texts.push(Arc::clone(&used.text));
            }
        }
        Ok(())
    }
}

impl Subject {
    fn seen(&self, with_deleted: bool) -> impl Iterator<Item = (i32, Entry)> {
        let seen = self.versions.iter().filter(move |(_, entry)| with_deleted || !entry.is_deleted);
        seen.map(|(version, entry)| (*version, *entry))
    }
}

/// What makes two schemas the same: white space and the order of JSON's members do not count.
fn same_form(schema: &Schema) -> (SchemaType, String, &[SchemaReference]) {
    let json = serde_json::from_str::<serde_json::Value>(&schema.text);
    let text = json.map_or_else(|_| schema.text.trim().to_owned(), |json| json.to_string());
    (schema.schema_type, text, &schema.references)
}

fn is_transitive(level: Compatibility) -> bool {
    use Compatibility::{BackwardTransitive, ForwardTransitive, FullTransitive};
    matches!(level, BackwardTransitive | ForwardTransitive | FullTransitive)
}

/// What keeps one schema from following another.
fn misfits(level: Compatibility, new: &Shape, old: &Shape) -> Vec<String> {
    use Compatibility::{Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive};
    let mut misfits = Vec::new();
    if matches!(level, Backward | BackwardTransitive | Full | FullTransitive)
        && let Err(reason) = reads(new, old)
    {
        misfits.push(format!("the new schema does not read the old one: {reason}"));
    }
    if matches!(level, Forward | ForwardTransitive | Full | FullTransitive)
        && let Err(reason) = reads(old, new)
    {
        misfits.push(format!("the old schema does not read the new one: {reason}"));
    }
    misfits
}
