//! Where a task's time comes from when no record brings it: what was committed of it, and the clock.

use std::time::Duration;

use klamm_client::Headers;

use super::Task;
use crate::streams::error::TaskError;
use crate::streams::input_time::InputTime;
use crate::streams::node::{TopicId, of_no_record};
use crate::streams::windows::millis;

impl Task {
    /// Whether it matters to the task what the times of its inputs were before it began.
    pub(crate) fn follows_time(&self) -> bool {
        !(self.punctuating.is_empty() && self.following.is_empty())
            || self.inputs.iter().any(|input| input.stamping.is_some())
    }

    /// Goes on from the times that an earlier task committed. Before the first turn.
    pub(crate) fn begin_at(&mut self, topic: TopicId, time: InputTime) {
        let Some(input) = self.inputs.iter_mut().find(|input| input.topic == topic) else { return };
        input.partition_ms = input.partition_ms.max(time.partition_ms);
        input.processed_ms = input.processed_ms.max(time.partition_ms);
        let stream_time_ms = self.context.stream_time_ms.max(time.partition_ms).max(time.idle_ms);
        self.context.stream_time_ms = stream_time_ms;
        if time.idle_ms > self.idle_ms {
            self.idle_ms = time.idle_ms;
            // What was closed by then is closed; a changelog knows of records only.
            self.following.iter().for_each(|follows| follows.borrow_mut().note(time.idle_ms));
        }
    }

    /// What is to be committed beside an input's offset.
    pub(crate) fn input_time(&self, topic: TopicId) -> InputTime {
        let input = self.inputs.iter().find(|input| input.topic == topic);
        InputTime { partition_ms: input.map_or(-1, |input| input.processed_ms), idle_ms: self.idle_ms }
    }

    /// Nothing has come for so long: stream time goes on with the clock from where the last record left it, and what
    /// that closes is told.
    pub(crate) fn idle(&mut self, lasts: Duration) -> Result<(), TaskError> {
        let is_silent = self.inputs.iter().all(|input| input.queue.is_empty()) && !self.is_calling();
        let at_ms = self.silent_since_ms.saturating_add(millis(lasts));
        if !is_silent || !self.is_begun || self.silent_since_ms < 0 || at_ms <= self.context.stream_time_ms {
            return Ok(());
        }
        // What is held back is of records: time does not overtake it.
        self.flush()?;
        let before = (self.context.outputs.len(), self.context.uncommitted_bytes);
        self.context.stream_time_ms = at_ms;
        for follows in &self.following {
            of_no_record(&mut self.context, |context| {
                context.headers = Headers::new();
                follows.borrow_mut().go_on(context, at_ms)
            })?;
        }
        for punctuating in &self.punctuating {
            of_no_record(&mut self.context, |context| punctuating.borrow_mut().on_stream_time(context))?;
        }
        if (self.context.outputs.len(), self.context.uncommitted_bytes) != before {
            self.context.punctuated = true;
            self.idle_ms = at_ms;
        }
        Ok(())
    }
}
