//! How long nothing has come for a task. Silence is what was listened to: the time of a process that was stopped, of a
//! broker that does not answer and of a pause does not count, for records may have lain there meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_client::ConsumerHandle;
use tokio::time::Instant;

use super::shared::{Command, Flow, Shared};
use crate::streams::task::TaskId;

/// Between looks, nobody has listened for longer than this.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// How often a task that is idle hears of it, in parts of the time after which it is.
const TELLS: u32 = 10;
const SHORTEST_BETWEEN: Duration = Duration::from_millis(20);
const LONGEST_BETWEEN: Duration = Duration::from_secs(1);

/// The silence of one incarnation of a task.
#[derive(Debug, Default)]
struct Silence {
    begins: Option<Duration>,
    looked: Option<Duration>,
    told: Option<Duration>,
}

impl Silence {
    /// Looks at a time of a clock that does not go back; gives how long it has been silent if the task is to hear of
    /// it. `heard` is when that was said last, `None` if there is something.
    fn look(&mut self, now: Duration, heard: Option<Duration>, after: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.looked.replace(now).unwrap_or(now));
        let Some(heard) = heard.filter(|_| passed <= LONGEST_STEP) else {
            (self.begins, self.told) = (Some(now), None);
            return None;
        };
        let begins = *self.begins.insert(self.begins.unwrap_or(now).min(now));
        let lasts = heard.saturating_sub(begins);
        let between = (after / TELLS).clamp(SHORTEST_BETWEEN, LONGEST_BETWEEN);
        let is_due = self.told.is_none_or(|told| lasts >= told + between);
        (lasts >= after && is_due).then(|| *self.told.insert(lasts))
    }
}

/// That of all tasks.
#[derive(Debug, Default)]
pub(super) struct Silences(BTreeMap<(TaskId, u64), Silence>);

impl Silences {
    /// Tells tasks of which nothing has come for long, by a clock that began then.
    pub(super) fn listen(&mut self, shared: &Shared, began: Instant) {
        let Some(after) = shared.config.idle_after else { return };
        let Some(consumer) = shared.consumer() else { return };
        let hears = !shared.is_paused() && shared.is_member();
        let routes = shared.routes();
        let now = began.elapsed();
        let mut tasks: BTreeMap<(TaskId, u64), Option<Duration>> = BTreeMap::new();
        for flow in routes.flows.values() {
            let silent = tasks.entry((flow.task, flow.route.epoch)).or_insert(hears.then_some(now));
            let heard = silent_at(flow, &consumer).map(|at| at.saturating_duration_since(began));
            *silent = (*silent).zip(heard).map(|(one, other)| one.min(other));
        }
        self.0.retain(|task, _| tasks.contains_key(task));
        for (id, heard) in tasks {
            let silence = self.0.entry(id).or_default();
            let Some(lasts) = silence.look(now, heard, after) else { continue };
            let (task, epoch) = id;
            if let Some(route) = routes.tasks.get(&task).filter(|route| route.epoch == epoch) {
                shared.workers.tell(route.worker, Command::Idle { task, epoch, lasts });
            }
        }
    }

    /// Records came for a task.
    pub(super) fn ends(&mut self, flow: &Arc<Flow>) {
        self.0.remove(&(flow.task, flow.route.epoch));
    }
}

/// When the leader of a partition said last that there is nothing, if all before is processed.
fn silent_at(flow: &Flow, consumer: &ConsumerHandle) -> Option<Instant> {
    let is_silent = flow.queued.load(Ordering::Acquire) == 0
        && consumer.lag(&flow.partition) == Some(0)
        && consumer.failing_for(&flow.partition).is_none();
    consumer.heard_at(&flow.partition).filter(|_| is_silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_task_hears_of_silence_when_it_has_lasted_and_then_again_and_again() {
        let mut silence = Silence::default();
        let mut heard = Vec::new();
        for now in (0..=1_000).step_by(20) {
            heard.extend(silence.look(ms(now), Some(ms(now)), ms(500)));
        }
        assert_eq!(heard[0], ms(500));
        assert!(heard.windows(2).all(|two| two[1] - two[0] >= ms(50)), "{heard:?}");
        assert!(heard.len() >= 8, "{heard:?}");
    }

    #[test]
    fn a_record_ends_it() {
        let mut silence = Silence::default();
        for now in (0..=480).step_by(20) {
            assert_eq!(silence.look(ms(now), Some(ms(now)), ms(500)), None);
        }
        assert_eq!(silence.look(ms(499), None, ms(500)), None);
        assert_eq!(silence.look(ms(990), Some(ms(990)), ms(500)), None);
        assert_eq!(silence.look(ms(1_010), Some(ms(1_010)), ms(500)), Some(ms(511)));
    }

    /// A process that was stopped for an hour, or a machine that slept, has heard nothing of what came meanwhile.
    #[test]
    fn what_nobody_listened_to_is_no_silence() {
        let mut silence = Silence::default();
        for now in (0..=980).step_by(20) {
            assert_eq!(silence.look(ms(now), Some(ms(now)), ms(1_000)), None);
        }
        assert_eq!(silence.look(ms(3_600_000), Some(ms(3_600_000)), ms(1_000)), None);
        assert_eq!(silence.look(ms(3_600_900), Some(ms(3_600_900)), ms(1_000)), None);
        assert_eq!(silence.look(ms(3_601_000), Some(ms(3_601_000)), ms(1_000)), Some(ms(1_000)));
    }

    /// A leader that does not answer was heard last when it did; and what it says then is of all the time before.
    #[test]
    fn silence_lasts_up_to_when_it_was_heard() {
        let mut silence = Silence::default();
        for now in (0..=3_000).step_by(20) {
            assert_eq!(silence.look(ms(now), Some(ms(now.min(400))), ms(500)), None);
        }
        assert_eq!(silence.look(ms(3_020), Some(ms(3_010)), ms(500)), Some(ms(3_010)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_silence() {
        let mut silence = Silence::default();
        assert_eq!(silence.look(ms(5_000), Some(ms(5_000)), ms(100)), None);
        assert_eq!(silence.look(ms(10), Some(ms(10)), ms(100)), None);
        assert_eq!(silence.look(ms(110), Some(ms(110)), ms(100)), Some(ms(100)));
    }
}
