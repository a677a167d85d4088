//! Changes of somebody's quotas, which become records or an error that changes nothing. Pure.

use klamm_protocol::ErrorCode;

use super::command::TopicError;
use super::image::Image;
use super::record::MetadataRecord;
use crate::quota::{Entity, check, check_entity};

/// A change of the quotas of an entity.
#[derive(Debug, Clone)]
pub(crate) struct ChangeQuotas {
    pub(crate) entity: Entity,
    /// Names and values; none takes a quota away.
    pub(crate) quotas: Vec<(String, Option<f64>)>,
}

impl ChangeQuotas {
    /// The records of the change; none when it is so already.
    ///
    /// # Errors
    /// `INVALID_REQUEST`: there is no such entity or quota here, or it cannot have the value.
    pub(super) fn records(&self, image: &Image) -> Result<Vec<MetadataRecord>, TopicError> {
        let invalid = |why: String| TopicError::new(ErrorCode::InvalidRequest, why);
        check_entity(&self.entity).map_err(invalid)?;
        let mut records = Vec::new();
        for (key, value) in &self.quotas {
            if let Some(value) = value {
                check(key, *value).map_err(invalid)?;
            }
            if image.client_quotas().get(&self.entity, key) != *value {
                let (entity, key) = (self.entity.clone(), key.clone());
                records.push(MetadataRecord::ClientQuota { entity, key, value: *value });
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_what_is_different_or_nothing_at_all() {
        let entity = Entity::from([("client-id".to_owned(), None)]);
        let (produced, fetched) = ("producer_byte_rate".to_owned(), "consumer_byte_rate".to_owned());
        let change = |quotas: &[(&String, Option<f64>)]| ChangeQuotas {
            entity: entity.clone(),
            quotas: quotas.iter().map(|(key, value)| ((*key).clone(), *value)).collect(),
        };
        let mut image = Image::default();
        let both = change(&[(&produced, Some(5.0)), (&fetched, None)]).records(&image).unwrap();
        let (key, value) = (produced.clone(), Some(5.0));
        assert_eq!(both, [MetadataRecord::ClientQuota { entity: entity.clone(), key, value }]);
        both.iter().for_each(|record| image.apply(record));
        assert_eq!(change(&[(&produced, Some(5.0))]).records(&image).unwrap(), []);
        assert_eq!(change(&[(&produced, None)]).records(&image).unwrap().len(), 1);
        let half = change(&[(&produced, Some(6.0)), (&fetched, Some(0.5))]).records(&image);
        assert_eq!(half.unwrap_err().code, ErrorCode::InvalidRequest);
        let nobody = ChangeQuotas { entity: Entity::new(), quotas: Vec::new() };
        assert_eq!(nobody.records(&image).unwrap_err().code, ErrorCode::InvalidRequest);
    }
}
