//! The subject that a topic's schemas lie under. Pure.

/// How the subject is named that a schema lies under (Confluent's `value.subject.name.strategy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubjectNaming {
    /// `<topic>-value`, `<topic>-key`: one type a topic.
    #[default]
    Topic,
    /// The full name of the record type: it is the same in all topics.
    Record,
    /// `<topic>-<record>`: several types in one topic, each with a history of its own.
    TopicRecord,
}

impl SubjectNaming {
    /// The subject of a record type in the keys or values of a topic.
    pub fn subject(self, topic: &str, record: &str, is_key: bool) -> String {
        match self {
            Self::Topic if is_key => format!("{topic}-key"),
            Self::Topic => format!("{topic}-value"),
            Self::Record => record.to_owned(),
            Self::TopicRecord => format!("{topic}-{record}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_named_as_confluents_strategies_do() {
        let named = |naming: SubjectNaming| naming.subject("orders", "shop.Order", false);
        assert_eq!(named(SubjectNaming::Topic), "orders-value");
        assert_eq!(SubjectNaming::Topic.subject("orders", "shop.Order", true), "orders-key");
        assert_eq!(named(SubjectNaming::Record), "shop.Order");
        assert_eq!(named(SubjectNaming::TopicRecord), "orders-shop.Order");
    }
}
