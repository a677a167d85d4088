//! `Shape`: a schema with its names resolved.

/// A schema. Its parts lie in one list and refer to one another by place: records can contain themselves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(super) parts: Vec<Part>,
    pub(super) root: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Primitive(Primitive),
    Fixed {
        name: Name,
        size: usize,
    },
    Enum {
        name: Name,
        symbols: Vec<String>,
        default: Option<String>,
    },
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record {
        name: Name,
        fields: Vec<Field>,
    },
    /// A record whose fields are being read; never in a finished shape.
    Unfinished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

/// The full name of a named type, and its aliases, full too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) full: String,
    pub(super) aliases: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) part: usize,
    pub(super) default: Option<serde_json::Value>,
}

impl Shape {
    /// The name of the schema, where it is a named type.
    pub(crate) fn name(&self) -> Option<&str> {
        match self.part(self.root) {
            Part::Fixed { name, .. } | Part::Enum { name, .. } | Part::Record { name, .. } => {
                Some(&name.full)
            }
            _ => None,
        }
    }

    pub(super) fn part(&self, at: usize) -> &Part {
        self.parts.get(at).unwrap_or(&Part::Unfinished)
    }
}

impl Name {
    /// Without its namespace.
    pub(super) fn short(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or(&self.full)
    }
}

impl Primitive {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "string" => Self::String,
            _ => return None,
        })
    }
}
