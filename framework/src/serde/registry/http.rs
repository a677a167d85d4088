//! One request and its answer, on a connection of its own: what is asked is remembered, so that there are few.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use klamm_runtime::Stream;

use super::settings::Settings;
use super::url::Url;

/// What registries say their JSON is; Confluent's take and give this one, others too.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// The longest answer: a schema is some kilobytes, a list of all subjects some more.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Something went wrong on the way.
    Lost(String),
    /// It is longer than any schema needs to be.
    TooLong,
}

impl<E: ToString> From<E> for NoAnswer {
    fn from(error: E) -> Self {
        Self::Lost(error.to_string())
    }
}

/// Asks once.
///
/// # Errors
/// What went wrong on the way, or that the answer is too long.
pub(super) async fn exchange(
    settings: &Settings,
    url: &Url,
    method: &Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Answer, NoAnswer> {
    let stream = settings.net.connect(&url.address).await?;
    let stream = match url.tls {
        true => settings.tls.encrypt(stream, &url.address).await?,
        false => stream,
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", url.prefix))
        .header(HOST, &*url.address)
        .header(ACCEPT, format!("{MEDIA_TYPE}, application/json"));
    if let Some(authorization) = &settings.authorization {
        request = request.header(AUTHORIZATION, &**authorization);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, MEDIA_TYPE);
    }
    let request = request.body(Full::new(body.unwrap_or_default()))?;
    over(stream, request).await
}

async fn over(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let asked = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => NoAnswer::TooLong,
            false => NoAnswer::Lost(error.to_string()),
        })?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    // The connection works while somebody polls it, and ends when the sender is gone.
    let (answer, _) = tokio::join!(asked, connection);
    answer
}
