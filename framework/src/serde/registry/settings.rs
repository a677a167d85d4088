//! Where a schema registry is, and what is done with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use klamm_client::security::Tls;
use klamm_runtime::{Net, TcpNet};

use super::url::Url;
use super::{RegistryError, SubjectNaming};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a request is tried that fails on the way or in the server.
const ATTEMPTS: usize = 3;
/// How long the newest version of a subject counts as the newest.
const LATEST_TTL: Duration = Duration::from_secs(60);
/// How long an id that is not there is not asked for again: bad records come in crowds.
const MISSING_TTL: Duration = Duration::from_secs(10);

/// The settings of a [`SchemaRegistry`](super::SchemaRegistry); made by its `builder`. Where Confluent's
/// serializers have a setting, it has the same name and default.
#[derive(Debug, Clone)]
#[must_use = "nothing is made before `build`"]
pub struct SchemaRegistryBuilder {
    urls: String,
    settings: Settings,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) urls: Vec<Url>,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<Arc<str>>,
    pub(super) tls: Tls,
    pub(super) net: Arc<dyn Net>,
    pub(super) timeout: Duration,
    pub(super) attempts: usize,
    pub(super) auto_register: bool,
    pub(super) use_latest: bool,
    pub(super) normalize: bool,
    pub(super) naming: SubjectNaming,
    pub(super) latest_ttl: Duration,
    pub(super) missing_ttl: Duration,
}

impl SchemaRegistryBuilder {
    pub(super) fn new(urls: String) -> Self {
        let settings = Settings {
            urls: Vec::new(),
            authorization: None,
            tls: Tls::new(),
            net: Arc::new(TcpNet),
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            auto_register: true,
            use_latest: false,
            normalize: false,
            naming: SubjectNaming::Topic,
            latest_ttl: LATEST_TTL,
            missing_ttl: MISSING_TTL,
        };
        Self { urls, settings }
    }

    /// Further addresses of the same registry, separated by commas: the next one is asked when one does not answer.
    pub fn also_at(mut self, urls: &str) -> Self {
        self.urls.push(',');
        self.urls.push_str(urls);
        self
    }

    /// Logs in with a name and a password (`basic.auth.user.info`); they may also stand in the URL.
    pub fn basic_auth(mut self, user: &str, password: &str) -> Self {
        self.settings.authorization = Some(basic(user, password));
        self
    }

    /// Logs in with a token (`bearer.auth.token`).
    pub fn bearer_token(mut self, token: &str) -> Self {
        self.settings.authorization = Some(format!("Bearer {token}").into());
        self
    }

    /// Whom to trust at `https://`, and which certificate to show; default the roots of the operating system.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = tls;
        self
    }

    /// Another network, as the in-memory one of a test.
    pub fn net(mut self, net: Arc<dyn Net>) -> Self {
        self.settings.net = net;
        self
    }

    /// How long one request may take; default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How often a request is tried, at one address after the other, when nobody answers or the server fails (5xx);
    /// default 3. What the registry refuses is never tried again.
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.settings.attempts = attempts.max(1);
        self
    }

    /// Registers a type's schema when its first value is written (`auto.register.schemas`); default `true`. Otherwise
    /// the schema must be there.
    pub fn auto_register(mut self, auto_register: bool) -> Self {
        self.settings.auto_register = auto_register;
        self
    }

    /// Writes with the newest schema of the subject instead of the type's own (`use.latest.version`); default `false`.
    /// Nothing is registered then.
    pub fn use_latest(mut self, use_latest: bool) -> Self {
        self.settings.use_latest = use_latest;
        self
    }

    /// Lets the registry bring schemas into a normal form before it compares them (`normalize.schemas`); default
    /// `false`.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.settings.normalize = normalize;
        self
    }

    /// How subjects are named (`value.subject.name.strategy`); default [`SubjectNaming::Topic`].
    pub fn subjects(mut self, naming: SubjectNaming) -> Self {
        self.settings.naming = naming;
        self
    }

    /// How long the newest version of a subject counts as the newest (`latest.cache.ttl.sec`); default a minute.
    pub fn latest_ttl(mut self, ttl: Duration) -> Self {
        self.settings.latest_ttl = ttl;
        self
    }

    /// How long an id that the registry does not have is not asked for again (`missing.id.cache.ttl.sec`); default
    /// 10 s.
    pub fn missing_ttl(mut self, ttl: Duration) -> Self {
        self.settings.missing_ttl = ttl;
        self
    }

    /// The settings, checked.
    ///
    /// # Errors
    /// A setting that cannot work.
    pub(super) fn checked(mut self) -> Result<Settings, RegistryError> {
        let urls = self.urls.split(',').map(str::trim).filter(|url| !url.is_empty());
        self.settings.urls = urls.map(Url::parse).collect::<Result<_, _>>()?;
        let Some(first) = self.settings.urls.first() else {
            return Err(RegistryError::Config { setting: "builder(urls)", reason: "there is no URL".into() });
        };
        if let (None, Some((user, password))) = (&self.settings.authorization, &first.user) {
            self.settings.authorization = Some(basic(user, password));
        }
        if let Some(authorization) = &self.settings.authorization
            && hyper::header::HeaderValue::from_str(authorization).is_err()
        {
            let reason = "the login holds characters that HTTP cannot carry".into();
            return Err(RegistryError::Config { setting: "bearer_token", reason });
        }
        Ok(self.settings)
    }
}

fn basic(user: &str, password: &str) -> Arc<str> {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into()
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("urls", &self.urls)
            .field("authorization", &self.authorization.is_some())
            .field("auto_register", &self.auto_register)
            .field("use_latest", &self.use_latest)
            .field("normalize", &self.normalize)
            .field("naming", &self.naming)
            .finish_non_exhaustive()
    }
}
