//! What is committed beside an input's offset: how far its time had come. In the bytes of Kafka Streams, so that a Java
//! application that takes over goes on from there, and the other way round.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The version that has entries behind the partition's time; the one before has that time alone.
const WITH_ENTRIES: u8 = 2;
const TIME_ALONE: u8 = 1;

/// Our entry among those by which processors of Kafka Streams remember times: they keep what they do not know.
const STREAM_TIME: &str = "klamm.stream-time";

/// How far an input's time has come, in milliseconds since the Unix epoch; -1 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputTime {
    /// The largest time of the partition's records.
    pub(crate) partition_ms: i64,
    /// Where the task's stream time had gone on to without records.
    pub(crate) idle_ms: i64,
}

impl Default for InputTime {
    fn default() -> Self {
        Self { partition_ms: -1, idle_ms: -1 }
    }
}

impl InputTime {
    /// As it is committed.
    pub(crate) fn encode(self) -> String {
        let mut bytes = vec![WITH_ENTRIES];
        bytes.extend(self.partition_ms.to_be_bytes());
        if self.idle_ms > self.partition_ms {
            let length = u32::try_from(STREAM_TIME.len()).unwrap_or(0);
            bytes.extend(1_u32.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(STREAM_TIME.as_bytes());
            bytes.extend(self.idle_ms.to_be_bytes());
        }
        BASE64.encode(bytes)
    }

    /// What was committed. Words that are not of Kafka Streams, and of versions to come, say nothing.
    pub(crate) fn decode(metadata: &str) -> Self {
        let nothing = Self::default();
        let Ok(bytes) = BASE64.decode(metadata) else { return nothing };
        let mut rest = &bytes[..];
        let version = take::<1>(&mut rest).map(|[version]| version);
        let (Some(TIME_ALONE | WITH_ENTRIES), Some(partition)) = (version, take(&mut rest)) else {
            return nothing;
        };
        let partition_ms = i64::from_be_bytes(partition).max(-1);
        let idle_ms = match version {
            Some(WITH_ENTRIES) => entry(rest, STREAM_TIME).unwrap_or(-1),
            _ => -1,
        };
        Self { partition_ms, idle_ms }
    }
}

/// The time under this name.
fn entry(mut rest: &[u8], name: &str) -> Option<i64> {
    let entries = u32::from_be_bytes(take(&mut rest)?);
    for _ in 0..entries {
        let length = usize::try_from(u32::from_be_bytes(take(&mut rest)?)).ok()?;
        let (found, after) = rest.split_at_checked(length)?;
        rest = after;
        let at_ms = i64::from_be_bytes(take(&mut rest)?);
        if found == name.as_bytes() {
            return Some(at_ms);
        }
    }
    None
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    /// The bytes that Kafka Streams writes for these times.
    #[test]
    fn a_partition_s_time_is_what_kafka_streams_writes() {
        let time = |partition_ms| InputTime { partition_ms, idle_ms: -1 };
        assert_eq!(time(-1).encode(), "Av//////////");
        assert_eq!(time(5).encode(), "AgAAAAAAAAAF");
        assert_eq!(time(1_700_000_000_000).encode(), "AgAAAYvP5WgA");
        assert_eq!(InputTime::decode("AQAAAAAAAAAF"), time(5), "of an earlier version");
        // With the time up to which a processor of Java has emitted.
        let mut of_java = vec![2];
        of_java.extend(5_i64.to_be_bytes());
        of_java.extend([0, 0, 0, 1, 0, 0, 0, 6]);
        of_java.extend(*b"counts");
        of_java.extend(4_i64.to_be_bytes());
        assert_eq!(InputTime::decode(&BASE64.encode(of_java)), time(5));
    }

    #[test]
    fn what_is_committed_is_read_back() {
        for partition_ms in [-1, 0, 7, i64::MAX] {
            for idle_ms in [-1, 0, 8, i64::MAX] {
                let time = InputTime { partition_ms, idle_ms };
                let idle_ms = if idle_ms > partition_ms { idle_ms } else { -1 };
                assert_eq!(InputTime::decode(&time.encode()), InputTime { partition_ms, idle_ms });
            }
        }
    }

    /// Anybody may commit anything.
    #[test]
    fn foreign_words_say_nothing_and_do_no_harm() {
        let nothing = InputTime::default();
        for words in ["", "!", "AA==", "Ag==", "AwAAAAAAAAAF", "committed by hand", "AgAAAAAAAAA"] {
            assert_eq!(InputTime::decode(words), nothing, "{words}");
        }
        let rng = SeededRng::new(7);
        let good = BASE64.decode(InputTime { partition_ms: 3, idle_ms: 9 }.encode()).unwrap();
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            bytes.truncate(usize::try_from(rng.next_u64() % (good.len() as u64 + 1)).unwrap());
            for _ in 0..rng.next_u64() % 4 {
                let at = usize::try_from(rng.next_u64() % (bytes.len().max(1) as u64)).unwrap();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(rng.next_u64() & 0xFF).unwrap();
                }
            }
            InputTime::decode(&BASE64.encode(&bytes));
        }
        let mut endless = vec![2];
        endless.extend(5_i64.to_be_bytes());
        endless.extend([0xFF; 4]);
        endless.extend([0xFF; 4]);
        assert_eq!(InputTime::decode(&BASE64.encode(endless)).partition_ms, 5);
    }
}
