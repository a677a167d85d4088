//! What a listener subscribes to, and which topics are its dead letters'. Pure.

use std::sync::{Arc, PoisonError, RwLock};

use regex_lite::Regex;

use super::retry_topics::sources_elsewhere;

/// What is appended to a topic's name for its dead letters.
pub(crate) const DEAD_LETTER_SUFFIX: &str = "-dlt";
/// Kafka's limit.
const NAME_BYTES_MAX: usize = 249;

/// What is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topics {
    Names(Vec<Arc<str>>),
    Pattern(Arc<str>),
}

impl Topics {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Names(names) => names.is_empty(),
            Self::Pattern(pattern) => pattern.is_empty(),
        }
    }

    /// A name that no topic can have.
    pub(crate) fn illegal_name(&self) -> Option<&str> {
        match self {
            Self::Names(names) => names.iter().map(|name| &**name).find(|name| !is_legal(name)),
            Self::Pattern(_) => None,
        }
    }

    /// Whether it names this topic, or has a pattern that matches it. A pattern that is none matches nothing.
    pub(crate) fn hold(&self, topic: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| **name == *topic),
            Self::Pattern(pattern) => {
                Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(topic))
            }
        }
    }
}

/// Whether a topic may have this name: what Kafka says, 1 to 249 letters, digits, `.`, `_` or `-`, not `.` or `..`.
pub(crate) fn is_legal(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(letter)
}

/// Where the dead letters of an app go: patterns of its own listeners leave those topics out, or a bad record of
/// `clicks` would go from `clicks-dlt` to `clicks-dlt-dlt` and on.
#[derive(Debug, Default)]
pub(crate) struct DeadLetterTopics(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Whose dead letters go to a topic of the suffix.
    sources: Vec<Topics>,
    named: Vec<Arc<str>>,
}

impl DeadLetterTopics {
    /// A listener on `topics` sends dead letters to `to`, or to topics of the suffix.
    pub(crate) fn add(&self, topics: &Topics, to: Option<&Arc<str>>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match to {
            Some(name) => known.named.push(Arc::clone(name)),
            None => known.sources.push(topics.clone()),
        }
    }

    /// Whether the pattern is not meant for this topic, though it matches: it is named as the app's dead-letter topic,
    /// or is that of a topic which the pattern matches as well. One that matches dead-letter topics alone is meant for
    /// them. Likewise with retry topics, except those of the `group` itself: whoever they belong to. Two services that
    /// read one another's would make retry topics of retry topics.
    pub(crate) fn are_left_out(&self, pattern: &Topics, group: &str, topic: &str) -> bool {
        if sources_elsewhere(topic, group).any(|source| pattern.hold(source)) {
            return true;
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.named.iter().any(|name| **name == *topic) {
            return !matches!(pattern, Topics::Pattern(pattern) if **pattern == *topic);
        }
        let Some(source) = topic.strip_suffix(DEAD_LETTER_SUFFIX) else { return false };
        pattern.hold(source) && known.sources.iter().any(|topics| topics.hold(source))
    }
}

/// Topics as [`Listener::on`](crate::Listener::on) takes them: one name, or several in an array, slice or vector.
pub trait IntoTopics {
    /// The names.
    fn into_topics(self) -> Vec<Arc<str>>;
}

macro_rules! one_topic {
    ($($name:ty),*) => {$(
        impl IntoTopics for $name {
            fn into_topics(self) -> Vec<Arc<str>> {
                vec![self.into()]
            }
        }
    )*};
}

one_topic!(&str, String, Arc<str>);

impl<T: Into<Arc<str>>, const N: usize> IntoTopics for [T; N] {
    fn into_topics(self) -> Vec<Arc<str>> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Arc<str>>> IntoTopics for Vec<T> {
    fn into_topics(self) -> Vec<Arc<str>> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Arc<str>> + Clone> IntoTopics for &[T] {
    fn into_topics(self) -> Vec<Arc<str>> {
        self.iter().cloned().map(Into::into).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Topics {
        Topics::Names(names.into_topics())
    }

    fn pattern(pattern: &str) -> Topics {
        Topics::Pattern(pattern.into())
    }

    #[test]
    fn names_that_no_topic_can_have_are_found() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        for legal in ["a", "A-9_b.c", "...", &longest] {
            assert_eq!(names(&["t", legal]).illegal_name(), None);
        }
        let too_long = "x".repeat(NAME_BYTES_MAX + 1);
        for illegal in ["", ".", "..", "a,b", "a b", "a!", "ä", "a/b", &too_long] {
            assert_eq!(names(&["t", illegal]).illegal_name(), Some(illegal));
        }
        assert_eq!(pattern("a,b!").illegal_name(), None);
        assert!(
            names(&[]).is_empty()
                && pattern("").is_empty()
                && !names(&["t"]).is_empty()
                && !pattern("t").is_empty()
        );
    }

    #[test]
    fn a_pattern_leaves_out_the_dead_letters_of_what_it_matches() {
        let topics = DeadLetterTopics::default();
        let clicks = pattern("clicks-.*");
        assert!(!topics.are_left_out(&clicks, "g", "clicks-a-dlt"), "somebody else's");
        topics.add(&clicks, None);
        assert!(
            topics.are_left_out(&clicks, "g", "clicks-a-dlt")
                && topics.are_left_out(&clicks, "g", "clicks-a-dlt-dlt")
        );
        assert!(
            !topics.are_left_out(&clicks, "g", "clicks-a")
                && !topics.are_left_out(&clicks, "g", "clicks-dlt")
        );
        assert!(!topics.are_left_out(&pattern(".*-dlt"), "g", "clicks-a-dlt"), "meant for dead letters");
        assert!(
            topics.are_left_out(&pattern(".*"), "g", "clicks-a-dlt")
                && !topics.are_left_out(&pattern(".*"), "g", "orders-dlt")
        );
        topics.add(&names(&["orders"]), None);
        assert!(
            topics.are_left_out(&pattern(".*"), "g", "orders-dlt")
                && !topics.are_left_out(&pattern(".*"), "g", "bills-dlt")
        );
    }

    #[test]
    fn a_named_dead_letter_topic_is_left_out_unless_the_pattern_names_it() {
        let topics = DeadLetterTopics::default();
        topics.add(&names(&["orders"]), Some(&"graveyard".into()));
        assert!(topics.are_left_out(&pattern("g.*"), "g", "graveyard"));
        assert!(!topics.are_left_out(&pattern("graveyard"), "g", "graveyard"));
        assert!(!topics.are_left_out(&pattern(".*"), "g", "orders-dlt"), "nothing goes there");
    }

    #[test]
    fn a_pattern_leaves_out_the_retry_topics_of_other_groups() {
        let topics = DeadLetterTopics::default();
        let waiting = "clicks-a-retry-10s-billing";
        assert!(topics.are_left_out(&pattern(".*"), "audit", waiting));
        assert!(!topics.are_left_out(&pattern(".*"), "billing", waiting), "its own");
        assert!(!topics.are_left_out(&pattern(".*-retry-.*"), "audit", waiting), "meant for them");
        assert!(topics.are_left_out(&pattern(".*"), "audit", "orders-retry-90s-who"), "of another service");
        assert!(!topics.are_left_out(&pattern(".*"), "audit", "orders-retry-0"), "of another program");
    }
}
