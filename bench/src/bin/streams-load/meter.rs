//! The second half of what is to be done, when a JVM is warm: how long it took and processor time; and the largest
//! memory of all.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::Result;

static COUNT: AtomicU64 = AtomicU64::new(0);
const LOOK: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn add() {
    COUNT.fetch_add(1, Relaxed);
}

/// Waits until `steps` were done.
pub(crate) async fn watch(steps: u64) -> Result<Figures> {
    let begun = Instant::now();
    let wait = async |what: u64| {
        while COUNT.load(Relaxed) < what {
            tokio::time::sleep(LOOK).await;
            if begun.elapsed() > LIMIT {
                return Err(format!("{} of {what} after {LIMIT:?}", COUNT.load(Relaxed)));
            }
        }
        Ok(())
    };
    wait(steps / 2).await?;
    let (half, cpu_before, seen) = (Instant::now(), cpu_seconds(), COUNT.load(Relaxed));
    wait(steps).await?;
    let done = (steps - seen) as f64;
    Ok(Figures { rate: done / half.elapsed().as_secs_f64(), cpu: (cpu_seconds() - cpu_before) / done * 1e6 })
}

pub(crate) struct Figures {
    /// Steps a second.
    pub(crate) rate: f64,
    /// Processor seconds for a million steps.
    pub(crate) cpu: f64,
}

/// User and system time of this process.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

pub(crate) fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
