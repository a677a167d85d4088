//! Secured connections to a real broker: runs where `KLAMM_TEST_SECURED_KAFKA` names a folder with `ca.pem`,
//! `orders.pem` and `orders.key`, and `KLAMM_TEST_SECURED_PORT` the first of the ports of an Apache Kafka: SASL_SSL,
//! (the controller's), SSL with client certificates, SASL_PLAINTEXT, SASL_SSL with sessions of 2 s, and SASL_SSL with
//! OAUTHBEARER. User `alice` has the password `al=ice,pw` for PLAIN and `scrampw` for SCRAM.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm_client::admin::{
    Acl, AclFilter, AclOperation, AclPattern, AclResourceType, NewPartitions, ScramChange, ScramMechanism,
};
use klamm_client::runtime::{Listener, Net, Stream, TcpNet, read_text_file};
use klamm_client::security::{Tls, Token, TokenProvider};
use klamm_client::{Client, ClientError, ErrorCode, NewTopic, Record, RequestError, Sasl, Security};

const DEADLINE: Duration = Duration::from_secs(60);

struct Kafka {
    folder: PathBuf,
    port: u16,
}

impl Kafka {
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn find() -> Option<Self> {
        let (folder, port) =
            (std::env::var_os("KLAMM_TEST_SECURED_KAFKA"), std::env::var("KLAMM_TEST_SECURED_PORT"));
        let (Some(folder), Ok(port)) = (folder, port) else {
            eprintln!("skipped: KLAMM_TEST_SECURED_KAFKA and KLAMM_TEST_SECURED_PORT name no broker");
            return None;
        };
        Some(Self { folder: folder.into(), port: port.parse().unwrap() })
    }

    async fn pem(&self, name: &str) -> String {
        read_text_file(&self.folder.join(name)).await.unwrap()
    }

    async fn tls(&self) -> Tls {
        Tls::new().roots_pem(self.pem("ca.pem").await)
    }

    async fn connect(&self, listener: u16, security: Security) -> Result<Client, ClientError> {
        let bootstrap = format!("127.0.0.1:{}", self.port + listener);
        let client = Client::builder().bootstrap(bootstrap).security(security).build();
        tokio::time::timeout(DEADLINE, client).await.expect("in time")
    }
}

/// What is written can be read, over a megabyte of it.
async fn works(client: &Client) {
    let topic = format!("secured-{:x}", client_random());
    let work = async {
        client.admin().create_topics(&[NewTopic::new(&*topic)]).await.unwrap();
        let producer = client.producer().build().unwrap();
        let mut deliveries = Vec::new();
        for number in 0..2_000 {
            let record = Record::to(&*topic).value(format!("{number:0>1000}"));
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        let group = format!("g-{topic}");
        let mut consumer =
            client.consumer().group(&*group).topics([&*topic]).from_beginning().start().await.unwrap();
        for _ in 0..2_000 {
            consumer.next().await.unwrap().unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, work).await.expect("in time");
}

fn client_random() -> u64 {
    use klamm_client::runtime::{Rng, SeededRng};
    SeededRng::from_os().next_u64()
}

fn refusal(result: Result<Client, ClientError>) -> String {
    match result.unwrap_err() {
        ClientError::Request(error @ (RequestError::Authentication { .. } | RequestError::Tls { .. })) => {
            assert!(!error.is_retriable());
            error.to_string()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_mechanism_logs_in_over_tls() {
    let Some(kafka) = Kafka::find() else { return };
    let tls = kafka.tls().await;
    let mechanisms = [
        Sasl::plain("alice", "al=ice,pw"),
        Sasl::scram_sha_256("alice", "scrampw"),
        Sasl::scram_sha_512("alice", "scrampw"),
    ];
    for sasl in mechanisms {
        let client = kafka.connect(0, Security::tls(tls.clone()).sasl(sasl.clone())).await.unwrap();
        works(&client).await;
        let client = kafka.connect(3, Security::plaintext().danger_plaintext_credentials().sasl(sasl)).await;
        client.unwrap();
    }
}

#[tokio::test]
async fn wrong_credentials_are_an_error_at_once_that_tells_no_password() {
    let Some(kafka) = Kafka::find() else { return };
    let tls = kafka.tls().await;
    for sasl in [
        Sasl::plain("alice", "hunter2"),
        Sasl::scram_sha_256("alice", "hunter2"),
        Sasl::scram_sha_512("nobody", "hunter2"),
    ] {
        let mechanism = sasl.mechanism();
        let started = tokio::time::Instant::now();
        let text = refusal(kafka.connect(0, Security::tls(tls.clone()).sasl(sasl)).await);
        assert!(text.contains(mechanism) && !text.contains("hunter2"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(5), "{text}");
    }
    let oauth = Security::tls(tls.clone()).sasl(Sasl::oauth_bearer(Unsecured::default()));
    let text = refusal(kafka.connect(0, oauth).await);
    assert!(text.contains("SCRAM-SHA-512"), "tells what the broker offers: {text}");
    // TLS without the login that the broker wants, and the reverse.
    assert!(kafka.connect(0, Security::tls(tls)).await.is_err());
    assert!(kafka.connect(0, Security::plaintext()).await.is_err());
}

#[tokio::test]
async fn certificates_on_both_sides() {
    let Some(kafka) = Kafka::find() else { return };
    let (chain, key) = (kafka.pem("orders.pem").await, kafka.pem("orders.key").await);
    let tls = kafka.tls().await;
    let client =
        kafka.connect(2, Security::tls(tls.clone().client_certificate_pem(chain, key))).await.unwrap();
    works(&client).await;
    assert!(kafka.connect(2, Security::tls(tls)).await.is_err());
    let text =
        refusal(kafka.connect(0, Security::tls(Tls::new().roots_pem(kafka.pem("orders.pem").await))).await);
    assert!(text.contains("certificate"), "{text}");
    let any = Tls::new().danger_accept_invalid_certificates();
    let sasl = Sasl::scram_sha_256("alice", "scrampw");
    kafka.connect(0, Security::tls(any).sasl(sasl)).await.unwrap();
}

impl Kafka {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    async fn connect_by(&self, listener: u16, text: &[(&str, &str)]) -> Result<Client, ClientError> {
        let bootstrap = format!("127.0.0.1:{}", self.port + listener);
        let builder = Client::builder().bootstrap(bootstrap).properties(text.iter().copied())?;
        tokio::time::timeout(DEADLINE, builder.build()).await.expect("in time")
    }
}

/// The same settings as text, under either client's names, and in a file.
#[tokio::test]
async fn settings_given_as_properties_secure_connections() {
    let Some(kafka) = Kafka::find() else { return };
    let roots = kafka.path("ca.pem");
    let tls = [("security.protocol", "SASL_SSL"), ("ssl.ca.location", roots.as_str())];
    for (mechanism, password) in
        [("PLAIN", "al=ice,pw"), ("SCRAM-SHA-256", "scrampw"), ("SCRAM-SHA-512", "scrampw")]
    {
        let librdkafka =
            [("sasl.mechanism", mechanism), ("sasl.username", "alice"), ("sasl.password", password)];
        works(&kafka.connect_by(0, &[&tls[..], &librdkafka].concat()).await.unwrap()).await;
        let module = match mechanism {
            "PLAIN" => "org.apache.kafka.common.security.plain.PlainLoginModule",
            _ => "org.apache.kafka.common.security.scram.ScramLoginModule",
        };
        let jaas = format!("{module} required username=\"alice\" password=\"{password}\";");
        let java = [("sasl.mechanism", mechanism), ("sasl.jaas.config", jaas.as_str())];
        works(&kafka.connect_by(0, &[&tls[..], &java].concat()).await.unwrap()).await;
    }
    let scram = [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "alice")];
    let wrong = [&tls[..], &scram, &[("sasl.password", "hunter2")]].concat();
    let text = refusal(kafka.connect_by(0, &wrong).await);
    assert!(text.contains("SCRAM-SHA-512") && !text.contains("hunter2"), "{text}");
    let no_roots =
        [&[("security.protocol", "SASL_SSL")][..], &scram, &[("sasl.password", "scrampw")]].concat();
    let text = refusal(kafka.connect_by(0, &no_roots).await);
    assert!(text.contains("certificate"), "{text}");

    let plaintext = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.password", "scrampw")];
    works(&kafka.connect_by(3, &[&plaintext[..], &scram].concat()).await.unwrap()).await;
    let plain = [("sasl.mechanism", "PLAIN"), ("sasl.username", "alice")];
    let error = kafka.connect_by(3, &[&plaintext[..], &plain].concat()).await.unwrap_err();
    assert!(matches!(error, ClientError::Config(_)), "a password in the clear has no name in text: {error}");

    let (chain, key) = (kafka.path("orders.pem"), kafka.path("orders.key"));
    let certificates = [
        ("security.protocol", "ssl"),
        ("ssl.truststore.location", roots.as_str()),
        ("ssl.truststore.type", "PEM"),
        ("ssl.certificate.location", chain.as_str()),
        ("ssl.key.location", key.as_str()),
    ];
    works(&kafka.connect_by(2, &certificates).await.unwrap()).await;
    assert!(kafka.connect_by(2, &certificates[..3]).await.is_err(), "without a certificate of its own");

    let file = std::env::temp_dir().join(format!("klamm-secured-{:x}.properties", client_random()));
    let lines = [&tls[..], &scram, &[("sasl.password", "scrampw")]].concat();
    let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name}={value}")).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let bootstrap = format!("127.0.0.1:{}", kafka.port);
    let builder = Client::builder().bootstrap(bootstrap).properties_file(&file).await.unwrap();
    works(&builder.build().await.unwrap()).await;
    std::fs::remove_file(&file).unwrap();
}

/// Sessions of 2 s, with requests going all the time: a broker closes connections that do not log in again.
#[tokio::test]
async fn sessions_are_renewed_under_load() {
    let Some(kafka) = Kafka::find() else { return };
    let tls = kafka.tls().await;
    for sasl in [Sasl::scram_sha_256("alice", "scrampw"), Sasl::plain("alice", "al=ice,pw")] {
        let net = Counting::default();
        let connects = Arc::clone(&net.connects);
        let builder = Client::builder().bootstrap(format!("127.0.0.1:{}", kafka.port + 4)).net(Arc::new(net));
        let client = builder.security(Security::tls(tls.clone()).sasl(sasl)).build().await.unwrap();
        let topic = format!("renewed-{:x}", client_random());
        client.admin().create_topics(&[NewTopic::new(&*topic)]).await.unwrap();
        let producer = client.producer().build().unwrap();
        producer.send(Record::to(&*topic).partition(0).value("v")).await.unwrap();
        let before = connects.load(Ordering::Relaxed);
        let started = tokio::time::Instant::now();
        let mut sent = 0;
        while started.elapsed() < Duration::from_secs(7) {
            let sends = (0..20).map(|_| producer.send(Record::to(&*topic).partition(0).value("v")));
            for result in futures::future::join_all(sends).await {
                result.unwrap();
                sent += 1;
            }
        }
        assert!(sent > 100);
        assert_eq!(
            connects.load(Ordering::Relaxed),
            before,
            "the sessions went on: no connection was made anew"
        );
    }
}

/// TCP that counts connections.
#[derive(Debug, Default)]
struct Counting {
    connects: Arc<AtomicUsize>,
}

#[klamm_client::async_trait]
impl Net for Counting {
    async fn connect(&self, address: &str) -> std::io::Result<Box<dyn Stream>> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        TcpNet.connect(address).await
    }

    async fn bind(&self, address: &str) -> std::io::Result<Box<dyn Listener>> {
        TcpNet.bind(address).await
    }
}

/// Unsecured tokens, as Kafka's test handler takes them: a JWS without a signature.
#[derive(Default)]
struct Unsecured {
    asked: Arc<AtomicUsize>,
}

#[klamm_client::async_trait]
impl TokenProvider for Unsecured {
    async fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Token::new(unsecured_token("alice")))
    }
}

fn unsecured_token(user: &str) -> String {
    use base64::Engine;
    use klamm_client::runtime::{Clock, SystemClock};
    let now = SystemClock.now_ms() / 1_000;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"{user}","iat":{now},"exp":{}}}"#, now + 600);
    format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&claims))
}

struct Garbage;

#[klamm_client::async_trait]
impl TokenProvider for Garbage {
    async fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Token::new("hunter2"))
    }
}

#[tokio::test]
async fn tokens_log_in() {
    let Some(kafka) = Kafka::find() else { return };
    let tls = kafka.tls().await;
    let provider = Unsecured::default();
    let asked = Arc::clone(&provider.asked);
    let client =
        kafka.connect(5, Security::tls(tls.clone()).sasl(Sasl::oauth_bearer(provider))).await.unwrap();
    works(&client).await;
    assert!(asked.load(Ordering::Relaxed) > 1, "a token for each connection");
    let text = refusal(kafka.connect(5, Security::tls(tls).sasl(Sasl::oauth_bearer(Garbage))).await);
    assert!(text.contains("OAUTHBEARER") && !text.contains("hunter2"), "{text}");
}

/// A user is created, may nothing, is allowed to read, and is deleted.
#[tokio::test]
async fn users_and_access_rules() {
    let Some(kafka) = Kafka::find() else { return };
    let tls = kafka.tls().await;
    let super_user = Security::tls(tls.clone()).sasl(Sasl::scram_sha_256("alice", "scrampw"));
    let root = kafka.connect(0, super_user).await.unwrap();
    let admin = root.admin();
    let (user, topic) = (format!("bob-{:x}", client_random()), format!("acl-{:x}", client_random()));
    assert!(admin.create_topics(&[NewTopic::new(&*topic)]).await.unwrap()[&*topic].is_ok());

    let set = ScramChange::set(&*user, ScramMechanism::Sha512, "bobpw", 8_192).unwrap();
    let weak = ScramChange::set("weak", ScramMechanism::Sha256, "pw", 1).unwrap();
    let changed = admin.alter_scram_users(&[set, weak]).await.unwrap();
    assert!(changed[&*user].is_ok(), "{changed:?}");
    assert_eq!(changed["weak"].as_ref().unwrap_err().code(), Some(ErrorCode::UnacceptableCredential));
    let described = admin.describe_scram_users(&[&*user, "nobody"]).await.unwrap();
    let credentials = described[&*user].as_ref().unwrap();
    assert_eq!((credentials[0].mechanism, credentials[0].iterations), (ScramMechanism::Sha512, 8_192));
    assert_eq!(described["nobody"].as_ref().unwrap_err().code(), Some(ErrorCode::ResourceNotFound));
    let all: [&str; 0] = [];
    assert!(admin.describe_scram_users(&all).await.unwrap().contains_key("alice"));

    let sasl = Sasl::scram_sha_512(&*user, "bobpw");
    let bob = kafka.connect(0, Security::tls(tls.clone()).sasl(sasl.clone())).await.unwrap();
    let principal = format!("User:{user}");
    let read = Acl::allow(&*principal, AclOperation::Read, AclResourceType::Topic, &*topic);
    let write =
        Acl::allow(&*principal, AclOperation::Write, AclResourceType::Topic, "acl-").prefixed().deny();
    let wrong = Acl::allow("bob", AclOperation::Read, AclResourceType::Topic, &*topic);
    let created = admin.create_acls(&[read.clone(), write.clone(), wrong.clone()]).await.unwrap();
    assert!(created[&read].is_ok() && created[&write].is_ok() && created[&wrong].is_err(), "{created:?}");
    let filter =
        AclFilter::resource(AclResourceType::Topic, &*topic, AclPattern::Matching).principal(&*principal);
    assert_eq!(admin.describe_acls(&filter).await.unwrap().len(), 2);
    let described = bob.admin().describe_topics(&[&*topic]).await.unwrap();
    assert!(described[&*topic].is_ok(), "reading includes describing: {described:?}");
    let more = HashMap::from([(Arc::from(&*topic), NewPartitions::total(2))]);
    let refused = bob.admin().create_partitions(&more).await.unwrap();
    assert_eq!(refused[&*topic].as_ref().unwrap_err().code(), Some(ErrorCode::TopicAuthorizationFailed));
    let literal =
        AclFilter::resource(AclResourceType::Topic, &*topic, AclPattern::Literal).principal(&*principal);
    let none = AclFilter::resource(AclResourceType::Group, &*topic, AclPattern::Any);
    let removed = admin.delete_acls(&[literal.clone(), none.clone()]).await.unwrap();
    assert_eq!(*removed[&literal].as_ref().unwrap(), [read]);
    assert!(removed[&none].as_ref().unwrap().is_empty());
    let rest = admin.delete_acls(&[AclFilter::any().principal(&*principal)]).await.unwrap();
    assert_eq!(*rest.into_values().next().unwrap().unwrap(), [write]);

    let deleted =
        admin.alter_scram_users(&[ScramChange::delete(&*user, ScramMechanism::Sha512)]).await.unwrap();
    assert!(deleted[&*user].is_ok(), "{deleted:?}");
    assert!(kafka.connect(0, Security::tls(tls).sasl(sasl)).await.is_err());
}
