//! The clock of threads that have none: what time it is, and when to look again.

use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::Clock;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::shared::{Command, Shared};

/// A clock of the runtime in which the application was started, for threads that are not of it. A test's clock stands
/// still there, and nowhere else.
#[derive(Debug)]
pub(super) struct RuntimeClock {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Handle,
}

impl Clock for RuntimeClock {
    fn now_ms(&self) -> i64 {
        let _inside = self.runtime.enter();
        self.clock.now_ms()
    }
}

/// Wakes a worker when it wants to be told the time.
pub(super) async fn serve(shared: Arc<Shared>, worker: usize, mut wake_at_ms: watch::Receiver<Option<i64>>) {
    loop {
        let at_ms = *wake_at_ms.borrow_and_update();
        let changed = match at_ms {
            None => wake_at_ms.changed().await,
            Some(at_ms) => {
                let left_ms = at_ms.saturating_sub(shared.clock.now_ms());
                let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
                match tokio::time::timeout(left, wake_at_ms.changed()).await {
                    Ok(changed) => changed,
                    // It was set back meanwhile.
                    Err(_) if shared.clock.now_ms() < at_ms => continue,
                    Err(_) => {
                        shared.workers.tell(worker, Command::Wake);
                        // It says again when it wants to be told next.
                        wake_at_ms.changed().await
                    }
                }
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Mutex, mpsc};

    use klamm_client::TopicPartition;
    use klamm_client::testing::FakeBroker;
    use tokio::sync::mpsc as async_mpsc;

    use klamm_runtime::Blocking;

    use super::super::start::shared;
    use super::*;
    use crate::streams::{StreamsBuilder, StreamsConfig};

    /// Says these times, and stays at the last.
    #[derive(Debug)]
    struct Script(Mutex<VecDeque<i64>>);

    impl Clock for Script {
        fn now_ms(&self) -> i64 {
            let mut times = self.0.lock().unwrap();
            let now_ms = times[0];
            if times.len() > 1 {
                times.pop_front();
            }
            now_ms
        }
    }

    /// The thread was woken too early, looked at its clock, and was not woken again.
    #[tokio::test]
    async fn a_clock_that_was_set_back_is_waited_for() {
        let broker = FakeBroker::start().await.unwrap();
        let client = broker.client().await.unwrap();
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("in").to("out");
        let (sender, commands) = mpsc::channel();
        let (rewound, _) = async_mpsc::unbounded_channel();
        let nothing: [TopicPartition; 0] = [];
        let ends = client.consumer().assign(nothing).start().await.unwrap().handle();
        let (topology, config) = (streams.build().unwrap().inner, StreamsConfig::new("app", ""));
        let mut shared = shared(topology, config, client, rewound, ends);
        shared.workers.insert(sender).unwrap();
        let clock = Arc::new(Script(Mutex::new([1_000, 990, 990, 1_005, 1_006, 1_020].into())));
        shared.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let (_wake_at_ms, wakes) = watch::channel(Some(1_010));
        let woken = Blocking::start(move || commands.recv_timeout(Duration::from_secs(20)));
        let woken = tokio::select! {
            () = serve(Arc::new(shared), 0, wakes) => panic!("it serves as long as there is a thread"),
            woken = woken => woken.unwrap(),
        };
        assert!(matches!(woken, Ok(Command::Wake)));
        assert!(clock.now_ms() >= 1_010, "it is time");
    }
}
