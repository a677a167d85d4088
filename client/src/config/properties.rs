//! Settings given as text under Kafka's names: checked against the table, read by whom they concern.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use klamm_runtime::settings::{Key, parse_bool, parse_properties};

use super::table::{OF_JAVA_ONLY, SECRETS, SETTINGS};
use crate::error::ConfigError;

/// Settings that were given, each a value that its row of the table takes.
#[derive(Clone, Default)]
pub(crate) struct Properties(BTreeMap<&'static str, String>);

impl Properties {
    /// Takes in settings; a later one of the same name wins.
    pub(crate) fn extend<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in pairs {
            let (name, value) = (name.as_ref().trim(), value.as_ref().trim());
            let Some(key) = Key::find(SETTINGS, name) else {
                if OF_JAVA_ONLY.contains(&name) {
                    tracing::warn!(setting = name, "a setting of Kafka's Java clients has no effect here");
                    continue;
                }
                return Err(unknown(name));
            };
            if !key.expects.accepts(value) {
                return Err(ConfigError::new(name.to_owned(), format!("`{value}` must be {}", key.expects)));
            }
            self.0.insert(key.name, value.to_owned());
        }
        Ok(())
    }

    /// Takes in the settings of a file in Java's `.properties` format.
    pub(crate) async fn extend_from_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = klamm_runtime::read_text_file(path).await;
        let text = text.map_err(|error| ConfigError::new("file", format!("{}: {error}", path.display())))?;
        self.extend(parse_properties(&text))
    }

    /// The names of what was given, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// The value given, as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(Key::find(SETTINGS, name).is_some(), "{name} is not in the table");
        self.0.get(name).map(String::as_str)
    }

    /// The value given, a number of milliseconds.
    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        Some(Duration::from_millis(self.text(name)?.parse().ok()?))
    }

    /// The value given, a size or a count.
    pub(crate) fn size(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }

    /// The value given, a level of compression.
    pub(crate) fn level(&self, name: &str) -> Option<i32> {
        self.text(name)?.parse().ok()
    }

    /// The value given, yes or no.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        parse_bool(self.text(name)?)
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &'static str, value| if SECRETS.contains(&name) { "***" } else { value };
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, shown(name, value.as_str())))).finish()
    }
}

fn unknown(name: &str) -> ConfigError {
    let meant = Key::nearest(SETTINGS, name).map(|nearest| format!("; did you mean `{nearest}`?"));
    ConfigError::new(name.to_owned(), format!("there is no such setting{}", meant.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, value: &str) -> String {
        Properties::default().extend([(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_key_names_the_nearest_right_one_and_a_wrong_value_what_is_expected() {
        assert_eq!(
            error("linger.m", "1"),
            "setting `linger.m`: there is no such setting; did you mean `linger.ms`?"
        );
        assert_eq!(error("my.own", "1"), "setting `my.own`: there is no such setting");
        assert_eq!(
            error("request.timeout.ms", "0"),
            "setting `request.timeout.ms`: `0` must be a whole number from 1 to 2147483647"
        );
        assert_eq!(error("acks", "2"), "setting `acks`: `2` must be all or -1 or 1 or 0");
    }

    #[test]
    fn values_are_read_as_what_they_are_and_the_last_one_counts() {
        let mut properties = Properties::default();
        properties.extend([("linger.ms", "5"), ("check.crcs", "TRUE"), ("key.serializer", "x")]).unwrap();
        properties.extend([("linger.ms".to_owned(), " 7 ".to_owned())]).unwrap();
        assert_eq!(properties.duration("linger.ms"), Some(Duration::from_millis(7)));
        assert_eq!(properties.flag("check.crcs"), Some(true));
        assert_eq!(properties.size("batch.size"), None, "what was not given is not there");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        let mut properties = Properties::default();
        let error = properties.extend_from_file(Path::new("no/such.properties")).await.unwrap_err();
        assert!(error.to_string().contains("no/such.properties"), "{error}");
    }
}
