//! `Admin`: the handle. Its calls are in the files of their subjects.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Client;
use crate::cluster::Core;

/// As long as Kafka's 32-bit milliseconds reach: adding `Duration::MAX` to a time is a panic.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// Administers the cluster. Cheap to clone.
///
/// Calls about several things go to all brokers concerned at once, and give a result for each thing. What can be cured
/// by waiting (a coordinator that moves, a broker that restarts) is tried again until the deadline, which is the
/// client's `request_timeout` or [`Admin::timeout`]. A call fails as a whole only when no broker said anything.
/// Dropping a call's future leaves requests on their way: what they change may be changed.
///
/// ```no_run
/// # async fn example(client: klamm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use klamm_client::NewTopic;
///
/// let admin = client.admin();
/// for (topic, result) in admin.create_topics(&[NewTopic::new("orders").partitions(4)]).await? {
///     println!("{topic}: {result:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    pub(super) timeout: Option<Duration>,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, timeout: None }
    }

    /// A handle whose calls may take this long each, retries included (`default.api.timeout.ms`). Default the client's
    /// `request_timeout`; 24 days are the longest there is.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout.min(LONGEST));
        self
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        self.client.core()
    }
}
