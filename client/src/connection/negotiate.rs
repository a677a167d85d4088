//! Which version of each API a broker speaks: ApiVersions, from our highest version downwards (KIP-511).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::frame::decode_response;
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{ErrorCode, Message, Request, Utf8Bytes};

use super::socket::Connection;
use crate::error::RequestError;

/// What a broker offers.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// Versions by API key.
    apis: HashMap<i16, (i16, i16)>,
    /// The levels of the features that the cluster uses.
    features: HashMap<String, i16>,
}

impl Versions {
    /// The highest version of `R` that both sides speak and that is at most `cap`.
    pub(super) fn pick<R: Request>(&self, cap: i16) -> Option<i16> {
        let (lowest, highest) = *self.apis.get(&R::KEY.code())?;
        let version = highest.min(*R::VERSIONS.end()).min(cap);
        (version >= lowest && version >= *R::VERSIONS.start()).then_some(version)
    }

    /// The level of a feature, if the cluster uses it.
    pub(super) fn feature(&self, name: &str) -> Option<i16> {
        self.features.get(name).copied()
    }
}

/// Asks a new connection for its versions.
pub(super) async fn negotiate(connection: &Connection, timeout: Duration) -> Result<Versions, RequestError> {
    let request = ApiVersionsRequest {
        client_software_name: Utf8Bytes::from_static("klamm"),
        client_software_version: Utf8Bytes::from_static(env!("CARGO_PKG_VERSION")),
        ..Default::default()
    };
    let mut version = *ApiVersionsRequest::VERSIONS.end();
    loop {
        let frame = connection.exchange(&request, version, timeout).await?;
        // A broker that does not know our version says so in version 0, whatever was asked.
        let refused = error_code(&frame) == Some(ErrorCode::UnsupportedVersion);
        let answer = decode(connection, frame, if refused { 0 } else { version })?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {
                let ranges =
                    answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
                let apis = ranges.collect();
                let features = answer.finalized_features.iter();
                let features = features.map(|feature| (feature.name.to_string(), feature.max_version_level));
                return Ok(Versions { apis, features: features.collect() });
            }
            ErrorCode::UnsupportedVersion if version > 0 => {
                let key = ApiVersionsRequest::KEY;
                let offered = answer.api_keys.iter().find(|api| api.api_key == key.code());
                version = offered.map_or(0, |api| api.max_version.clamp(0, version - 1));
            }
            code => {
                return Err(RequestError::Broker {
                    address: Arc::clone(connection.address()),
                    api: ApiVersionsRequest::KEY,
                    code,
                });
            }
        }
    }
}

/// The error code stands first in the body in every version; the correlation id is before it.
fn error_code(frame: &[u8]) -> Option<ErrorCode> {
    let code = frame.get(4..6)?.first_chunk()?;
    Some(ErrorCode::from_code(i16::from_be_bytes(*code)))
}

fn decode(connection: &Connection, frame: Bytes, version: i16) -> Result<ApiVersionsResponse, RequestError> {
    decode_response::<ApiVersionsRequest>(frame, version)
        .map(|(_, answer)| answer)
        .map_err(|error| connection.broke_protocol(error.to_string()))
}
