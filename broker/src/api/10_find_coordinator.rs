//! FindCoordinator, key 10: versions 0 to 6; several keys at once from 4 on.
//!
//! Groups and transactional ids live on this broker, and asking for one makes sure that `__consumer_offsets` or
//! `__transaction_state` is there. Not there yet: coordinators of share groups (key type 2, INVALID_REQUEST).

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::find_coordinator::Coordinator;
use klamm_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=6;
/// From here on a request asks for several keys.
const BATCHED: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: FindCoordinatorRequest = call.decode()?;
    let found = match request.key_type {
        GROUP => {
            context.groups().prepare().await.map_err(|error| (error, "__consumer_offsets cannot be created"))
        }
        TRANSACTION => {
            let prepared = context.transactions().prepare().await;
            prepared.map_err(|error| (error, "__transaction_state cannot be created"))
        }
        _ => Err((ErrorCode::InvalidRequest, "this broker has no coordinator of this kind")),
    };
    let host: Utf8Bytes = call.peer.advertised.host.as_str().into();
    let coordinator = |key: Utf8Bytes| match found {
        Ok(()) => Coordinator {
            key,
            node_id: context.config().node_id,
            host: host.clone(),
            port: i32::from(call.peer.advertised.port),
            error_message: Some(Utf8Bytes::new()),
            ..Coordinator::default()
        },
        Err((error, message)) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: error.code(),
            error_message: Some(Utf8Bytes::from_static(message)),
            ..Coordinator::default()
        },
    };
    if call.version >= BATCHED {
        let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
        return call.answer(&FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() });
    }
    let only = coordinator(request.key);
    call.answer(&FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..FindCoordinatorResponse::default()
    })
}
