//! Tables against the embedded broker, with several partitions, a cache, and a second start: what the stores hold is what
//! the same operators make of the last values.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{StreamsApp, StreamsBuilder, StreamsConfig, Topology};
use klamm_broker::Broker;

const DEADLINE: Duration = Duration::from_secs(60);
const ORDERS: usize = 40;
const USERS: usize = 7;

type Rows = BTreeMap<String, String>;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

async fn broker(topics: &[(&str, i32)]) -> (Broker, Client) {
    let broker = Broker::builder().ephemeral().start().await.unwrap();
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    let new: Vec<_> = topics.iter().map(|(name, count)| NewTopic::new(*name).partitions(*count)).collect();
    let created = client.admin().create_topics(&new).await.unwrap();
    assert!(created.values().all(Result::is_ok), "{created:?}");
    (broker, client)
}

/// Writes rows and remembers the last of each key; an empty value is a tombstone.
async fn write(client: &Client, topic: &str, rows: &mut Rows, changes: &[(String, String)]) {
    let producer = client.producer().build().unwrap();
    for (key, value) in changes {
        let record = Record::to(topic).key(key.clone());
        let record = if value.is_empty() { record } else { record.value(value.clone()) };
        drop(producer.enqueue(record).await.unwrap());
        match value.is_empty() {
            true => rows.remove(key),
            false => rows.insert(key.clone(), value.clone()),
        };
    }
    producer.close().await.unwrap();
}

/// Orders name a user; users have a city.
fn topology() -> Topology {
    let mut streams = StreamsBuilder::new();
    let orders = streams.table::<String, String>("orders");
    let users = streams.table::<String, String>("users");
    let cities = streams.global_table::<String, String>("cities");
    orders.foreign_key_join(
        &users,
        "inner",
        |_, user| user.clone(),
        |user, city| format!("{user} in {city}"),
    );
    orders.left_foreign_key_join(
        &users,
        "left",
        |_, user| user.clone(),
        |user, city| format!("{user} in {city:?}"),
    );
    let counts = orders.group_by(|order, user| (user.clone(), order.clone())).count("counts");
    users.outer_join(&counts, |city, count| format!("{city:?} {count:?}")).materialize("outer");
    orders
        .to_stream()
        .non_null()
        .left_join_global(
            &cities,
            |order, _| order.get(5..).map(str::to_owned),
            |user, city| format!("{user} {city:?}"),
        )
        .to_table("by-order");
    streams.build().unwrap()
}

async fn stored(app: &StreamsApp, store: &str) -> Rows {
    app.store::<String, String>(store).unwrap().all().await.unwrap().into_iter().collect()
}

async fn check(app: &StreamsApp, orders: &Rows, users: &Rows) {
    let inner =
        orders.iter().filter_map(|(order, user)| Some((order, format!("{user} in {}", users.get(user)?))));
    assert_eq!(stored(app, "inner").await, inner.map(|(order, row)| (order.clone(), row)).collect());
    let left = orders.iter().map(|(order, user)| (order.clone(), format!("{user} in {:?}", users.get(user))));
    assert_eq!(stored(app, "left").await, left.collect());
    let counts: BTreeMap<_, _> =
        app.store::<String, i64>("counts").unwrap().all().await.unwrap().into_iter().collect();
    for (user, count) in &counts {
        assert_eq!(orders.values().filter(|of| *of == user).count() as i64, *count, "orders of {user}");
    }
    assert!(orders.values().all(|user| counts.contains_key(user)));
    let both = users.keys().chain(counts.keys());
    let outer = both.map(|user| (user.clone(), format!("{:?} {:?}", users.get(user), counts.get(user))));
    assert_eq!(stored(app, "outer").await, outer.collect());
}

type Pairs = Vec<(String, String)>;

/// Changes that hit every case: new rows, other foreign keys, users that come and go.
fn changes(round: usize) -> (Pairs, Pairs) {
    let order = |n: usize| {
        let user = if (n + round).is_multiple_of(5) {
            String::new()
        } else {
            format!("user{}", n * (round + 2) % USERS)
        };
        (format!("order{}", n % ORDERS), user)
    };
    let user = |n: usize| {
        let city =
            if (n + round).is_multiple_of(4) { String::new() } else { format!("city{}", n % 3 + round) };
        (format!("user{}", n % USERS), city)
    };
    ((0..ORDERS * 2).map(order).collect(), (round..USERS + 3).map(user).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_6_tables_over_the_broker_are_what_their_sources_make_also_after_a_restart_without_state() {
    within("tables", async {
        let topics = [("orders", 5), ("users", 3), ("cities", 2)];
        let (broker, client) = broker(&topics).await;
        let (mut orders, mut users, mut cities) = (Rows::new(), Rows::new(), Rows::new());
        let names: Vec<_> = (0..10).map(|n| (n.to_string(), format!("city{n}"))).collect();
        write(&client, "cities", &mut cities, &names).await;
        for round in 0..3 {
            // A new directory each time: the stores come back from their changelogs.
            let directory = tempfile::tempdir().unwrap();
            let config = StreamsConfig::new("tables", broker.bootstrap())
                .state_dir(directory.path())
                .threads(2)
                .cache_bytes(if round == 1 { 0 } else { 1 << 20 })
                .commit_interval(Duration::from_millis(30))
                .linger(Duration::from_millis(1));
            let app = topology().start(config).await.unwrap();
            let (of_orders, of_users) = changes(round);
            write(&client, "orders", &mut orders, &of_orders[..ORDERS]).await;
            write(&client, "users", &mut users, &of_users).await;
            write(&client, "orders", &mut orders, &of_orders[ORDERS..]).await;
            app.caught_up().await.unwrap();
            check(&app, &orders, &users).await;
            assert_eq!(app.store::<String, String>("cities-global").unwrap().all().await.unwrap().len(), 10);
            let looked_up = stored(&app, "by-order").await;
            for (order, row) in &looked_up {
                let city = cities.get(&order[5..]);
                assert!(
                    row.ends_with(&format!(" {city:?}")),
                    "filled before the first record: {order} {row}"
                );
            }
            app.close().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_1_a_global_table_follows_its_topic_and_needs_it() {
    within("a global table", async {
        let (broker, client) = broker(&[("left", 1), ("right", 3), ("out", 1)]).await;
        let build = |right: &str| {
            let mut streams = StreamsBuilder::new();
            let table = streams.global_table::<String, String>(right);
            let left = streams.stream::<String, String>("left");
            left.join_global(&table, |_, value| value.clone(), |l, r| format!("{l}{r}")).to("out");
            streams.build().unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        let config = || StreamsConfig::new("global", broker.bootstrap()).state_dir(directory.path());
        let error = build("nothing").start(config()).await.unwrap_err();
        assert!(error.to_string().contains("`nothing` does not exist"), "{error}");

        let app = build("right").start(config()).await.unwrap();
        let store = app.store::<String, String>("right-global").unwrap();
        let mut rows = Rows::new();
        for (value, expected) in [("x", Some("x")), ("y", Some("y")), ("", None)] {
            write(&client, "right", &mut rows, &[("a".to_owned(), value.to_owned())]).await;
            while store.get("a").await.unwrap().as_deref() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        app.close().await.unwrap();
    })
    .await;
}
