//! What time does in the test driver: which records wait for which.

use std::collections::VecDeque;
use std::time::Duration;

use super::driver::{Core, TopologyTestDriver};
use super::error::TaskError;

impl TopologyTestDriver {
    /// Lets records wait for inputs of their task that have none, as an application's do with
    /// [`StreamsConfig::max_task_idle`](super::StreamsConfig::max_task_idle): until these have one, or for so long by
    /// the driver's clock, which [`advance_wall_clock`](Self::advance_wall_clock) moves. Without it each record is
    /// processed as it is piped.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{StreamsBuilder, TopologyTestDriver};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// streams.stream::<String, String>(["left", "right"]).to("both");
    /// let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    /// driver.max_task_idle(Duration::from_millis(100));
    /// let left = driver.input::<String, String>("left");
    /// let right = driver.input::<String, String>("right");
    /// let both = driver.output::<String, String>("both");
    /// left.pipe("k", "later").at(20);
    /// assert!(both.read_all().is_empty());
    /// right.pipe("k", "earlier").at(10);
    /// assert_eq!(both.read_all(), [("k", "earlier")]);
    /// driver.advance_wall_clock(Duration::from_millis(100));
    /// assert_eq!(both.read_all(), [("k", "later")]);
    /// ```
    pub fn max_task_idle(&mut self, longest: impl Into<Option<Duration>>) {
        self.core.borrow_mut().max_task_idle = longest.into();
    }

    /// Lets stream time go on with the driver's clock in tasks that had no record for so long, as
    /// [`StreamsConfig::idle_after`](super::StreamsConfig::idle_after) does: what that closes is told by
    /// [`advance_wall_clock`](Self::advance_wall_clock). Without it, only records move stream time.
    pub fn idle_after(&mut self, silence: impl Into<Option<Duration>>) {
        self.core.borrow_mut().idle_after = silence.into();
    }
}

impl Core {
    /// Tells tasks that are idle how long they have been, upstream before downstream.
    pub(super) fn be_idle(&mut self) -> Result<(), TaskError> {
        let Some(after) = self.idle_after else { return Ok(()) };
        for index in 0..self.tasks.len() {
            let last_ms = self.last_record_ms.get(&index).copied().unwrap_or(0);
            let lasts = Duration::from_millis(self.wall_clock_ms.abs_diff(last_ms));
            if lasts < after {
                continue;
            }
            self.tasks[index].idle(lasts)?;
            let mut waiting = VecDeque::new();
            self.after_a_turn(index, &mut waiting)?;
            self.run(waiting)?;
        }
        Ok(())
    }

    /// Whether a task may process a record now.
    pub(super) fn may_go_on(&mut self, index: usize) -> bool {
        let now = Duration::from_millis(self.wall_clock_ms.unsigned_abs());
        let task = &mut self.tasks[index];
        for topic in task.input_topics().collect::<Vec<_>>() {
            let idling = self.idling.entry(topic).or_default();
            match task.has_records_of(topic) {
                true => idling.ends(),
                false => task.set_caught_up(topic, idling.is_over(Some(0), now, self.max_task_idle)),
            }
        }
        task.is_ready()
    }
}
