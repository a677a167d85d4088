//! From the first record handled to the last: how long it took, processor time, the largest memory; or how late each
//! record was.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Result;

static COUNT: AtomicU64 = AtomicU64::new(0);
static LATE_US: Mutex<Vec<u64>> = Mutex::new(Vec::new());
/// Of a topic that is read as it is written, what came while the readers started says nothing.
const WARM_UP: usize = 2_000;

pub fn add(records: u64) {
    COUNT.fetch_add(records, Relaxed);
}

pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// A record whose value begins with the microsecond at which it was due.
pub fn came(value: &str) {
    let due = value.split(' ').next().and_then(|due| due.parse::<u64>().ok()).unwrap_or(0);
    if let Ok(mut late_us) = LATE_US.lock() {
        late_us.push(now_us().saturating_sub(due));
    }
    add(1);
}

/// Waits until all were handled, and prints what came of it.
pub async fn watch(records: u64) -> Result<()> {
    let wait = async |what: u64, limit: Duration| {
        let begun = Instant::now();
        while COUNT.load(Relaxed) < what {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if begun.elapsed() > limit {
                return Err(format!("{} of {what} after {limit:?}", COUNT.load(Relaxed)));
            }
        }
        Ok(())
    };
    wait(1, Duration::from_secs(60)).await?;
    let (begun, cpu_before, seen) = (Instant::now(), cpu_seconds(), COUNT.load(Relaxed));
    wait(records, Duration::from_secs(240)).await?;
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    let measured = (records - seen) as f64;
    let mut line =
        format!("rate={:.0} cpu={:.3} rss={}", measured / elapsed, cpu / measured * 1e6, peak_mib());
    let mut late_us: Vec<u64> =
        LATE_US.lock().map(|mut late_us| std::mem::take(&mut *late_us)).unwrap_or_default();
    if late_us.len() > WARM_UP {
        let mut late_us = late_us.split_off(WARM_UP);
        late_us.sort_unstable();
        let at = |of: usize| late_us[(late_us.len() - 1) * of / 100] as f64 / 1e3;
        line.push_str(&format!(" p50={:.3} p99={:.3}", at(50), at(99)));
    }
    println!("{line}");
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
