//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677): proves that the password is known, without sending it, and
//! that the broker knows it too (pure).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::mechanism::{LoginError, Mechanism};
use super::secret::Secret;

/// Fewer make a password cheap to guess for whoever records a login; Kafka's brokers have the same bound.
pub(super) const LEAST_ITERATIONS: u32 = 4_096;
/// More are an attack on the client's processor: Kafka's own upper bound is 16,384.
pub(super) const MOST_ITERATIONS: u32 = 100_000;
/// "No channel binding", which Kafka's brokers have none of.
const GS2_HEADER: &str = "n,,";
/// The same in base64.
const CHANNEL_BINDING: &str = "biws";

/// The hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// A login by SCRAM.
pub(super) struct Scram {
    hash: Hash,
    user: String,
    password: Secret,
    nonce: String,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Begun,
    /// Proof sent; the signature that the broker has to give, which only who knows the password can compute.
    Proved {
        server_key: Vec<u8>,
        auth_message: String,
    },
    Complete,
    Failed,
}

impl Scram {
    /// `nonce` must never have been used before, and nobody may be able to guess it.
    pub(super) fn new(hash: Hash, user: &str, password: &Secret, nonce: String) -> Self {
        Self { hash, user: user.to_owned(), password: password.clone(), nonce, state: State::Begun }
    }

    fn first_bare(&self) -> String {
        // The two characters that mean something in a message.
        let user = self.user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={}", self.nonce)
    }

    fn prove(&mut self, challenge: &str) -> Result<Vec<u8>, LoginError> {
        let server = ServerFirst::parse(challenge)?;
        let own = server.nonce.strip_prefix(self.nonce.as_str());
        if own.is_none_or(str::is_empty) {
            return Err(LoginError::Nonce);
        }
        let iterations = u32::try_from(server.iterations)
            .ok()
            .filter(|iterations| (LEAST_ITERATIONS..=MOST_ITERATIONS).contains(iterations))
            .ok_or(LoginError::Iterations {
                iterations: server.iterations,
                least: LEAST_ITERATIONS,
                most: MOST_ITERATIONS,
            })?;
        let without_proof = format!("c={CHANNEL_BINDING},r={}", server.nonce);
        let auth_message = format!("{},{challenge},{without_proof}", self.first_bare());
        let salted = self.hash.salted(self.password.reveal().as_bytes(), &server.salt, iterations);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let signature = self.hash.hmac(&self.hash.digest(&client_key), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, bits)| key ^ bits).collect();
        let server_key = self.hash.hmac(&salted, b"Server Key");
        self.state = State::Proved { server_key, auth_message };
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes())
    }

    fn verify(&mut self, last: &str, server_key: &[u8], auth_message: &str) -> Result<(), LoginError> {
        let first = last.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(LoginError::Refused(self.password.redact(error)));
        }
        let signature = first.strip_prefix("v=").ok_or(LoginError::Malformed("no signature"))?;
        let signature =
            BASE64.decode(signature).map_err(|_| LoginError::Malformed("the signature is not base64"))?;
        if !self.hash.verify(server_key, auth_message.as_bytes(), &signature) {
            return Err(LoginError::ServerSignature);
        }
        Ok(())
    }
}

impl Mechanism for Scram {
    fn first(&mut self) -> Result<Vec<u8>, LoginError> {
        Ok(format!("{GS2_HEADER}{}", self.first_bare()).into_bytes())
    }

    fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, LoginError> {
        // Whatever goes wrong below, this login is over.
        let state = std::mem::replace(&mut self.state, State::Failed);
        let challenge = std::str::from_utf8(challenge).map_err(|_| LoginError::Malformed("not UTF-8"))?;
        match state {
            State::Begun => self.prove(challenge).map(Some),
            State::Proved { server_key, auth_message } => {
                self.verify(challenge, &server_key, &auth_message)?;
                self.state = State::Complete;
                Ok(None)
            }
            State::Complete | State::Failed => Err(LoginError::Endless),
        }
    }

    fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    fn redact(&self, words: &str) -> String {
        self.password.redact(words)
    }
}

/// The broker's first message: `r=NONCE,s=SALT,i=ITERATIONS`.
#[derive(Debug, PartialEq, Eq)]
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u64,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a str) -> Result<Self, LoginError> {
        let mut parts = message.split(',');
        let mut part = |name: &str, missing| {
            let part = parts.next().and_then(|part| part.strip_prefix(name));
            part.ok_or(LoginError::Malformed(missing))
        };
        // A message may begin with an extension that must be understood (`m=`); there is none to understand.
        let nonce = part("r=", "no nonce")?;
        let salt = part("s=", "no salt")?;
        let iterations = part("i=", "no iterations")?;
        let salt = BASE64.decode(salt).map_err(|_| LoginError::Malformed("the salt is not base64"))?;
        if salt.is_empty() {
            return Err(LoginError::Malformed("an empty salt"));
        }
        let digits = !iterations.is_empty() && iterations.bytes().all(|byte| byte.is_ascii_digit());
        let iterations = if digits { iterations.parse().unwrap_or(u64::MAX) } else { 0 };
        if iterations == 0 {
            return Err(LoginError::Malformed("the iterations are no number"));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

impl Hash {
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec(),
            Self::Sha512 => pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations).to_vec(),
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => mac::<Hmac<Sha256>>(key, message).finalize().into_bytes().to_vec(),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, message).finalize().into_bytes().to_vec(),
        }
    }

    /// Takes the same time wherever a wrong code differs.
    fn verify(self, key: &[u8], message: &[u8], code: &[u8]) -> bool {
        match self {
            Self::Sha256 => mac::<Hmac<Sha256>>(key, message).verify_slice(code).is_ok(),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, message).verify_slice(code).is_ok(),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac
}

/// What an administrator gives a broker instead of a password: (salted password, from salt and iterations).
pub(crate) fn salted_password(sha512: bool, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
    let hash = if sha512 { Hash::Sha512 } else { Hash::Sha256 };
    hash.salted(password.as_bytes(), salt, iterations)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn login(hash: Hash, user: &str, password: &str) -> Scram {
        Scram::new(hash, user, &Secret::new(password), NONCE.to_owned())
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn sha_256_as_the_rfc_has_it() {
        let mut login = login(Hash::Sha256, "user", "pencil");
        assert_eq!(text(login.first().unwrap()), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert!(!login.is_complete());
        let proof = text(login.answer(SERVER_FIRST.as_bytes()).unwrap().unwrap());
        assert_eq!(
            proof,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!login.is_complete(), "the broker has proved nothing yet");
        assert_eq!(login.answer(SERVER_LAST.as_bytes()).unwrap(), None);
        assert!(login.is_complete());
        assert_eq!(login.answer(b""), Err(LoginError::Endless));
        assert!(!login.is_complete(), "whoever goes on after the end is not trusted");
    }

    /// A server of our own for the other hash, from the same formulas of RFC 5802 read from its side.
    #[test]
    fn sha_512_against_a_server() {
        for password in ["", "pencil", "p,a=b", "pässwörd", "a\0b"] {
            let mut login = login(Hash::Sha512, "us,er=", password);
            let first = text(login.first().unwrap());
            let bare = first.strip_prefix("n,,").unwrap();
            assert_eq!(bare, "n=us=2Cer=3D,r=rOprNGfwEbeRWgbNEkqO");
            let server_first = format!("r={NONCE}server,s={},i=8192", BASE64.encode(b"salt"));
            let last = text(login.answer(server_first.as_bytes()).unwrap().unwrap());
            let (without_proof, proof) = last.split_once(",p=").unwrap();
            let message = format!("{bare},{server_first},{without_proof}");
            let salted = Hash::Sha512.salted(password.as_bytes(), b"salt", 8192);
            assert_eq!(salted, salted_password(true, password, b"salt", 8192));
            let stored = Hash::Sha512.digest(&Hash::Sha512.hmac(&salted, b"Client Key"));
            let signature = Hash::Sha512.hmac(&stored, message.as_bytes());
            let proof = BASE64.decode(proof).unwrap();
            let key: Vec<u8> = proof.iter().zip(&signature).map(|(proof, bits)| proof ^ bits).collect();
            assert_eq!(Hash::Sha512.digest(&key), stored, "the proof holds");
            let server_key = Hash::Sha512.hmac(&salted, b"Server Key");
            let signature = BASE64.encode(Hash::Sha512.hmac(&server_key, message.as_bytes()));
            login.answer(format!("v={signature},x=ignored").as_bytes()).unwrap();
            assert!(login.is_complete());
        }
    }

    #[track_caller]
    fn refuses(message: &str) -> LoginError {
        let mut login = login(Hash::Sha256, "user", "pencil");
        let error = login.answer(message.as_bytes()).unwrap_err();
        assert!(!login.is_complete());
        assert_eq!(login.answer(SERVER_FIRST.as_bytes()), Err(LoginError::Endless), "it is over");
        error
    }

    #[test]
    fn a_first_message_of_a_hostile_broker() {
        let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
        for nonce in ["", "x", NONCE, &NONCE[1..], &format!("x{NONCE}y"), "rOprNGfwEbeRWgbNEkqo+"] {
            assert_eq!(refuses(&format!("r={nonce},{salt},i=4096")), LoginError::Nonce, "{nonce}");
        }
        let asked = |iterations: &str| refuses(&format!("r={NONCE}x,{salt},i={iterations}"));
        for (iterations, told) in [
            ("1", 1),
            ("4095", 4_095),
            ("100001", 100_001),
            ("2147483648", 1 << 31),
            ("4294971392", (1 << 32) + 4_096),
            ("99999999999999999999999", u64::MAX),
        ] {
            let (least, most) = (LEAST_ITERATIONS, MOST_ITERATIONS);
            assert_eq!(asked(iterations), LoginError::Iterations { iterations: told, least, most });
        }
        for iterations in ["", "0", "-4096", "+4096", "0x1000", "4096 "] {
            assert!(matches!(asked(iterations), LoginError::Malformed(_)), "{iterations}");
        }
        let malformed = [
            "",
            "r=",
            "m=needed,r=x,s=YQ==,i=4096",
            &format!("r={NONCE}x,i=4096"),
            &format!("r={NONCE}x,s=%%,i=4096"),
            &format!("r={NONCE}x,s=,i=4096"),
            &format!("{salt},r={NONCE}x,i=4096"),
            &format!("r={NONCE}x,{salt}"),
        ];
        for message in malformed {
            assert!(matches!(refuses(message), LoginError::Malformed(_)), "{message}");
        }
        let mut login = login(Hash::Sha256, "user", "pencil");
        assert!(matches!(login.answer(&[0xff]), Err(LoginError::Malformed(_))));
        // The bounds themselves are taken.
        for iterations in [LEAST_ITERATIONS, MOST_ITERATIONS] {
            let mut login = super::tests::login(Hash::Sha256, "user", "pencil");
            assert!(login.answer(format!("r={NONCE}x,{salt},i={iterations}").as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_last_message_of_a_hostile_broker() {
        let flipped = "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        let cases: [(&str, LoginError); 7] = [
            (flipped, LoginError::ServerSignature),
            ("v=", LoginError::ServerSignature),
            ("v=6rriTRBi", LoginError::ServerSignature),
            ("v=%", LoginError::Malformed("the signature is not base64")),
            ("", LoginError::Malformed("no signature")),
            ("x=1", LoginError::Malformed("no signature")),
            ("e=pencil is wrong", LoginError::Refused("*** is wrong".to_owned())),
        ];
        for (last, expected) in cases {
            let mut login = login(Hash::Sha256, "user", "pencil");
            login.answer(SERVER_FIRST.as_bytes()).unwrap();
            assert_eq!(login.answer(last.as_bytes()), Err(expected), "{last}");
            assert!(!login.is_complete());
            assert_eq!(login.answer(SERVER_LAST.as_bytes()), Err(LoginError::Endless), "no second try");
        }
        assert_eq!(login(Hash::Sha256, "user", "pencil").redact("pencil!"), "***!");
    }
}
