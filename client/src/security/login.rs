//! A login over a connection: which mechanism, its messages, how long the session lasts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use klamm_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::mechanism::{LoginError, Mechanism};
use super::oauth::OAuth;
use super::plain::Plain;
use super::scram::Scram;
use super::settings::{Kind, Sasl};
use crate::error::RequestError;
use crate::runtime::{Blocking, Rng};

/// More messages than any mechanism has: a broker that goes on after that means no good.
const MOST_MESSAGES: usize = 4;
/// Longest text of a broker's that an error repeats.
const MOST_WORDS: usize = 300;
/// When a session is renewed, in percent of its life (KIP-368 has the same window).
const RENEW_FROM_PERCENT: u64 = 85;
const RENEW_TO_PERCENT: u64 = 95;
/// Random bytes in a nonce.
const NONCE_BYTES: usize = 24;

/// What a login needs of a connection.
#[async_trait]
pub(crate) trait SaslTransport: Send + Sync {
    /// The broker's `host:port`.
    fn address(&self) -> &Arc<str>;

    /// Sends SaslHandshake, version 1.
    async fn handshake(&self, request: SaslHandshakeRequest) -> Result<SaslHandshakeResponse, RequestError>;

    /// Sends SaslAuthenticate.
    async fn authenticate(
        &self,
        request: SaslAuthenticateRequest,
    ) -> Result<SaslAuthenticateResponse, RequestError>;
}

/// Logs in, or renews a session. Gives how long the session lasts; `None` when it does not end.
pub(crate) async fn log_in(
    transport: &dyn SaslTransport,
    sasl: &Sasl,
) -> Result<Option<Duration>, RequestError> {
    let failed = |reason: String| RequestError::Authentication {
        address: Arc::clone(transport.address()),
        mechanism: sasl.mechanism(),
        reason: reason.into(),
    };
    let mut mechanism = begin(sasl, transport.address()).await?.map_err(|error| failed(error.to_string()))?;
    let request =
        SaslHandshakeRequest { mechanism: Utf8Bytes::from_static(sasl.mechanism()), ..Default::default() };
    let answer = transport.handshake(request).await?;
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => {}
        ErrorCode::UnsupportedSaslMechanism => {
            let offered = answer.mechanisms.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
            return Err(failed(clipped(&format!("the broker offers {offered} (setting `sasl.mechanism`)"))));
        }
        code => return Err(failed(format!("the broker answered the handshake with {code}"))),
    }
    let mut message = mechanism.first().map_err(|error| failed(error.to_string()))?;
    for _ in 0..MOST_MESSAGES {
        let request = SaslAuthenticateRequest { auth_bytes: message.into(), ..Default::default() };
        let answer = transport.authenticate(request).await?;
        let code = ErrorCode::from_code(answer.error_code);
        if code != ErrorCode::None {
            let words = mechanism.redact(answer.error_message.as_deref().unwrap_or_default());
            return Err(failed(clipped(&format!("{code}: {words}"))));
        }
        let (answered, same) = answer_challenge(mechanism, answer.auth_bytes).await;
        mechanism = same;
        match answered.map_err(|error| failed(clipped(&error.to_string())))? {
            Some(next) => message = next,
            None if mechanism.is_complete() => {
                let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                return Ok(Some(lifetime).filter(|&ms| ms > 0).map(Duration::from_millis));
            }
            None => break,
        }
    }
    Err(failed(LoginError::Endless.to_string()))
}

/// How long after a login it is to be renewed. Spread, so that many connections do not log in at the same instant.
pub(crate) fn renew_after(lifetime: Duration, rng: &dyn Rng) -> Duration {
    let percent = RENEW_FROM_PERCENT + rng.below(RENEW_TO_PERCENT - RENEW_FROM_PERCENT + 1);
    lifetime.mul_f64(percent as f64 / 100.0)
}

/// Thousands of hashes take milliseconds, which a thread of the runtime must not be held for.
async fn answer_challenge(
    mut mechanism: Box<dyn Mechanism>,
    challenge: bytes::Bytes,
) -> (Result<Option<Vec<u8>>, LoginError>, Box<dyn Mechanism>) {
    let work = move || {
        let answer = mechanism.answer(&challenge);
        (answer, mechanism)
    };
    Blocking::start(work).join().await
}

/// The mechanism with what it needs: a token, or a nonce. That no token can be had now is an error that passes.
async fn begin(
    sasl: &Sasl,
    address: &Arc<str>,
) -> Result<Result<Box<dyn Mechanism>, LoginError>, RequestError> {
    Ok(match &sasl.0 {
        Kind::Plain { user, password } => Ok(Box::new(Plain::new(user, password))),
        Kind::Scram { hash, user, password } => {
            nonce().map(|nonce| -> Box<dyn Mechanism> { Box::new(Scram::new(*hash, user, password, nonce)) })
        }
        Kind::OAuth(provider) => match provider.token().await {
            Ok(token) => Ok(Box::new(OAuth::new(token))),
            Err(error) => {
                let source = Arc::new(io::Error::other(format!("no token can be had: {error}")));
                return Err(RequestError::Connect { address: Arc::clone(address), source });
            }
        },
    })
}

/// Printable and without a comma, which ends it in a message.
fn nonce() -> Result<String, LoginError> {
    let mut bytes = [0; NONCE_BYTES];
    // The seam for randomness is not for secrets: a seed would make the nonce known.
    getrandom::fill(&mut bytes).map_err(|error| LoginError::NoRandomness(error.to_string()))?;
    Ok(STANDARD_NO_PAD.encode(bytes))
}

/// As much of a broker's words as an error repeats.
fn clipped(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::runtime::SeededRng;
    use crate::security::{Token, TokenProvider};

    /// A broker that answers from a script, and remembers what it was sent.
    struct Broker {
        address: Arc<str>,
        handshake: SaslHandshakeResponse,
        /// Taken from the end; the last one is repeated.
        answers: Mutex<Vec<SaslAuthenticateResponse>>,
        sent: Mutex<Vec<bytes::Bytes>>,
    }

    impl Broker {
        fn new(answers: impl IntoIterator<Item = SaslAuthenticateResponse>) -> Self {
            let mut answers: Vec<_> = answers.into_iter().collect();
            answers.reverse();
            Self {
                address: Arc::from("b:1"),
                handshake: SaslHandshakeResponse::default(),
                answers: Mutex::new(answers),
                sent: Mutex::default(),
            }
        }

        fn sent(&self) -> Vec<String> {
            let sent = self.sent.lock().unwrap();
            sent.iter().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect()
        }
    }

    #[async_trait]
    impl SaslTransport for Broker {
        fn address(&self) -> &Arc<str> {
            &self.address
        }

        async fn handshake(&self, _: SaslHandshakeRequest) -> Result<SaslHandshakeResponse, RequestError> {
            Ok(self.handshake.clone())
        }

        async fn authenticate(
            &self,
            request: SaslAuthenticateRequest,
        ) -> Result<SaslAuthenticateResponse, RequestError> {
            self.sent.lock().unwrap().push(request.auth_bytes);
            let mut answers = self.answers.lock().unwrap();
            let last = answers.last().cloned().unwrap();
            Ok(if answers.len() > 1 { answers.pop().unwrap_or(last) } else { last })
        }
    }

    fn says(bytes: &str) -> SaslAuthenticateResponse {
        SaslAuthenticateResponse { auth_bytes: bytes.as_bytes().to_vec().into(), ..Default::default() }
    }

    fn refuses(words: &str) -> SaslAuthenticateResponse {
        SaslAuthenticateResponse {
            error_code: ErrorCode::SaslAuthenticationFailed.code(),
            error_message: Some(words.into()),
            ..Default::default()
        }
    }

    struct Tokens(Result<Token, &'static str>);

    #[async_trait]
    impl TokenProvider for Tokens {
        async fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
            self.0.clone().map_err(Into::into)
        }
    }

    async fn reason(broker: &Broker, sasl: Sasl) -> String {
        let error = log_in(broker, &sasl).await.unwrap_err();
        assert!(!error.is_retriable(), "{error}");
        match error {
            RequestError::Authentication { mechanism, reason, .. } => {
                assert_eq!(mechanism, sasl.mechanism());
                reason.to_string()
            }
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn a_session_lasts_as_long_as_the_broker_says() {
        for (told, expected) in [(0, None), (-5, None), (1_500, Some(Duration::from_millis(1_500)))] {
            let broker = Broker::new([SaslAuthenticateResponse { session_lifetime_ms: told, ..says("") }]);
            assert_eq!(log_in(&broker, &Sasl::plain("u", "p")).await.unwrap(), expected);
            assert_eq!(broker.sent(), ["\0u\0p"]);
        }
        let rng = SeededRng::new(1);
        let pauses: Vec<u128> = (0..1_000)
            .map(|_| renew_after(Duration::from_secs(100), &rng).as_secs_f64().round() as u128)
            .collect();
        assert_eq!((pauses.iter().min(), pauses.iter().max()), (Some(&85), Some(&95)));
    }

    #[tokio::test]
    async fn a_broker_that_repeats_the_password_does_not_get_it_into_the_error() {
        let broker = Broker::new([refuses("bad password hunter2 for u\n")]);
        let text = reason(&broker, Sasl::plain("u", "hunter2")).await;
        assert_eq!(text, format!("{}: bad password *** for u", ErrorCode::SaslAuthenticationFailed));
        let text = reason(&Broker::new([refuses(&"x".repeat(5_000))]), Sasl::plain("u", "hunter2")).await;
        assert_eq!(text.chars().count(), MOST_WORDS);
        let token = Sasl::oauth_bearer(Tokens(Ok(Token::new("s3cr3t"))));
        let text = reason(&Broker::new([refuses("bad s3cr3t")]), token).await;
        assert!(text.ends_with("bad ***"), "{text}");
    }

    #[tokio::test]
    async fn a_mechanism_that_the_broker_lacks_is_told_with_those_it_has() {
        let mut broker = Broker::new([says("")]);
        broker.handshake.error_code = ErrorCode::UnsupportedSaslMechanism.code();
        broker.handshake.mechanisms = vec!["PLAIN".into(), "GSSAPI".into()];
        let text = reason(&broker, Sasl::scram_sha_256("u", "p")).await;
        assert_eq!(text, "the broker offers PLAIN, GSSAPI (setting `sasl.mechanism`)");
        broker.handshake.error_code = ErrorCode::IllegalSaslState.code();
        let text = reason(&broker, Sasl::plain("u", "p")).await;
        assert!(text.contains("handshake"), "{text}");
        assert!(broker.sent().is_empty(), "no credentials before the mechanism is agreed on");
    }

    #[tokio::test]
    async fn hostile_brokers_end_in_an_error_in_time() {
        // A broker that says yes at once, without the proof that it knows the password.
        let text = reason(&Broker::new([says("")]), Sasl::scram_sha_256("u", "p")).await;
        assert!(text.contains("no nonce"), "{text}");
        let text = reason(&Broker::new([says("r=wrong,s=YQ==,i=4096")]), Sasl::scram_sha_512("u", "p")).await;
        assert!(text.contains("nonce"), "{text}");
        // Challenges without end.
        let text = reason(&Broker::new([says("more")]), Sasl::plain("u", "p")).await;
        assert!(text.contains("no challenge"), "{text}");
        let broker = Broker::new([says("{}")]);
        let text = reason(&broker, Sasl::oauth_bearer(Tokens(Ok(Token::new("x"))))).await;
        assert!(text.contains("goes on"), "{text}");
        assert_eq!(broker.sent().len(), 2);
        // A broker that takes a token back and then lets the client in all the same.
        let broker = Broker::new([says("{}"), says("")]);
        reason(&broker, Sasl::oauth_bearer(Tokens(Ok(Token::new("x"))))).await;
        // Iterations that would take hours.
        let broker = Hostile { address: Arc::from("b:1"), iterations: "2147483648", sent: Mutex::default() };
        let error = log_in(&broker, &Sasl::scram_sha_256("u", "p")).await.unwrap_err();
        assert!(error.to_string().contains("2147483648 iterations"), "{error}");
        assert_eq!(*broker.sent.lock().unwrap(), 1, "no proof is given");
    }

    /// Takes the client's nonce, so that only the iterations are wrong.
    struct Hostile {
        address: Arc<str>,
        iterations: &'static str,
        sent: Mutex<usize>,
    }

    #[async_trait]
    impl SaslTransport for Hostile {
        fn address(&self) -> &Arc<str> {
            &self.address
        }

        async fn handshake(&self, _: SaslHandshakeRequest) -> Result<SaslHandshakeResponse, RequestError> {
            Ok(SaslHandshakeResponse::default())
        }

        async fn authenticate(
            &self,
            request: SaslAuthenticateRequest,
        ) -> Result<SaslAuthenticateResponse, RequestError> {
            *self.sent.lock().unwrap() += 1;
            let first = String::from_utf8(request.auth_bytes.to_vec()).unwrap();
            let nonce = first.rsplit_once("r=").unwrap().1;
            Ok(says(&format!("r={nonce}x,s=YQ==,i={}", self.iterations)))
        }
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_had_now_may_be_had_later() {
        let error =
            log_in(&Broker::new([says("")]), &Sasl::oauth_bearer(Tokens(Err("503")))).await.unwrap_err();
        assert!(error.is_retriable() && error.to_string().contains("no token can be had: 503"), "{error}");
        let text = reason(&Broker::new([says("")]), Sasl::oauth_bearer(Tokens(Ok(Token::new("a b"))))).await;
        assert!(text.contains("token"), "{text}");
    }

    #[test]
    fn nonces_differ_and_fit_a_message() {
        let (one, other) = (nonce().unwrap(), nonce().unwrap());
        assert_ne!(one, other);
        assert!(one.len() == 32 && !one.contains(','), "{one}");
    }
}
