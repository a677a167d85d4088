//! What the parts of the program tell the display, and each other: how much has been done.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Gauges {
    lines_fed: AtomicU64,
    bytes_fed: AtomicU64,
    words: AtomicU64,
}

impl Gauges {
    /// A line of so many bytes was fed.
    pub fn fed(&self, bytes: u64) {
        self.lines_fed.fetch_add(1, Ordering::Relaxed);
        self.bytes_fed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// These words go into the count.
    pub fn counting(&self, words: Vec<String>) -> Vec<String> {
        self.words.fetch_add(words.len() as u64, Ordering::Relaxed);
        words
    }

    pub fn lines_fed(&self) -> u64 {
        self.lines_fed.load(Ordering::Relaxed)
    }

    pub fn bytes_fed(&self) -> u64 {
        self.bytes_fed.load(Ordering::Relaxed)
    }

    pub fn words(&self) -> u64 {
        self.words.load(Ordering::Relaxed)
    }
}
