//! A spring-kafka service beside ours: we read and replay the dead letters that it makes, ask its `@SendTo` listener,
//! and answer its `ReplyingKafkaTemplate`.

use std::process::Stdio;
use std::time::Duration;

use klamm::dead_letters::{DeadLetters, LetterFilter, Summary};
use klamm::template::request::{ReplyTo, RequesterBuilder};
use klamm_client::{Client, NewTopic, Record};
use klamm_tests::{BrokerProcess, repository};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::installed::spring_jars;

/// A JVM that compiles its program and starts a Spring context, on a machine that does other things too.
const START: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(60);

struct Spring {
    _java: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Spring {
    async fn start(jars: &str, address: &str) -> Self {
        let mut java = Command::new("java");
        java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]);
        java.args([
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
            "-cp",
            jars,
            "tests/foreign/java/Spring.java",
        ]);
        java.arg(address).current_dir(repository()).kill_on_drop(true);
        let mut java = java.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (java.stdin.take().unwrap(), java.stdout.take().unwrap());
        let mut spring = Self { _java: java, input, output: BufReader::new(output).lines() };
        assert_eq!(timeout(START, spring.output.next_line()).await.unwrap().unwrap().unwrap(), "ready");
        spring
    }

    async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        timeout(STEP, self.output.next_line()).await.expect("a line in time").unwrap().expect("it goes on")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_and_replies_go_both_ways() {
    let Some(jars) = spring_jars("a spring-kafka service") else { return };
    let data = tempfile::tempdir().unwrap();
    let settings = ["group.initial.rebalance.delay.ms=0"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    let names = [
        "spring-orders",
        "spring-orders-dlt",
        "spring-payments",
        "spring-questions",
        "spring-questions-replies",
    ];
    let topics = names.map(|name| NewTopic::new(name).partitions(2));
    let one = ["klamm-questions", "klamm-questions-replies"].map(|name| NewTopic::new(name).partitions(1));
    client.admin().create_topics(&[&topics[..], &one].concat()).await.unwrap();
    let mut spring = Spring::start(&jars, broker.bootstrap()).await;

    letters_are_replayed(&client, &mut spring).await;
    spring_answers(&client).await;
    spring_asks(&client, &mut spring).await;
    broker.stop(Duration::from_secs(10)).await;
}

async fn letters_are_replayed(client: &Client, spring: &mut Spring) {
    let producer = client.producer().build().unwrap();
    for (topic, partition) in [("spring-orders", 1), ("spring-payments", 0)] {
        producer.send(Record::to(topic).partition(partition).key("k").value("one")).await.unwrap();
    }
    let orders = DeadLetters::new(client, "spring-orders-dlt");
    let payments = DeadLetters::new(client, "spring-payments-dlt");
    for (letters, origin, group) in
        [(&orders, "spring-orders", "spring-billing"), (&payments, "spring-payments", "spring-paying")]
    {
        let summary = one_letter(letters).await;
        let (cause, _) = summary.causes.first_key_value().unwrap();
        assert_eq!(
            (cause.origin.as_deref(), &*cause.error),
            (Some(origin), "java.lang.IllegalStateException")
        );
        assert!(cause.group.as_deref().is_some_and(|found| found.starts_with(group)), "{cause:?}");
    }
    let letter = orders.at(1, 0).await.unwrap().unwrap();
    let origin = letter.origin.unwrap();
    assert_eq!((origin.partition, origin.offset), (Some(1), Some(0)));
    assert!(origin.timestamp_ms.is_some_and(|at_ms| at_ms > 1_700_000_000_000));
    let cause = letter.cause.unwrap();
    assert!(cause.message.is_some_and(|message| message.contains("no such order: one")));
    assert!(cause.stack_trace.is_some_and(|trace| trace.contains("Spring.handle")));

    // Still ill: it comes back as a letter that was replayed once.
    assert_eq!(orders.replay().run().await.unwrap().sent, 1);
    let again = timeout(STEP, async {
        loop {
            let summary = orders.summary(&LetterFilter::new()).await.unwrap();
            if summary.letters.letters == 2 {
                break summary;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(again.await.expect("it comes back").letters.came_back, 1);
    spring.say("heal").await;
    assert_eq!(spring.line().await, "healed");
    for (letters, handled) in
        [(orders, "handled spring-orders one"), (payments, "handled spring-payments one")]
    {
        assert_eq!(letters.replay().exactly_once().run().await.unwrap().sent, 1);
        assert_eq!(spring.line().await, handled);
    }
}

async fn one_letter(letters: &DeadLetters) -> Summary {
    let found = timeout(STEP, async {
        loop {
            match letters.summary(&LetterFilter::new()).await {
                Ok(summary) if summary.letters.letters > 0 => break summary,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("no letter in {}", letters.topic()))
}

async fn spring_answers(client: &Client) {
    let producer = client.producer().build().unwrap();
    let builder =
        || RequesterBuilder::<String, String>::new(client, &producer, "spring-questions").timeout(STEP);
    let requester = builder().start().await.unwrap();
    for text in ["ab", "cd"] {
        assert_eq!(requester.request(text.to_owned()).key("k").await.unwrap(), [text, text].concat());
    }
    let everywhere = builder().every_reply_partition().start().await.unwrap();
    assert_eq!(everywhere.request("ef".to_owned()).await.unwrap(), "efef");
}

async fn spring_asks(client: &Client, spring: &mut Spring) {
    let producer = client.producer().build().unwrap();
    let mut consumer =
        client.consumer().assign([("klamm-questions", 0)]).from_beginning().start().await.unwrap();
    for text in ["gh", "ij"] {
        spring.say(&format!("ask {text}")).await;
        let request = timeout(STEP, consumer.next()).await.unwrap().unwrap().unwrap();
        let reply_to = ReplyTo::of(&request.headers).expect("it wants a reply");
        let answer = String::from_utf8(request.value.unwrap().repeat(2)).unwrap();
        producer.send(reply_to.reply(answer)).await.unwrap();
        assert_eq!(spring.line().await, format!("reply {text}{text}"));
    }
}
