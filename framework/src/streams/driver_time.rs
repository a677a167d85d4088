//! What time does in the test driver: which records wait for which.

use std::time::Duration;

use super::driver::{Core, TopologyTestDriver};

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
}

impl Core {
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
