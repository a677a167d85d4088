//! How long nothing has come for a task. Silence is what was listened to: the time of a process that was stopped, of a
//! broker that does not answer and of a pause does not count, for records may have lain there meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_client::ConsumerHandle;

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
    lasts: Duration,
    looked: Option<Duration>,
    told: Option<Duration>,
}

impl Silence {
    /// Looks at a time of a clock that does not go back; gives how long it has been silent if the task is to hear of
    /// it.
    fn look(&mut self, now: Duration, is_silent: bool, after: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.looked.replace(now).unwrap_or(now));
        if !is_silent || passed > LONGEST_STEP {
            (self.lasts, self.told) = (Duration::ZERO, None);
            return None;
        }
        self.lasts += passed;
        let between = (after / TELLS).clamp(SHORTEST_BETWEEN, LONGEST_BETWEEN);
        let is_due = self.told.is_none_or(|told| self.lasts >= told + between);
        (self.lasts >= after && is_due).then(|| *self.told.insert(self.lasts))
    }
}

/// That of all tasks.
#[derive(Debug, Default)]
pub(super) struct Silences(BTreeMap<(TaskId, u64), Silence>);

impl Silences {
    /// Tells tasks of which nothing has come for long.
    pub(super) fn listen(&mut self, shared: &Shared, now: Duration) {
        let Some(after) = shared.config.idle_after else { return };
        let Some(consumer) = shared.consumer() else { return };
        let hears = !shared.is_paused() && shared.is_member();
        let routes = shared.routes();
        let mut tasks: BTreeMap<(TaskId, u64), bool> = BTreeMap::new();
        for flow in routes.flows.values() {
            let silent = tasks.entry((flow.task, flow.route.epoch)).or_insert(hears);
            *silent &= is_silent(flow, &consumer);
        }
        self.0.retain(|task, _| tasks.contains_key(task));
        for (id, is_silent) in tasks {
            let silence = self.0.entry(id).or_default();
            let Some(lasts) = silence.look(now, is_silent, after) else { continue };
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

/// Whether all there is of a partition is processed, as far as its leader said a moment ago.
fn is_silent(flow: &Flow, consumer: &ConsumerHandle) -> bool {
    flow.queued.load(Ordering::Acquire) == 0
        && consumer.lag(&flow.partition) == Some(0)
        && consumer.failing_for(&flow.partition).is_none()
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
            heard.extend(silence.look(ms(now), true, ms(500)));
        }
        assert_eq!(heard[0], ms(500));
        assert!(heard.windows(2).all(|two| two[1] - two[0] >= ms(50)), "{heard:?}");
        assert!(heard.len() >= 8, "{heard:?}");
    }

    #[test]
    fn a_record_ends_it() {
        let mut silence = Silence::default();
        for now in (0..=480).step_by(20) {
            assert_eq!(silence.look(ms(now), true, ms(500)), None);
        }
        assert_eq!(silence.look(ms(499), false, ms(500)), None);
        assert_eq!(silence.look(ms(990), true, ms(500)), None);
        assert_eq!(silence.look(ms(1_010), true, ms(500)), Some(ms(511)));
    }

    /// A process that was stopped for an hour, or a machine that slept, has heard nothing of what came meanwhile.
    #[test]
    fn what_nobody_listened_to_is_no_silence() {
        let mut silence = Silence::default();
        for now in (0..=980).step_by(20) {
            assert_eq!(silence.look(ms(now), true, ms(1_000)), None);
        }
        assert_eq!(silence.look(ms(3_600_000), true, ms(1_000)), None);
        assert_eq!(silence.look(ms(3_600_900), true, ms(1_000)), None);
        assert_eq!(silence.look(ms(3_601_000), true, ms(1_000)), Some(ms(1_000)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_silence() {
        let mut silence = Silence::default();
        assert_eq!(silence.look(ms(5_000), true, ms(100)), None);
        assert_eq!(silence.look(ms(10), true, ms(100)), None);
        assert_eq!(silence.look(ms(110), true, ms(100)), Some(ms(100)));
    }
}
