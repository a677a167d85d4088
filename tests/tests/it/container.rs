//! The container image: built from this checkout, started by testcontainers, with a listener and a pipeline running
//! against it. Without a Docker engine these tests are skipped.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use klamm_tests::{repository, run, skip};
use testcontainers::core::{BuildImageOptions, IntoContainerPort, WaitFor};
use testcontainers::runners::{AsyncBuilder, AsyncRunner};
use testcontainers::{ContainerAsync, GenericBuildableImage, GenericImage, ImageExt};

use crate::job::shout_and_hear;

/// Cold, this compiles the broker a second time, statically.
const BUILD: Duration = Duration::from_secs(900);

async fn docker_answers() -> bool {
    // Through a shell: where no Docker is, there is no such program either.
    let answers = run("sh", ["-c", "docker info"], Duration::from_secs(20)).await.success;
    if !answers {
        skip("the container image", "no Docker engine answers", "scripts/setup docker && make test");
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
    shout_and_hear(&bootstrap).await;
    container.rm().await.expect("the container goes");
}
