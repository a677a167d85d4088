//! PLAIN (RFC 4616): user and password as they are (pure).

use super::mechanism::{LoginError, Mechanism};
use super::secret::Secret;

/// A login by PLAIN.
pub(super) struct Plain {
    user: String,
    password: Secret,
}

impl Plain {
    pub(super) fn new(user: &str, password: &Secret) -> Self {
        Self { user: user.to_owned(), password: password.clone() }
    }
}

impl Mechanism for Plain {
    fn first(&mut self) -> Result<Vec<u8>, LoginError> {
        // NUL separates the parts: with one inside, the broker would read others than were meant.
        if self.user.contains('\0') || self.password.reveal().contains('\0') {
            return Err(LoginError::Unusable("user and password must not contain NUL"));
        }
        Ok(format!("\0{}\0{}", self.user, self.password.reveal()).into_bytes())
    }

    fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, LoginError> {
        if challenge.is_empty() { Ok(None) } else { Err(LoginError::Malformed("PLAIN has no challenge")) }
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn redact(&self, words: &str) -> String {
        self.password.redact(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(user: &str, password: &str) -> Plain {
        Plain::new(user, &Secret::new(password))
    }

    #[test]
    fn one_message_says_all() {
        let mut login = plain("tim", "tanstaaftanstaaf");
        assert_eq!(login.first().unwrap(), b"\0tim\0tanstaaftanstaaf");
        assert_eq!(login.answer(b"").unwrap(), None);
        assert!(login.is_complete());
        assert!(matches!(login.answer(b"more"), Err(LoginError::Malformed(_))));
        assert_eq!(login.redact("bad password tanstaaftanstaaf"), "bad password ***");
    }

    #[test]
    fn nul_would_change_the_meaning() {
        for (user, password) in [("a\0b", "c"), ("a", "b\0c"), ("", "\0")] {
            let error = plain(user, password).first().unwrap_err();
            assert!(matches!(error, LoginError::Unusable(_)), "{error}");
        }
    }
}
