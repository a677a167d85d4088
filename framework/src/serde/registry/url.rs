//! Where a registry is, and names in paths. Pure.

use std::sync::Arc;

use super::RegistryError;

/// `http://host:port/prefix`, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// `host:port`.
    pub(super) address: Arc<str>,
    /// Without the slash at its end.
    pub(super) prefix: String,
    /// For messages: without a password.
    pub(super) shown: Arc<str>,
    /// `user:password` in front of the host, decoded.
    pub(super) user: Option<(String, String)>,
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, RegistryError> {
        let wrong = |reason: &str| RegistryError::Config {
            setting: "builder(urls)",
            reason: format!("`{}` is no URL of a registry: {reason}", shown_of(text)).into(),
        };
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong("it must begin with `http://` or `https://`")),
        };
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("it has a query, a fragment or a space"));
        }
        let (authority, prefix) = match rest.find('/') {
            Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
            None => (rest, ""),
        };
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (decoded(name), decoded(password))
        });
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let address: Arc<str> = match has_port {
            true => host.into(),
            false => format!("{host}:{}", if tls { 443 } else { 80 }).into(),
        };
        let port = address.rsplit_once(':').map_or("", |(_, port)| port);
        if port.parse::<u16>().is_err() {
            return Err(wrong("its port is no number"));
        }
        let shown = format!("{}://{host}{prefix}", if tls { "https" } else { "http" }).into();
        Ok(Self { tls, address, prefix: prefix.to_owned(), shown, user })
    }
}

/// What a message may show of text that may hold a password.
fn shown_of(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => text.to_owned(),
    }
}

/// A name as one segment of a path: everything but letters, digits and `-._~` is escaped.
pub(super) fn segment(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte as char),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The name that a segment stands for; what is no escape stays as it is.
pub(crate) fn decoded(segment: &str) -> String {
    let (bytes, mut decoded, mut at) = (segment.as_bytes(), Vec::with_capacity(segment.len()), 0);
    while at < bytes.len() {
        let escaped = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|two| std::str::from_utf8(two).ok().and_then(|two| u8::from_str_radix(two, 16).ok()));
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("https://me:p%40ss@registry.example/apis/ccompat/v7/").unwrap();
        assert!(url.tls);
        assert_eq!(&*url.address, "registry.example:443");
        assert_eq!(url.prefix, "/apis/ccompat/v7");
        assert_eq!(url.user, Some(("me".to_owned(), "p@ss".to_owned())));
        assert_eq!(format!("{url:?}"), "https://registry.example/apis/ccompat/v7");
        assert_eq!(&*Url::parse("http://[::1]").unwrap().address, "[::1]:80");
        assert_eq!(&*Url::parse("http://[::1]:8081").unwrap().address, "[::1]:8081");
    }

    #[test]
    fn what_is_no_url_says_why_and_hides_passwords() {
        for (text, why) in [
            ("localhost:8081", "must begin with"),
            ("http://", "no host"),
            ("http://a:b", "port"),
            ("http://a:70000", "port"),
            ("http://a?x=1", "query"),
            ("http://a b", "space"),
            ("ftp://me:secret@a", "must begin with"),
        ] {
            let said = Url::parse(text).unwrap_err().to_string();
            assert!(said.contains(why) && !said.contains("secret"), "{text}: {said}");
        }
    }

    #[test]
    fn names_survive_a_path() {
        for name in ["orders-value", "a/b c", "ä%41", "..", "?x#y", ""] {
            assert_eq!(decoded(&segment(name)), name);
        }
        assert_eq!(segment("a/b"), "a%2Fb");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
