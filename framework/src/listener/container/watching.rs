//! Topics that a listener names and that do not exist, or that it may not see: looked for now and then, because the
//! consumer waits for them in silence. Those of its dead letters, which it needs when it is too late. Retry topics of
//! delays that are gone. And partitions that nobody answers for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{AdminError, Client, TopicPartition};
use tokio::time::sleep;

use super::letter_topics;
use super::poll::stands_still;
use super::shared::Shared;
use super::troubles::Subject;
use crate::listener::flow::Flow;
use crate::listener::topics::Topics;

/// How long after the start: brokers that create topics on their own need a moment.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often after that.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked whether partitions are read.
const READING_INTERVAL: Duration = Duration::from_secs(10);
/// How long nobody may answer for a partition before that is a trouble: leaders move, and brokers are restarted.
const UNREAD_MAX: Duration = Duration::from_secs(30);

/// Looks until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, client: Client) {
    tokio::join!(look_at_topics(&shared, &client), look_at_reading(&shared));
}

/// Whether what is assigned is read; by another task than whatever a broker that hangs could hold.
async fn look_at_reading(shared: &Shared) {
    // The last look found nothing wrong with them.
    let mut calm = HashSet::new();
    loop {
        sleep(READING_INTERVAL).await;
        let Some(consumer) = shared.consumer() else { continue };
        let failing = |place: TopicPartition| (consumer.failing_for(&place), place);
        let places: Vec<_> = shared.look(Flow::places).into_iter().map(failing).collect();
        for (lasting, place) in &places {
            let subject = Subject::Reading(place.clone());
            match lasting {
                // It is not overwritten with what is known less well.
                Some(lasting) if *lasting >= UNREAD_MAX && !shared.troubles.has(&subject) => {
                    let reason = format!(
                        "it has not been read for {} s: no broker answers for it as it should (is its leader up, and \
                         reachable from here?)",
                        lasting.as_secs()
                    );
                    stands_still(shared, place, &reason);
                }
                None if calm.contains(place) => shared.troubles.over(&subject),
                Some(_) | None => {}
            }
        }
        calm = places.into_iter().filter(|(lasting, _)| lasting.is_none()).map(|(_, place)| place).collect();
    }
}

async fn look_at_topics(shared: &Shared, client: &Client) {
    sleep(FIRST_LOOK).await;
    let mut looked_at = Vec::new();
    loop {
        look_for_left_over(shared, client, &mut looked_at).await;
        look(shared, client).await;
        letter_topics::look(shared, client).await;
        sleep(INTERVAL).await;
    }
}

/// Retry topics of delays that the policy has no more are read until nobody needs them: what waits there would wait for
/// ever. Looked for once for the topics that are listened on, because all topics of the cluster have to be listed. A
/// pattern finds them by itself.
async fn look_for_left_over(shared: &Shared, client: &Client, looked_at: &mut Vec<Arc<str>>) {
    let names = match &*shared.topics() {
        Topics::Names(names) if *names != *looked_at && shared.settings.partitions.is_none() => names.clone(),
        _ => return,
    };
    let Ok(there) = client.admin().list_topics().await else { return };
    let found = shared.scope.retries.left_over(&names, there.iter().map(|topic| &topic.name));
    *looked_at = names;
    if found.is_empty() {
        return;
    }
    tracing::info!(
        listener = %shared.scope.id, topics = ?found,
        "records may wait in retry topics of delays that the failure policy does not have any more: they are read as \
         well, until these topics are deleted"
    );
    shared.add_left_over(found);
    // Under the lock, so that no change of the topics comes between.
    let topics = shared.topics();
    if let (Topics::Names(names), Some(consumer)) = (&*topics, shared.consumer())
        && let Err(error) = consumer.subscribe(shared.subscription(names))
    {
        tracing::warn!(listener = %shared.scope.id, %error, "they cannot be subscribed to");
    }
}

async fn look(shared: &Shared, client: &Client) {
    let names = match &*shared.topics() {
        Topics::Names(names) => names.clone(),
        // A pattern matches what there is.
        Topics::Pattern(_) => return,
    };
    let Ok(described) = client.admin().describe_topics(&names).await else {
        // A broker that does not answer is told of elsewhere.
        return;
    };
    // Under the lock, so that no name is taken out meanwhile.
    let current = shared.topics();
    for name in names.into_iter().filter(|name| current.hold(name)) {
        let subject = Subject::Topic(Arc::clone(&name));
        match described.get(&name) {
            Some(Err(error)) => shared.troubles.tell(&shared.scope.id, subject, &reason(&name, error)),
            Some(Ok(_)) | None => shared.troubles.over(&subject),
        }
    }
}

fn reason(name: &str, error: &AdminError) -> String {
    format!(
        "topic {name}: {error} (create it, set `auto.create.topics.enable` on the brokers, or allow this user to read \
         it)"
    )
}
