//! How `#[klamm::test]` runs a test: a runtime of its own, a paused clock, two deadlines, an orderly end.

use std::env;
use std::future::Future;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;

use super::TestKit;

/// Says which cluster tests run against: nothing for the in-process broker, else `host:port`.
const TARGET: &str = "KLAMM_TEST";
/// How long a test may take in its own time. With a paused clock an hour without work passes in milliseconds.
const DEADLINE_PAUSED: Duration = Duration::from_secs(3_600);
/// The same on a real clock.
const DEADLINE_REAL: Duration = Duration::from_secs(60);
/// How much longer, in real time, before the process is ended: nothing else stops a loop that never waits.
const WATCHDOG: Duration = Duration::from_secs(120);

/// What `#[klamm::test]` was given.
#[doc(hidden)]
#[derive(Debug)]
pub struct __TestSettings {
    pub name: &'static str,
    pub deadline_ms: Option<u64>,
    pub needs_paused_clock: bool,
}

/// What a test may return.
#[doc(hidden)]
pub trait __TestResult {
    /// The result of a test that was skipped.
    fn skipped() -> Self;
}

impl __TestResult for () {
    fn skipped() -> Self {}
}

impl<E> __TestResult for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

#[doc(hidden)]
#[allow(clippy::print_stderr)] // The word with which a test is skipped.
pub fn __run<F, Fut>(settings: __TestSettings, body: F) -> Fut::Output
where
    F: FnOnce(TestKit) -> Fut,
    Fut: Future<Output: __TestResult>,
{
    let target = env::var(TARGET).ok().filter(|target| !target.is_empty());
    if let Some(target) = &target
        && settings.needs_paused_clock
    {
        eprintln!(
            "{} is skipped: it needs the paused clock, and {TARGET}={target} runs on real time",
            settings.name
        );
        return Fut::Output::skipped();
    }
    let usual = if target.is_some() { DEADLINE_REAL } else { DEADLINE_PAUSED };
    let deadline = settings.deadline_ms.map_or(usual, Duration::from_millis);
    let real_limit = if target.is_some() { deadline + WATCHDOG } else { WATCHDOG };
    let _watchdog = Watchdog::start(settings.name, real_limit);

    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(target.is_none());
    let runtime = builder.build().unwrap_or_else(|error| panic!("cannot build a runtime: {error}"));
    runtime.block_on(async {
        let test = async {
            let kit = match target {
                Some(bootstrap) => TestKit::on(bootstrap).await,
                None => TestKit::in_process().await,
            };
            let result = body(kit.clone()).await;
            kit.finish().await;
            result
        };
        match timeout(deadline, test).await {
            Ok(result) => result,
            Err(_) => panic!(
                "{} did not end within {deadline:?} of its own time: what it waits for never happens",
                settings.name
            ),
        }
    })
}

/// Ends the process when a test blocks its thread for good.
struct Watchdog {
    /// Dropped at the end of the test.
    _test_runs: mpsc::Sender<()>,
}

impl Watchdog {
    #[allow(clippy::print_stderr)] // Nobody else can tell.
    fn start(name: &'static str, limit: Duration) -> Self {
        let (test_runs, ended) = mpsc::channel();
        thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "{name} still runs after {limit:?} of real time; it blocks or spins, so the whole test process ends"
                );
                std::process::exit(101);
            }
        });
        Self { _test_runs: test_runs }
    }
}
