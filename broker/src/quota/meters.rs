//! What clients have used of their quotas.
//!
//! Each has a store that fills by its quota up to what ten seconds bring, as Kafka looks at about so many. Whoever
//! takes more than is there has to wait until what is missing has come; then it is at its quota over any longer time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::settings::{ClientQuotas, Rate};

/// So many seconds' worth can be used at once.
const BURST_SECONDS: f64 = 10.0;
/// So many clients are told apart: anybody can invent client ids. Beyond, those that have used nothing lately are
/// forgotten, and if there are none the newcomers share one store.
const METERS_MAX: usize = 10_000;
/// Client ids that are longer share that one, too: a request may have one of 32 kB.
const CLIENT_ID_LEN_MAX: usize = 255;

/// A store.
#[derive(Debug, Clone, Copy)]
struct Meter {
    left: f64,
    limit: f64,
    at: Instant,
}

/// The stores of all clients.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    by_client: BTreeMap<(Rate, Option<String>), Meter>,
}

impl Meter {
    fn full(limit: f64, at: Instant) -> Self {
        Self { left: limit * BURST_SECONDS, limit, at }
    }

    /// What is there now, under the limit as it is now.
    fn fill(&mut self, limit: f64, now: Instant) {
        let came = limit * now.saturating_duration_since(self.at).as_secs_f64();
        *self = Self { left: (self.left + came).min(limit * BURST_SECONDS), limit, at: now };
    }

    fn is_full(mut self, now: Instant) -> bool {
        self.fill(self.limit, now);
        self.left >= self.limit * BURST_SECONDS
    }

    fn take(&mut self, bytes: usize) -> Duration {
        self.left -= bytes as f64;
        let missing_seconds = (-self.left / self.limit).max(0.0);
        Duration::try_from_secs_f64(missing_seconds).unwrap_or(Duration::MAX)
    }
}

/// How many bytes a client may use at once; nothing when it has no quota.
pub(crate) fn burst_bytes(quotas: &ClientQuotas, client_id: &str, rate: Rate) -> Option<f64> {
    quotas.limit(client_id, rate).map(|(limit, _)| limit * BURST_SECONDS)
}

impl Meters {
    /// A client has used so many bytes: how long it has to wait before it uses more.
    pub(crate) fn take(
        &mut self,
        quotas: &ClientQuotas,
        client_id: &str,
        rate: Rate,
        bytes: usize,
        now: Instant,
    ) -> Duration {
        let Some((limit, own)) = quotas.limit(client_id, rate) else { return Duration::ZERO };
        let own = own && client_id.len() <= CLIENT_ID_LEN_MAX;
        let mut key = (rate, own.then(|| client_id.to_owned()));
        if self.by_client.len() >= METERS_MAX && !self.by_client.contains_key(&key) {
            self.by_client.retain(|_, meter| !meter.is_full(now));
            if self.by_client.len() >= METERS_MAX {
                key.1 = None;
            }
        }
        let meter = self.by_client.entry(key).or_insert_with(|| Meter::full(limit, now));
        meter.fill(limit, now);
        meter.take(bytes)
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::super::{CLIENT_ID, Entity, USER};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quotas(kind: &str, name: Option<&str>, limit: f64) -> ClientQuotas {
        let mut quotas = ClientQuotas::default();
        let entity = Entity::from([(kind.to_owned(), name.map(str::to_owned))]);
        quotas.set(&entity, "producer_byte_rate", Some(limit));
        quotas
    }

    #[test]
    fn ten_seconds_worth_is_there_and_what_is_missing_has_to_come() {
        let (mut meters, quotas, now) =
            (Meters::default(), quotas(CLIENT_ID, Some("me"), 100.0), Instant::now());
        let mut take =
            |quotas: &ClientQuotas, bytes, now| meters.take(quotas, "me", Rate::Produced, bytes, now);
        assert_eq!(take(&quotas, 1_000, now), Duration::ZERO);
        assert_eq!(take(&quotas, 100, now), SECOND);
        assert_eq!(take(&quotas, 100, now + SECOND), SECOND);
        assert_eq!(take(&quotas, 0, now + 2 * SECOND), Duration::ZERO);
        assert_eq!(
            take(&quotas, 1_001, now + 1_000 * SECOND),
            SECOND / 100,
            "no more than ten seconds' worth"
        );
        // Another limit from now on.
        let less = self::quotas(CLIENT_ID, Some("me"), 10.0);
        assert_eq!(take(&less, 0, now + 2_000 * SECOND), Duration::ZERO);
        assert_eq!(take(&less, 110, now + 2_000 * SECOND), SECOND);
        assert_eq!(take(&ClientQuotas::default(), 1 << 40, now), Duration::ZERO);
    }

    #[test]
    fn a_default_is_for_each_and_a_users_quota_for_all_together() {
        let (mut meters, now) = (Meters::default(), Instant::now());
        let each = quotas(CLIENT_ID, None, 100.0);
        for client in ["a", "b"] {
            assert_eq!(meters.take(&each, client, Rate::Produced, 1_100, now), SECOND, "{client}");
            assert_eq!(meters.take(&each, client, Rate::Fetched, 1_100, now), Duration::ZERO, "{client}");
        }
        let all = quotas(USER, None, 100.0);
        assert_eq!(meters.take(&all, "a", Rate::Produced, 1_000, now), Duration::ZERO);
        assert_eq!(meters.take(&all, "b", Rate::Produced, 100, now), SECOND);
    }

    #[test]
    fn invented_client_ids_take_no_more_than_there_is_room_for() {
        let (mut meters, now, each) = (Meters::default(), Instant::now(), quotas(CLIENT_ID, None, 100.0));
        for number in 0..METERS_MAX {
            meters.take(&each, &number.to_string(), Rate::Produced, 1, now);
        }
        assert_eq!(meters.take(&each, "x", Rate::Produced, 1_000, now), Duration::ZERO);
        assert_eq!(meters.take(&each, "y", Rate::Produced, 100, now), SECOND, "with the one before");
        assert_eq!(meters.by_client.len(), METERS_MAX + 1);
        assert_eq!(meters.take(&each, "5", Rate::Produced, 1_000, now), SECOND / 100);
        assert_eq!(meters.take(&each, "z", Rate::Produced, 1_000, now + SECOND), Duration::ZERO);
        assert_eq!(meters.by_client.len(), 3, "y's, 5's and z's: the others are full again");
    }

    /// Ten thousand of the longest ids took a third of a gigabyte.
    #[test]
    fn client_ids_that_are_too_long_share_one_store_and_are_not_kept() {
        let (mut meters, now, each) = (Meters::default(), Instant::now(), quotas(CLIENT_ID, None, 100.0));
        let mut take = |len: usize, first: &str| {
            let id = format!("{first}{}", "x".repeat(len - 1));
            meters.take(&each, &id, Rate::Produced, 1_000, now)
        };
        assert_eq!(
            (take(CLIENT_ID_LEN_MAX, "a"), take(CLIENT_ID_LEN_MAX, "b")),
            (Duration::ZERO, Duration::ZERO)
        );
        assert_eq!(take(CLIENT_ID_LEN_MAX + 1, "a"), Duration::ZERO);
        assert_eq!(take(CLIENT_ID_LEN_MAX + 1, "b"), 10 * SECOND);
        assert_eq!(meters.by_client.len(), 3);
    }

    #[test]
    fn at_once_there_is_what_ten_seconds_bring() {
        let each = quotas(CLIENT_ID, None, 100.0);
        assert_eq!(burst_bytes(&each, "me", Rate::Produced), Some(1_000.0));
        assert_eq!(burst_bytes(&each, "me", Rate::Fetched), None);
    }

    /// A client that waits as long as it is told never has more than its quota and ten seconds' worth.
    #[test]
    fn over_any_time_no_more_is_used_than_the_quota() {
        for seed in 0..200 {
            let rng = SeededRng::new(seed);
            let limit = 1.0 + rng.below(10_000) as f64;
            let quotas = quotas(CLIENT_ID, None, limit);
            let (mut meters, start) = (Meters::default(), Instant::now());
            let (mut now, mut used) = (start, 0);
            for _ in 0..200 {
                let bytes = rng.below(20_000) as usize;
                let wait = meters.take(&quotas, "me", Rate::Produced, bytes, now);
                used += bytes;
                now += wait + Duration::from_millis(rng.below(500));
                let may_be = limit * (BURST_SECONDS + (now - start).as_secs_f64());
                assert!(used as f64 <= may_be + 1.0, "seed {seed}: {used} of {may_be}");
            }
        }
    }
}
