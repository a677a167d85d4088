//! Text that is never shown.

use std::fmt;
use std::sync::Arc;

/// A password or token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Arc<str>);

impl Secret {
    pub(super) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text: for the wire, never for a message to people.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Other people's words without the secret, should they have repeated it.
    pub(super) fn redact(&self, words: &str) -> String {
        if self.0.is_empty() { words.to_owned() } else { words.replace(&*self.0, "***") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.reveal(), "hunter2");
        assert_eq!(secret.redact("no hunter2, no hunter"), "no ***, no hunter");
        assert_eq!(Secret::new("").redact("as it is"), "as it is");
    }
}
