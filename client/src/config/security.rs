//! Security given as text, under the names of Kafka's Java client and of librdkafka.

#[cfg(feature = "tls")]
use std::path::Path;

use super::properties::Properties;
use crate::error::ConfigError;
#[cfg(feature = "tls")]
use crate::security::Tls;
use crate::security::{Sasl, Security};

/// What the properties say of security; `None` when they say nothing. Reads the files that they name.
pub(super) async fn security(given: &Properties) -> Result<Option<Security>, ConfigError> {
    let Some(protocol) = given.text("security.protocol").map(str::to_ascii_uppercase) else {
        return match given.names().find(|name| name.starts_with("sasl.") || name.starts_with("ssl.")) {
            Some(name) => Err(ConfigError::new(
                name,
                "has no effect without `security.protocol` (SSL, SASL_SSL, SASL_PLAINTEXT)",
            )),
            None => Ok(None),
        };
    };
    let security = match protocol.ends_with("SSL") {
        true => encrypted(given).await?,
        false => Security::plaintext(),
    };
    match protocol.starts_with("SASL") {
        true => Ok(Some(security.sasl(sasl(given)?))),
        false => Ok(Some(security)),
    }
}

#[cfg(feature = "tls")]
async fn encrypted(given: &Properties) -> Result<Security, ConfigError> {
    let mut tls = Tls::new();
    for name in ["ssl.truststore.location", "ssl.ca.location"] {
        if let Some(path) = given.text(name) {
            tls = tls.roots_pem(file(name, path).await?);
        }
    }
    if let Some(pem) = given.text("ssl.truststore.certificates") {
        tls = tls.roots_pem(pem);
    }
    if let Some(path) = given.text("ssl.keystore.location") {
        // Java's PEM keystore: chain and key in one file.
        let both = file("ssl.keystore.location", path).await?;
        tls = tls.client_certificate_pem(&both, &both);
    }
    match (given.text("ssl.certificate.location"), given.text("ssl.key.location")) {
        (Some(chain), Some(key)) => {
            let chain = file("ssl.certificate.location", chain).await?;
            tls = tls.client_certificate_pem(chain, file("ssl.key.location", key).await?);
        }
        (None, None) => {}
        (Some(_), None) => {
            return Err(ConfigError::new("ssl.key.location", "is missing beside the certificate"));
        }
        (None, Some(_)) => {
            return Err(ConfigError::new("ssl.certificate.location", "is missing beside the key"));
        }
    }
    if given.text("ssl.endpoint.identification.algorithm").is_some_and(str::is_empty) {
        tls = tls.danger_accept_any_host_name();
    }
    Ok(Security::tls(tls))
}

#[cfg(not(feature = "tls"))]
async fn encrypted(_: &Properties) -> Result<Security, ConfigError> {
    Err(ConfigError::new(
        "security.protocol",
        "TLS is not in this program: it was built without the feature `tls`",
    ))
}

#[cfg(feature = "tls")]
async fn file(name: &'static str, path: &str) -> Result<String, ConfigError> {
    let text = klamm_runtime::read_text_file(Path::new(path)).await;
    text.map_err(|error| ConfigError::new(name, format!("{path}: {error}; it must be a file in PEM")))
}

fn sasl(given: &Properties) -> Result<Sasl, ConfigError> {
    let mechanism = given.text("sasl.mechanism").unwrap_or("");
    let make = match mechanism {
        "PLAIN" => Sasl::plain,
        "SCRAM-SHA-256" => Sasl::scram_sha_256,
        "SCRAM-SHA-512" => Sasl::scram_sha_512,
        "OAUTHBEARER" => {
            return Err(ConfigError::new(
                "sasl.mechanism",
                "OAUTHBEARER needs a `TokenProvider`, which is set in code: `ClientBuilder::security`",
            ));
        }
        _ => return Err(ConfigError::new("sasl.mechanism", "must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")),
    };
    let jaas = given.text("sasl.jaas.config").unwrap_or("");
    let of = |name: &'static str, option: &str| match given.text(name) {
        Some(text) => Ok(text.to_owned()),
        // Its text is not repeated: it has the password in it.
        None => jaas_option(jaas, option).ok_or_else(|| {
            ConfigError::new(name, format!("is missing, and `sasl.jaas.config` has no {option}=\"...\""))
        }),
    };
    Ok(make(of("sasl.username", "username")?, of("sasl.password", "password")?))
}

/// An option of a line such as `org...ScramLoginModule required username="u" password="p";`, quoted or not.
fn jaas_option(line: &str, option: &str) -> Option<String> {
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let ends = |c: char| c == '=' || c == ';' || c.is_whitespace();
        let (name, behind) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        rest = match behind.trim_start().strip_prefix('=') {
            Some(value) => {
                let (value, behind) = jaas_value(value.trim_start())?;
                if name == option {
                    return Some(value);
                }
                behind
            }
            // A word of its own: the module, or `required`.
            None => behind.strip_prefix(';').unwrap_or(behind),
        };
        rest = rest.trim_start();
    }
    None
}

/// A value, and what stands behind it. `None` when its quotation does not end.
fn jaas_value(text: &str) -> Option<(String, &str)> {
    let Some(quote) = text.chars().next().filter(|&first| matches!(first, '"' | '\'')) else {
        let (value, behind) = text.split_at(text.find([' ', '\t', '\n', ';']).unwrap_or(text.len()));
        return Some((value.to_owned(), behind));
    };
    let mut value = String::new();
    let mut characters = text.chars();
    characters.next();
    loop {
        match characters.next()? {
            '\\' => value.push(characters.next()?),
            end if end == quote => return Some((value, characters.as_str())),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn made(pairs: &[(&str, &str)]) -> Result<Option<String>, String> {
        let mut given = Properties::default();
        given.extend(pairs.iter().copied()).map_err(|error| error.to_string())?;
        let shown = format!("{given:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        match security(&given).await {
            Ok(security) => Ok(security.map(|security| format!("{security:?}"))),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn a_login_is_read_from_either_clients_names() {
        assert_eq!(made(&[]).await, Ok(None));
        assert_eq!(
            made(&[("security.protocol", "PLAINTEXT")]).await,
            made(&[("security.protocol", "plaintext")]).await
        );
        let ours = made(&[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
        ]);
        let ours = ours.await.unwrap().unwrap();
        assert!(ours.contains("SCRAM-SHA-256") && !ours.contains("hunter2"), "{ours}");
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required";
        let jaas = format!("{module} username=\"u\" password=\"hunter2\";");
        let java = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.jaas.config", &jaas),
        ];
        assert_eq!(made(&java).await.unwrap().unwrap(), ours);
    }

    #[tokio::test]
    async fn what_is_missing_or_wrong_is_named_without_the_password() {
        let plain = ("security.protocol", "sasl_plaintext");
        for (pairs, because) in [
            (vec![("sasl.username", "u")], "no effect without `security.protocol`"),
            (vec![("sasl.password", "hunter2")], "no effect without `security.protocol`"),
            (vec![("ssl.key.location", "a.pem")], "no effect without `security.protocol`"),
            (vec![plain], "sasl.mechanism"),
            (vec![plain, ("sasl.mechanism", "OAUTHBEARER")], "TokenProvider"),
            (vec![plain, ("sasl.mechanism", "PLAIN")], "sasl.username"),
            (vec![plain, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u")], "sasl.password"),
            (
                vec![plain, ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", "x password=\"hunter2\";")],
                "sasl.username",
            ),
        ] {
            let error = made(&pairs).await.unwrap_err();
            assert!(error.contains(because) && !error.contains("hunter2"), "{error}");
        }
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn files_that_are_not_there_are_named() {
        let ssl = ("security.protocol", "SSL");
        for name in ["ssl.ca.location", "ssl.truststore.location", "ssl.keystore.location"] {
            let error = made(&[ssl, (name, "no/such.pem")]).await.unwrap_err();
            assert!(error.contains(name) && error.contains("no/such.pem"), "{error}");
        }
        let error = made(&[ssl, ("ssl.certificate.location", "a.pem")]).await.unwrap_err();
        assert!(error.contains("ssl.key.location"), "{error}");
        assert!(
            made(&[ssl, ("ssl.key.location", "a.pem")])
                .await
                .unwrap_err()
                .contains("ssl.certificate.location")
        );
        assert!(made(&[ssl]).await.unwrap().is_some());
    }

    #[test]
    fn options_of_a_jaas_line() {
        let line = r#"Module required username = "a b" password="q\"\\;" other=plain;"#;
        assert_eq!(jaas_option(line, "username").as_deref(), Some("a b"));
        assert_eq!(jaas_option(line, "password").as_deref(), Some("q\"\\;"));
        assert_eq!(jaas_option(line, "other").as_deref(), Some("plain"));
        assert_eq!(jaas_option(line, "name"), None, "the end of another name");
        assert_eq!(jaas_option("password=\"open", "password"), None);
        assert_eq!(jaas_option("", "password"), None);
    }

    #[test]
    fn options_of_a_login_are_read_as_java_reads_them() {
        assert_eq!(jaas_option(";= ;M required;;", "password"), None);
        for (line, expected) in [
            ("M required username='u' password='a b';", "a b"),
            (r#"M required username="say \" password=b" password="c";"#, "c"),
            (r#"M required username='password=b ' password=c;"#, "c"),
        ] {
            assert_eq!(jaas_option(line, "password").as_deref(), Some(expected), "{line}");
        }
    }
}
