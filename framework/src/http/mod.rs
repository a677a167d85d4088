//! Pages for probes and scrapes, as routes of a service on [axum](https://docs.rs/axum) (feature `axum`).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use klamm::prelude::*;
//!
//! # async fn bill(Value(_order): Value<String>) {}
//! # async fn serve() -> klamm::Result<()> {
//! let billing = Listener::on("orders").group("billing").handle(bill);
//! let app = App::new("127.0.0.1:9092").listener(billing).start().await?;
//! let pages: axum::Router = axum::Router::new().merge(klamm::http::router(&app));
//! let socket = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! # async fn shutdown_signal() {}
//! axum::serve(socket, pages).with_graceful_shutdown(shutdown_signal()).await?;
//! app.shutdown(Duration::from_secs(20)).await;
//! # Ok(())
//! # }
//! ```

use axum::Router;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::app::{AppHandle, Health, ListenerHealth, ListenerRegistry, ListenerState};
#[cfg(feature = "asyncapi")]
use crate::asyncapi::AsyncApi;

/// What Prometheus calls its text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Two pages, to be merged into the routes of a service:
///
/// | | 200 while | 503 otherwise |
/// |---|---|---|
/// | `/livez` | no listener has ended by itself ([`Health::is_live`]) | restart the process |
/// | `/readyz` | every listener reads, without troubles ([`Health::is_ready`]) | the body says why |
///
/// The body is [`AppHandle::health`] as text; as JSON for who accepts `application/json`. They keep no listener alive,
/// and ask nobody: a probe costs the brokers nothing.
pub fn router<S: Clone + Send + Sync + 'static>(app: &AppHandle) -> Router<S> {
    let registry = app.registry();
    let live = registry.clone();
    let page = |registry: ListenerRegistry, is_well: fn(&Health) -> bool| {
        get(async move |request: Request| {
            let health = registry.health();
            answer(&health, is_well(&health), request.headers())
        })
    };
    Router::new()
        .route("/livez", page(live, Health::is_live))
        .route("/readyz", page(registry, Health::is_ready))
}

/// A page `/metrics` for Prometheus, which has what `render` gives: that of a
/// [`PrometheusHandle`](https://docs.rs/metrics-exporter-prometheus), for instance, whose recorder was installed before
/// the app started.
///
/// ```ignore
/// let prometheus = PrometheusBuilder::new().install_recorder()?;
/// let pages = Router::new().merge(http::router(&app)).merge(http::metrics(move || prometheus.render()));
/// ```
pub fn metrics<S: Clone + Send + Sync + 'static>(
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router<S> {
    Router::new().route("/metrics", get(async move || ([(CONTENT_TYPE, PROMETHEUS_TEXT)], render())))
}

/// Two pages with the app's [document](crate::asyncapi), as its listeners are when they are asked for (feature
/// `asyncapi`): `/asyncapi.json`, and `/asyncapi` for people. They tell of topics, groups and types: merge them where
/// those who may know reach them.
#[cfg(feature = "asyncapi")]
pub fn asyncapi<S: Clone + Send + Sync + 'static>(app: &AppHandle) -> Router<S> {
    let page = |registry: ListenerRegistry, kind: &'static str, written: fn(&AsyncApi) -> String| {
        get(async move || match registry.asyncapi() {
            Some(document) => {
                ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], written(&document)).into_response()
            }
            None => (StatusCode::SERVICE_UNAVAILABLE, "the app has ended\n").into_response(),
        })
    };
    Router::new()
        .route("/asyncapi.json", page(app.registry(), "application/json", AsyncApi::to_string))
        .route("/asyncapi", page(app.registry(), "text/html; charset=utf-8", AsyncApi::page))
}

fn answer(health: &Health, is_well: bool, headers: &HeaderMap) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|accepted| {
            accepted.split(',').any(|kind| kind.trim_start().starts_with("application/json"))
        });
    let (kind, body) = match wants_json {
        true => ("application/json", as_json(health).to_string()),
        false => ("text/plain; charset=utf-8", format!("{health}\n")),
    };
    (status, [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body).into_response()
}

fn as_json(health: &Health) -> Value {
    let listeners: Vec<Value> = health.listeners.iter().map(of_listener).collect();
    json!({ "live": health.is_live(), "ready": health.is_ready(), "listeners": listeners })
}

fn of_listener(listener: &ListenerHealth) -> Value {
    let troubles: Vec<Value> = listener
        .troubles
        .iter()
        .map(|trouble| {
            json!({
                "topic": trouble.partition.as_ref().map(|partition| &*partition.topic),
                "partition": trouble.partition.as_ref().map(|partition| partition.partition),
                "offset": trouble.offset,
                "reason": &*trouble.reason,
                "lasting_seconds": trouble.lasting.as_secs(),
            })
        })
        .collect();
    let (state, reason) = match &listener.state {
        ListenerState::Failed(failure) => ("failed", Some(failure.to_string())),
        ListenerState::Unresponsive(age) => ("unresponsive", Some(format!("for {age:.0?}"))),
        ListenerState::Joining => ("joining", None),
        ListenerState::Running => ("running", None),
        ListenerState::Paused => ("paused", None),
        ListenerState::Stopped => ("stopped", None),
        ListenerState::Off => ("off", None),
        ListenerState::Restarting { failure, after } => {
            ("restarting", Some(format!("in {after:.0?}: {failure}")))
        }
    };
    json!({
        "listener": &*listener.listener,
        "group": &*listener.group,
        "state": state,
        "reason": reason,
        "partitions": listener.partitions,
        "lag": listener.lag,
        "in_flight": listener.in_flight,
        "in_retry": listener.in_retry,
        "restarts": listener.restarts,
        "oldest_seconds": listener.oldest.as_secs(),
        "troubles": troubles,
    })
}
