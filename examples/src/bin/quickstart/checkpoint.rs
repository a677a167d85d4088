//! How far a run has fed its inputs, kept in a compacted topic: what lets an interrupted run go on where it was.

use klamm::client::admin::OffsetSpec;
use klamm::client::{Client, Delivery, Producer, Record, TopicPartition};
use klamm::prelude::{Deserialize, Serialize};
use klamm::serde::{Json, JsonSerde, Serde};

use crate::input::{Input, Inputs};

pub const TOPIC: &str = "quickstart-progress";

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkpoint {
    /// Everything before this place has been acknowledged.
    Feeding { file: String, offset_bytes: u64 },
    /// All of the input has been acknowledged; it may not be counted yet.
    Fed,
    /// All of it is counted: the next run with the same inputs begins anew.
    Done,
}

/// A place in the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Index of the input; one past the last when all is fed.
    pub file: usize,
    pub offset_bytes: u64,
}

impl Place {
    /// Where to go on after an earlier run stopped at `checkpoint`.
    pub fn after(checkpoint: Option<&Checkpoint>, inputs: &Inputs) -> Self {
        match checkpoint {
            None | Some(Checkpoint::Done) => Self::default(),
            Some(Checkpoint::Fed) => Self { file: inputs.files.len(), offset_bytes: 0 },
            Some(Checkpoint::Feeding { file, offset_bytes }) => {
                let found = inputs.files.iter().position(|input| input.name() == *file);
                // A file that is gone says nothing about the others: rather twice than not at all.
                found.map_or(Self::default(), |file| Self { file, offset_bytes: *offset_bytes })
            }
        }
    }

    pub fn to_checkpoint(self, inputs: &[Input]) -> Checkpoint {
        match inputs.get(self.file) {
            Some(input) => Checkpoint::Feeding { file: input.name(), offset_bytes: self.offset_bytes },
            None => Checkpoint::Fed,
        }
    }
}

/// The last checkpoint of a run with these inputs.
pub async fn read(client: &Client, inputs: &Inputs) -> klamm::Result<Option<Checkpoint>> {
    let partition = TopicPartition::new(TOPIC, 0);
    let ends = client.admin().offsets(&[(partition.clone(), OffsetSpec::Latest)].into()).await?;
    let end = match ends.into_values().next() {
        Some(end) => end?.offset.unwrap_or(0),
        None => 0,
    };
    let mut consumer = client.consumer().assign([partition.clone()]).from_beginning().start().await?;
    let handle = consumer.handle();
    let start = handle
        .beginning_offsets(std::slice::from_ref(&partition))
        .await?
        .get(&partition)
        .copied()
        .unwrap_or(0);
    let mut last = None;
    let mut next = start;
    while next < end {
        let Some(batch) = consumer.next_batch().await else { break };
        let batch = batch?;
        for record in &batch.records {
            if record.key.as_deref() == Some(inputs.name.as_bytes()) {
                last = record.value.clone();
            }
        }
        next = batch.next_offset;
    }
    consumer.close().await?;
    let last = last.map(|bytes| JsonSerde.deserialize(TOPIC, &bytes)).transpose()?;
    Ok(last.map(|Json(checkpoint)| checkpoint))
}

/// Writes the checkpoints of one run, one after the other.
pub struct Checkpoints<'a> {
    producer: Producer,
    inputs: &'a Inputs,
    under_way: Option<Delivery>,
}

impl<'a> Checkpoints<'a> {
    pub fn new(producer: Producer, inputs: &'a Inputs) -> Self {
        Self { producer, inputs, under_way: None }
    }

    /// Sends a checkpoint and does not wait for its acknowledgement, only for that of the one before.
    pub async fn note(&mut self, checkpoint: &Checkpoint) -> klamm::Result<()> {
        if !self.inputs.can_be_read_again() {
            return Ok(());
        }
        self.settle().await?;
        let value = JsonSerde.serialize(TOPIC, checkpoint)?;
        let record = Record::to(TOPIC).key(self.inputs.name.clone()).value(value);
        self.under_way = Some(self.producer.enqueue(record).await?);
        Ok(())
    }

    /// Waits until the last checkpoint is acknowledged.
    pub async fn settle(&mut self) -> klamm::Result<()> {
        if let Some(delivery) = self.under_way.take() {
            delivery.await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn inputs() -> Inputs {
        let file = |path: &str| Input::File { path: PathBuf::from(path), bytes: 10 };
        Inputs { name: "/a".to_owned(), files: vec![file("/a/1"), file("/a/2")] }
    }

    #[test]
    fn an_interrupted_run_goes_on_and_a_finished_one_begins_anew() {
        let inputs = inputs();
        let begin = Place::default();
        let middle = Place { file: 1, offset_bytes: 7 };
        let end = Place { file: 2, offset_bytes: 0 };
        for place in [begin, middle, end] {
            let checkpoint = place.to_checkpoint(&inputs.files);
            assert_eq!(Place::after(Some(&checkpoint), &inputs), place, "{checkpoint:?}");
        }
        assert_eq!(Place::after(None, &inputs), begin);
        assert_eq!(Place::after(Some(&Checkpoint::Done), &inputs), begin);
    }

    #[test]
    fn a_file_that_is_gone_means_all_over() {
        let checkpoint = Checkpoint::Feeding { file: "/a/0".to_owned(), offset_bytes: 7 };
        assert_eq!(Place::after(Some(&checkpoint), &inputs()), Place::default());
    }
}
