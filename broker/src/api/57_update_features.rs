//! UpdateFeatures, key 57: versions 0 to 2. What is in force is what this broker does, and stays: setting a feature to
//! the level that it has is no change, and any other is refused. Kafka would take older levels.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::update_features::{FeatureUpdateKey, UpdatableFeatureResult};
use klamm_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::api_versions::TRANSACTION_VERSION;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;
/// From here on there are no results: all are updated, or none.
const ALL_OR_NONE: i16 = 2;
/// Up, down if that loses nothing, and down in any case.
const UPGRADE_TYPES: RangeInclusive<i8> = 1..=3;
/// What Kafka says of an update that is done.
const DONE: Utf8Bytes = Utf8Bytes::from_static("NONE");

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: UpdateFeaturesRequest = call.decode()?;
    let mut response = UpdateFeaturesResponse { error_message: None, ..UpdateFeaturesResponse::default() };
    if let Some(why) = request.feature_updates.iter().find_map(refusal) {
        response.error_code = ErrorCode::InvalidUpdateVersion.code();
        response.error_message = Some(Utf8Bytes::from_static(why));
    } else if call.version < ALL_OR_NONE {
        let done = |update: FeatureUpdateKey| UpdatableFeatureResult {
            feature: update.feature,
            error_message: Some(DONE),
            ..UpdatableFeatureResult::default()
        };
        response.results = request.feature_updates.into_iter().map(done).collect();
    }
    call.answer(&response)
}

fn refusal(update: &FeatureUpdateKey) -> Option<&'static str> {
    if update.feature != TRANSACTION_VERSION.0 {
        return Some("no feature is updated: one of them does not exist; there is transaction.version");
    }
    if !UPGRADE_TYPES.contains(&update.upgrade_type) {
        return Some("no feature is updated: one is to be updated in a way that does not exist");
    }
    let is_in_force = update.max_version_level == TRANSACTION_VERSION.1;
    (!is_in_force).then_some("no feature is updated: transaction.version is 2 and stays so")
}
