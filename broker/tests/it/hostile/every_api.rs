//! Requests of every API and version that is served: made up field by field, and bent. They may tell the broker to be
//! another, so that it is a new one now and then.
//!
//! Requests of APIs that are not served, and bytes that are no request: `headers`, `frames`.

use bytes::Bytes;
use klamm_protocol::arbitrary::{Arbitrary, Gen};
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Request};
use klamm_runtime::Rng;

use super::heard::PRIVATE;
use super::mutate::mutate;
use super::target::Target;
use super::{rng, seed, times};

/// So many attacks on one broker.
const ATTACKS: u64 = 100;

/// A request of a version, drawn.
type Make = fn(u64, i16) -> Bytes;

fn make<R: Request + Arbitrary>(seed: u64, version: i16) -> Bytes {
    let request = R::arbitrary(&mut Gen::new(seed, version, version >= R::FLEXIBLE_FROM));
    encode_request(&request, version, seed as i32, Some(PRIVATE)).unwrap()
}

macro_rules! served {
    ($($request:ident)*) => {
        const MAKERS: &[(ApiKey, Make)] = &[$((<$request as Request>::KEY, make::<$request>)),*];
    };
}

served! {
    ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
    FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest
    ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
    DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest AddPartitionsToTxnRequest
    AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest TxnOffsetCommitRequest DescribeAclsRequest
    CreateAclsRequest DeleteAclsRequest DescribeConfigsRequest AlterConfigsRequest DescribeLogDirsRequest
    SaslAuthenticateRequest CreatePartitionsRequest DeleteGroupsRequest ElectLeadersRequest
    IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest ListPartitionReassignmentsRequest
    OffsetDeleteRequest DescribeClientQuotasRequest AlterClientQuotasRequest DescribeUserScramCredentialsRequest
    AlterUserScramCredentialsRequest DescribeQuorumRequest UpdateFeaturesRequest DescribeClusterRequest
    DescribeProducersRequest UnregisterBrokerRequest DescribeTransactionsRequest ListTransactionsRequest
    GetTelemetrySubscriptionsRequest PushTelemetryRequest ListConfigResourcesRequest DescribeTopicPartitionsRequest
}

/// What the broker announces, each with how it is made: so none is forgotten.
async fn announced(target: &Target) -> Vec<(ApiKey, i16, Make)> {
    let told = target.connect().await.ask_in(&ApiVersionsRequest::default(), 0).await;
    let mut all = Vec::new();
    for api in told.api_keys {
        let key = ApiKey::try_from(api.api_key).unwrap();
        let made = MAKERS.iter().find(|(made, _)| *made == key);
        let (_, make) = made.unwrap_or_else(|| panic!("{} is announced and not attacked", key.name()));
        // Produce is announced from 0 and served from 3.
        let first = if key == ApiKey::Produce { 3 } else { api.min_version };
        all.extend((first..=api.max_version).map(|version| (key, version, *make)));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn requests_of_every_api_and_version_do_no_harm() {
    let seed = seed();
    let mut target = Target::start().await;
    let all = announced(&target).await;
    assert!(all.len() > 200, "{}", all.len());
    let mut attacks = 0;
    for round in 0..times(2, 40) {
        for (key, version, make) in &all {
            let rng = rng(seed, key.name(), round << 8 | *version as u64);
            let frame = make(rng.next_u64(), *version);
            let other = make(rng.next_u64(), *version);
            let (bytes, how) = match round % 2 {
                0 => (frame.to_vec(), "as it was drawn".to_owned()),
                _ => {
                    let bent = mutate(&frame, &[other], &rng);
                    (bent.bytes, bent.how)
                }
            };
            let what = format!("{} {version}, round {round} ({how})", key.name());
            target.attack(&[], &bytes, &what).await;
            attacks += 1;
            if attacks % ATTACKS == 0 {
                target.unharmed(&what, false).await;
                target = Target::start().await;
            }
        }
    }
    target.unharmed("the last", false).await;
}
