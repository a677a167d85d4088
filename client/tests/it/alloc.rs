//! How often producer and consumer allocate, and how much memory a client takes at most: counted on the test's own
//! thread, on which client and fake broker run.

#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use klamm_client::{Compression, Record};

use crate::scripted::{self, TOPIC};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has allocated, less those that it has freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most that those were since a [`Peak`] was begun.
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // After the thread-locals are gone nobody measures any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
    change(bytes.cast_signed());
}

fn change(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(live.get())));
    });
}

/// How much more memory this thread comes to hold.
pub(crate) struct Peak {
    before: isize,
}

impl Peak {
    pub(crate) fn begin() -> Self {
        let before = LIVE.get();
        MOST.set(before);
        Self { before }
    }

    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(MOST.get() - self.before).unwrap_or(0)
    }
}

#[test]
fn the_peak_is_seen() {
    let peak = Peak::begin();
    drop(Vec::<u8>::with_capacity(1_000_000));
    let kept = Vec::<u8>::with_capacity(1_000);
    assert!((1_000_000..1_010_000).contains(&peak.bytes()), "{}", peak.bytes());
    let peak = Peak::begin();
    assert_eq!(peak.bytes(), 0);
    drop(kept);
}

// SAFETY: everything is passed on to the system allocator unchanged; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        change(-layout.size().cast_signed());
        // SAFETY: `block` came from `alloc` above, hence from the system allocator, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new block may be there at the same time.
        count(new_size);
        change(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

/// At most one allocation for ten records, that of the broker in the test included, whichever way they are taken.
#[tokio::test(start_paused = true)]
async fn reading_allocates_once_for_many_records() {
    const RECORDS: usize = 20_000;
    for compression in [Compression::None, Compression::Lz4] {
        let broker = scripted::start(1).await;
        let client = broker.client().await.unwrap();
        let producer = client.producer().compression(compression).build().unwrap();
        let value = Bytes::from(vec![7; 100]);
        for _ in 0..RECORDS {
            drop(producer.enqueue(Record::to(TOPIC).value(value.clone())).await.unwrap());
        }
        producer.close().await.unwrap();
        for batches in [true, false] {
            let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
            let before = ALLOCATIONS.get();
            let mut read = 0;
            while read < RECORDS {
                read += match batches {
                    true => consumer.next_batch().await.unwrap().unwrap().records.len(),
                    false => consumer.next().await.unwrap().map(|_| 1).unwrap(),
                };
            }
            let allocations = ALLOCATIONS.get() - before;
            assert!(allocations * 10 <= RECORDS, "{compression}, batches {batches}: {allocations}");
        }
    }
}

/// A record's value is copied into its batch, and that is all: neither its delivery nor its callback needs an
/// allocation of its own, that of the broker in the test included.
#[tokio::test(start_paused = true)]
async fn sending_allocates_once_for_many_records() {
    const RECORDS: usize = 20_000;
    for compression in [Compression::None, Compression::Lz4] {
        for callbacks in [true, false] {
            let broker = scripted::start(1).await;
            let client = broker.client().await.unwrap();
            let producer = client.producer().compression(compression).build().unwrap();
            let (value, topic) = (Bytes::from(vec![7; 100]), std::sync::Arc::<str>::from(TOPIC));
            producer.send(Record::to(topic.clone()).value("first")).await.unwrap();
            let before = ALLOCATIONS.get();
            for _ in 0..RECORDS {
                let record = Record::to(topic.clone()).value(value.clone());
                match callbacks {
                    true => producer.send_with(record, |result| assert!(result.is_ok())).await.unwrap(),
                    false => drop(producer.enqueue(record).await.unwrap()),
                }
            }
            producer.flush().await.unwrap();
            let allocations = ALLOCATIONS.get() - before;
            assert!(allocations * 10 <= RECORDS, "{compression}, callbacks {callbacks}: {allocations}");
        }
    }
}
