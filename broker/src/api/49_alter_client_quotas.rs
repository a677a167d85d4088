//! AlterClientQuotas, key 49: versions 0 and 1. Rates of produced and fetched bytes are kept to by client id; users are
//! one, ANONYMOUS. What would not be kept to is refused.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_client_quotas::{EntryData, EntryResult};
use klamm_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

use super::{Answer, Call, Context, Refusal};
use crate::controller::{COMMANDS_AT_ONCE, ChangeQuotas};
use crate::quota::Entity;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AlterClientQuotasRequest = call.decode()?;
    let validate_only = request.validate_only;
    let mut response = AlterClientQuotasResponse::default();
    let mut entries = request.entries.into_iter();
    loop {
        let some: Vec<EntryData> = entries.by_ref().take(COMMANDS_AT_ONCE).collect();
        if some.is_empty() {
            return call.answer(&response);
        }
        let changes = some.into_iter().map(async |entry| {
            let changed = match command(&entry) {
                Ok(command) => context.controller().change_quotas(command, validate_only).await,
                Err(message) => return refused(entry, ErrorCode::InvalidRequest, message),
            };
            match changed {
                Ok(()) => EntryResult { entity: entry.entity, ..EntryResult::default() },
                Err(error) => refused(entry, error.code, error.message),
            }
        });
        response.entries.extend(join_all(changes).await);
    }
}

fn command(entry: &EntryData) -> Result<ChangeQuotas, String> {
    let mut entity = Entity::new();
    for part in &entry.entity {
        let name = part.entity_name.as_ref().map(ToString::to_string);
        if entity.insert(part.entity_type.to_string(), name).is_some() {
            return Err(format!("there are two names for {}", part.entity_type));
        }
    }
    let quotas = entry.ops.iter().map(|op| (op.key.to_string(), (!op.remove).then_some(op.value)));
    Ok(ChangeQuotas { entity, quotas: quotas.collect() })
}

fn refused(entry: EntryData, error: ErrorCode, message: String) -> EntryResult {
    EntryResult {
        error_code: error.code(),
        error_message: Some(message.into()),
        entity: entry.entity,
        ..EntryResult::default()
    }
}
