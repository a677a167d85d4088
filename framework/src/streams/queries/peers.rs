//! Asking another instance's endpoint: a connection for each question, so that none is kept to who is gone; and a few
//! at a time, whatever is asked here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request as HttpRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use klamm_runtime::Net;
use tokio::sync::Semaphore;

use super::endpoint::{JSON, QUERIES_MAX, QUERY_PATH};
use super::error::QueryError;
use super::instance::{Peers, Reply, Request};
use super::wire::WireRequest;
use super::wire_reply::{WireFailure, WireReply};

/// The longest answer that is read: a part of an answer as JSON, one row of the longest record among it.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Questions to one instance at a time: it answers no more, and each takes a file descriptor of this process, of which
/// stores and the client need some.
const ASKED_MAX: usize = QUERIES_MAX;

/// Other instances, over this network.
#[derive(Debug)]
pub(crate) struct HttpPeers {
    net: Arc<dyn Net>,
    /// Of those that are being asked.
    rooms: Mutex<BTreeMap<Arc<str>, Arc<Semaphore>>>,
}

#[async_trait]
impl Peers for HttpPeers {
    async fn ask(&self, host: &Arc<str>, request: &Request) -> Result<Reply, QueryError> {
        let failed = |why: String| QueryError::Unreachable { host: Arc::clone(host), why: why.into() };
        let body =
            serde_json::to_vec(&WireRequest::of(request)).map_err(|error| failed(error.to_string()))?;
        let room = self.room(host);
        // It is never closed. Whoever waits has a deadline.
        let _room = room.acquire().await;
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
    pub(crate) fn new(net: Arc<dyn Net>) -> Self {
        Self { net, rooms: Mutex::default() }
    }

    fn room(&self, host: &Arc<str>) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.retain(|of, room| of == host || Arc::strong_count(room) > 1);
        Arc::clone(rooms.entry(Arc::clone(host)).or_insert_with(|| Arc::new(Semaphore::new(ASKED_MAX))))
    }

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use klamm_runtime::{MemoryNet, Tasks};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::answer::{Demands, PositionBound};
    use super::super::merging::Room;
    use super::super::raw::RawQuery;
    use super::*;

    fn request() -> Request {
        Request {
            store: "s".into(),
            application: None,
            form: None,
            partitions: None,
            everywhere: false,
            query: RawQuery::Key { key: Bytes::from_static(b"k") },
            reverse: false,
            room: Room { rows: 1, bytes: 1 },
            after: None,
            demands: Demands { stale: None, bound: PositionBound::new(), within: Duration::from_secs(5) },
            here_only: true,
        }
    }

    /// As many queries as there were took as many connections: the process had no file left for its stores.
    #[tokio::test(start_paused = true)]
    async fn an_instance_is_asked_a_few_questions_at_a_time() {
        let net = Arc::new(MemoryNet::new());
        let mut listener = net.bind("127.0.0.1:0").await.unwrap();
        let host: Arc<str> = listener.local_address().into();
        let (answering, connections) = (Tasks::new(), Tasks::new());
        let (most, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let highest = Arc::clone(&most);
        answering.spawn("peer", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                highest.fetch_max(open.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                let open = Arc::clone(&open);
                connections.spawn("connection", async move {
                    stream.read_u8().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let answer = b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    open.fetch_sub(1, Ordering::AcqRel);
                    stream.write_all(answer).await.unwrap();
                });
            }
        });
        let peers = HttpPeers::new(net);
        let request = request();
        let asked = join_all((0..1_000).map(|_| peers.ask(&host, &request))).await;
        assert!(
            asked.iter().all(|answer| answer.as_ref().is_err_and(QueryError::is_retriable)),
            "{:?}",
            asked[0]
        );
        assert_eq!(most.load(Ordering::Acquire), ASKED_MAX);
        let nobody = peers.ask(&"127.0.0.1:1".into(), &request).await;
        assert!(matches!(nobody, Err(QueryError::Unreachable { .. })));
        assert_eq!(peers.rooms.lock().unwrap().len(), 1, "only of who was asked last");
    }
}
