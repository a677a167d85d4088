//! The container image: built from this checkout, started by testcontainers, with a listener and a pipeline running against it.
//! Without a Docker engine these tests say so and pass; with KLAMM_REQUIRE_DOCKER set (as in CI) they fail instead.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use klamm::prelude::*;
use klamm::streams::{StreamsBuilder, StreamsConfig};
use klamm_client::{Client, NewTopic, Record};
use klamm_tests::{repository, run};
use testcontainers::core::{BuildImageOptions, IntoContainerPort, WaitFor};
use testcontainers::runners::{AsyncBuilder, AsyncRunner};
use testcontainers::{ContainerAsync, GenericBuildableImage, GenericImage, ImageExt};

/// Cold, this compiles the broker a second time, statically.
const BUILD: Duration = Duration::from_secs(900);

async fn docker_answers() -> bool {
    let answers = run("docker", ["info"], Duration::from_secs(20)).await.success;
    assert!(
        answers || std::env::var_os("KLAMM_REQUIRE_DOCKER").is_none(),
        "KLAMM_REQUIRE_DOCKER is set and no Docker engine answers"
    );
    if !answers {
        eprintln!("skipped: no Docker engine answers");
    }
    answers
}

/// A broker in a container and the address that reaches it.
async fn start() -> (ContainerAsync<GenericImage>, String) {
    let built = run("scripts/image", ["--binary-only", "dev"], BUILD).await;
    assert!(built.success, "{}", built.stderr);
    let binary = PathBuf::from(built.stdout.trim());
    let image = GenericBuildableImage::new("klamm-test", "latest")
        .with_dockerfile(repository().join("scripts/Dockerfile"))
        .with_file(binary, "./klamm")
        .build_image_with(BuildImageOptions::new())
        .await
        .expect("the image builds");
    // A client must be told an address that is valid outside the container, so the port is chosen first.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let container = image
        .with_wait_for(WaitFor::message_on_stdout("ready "))
        .with_mapped_port(port, 9092.tcp())
        .with_cmd([
            "broker".to_owned(),
            "--data-dir=/data".to_owned(),
            "--listen=0.0.0.0:9092".to_owned(),
            format!("--set=advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
            "--set=danger_plaintext_network=true".to_owned(),
            "--set=group.initial.rebalance.delay.ms=0".to_owned(),
        ])
        .start()
        .await
        .expect("the container starts");
    (container, format!("127.0.0.1:{port}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_and_a_pipeline_run_against_the_image() {
    if !docker_answers().await {
        return;
    }
    let (container, bootstrap) = start().await;
    let client = Client::connect(&bootstrap).await.expect("the container answers");
    let topics = ["lines", "shouted"].map(|name| NewTopic::new(name).partitions(2));
    client.admin().create_topics(&topics).await.expect("topics are created");

    let mut builder = StreamsBuilder::new();
    builder.stream::<String, String>("lines").map_values(|line| line.to_uppercase()).to("shouted");
    let state = tempfile::tempdir().unwrap();
    let config = StreamsConfig::new("shouter", &bootstrap)
        .state_dir(state.path())
        .commit_interval(Duration::from_millis(100));
    let pipeline = builder.build().unwrap().start(config).await.expect("the pipeline starts");

    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel::<String>();
    let hear = move |Value(line): Value<String>| {
        let heard = heard.clone();
        async move { heard.send(line).map_err(|_| "nobody listens") }
    };
    let listener = Listener::on("shouted").group("hearers").handle(hear);
    let app = App::new(&bootstrap).listener(listener).start().await.expect("the listener starts");

    let producer = client.producer().build().unwrap();
    for number in 0..100 {
        producer
            .send(Record::to("lines").key(number.to_string()).value(format!("line {number}")))
            .await
            .unwrap();
    }
    let mut lines = std::collections::BTreeSet::new();
    let all_heard = async {
        while lines.len() < 100 {
            lines.insert(hearing.recv().await.expect("the listener runs"));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_heard).await.expect("a hundred lines arrive");
    assert!((0..100).all(|number| lines.contains(&format!("LINE {number}"))), "{lines:?}");

    app.shutdown(Duration::from_secs(10)).await;
    pipeline.close().await.unwrap();
    container.rm().await.expect("the container goes");
}
