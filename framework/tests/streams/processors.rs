//! Processors: stores that show what is not committed, punctuations by both clocks, and what is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::listener::BoxError;
use klamm::streams::{
    InRecord, Processor, ProcessorContext, Punctuation, PunctuationType, PunctuatorId, StoreName, StoreRef,
    StreamsBuilder, TopologyError, TopologyTestDriver,
};

/// What a processor does when it is called; tests need no more than closures.
struct Scripted<I, F, G> {
    stores: Vec<StoreName>,
    init: I,
    process: F,
    punctuate: G,
}

type Context<'a, 'b> = &'a mut ProcessorContext<'b, String, String>;
type Done = Result<(), BoxError>;

impl<I, F, G> Processor<String, String> for Scripted<I, F, G>
where
    I: FnMut(Context<'_, '_>) -> Done + 'static,
    F: FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Done + 'static,
    G: FnMut(Context<'_, '_>, Punctuation) -> Done + 'static,
{
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        self.stores.clone()
    }

    fn init(&mut self, context: Context<'_, '_>) -> Done {
        (self.init)(context)
    }

    fn process(&mut self, context: Context<'_, '_>, record: InRecord<'_, String, String>) -> Done {
        (self.process)(context, record)
    }

    fn punctuate(&mut self, context: Context<'_, '_>, punctuation: Punctuation) -> Done {
        (self.punctuate)(context, punctuation)
    }
}

fn scripted<F>(
    stores: Vec<StoreName>,
    process: F,
) -> impl Processor<String, String, Key = String, Value = String>
where
    F: FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Done + 'static,
{
    with_clocks(stores, |_| Ok(()), process, |_, _| Ok(()))
}

fn with_clocks<I, F, G>(stores: Vec<StoreName>, init: I, process: F, punctuate: G) -> Scripted<I, F, G>
where
    I: FnMut(Context<'_, '_>) -> Done + 'static,
    F: FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Done + 'static,
    G: FnMut(Context<'_, '_>, Punctuation) -> Done + 'static,
{
    Scripted { stores, init, process, punctuate }
}

fn told(driver: &TopologyTestDriver) -> Vec<String> {
    let out = driver.output::<String, String>("out").read_all();
    out.iter().map(|record| format!("{}:{}@{}", record.key, record.value, record.timestamp_ms)).collect()
}

/// One record writes, the same record reads: point, range, prefix, all, in the order of the keys' bytes.
#[test]
fn a_store_shows_what_is_not_committed_in_the_order_of_its_keys() {
    let mut streams = StreamsBuilder::new();
    let store: StoreRef<String, String> = streams.key_value_store("rows");
    let make = move || {
        let store = store.clone();
        scripted(vec![store.name()], move |context, record| {
            let mut rows = context.store(&store)?;
            for (number, key) in record.value.split(' ').enumerate() {
                match key.strip_prefix('-') {
                    Some(gone) => drop(rows.delete(&gone.to_owned())?),
                    None => drop(rows.put_if_absent(&key.to_owned(), &format!("{}{number}", record.key))?),
                }
            }
            let list = |entries: Vec<(String, String)>| {
                entries.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
            };
            let all = list(rows.all().collect::<Result<_, _>>()?);
            let range = list(rows.range(&"b".to_owned(), &"c".to_owned())?.collect::<Result<_, _>>()?);
            let prefix = list(rows.prefix(b"b").collect::<Result<_, _>>()?);
            context.forward(&all, &format!("{range}|{prefix}"))?;
            Ok(())
        })
    };
    streams.stream::<String, String>("in").process(make).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, String>("in");
    input.pipe("x", "c a bb b").at(1);
    assert_eq!(told(&driver), ["a=x1 b=x3 bb=x2 c=x0:b=x3 bb=x2 c=x0|b=x3 bb=x2@1"]);
    input.pipe("y", "-b a d bc -c").at(2);
    assert_eq!(told(&driver), ["a=x1 bb=x2 bc=y3 d=y2:bb=x2 bc=y3|bb=x2 bc=y3@2"]);
    assert_eq!(driver.store::<String, String>("rows").get("d"), Some("y2".to_owned()));
    let log = driver.output::<String, Option<String>>("rows-changelog").read_all();
    assert_eq!(log.last().map(|last| (&*last.key, &last.value, last.timestamp_ms)), Some(("c", &None, 2)));
}

fn clocked(kind: PunctuationType, interval_ms: u64, start_ms: Option<i64>) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let make = move || {
        with_clocks(
            Vec::new(),
            move |context: Context<'_, '_>| {
                let interval = Duration::from_millis(interval_ms);
                match start_ms {
                    Some(start_ms) => context.schedule_from(start_ms, interval, kind),
                    None => context.schedule(interval, kind),
                };
                Ok(())
            },
            |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                context.forward(record.key, record.value)?;
                Ok(())
            },
            |context: Context<'_, '_>, punctuation: Punctuation| {
                assert!(context.headers().is_empty());
                context.forward(&"tick".to_owned(), &punctuation.timestamp_ms.to_string())?;
                Ok(())
            },
        )
    };
    streams.stream::<String, String>("in").process(make).to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

#[test]
fn stream_time_is_due_with_the_first_record_and_then_at_its_slots() {
    let driver = clocked(PunctuationType::StreamTime, 10, None);
    let pipe = |at| {
        driver.input::<String, String>("in").pipe("k", "v").header("h", "1").at(at);
        told(&driver)
    };
    assert_eq!(pipe(3), ["k:v@3", "tick:3@3"], "after the record");
    assert_eq!(pipe(9), ["k:v@9"]);
    assert_eq!(pipe(10), ["k:v@10", "tick:10@10"]);
    assert_eq!(pipe(5), ["k:v@5"], "time does not go back");
    assert_eq!(pipe(57), ["k:v@57", "tick:57@57"], "a jump is one");
    assert_eq!(pipe(59), ["k:v@59"]);
    assert_eq!(pipe(60), ["k:v@60", "tick:60@60"], "and the slots stay");
    let anchored = clocked(PunctuationType::StreamTime, 10, Some(4));
    let pipe = |at| {
        anchored.input::<String, String>("in").pipe("k", "v").at(at);
        told(&anchored).len()
    };
    assert_eq!([3, 4, 13, 14].map(pipe), [1, 2, 1, 2]);
}

#[test]
fn the_wall_clock_is_due_without_records() {
    let mut driver = clocked(PunctuationType::WallClock, 10, None);
    driver.advance_wall_clock(Duration::from_millis(9));
    assert_eq!(told(&driver), [""; 0]);
    // Processors begin with the driver's first turn, at 9.
    driver.advance_wall_clock(Duration::from_millis(10));
    assert_eq!(told(&driver), ["tick:19@19"]);
    driver.advance_wall_clock(Duration::from_millis(35));
    assert_eq!(told(&driver), ["tick:54@54"], "those missed are one");
    driver.advance_wall_clock(Duration::from_millis(5));
    assert_eq!(told(&driver), ["tick:59@59"]);
}

#[test]
fn a_schedule_can_be_cancelled_also_by_one_that_is_due() {
    let ids: Arc<Mutex<Vec<PunctuatorId>>> = Arc::default();
    let called = Arc::new(AtomicUsize::new(0));
    let (kept, count) = (Arc::clone(&ids), Arc::clone(&called));
    let mut streams = StreamsBuilder::new();
    let make = move || {
        let (kept, ids, count) = (Arc::clone(&kept), Arc::clone(&kept), Arc::clone(&count));
        with_clocks(
            Vec::new(),
            move |context: Context<'_, '_>| {
                let interval = Duration::from_millis(10);
                let both = [context.schedule(interval, PunctuationType::WallClock); 1]
                    .into_iter()
                    .chain([context.schedule(interval, PunctuationType::WallClock)]);
                kept.lock().unwrap().extend(both);
                Ok(())
            },
            |_, _| Ok(()),
            move |context: Context<'_, '_>, _| {
                count.fetch_add(1, Ordering::Relaxed);
                ids.lock().unwrap().iter().for_each(|id| context.cancel(*id));
                Ok(())
            },
        )
    };
    streams.stream::<String, String>("in").process(make);
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    for _ in 0..5 {
        driver.advance_wall_clock(Duration::from_millis(10));
    }
    assert_eq!((called.load(Ordering::Relaxed), ids.lock().unwrap().len()), (1, 2));
}

#[test]
fn only_a_processor_that_may_change_the_key_needs_a_repartition_topic() {
    let build = |keeps_key: bool| {
        let mut streams = StreamsBuilder::new();
        let make = || {
            scripted(Vec::new(), |context: Context<'_, '_>, record| {
                context.forward(record.key, record.value)?;
                Ok(())
            })
        };
        let stream = streams.stream::<String, String>("in");
        let stream = if keeps_key { stream.process_values(make) } else { stream.process(make) };
        stream.group_by_key().count("counts");
        streams.build().unwrap().describe().to_string()
    };
    assert!(!build(true).contains("repartition"));
    assert!(build(false).contains("counts-repartition"));
}

#[test]
fn stores_that_nobody_named_or_made_are_refused() {
    let mut streams = StreamsBuilder::new();
    let store: StoreRef<String, String> = streams.key_value_store("rows");
    let unnamed = store.clone();
    let make = move || {
        let store = unnamed.clone();
        scripted(Vec::new(), move |context, _| {
            context.store(&store)?;
            Ok(())
        })
    };
    streams.stream::<String, String>("in").process(make);
    let named = store.clone();
    streams.stream::<String, String>("other").process(move || scripted(vec![named.name()], |_, _| Ok(())));
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let error = driver.input::<String, String>("in").pipe("k", "v").try_at(1).unwrap_err().to_string();
    assert!(error.contains("did not name the store `rows` in `Processor::stores`"), "{error}");

    let mut other = StreamsBuilder::new();
    other.stream::<String, String>("in").process(move || scripted(vec![store.name()], |_, _| Ok(())));
    assert!(matches!(other.build(), Err(TopologyError::UnknownStore { .. })));
}

/// Forwards to the child that a record's value names, to all, or to none that there is.
struct Router(&'static [&'static str]);

impl Processor<String, String> for Router {
    type Key = String;
    type Value = String;

    fn children(&self) -> Vec<String> {
        self.0.iter().map(|name| (*name).to_owned()).collect()
    }

    fn process(&mut self, context: Context<'_, '_>, record: InRecord<'_, String, String>) -> Done {
        match &**record.value {
            "all" => context.forward(record.key, record.value)?,
            "later" => context.forward_to_at("b", record.key, record.value, record.timestamp_ms + 10)?,
            child => context.forward_to(child, record.key, record.value)?,
        }
        Ok(())
    }
}

#[test]
fn a_record_goes_to_the_child_that_is_named() {
    for cache_bytes in [0, 1 << 20] {
        let mut streams = StreamsBuilder::new();
        let routed = streams.stream::<String, String>("in").process_values(|| Router(&["a", "b"]));
        routed.child("a").to("a");
        // Two of one name, one of them with state.
        routed.child("b").to("b");
        routed.child("b").group_by_key().count("counts").to_stream().to("counts");
        routed.to("out");
        let driver = TopologyTestDriver::cached(streams.build().unwrap(), cache_bytes);
        let input = driver.input::<String, String>("in");
        for (at, value) in ["a", "b", "all", "later"].into_iter().enumerate() {
            input.pipe("k", value).at(at as i64);
        }
        let error = input.pipe("k", "c").try_at(5).unwrap_err().to_string();
        assert!(error.contains("`c`") && error.contains("in.process_values"), "{error}");
        let read = |topic| driver.output::<String, String>(topic).read_all();
        assert_eq!(read("a"), [("k", "a", 0), ("k", "all", 2)]);
        assert_eq!(read("b"), [("k", "b", 1), ("k", "all", 2), ("k", "later", 13)]);
        assert_eq!(read("out"), [("k", "all", 2)], "who has no name hears of what is for all");
    }
}

#[test]
fn children_are_known_when_the_topology_is_built() {
    let build = |forwards: &'static [&'static str], children: &[&str]| {
        let mut streams = StreamsBuilder::new();
        let routed = streams.stream::<String, String>("in").process(move || Router(forwards));
        children.iter().for_each(|name| drop(routed.child(name).to(format!("to-{name}"))));
        streams.build()
    };
    assert!(build(&["a", "b"], &["b", "a"]).is_ok());
    let error = build(&["a", "b"], &["a"]).unwrap_err();
    assert!(matches!(&error, TopologyError::MissingChild { child, .. } if child == "b"), "{error}");
    let error = build(&["a"], &["a", "A"]).unwrap_err();
    assert!(matches!(&error, TopologyError::UnknownChild { child, .. } if child == "A"), "{error}");
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").map_values(String::len).child("a");
    let error = streams.build().unwrap_err().to_string();
    assert!(error.contains("in.map_values") && error.contains("`a`"), "{error}");
}

#[test]
fn an_error_names_the_processor_that_failed() {
    let mut streams = StreamsBuilder::new();
    let passes = || {
        scripted(Vec::new(), |context: Context<'_, '_>, record| {
            context.forward(record.key, record.value)?;
            Ok(())
        })
    };
    let fails =
        || scripted(Vec::new(), |_: Context<'_, '_>, record| Err(format!("no {}", record.value).into()));
    streams.stream::<String, String>("in").process(passes).process(fails);
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let error = driver.input::<String, String>("in").pipe("k", "v").try_at(1).unwrap_err().to_string();
    assert!(error.contains("in.process.process"), "{error}");
    assert!(error.contains("no v"), "{error}");
}

/// What a punctuation forwards is of no record, and had the numbers of the topology's first one.
#[test]
fn rows_that_punctuations_forward_do_not_replace_each_other() {
    let mut streams = StreamsBuilder::new();
    let make = || {
        with_clocks(
            Vec::new(),
            |context: Context<'_, '_>| {
                context.schedule(Duration::from_millis(10), PunctuationType::WallClock);
                Ok(())
            },
            |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                context.forward(record.key, record.value)?;
                Ok(())
            },
            |context: Context<'_, '_>, punctuation: Punctuation| {
                context.forward_at(&"k".to_owned(), &punctuation.timestamp_ms.to_string(), 5)?;
                Ok(())
            },
        )
    };
    let left = streams.stream::<String, String>("in").process_values(make);
    let right = streams.stream::<String, String>("other");
    let windows = klamm::streams::JoinWindows::of(Duration::from_millis(10));
    left.join_within(&right, "j", windows, |l: &String, r: &String| format!("{l}-{r}")).to("out");
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    for _ in 0..4 {
        driver.advance_wall_clock(Duration::from_millis(10));
        driver.input::<String, String>("in").pipe("k", "v").at(5);
    }
    driver.input::<String, String>("other").pipe("k", "r").at(5);
    let told = driver.output::<String, String>("out").read_all();
    assert_eq!(told.len(), 7, "{told:?}");
}

/// Windows do not begin before the epoch, and rows of such would lie among those that wait.
#[test]
fn what_is_forwarded_has_a_time() {
    let mut streams = StreamsBuilder::new();
    let make = || {
        scripted(Vec::new(), |context: Context<'_, '_>, record| {
            context.forward_at(record.key, record.value, record.value.parse()?)?;
            Ok(())
        })
    };
    let windows = klamm::streams::TumblingWindows::of(Duration::from_millis(10));
    streams
        .stream::<String, String>("in")
        .process_values(make)
        .group_by_key()
        .windowed_by(windows)
        .count("c");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("in").pipe("k", "0").try_at(1).unwrap();
    let error =
        driver.input::<String, String>("in").pipe("k", "-100000000").try_at(1).unwrap_err().to_string();
    assert!(error.contains("-100000000") && error.contains("in.process"), "{error}");
}

/// Where a processor panics without a record in work, nobody caught it.
#[test]
fn a_panic_of_a_processor_names_it_wherever_it_happens() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum At {
        Init,
        StreamTime,
        WallClock,
    }
    for at in [At::Init, At::StreamTime, At::WallClock] {
        let mut streams = StreamsBuilder::new();
        let make = move || {
            with_clocks(
                Vec::new(),
                move |context: Context<'_, '_>| {
                    assert!(at != At::Init, "I panic");
                    context.schedule(Duration::from_millis(1), PunctuationType::StreamTime);
                    context.schedule(Duration::ZERO, PunctuationType::WallClock);
                    Ok(())
                },
                |_, _| Ok(()),
                move |_, punctuation: Punctuation| {
                    let kind = match punctuation.kind {
                        PunctuationType::StreamTime => At::StreamTime,
                        _ => At::WallClock,
                    };
                    assert!(at != kind, "I panic");
                    Ok(())
                },
            )
        };
        drop(streams.stream::<String, String>("in").process(make).named("culprit"));
        let mut driver = TopologyTestDriver::new(streams.build().unwrap());
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            driver
                .input::<String, String>("in")
                .pipe("k", "v")
                .try_at(1)
                .map_err(|error| error.to_string())?;
            driver.advance_wall_clock(Duration::from_millis(10));
            Ok::<_, String>(())
        }));
        let message = match ended {
            Ok(result) => result.unwrap_err(),
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        assert!(message.contains("culprit"), "{at:?}: {message}");
    }
}

/// The number of missed slots is one less than the number of the next one, which there is none of at the end of time.
#[test]
fn a_punctuation_at_the_end_of_time_is_one() {
    let driver = clocked(PunctuationType::StreamTime, 1, None);
    driver.input::<String, String>("in").pipe("k", "v").at(i64::MAX);
    assert_eq!(told(&driver).len(), 2);
    let driver = clocked(PunctuationType::WallClock, 1, Some(i64::MIN));
    driver.input::<String, String>("in").pipe("k", "v").at(1);
    assert_eq!(told(&driver).len(), 1);
}
