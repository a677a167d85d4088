//! The listener: keeps the table of the most frequent words from what the pipeline writes.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use klamm::prelude::*;

pub const GROUP: &str = "quickstart-table";
const ROWS: usize = 10;

/// The words with their counts, as far as they came by.
#[derive(Debug, Clone, Default)]
pub struct Table(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    counts: HashMap<String, i64>,
    /// The most frequent words by falling count, then by name.
    top: BTreeSet<(std::cmp::Reverse<i64>, String)>,
}

// The topic is the pipeline's output. The offsets are committed within a second; nothing waits for them.
#[kafka_listener(topics = "word-counts", group = "quickstart-table", ack = manual)]
async fn keep_table(
    Key(word): Key<String>,
    Value(count): Value<i64>,
    State(table): State<Table>,
    ack: Ack,
) -> Result<(), Infallible> {
    table.set(word, count);
    ack.mark();
    Ok(())
}

impl Table {
    /// Counts only rise, so a count that comes late or again changes nothing.
    pub fn set(&self, word: String, count: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(word, count);
    }

    /// The most frequent words.
    pub fn top(&self) -> Vec<(String, i64)> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.top.iter().map(|(count, word)| (word.clone(), count.0)).collect()
    }
}

impl Rows {
    fn set(&mut self, word: String, count: i64) {
        let known = self.counts.entry(word.clone()).or_default();
        if count <= *known {
            return;
        }
        let before = std::mem::replace(known, count);
        self.top.remove(&(std::cmp::Reverse(before), word.clone()));
        self.top.insert((std::cmp::Reverse(count), word));
        if self.top.len() > ROWS {
            self.top.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_the_most_frequent_words() {
        let table = Table::default();
        for number in 1..=20 {
            table.set(format!("w{number:02}"), number);
        }
        table.set("w03".to_owned(), 100);
        table.set("w20".to_owned(), 5);
        let top = table.top();
        assert_eq!(top.len(), ROWS);
        assert_eq!(top[0], ("w03".to_owned(), 100));
        assert_eq!(top[1], ("w20".to_owned(), 20));
        assert_eq!(top[9], ("w12".to_owned(), 12));
    }
}
