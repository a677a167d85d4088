//! DescribeClientQuotas, key 48: versions 0 and 1. The quotas that are set and pass all filters.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_client_quotas::{ComponentData, EntityData, EntryData, ValueData};
use klamm_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::{Answer, Call, Context, Refusal};
use crate::quota::{CLIENT_ID, ClientQuotas, Entity, IP, USER};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;
/// What an entity takes in the answer, more or less.
const TOLD_ENTITY_BYTES: usize = 512;

/// What the name of a kind must be.
enum Filter {
    Is(Option<String>),
    Any,
}

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeClientQuotasRequest = call.decode()?;
    let response = match filters(&request.components) {
        Ok(filters) => {
            let entries = passing(context.view().image.client_quotas(), &filters, request.strict);
            call.charge(entries.len() * TOLD_ENTITY_BYTES);
            DescribeClientQuotasResponse { entries: Some(entries), ..Default::default() }
        }
        Err((error, message)) => DescribeClientQuotasResponse {
            error_code: error.code(),
            error_message: Some(message.into()),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        },
    };
    call.answer(&response)
}

fn filters(components: &[ComponentData]) -> Result<BTreeMap<String, Filter>, (ErrorCode, String)> {
    let mut filters = BTreeMap::new();
    for component in components {
        let kind = component.entity_type.to_string();
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return Err((ErrorCode::UnsupportedVersion, format!("there are no quotas for a {kind}")));
        }
        let filter = match (component.match_type, &component.r#match) {
            (0, Some(name)) => Filter::Is(Some(name.to_string())),
            (1, None) => Filter::Is(None),
            (2, None) => Filter::Any,
            (other, _) => {
                let message =
                    format!("a filter of kind {other} for {kind} makes no sense with or without a name");
                return Err((ErrorCode::InvalidRequest, message));
            }
        };
        if filters.insert(kind.clone(), filter).is_some() {
            return Err((ErrorCode::InvalidRequest, format!("there are two filters for {kind}")));
        }
    }
    if filters.contains_key(IP) && filters.len() > 1 {
        let message = "an address goes together with no user and no client id";
        return Err((ErrorCode::InvalidRequest, message.into()));
    }
    Ok(filters)
}

fn passing(quotas: &ClientQuotas, filters: &BTreeMap<String, Filter>, strict: bool) -> Vec<EntryData> {
    let passes = |entity: &Entity| {
        let all = filters.iter().all(|(kind, filter)| match (entity.get(kind), filter) {
            (Some(name), Filter::Is(wanted)) => name == wanted,
            (Some(_), Filter::Any) => true,
            (None, _) => false,
        });
        all && (!strict || entity.len() == filters.len())
    };
    let mut by_entity: BTreeMap<&Entity, Vec<ValueData>> = BTreeMap::new();
    for (entity, key, value) in quotas.all().filter(|(entity, ..)| passes(entity)) {
        let value = ValueData { key: key.into(), value, ..ValueData::default() };
        by_entity.entry(entity).or_default().push(value);
    }
    let part = |(kind, name): (&String, &Option<String>)| EntityData {
        entity_type: kind.into(),
        entity_name: name.as_ref().map(Into::into),
        ..EntityData::default()
    };
    let entries = by_entity.into_iter().map(|(entity, values)| EntryData {
        entity: entity.iter().map(part).collect(),
        values,
        ..EntryData::default()
    });
    entries.collect()
}
