//! Which topics a pattern means.

use std::fmt;
use std::sync::Arc;

use regex_lite::Regex;

use crate::streams::error::TopologyError;

/// A regular expression that the whole name of a topic matches.
#[derive(Clone)]
pub(crate) struct Pattern {
    pub(crate) text: Arc<str>,
    regex: Regex,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, TopologyError> {
        let whole = Regex::new(&format!("^(?:{text})$"));
        let bad = |reason: regex_lite::Error| TopologyError::BadPattern {
            pattern: text.to_owned(),
            reason: reason.to_string(),
        };
        Ok(Self { text: text.into(), regex: whole.map_err(bad)? })
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.regex.is_match(topic)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// Topics of the application, and those that brokers keep for themselves.
pub(crate) fn is_internal(topic: &str, application_id: &str) -> bool {
    let own = topic.strip_prefix(application_id).is_some_and(|rest| {
        let ends = ["-changelog", "-repartition", "-topic"];
        rest.starts_with('-') && ends.iter().any(|end| rest.ends_with(end))
    });
    own || topic.starts_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_has_to_match() {
        let pattern = Pattern::new("orders-.*|clicks").unwrap();
        let matching =
            ["orders-eu", "clicks", "my-orders-eu", "clicks-2"].map(|topic| pattern.matches(topic));
        assert_eq!(matching, [true, true, false, false]);
        let error = Pattern::new("orders-(").unwrap_err().to_string();
        assert!(error.starts_with("`orders-(` is no pattern"), "{error}");
    }

    #[test]
    fn topics_of_the_application_are_never_meant() {
        let internal =
            ["app-counts-changelog", "app-by-word-repartition", "__consumer_offsets", "app-orders"];
        assert_eq!(internal.map(|topic| is_internal(topic, "app")), [true, true, true, false]);
    }
}
