//! `Security` and `Sasl`: what a client is set to.

use std::fmt;
use std::sync::Arc;

use super::oauth::TokenProvider;
use super::scram::Hash;
use super::secret::Secret;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::error::ConfigError;

/// How connections are secured (`security.protocol`). Default: not at all.
///
/// ```
/// use klamm_client::security::{Sasl, Security, Tls};
///
/// # let root_pem = "";
/// let security = Security::tls(Tls::new().roots_pem(root_pem)).sasl(Sasl::scram_sha_512("orders", "secret"));
/// assert!(!format!("{security:?}").contains("secret"));
/// ```
#[derive(Clone, Default)]
pub struct Security {
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    sasl: Option<Sasl>,
    danger_plaintext_credentials: bool,
}

impl Security {
    /// Neither TLS nor a login (`PLAINTEXT`).
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// TLS (`SSL`; with [`Security::sasl`], `SASL_SSL`).
    #[cfg(feature = "tls")]
    pub fn tls(tls: Tls) -> Self {
        Self { tls: Some(tls), ..Self::default() }
    }

    /// A login (without TLS `SASL_PLAINTEXT`).
    #[must_use]
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// Lets a password (PLAIN) or a token (OAUTHBEARER) go over connections without TLS, where everybody on the way can
    /// read it. SCRAM needs no such leave.
    #[must_use]
    pub fn danger_plaintext_credentials(mut self) -> Self {
        self.danger_plaintext_credentials = true;
        self
    }

    pub(crate) fn login(&self) -> Option<&Sasl> {
        self.sasl.as_ref()
    }

    #[cfg(feature = "tls")]
    pub(crate) fn encryption(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// What cannot work, named; called before anything is sent.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        let Some(sasl) = &self.sasl else { return Ok(()) };
        sasl.check()?;
        if sasl.reveals_credentials() && !self.is_encrypted() && !self.danger_plaintext_credentials {
            return Err(ConfigError::new(
                "security",
                format!(
                    "{} without TLS shows the credentials to everybody on the way: use `Security::tls`, SCRAM, or \
                     `danger_plaintext_credentials`",
                    sasl.mechanism()
                ),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("tls", &self.is_encrypted()).field("sasl", &self.sasl).finish()
    }
}

/// Who the client is, and how that is proved (`sasl.mechanism`). Passwords and tokens are never shown: not by `Debug`,
/// not in logs, not in errors.
#[derive(Clone)]
pub struct Sasl(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Plain { user: Arc<str>, password: Secret },
    Scram { hash: Hash, user: Arc<str>, password: Secret },
    OAuth(Arc<dyn TokenProvider>),
}

impl Sasl {
    /// PLAIN: user and password, as they are. Over TLS only, unless [`Security::danger_plaintext_credentials`].
    pub fn plain(user: impl Into<Arc<str>>, password: impl Into<Arc<str>>) -> Self {
        Self(Kind::Plain { user: user.into(), password: Secret::new(password) })
    }

    /// SCRAM-SHA-256: proves that the password is known and does not send it. The broker proves the same.
    pub fn scram_sha_256(user: impl Into<Arc<str>>, password: impl Into<Arc<str>>) -> Self {
        Self(Kind::Scram { hash: Hash::Sha256, user: user.into(), password: Secret::new(password) })
    }

    /// SCRAM-SHA-512: as [`Sasl::scram_sha_256`] with the longer hash.
    pub fn scram_sha_512(user: impl Into<Arc<str>>, password: impl Into<Arc<str>>) -> Self {
        Self(Kind::Scram { hash: Hash::Sha512, user: user.into(), password: Secret::new(password) })
    }

    /// OAUTHBEARER: a token from elsewhere. Over TLS only, unless [`Security::danger_plaintext_credentials`].
    pub fn oauth_bearer(provider: impl TokenProvider) -> Self {
        Self(Kind::OAuth(Arc::new(provider)))
    }

    /// Kafka's name of the mechanism.
    pub fn mechanism(&self) -> &'static str {
        match &self.0 {
            Kind::Plain { .. } => "PLAIN",
            Kind::Scram { hash: Hash::Sha256, .. } => "SCRAM-SHA-256",
            Kind::Scram { hash: Hash::Sha512, .. } => "SCRAM-SHA-512",
            Kind::OAuth(_) => "OAUTHBEARER",
        }
    }

    fn user(&self) -> Option<&Arc<str>> {
        match &self.0 {
            Kind::Plain { user, .. } | Kind::Scram { user, .. } => Some(user),
            Kind::OAuth(_) => None,
        }
    }

    fn reveals_credentials(&self) -> bool {
        !matches!(self.0, Kind::Scram { .. })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (user, password) = match &self.0 {
            Kind::Plain { user, password } | Kind::Scram { user, password, .. } => (user, password),
            Kind::OAuth(_) => return Ok(()),
        };
        if user.is_empty() || password.reveal().is_empty() {
            return Err(ConfigError::new("security", "user and password must not be empty"));
        }
        if user.contains('\0') || password.reveal().contains('\0') {
            return Err(ConfigError::new("security", "user and password must not contain NUL"));
        }
        Ok(())
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.mechanism()).field("user", &self.user()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::Token;

    struct NoTokens;

    #[async_trait::async_trait]
    impl TokenProvider for NoTokens {
        async fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
            Err("none".into())
        }
    }

    fn refused(security: Security) -> String {
        security.check().unwrap_err().to_string()
    }

    #[test]
    fn credentials_do_not_go_in_the_clear_unasked() {
        for sasl in [Sasl::plain("u", "p"), Sasl::oauth_bearer(NoTokens)] {
            let security = Security::plaintext().sasl(sasl);
            assert!(refused(security.clone()).contains("without TLS"));
            assert!(security.danger_plaintext_credentials().check().is_ok());
        }
        for sasl in [Sasl::scram_sha_256("u", "p"), Sasl::scram_sha_512("u", "p")] {
            assert!(Security::plaintext().sasl(sasl).check().is_ok());
        }
        assert!(Security::plaintext().check().is_ok());
        #[cfg(feature = "tls")]
        {
            let tls = Tls::new().danger_accept_invalid_certificates();
            assert!(Security::tls(tls).sasl(Sasl::plain("u", "p")).check().is_ok());
        }
    }

    #[test]
    fn names_and_passwords_that_cannot_work_are_named_before_anything_is_sent() {
        let cases = [("", "p"), ("u", ""), ("u\0", "p"), ("u", "p\0q")];
        for (user, password) in cases {
            for sasl in [Sasl::plain(user, password), Sasl::scram_sha_256(user, password)] {
                let security = Security::plaintext().danger_plaintext_credentials().sasl(sasl);
                let text = refused(security);
                assert!(text.contains("user and password must not"), "{text}");
                assert!(!text.contains("p\0q"), "{text}");
            }
        }
    }

    #[test]
    fn debug_tells_who_and_how_but_no_secret() {
        let shown = |sasl: Sasl| format!("{:?}", Security::plaintext().sasl(sasl));
        assert_eq!(
            shown(Sasl::plain("alice", "hunter2")),
            "Security { tls: false, sasl: Some(PLAIN { user: Some(\"alice\"), .. }) }"
        );
        for sasl in [Sasl::scram_sha_256("alice", "hunter2"), Sasl::scram_sha_512("alice", "hunter2")] {
            let text = shown(sasl);
            assert!(text.contains("SCRAM-SHA-") && !text.contains("hunter2"), "{text}");
        }
        assert!(shown(Sasl::oauth_bearer(NoTokens)).contains("OAUTHBEARER { user: None, .. }"));
    }
}
