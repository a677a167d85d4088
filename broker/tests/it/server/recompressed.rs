//! `compression.type` of a topic: what was sent in one codec is stored and fetched in another, and says the same.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::sync::Arc;

use klamm_broker::Broker;
use klamm_broker::disk::MemoryDisk;
use klamm_protocol::ErrorCode;
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchOptions, batches};
use klamm_runtime::MemoryNet;

use super::wire::*;

async fn create(wire: &mut Wire, name: &str, settings: &[(&str, &str)]) -> i16 {
    create_topic(wire, name, settings).await.error_code
}

/// The codecs of the batches of a topic.
async fn codecs(wire: &mut Wire, topic: &str) -> Vec<Compression> {
    let records = wire.fetch(topic, 0).await.records.and_then(klamm_protocol::Records::into_bytes).unwrap();
    batches(records).map(|batch| batch.unwrap().header().compression().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_topic_stores_its_own_codec_and_repeated_batches_are_known() {
    let net = Arc::new(MemoryNet::new());
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(MemoryDisk::new())).net(net.clone());
    // Of topics that do not say otherwise.
    let broker = builder.set("compression.type", "gzip").start().await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    for (name, settings, stored) in [
        ("as-sent", vec![("compression.type", "producer")], Compression::Lz4),
        ("plain", vec![("compression.type", "uncompressed")], Compression::None),
        ("zstd", vec![("compression.type", "zstd"), ("compression.zstd.level", "-7")], Compression::Zstd),
        ("snappy", vec![("compression.type", "snappy")], Compression::Snappy),
        ("of-the-broker", vec![("compression.gzip.level", "9")], Compression::Gzip),
    ] {
        assert_eq!(create(&mut wire, name, &settings).await, 0, "{name}");
        let compression = Compression::Lz4;
        let options = BatchOptions {
            compression,
            producer_id: 5,
            producer_epoch: 0,
            base_sequence: 0,
            ..BatchOptions::default()
        };
        for again in 0..2 {
            let told = wire.produce(name, batch_with(options, &["a", "b", "c"])).await;
            assert_eq!((told.error_code, told.base_offset), (0, 0), "{name}, again {again}");
        }
        assert_eq!(codecs(&mut wire, name).await, [stored], "{name}");
        assert_eq!(wire.read_all(name).await, ["a", "b", "c"]);
    }
    for (name, value) in [("compression.type", "brotli"), ("compression.lz4.level", "3")] {
        let refused = create(&mut wire, "refused", &[(name, value)]).await;
        assert_eq!(refused, ErrorCode::InvalidConfig.code(), "{name}={value}");
    }
    broker.shutdown().await.unwrap();
}
