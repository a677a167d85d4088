//! What a registry says no with: an HTTP status, a code of its own, a sentence.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) code: i64,
    pub(super) message: String,
}

impl Fault {
    /// The status is the first three digits of the code.
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        let status = if code >= 1000 { (code / 100) as u16 } else { code as u16 };
        Self { status, code, message: message.into() }
    }

    pub(super) fn no_subject(subject: &str) -> Self {
        Self::new(40_401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn no_version(version: impl std::fmt::Display) -> Self {
        Self::new(40_402, format!("Version {version} not found."))
    }

    pub(super) fn no_schema() -> Self {
        Self::new(40_403, "Schema not found")
    }

    pub(super) fn invalid_schema(reason: impl std::fmt::Display) -> Self {
        Self::new(42_201, format!("Invalid schema: {reason}"))
    }

    pub(super) fn no_such_place() -> Self {
        Self::new(404, "HTTP 404 Not Found")
    }
}
