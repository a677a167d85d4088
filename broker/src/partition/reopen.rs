//! Opens by itself what could not be opened at the start, for a reason that passes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::sleep;

use super::handle::Partition;
use crate::disk::Executor;

/// How long after one that failed logs are opened again, the first time; twice as long each further time, up to
/// [`LAST_TRY`].
const FIRST_TRY: Duration = Duration::from_millis(100);
const LAST_TRY: Duration = Duration::from_secs(30);
/// How many logs of a directory are opened at the same time: the others of its threads are for those that are open.
const AT_ONCE: usize = 4;

/// Tries again and again until each of these partitions, which share the threads of their directory, is open or never
/// will be.
pub(super) async fn open_again(mut unopened: Vec<Arc<Partition>>, executor: Executor) {
    let mut pause = FIRST_TRY;
    while !unopened.is_empty() {
        sleep(pause).await;
        pause = (2 * pause).min(LAST_TRY);
        let tries = unopened.into_iter().map(|partition| {
            let (executor, tried) = (executor.clone(), partition.clone());
            async move {
                executor.run(move || tried.open_again()).await.is_ok_and(|again| again).then_some(partition)
            }
        });
        let tried: Vec<_> = stream::iter(tries).buffer_unordered(AT_ONCE).collect().await;
        unopened = tried.into_iter().flatten().collect();
    }
}
