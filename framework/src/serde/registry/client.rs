//! `SchemaRegistry`: its REST calls, and what serdes ask of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use bytes::Bytes;
use hyper::Method;
use tokio::time::{sleep, timeout};

use super::flights::Flights;
use super::http::{ANSWER_BYTES_MAX, Answer, NoAnswer, exchange};
use super::known::Known;
use super::model::{
    CompatibilityBody, ErrorBody, FoundBody, IdBody, IsCompatibleBody, SchemaBody, SubjectVersionBody,
};
use super::settings::{SchemaRegistryBuilder, Settings};
use super::url::segment;
use super::{Compatibility, RegistryError, Schema, SubjectVersion, Version};

/// How long to wait before all addresses are tried once more.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How much of a strange answer a message shows.
const SHOWN_BYTES_MAX: usize = 200;

/// A client of a schema registry, for an app's [`state`](crate::App::state) and by itself. Cheap to clone; clones share
/// what was learned.
///
/// ```no_run
/// use klamm::serde::registry::{Schema, SchemaRegistry, SchemaType};
///
/// # async fn run() -> klamm::Result<()> {
/// let registry = SchemaRegistry::builder("http://127.0.0.1:8081").build()?;
/// let id = registry.register("names-value", &Schema::new(SchemaType::Avro, "\"string\"")).await?;
/// assert_eq!(&*registry.schema_by_id(id).await?.text, "\"string\"");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SchemaRegistry {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    known: Mutex<Known>,
    pub(super) flights: Flights,
    /// The address that answered last.
    current: AtomicUsize,
}

/// What is asked, for the errors.
struct Asked<'a> {
    what: String,
    subject: Option<&'a str>,
}

impl SchemaRegistryBuilder {
    /// The registry. Nothing is connected yet: the first request does that.
    ///
    /// # Errors
    /// A setting that cannot work.
    pub fn build(self) -> Result<SchemaRegistry, RegistryError> {
        Ok(SchemaRegistry::new(self.checked()?))
    }
}

impl SchemaRegistry {
    /// A registry at `http://host:port`, or at several addresses of it, separated by commas (`schema.registry.url`).
    pub fn builder(urls: impl Into<String>) -> SchemaRegistryBuilder {
        SchemaRegistryBuilder::new(urls.into())
    }

    pub(super) fn new(settings: Settings) -> Self {
        let (known, flights) = (Mutex::default(), Flights::default());
        Self { inner: Arc::new(Inner { settings, known, flights, current: AtomicUsize::new(0) }) }
    }

    /// All subjects.
    ///
    /// # Errors
    /// See [`RegistryError`]; so for all that follow.
    pub async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.get("/subjects", Asked { what: "subjects".to_owned(), subject: None }).await
    }

    /// The versions of a subject.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn versions(&self, subject: &str) -> Result<Vec<i32>, RegistryError> {
        self.get(&format!("/subjects/{}/versions", segment(subject)), Asked::subject(subject)).await
    }

    /// A version of a subject. Not remembered.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn version(&self, subject: &str, version: Version) -> Result<SubjectVersion, RegistryError> {
        let path = format!("/subjects/{}/versions/{version}", segment(subject));
        let asked = Asked { what: format!("version {version} of `{subject}`"), subject: Some(subject) };
        Ok(self.get::<SubjectVersionBody>(&path, asked).await?.into())
    }

    /// The schema of an id. Asked for once, then remembered: an id never gets another schema.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn schema_by_id(&self, id: i32) -> Result<Schema, RegistryError> {
        Ok(self.fetched(id).await?.schema.clone())
    }

    /// Registers a schema under a subject; gives its id. One that is there already keeps its id.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`], where it does not go with those before; and the others.
    pub async fn register(&self, subject: &str, schema: &Schema) -> Result<i32, RegistryError> {
        let path = format!("/subjects/{}/versions{}", segment(subject), self.normalized());
        let registered: IdBody = self.post(&path, &SchemaBody::from(schema), Asked::schema(subject)).await?;
        Ok(registered.id)
    }

    /// The version under which a subject has this schema.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], where it does not have it; and the others.
    pub async fn find(&self, subject: &str, schema: &Schema) -> Result<SubjectVersion, RegistryError> {
        let path = format!("/subjects/{}{}", segment(subject), self.normalized());
        let found: SubjectVersionBody =
            self.post(&path, &SchemaBody::from(schema), Asked::schema(subject)).await?;
        Ok(found.into())
    }

    /// Whether a schema may follow a version of a subject; why not, where the registry says.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn check_compatibility(
        &self,
        subject: &str,
        version: Version,
        schema: &Schema,
    ) -> Result<Result<(), Vec<String>>, RegistryError> {
        let path = format!("/compatibility/subjects/{}/versions/{version}?verbose=true", segment(subject));
        let checked: IsCompatibleBody =
            self.post(&path, &SchemaBody::from(schema), Asked::schema(subject)).await?;
        Ok(if checked.is_compatible { Ok(()) } else { Err(checked.messages) })
    }

    /// Which schemas may follow one another under a subject, or, without one, where nothing else is said.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn compatibility(&self, subject: Option<&str>) -> Result<Compatibility, RegistryError> {
        let path = match subject {
            Some(subject) => format!("/config/{}?defaultToGlobal=true", segment(subject)),
            None => "/config".to_owned(),
        };
        let asked = Asked { what: "compatibility".to_owned(), subject };
        Ok(self.get::<CompatibilityBody>(&path, asked).await?.level)
    }

    /// Sets it.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn set_compatibility(
        &self,
        subject: Option<&str>,
        compatibility: Compatibility,
    ) -> Result<(), RegistryError> {
        let path =
            subject.map_or_else(|| "/config".to_owned(), |subject| format!("/config/{}", segment(subject)));
        let asked = Asked { what: "compatibility".to_owned(), subject };
        let body = serde_json::json!({ "compatibility": compatibility });
        let _: serde_json::Value = self.json(&Method::PUT, &path, Some(&body), asked).await?;
        Ok(())
    }

    /// Deletes a subject; gives the versions that it had. Not for good: `permanently` deletes one that was deleted
    /// before, and then records with its ids may not be readable any more.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn delete_subject(&self, subject: &str, permanently: bool) -> Result<Vec<i32>, RegistryError> {
        let path = format!("/subjects/{}?permanent={permanently}", segment(subject));
        self.json(&Method::DELETE, &path, None::<&()>, Asked::subject(subject)).await
    }

    /// Deletes a version, as [`delete_subject`](Self::delete_subject).
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn delete_version(
        &self,
        subject: &str,
        version: Version,
        permanently: bool,
    ) -> Result<i32, RegistryError> {
        let path = format!("/subjects/{}/versions/{version}?permanent={permanently}", segment(subject));
        self.json(&Method::DELETE, &path, None::<&()>, Asked::subject(subject)).await
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address, for messages.
    pub(super) fn url(&self) -> Arc<str> {
        let urls = &self.inner.settings.urls;
        let at = self.inner.current.load(Ordering::Relaxed) % urls.len().max(1);
        urls.get(at).map_or_else(|| "".into(), |url| Arc::clone(&url.shown))
    }

    /// The subjects that an id lies under; none where the registry does not tell.
    pub(super) async fn subjects_of(&self, id: i32) -> Vec<String> {
        let asked = Asked { what: format!("subjects of id {id}"), subject: None };
        self.get(&format!("/schemas/ids/{id}/subjects"), asked).await.unwrap_or_default()
    }

    /// The schema of an id as the registry has it now.
    pub(super) async fn ask_for_id(&self, id: i32) -> Result<Schema, RegistryError> {
        let asked = Asked { what: format!("schema with the id {id}"), subject: None };
        let body: FoundBody = self.get(&format!("/schemas/ids/{id}"), asked).await?;
        body.schema().map_err(|reason| self.unusable(id, &reason))
    }

    /// The schema of this id is there, and is nothing that anybody here reads: asking again would not help.
    pub(super) fn unusable(&self, id: i32, reason: &str) -> RegistryError {
        let what = format!("schema with the id {id}").into();
        RegistryError::Unusable { url: self.url(), what, reason: reason.into() }
    }

    fn normalized(&self) -> &'static str {
        if self.inner.settings.normalize { "?normalize=true" } else { "" }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, asked: Asked<'_>) -> Result<T, RegistryError> {
        self.json(&Method::GET, path, None::<&()>, asked).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        asked: Asked<'_>,
    ) -> Result<T, RegistryError> {
        self.json(&Method::POST, path, Some(body), asked).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&impl Serialize>,
        asked: Asked<'_>,
    ) -> Result<T, RegistryError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| RegistryError::Strange {
            url: self.url(),
            reason: format!("the request has no JSON: {error}").into(),
        })?;
        let answer = self.ask(method, path, body.map(Bytes::from), &asked).await?;
        serde_json::from_slice(&answer).map_err(|error| RegistryError::Strange {
            url: self.url(),
            reason: format!("{error} in `{}`", shown(&answer)).into(),
        })
    }

    /// Asks one address after the other, until one answers or all attempts are used up.
    async fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        asked: &Asked<'_>,
    ) -> Result<Bytes, RegistryError> {
        let Inner { settings, current, .. } = &*self.inner;
        let first = current.load(Ordering::Relaxed);
        // Each address once at least: one that is gone must not be the last word.
        let attempts = settings.attempts.max(settings.urls.len());
        let mut attempt = 0;
        loop {
            let at = (first + attempt) % settings.urls.len();
            let url = &settings.urls[at];
            let answer = timeout(settings.timeout, exchange(settings, url, method, path, body.clone())).await;
            let judged = match answer {
                Ok(Ok(answer)) => judge(answer, &url.shown, asked),
                // It would be as long the next time: who asks for a schema gives its record up.
                Ok(Err(NoAnswer::TooLong)) => Err(RegistryError::Unusable {
                    url: Arc::clone(&url.shown),
                    what: asked.what.as_str().into(),
                    reason: format!("the answer has more than {ANSWER_BYTES_MAX} bytes").into(),
                }),
                Ok(Err(NoAnswer::Lost(reason))) => {
                    Err(RegistryError::Unreachable { url: Arc::clone(&url.shown), reason: reason.into() })
                }
                Err(_) => {
                    Err(RegistryError::Timeout { url: Arc::clone(&url.shown), after: settings.timeout })
                }
            };
            attempt += 1;
            match judged {
                Err(error) if error.is_worth_another_try() && attempt < attempts => {
                    tracing::debug!(%error, attempt, "the schema registry is asked again");
                    if attempt.is_multiple_of(settings.urls.len()) {
                        sleep(RETRY_DELAY).await;
                    }
                }
                judged => {
                    current.store(at, Ordering::Relaxed);
                    return judged;
                }
            }
        }
    }
}

impl<'a> Asked<'a> {
    fn subject(subject: &'a str) -> Self {
        Self { what: format!("subject `{subject}`"), subject: Some(subject) }
    }

    fn schema(subject: &'a str) -> Self {
        Self { what: format!("schema under `{subject}`"), subject: Some(subject) }
    }
}

/// What an answer means.
fn judge(answer: Answer, url: &Arc<str>, asked: &Asked<'_>) -> Result<Bytes, RegistryError> {
    let Answer { status, body } = answer;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let url = Arc::clone(url);
    let said: Option<ErrorBody> = serde_json::from_slice(&body).ok();
    let code = said.as_ref().map_or(0, |said| said.error_code);
    let message: Arc<str> = said
        .map(|said| said.message)
        .filter(|message| !message.is_empty())
        .map_or_else(|| shown(&body).into(), Into::into);
    let what: Arc<str> = asked.what.as_str().into();
    Err(match status {
        401 | 403 => RegistryError::Unauthorized { url, status, message },
        // A server that knows nothing of registries says 404, too; and a gateway 409 or 422.
        404 if (40_400..40_500).contains(&code) => RegistryError::NotFound { url, what, code, message },
        409 if code != 0 => {
            RegistryError::Incompatible { url, subject: asked.subject.unwrap_or_default().into(), message }
        }
        422 if code != 0 => RegistryError::Invalid { url, what, code, message },
        429 | 500.. => RegistryError::Server { url, status, message },
        _ => RegistryError::Strange { url, reason: format!("{status} {message}").into() },
    })
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl std::fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SchemaRegistry").field(&self.inner.settings).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &'static str) -> Result<Bytes, RegistryError> {
        let answer = Answer { status, body: Bytes::from_static(body.as_bytes()) };
        judge(answer, &"http://r".into(), &Asked::schema("orders-value"))
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(judged(200, "[]").unwrap(), "[]");
        let not_found = judged(404, r#"{"error_code":40403,"message":"Schema not found"}"#).unwrap_err();
        assert_eq!(
            not_found.to_string(),
            "the schema registry at http://r has no schema under `orders-value`: 40403 Schema not found"
        );
        assert!(!not_found.is_transient());
        // Something else that listens there.
        let strange = judged(404, "<html>nothing here</html>").unwrap_err();
        assert!(
            matches!(&strange, RegistryError::Strange { reason, .. } if reason.contains("<html>")),
            "{strange}"
        );
        let incompatible = judged(409, r#"{"error_code":409,"message":"no default"}"#).unwrap_err();
        let said = incompatible.to_string();
        assert!(
            said.contains("`orders-value`")
                && said.contains("no default")
                && said.contains("set_compatibility")
        );
        assert!(matches!(
            judged(422, r#"{"error_code":42201}"#),
            Err(RegistryError::Invalid { code: 42201, .. })
        ));
        for (status, again) in
            [(401, false), (403, false), (500, true), (503, true), (302, false), (429, false)]
        {
            let error = judged(status, "").unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert_eq!(error.is_worth_another_try(), again, "{error}");
        }
    }
}
