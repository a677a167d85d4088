//! The topics that the members of a group subscribe to, read off what they say of themselves. Pure.
//!
//! Members of the protocol type `consumer` begin what they say with a version and the names of their topics, in a
//! layout that all versions of Kafka's clients share. Other types say what they like.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::Decoder;

/// The protocol type whose members say which topics they subscribe to.
pub(super) const CONSUMER: &str = "consumer";
/// The shortest name of a topic is the two bytes of its length.
const LEAST_TOPIC_BYTES: usize = 2;

/// What a group subscribes to, as far as the coordinator can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Subscription {
    /// Its members are no consumers, or there never were any.
    #[default]
    None,
    /// Its members are consumers and do not say it in a way that we understand: perhaps any topic.
    Unknown,
    /// These topics.
    Topics(BTreeSet<String>),
}

impl Subscription {
    /// What members of a type that use a protocol subscribe to, by what each says under it.
    pub(super) fn of(protocol_type: Option<&str>, protocol: Option<&str>, members: &[Bytes]) -> Self {
        if protocol_type != Some(CONSUMER) {
            return Self::None;
        }
        if members.is_empty() {
            return Self::Topics(BTreeSet::new());
        }
        if protocol.is_none() {
            return Self::Unknown;
        }
        let mut topics = BTreeSet::new();
        match members.iter().try_for_each(|said| read_topics(said, &mut topics)) {
            Some(()) => Self::Topics(topics),
            None => Self::Unknown,
        }
    }

    /// Whether the topic is subscribed to, or may be.
    pub(super) fn may_have(&self, topic: &str) -> bool {
        match self {
            Self::None => false,
            Self::Unknown => true,
            Self::Topics(topics) => topics.contains(topic),
        }
    }

    /// Whether it is known which topics are not subscribed to by a group that has members.
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Topics(_))
    }
}

fn read_topics(said: &Bytes, topics: &mut BTreeSet<String>) -> Option<()> {
    let mut input = Decoder::new(said.clone());
    input.take_i16().ok().filter(|version| *version >= 0)?;
    for _ in 0..input.take_array_len(LEAST_TOPIC_BYTES).ok()?? {
        topics.insert(input.take_string().ok()?.to_string());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a consumer of these topics says, with something of a later version behind it.
    fn says(version: i16, topics: &[&str]) -> Bytes {
        let mut said = version.to_be_bytes().to_vec();
        said.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for topic in topics {
            said.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            said.extend(topic.as_bytes());
        }
        said.extend(b"later");
        said.into()
    }

    fn of(members: &[Bytes]) -> Subscription {
        Subscription::of(Some("consumer"), Some("range"), members)
    }

    fn topics(names: &[&str]) -> Subscription {
        Subscription::Topics(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_group_subscribes_to_what_any_member_does() {
        assert_eq!(of(&[says(0, &["a", "b"]), says(3, &["b", "c"])]), topics(&["a", "b", "c"]));
        assert_eq!(of(&[says(0, &[])]), topics(&[]));
        assert_eq!(of(&[]), topics(&[]), "nobody subscribes to nothing");
        let found = of(&[says(0, &["a"])]);
        assert!(found.is_known() && found.may_have("a") && !found.may_have("b"));
    }

    #[test]
    fn what_is_not_said_may_be_anything() {
        let null = Bytes::from_static(b"\0\0\xff\xff\xff\xff");
        let cut = says(0, &["topic"]).slice(..9);
        for said in [Bytes::new(), null, cut, says(-1, &["a"]), Bytes::from_static(b"subscription")] {
            assert_eq!(of(&[says(0, &["a"]), said]), Subscription::Unknown);
        }
        assert_eq!(Subscription::of(Some("consumer"), None, &[says(0, &["a"])]), Subscription::Unknown);
        assert!(Subscription::Unknown.may_have("a") && !Subscription::Unknown.is_known());
    }

    #[test]
    fn others_subscribe_to_nothing() {
        for protocol_type in [None, Some("connect")] {
            assert_eq!(
                Subscription::of(protocol_type, Some("range"), &[says(0, &["a"])]),
                Subscription::None
            );
        }
        assert!(!Subscription::None.may_have("a") && !Subscription::None.is_known());
    }
}
