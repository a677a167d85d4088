//! `listeners` and `advertised.listeners`: addresses to listen on and addresses to tell.

use std::fmt;
use std::net::IpAddr;

use super::keys::ConfigError;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port; 0 to listen on any free one.
    pub port: u16,
}

impl Endpoint {
    /// Reads `host:port` or `PLAINTEXT://host:port`; an empty host is all interfaces, as in Kafka.
    ///
    /// # Errors
    /// When it is neither; `key` is named in the error.
    pub fn parse(key: &str, text: &str) -> Result<Self, ConfigError> {
        let invalid = |expected: &str| ConfigError::new(key, text, expected);
        let address = match text.split_once("://") {
            None => text,
            Some((name, address)) if name.eq_ignore_ascii_case("PLAINTEXT") => address,
            Some(_) => return Err(invalid("only PLAINTEXT:// listeners are there")),
        };
        let expected = "must be PLAINTEXT://host:port or host:port";
        let (host, port) = address.rsplit_once(':').ok_or_else(|| invalid(expected))?;
        let port = port.parse().map_err(|_| invalid(expected))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains([':', '/', ' ']) {
            return Err(invalid(expected));
        }
        let host = match bare.unwrap_or(host) {
            "" => "0.0.0.0",
            host => host,
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// Reads several with commas between them.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn parse_list(key: &str, text: &str) -> Result<Vec<Self>, ConfigError> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Self::parse(key, part))
            .collect()
    }

    /// Only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// All interfaces: nothing that a client could connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let parse = |text| Endpoint::parse("listeners", text).map(|endpoint| endpoint.to_string());
        assert_eq!(parse("PLAINTEXT://localhost:9092").unwrap(), "localhost:9092");
        assert_eq!(parse("127.0.0.1:0").unwrap(), "127.0.0.1:0");
        assert_eq!(parse("PLAINTEXT://:9092").unwrap(), "0.0.0.0:9092");
        assert_eq!(parse("[::1]:9092").unwrap(), "[::1]:9092");
        for bad in ["9092", "localhost", "host:99999", "SSL://host:1", "::1:9092", "a/b:1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Endpoint::parse_list("listeners", "a:1, b:2,").unwrap().len(), 2);
    }

    #[test]
    fn what_other_machines_can_reach_is_known() {
        let loopback = |text| Endpoint::parse("listeners", text).unwrap().is_loopback();
        assert!(
            loopback("127.0.0.1:1")
                && loopback("127.8.8.8:1")
                && loopback("localhost:1")
                && loopback("[::1]:1")
        );
        assert!(!loopback("0.0.0.0:1") && !loopback("10.0.0.1:1") && !loopback("example.org:1"));
    }
}
