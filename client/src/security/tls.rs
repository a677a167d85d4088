//! TLS by rustls, over any stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{ConfigError, RequestError};
use crate::runtime::Stream;

/// How connections are encrypted, and who is trusted. The host name of each broker is checked against its certificate.
///
/// TLS 1.2 and 1.3. Certificates and keys are given as PEM text; nothing is read from files here.
#[derive(Clone, Default)]
pub struct Tls {
    roots: Vec<Arc<[u8]>>,
    identity: Option<Identity>,
    danger_accept_invalid_certificates: bool,
    danger_accept_any_host_name: bool,
    /// What rustls makes of it, once for all connections.
    made: Arc<OnceLock<Arc<ClientConfig>>>,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone)]
struct Identity {
    chain: Arc<[u8]>,
    key: Arc<[u8]>,
}

impl Tls {
    /// Trusts the roots of the operating system, until [`Tls::roots_pem`] names others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these root certificates in PEM (`ssl.truststore.certificates`), and no longer those of the operating
    /// system. Several calls add up.
    #[must_use]
    pub fn roots_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.push(pem.as_ref().into());
        self.made = Arc::default();
        self
    }

    /// Shows this certificate to brokers that ask for one: its chain (`ssl.keystore.certificate.chain`) and its key
    /// (`ssl.keystore.key`; PKCS#8, PKCS#1 or SEC 1, not encrypted), both in PEM.
    #[must_use]
    pub fn client_certificate_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity { chain: chain.as_ref().into(), key: key.as_ref().into() });
        self.made = Arc::default();
        self
    }

    /// Takes any certificate: whoever can answer in a broker's place can read and change everything.
    #[must_use]
    pub fn danger_accept_invalid_certificates(mut self) -> Self {
        self.danger_accept_invalid_certificates = true;
        self.made = Arc::default();
        self
    }

    /// Takes a trusted certificate for another host (`ssl.endpoint.identification.algorithm=`): whoever has any
    /// certificate of the same roots can answer in a broker's place.
    #[must_use]
    pub fn danger_accept_any_host_name(mut self) -> Self {
        self.danger_accept_any_host_name = true;
        self.made = Arc::default();
        self
    }

    /// Encrypts a stream to `address` (`host:port`), for whatever else than brokers a program connects to.
    ///
    /// # Errors
    /// The settings do not work, or the two ends do not agree.
    pub async fn encrypt(&self, stream: Box<dyn Stream>, address: &str) -> io::Result<Box<dyn Stream>> {
        encrypt(stream, &address.into(), self).await.map_err(io::Error::other)
    }

    /// What cannot work, named.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        if let Some(made) = self.made.get() {
            return Ok(Arc::clone(made));
        }
        let made = self.make()?;
        Ok(Arc::clone(self.made.get_or_init(|| made)))
    }

    fn make(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |error: rustls::Error| ConfigError::new("security", error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.danger_accept_invalid_certificates {
            Arc::new(AnyCertificate { provider })
        } else {
            let roots = Arc::new(self.root_store()?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| ConfigError::new("security", error.to_string()))?;
            if self.danger_accept_any_host_name { Arc::new(AnyHostName { verifier }) } else { verifier }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let chain = certificates(chain, "the client certificates")?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                    ConfigError::new("security", "the key of the client certificate is no PEM key")
                })?;
                builder.with_client_auth_cert(chain, key).map_err(wrong)?
            }
        };
        Ok(Arc::new(config))
    }

    fn root_store(&self) -> Result<RootCertStore, ConfigError> {
        let mut store = RootCertStore::empty();
        if self.roots.is_empty() {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        for pem in &self.roots {
            for certificate in certificates(pem, "the roots")? {
                store.add(certificate).map_err(|error| {
                    ConfigError::new("security", format!("a root is not usable: {error}"))
                })?;
            }
        }
        if store.is_empty() {
            let reason =
                "no root certificates: the operating system has none; name some with `Tls::roots_pem`";
            return Err(ConfigError::new("security", reason));
        }
        Ok(store)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("roots", &self.roots.len())
            .field("client_certificate", &self.identity.is_some())
            .field("danger_accept_invalid_certificates", &self.danger_accept_invalid_certificates)
            .field("danger_accept_any_host_name", &self.danger_accept_any_host_name)
            .finish()
    }
}

/// Encrypts a stream to `address` (`host:port`).
pub(crate) async fn encrypt(
    stream: Box<dyn Stream>,
    address: &Arc<str>,
    tls: &Tls,
) -> Result<Box<dyn Stream>, RequestError> {
    let failed = |reason: String| RequestError::Tls { address: Arc::clone(address), reason: reason.into() };
    let config = tls.config().map_err(|error| failed(error.to_string()))?;
    let name = ServerName::try_from(host(address).to_owned())
        .map_err(|_| failed(format!("`{}` is no host name that a certificate could have", host(address))))?;
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(Encrypted(stream))),
        // What rustls finds wrong stays wrong; that a stream ended may pass.
        Err(error) if reason_of(&error).is_some() => Err(failed(format!("{error}{}", hint(&error)))),
        Err(error) => {
            let source = io::Error::new(error.kind(), format!("TLS handshake: {error}"));
            Err(RequestError::Connect { address: Arc::clone(address), source: Arc::new(source) })
        }
    }
}

/// What rustls says, if it was rustls.
fn reason_of(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Which setting helps.
fn hint(error: &io::Error) -> &'static str {
    match reason_of(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            " (setting `Tls::roots_pem`, `ssl.truststore.location`)"
        }
        Some(rustls::Error::AlertReceived(_)) => " (the broker refused: does it want a client certificate?)",
        Some(rustls::Error::InvalidMessage(_)) => " (does the broker speak TLS on this port?)",
        _ => "",
    }
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(ConfigError::new("security", format!("{what} hold no certificate in PEM"))),
    }
}

/// A TLS stream as a [`Stream`].
#[derive(Debug)]
struct Encrypted(TlsStream<Box<dyn Stream>>);

impl Stream for Encrypted {}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a trusted certificate whatever host it is for.
#[derive(Debug)]
struct AnyHostName {
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyHostName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is checked last: an error about it means that everything else is in order.
        match self.verifier.verify_server_cert(certificate, chain, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::runtime::{MemoryNet, Net, Rng, SeededRng, Tasks};

    /// A root of our own and what it has signed.
    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            let name = format!("root {}", SeededRng::from_os().next_u64());
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
        }

        fn pem(&self) -> String {
            self.issuer.pem()
        }

        /// Chain and key in PEM.
        fn sign(&self, name: &str) -> (String, String) {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        }
    }

    /// What a client with these settings reads from a server with this certificate.
    async fn talk(
        tls: &Tls,
        address: &str,
        (chain, key): (String, String),
        clients: Option<&Authority>,
    ) -> Result<String, RequestError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificates(authority.pem().as_bytes(), "roots").unwrap().remove(0)).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = builder.with_single_cert(certificates(chain.as_bytes(), "it").unwrap(), key).unwrap();
        let net = MemoryNet::new();
        let mut listener = net.bind("any:0").await.unwrap();
        let stream = net.connect(&listener.local_address()).await.unwrap();
        let tasks = Tasks::new();
        tasks.spawn("server", async move {
            let (stream, _) = listener.accept().await.unwrap();
            // An error is a client that does not trust us, or that we do not trust.
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        });
        let work = async {
            let mut stream = encrypt(stream, &Arc::from(address), tls).await?;
            let mut text = String::new();
            // In TLS 1.3 a server refuses a client's certificate after the client is done.
            stream.read_to_string(&mut text).await.map_err(|error| RequestError::Tls {
                address: address.into(),
                reason: error.to_string().into(),
            })?;
            Ok(text)
        };
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time")
    }

    fn reason(result: Result<String, RequestError>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, RequestError::Tls { .. }) && !error.is_retriable(), "{error}");
        error.to_string()
    }

    #[tokio::test]
    async fn only_a_trusted_certificate_for_this_host_is_taken() {
        let (authority, other) = (Authority::new(), Authority::new());
        let tls = Tls::new().roots_pem(authority.pem());
        let own = || authority.sign("broker.example");
        assert_eq!(talk(&tls, "broker.example:9093", own(), None).await.unwrap(), "hello");
        let wrong_host = reason(talk(&tls, "other.example:9093", own(), None).await);
        assert!(wrong_host.contains("other.example"), "{wrong_host}");
        let untrusted = other.sign("broker.example");
        let text = reason(talk(&tls, "broker.example:9093", untrusted.clone(), None).await);
        assert!(text.contains("UnknownIssuer") && text.contains("ssl.truststore.location"), "{text}");
        // An address is a name too, and is in the certificate or is not.
        assert_eq!(talk(&tls, "127.0.0.1:1", authority.sign("127.0.0.1"), None).await.unwrap(), "hello");
        assert_eq!(talk(&tls, "[::1]:1", authority.sign("::1"), None).await.unwrap(), "hello");
        reason(talk(&tls, "127.0.0.1:1", own(), None).await);
        reason(talk(&tls, "not a name:1", own(), None).await);

        let any_host = tls.clone().danger_accept_any_host_name();
        assert_eq!(talk(&any_host, "other.example:1", own(), None).await.unwrap(), "hello");
        reason(talk(&any_host, "broker.example:1", untrusted.clone(), None).await);
        let anything = Tls::new().danger_accept_invalid_certificates();
        assert_eq!(talk(&anything, "broker.example:1", untrusted, None).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_client_certificate_is_shown_to_who_asks() {
        let authority = Authority::new();
        let (chain, key) = authority.sign("orders");
        let tls = Tls::new().roots_pem(authority.pem());
        let with = tls.clone().client_certificate_pem(&chain, &key);
        let own = || authority.sign("b");
        assert_eq!(talk(&with, "b:1", own(), Some(&authority)).await.unwrap(), "hello");
        assert_eq!(talk(&with, "b:1", own(), None).await.unwrap(), "hello");
        reason(talk(&tls, "b:1", own(), Some(&authority)).await);
        let stranger = Authority::new().sign("orders");
        let with_other = tls.client_certificate_pem(&stranger.0, &stranger.1);
        reason(talk(&with_other, "b:1", own(), Some(&authority)).await);
        let shown = format!("{with:?}");
        assert!(shown.contains("client_certificate: true") && !shown.contains("PRIVATE"), "{shown}");
        let body = key.lines().nth(1).unwrap();
        assert!(!shown.contains(body));
    }

    #[tokio::test]
    async fn what_is_no_tls_is_an_error_that_says_so() {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0; 64], &[0xff; 5]] {
            let net = MemoryNet::new();
            let mut listener = net.bind("any:0").await.unwrap();
            let stream = net.connect(&listener.local_address()).await.unwrap();
            let tasks = Tasks::new();
            tasks.spawn("server", async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(answer).await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            });
            let tls = Tls::new().danger_accept_invalid_certificates();
            let error = encrypt(stream, &"b:1".into(), &tls).await.unwrap_err();
            assert!(matches!(error, RequestError::Tls { .. }), "{error}");
            assert!(error.to_string().contains("does the broker speak TLS"), "{error}");
        }
    }

    #[test]
    fn pem_that_is_none_is_named() {
        let (chain, key) = Authority::new().sign("a");
        let wrong = |tls: Tls| tls.check().unwrap_err().to_string();
        assert!(wrong(Tls::new().roots_pem("nothing")).contains("the roots hold no certificate"));
        assert!(wrong(Tls::new().roots_pem(&key)).contains("the roots hold no certificate"));
        let any = || Tls::new().danger_accept_invalid_certificates();
        assert!(wrong(any().client_certificate_pem(&key, &key)).contains("the client certificates hold no"));
        let text = wrong(any().client_certificate_pem(&chain, "hunter2"));
        assert!(text.contains("no PEM key") && !text.contains("hunter2"), "{text}");
        let other = Authority::new().sign("a").1;
        wrong(any().client_certificate_pem(&chain, &other));
        assert!(any().client_certificate_pem(&chain, &key).check().is_ok());
    }

    #[test]
    fn hosts_of_addresses() {
        for (address, expected) in
            [("a:1", "a"), ("[::1]:9092", "::1"), ("10.0.0.1:1", "10.0.0.1"), ("a", "a")]
        {
            assert_eq!(host(address), expected);
        }
    }
}
