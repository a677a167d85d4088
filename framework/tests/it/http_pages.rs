//! The pages for probes and scrapes, asked over real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use klamm::http;
use klamm::prelude::*;
use klamm::testing::TestKit;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::picky::picky;
use crate::seen::{Seen, note, until};

const DEADLINE: Duration = Duration::from_secs(60);

/// Serves the pages while it is asked.
async fn served(pages: Router, asking: impl AsyncFnOnce(SocketAddr)) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::select! {
        served = async { axum::serve(socket, pages).await } => panic!("{served:?}"),
        () = asking(address) => {}
    }
}

/// Status, head and body of a page.
async fn ask(address: SocketAddr, path: &str, accept: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: here\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn probes_say_how_the_listeners_are() {
    timeout(DEADLINE, async {
        let (kit, seen) = (TestKit::in_process().await, Seen::default());
        let stops = Listener::on("p").group("g").on_failure(FailurePolicy::new().stop()).handle(picky);
        let app =
            kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(note)).listener(stops);
        let app = app.start().await;
        let pages: Router = Router::new().merge(http::router(&app));
        served(pages, async |address| {
            kit.send("t", "k", "v").await;
            app.handled("note", 1).await;
            for path in ["/livez", "/readyz"] {
                let (status, head, body) = ask(address, path, "*/*").await;
                assert!(status == 200 && head.contains("text/plain") && head.contains("no-store"), "{head}");
                assert!(body.contains("note (g): running, 1 partitions, lag 0, 0 in flight"), "{body}");
            }
            let (status, head, body) = ask(address, "/readyz", "text/html, application/json;q=0.9").await;
            assert!(status == 200 && head.contains("application/json"), "{head}");
            assert!(body.contains(r#""ready":true"#) && body.contains(r#""listener":"note""#), "{body}");
            assert!(body.contains(r#""lag":0"#) && body.contains(r#""troubles":[]"#), "{body}");

            kit.send("p", "k", "bad").await;
            app.listener("picky").unwrap().failure().await.unwrap();
            for path in ["/livez", "/readyz"] {
                let (status, _, body) = ask(address, path, "*/*").await;
                assert!(status == 503 && body.contains("picky (g): failed (p-0, offset 0: bad)"), "{body}");
                let (status, _, body) = ask(address, path, "application/json").await;
                assert!(status == 503 && body.contains(r#""state":"failed""#), "{body}");
            }
            app.shutdown(Duration::from_secs(5)).await;
            let (status, _, body) = ask(address, "/readyz", "*/*").await;
            assert!(status == 503 && body.contains("note (g): stopped"), "{body}");
        })
        .await;
    })
    .await
    .unwrap();
}

#[cfg(feature = "asyncapi")]
#[tokio::test]
async fn the_document_of_an_app_is_two_pages() {
    timeout(DEADLINE, async {
        let kit = TestKit::in_process().await;
        let listener = Listener::on("t").group("g").handle(note);
        let app = kit.app().state(Seen::default()).listener(listener).start().await;
        let pages: Router = Router::new().merge(http::router(&app)).merge(http::asyncapi(&app));
        served(pages, async |address| {
            let (status, head, body) = ask(address, "/asyncapi.json", "*/*").await;
            assert!(
                status == 200 && head.contains("application/json") && head.contains("no-store"),
                "{head}"
            );
            let document: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(document["operations"]["note"]["action"], "receive");
            let (status, head, body) = ask(address, "/asyncapi", "*/*").await;
            assert!(status == 200 && head.contains("text/html") && body.contains("note"), "{head}");
            drop(app);
            let (status, _, body) = ask(address, "/asyncapi.json", "*/*").await;
            assert!(status == 503 && body.contains("ended"), "{body}");
        })
        .await;
    })
    .await
    .unwrap();
}

/// As Prometheus does it.
#[test]
fn a_scrape_shows_what_listeners_and_clients_do() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let prometheus = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scraping: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
        let kit = TestKit::in_process().await;
        let listener = Listener::on("t").group("g").handle(note);
        let app = kit.app().state(Seen::default()).listener(listener).start().await;
        let pages: Router =
            Router::new().merge(http::router(&app)).merge(http::metrics(move || prometheus.render()));
        served(pages, async |address| {
            for _ in 0..3 {
                kit.send("t", "k", "v").await;
            }
            app.handled("note", 3).await;
            let handle = app.listener("note").unwrap();
            until(|| handle.lag() == Some(0)).await;
            // Gauges are told every second.
            sleep(Duration::from_millis(1_500)).await;
            let (status, head, body) = ask(address, "/metrics", "*/*").await;
            assert!(status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
            let labels = r#"{listener="note",group="g",topic="t"}"#;
            for line in [
                format!("klamm_listener_deliveries_total{labels} 3"),
                format!("klamm_listener_handler_seconds_count{labels} 3"),
                r#"klamm_listener_live{listener="note",group="g"} 1"#.to_owned(),
                "# TYPE klamm_listener_lag_records gauge".to_owned(),
                "# TYPE klamm_client_requests_total counter".to_owned(),
            ] {
                assert!(body.lines().any(|found| found == line), "{line}\n{body}");
            }
            for line in body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with("klamm_") && value.parse::<f64>().is_ok(), "{line}");
            }
        })
        .await;
    });
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async { timeout(DEADLINE, scraping).await.unwrap() });
    });
}
