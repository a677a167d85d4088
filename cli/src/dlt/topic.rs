//! Which dead-letter topic is meant, as options of a command.

use clap::Args;
use klamm::dead_letters::DeadLetters;
use klamm_client::Client;

/// A dead-letter topic, and who remembers what of it is done.
#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    /// Dead-letter topic
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Group whose committed offsets say what is replayed and parked [default: klamm-dlt-TOPIC]
    #[arg(long, value_name = "G")]
    group: Option<String>,
}

impl TopicArgs {
    pub(super) fn letters(&self, client: &Client) -> DeadLetters {
        let letters = DeadLetters::new(client, self.topic.as_str());
        match &self.group {
            Some(group) => letters.group(group.as_str()),
            None => letters,
        }
    }
}
