//! A metadata log that was damaged after a clean shutdown: the broker says so, and does not start without the topics.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Disk, MemoryDisk};
use klamm_runtime::MemoryNet;

use super::wire::*;

const LOG: &str = "/data/__cluster_metadata-0/00000000000000000000.log";

/// A broker's directories are locked until its tasks have ended, a moment after it was dropped. On a paused clock time
/// passes only when every task waits.
async fn until_its_tasks_ended() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The last batch was cut off, and the topic in it with all its records was in no metadata any more.
#[tokio::test(start_paused = true)]
async fn a_flipped_bit_in_the_metadata_log_loses_no_topic() {
    for clean in [true, false] {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let start = || {
            let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
            builder.start()
        };
        let broker = start().await.unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        for topic in ["first", "second"] {
            assert_eq!(wire.metadata(&[topic]).await.topics[0].error_code, 0);
            wire.produce(topic, batch(&["kept"])).await;
        }
        if clean {
            broker.shutdown().await.unwrap();
        }
        drop((wire, broker));
        until_its_tasks_ended().await;

        let file = disk.open(Path::new(LOG)).unwrap();
        let flip = |position: u64| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, position).unwrap();
            file.write_all_at(&[byte[0] ^ 1], position).unwrap();
        };
        let position = file.size().unwrap() - 3;
        flip(position);
        let refused = start().await.unwrap_err().to_string();
        assert!(refused.contains("__cluster_metadata-0") && refused.contains("had been synced"), "{refused}");

        flip(position);
        until_its_tasks_ended().await;
        let broker = start().await.unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        for topic in ["first", "second"] {
            assert_eq!(wire.read_all(topic).await, ["kept"], "{topic}");
        }
    }
}
