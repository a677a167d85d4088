//! Who leads a partition, told with an error of which the client would otherwise ask for the metadata (KIP-951).

use klamm_protocol::messages::FetchResponse;
use klamm_protocol::messages::fetch::{LeaderIdAndEpoch, NodeEndpoint};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::context::named;
use super::{Context, Peer};

/// From here on a fetch is answered with them.
const FETCH_HINTS: i16 = 16;

/// Tells the leader of each partition that was refused because of an older one.
pub(super) fn tell_leaders(response: &mut FetchResponse, version: i16, context: &Context, peer: &Peer) {
    if version < FETCH_HINTS {
        return;
    }
    let leader_id = context.config().node_id;
    let mut told = false;
    for topic in &mut response.responses {
        let fenced = topic.partitions.iter_mut().filter(|partition| {
            let error = ErrorCode::from_code(partition.error_code);
            matches!(error, ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower)
        });
        for partition in fenced {
            let view = context.view();
            let known = named(&view, true, topic.topic_id, &topic.topic);
            let Ok(log) = known.and_then(|known| view.log(known, partition.partition_index)) else {
                continue;
            };
            let leader_epoch = log.leader_epoch();
            partition.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() };
            told = true;
        }
    }
    if told {
        response.node_endpoints = vec![NodeEndpoint {
            node_id: leader_id,
            host: Utf8Bytes::from(&peer.advertised.host),
            port: i32::from(peer.advertised.port),
            rack: None,
            ..NodeEndpoint::default()
        }];
    }
}
