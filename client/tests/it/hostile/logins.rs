//! Brokers that lie while the client logs in: an error in time, and no password for whoever asks nicely.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::testing::{Answer, Exchange};
use klamm_client::{Client, Record, Sasl, Security};
use klamm_protocol::frame::{LENGTH_BYTES, decode_response, encode_response};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Decoder, ErrorCode, Message};
use tokio::time::{Instant, timeout};

use super::{Case, Watch, each};
use crate::scripted::{self, TOPIC};

/// Only what the client itself waits may pass.
const IN_TIME: Duration = Duration::from_secs(20);

/// The text of a SCRAM message.
fn said(exchange: &Exchange<'_>) -> String {
    let request =
        SaslAuthenticateRequest::decode(&mut Decoder::new(exchange.request.clone()), exchange.version);
    String::from_utf8_lossy(&request.unwrap().auth_bytes).into_owned()
}

fn nonce(said: &str) -> &str {
    said.split(',').find_map(|part| part.strip_prefix("r=")).unwrap_or_default()
}

/// The server's first message is made of the client's nonce; its last one is always the same.
fn scram(name: &str, first: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> Case {
    scram_to_the_end(name, first, "v=AAAA")
}

fn scram_to_the_end(
    name: &str,
    first: impl Fn(&str) -> String + Clone + Send + Sync + 'static,
    last: &'static str,
) -> Case {
    Case::new(format!("scram: {name}"), move |broker| {
        let first = first.clone();
        let answer = Answer::tampered(move |exchange| {
            let said = said(exchange);
            let text = if said.starts_with("n,") { first(nonce(&said)) } else { last.to_owned() };
            let frame = exchange.answer.slice(LENGTH_BYTES..);
            let decoded = decode_response::<SaslAuthenticateRequest>(frame, exchange.version);
            let (id, mut answer) = decoded.unwrap();
            answer.auth_bytes = Bytes::from(text);
            encode_response(exchange.api, &answer, exchange.version, id).unwrap().bytes
        });
        broker.always(ApiKey::SaslAuthenticate, answer);
    })
}

const SALT: &str = "c2FsdHNhbHRzYWx0c2FsdA==";

fn of_scram() -> Vec<Case> {
    let mut cases = vec![
        scram("another nonce", |_| format!("r=another,s={SALT},i=4096")),
        scram("the client's nonce alone", |nonce| format!("r={nonce},s={SALT},i=4096")),
        scram("no nonce", |_| format!("r=,s={SALT},i=4096")),
        scram("no salt", |nonce| format!("r={nonce}x,s=,i=4096")),
        scram("a salt that is none", |nonce| format!("r={nonce}x,s=***,i=4096")),
        scram("nothing", |_| String::new()),
        scram("commas", |_| ",,,,,,,".to_owned()),
        scram("an error", |_| "e=other-error".to_owned()),
        scram("an extension that must be known", |nonce| format!("m=x,r={nonce}x,s={SALT},i=4096")),
        scram("1 MiB", |nonce| format!("r={nonce}{},s={SALT},i=4096", "x".repeat(1024 * 1024))),
        scram("the client's own message", |nonce| format!("n,,n=alice,r={nonce}")),
        scram("a signature that is wrong", |nonce| format!("r={nonce}x,s={SALT},i=4096")),
    ];
    for iterations in ["1", "0", "-1", "4095", "100001", "2147483648", "18446744073709551616", "", "4096x"] {
        cases.push(scram(&format!("{iterations:?} iterations"), move |nonce| {
            format!("r={nonce}x,s={SALT},i={iterations}")
        }));
    }
    for last in ["", "v=", "v=***", "e=unknown-user", "x=1", "v"] {
        let first = |nonce: &str| format!("r={nonce}x,s={SALT},i=4096");
        cases.push(scram_to_the_end(&format!("ends with {last:?}"), first, last));
    }
    cases
}

fn of_any_mechanism() -> Vec<Case> {
    let mut cases = vec![
        Case::edited::<SaslHandshakeRequest>("handshake: an error that nobody knows", |answer| {
            answer.error_code = 12_345;
        }),
        Case::edited::<SaslHandshakeRequest>("handshake: 50,000 mechanisms", |answer| {
            answer.error_code = ErrorCode::UnsupportedSaslMechanism.code();
            answer.mechanisms = (0..50_000).map(|number| format!("M{number}").into()).collect();
        }),
        Case::edited::<SaslAuthenticateRequest>("authenticate: an error that nobody knows", |answer| {
            answer.error_code = 12_345;
        }),
        Case::edited::<SaslAuthenticateRequest>("authenticate: a text of 32 KiB", |answer| {
            answer.error_code = ErrorCode::SaslAuthenticationFailed.code();
            answer.error_message = Some("x".repeat(32_767).into());
        }),
    ];
    for api in [ApiKey::SaslHandshake, ApiKey::SaslAuthenticate] {
        let answers = [
            Answer::DisconnectBefore,
            Answer::DisconnectAfter,
            Answer::Never,
            Answer::Hang,
            Answer::Bytes(Bytes::from_static(&[0x7f; 64])),
            Answer::Error(ErrorCode::UnsupportedSaslMechanism),
            Answer::Error(ErrorCode::IllegalSaslState),
        ];
        cases.extend(answers.map(|answer| Case::answered(api, answer)));
    }
    cases
}

async fn logs_in_through(cases: Vec<Case>, sasl: fn() -> Sasl) {
    each(cases, async |case| {
        let name = &case.name;
        let broker = scripted::start(1).await;
        let watch = Watch::begin(case, &broker);
        let builder = || {
            let security = Security::plaintext().danger_plaintext_credentials().sasl(sasl());
            let builder = broker.client_builder().security(security);
            builder.connect_timeout(Duration::from_secs(5)).request_timeout(Duration::from_secs(5))
        };
        let began = Instant::now();
        let connected: Result<Client, _> = timeout(IN_TIME, builder().build())
            .await
            .unwrap_or_else(|_| panic!("{name}: connecting does not end"));
        let error = connected.map(drop).expect_err(name).to_string();
        assert!(!error.contains("secret"), "{name}: the password is told: {error}");
        assert!(error.len() < 2_000, "{name}: an error of {} bytes", error.len());
        assert!(began.elapsed() <= Duration::from_secs(12), "{name}: {:?}", began.elapsed());
        watch.end();
        // The fake broker lets in whoever uses PLAIN.
        if sasl().mechanism() == "PLAIN" {
            let client = builder().build().await.unwrap();
            client.producer().build().unwrap().send(Record::to(TOPIC).value("a")).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn about_scram() {
    logs_in_through(of_scram(), || Sasl::scram_sha_256("alice", "secret")).await;
    logs_in_through(of_scram(), || Sasl::scram_sha_512("alice", "secret")).await;
}

#[tokio::test(start_paused = true)]
async fn about_logins() {
    logs_in_through(of_any_mechanism(), || Sasl::plain("alice", "secret")).await;
}

/// Sessions that end before they begin, or never: the client works on.
#[tokio::test(start_paused = true)]
async fn about_the_length_of_sessions() {
    for lifetime_ms in [i64::MIN, -1, 1, i64::from(i32::MAX) + 1, i64::MAX] {
        let broker = scripted::start(1).await;
        let name = format!("a session of {lifetime_ms} ms");
        let case = Case::edited::<SaslAuthenticateRequest>(name, move |answer| {
            answer.session_lifetime_ms = lifetime_ms;
        });
        let watch = Watch::begin(&case, &broker);
        let security =
            Security::plaintext().danger_plaintext_credentials().sasl(Sasl::plain("alice", "secret"));
        let client = broker.client_builder().security(security).build().await.unwrap();
        let producer = client.producer().build().unwrap();
        for number in 0..10 {
            let sent = producer.send(Record::to(TOPIC).value(number.to_string()));
            timeout(IN_TIME, sent).await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(broker.values(TOPIC, 0).len(), 10, "{lifetime_ms}");
        watch.end();
    }
}
