//! The endpoint of queries: what other instances and everybody else ask over HTTP.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use klamm_runtime::Listener;
use serde_json::json;
use tokio::sync::Semaphore;

use super::asking::ask;
use super::error::QueryError;
use super::instance::{Instance, Peers, QUESTION_BYTES_MAX};
use super::socket::Door;
use super::wire::WireRequest;
use super::wire_reply::{WireError, WireFailure, WireReply};
use crate::store::StoreError;

/// Where queries go. Its first part is the version of the format.
pub(crate) const QUERY_PATH: &str = "/v1/query";
/// Who has which partition of a store.
const STORE_PATH: &str = "/v1/stores/{store}";
pub(super) const JSON: &str = "application/json";

/// The longest question: as many bytes as it may name, in base64, and the rest of its lists.
const BODY_BYTES_MAX: usize = QUESTION_BYTES_MAX / 3 * 4 + 2 * 1024 * 1024;
/// What is longer shares few places while it comes: connections are many.
const SHORT_BYTES_MAX: u64 = 256 * 1024;
/// Long questions that come at a time.
const LONG_MAX: usize = 8;
/// The time to send it.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// Questions that are answered at a time, so many of those handed on by others among them. Apart from the others: two
/// instances whose room is full of questions for each other would wait for each other.
pub(super) const QUERIES_MAX: usize = 32;

struct Endpoint {
    instance: Arc<dyn Instance>,
    peers: Arc<dyn Peers>,
    strangers: Semaphore,
    handed_on: Semaphore,
    long: Semaphore,
}

/// The routes of the endpoint.
pub(crate) fn router(instance: Arc<dyn Instance>, peers: Arc<dyn Peers>) -> Router {
    let (strangers, handed_on) = (Semaphore::new(QUERIES_MAX), Semaphore::new(QUERIES_MAX));
    let long = Semaphore::new(LONG_MAX);
    let endpoint = Arc::new(Endpoint { instance, peers, strangers, handed_on, long });
    let routes = Router::new().route(QUERY_PATH, post(query)).route(STORE_PATH, get(placed));
    routes.with_state(endpoint)
}

/// Serves them until it is over; connections end then, too, after what is being answered.
pub(crate) async fn serve(
    listener: Box<dyn Listener>,
    router: Router,
    over: impl Future<Output = ()> + Send + 'static,
) {
    let served = axum::serve(Door::new(listener), router).with_graceful_shutdown(over).await;
    if let Err(error) = served {
        tracing::error!(%error, "queries are not answered any more");
    }
}

async fn query(State(endpoint): State<Arc<Endpoint>>, request: HttpRequest) -> Response {
    let answered = match endpoint.read(request).await {
        Ok(request) => endpoint.answer(request).await,
        Err(refused) => return refused,
    };
    match answered {
        Ok(answer) => respond(StatusCode::OK, Body::from(answer)),
        Err(error) => failure(&error),
    }
}

async fn placed(State(endpoint): State<Arc<Endpoint>>, Path(store): Path<String>) -> Response {
    match endpoint.holders(&store).await {
        Ok(answer) => respond(StatusCode::OK, Body::from(answer.to_string())),
        Err(error) => failure(&error),
    }
}

impl Endpoint {
    async fn holders(&self, store: &str) -> Result<serde_json::Value, QueryError> {
        let facts = self.instance.facts(store)?;
        let count = if facts.is_global { 0 } else { self.instance.partitions(&facts).await? };
        let of = |partition| {
            let holders = self.instance.holders(&facts, partition);
            let standbys: Vec<&str> = holders.standbys.iter().map(|host| &**host).collect();
            json!({ "partition": partition, "active": holders.active.as_deref(), "standbys": standbys })
        };
        let partitions: Vec<_> = (0..count).map(of).collect();
        Ok(json!({ "store": store, "global": facts.is_global, "partitions": partitions }))
    }

    /// What is asked; or the answer to what is no question.
    async fn read(&self, request: HttpRequest) -> Result<super::instance::Request, Response> {
        if !is_json(request.headers()) {
            // Pages of strangers can have a browser send text, but not this, unless they are asked whether they may.
            let message = format!("send `content-type: {JSON}`");
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_query", message));
        }
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let is_long = length.is_none_or(|length: u64| length > SHORT_BYTES_MAX);
        let _place = match is_long.then(|| self.long.try_acquire()).transpose() {
            Ok(place) => place,
            Err(_) => return Err(failure(&QueryError::Overloaded { limit: LONG_MAX })),
        };
        let body = tokio::time::timeout(BODY_PATIENCE, to_bytes(request.into_body(), BODY_BYTES_MAX)).await;
        let body = match body {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                let message = format!("it did not come whole, or has more than {BODY_BYTES_MAX} bytes");
                return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
            }
            Err(_) => {
                let message = format!("it did not come within {BODY_PATIENCE:?}");
                return Err(refusal(StatusCode::REQUEST_TIMEOUT, "timed_out", message));
            }
        };
        let request = serde_json::from_slice::<WireRequest>(&body).map_err(|error| error.to_string());
        let wrong = |message| refusal(StatusCode::BAD_REQUEST, "wrong_query", message);
        request.and_then(WireRequest::read).map_err(wrong)
    }

    async fn answer(&self, request: super::instance::Request) -> Result<Vec<u8>, QueryError> {
        let room = if request.here_only { &self.handed_on } else { &self.strangers };
        let _room = room.try_acquire().map_err(|_| QueryError::Overloaded { limit: QUERIES_MAX })?;
        let reply = ask(&*self.instance, Some(&*self.peers), &request).await?;
        let answer = serde_json::to_vec(&WireReply::of(&reply));
        answer.map_err(|error| QueryError::Wrong { store: request.store, why: error.to_string().into() })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON))
}

fn failure(error: &QueryError) -> Response {
    let body = serde_json::to_vec(&WireFailure::of(error)).unwrap_or_default();
    let mut response = respond(status_of(error), Body::from(body));
    if matches!(error, QueryError::Overloaded { .. }) {
        response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
    }
    response
}

fn status_of(error: &QueryError) -> StatusCode {
    match error {
        QueryError::Store(StoreError::Unknown { .. }) => StatusCode::NOT_FOUND,
        QueryError::Wrong { .. } => StatusCode::BAD_REQUEST,
        QueryError::Differs { .. } | QueryError::OtherApplication { .. } => StatusCode::CONFLICT,
        QueryError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        QueryError::Unreachable { .. } | QueryError::Refused { .. } => StatusCode::BAD_GATEWAY,
        QueryError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        QueryError::Store(StoreError::NotHere { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        QueryError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn refusal(status: StatusCode, code: &str, message: String) -> Response {
    let failure = WireFailure { error: WireError { code: code.to_owned(), message, retriable: false } };
    respond(status, Body::from(serde_json::to_vec(&failure).unwrap_or_default()))
}

fn respond(status: StatusCode, body: Body) -> Response {
    (status, [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{MemoryNet, Net};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answer(net: &MemoryNet, address: &str, request: &str) -> String {
        let mut socket = net.connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Two bounds of a megabyte each were more than an instance took.
    #[test]
    fn the_longest_question_fits() {
        use std::sync::Arc;

        use super::super::answer::{Demands, PositionBound};
        use super::super::instance::{BYTES_MAX, LIST_MAX, ROWS_MAX, Request};
        use super::super::merging::{Cursor, Room};
        use super::super::raw::{AskedKey, RawQuery};

        let lists = u32::try_from(LIST_MAX).unwrap();
        let topic = |at: u32| format!("{at:0>249}");
        let mut left = QUESTION_BYTES_MAX - LIST_MAX * 249;
        let bound =
            (0..lists).fold(PositionBound::new(), |bound, at| bound.record(topic(at), i32::MAX, i64::MAX));
        let place = bytes::Bytes::from(vec![0; 1 << 20]);
        left -= place.len();
        for filling in *b"\"\0a\xff" {
            let length = left / LIST_MAX;
            let key = bytes::Bytes::from(vec![filling; length]);
            let keys = (0..lists).map(|at| AskedKey { at, key: key.clone(), partition: Some(i32::MAX) });
            let request = Request {
                store: "s".repeat(200).into(),
                application: Some("a".repeat(200).into()),
                form: Some(u64::MAX),
                partitions: Some(vec![i32::MIN; LIST_MAX]),
                everywhere: true,
                query: RawQuery::Keys { keys: keys.collect::<Arc<[_]>>() },
                reverse: false,
                room: Room { rows: ROWS_MAX, bytes: BYTES_MAX },
                after: Some(Cursor { place: place.clone(), partition: i32::MIN }),
                demands: Demands {
                    stale: Some(u64::MAX),
                    bound: bound.clone(),
                    within: Duration::from_secs(30),
                },
                here_only: true,
            };
            assert_eq!(request.excess(), None);
            let body = serde_json::to_vec(&WireRequest::of(&request)).unwrap();
            assert!(body.len() <= BODY_BYTES_MAX, "{filling}: {} bytes", body.len());
        }
    }

    /// Whoever says a byte now and then held a connection for ever, of those that there is room for.
    #[tokio::test(start_paused = true)]
    async fn a_question_that_never_ends_is_not_waited_for() {
        let net = MemoryNet::new();
        let listener = net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let routes = Router::new().route("/", get(async || "here"));
        let (_close, mut closed) = tokio::sync::watch::channel(false);
        let over = async move { drop(closed.wait_for(|over| *over).await) };
        let asking = async {
            let mut socket = net.connect(&address).await.unwrap();
            let began = tokio::time::Instant::now();
            for request in 1..=3 {
                socket.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
                let mut answer = [0; 12];
                socket.read_exact(&mut answer).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_secs(30)).await;
                assert_eq!(began.elapsed().as_secs(), request * 30, "questions that end are answered");
            }
            let began = tokio::time::Instant::now();
            while socket.write_all(b"G").await.is_ok() && began.elapsed().as_secs() < 1_000 {
                tokio::time::sleep(std::time::Duration::from_secs(20)).await;
            }
            assert!(began.elapsed().as_secs() <= 80, "{:?}", began.elapsed());
        };
        tokio::select! {
            () = serve(listener, routes, over) => panic!("it serves until it is over"),
            () = asking => {}
        }
    }

    /// Whoever says nothing, or stops in the middle, is not waited for, and the end waits for nobody.
    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let net = MemoryNet::new();
        let listener = net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let routes = Router::new().route("/", get(async || "here"));
        let (close, mut closed) = tokio::sync::watch::channel(false);
        let over = async move { drop(closed.wait_for(|over| *over).await) };
        let serving = async {
            let began = tokio::time::Instant::now();
            let asked = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
            assert!(answer(&net, &address, asked).await.ends_with("here"));
            assert_eq!(began.elapsed().as_secs(), 0);
            for silent in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: h\r\n\r\n"] {
                let began = tokio::time::Instant::now();
                drop(answer(&net, &address, silent).await);
                assert_eq!(began.elapsed().as_secs(), 45, "{silent}");
            }
            let mut kept = net.connect(&address).await.unwrap();
            kept.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            kept.read_exact(&mut answer).await.unwrap();
            close.send_replace(true);
            kept.read_to_end(&mut Vec::new()).await.unwrap();
        };
        tokio::join!(serve(listener, routes, over), serving);
    }
}
