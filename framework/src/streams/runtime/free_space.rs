//! Room on the disk of the state directory: without it nothing is processed, in place of failing in the middle of a
//! write.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::Blocking;
use tokio::time::Instant;

use super::shared::{Command, Shared};
use super::space_guard::{Guard, News, Room, Space};

/// Between looks at the disk.
const LOOK: Duration = Duration::from_secs(1);

/// Why nothing is processed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PauseReason {
    /// Somebody called [`pause`](super::StreamsApp::pause).
    Asked,
    /// The disk of the state directory is almost full. It goes on by itself when there is room.
    DiskFull {
        /// The directory.
        directory: PathBuf,
        /// What is free there.
        free_bytes: u64,
        /// What has to be: [`StreamsConfig::min_free_bytes`](super::StreamsConfig::min_free_bytes).
        min_free_bytes: u64,
    },
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("it was asked to pause"),
            Self::DiskFull { directory, free_bytes, min_free_bytes } => write!(
                f,
                "the disk of the state directory {} has {free_bytes} bytes free, and {min_free_bytes} are kept free \
                 (`min_free_bytes`): make room, it goes on by itself then",
                directory.display()
            ),
        }
    }
}

/// Asks a disk.
type Ask = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// Looks at the disk of an application.
pub(super) struct FreeSpace {
    shared: Arc<Shared>,
    guard: Guard,
    ask: Ask,
}

/// The one of this application, unless it is turned off; it has looked once.
pub(super) async fn begin(shared: &Arc<Shared>) -> Option<FreeSpace> {
    let min_free_bytes = shared.config.min_free_bytes;
    if min_free_bytes == Some(0) {
        return None;
    }
    let mut space =
        FreeSpace { shared: Arc::clone(shared), guard: Guard::new(min_free_bytes), ask: Arc::new(ask) };
    // Where nobody can say, nobody has to ask again.
    space.look().await.then_some(space)
}

impl FreeSpace {
    /// Looks every second, as long as the application is there.
    pub(super) async fn serve(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look().await;
        }
    }

    /// Whether the disk said anything. If not, it is as it was.
    async fn look(&mut self) -> bool {
        let (ask, directory) = (Arc::clone(&self.ask), self.shared.config.directory());
        let asked = Blocking::start(move || ask(&directory)).await;
        let application = self.shared.group();
        let space = match asked {
            Ok(Ok(space)) => space,
            Ok(Err(error)) => {
                tracing::debug!(%application, %error, "the disk does not say how much is free");
                return false;
            }
            Err(_) => return false,
        };
        let (room, news) = self.guard.judge(space, Instant::now());
        let before = self.shared.room.send_replace(room);
        if before.short_of_bytes.is_some() && room.short_of_bytes.is_none() {
            self.shared.tell_all(|| Command::Wake);
        }
        match (news, self.shared.disk_full()) {
            (Some(News::Short), Some(why)) => tracing::error!(%application, %why, "nothing is processed"),
            (Some(News::Enough), _) => {
                let free_bytes = space.free_bytes;
                tracing::info!(%application, free_bytes, "the disk has room again, and processing goes on");
            }
            _ => {}
        }
        true
    }
}

impl Shared {
    /// Why nothing may be written, if so.
    pub(super) fn disk_full(&self) -> Option<PauseReason> {
        let Room { free_bytes, short_of_bytes } = *self.room.borrow();
        let (free_bytes, min_free_bytes) = (free_bytes?, short_of_bytes?);
        Some(PauseReason::DiskFull { directory: self.config.directory(), free_bytes, min_free_bytes })
    }

    /// Waits until the disk has room, for what is not processed but writes all the same.
    pub(super) async fn has_room(&self) {
        let mut room = self.room.subscribe();
        // The sender is here.
        room.wait_for(|room| room.short_of_bytes.is_none()).await.ok();
    }
}

#[cfg(all(unix, feature = "streams"))]
fn ask(directory: &Path) -> io::Result<Space> {
    let told = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Ok(Space { total_bytes: bytes(told.f_blocks), free_bytes: bytes(told.f_bavail) })
}

/// Where it cannot be asked, or nothing is written.
#[cfg(not(all(unix, feature = "streams")))]
fn ask(_directory: &Path) -> io::Result<Space> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use klamm_client::TopicPartition;
    use klamm_client::testing::FakeBroker;
    use tokio::sync::mpsc as async_mpsc;

    use super::super::start::shared;
    use super::*;
    use crate::streams::{StreamsBuilder, StreamsConfig};

    #[tokio::test(start_paused = true)]
    async fn threads_are_woken_when_there_is_room() {
        let broker = FakeBroker::start_in_memory().await.unwrap();
        let client = broker.client().await.unwrap();
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("in").to("out");
        let (rewound, _) = async_mpsc::unbounded_channel();
        let nothing: [TopicPartition; 0] = [];
        let ends = client.consumer().assign(nothing).start().await.unwrap().handle();
        let config = StreamsConfig::new("app", "").min_free_bytes(1_000);
        let shared = Arc::new(shared(streams.build().unwrap().inner, config, client, rewound, ends));
        let (sender, commands) = std::sync::mpsc::channel();
        shared.workers.insert(sender).unwrap();
        let free_bytes = Arc::new(AtomicU64::new(999));
        let told = Arc::clone(&free_bytes);
        let space = move |free_bytes| Space { total_bytes: u64::MAX, free_bytes };
        let ask: Ask = Arc::new(move |_: &Path| Ok(space(told.load(Ordering::Relaxed))));
        let guard = Guard::new(shared.config.min_free_bytes);
        let mut looking = FreeSpace { shared: Arc::clone(&shared), guard, ask };
        assert!(looking.look().await && shared.is_paused());
        let why = shared.disk_full().unwrap().to_string();
        assert!(why.contains("999 bytes free, and 1000 are kept free"), "{why}");
        free_bytes.store(1_100, Ordering::Relaxed);
        looking.look().await;
        assert!(shared.is_paused() && commands.try_recv().is_err(), "not much more than the limit");
        free_bytes.store(1_200, Ordering::Relaxed);
        let waiting = shared.has_room();
        tokio::join!(waiting, looking.look());
        assert!(!shared.is_paused() && shared.disk_full().is_none());
        assert!(matches!(commands.try_recv(), Ok(Command::Wake)));
    }
}
