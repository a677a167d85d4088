//! A proxy in front of a broker that cuts connections behind so many bytes, in either direction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use klamm_runtime::{Rng, SeededRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A connection lives for so many bytes of answers at most; one in four for so many bytes of requests instead.
const ANSWER_BYTES: u64 = 120_000;
const REQUEST_BYTES: u64 = 2_000;

/// Connections to `address` go to the broker. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: String,
    cutting: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A listener whose port the broker is to be told before it starts.
    pub(super) async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    /// Begins to serve, and cuts nothing yet.
    pub(super) fn start(listener: TcpListener, broker: String, rng: SeededRng) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let (cutting, cuts): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let (cut, count) = (Arc::clone(&cutting), Arc::clone(&cuts));
        let accepting = tokio::task::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let budgets = match (cut.load(Ordering::Relaxed), rng.below(4)) {
                    (false, _) => (u64::MAX, u64::MAX),
                    (true, 0) => (rng.below(REQUEST_BYTES), u64::MAX),
                    (true, _) => (u64::MAX, rng.below(ANSWER_BYTES)),
                };
                let abruptly = rng.below(2) == 0;
                let (broker, count) = (broker.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    let was_cut = serve(client, &broker, budgets, abruptly).await;
                    count.fetch_add(u64::from(was_cut.unwrap_or(false)), Ordering::Relaxed);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, cutting, cuts, accepting }
    }

    /// From now on new connections are cut.
    pub(super) fn cut(&self) {
        self.cutting.store(true, Ordering::Relaxed);
    }

    /// How many were.
    pub(super) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Both directions, each up to its budget; whether one was used up.
async fn serve(
    client: TcpStream,
    broker: &str,
    budgets: (u64, u64),
    abruptly: bool,
) -> std::io::Result<bool> {
    let broker = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_broker, mut to_broker) = tokio::io::split(broker);
    let was_cut = tokio::select! {
        was_cut = pump(&mut from_client, &mut to_broker, budgets.0) => was_cut?,
        was_cut = pump(&mut from_broker, &mut to_client, budgets.1) => was_cut?,
    };
    let client = from_client.unsplit(to_client);
    if was_cut && abruptly {
        // A reset, not an end.
        client.set_zero_linger()?;
    }
    Ok(was_cut)
}

/// Whether the budget was used up before the end.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut budget: u64,
) -> std::io::Result<bool> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(false);
        }
        let passed = usize::try_from(budget).unwrap_or(usize::MAX).min(read);
        to.write_all(&buffer[..passed]).await?;
        budget -= passed as u64;
        if passed < read || budget == 0 {
            return Ok(true);
        }
    }
}

#[tokio::test]
async fn it_cuts_behind_its_budget() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (broker, proxy) = (listener.local_addr().unwrap().to_string(), Proxy::listener().await);
    let proxy = Proxy::start(proxy, broker, SeededRng::new(1));
    let pour = tokio::task::spawn(async move {
        loop {
            let (mut one, _) = listener.accept().await.unwrap();
            let _ = one.write_all(&vec![7; 200_000]).await;
        }
    });
    let read = async || {
        let (mut one, mut bytes) = (TcpStream::connect(&proxy.address).await.unwrap(), Vec::new());
        let _ = one.read_to_end(&mut bytes).await;
        bytes.len() as u64
    };
    assert_eq!((read().await, proxy.cuts()), (200_000, 0));
    proxy.cut();
    let mut cut = 0;
    for _ in 0..20 {
        cut += u64::from(read().await < ANSWER_BYTES);
    }
    assert!(cut > 5, "{cut}");
    pour.abort();
}
