//! ApiVersions, key 18: versions 0 to 5. A version that is not known is answered in version 0, with UNSUPPORTED_VERSION
//! and what is served, so that the client can come again (KIP-511).

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::api_versions::ApiVersion;
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{Answer, Call, Context, Refusal, Reply, SERVED};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on the client says what software it is.
const SOFTWARE: i16 = 3;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ApiVersionsRequest = call.decode()?;
    let named = |text: &str| is_software_name(text);
    let known = call.version < SOFTWARE
        || (named(&request.client_software_name) && named(&request.client_software_version));
    let error = if known { ErrorCode::None } else { ErrorCode::InvalidRequest };
    call.answer(&served(error))
}

/// The answer to a version that is not served.
pub(super) fn unsupported(call: &Call) -> Result<Answer, Refusal> {
    let reply = Reply { version: 0, ..call.reply() };
    reply.encode(&served(ErrorCode::UnsupportedVersion)).map(Answer::Ready)
}

fn served(error: ErrorCode) -> ApiVersionsResponse {
    let api_keys = SERVED.iter().map(|(api, versions)| ApiVersion {
        api_key: api.code(),
        min_version: *versions.start(),
        max_version: *versions.end(),
        ..ApiVersion::default()
    });
    ApiVersionsResponse {
        error_code: error.code(),
        api_keys: api_keys.collect(),
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
