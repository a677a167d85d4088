//! Settings as they come from outside: text under dotted names, checked against a table before anything uses it.
//!
//! Broker and client have a table each; what a table's row is, how a value is checked and which name was probably meant
//! is the same for both.

mod duration;
mod properties;

use std::fmt;

pub use duration::parse_duration;
pub use properties::parse_properties;

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// A whole number in a range, both ends included.
    Int(i64, i64),
    /// `true` or `false`, in any case.
    Bool,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any text.
    Text,
}

impl Expectation {
    /// Whether this text is such a value. Blanks around it do not count.
    pub fn accepts(self, value: &str) -> bool {
        let value = value.trim();
        match self {
            Self::Int(min, max) => value.parse().is_ok_and(|number: i64| (min..=max).contains(&number)),
            Self::Bool => parse_bool(value).is_some(),
            Self::OneOf(words) => words.contains(&value),
            Self::Text => true,
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(min, max) => match (*min, *max) {
                (i64::MIN, i64::MAX) => write!(f, "a whole number"),
                (min, i64::MAX) => write!(f, "a whole number, at least {min}"),
                (min, max) => write!(f, "a whole number from {min} to {max}"),
            },
            Self::Bool => write!(f, "true or false"),
            Self::OneOf(words) => write!(f, "{}", words.join(" or ")),
            Self::Text => write!(f, "text"),
        }
    }
}

/// A row of a table: one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name; Kafka's where Kafka has it.
    pub name: &'static str,
    /// Its default; empty when there is none.
    pub default: &'static str,
    /// What a value must be.
    pub expects: Expectation,
    /// What it does.
    pub doc: &'static str,
}

impl Key {
    /// The row of this name.
    pub fn find(table: &'static [Self], name: &str) -> Option<&'static Self> {
        table.iter().find(|key| key.name == name)
    }

    /// The name that was probably meant, if one is near enough. Farther away it is another word, not a slip.
    pub fn nearest(table: &'static [Self], name: &str) -> Option<&'static str> {
        let (steps, nearest) = table.iter().map(|key| (distance(name, key.name), key.name)).min()?;
        (steps <= 1 + name.len() / 5).then_some(nearest)
    }
}

/// `true` or `false` as Kafka takes them: in any case.
pub fn parse_bool(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// How many letters must be put in, left out or changed to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(name: &'static str, expects: Expectation) -> Key {
        Key { name, default: "", expects, doc: "Something." }
    }

    const TABLE: &[Key] = &[
        key("client.id", Expectation::Text),
        key("linger.ms", Expectation::Int(0, 10)),
        key("acks", Expectation::OneOf(&["all", "1", "0"])),
        key("check.crcs", Expectation::Bool),
    ];

    #[test]
    fn values_are_taken_at_the_ends_of_their_range_and_not_beyond() {
        let range = Expectation::Int(-1, 10);
        for (value, taken) in
            [("-1", true), (" 10 ", true), ("-2", false), ("11", false), ("x", false), ("", false)]
        {
            assert_eq!(range.accepts(value), taken, "{value:?}");
        }
        assert!(Expectation::Bool.accepts("TRUE") && !Expectation::Bool.accepts("yes"));
        assert!(
            Expectation::OneOf(&["a", "b"]).accepts("b") && !Expectation::OneOf(&["a", "b"]).accepts("B")
        );
        assert!(Expectation::Text.accepts(""));
        assert_eq!((parse_bool("False"), parse_bool("0")), (Some(false), None));
    }

    #[test]
    fn expectations_read_as_words() {
        assert_eq!(Expectation::Int(i64::MIN, i64::MAX).to_string(), "a whole number");
        assert_eq!(Expectation::Int(0, i64::MAX).to_string(), "a whole number, at least 0");
        assert_eq!(Expectation::Int(0, 1).to_string(), "a whole number from 0 to 1");
        assert_eq!(Expectation::Bool.to_string(), "true or false");
        assert_eq!(Expectation::OneOf(&["a", "b"]).to_string(), "a or b");
        assert_eq!(Expectation::Text.to_string(), "text");
    }

    #[test]
    fn a_slip_is_told_from_another_word() {
        assert_eq!(Key::nearest(TABLE, "linger.m"), Some("linger.ms"));
        assert_eq!(Key::nearest(TABLE, "client.ids"), Some("client.id"));
        assert_eq!(Key::nearest(TABLE, "ack"), Some("acks"));
        assert_eq!(Key::nearest(TABLE, "group.id"), None);
        assert_eq!(Key::nearest(&[], "a"), None);
        assert_eq!(Key::find(TABLE, "acks").map(|key| key.name), Some("acks"));
        assert_eq!(Key::find(TABLE, "ack"), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ab", "")), (3, 2, 2));
    }
}
