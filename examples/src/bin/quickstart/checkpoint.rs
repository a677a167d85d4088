//! How far a run has fed its inputs, kept in a compacted topic: what lets an interrupted run go on where it was.

use std::time::Duration;

use klamm::client::admin::OffsetSpec;
use klamm::client::{Client, IsolationLevel, Record, TopicPartition, Transaction};
use klamm::prelude::{Deserialize, Serialize};
use klamm::serde::{Json, JsonSerde, Serde};
use tokio::time::timeout;

use crate::input::{Input, Inputs};

pub const TOPIC: &str = "quickstart-progress";
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkpoint {
    /// Everything before this place, and nothing behind it.
    Feeding { file: String, offset_bytes: u64 },
    /// All of the input; it may not be counted yet.
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

/// The last checkpoint of a run with these inputs. No transaction of a run before may be open.
pub async fn read(client: &Client, inputs: &Inputs) -> klamm::Result<Option<Checkpoint>> {
    let partition = TopicPartition::new(TOPIC, 0);
    let ends = client.admin().offsets(&[(partition.clone(), OffsetSpec::Latest)].into()).await?;
    let end = match ends.into_values().next() {
        Some(end) => end?.offset.unwrap_or(0),
        None => 0,
    };
    let consumer = client.consumer().assign([partition.clone()]).from_beginning();
    let mut consumer = consumer.isolation(IsolationLevel::ReadCommitted).start().await?;
    let handle = consumer.handle();
    let mut last = None;
    // The end of a transaction takes an offset, and brings no record.
    while handle.position(&partition).unwrap_or(0) < end {
        let Ok(batch) = timeout(LOOK_AGAIN, consumer.next_batch()).await else { continue };
        let Some(batch) = batch else { break };
        for record in &batch?.records {
            if record.key.as_deref() == Some(inputs.name.as_bytes()) {
                last = record.value.clone();
            }
        }
    }
    consumer.close().await?;
    let last = last.map(|bytes| JsonSerde.deserialize(TOPIC, &bytes)).transpose()?;
    Ok(last.map(|Json(checkpoint)| checkpoint))
}

/// Notes how far a run is, as part of the transaction that brings it there.
pub async fn note(
    transaction: &Transaction<'_>,
    inputs: &Inputs,
    checkpoint: &Checkpoint,
) -> klamm::Result<()> {
    if inputs.can_be_read_again() {
        let value = JsonSerde.serialize(TOPIC, checkpoint)?;
        drop(transaction.enqueue(Record::to(TOPIC).key(inputs.name.clone()).value(value)).await?);
    }
    Ok(())
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
