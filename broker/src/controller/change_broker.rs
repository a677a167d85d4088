//! Changes of the settings of brokers while they run, which become records or an error that changes nothing. Pure.

use klamm_protocol::ErrorCode;

use super::change::{Change, adjusted};
use super::command::TopicError;
use super::image::Image;
use super::record::MetadataRecord;
use crate::config::{check_altered, default_list};

/// A change of the settings of a broker, or of all brokers where the name is empty.
#[derive(Debug, Clone)]
pub(crate) struct ChangeBroker {
    /// Its number.
    pub(crate) broker: String,
    /// What is to change.
    pub(crate) change: Change,
}

impl ChangeBroker {
    /// The records of the change; none when it is so already.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, as Kafka says it: a setting is not one, cannot be altered, or cannot have the value.
    pub(super) fn records(&self, image: &Image) -> Result<Vec<MetadataRecord>, TopicError> {
        let before = image.broker_settings().of(&self.broker);
        let after = match &self.change {
            Change::Replace(settings) => settings.clone(),
            Change::Adjust(adjustments) => adjusted(before, adjustments, default_list)?,
            Change::Grow { .. } => {
                return Err(TopicError::new(
                    ErrorCode::InvalidRequest,
                    "a broker has no partitions of its own",
                ));
            }
        };
        let record = |key: &String, value: Option<&String>| MetadataRecord::BrokerSetting {
            broker: self.broker.clone(),
            key: key.clone(),
            value: value.cloned(),
        };
        let mut records = Vec::new();
        for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(*value)) {
            check_altered(key, value)
                .map_err(|error| TopicError::new(ErrorCode::InvalidRequest, error.to_string()))?;
            records.push(record(key, Some(value)));
        }
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        records.extend(gone.map(|key| record(key, None)));
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::change::Adjustment;
    use super::*;

    fn map(some: &[(&str, &str)]) -> BTreeMap<String, String> {
        some.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// What a broker has after a change, which its records make of the image.
    fn changed(
        image: &mut Image,
        broker: &str,
        change: Change,
    ) -> Result<BTreeMap<String, String>, ErrorCode> {
        let change = ChangeBroker { broker: broker.into(), change };
        let records = change.records(image).map_err(|error| error.code)?;
        records.iter().for_each(|record| image.apply(record));
        Ok(image.broker_settings().of(broker).clone())
    }

    #[test]
    fn each_broker_and_all_of_them_have_settings_of_their_own() {
        let mut image = Image::default();
        let retention = map(&[("log.retention.ms", "5"), ("max.connections", "6")]);
        assert_eq!(changed(&mut image, "1", Change::Replace(retention.clone())), Ok(retention.clone()));
        let set = |key: &str, value: &str| (key.to_owned(), Adjustment::Set(value.to_owned()));
        let all = Change::Adjust(vec![set("log.retention.ms", "7")]);
        assert_eq!(changed(&mut image, "", all), Ok(map(&[("log.retention.ms", "7")])));
        assert_eq!(*image.broker_settings().of("1"), retention);
        let listed: Vec<_> = image.broker_settings().all().collect();
        assert_eq!(
            listed,
            [("", "log.retention.ms", "7"), ("1", "log.retention.ms", "5"), ("1", "max.connections", "6")]
        );
        let take_back = Change::Adjust(vec![("log.retention.ms".into(), Adjustment::Delete)]);
        assert_eq!(changed(&mut image, "1", take_back), Ok(map(&[("max.connections", "6")])));
        let append =
            Change::Adjust(vec![("log.cleanup.policy".into(), Adjustment::Append("compact".into()))]);
        let policy = map(&[("log.cleanup.policy", "delete,compact"), ("max.connections", "6")]);
        assert_eq!(changed(&mut image, "1", append), Ok(policy));
        for broker in ["1", ""] {
            assert_eq!(changed(&mut image, broker, Change::Replace(BTreeMap::new())), Ok(BTreeMap::new()));
        }
        assert_eq!(*image.broker_settings(), std::sync::Arc::default());
    }

    #[test]
    fn what_cannot_be_altered_is_refused_as_in_kafka_and_what_is_so_needs_no_record() {
        let mut image = Image::default();
        let before = map(&[("max.connections", "6")]);
        changed(&mut image, "1", Change::Replace(before.clone())).unwrap();
        for wrong in [("log.dirs", "/x"), ("max.connections", "many"), ("no.such.thing", "1")] {
            let wrong = Change::Replace(map(&[("max.connections", "7"), wrong]));
            assert_eq!(changed(&mut image, "1", wrong), Err(ErrorCode::InvalidRequest));
        }
        let grow = Change::Grow { partitions: 5, assignments: None };
        assert_eq!(changed(&mut image, "1", grow), Err(ErrorCode::InvalidRequest));
        let list = Change::Adjust(vec![("max.connections".into(), Adjustment::Append("7".into()))]);
        assert_eq!(changed(&mut image, "1", list), Err(ErrorCode::InvalidConfig));
        let same = ChangeBroker { broker: "1".into(), change: Change::Replace(before) };
        assert_eq!(same.records(&image).unwrap(), []);
    }
}
