//! Topics that a listener names and that do not exist, or that it may not see: looked for now and then, because the
//! consumer waits for them in silence. And those of its dead letters, which it needs when it is too late.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{AdminError, Client};
use tokio::time::sleep;

use super::letter_topics;
use super::shared::Shared;
use super::troubles::Subject;
use crate::listener::topics::Topics;

/// How long after the start: brokers that create topics on their own need a moment.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often after that.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, client: Client) {
    sleep(FIRST_LOOK).await;
    loop {
        look(&shared, &client).await;
        letter_topics::look(&shared, &client).await;
        sleep(INTERVAL).await;
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
