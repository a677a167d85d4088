//! Storms on the memory for requests: many peers at once that are slow, lie, do not read, wait for weeks or go away.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::time::Duration;

use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::{MetadataRequest, ProduceRequest};
use klamm_runtime::{Net, Rng, SeededRng, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::groups::{commit, join};
use super::wire::*;

/// What a large request may have to wait for those who hold the memory and do nothing with it.
const SOON: Duration = Duration::from_secs(60);

/// The frame made `len` bytes long by zeros behind the request.
fn padded(frame: &[u8], len: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(len, 0);
    frame[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    frame
}

/// With answers of 60 KiB, and memory for two connections that have all they may have unsent.
async fn broker() -> InMemory {
    let memory = InMemory::with(|builder| {
        builder
            .set("num.partitions", 2_000)
            .set("socket.request.max.bytes", 2 << 20)
            .set("queued.max.request.bytes", 8 << 20)
    });
    let memory = memory.await;
    memory.connect().await.metadata(&["t"]).await;
    memory
}

async fn large_produce(memory: &InMemory) -> Duration {
    let frame = encode_request(&produce_request("t", batch(&["x"]), -1), 9, 1, Some("wire")).unwrap();
    let (mut wire, asked) = (memory.connect().await, Instant::now());
    wire.send_raw(&padded(&frame, 1 << 20)).await;
    let (_, answer) = wire.receive_in::<ProduceRequest>(9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    asked.elapsed()
}

/// Each of its answers is small, and all of them together are four megabytes.
#[tokio::test(start_paused = true)]
async fn peers_that_do_not_read_many_small_answers_make_room_for_others() {
    let memory = broker().await;
    let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let mut deaf = Vec::new();
    for _ in 0..3 {
        let mut wire = memory.connect().await;
        for _ in 0..90 {
            wire.send_in(&everything, 12).await;
        }
        deaf.push(wire);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(memory.broker.request_bytes_taken() > 7 << 20, "{}", memory.broker.request_bytes_taken());
    let waited = timeout(SOON, large_produce(&memory)).await.expect("room");
    assert!(waited < SOON, "{waited:?}");
    drop(deaf);
}

/// Their peers read, and wait for weeks with the first of their requests; the answers to all the others are there.
#[tokio::test(start_paused = true)]
async fn answers_behind_a_patient_fetch_make_room_for_others() {
    let memory = broker().await;
    let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let mut patient = Vec::new();
    for _ in 0..3 {
        let mut wire = memory.connect().await;
        wire.send_in(&fetch_request("t", 0, i32::MAX), 12).await;
        for _ in 0..60 {
            wire.send_in(&everything, 12).await;
        }
        patient.push(wire);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(memory.broker.request_bytes_taken() > 7 << 20, "{}", memory.broker.request_bytes_taken());
    let waited = timeout(SOON, large_produce(&memory)).await.expect("room");
    assert!(waited < SOON, "{waited:?}");
    drop(patient);
}

/// What peers ask for.
fn frames() -> Vec<Vec<u8>> {
    let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
    vec![
        encode_request(&everything, 12, 1, None).unwrap().to_vec(),
        encode_request(&fetch_request("t", 0, 30_000), 12, 1, None).unwrap().to_vec(),
        encode_request(&produce_request("t", batch(&["x"]), -1), 9, 1, None).unwrap().to_vec(),
        encode_request(&produce_request("t", batch(&["x"]), 0), 9, 1, None).unwrap().to_vec(),
        encode_request(&commit("g", "t", 1), 8, 1, None).unwrap().to_vec(),
        encode_request(&join("g", ""), 3, 1, None).unwrap().to_vec(),
    ]
}

/// A peer that does what peers should not do, until it goes or is let go.
async fn misbehave(mut stream: Box<dyn Stream>, rng: SeededRng) -> std::io::Result<()> {
    let frames = frames();
    for _ in 0..1 + rng.below(12) {
        let mut frame = frames[rng.below(6) as usize].clone();
        if rng.below(2) == 0 {
            frame = padded(&frame, frame.len() + rng.below(600_000) as usize);
        }
        match rng.below(8) {
            // Half of what was promised, and then nothing.
            0 => {
                stream.write_all(&frame[..frame.len() / 2]).await?;
                tokio::time::sleep(Duration::from_millis(rng.below(5_000))).await;
                return Ok(());
            }
            // Nonsense.
            1 => {
                let at = 4 + rng.below(frame.len() as u64 - 4) as usize;
                frame[at] ^= 0xff;
                stream.write_all(&frame).await?;
            }
            // Drop by drop.
            2 => {
                for part in frame.chunks(frame.len() / 5 + 1) {
                    stream.write_all(part).await?;
                    tokio::time::sleep(Duration::from_millis(rng.below(700))).await;
                }
            }
            // It reads something.
            3 => {
                stream.write_all(&frame).await?;
                let mut some = vec![0; 1 + rng.below(200_000) as usize];
                let _ = timeout(Duration::from_secs(1), stream.read(&mut some)).await;
            }
            _ => stream.write_all(&frame).await?,
        }
    }
    tokio::time::sleep(Duration::from_millis(rng.below(30_000))).await;
    Ok(())
}

/// Whatever peers do, what they took of the memory is given back; and an honest one is served meanwhile.
#[tokio::test(start_paused = true)]
async fn after_any_storm_all_memory_for_requests_is_given_back() {
    for seed in 0..40 {
        let memory = InMemory::with(|builder| {
            builder
                .set("num.partitions", 400)
                .set("socket.request.max.bytes", 1 << 20)
                // Also less than one request.
                .set("queued.max.request.bytes", [1 << 10, 1 << 19, 2 << 20][seed as usize % 3])
                .set("request.read.timeout.ms", 5_000)
        })
        .await;
        memory.connect().await.metadata(&["t"]).await;
        let rng = SeededRng::new(seed);
        let mut peers = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let stream = memory.net.connect(memory.broker.bootstrap()).await.unwrap();
            let peer = misbehave(stream, SeededRng::new(rng.next_u64()));
            peers.spawn(timeout(Duration::from_millis(rng.below(60_000)), peer));
        }
        let small = encode_request(&produce_request("t", batch(&["x"]), -1), 9, 1, None).unwrap();
        let honest = async {
            for _ in 0..20 {
                let (mut wire, asked) = (memory.connect().await, Instant::now());
                wire.send_raw(&small).await;
                wire.receive_in::<ProduceRequest>(9).await;
                assert!(asked.elapsed() < SOON, "seed {seed}: {:?}", asked.elapsed());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        honest.await;
        let shut = rng.below(3) == 0;
        if shut {
            timeout(Duration::from_secs(10), memory.broker.shutdown()).await.expect("a stop").unwrap();
        }
        while peers.join_next().await.is_some() {}
        // What a peer that went had asked for is answered for five seconds, or until its fetch has waited.
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(memory.broker.request_bytes_taken(), 0, "seed {seed}, shut {shut}");
    }
}

/// A stop while peers wait for memory that nobody gives back.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_those_who_wait_for_memory() {
    let memory = broker().await;
    let mut peers = Vec::new();
    for _ in 0..40 {
        let mut wire = memory.connect().await;
        // Each promises a megabyte and brings nothing.
        wire.send_raw(&(1_u32 << 20).to_be_bytes()).await;
        peers.push(wire);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    memory.broker.shutdown().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(memory.broker.request_bytes_taken(), 0);
}
