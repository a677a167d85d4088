//! Where a letter goes, and what becomes of it on the way. Pure.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use klamm_client::Record;

use super::headers::of_replayed;
use super::letter::DeadLetter;

/// Where letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// To work again, in the topic that each came from, and its partition while there is one.
    Origin,
    /// To work again, in a topic that is named: a retry topic, say.
    Work(Arc<str>),
    /// Out of the way, as they are.
    Parking(Arc<str>),
}

/// Why a letter stays where it is, although it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stays {
    /// Its headers do not tell where it came from.
    NoOrigin,
    /// The topic that it would go to does not exist.
    NoTopic(Arc<str>),
    /// The topic that it would go to may not be looked at.
    Forbidden(Arc<str>),
    /// The topic that it came from is this dead-letter topic.
    OwnTopic,
    /// It came back too often.
    TooManyReplays,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrigin => f.write_str("no header tells where it came from; name the topic it goes to"),
            Self::NoTopic(topic) => write!(f, "topic {topic} does not exist; create it, or name another"),
            Self::Forbidden(topic) => {
                write!(f, "this user may not describe topic {topic}; allow it, or name another")
            }
            Self::OwnTopic => f.write_str("it came from this very topic; name the topic it goes to"),
            Self::TooManyReplays => {
                f.write_str("it came back too often; mend the cause, then allow more replays")
            }
        }
    }
}

/// The topics that letters may go to, and what is known of each.
pub(super) type Targets = HashMap<Arc<str>, Target>;

/// A topic that letters may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// It has so many partitions.
    Partitions(i32),
    /// It does not exist.
    Missing,
    /// It may not be looked at.
    Forbidden,
}

impl Destination {
    /// The topic that a letter would go to.
    pub(super) fn topic<'a>(&'a self, letter: &'a DeadLetter) -> Option<&'a Arc<str>> {
        match self {
            Self::Origin => letter.origin.as_ref().map(|origin| &origin.topic),
            Self::Work(topic) | Self::Parking(topic) => Some(topic),
        }
    }

    /// The record to send for a letter.
    pub(super) fn record(
        &self,
        letter: &DeadLetter,
        replays_max: u32,
        targets: &Targets,
    ) -> Result<Record, Stays> {
        let record = &letter.record;
        let topic = self.topic(letter).ok_or(Stays::NoOrigin)?;
        if *topic == record.topic {
            return Err(Stays::OwnTopic);
        }
        let count = match targets.get(topic) {
            Some(Target::Partitions(count)) => *count,
            Some(Target::Forbidden) => return Err(Stays::Forbidden(Arc::clone(topic))),
            Some(Target::Missing) | None => return Err(Stays::NoTopic(Arc::clone(topic))),
        };
        let is_work = !matches!(self, Self::Parking(_));
        if is_work && letter.replays >= replays_max {
            return Err(Stays::TooManyReplays);
        }
        let origin = letter.origin.as_ref();
        let partition = match self {
            Self::Parking(_) => Some(record.partition),
            // Who named no partition when it wrote the dead letter left it to the key.
            _ => origin.map_or(Some(record.partition), |origin| origin.partition),
        };
        let to_origin = origin.is_some_and(|origin| origin.topic == *topic);
        Ok(Record {
            topic: Arc::clone(topic),
            partition: partition.filter(|partition| (0..count).contains(partition)),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: match is_work {
                true => of_replayed(&record.headers, !to_origin),
                false => record.headers.to_vec(),
            },
            // One that is parked keeps the time at which it died; one that goes to work must not be old when it
            // comes.
            timestamp_ms: (!is_work).then_some(record.timestamp_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::Headers;

    use super::*;
    use crate::dead_letters::headers;
    use crate::dead_letters::letter::tests::{letter, record};

    const ENOUGH: u32 = 3;

    fn known() -> Targets {
        let partitions = [("orders", 4), ("orders-retry-1000", 1), ("parked", 2)];
        let mut known: Targets =
            partitions.map(|(topic, count)| (topic.into(), Target::Partitions(count))).into();
        known.insert("gone".into(), Target::Missing);
        known.insert("secret".into(), Target::Forbidden);
        known
    }

    fn to(destination: &Destination, letter: &DeadLetter) -> Result<Record, Stays> {
        destination.record(letter, ENOUGH, &known())
    }

    #[test]
    fn back_to_the_partition_it_came_from_without_the_failure() {
        let letter = letter(3, 5, "my::Error", "broke");
        let record = to(&Destination::Origin, &letter).unwrap();
        assert_eq!((&*record.topic, record.partition, record.timestamp_ms), ("orders", Some(3), None));
        assert_eq!((record.key, record.value), (letter.record.key.clone(), letter.record.value.clone()));
        let headers = Headers::from(record.headers);
        assert_eq!((headers::origin(&headers), headers::cause(&headers)), (None, None));
        assert_eq!(headers::replays(&headers), 1);
    }

    #[test]
    fn a_partition_that_is_gone_is_left_to_the_key() {
        let letter = letter(4, 5, "my::Error", "broke");
        assert_eq!(to(&Destination::Origin, &letter).unwrap().partition, None);
    }

    #[test]
    fn a_retry_topic_is_told_where_the_letter_came_from_first() {
        let letter = letter(0, 5, "my::Error", "broke");
        let record = to(&Destination::Work("orders-retry-1000".into()), &letter).unwrap();
        let headers = Headers::from(record.headers);
        assert_eq!(headers::origin(&headers), letter.origin);
        assert_eq!((headers::cause(&headers), headers::replays(&headers)), (None, 1));
    }

    #[test]
    fn a_parked_letter_stays_as_it_is() {
        let letter = letter(1, 5, "my::Error", "broke");
        let record = to(&Destination::Parking("parked".into()), &letter).unwrap();
        assert_eq!((record.partition, record.timestamp_ms), (Some(1), Some(1_005)));
        assert_eq!(Headers::from(record.headers), letter.record.headers);
    }

    #[test]
    fn what_cannot_go_says_why() {
        let plain = DeadLetter::new(record("orders-dlt", 0, 0));
        assert_eq!(to(&Destination::Origin, &plain), Err(Stays::NoOrigin));
        assert!(to(&Destination::Work("orders".into()), &plain).is_ok());
        let gone = to(&Destination::Work("gone".into()), &plain);
        assert_eq!(gone, Err(Stays::NoTopic("gone".into())));
        let forbidden = to(&Destination::Work("secret".into()), &plain);
        assert_eq!(forbidden, Err(Stays::Forbidden("secret".into())));
        let mut own = letter(0, 0, "my::Error", "broke");
        own.origin.as_mut().unwrap().topic = "orders-dlt".into();
        assert_eq!(to(&Destination::Origin, &own), Err(Stays::OwnTopic));
        let mut often = letter(0, 0, "my::Error", "broke");
        often.replays = ENOUGH;
        assert_eq!(to(&Destination::Origin, &often), Err(Stays::TooManyReplays));
        assert!(to(&Destination::Parking("parked".into()), &often).is_ok());
    }
}
