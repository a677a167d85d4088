//! Groups and their offsets are deleted on Klamm's broker.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_broker::Broker;
use klamm_client::runtime::{MemoryNet, Net};
use klamm_client::{AdminError, Client, ErrorCode, NewTopic, TopicPartition};

fn code(result: &Result<(), AdminError>) -> Option<ErrorCode> {
    result.as_ref().unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn groups_and_their_offsets_are_deleted() {
    let net: Arc<dyn Net> = Arc::new(MemoryNet::new());
    let builder = Broker::builder().ephemeral().net(Arc::clone(&net));
    let broker = builder.set("group.initial.rebalance.delay.ms", 0).start().await.unwrap();
    let client = Client::builder().bootstrap(broker.bootstrap()).net(net).build().await.unwrap();
    let admin = client.admin();
    let made = admin.create_topics(&[NewTopic::new("t").partitions(2)]).await.unwrap();
    assert!(made["t"].is_ok(), "{made:?}");
    let at = |partition| TopicPartition::new("t", partition);
    for group in ["a", "b"] {
        let set = HashMap::from([(at(0), 7.into()), (at(1), 3.into())]);
        let altered = admin.alter_group_offsets(group, &set).await.unwrap();
        assert!(altered.values().all(Result::is_ok), "{altered:?}");
    }
    let deleted = admin.delete_group_offsets("a", &[at(1), at(9)]).await.unwrap();
    assert!(deleted[&at(1)].is_ok(), "{deleted:?}");
    assert_eq!(code(&deleted[&at(9)]), Some(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(admin.committed_offsets("a").await.unwrap(), HashMap::from([(at(0), 7)]));

    let consumer = client.consumer().group("a").topics(["t"]).from_beginning().start().await.unwrap();
    let is_stable = async {
        loop {
            let described = admin.describe_groups(&["a"]).await.unwrap();
            if described["a"].as_ref().is_ok_and(|group| &*group.state == "Stable") {
                return;
            }
        }
    };
    is_stable.await;
    let refused = admin.delete_groups(&["a"]).await.unwrap();
    assert_eq!(code(&refused["a"]), Some(ErrorCode::NonEmptyGroup));
    let refused = admin.delete_group_offsets("a", &[at(0)]).await.unwrap();
    assert_eq!(code(&refused[&at(0)]), Some(ErrorCode::GroupSubscribedToTopic));
    consumer.close().await.unwrap();
    let deleted = admin.delete_groups(&["a", "b", "nobody"]).await.unwrap();
    assert!(deleted["a"].is_ok() && deleted["b"].is_ok(), "{deleted:?}");
    assert_eq!(code(&deleted["nobody"]), Some(ErrorCode::GroupIdNotFound));
    assert!(admin.list_groups().await.unwrap().is_empty());
}
