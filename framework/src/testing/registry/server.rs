//! HTTP around the registry's routes.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use klamm_runtime::{Listener, Tasks};
use serde_json::json;

use super::Shared;
use super::fault::Fault;
use super::routes;

const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) async fn serve(mut listener: Box<dyn Listener>, shared: Arc<Shared>) {
    let connections = Tasks::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn("test registry's connection", async move {
            let answering = service_fn(move |request| answer(Arc::clone(&shared), request));
            // A client that goes away in the middle is no failure of the test.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answering)
                .await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let login = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let answered = match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Err(_) => Err(Fault::new(413, "the request is too large")),
        Ok(body) => refused(&shared, &format!("{} {target}", head.method), login).map_or_else(
            || {
                let mut store = shared.store.lock().unwrap_or_else(PoisonError::into_inner);
                routes::answer(&mut store, head.method.as_str(), target, &body.to_bytes())
            },
            Err,
        ),
    };
    let (status, body) = match answered {
        Ok(answer) => (200, answer),
        Err(Fault { status, code, message }) => (status, json!({ "error_code": code, "message": message })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    if let Ok(status) = hyper::StatusCode::from_u16(status) {
        *response.status_mut() = status;
    }
    let media_type = hyper::header::HeaderValue::from_static("application/vnd.schemaregistry.v1+json");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Ok(response)
}

/// What the script says to a request, before anybody looks at it.
fn refused(shared: &Shared, request: &str, login: Option<&str>) -> Option<Fault> {
    let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
    script.requests.push(request.to_owned());
    if !script.failures.is_empty() {
        let status = script.failures.remove(0);
        return Some(Fault { status, code: i64::from(status), message: "as the test wants it".to_owned() });
    }
    let unknown = script.login.as_deref().is_some_and(|wanted| login != Some(wanted));
    unknown.then(|| Fault::new(401, "Unauthorized"))
}
