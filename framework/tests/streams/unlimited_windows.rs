//! Windows without an end.

use std::time::Duration;

use klamm::serde::StringSerde;
use klamm::streams::{StreamsBuilder, TopologyTestDriver, UnlimitedWindows, Windowed, WindowedSerde};

/// However far time goes, and however far back a record lies behind it: only what is older than the start is left out.
#[test]
fn a_window_without_an_end_has_all_from_its_start_on() {
    for cache_bytes in [0, 1 << 20] {
        let mut streams = StreamsBuilder::new();
        let since = streams
            .stream::<String, String>("in")
            .group_by_key()
            .windowed_by(UnlimitedWindows::starting_at(100));
        since.count("counts").to_stream().to("out");
        since.late().to("older");
        let mut driver = TopologyTestDriver::cached(streams.build().unwrap(), cache_bytes);
        let year_ms = 365 * 24 * 3_600_000;
        for at in [99, 100, year_ms, 0, 50 * year_ms, 101] {
            driver.input::<String, String>("in").pipe("k", "v").at(at);
        }
        driver.commit();
        let serde = WindowedSerde::of(StringSerde, Duration::MAX);
        let out = driver.output_with::<Windowed<String>, i64>("out", serde, klamm::serde::NumberSerde);
        let last = out.read_all().pop().unwrap();
        assert_eq!((last.key.window.start_ms, last.key.window.end_ms), (100, i64::MAX));
        assert_eq!((last.value, last.timestamp_ms), (4, 50 * year_ms));
        let store = driver.store::<Windowed<String>, i64>("counts");
        assert_eq!(store.fetch("k".to_owned(), 0, i64::MAX).len(), 1);
        let older = driver.output::<String, String>("older").read_all();
        assert_eq!(older.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(), [99, 0]);
        assert_eq!(driver.dropped().late, 2);
    }
}

#[cfg(feature = "testing")]
mod running {
    use klamm::client::Record;
    use klamm::testing::TestKit;

    use super::*;
    use crate::pipeline::{Pipeline, caught_up};

    /// Its changelog is kept for ever.
    #[klamm::test]
    async fn a_window_without_an_end_comes_back_from_its_changelog(kit: TestKit) {
        let pipeline = Pipeline::new(&kit).await;
        let topology = || {
            let mut streams = StreamsBuilder::new();
            let grouped = streams.stream::<String, String>("in").group_by_key();
            grouped.windowed_by(UnlimitedWindows::starting_at(100)).count("since");
            streams.build().unwrap()
        };
        for (instance, count) in [(1, 1), (2, 2)] {
            let app = topology().start(pipeline.config(instance)).await.unwrap();
            let record = Record::to("in").partition(0).key("k").value("v");
            kit.send_record(record.timestamp_ms(400_000_000_000 * count)).await;
            caught_up(&app).await;
            let store = app.store::<Windowed<String>, i64>("since").unwrap();
            let found = store.fetch("k".to_owned(), 0, 1_000).await.unwrap();
            assert_eq!(
                found.iter().map(|(window, n)| (window.start_ms, *n)).collect::<Vec<_>>(),
                [(100, count)]
            );
            app.close().await.unwrap();
        }
    }
}
