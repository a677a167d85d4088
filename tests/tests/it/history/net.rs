//! A network that cuts connections where it hurts: before a request arrives, after it was carried out, and before it
//! arrives late, when its client has long gone on by another connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use klamm_client::async_trait;
use klamm_client::runtime::{Listener, Net, Rng, SeededRng, Stream, Tasks, TcpNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{sleep, timeout};

/// So late comes what comes late, at most.
const LATE_MS: u64 = 900;
/// A larger frame is no request of ours.
const FRAME_BYTES: u32 = 16 << 20;

/// Cheap to clone; clones are one network.
#[derive(Debug, Clone)]
pub(super) struct BadNet {
    /// Cuts at one request in so many; 0 for none.
    one_in: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    /// Requests that are still to come late.
    held: Arc<AtomicU64>,
    rng: Arc<SeededRng>,
    pumps: Tasks,
}

enum Cut {
    Before,
    After,
    Late,
}

impl BadNet {
    pub(super) fn new(seed: u64) -> Self {
        let (one_in, cuts, late, held) = Default::default();
        Self { one_in, cuts, late, held, rng: Arc::new(SeededRng::new(seed)), pumps: Tasks::new() }
    }

    /// From now on one request in so many is not answered; 0 for none.
    pub(super) fn cut_one_in(&self, requests: u64) {
        self.one_in.store(requests, Ordering::Relaxed);
    }

    /// How many connections were cut, and how many requests came late.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.cuts.load(Ordering::Relaxed), self.late.load(Ordering::Relaxed))
    }

    /// Waits until nothing is to come late any more.
    pub(super) async fn settled(&self) {
        while self.held.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn next_cut(&self) -> Option<Cut> {
        let one_in = self.one_in.load(Ordering::Relaxed);
        if one_in == 0 || self.rng.below(one_in) > 0 {
            return None;
        }
        self.cuts.fetch_add(1, Ordering::Relaxed);
        Some(match self.rng.below(4) {
            0 => Cut::Before,
            1 => Cut::After,
            _ => Cut::Late,
        })
    }

    /// Passes requests on until one is cut; gives what is to come late.
    async fn requests(
        &self,
        from: &mut ReadHalf<Box<dyn Stream>>,
        to: &mut WriteHalf<Box<dyn Stream>>,
        cut_at: &AtomicU64,
    ) -> std::io::Result<Option<Vec<u8>>> {
        for number in 0.. {
            let frame = frame(from).await?;
            match self.next_cut() {
                Some(Cut::Before) => return Ok(None),
                Some(Cut::Late) => return Ok(Some(frame)),
                Some(Cut::After) => drop(cut_at.fetch_min(number, Ordering::Relaxed)),
                None => {}
            }
            to.write_all(&frame).await?;
        }
        Ok(None)
    }

    async fn pump(self, client: Box<dyn Stream>, server: Box<dyn Stream>) {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (split(client), split(server));
        let cut_at = AtomicU64::new(u64::MAX);
        // Whichever ends first ends both.
        let late = tokio::select! {
            late = self.requests(&mut from_client, &mut to_server, &cut_at) => late.ok().flatten(),
            _ = answers(&mut from_server, &mut to_client, &cut_at) => None,
        };
        drop((from_client, to_client));
        let Some(frame) = late else { return };
        self.held.fetch_add(1, Ordering::Relaxed);
        self.come_late(frame, from_server, to_server).await;
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    async fn come_late(
        &self,
        frame: Vec<u8>,
        mut from_server: ReadHalf<Box<dyn Stream>>,
        mut to_server: WriteHalf<Box<dyn Stream>>,
    ) {
        sleep(Duration::from_millis(1 + self.rng.below(LATE_MS))).await;
        if to_server.write_all(&frame).await.is_ok() {
            self.late.fetch_add(1, Ordering::Relaxed);
            // Nobody wants the answer, but who hangs up may not be served.
            let _ = timeout(Duration::from_secs(2), from_server.read_u32()).await;
        }
    }
}

async fn answers(
    from: &mut ReadHalf<Box<dyn Stream>>,
    to: &mut WriteHalf<Box<dyn Stream>>,
    cut_at: &AtomicU64,
) -> std::io::Result<()> {
    for number in 0.. {
        let frame = frame(from).await?;
        if number >= cut_at.load(Ordering::Relaxed) {
            break;
        }
        to.write_all(&frame).await?;
    }
    Ok(())
}

async fn frame(from: &mut ReadHalf<Box<dyn Stream>>) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length > FRAME_BYTES {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; 4 + length as usize];
    frame[..4].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

#[async_trait]
impl Net for BadNet {
    async fn connect(&self, address: &str) -> std::io::Result<Box<dyn Stream>> {
        let server = TcpNet.connect(address).await?;
        let mut listener = TcpNet.bind("127.0.0.1:0").await?;
        let proxy = listener.local_address();
        let (client, accepted) = tokio::join!(TcpNet.connect(&proxy), listener.accept());
        let (accepted, _) = accepted?;
        let this = Self { pumps: Tasks::new(), ..self.clone() };
        self.pumps.spawn("proxy", this.pump(accepted, server));
        client
    }

    async fn bind(&self, address: &str) -> std::io::Result<Box<dyn Listener>> {
        TcpNet.bind(address).await
    }
}
