//! A network through a proxy that cuts, resets, stalls, slows down and falls silent, by a seed.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::async_trait;
use klamm_client::runtime::{Listener, Net, Rng, SeededRng, Stream, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How much passes on a connection before something happens to it, at most.
const HARMLESS_BYTES_MAX: u64 = 8_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is closed between two pieces.
    Cut,
    /// It is closed in the middle of a piece.
    CutInside,
    /// Nothing passes for a while, and then everything.
    Stall,
    /// Nothing ever passes again, either way, and the connection stays.
    HalfOpen,
    /// Everything comes in small pieces, late.
    Slow,
}

const FAULTS: [Fault; 5] = [Fault::Cut, Fault::CutInside, Fault::Stall, Fault::HalfOpen, Fault::Slow];

#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn Net>,
    rng: Arc<SeededRng>,
    healed: Arc<AtomicBool>,
    happened: Arc<Mutex<Vec<Fault>>>,
    refused: Arc<AtomicU64>,
    /// The longest that a request may be held up: longer, and the client may have given it up and asked anew, which
    /// nobody can tell from a request that came late.
    patience: Duration,
    pumps: Tasks,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Net>, seed: u64, patience: Duration) -> Self {
        Self {
            inner,
            rng: Arc::new(SeededRng::new(seed)),
            healed: Arc::default(),
            happened: Arc::default(),
            refused: Arc::default(),
            patience,
            pumps: Tasks::new(),
        }
    }

    /// From now on connections work; those that fell silent stay so.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn happened(&self) -> Vec<Fault> {
        self.happened.lock().unwrap().clone()
    }

    fn is_healed(&self) -> bool {
        self.healed.load(Ordering::SeqCst)
    }

    fn note(&self, fault: Fault) {
        self.happened.lock().unwrap().push(fault);
    }

    /// What happens on a connection, and after how many bytes.
    fn fate(&self) -> (Fault, u64) {
        (FAULTS[self.rng.below(FAULTS.len() as u64) as usize], self.rng.below(HARMLESS_BYTES_MAX))
    }

    async fn pump(
        self,
        to_server: bool,
        mut from: ReadHalf<Box<dyn Stream>>,
        mut to: WriteHalf<Box<dyn Stream>>,
    ) -> End {
        let (mut fault, mut harmless) = self.fate();
        let mut slow = false;
        let mut piece = [0; 4_096];
        loop {
            let size = match from.read(&mut piece).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(size) => size,
            };
            let bytes = &piece[..size];
            harmless = harmless.saturating_sub(size as u64);
            if harmless == 0 && !self.is_healed() {
                self.note(fault);
                match fault {
                    Fault::Cut => return End::Closed,
                    Fault::CutInside => {
                        let _ = to.write_all(&bytes[..size / 2]).await;
                        return End::Closed;
                    }
                    Fault::HalfOpen => return End::Silent,
                    Fault::Stall => {
                        let most = if to_server { self.patience / 2 } else { 3 * self.patience };
                        sleep(Duration::from_millis(self.rng.below(most.as_millis() as u64 + 1))).await;
                    }
                    Fault::Slow => slow = true,
                }
                (fault, harmless) = self.fate();
            }
            let sent = match slow && !self.is_healed() {
                false => to.write_all(bytes).await,
                true => self.drip(bytes, &mut to).await,
            };
            if sent.is_err() || to.flush().await.is_err() {
                return End::Closed;
            }
        }
    }

    async fn drip(&self, bytes: &[u8], to: &mut WriteHalf<Box<dyn Stream>>) -> io::Result<()> {
        let most_ms = (self.patience.as_millis() as u64 / 40).max(1);
        for few in bytes.chunks(512) {
            to.write_all(few).await?;
            sleep(Duration::from_millis(self.rng.below(most_ms))).await;
        }
        Ok(())
    }
}

/// How the proxy leaves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    /// Open, and nothing passes.
    Silent,
}

#[async_trait]
impl Net for Faulty {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        if !self.is_healed() && self.rng.below(10) == 0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the proxy is down"));
        }
        let server = self.inner.connect(address).await?;
        let mut listener = self.inner.bind("127.0.0.1:0").await?;
        let proxy = listener.local_address();
        let (client, accepted) = tokio::join!(self.inner.connect(&proxy), listener.accept());
        let (client, (accepted, _)) = (client?, accepted?);
        if self.rng.below(3) == 0 {
            // Where there is TCP, this one ends with a reset: what is on its way to either side is lost.
            for stream in [&server, &accepted] {
                stream.as_tcp().map(TcpStream::set_zero_linger).transpose()?;
            }
        }
        let this = Self { pumps: Tasks::new(), ..self.clone() };
        self.pumps.spawn("proxy", async move {
            let ((from_server, to_server), (from_client, to_client)) = (split(server), split(accepted));
            // Whichever ends first ends both; the half that is not polled any more keeps its side open.
            let mut requests = Box::pin(this.clone().pump(true, from_client, to_server));
            let mut answers = Box::pin(this.clone().pump(false, from_server, to_client));
            let end = tokio::select! {
                end = &mut requests => end,
                end = &mut answers => end,
            };
            if end == End::Silent {
                // The client learns by its own deadlines.
                std::future::pending::<()>().await;
            }
        });
        Ok(client)
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.inner.bind(address).await
    }
}
