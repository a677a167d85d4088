//! OAUTHBEARER (RFC 7628): a token says who the client is. The messages are pure; tokens come from a `TokenProvider`.

use std::fmt;

use async_trait::async_trait;

use super::mechanism::{LoginError, Mechanism};
use super::secret::Secret;

/// Separates the parts of a message.
const SEPARATOR: char = '\x01';

/// Where tokens come from: asked before each login, and before each session ends.
#[async_trait]
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that is valid now. May ask a server; connecting waits for it, within `connect_timeout`.
    ///
    /// # Errors
    /// No token can be had now. Connecting is tried again; the error's words are told, so they must hold no secret.
    async fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>>;
}

/// A token. Its value is never shown.
#[derive(Debug, Clone)]
pub struct Token {
    value: Secret,
    extensions: Vec<(String, String)>,
}

impl Token {
    /// A token by its value, as it stands behind `Bearer`: for most servers a JWT.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: Secret::new(value.into()), extensions: Vec::new() }
    }

    /// Adds a SASL extension (KIP-342) for the broker.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    fn check(&self) -> Result<(), LoginError> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if self.value.reveal().is_empty() || !self.value.reveal().bytes().all(is_token) {
            return Err(LoginError::Unusable("the token has characters that no bearer token may have"));
        }
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if self.extensions.iter().any(|(name, _)| !is_name(name) || name == "auth") {
            return Err(LoginError::Unusable("an extension's name must be letters, and not `auth`"));
        }
        let is_value = |byte: u8| (b' '..=b'~').contains(&byte) || b"\t\r\n".contains(&byte);
        if self.extensions.iter().any(|(_, value)| !value.bytes().all(is_value)) {
            return Err(LoginError::Unusable("an extension's value must be printable ASCII"));
        }
        Ok(())
    }
}

/// A login by OAUTHBEARER.
pub(super) struct OAuth {
    token: Token,
    /// What the broker said against the token: it wants a last word before it refuses.
    refused: bool,
}

impl OAuth {
    pub(super) fn new(token: Token) -> Self {
        Self { token, refused: false }
    }
}

impl Mechanism for OAuth {
    fn first(&mut self) -> Result<Vec<u8>, LoginError> {
        self.token.check()?;
        let mut message = format!("n,,{SEPARATOR}auth=Bearer {}", self.token.value.reveal());
        for (name, value) in &self.token.extensions {
            message.push_str(&format!("{SEPARATOR}{name}={value}"));
        }
        message.extend([SEPARATOR, SEPARATOR]);
        Ok(message.into_bytes())
    }

    fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, LoginError> {
        match (self.refused, challenge.is_empty()) {
            (false, true) => Ok(None),
            (false, false) => {
                self.refused = true;
                Ok(Some(vec![1]))
            }
            (true, _) => Err(LoginError::Endless),
        }
    }

    fn is_complete(&self) -> bool {
        !self.refused
    }

    fn redact(&self, words: &str) -> String {
        self.token.value.redact(words)
    }
}

impl fmt::Debug for dyn TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_in_one_message() {
        let mut login = OAuth::new(Token::new("a.b-c").extension("logicalCluster", "lkc 1"));
        assert_eq!(login.first().unwrap(), b"n,,\x01auth=Bearer a.b-c\x01logicalCluster=lkc 1\x01\x01");
        assert_eq!(login.answer(b"").unwrap(), None);
        assert!(login.is_complete());
        assert_eq!(OAuth::new(Token::new("x")).first().unwrap(), b"n,,\x01auth=Bearer x\x01\x01");
        assert_eq!(login.redact("no a.b-c"), "no ***");
    }

    #[test]
    fn a_refusal_gets_its_last_word_once() {
        let mut login = OAuth::new(Token::new("x"));
        assert_eq!(login.answer(br#"{"status":"invalid_token"}"#).unwrap(), Some(vec![1]));
        assert!(!login.is_complete());
        assert_eq!(login.answer(b"{}"), Err(LoginError::Endless));
        assert_eq!(login.answer(b""), Err(LoginError::Endless));
        assert!(!login.is_complete());
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_message() {
        let bad = [
            Token::new(""),
            Token::new("a\x01auth=Bearer b"),
            Token::new("a b"),
            Token::new("x").extension("", "1"),
            Token::new("x").extension("auth", "1"),
            Token::new("x").extension("a1", "1"),
            Token::new("x").extension("a", "1\x01b=2"),
            Token::new("x").extension("a", "\u{e4}"),
        ];
        for token in bad {
            let text = format!("{token:?}");
            assert!(text.contains("value: ***"), "{text}");
            assert!(matches!(OAuth::new(token).first(), Err(LoginError::Unusable(_))), "{text}");
        }
        let fine = Token::new("azAZ09-._~+/=").extension("a", " ~\t\r\n");
        assert!(OAuth::new(fine).first().is_ok());
    }
}
