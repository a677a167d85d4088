//! Asking another instance's endpoint: a connection for each question, so that none is kept to who is gone.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request as HttpRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use klamm_runtime::Net;

use super::endpoint::{JSON, QUERY_PATH};
use super::error::QueryError;
use super::instance::{Peers, Reply, Request};
use super::wire::WireRequest;
use super::wire_reply::{WireFailure, WireReply};

/// The longest answer that is read: a part of an answer as JSON, one row of the longest record among it.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Other instances, over this network.
#[derive(Debug)]
pub(crate) struct HttpPeers {
    pub(crate) net: Arc<dyn Net>,
}

#[async_trait]
impl Peers for HttpPeers {
    async fn ask(&self, host: &Arc<str>, request: &Request) -> Result<Reply, QueryError> {
        let failed = |why: String| QueryError::Unreachable { host: Arc::clone(host), why: why.into() };
        let body =
            serde_json::to_vec(&WireRequest::of(request)).map_err(|error| failed(error.to_string()))?;
        let (status, answer) = self.exchange(host, body).await.map_err(|error| failed(error.to_string()))?;
        if status == 200 {
            let reply = serde_json::from_slice::<WireReply>(&answer).map_err(|error| error.to_string());
            return reply
                .and_then(WireReply::read)
                .map_err(|error| failed(format!("its answer is none: {error}")));
        }
        match serde_json::from_slice::<WireFailure>(&answer) {
            Ok(failure) => Err(failure.read(host, &request.store)),
            Err(_) => Err(failed(format!(
                "it answers with status {status}, and is no instance of this application"
            ))),
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl HttpPeers {
    async fn exchange(&self, host: &str, body: Vec<u8>) -> Result<(u16, Bytes), Failure> {
        let stream = self.net.connect(host).await?;
        let request = HttpRequest::post(QUERY_PATH)
            .header(HOST, host)
            .header(CONTENT_TYPE, JSON)
            .body(Full::new(Bytes::from(body)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let asked = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?;
            Ok((status, body.to_bytes()))
        };
        // The connection works while somebody polls it, and ends when the sender is gone.
        let (answer, _) = tokio::join!(asked, connection);
        answer
    }
}
