//! What of a topology its state depends on, and which changes would orphan state.

use std::time::Duration;

use klamm::streams::{
    Fingerprint, Grouped, Materialized, Migration, Orphan, StreamsBuilder, TumblingWindows,
};

fn fingerprint(build: impl FnOnce(&mut StreamsBuilder)) -> Fingerprint {
    let mut streams = StreamsBuilder::new();
    build(&mut streams);
    streams.build().unwrap().fingerprint()
}

/// Counts of `topic` in the store `store`, behind a repartition topic.
fn counts(topic: &str, store: &str) -> Fingerprint {
    fingerprint(|streams| {
        let stream = streams.stream::<String, String>(topic.to_owned());
        stream.group_by(|_, value| value.clone()).count(store);
    })
}

fn windows(retention_secs: u64) -> Fingerprint {
    fingerprint(|streams| {
        let windows = TumblingWindows::of(Duration::from_secs(10));
        let store = Materialized::named("w").retention(Duration::from_secs(retention_secs));
        streams.stream::<String, String>("in").group_by_key().windowed_by(windows).count(store);
    })
}

fn orphans(before: &Fingerprint, now: &Fingerprint) -> Vec<Orphan> {
    before.orphans(now, &Migration::new())
}

#[test]
fn what_stays_or_comes_anew_orphans_nothing() {
    let stateless = fingerprint(|streams| drop(streams.stream::<String, String>("in").to("out")));
    assert!(stateless.is_empty());
    let one = counts("in", "one");
    let both = fingerprint(|streams| {
        let stream = streams.stream::<String, String>("in").filter(|_, value| !value.is_empty());
        streams.stream::<String, String>("elsewhere").group_by_key().count("two");
        stream.group_by(|_, value| value.clone()).count("one");
    });
    for (before, now) in [(&stateless, &one), (&one, &one), (&one, &both), (&stateless, &stateless)] {
        assert_eq!(orphans(before, now), []);
    }
}

#[test]
fn a_store_that_is_gone_and_a_topic_that_nobody_reads_are_told() {
    let (before, now) = (counts("in", "old"), counts("in", "new"));
    let found = orphans(&before, &now);
    assert_eq!(found.len(), 2, "{found:?}");
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(texts[0].starts_with("store `old` of (alloc::string::String, i64) is gone"), "{texts:?}");
    assert!(texts[1].starts_with("nobody reads the topic `old-repartition` any more"), "{texts:?}");
    let some = before.orphans(&now, &Migration::new().forgets("old"));
    assert_eq!(some, [Orphan::Repartition { topic: "old-repartition".to_owned() }]);
    assert_eq!(before.orphans(&now, &Migration::new().forgets("old").forgets("old-repartition")), []);
    assert_eq!(before.orphans(&now, &Migration::new().forgets("new")).len(), 2, "another store's name");
}

#[test]
fn a_store_with_other_types_windows_or_inputs_is_told() {
    let lengths = fingerprint(|streams| {
        let stream = streams.stream::<String, String>("in");
        stream.group_by(|_, value| value.len() as i64).count("one");
    });
    let elsewhere = fingerprint(|streams| {
        let stream = streams.stream::<String, String>("elsewhere");
        let grouped = Grouped::named("elsewhere");
        stream.group_by_with(|_, value| value.clone(), grouped).count("one");
    });
    let one = counts("in", "one");
    let cases = [
        (
            &one,
            &lengths,
            "one",
            "the types of store `one` were `(alloc::string::String, i64)` and are `(i64, i64)`",
        ),
        (
            &windows(60),
            &windows(30),
            "w",
            "the windows of store `w` were `windows kept for 60000 ms` and are",
        ),
        (
            &one,
            &elsewhere,
            "one",
            "the inputs of store `one` were `one-repartition` and are `elsewhere-repartition`",
        ),
    ];
    for (before, now, store, text) in cases {
        let found = orphans(before, now);
        assert!(found[0].to_string().starts_with(text), "{found:?}");
        let stated = before.orphans(now, &Migration::new().rereads(store).forgets("one-repartition"));
        assert_eq!(stated, [], "{text}");
    }
}

#[test]
fn a_fingerprint_is_a_document_and_back() {
    for fingerprint in [counts("in", "one"), windows(60), Fingerprint::default()] {
        let document = fingerprint.to_json();
        assert_eq!(Fingerprint::from_json(&document), Some(fingerprint));
        let mut later = document.clone();
        later["version"] = 2.into();
        assert_eq!(Fingerprint::from_json(&later), None);
    }
    for wrong in
        ["null", "{}", r#"{"version":1}"#, r#"{"version":1,"stores":{"a":{}},"repartition_topics":[]}"#]
    {
        assert_eq!(Fingerprint::from_json(&serde_json::from_str(wrong).unwrap()), None, "{wrong}");
    }
}
