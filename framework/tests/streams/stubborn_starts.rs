//! Starts and restores through whatever a cluster answers for a while.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up, topology};

const APIS: [ApiKey; 15] = [
    ApiKey::ApiVersions,
    ApiKey::Metadata,
    ApiKey::CreateTopics,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::Heartbeat,
    ApiKey::OffsetFetch,
    ApiKey::ListOffsets,
    ApiKey::DescribeConfigs,
    ApiKey::Fetch,
    ApiKey::InitProducerId,
    ApiKey::AddOffsetsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];

/// A stateful application with nothing on disk starts, and these happen to its requests.
async fn starts(kit: &TestKit, answers: &[Answer]) {
    let mut pipeline = Pipeline::new(kit).await;
    let app = topology().start(pipeline.config(1).exactly_once()).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let mut wrong = Vec::new();
    for api in APIS {
        for answer in answers {
            let disk = pipeline.directory.path().join("2");
            std::fs::remove_dir_all(&disk).ok();
            let case = format!("{api:?} {answer:?}");
            // What no broker answers to these.
            let elsewhere = [ApiKey::DescribeConfigs, ApiKey::Metadata, ApiKey::ApiVersions];
            if elsewhere.contains(&api) && matches!(answer, Answer::Error(_)) {
                continue;
            }
            kit.faults().next(api, 3, answer.clone());
            match topology().start(pipeline.config(2).exactly_once()).await {
                Ok(app) => {
                    pipeline.feed(10).await;
                    let outcome = tokio::time::timeout(Duration::from_secs(45), app.caught_up()).await;
                    match outcome {
                        Err(_) => wrong.push(format!("{case}: stuck, {app:?}")),
                        Ok(Err(error)) => wrong.push(format!("{case}: {error}")),
                        Ok(Ok(())) => pipeline.is_exact(&[&app]).await,
                    }
                    kit.faults().behave().disconnect();
                    app.close().await.ok();
                }
                Err(error) => wrong.push(format!("{case}: not started: {error}")),
            }
            kit.faults().behave();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[klamm::test]
async fn it_starts_though_connections_end(kit: TestKit) {
    starts(&kit, &[Answer::DisconnectBefore, Answer::DisconnectAfter]).await;
}

#[klamm::test]
async fn it_starts_though_the_broker_is_elsewhere(kit: TestKit) {
    let codes = [ErrorCode::CoordinatorLoadInProgress, ErrorCode::RequestTimedOut];
    starts(&kit, &codes.map(Answer::Error)).await;
}

/// Answers for the partitions of a fetch that a consumer waits out.
#[klamm::test]
async fn it_reads_on_whatever_a_fetch_of_a_partition_answers_for_a_while(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once()).await.unwrap();
    for code in [
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::UnknownTopicId,
        ErrorCode::InconsistentTopicId,
        ErrorCode::FencedLeaderEpoch,
        ErrorCode::UnknownLeaderEpoch,
        ErrorCode::OffsetNotAvailable,
        ErrorCode::KafkaStorageError,
        ErrorCode::ReplicaNotAvailable,
        ErrorCode::ThrottlingQuotaExceeded,
    ] {
        kit.faults().next(ApiKey::Fetch, 3, Answer::Error(code));
        pipeline.feed(50).await;
        caught_up(&app).await;
    }
    pipeline.is_exact(&[&app]).await;
    // And the same in a restore.
    app.close().await.unwrap();
    for code in [ErrorCode::NotLeaderOrFollower, ErrorCode::KafkaStorageError, ErrorCode::OffsetNotAvailable]
    {
        std::fs::remove_dir_all(pipeline.directory.path().join("2")).ok();
        kit.faults().next(ApiKey::Fetch, 5, Answer::Error(code));
        kit.faults().next(ApiKey::ListOffsets, 3, Answer::Error(code));
        let app = topology().start(pipeline.config(2).exactly_once()).await.unwrap();
        pipeline.feed(20).await;
        caught_up(&app).await;
        pipeline.is_exact(&[&app]).await;
        app.close().await.unwrap();
    }
}
