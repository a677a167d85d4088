//! Files of settings: whatever is in one, the broker starts or says which setting in which file cannot be.

use std::path::Path;
use std::sync::Arc;

use klamm_broker::config::{BrokerConfig, KEYS, Values, parse_properties};
use klamm_broker::{Broker, BrokerError};
use klamm_runtime::{MemoryNet, Rng, SeededRng};

use super::{rng, seed, times};

/// What people write, and what machines write by mistake.
const VALUES: &[&str] = &[
    "",
    " ",
    "-1",
    "0",
    "1",
    "-2147483648",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1e9",
    "0x10",
    "1.5",
    "-0",
    "+1",
    "1_000",
    "1 000",
    "٣",
    "NaN",
    "inf",
    "true",
    "TRUE",
    "yes",
    "null",
    "none",
    ",",
    ",,",
    "a,b",
    "delete,compact",
    "zstd",
    "producer",
    "-5",
    "localhost",
    "localhost:",
    ":9092",
    "PLAINTEXT://",
    "PLAINTEXT://[::1]:0",
    "SSL://a:1",
    "a:b:c:d",
    "127.0.0.1:99999",
    "/",
    "../..",
    "a\0b",
    "\u{202e}",
    "größe",
    "0.5",
    "1.0",
    "-0.1",
    "1e400",
];

fn every_value() -> impl Iterator<Item = (&'static str, String)> {
    let long = || ["x".repeat(100_000), "9".repeat(400), ",".repeat(10_000)];
    KEYS.iter().flat_map(move |key| {
        VALUES.iter().map(|value| (*value).to_owned()).chain(long()).map(|value| (key.name, value))
    })
}

/// Every setting with every value: taken, or refused by its name.
#[test]
fn a_value_is_taken_or_refused_by_the_name_of_its_setting() {
    let (mut taken, mut refused) = (0, 0);
    for (key, value) in every_value() {
        let mut values = Values::new();
        let set = values.set(key, &value).and_then(|()| BrokerConfig::from_values(&values).map(drop));
        match set {
            Ok(()) => taken += 1,
            Err(error) => {
                refused += 1;
                let said = error.to_string();
                assert!(said.contains(key), "{key}={value}: {said}");
                assert!(said.len() < 2_000, "{key}: {} bytes are said", said.len());
            }
        }
    }
    assert!(taken > 300 && refused > 1_000, "{taken} {refused}");
}

async fn start_with(path: &Path) -> Result<Broker, BrokerError> {
    let builder = Broker::builder().ephemeral().net(Arc::new(MemoryNet::new())).config_file(path);
    builder.start().await
}

/// Every setting with the least and the greatest value that it takes: a broker starts, or says why not.
#[tokio::test(start_paused = true)]
async fn a_broker_starts_with_any_value_that_is_taken_or_names_setting_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.properties");
    let seed = seed();
    let is_taken = |(key, value): &(&str, String)| Values::new().set(key, value).is_ok();
    let all = every_value().filter(|(_, value)| value.len() < 1_000);
    let (taken, wrong): (Vec<_>, Vec<_>) = all.partition(is_taken);
    let rng = rng(seed, "settings", 0);
    let (mut started, mut refused) = (0, 0);
    for round in 0..times(150, 6_000) {
        let all = if round % 3 == 0 { &wrong } else { &taken };
        let (key, value) = &all[rng.below(all.len() as u64) as usize];
        std::fs::write(&path, format!("# ours\n{key}={value}\n")).unwrap();
        match start_with(&path).await {
            Ok(broker) => {
                started += 1;
                broker.shutdown().await.unwrap();
            }
            Err(error) => {
                refused += 1;
                names_both(&error, &path, key, value);
            }
        }
    }
    assert!(started > 20 && refused > 20, "{started} {refused}");
}

fn names_both(error: &BrokerError, path: &Path, key: &str, value: &str) {
    let said = error.to_string();
    let of_the_system = matches!(error, BrokerError::Listen { .. } | BrokerError::Storage(_));
    assert!(said.contains(key) || of_the_system, "{key}={value}: {said}");
    assert!(said.contains(path.to_str().unwrap()) || of_the_system, "{key}={value}: {said}");
}

/// Lines of any kind: letters that mean something to the format, at any place.
fn any_text(rng: &SeededRng) -> String {
    let pieces = [
        "\\",
        "\\u",
        "\\u00e",
        "\\uD800",
        "\\u0041",
        "=",
        ":",
        " ",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "#",
        "!",
        "\u{c}",
        "ß",
        "num.partitions",
        "log.dirs",
        "listeners",
        "x",
        "=1",
        "=\\\n1",
        "\0",
        "\u{feff}",
    ];
    (0..rng.below(60)).map(|_| pieces[rng.below(pieces.len() as u64) as usize]).collect()
}

#[tokio::test(start_paused = true)]
async fn any_file_is_read_or_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.properties");
    let seed = seed();
    for round in 0..times(5_000, 200_000) {
        let text = any_text(&rng(seed, "text", round));
        let mut values = Values::new();
        for (key, value) in parse_properties(&text) {
            let _ = values.set(&key, &value);
        }
        let _ = BrokerConfig::from_values(&values);
        // A file is slower than a text.
        if round % 100 == 0 {
            std::fs::write(&path, &text).unwrap();
            if let Err(error) = start_with(&path).await {
                assert!(
                    error.to_string().contains(path.to_str().unwrap()),
                    "round {round}: {error}: {text:?}"
                );
            }
        }
    }
    for bytes in [&[0xff, 0xfe, b'a'][..], &[b'a', 0xc3]] {
        std::fs::write(&path, bytes).unwrap();
        let error = start_with(&path).await.unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    for path in [dir.path().to_owned(), dir.path().join("nothing")] {
        let error = start_with(&path).await.unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
