//! Copiers on clients that we did not write: two in a group consume, process and produce in transactions, while they
//! and the broker are killed and held still. Who reads committed records finds each copy once, and the group is where
//! the input ends.
//!
//! ```text
//! copier.rs   whose client, how it is started, what it says
//! side.rs     the broker, ours or Apache Kafka's
//! round.rs    one round: what happens when, from a seed
//! exact.rs    whether the copies are exact   (pure)
//! ```

mod copier;
mod exact;
mod round;
mod side;

use klamm_runtime::{Rng, SeededRng};
use klamm_tests::seed;

use self::copier::Make;
use self::round::round;
use self::side::Side;
use super::installed::java_jars;

const SEED: u64 = 20_261_124;

/// The same rounds in `make soak` have more in them; `make test` has a slice of them.
fn in_soak() -> bool {
    std::env::var_os("KLAMM_SEED").is_some()
}

/// Two copiers of one make on our broker, and a seed of their own.
async fn exact(make: Make) {
    let rng = SeededRng::new(seed(SEED).wrapping_mul(100).wrapping_add(make as u64));
    round([make, make], Side::klamm, &rng).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_kafka_clients_before_4_0() {
    exact(Make::OldJava).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_kafka_clients() {
    exact(Make::Java).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_librdkafka() {
    exact(Make::Librdkafka).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_franz_go() {
    exact(Make::FranzGo).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_aiokafka() {
    exact(Make::Aiokafka).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_kafkajs() {
    exact(Make::KafkaJs).await;
}

/// Of different makes, in one group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_two_of_different_makes() {
    let rng = SeededRng::new(seed(SEED));
    let one = rng.below(4) as usize;
    let other = (one + 1 + rng.below(3) as usize) % 4;
    round([Make::THAT_MIX[one], Make::THAT_MIX[other]], Side::klamm, &rng).await;
}

/// What a client does not get right there either is its own fault. Only in `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_on_apache_kafka() {
    let Some(jars) = java_jars("copiers on Apache Kafka").filter(|_| in_soak()) else { return };
    let wanted = std::env::var("KLAMM_COPIERS").ok();
    for make in Make::ALL {
        if wanted.as_ref().is_none_or(|wanted| *wanted == format!("{make:?}")) {
            let rng = SeededRng::new(seed(SEED).wrapping_mul(100).wrapping_add(make as u64));
            round([make, make], async || Side::kafka(jars.clone()).await, &rng).await;
        }
    }
}
