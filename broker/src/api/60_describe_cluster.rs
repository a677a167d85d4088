//! DescribeCluster, key 60: versions 0 to 2. One broker, which is its own controller.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_cluster::DescribeClusterBroker;
use klamm_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;
/// What may be asked for, by Kafka's numbers. Controllers have no address of their own here.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeClusterRequest = call.decode()?;
    let mut response = DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        ..DescribeClusterResponse::default()
    };
    if request.endpoint_type == BROKERS {
        let advertised = &call.peer.advertised;
        response.cluster_id = context.cluster_id().into();
        response.controller_id = context.config().node_id;
        response.brokers = vec![DescribeClusterBroker {
            broker_id: context.config().node_id,
            host: advertised.host.as_str().into(),
            port: i32::from(advertised.port),
            ..DescribeClusterBroker::default()
        }];
    } else {
        let error = match request.endpoint_type {
            CONTROLLERS => ErrorCode::MismatchedEndpointType,
            _ => ErrorCode::UnsupportedEndpointType,
        };
        response.error_code = error.code();
        response.error_message = Some("ask for brokers: the controller has no address of its own".into());
    }
    call.answer(&response)
}
