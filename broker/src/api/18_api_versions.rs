//! ApiVersions, key 18: versions 0 to 5. A version that is not known is answered in version 0, with UNSUPPORTED_VERSION
//! and what is served, so that the client can come again (KIP-511).
//!
//! From version 3 on the answer says which features of the cluster are in force: `transaction.version` 2, by which
//! clients know that partitions take part in a transaction by what is written into them (KIP-890).

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::api_versions::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{Answer, Call, Context, Refusal, Reply, SERVED};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on the client says what software it is.
const SOFTWARE: i16 = 3;
/// Clients of older versions do not understand a feature that may be at level 0, and are not told of it (KAFKA-17492).
const FEATURES_FROM_0: i16 = 4;
/// The feature that is in force, and its level.
pub(super) const TRANSACTION_VERSION: (&str, i16) = ("transaction.version", 2);
/// Which state of the features this is; they do not change while the broker runs. Clients take -1 for none at all.
const FEATURES_EPOCH: i64 = 0;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ApiVersionsRequest = call.decode()?;
    let named = |text: &str| is_software_name(text);
    let known = call.version < SOFTWARE
        || (named(&request.client_software_name) && named(&request.client_software_version));
    let error = if known { ErrorCode::None } else { ErrorCode::InvalidRequest };
    call.answer(&served(error, call.version))
}

/// The answer to a version that is not served.
pub(super) fn unsupported(call: &Call) -> Result<Answer, Refusal> {
    let reply = Reply { version: 0, ..call.reply() };
    reply.encode(&served(ErrorCode::UnsupportedVersion, 0)).map(Answer::Ready)
}

fn served(error: ErrorCode, version: i16) -> ApiVersionsResponse {
    let api_keys = SERVED.iter().map(|(api, versions)| ApiVersion {
        api_key: api.code(),
        min_version: *versions.start(),
        max_version: *versions.end(),
        ..ApiVersion::default()
    });
    let supported = SupportedFeatureKey {
        name: TRANSACTION_VERSION.0.into(),
        min_version: 0,
        max_version: TRANSACTION_VERSION.1,
        ..SupportedFeatureKey::default()
    };
    let finalized = FinalizedFeatureKey {
        name: TRANSACTION_VERSION.0.into(),
        max_version_level: TRANSACTION_VERSION.1,
        min_version_level: TRANSACTION_VERSION.1,
        ..FinalizedFeatureKey::default()
    };
    ApiVersionsResponse {
        error_code: error.code(),
        api_keys: api_keys.collect(),
        supported_features: if version >= FEATURES_FROM_0 { vec![supported] } else { Vec::new() },
        finalized_features_epoch: FEATURES_EPOCH,
        finalized_features: vec![finalized],
        ..ApiVersionsResponse::default()
    }
}

/// Letters and digits, with `-` and `.` in between, as Kafka asks (KIP-511).
fn is_software_name(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for good in ["a", "apache-kafka-java", "4.0.0", "librdkafka"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
