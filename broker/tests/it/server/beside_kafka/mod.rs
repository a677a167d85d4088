//! Requests that one node answers without doing much, asked of us and written down as Apache Kafka 4.3 answered them.
//!
//! `answers.txt` holds what Kafka said, with what differs from start to start left out. Where we say something else
//! on purpose, the line below begins with `klamm:`. To ask Kafka again, set `KLAMM_APACHE_KAFKA` to the address of a
//! node with the id 1 and `group.initial.rebalance.delay.ms=0`.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests fail like tests.

use std::fmt::{Debug, Write};
use std::time::Duration;

use klamm_broker::Broker;
use klamm_protocol::Request;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::delete_topics::DeleteTopicState;
use klamm_protocol::messages::*;
use klamm_runtime::TcpNet;

use super::wire::*;

mod cluster;
mod members;
mod replicas;
mod security;
mod topics;

const TOPIC: &str = "beside";

/// What was asked and what was said, line by line.
struct Dialogue {
    wire: Wire,
    /// A second member's.
    other: Wire,
    said: String,
    /// What members are called, by their ids.
    names: Vec<(String, String)>,
}

impl Dialogue {
    async fn ask<R: Request>(&mut self, what: &str, request: R, version: i16) -> R::Response
    where
        R::Response: Debug,
    {
        self.ask_with(what, request, version, |_| ()).await
    }

    /// With what changes from start to start taken out.
    async fn ask_with<R: Request>(
        &mut self,
        what: &str,
        request: R,
        version: i16,
        mask: impl Fn(&mut R::Response),
    ) -> R::Response
    where
        R::Response: Debug,
    {
        let mut response = self.wire.ask_in(&request, version).await;
        mask(&mut response);
        self.note::<R>(what, version, &response);
        response
    }

    fn note<R: Request>(&mut self, what: &str, version: i16, response: &R::Response)
    where
        R::Response: Debug,
    {
        let mut told = without_words(&format!("{response:?}").replace(", unknown_tags: {}", ""));
        for (id, name) in &self.names {
            told = told.replace(id, name);
        }
        writeln!(self.said, "{:?} {version} {what}\n  {told}", R::KEY).unwrap();
    }

    /// Tries until it is so.
    async fn until(&mut self, is_so: impl AsyncFn(&mut Wire) -> bool) {
        for _ in 0..100 {
            if is_so(&mut self.wire).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("what the dialogue needs does not come about after\n{}", self.said);
    }
}

/// Reasons in words are everybody's own.
fn without_words(told: &str) -> String {
    const REASON: &str = "error_message: Some(\"";
    let mut pieces = told.split(REASON);
    let mut all = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (words, rest) = piece.split_once("\")").unwrap();
        write!(all, "{REASON}{}\"){rest}", if words.is_empty() { "" } else { "..." }).unwrap();
    }
    all
}

fn state(name: &str) -> DeleteTopicState {
    DeleteTopicState { name: Some(name.into()), ..DeleteTopicState::default() }
}

async fn dialogue(wire: Wire, other: Wire) -> String {
    let mut dialogue = Dialogue { wire, other, said: String::new(), names: Vec::new() };
    let topic = |name: &str| CreatableTopic {
        name: name.into(),
        num_partitions: 2,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let topics = vec![topic(TOPIC), topic("beside.more")];
    let create = CreateTopicsRequest { topics, ..CreateTopicsRequest::default() };
    let remove = DeleteTopicsRequest {
        topics: create.topics.iter().map(|topic| state(&topic.name)).collect(),
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    dialogue.wire.ask(&remove).await;
    // Kafka's leaders are not there at once, nor are topics gone at once.
    dialogue
        .until(async |wire| wire.ask(&create).await.topics.iter().all(|topic| topic.error_code == 0))
        .await;
    dialogue.until(async |wire| wire.produce(TOPIC, batch(&["a", "b", "c"])).await.error_code == 0).await;
    dialogue.security().await;
    dialogue.replicas().await;
    dialogue.cluster().await;
    dialogue.telemetry().await;
    dialogue.epochs().await;
    dialogue.topics().await;
    dialogue.groups().await;
    dialogue.members().await;
    dialogue.static_members().await;
    dialogue.said
}

/// What was asked, what Kafka said, and what we say if that is something else.
struct Exchange<'a> {
    asked: &'a str,
    kafka: &'a str,
    ours: Option<&'a str>,
}

fn exchanges(text: &str) -> Vec<Exchange<'_>> {
    let mut all: Vec<Exchange<'_>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line.strip_prefix("klamm:") {
            Some(ours) => all.last_mut().unwrap().ours = Some(ours),
            None => all.push(Exchange { asked: line, kafka: lines.next().unwrap(), ours: None }),
        }
    }
    all
}

fn check(said: &str, expected: impl Fn(&Exchange<'static>) -> &'static str) {
    let (said, written) = (exchanges(said), exchanges(include_str!("answers.txt")));
    for (said, written) in said.iter().zip(&written) {
        assert_eq!(said.asked, written.asked);
        assert_eq!(said.kafka.trim(), expected(written).trim(), "{}", said.asked);
    }
    assert_eq!(said.len(), written.len());
}

#[tokio::test]
async fn we_answer_as_it_is_written_down() {
    let broker = Broker::builder()
        .ephemeral()
        .set("node.id", 1)
        .set("group.initial.rebalance.delay.ms", 0)
        .start()
        .await
        .unwrap();
    let said = dialogue(tcp(&broker).await, tcp(&broker).await).await;
    check(&said, |written| written.ours.unwrap_or(written.kafka));
}

#[tokio::test]
async fn kafka_answers_as_it_is_written_down() {
    let Ok(address) = std::env::var("KLAMM_APACHE_KAFKA") else {
        println!("skipped: KLAMM_APACHE_KAFKA names no broker");
        return;
    };
    let connect = async || Wire::connect(&TcpNet, &address).await;
    let said = dialogue(connect().await, connect().await).await;
    check(&said, |written| written.kafka);
}
