// The application of tests/tests/it/foreign/takeover.rs. usage: java Takeover BOOTSTRAP APPLICATION STATE_DIR GUARANTEE
// Every part of it has a store, and writes what it tells to a topic of its own. Ends politely at the end of its standard
// input: all is committed, and it has left the group.

import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.state.Stores;

public class Takeover {
    static final Duration TEN = Duration.ofSeconds(10), FIVE = Duration.ofSeconds(5), HOUR = Duration.ofHours(1);

    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("application.id", args[1]);
        settings.put("bootstrap.servers", args[0]);
        settings.put("state.dir", args[2]);
        settings.put("processing.guarantee", args[3]);
        settings.put("default.key.serde", Serdes.String().getClass());
        settings.put("default.value.serde", Serdes.String().getClass());
        settings.put("commit.interval.ms", 100);
        // Each change is told, so that one too many or too few shows.
        settings.put("statestore.cache.max.bytes", 0);
        settings.put("auto.offset.reset", "earliest");
        settings.put("consumer.session.timeout.ms", 6_000);
        settings.put("reconnect.backoff.max.ms", 200);

        StreamsBuilder builder = new StreamsBuilder();
        parts(builder);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        streams.start();
        System.in.readAllBytes();
        streams.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP)
            .withTimeout(Duration.ofSeconds(20)));
    }

    static void parts(StreamsBuilder b) {
        KStream<String, String> in = b.stream("in");
        KStream<String, String> right = b.stream("right");
        KTable<String, String> users = b.table("users", Materialized.as("users-table"));
        KTable<String, String> prices = b.table("prices", Materialized.as(Stores.persistentVersionedKeyValueStore("prices-table", HOUR)));
        KGroupedStream<String, String> grouped = in.groupByKey();

        numbers(grouped.count(Materialized.as("counts")).toStream(), "out-counts");
        numbers(in.groupBy((k, v) -> v).count(Materialized.as("by-value")).toStream(), "out-by-value");
        grouped.reduce((all, v) -> all + v, Materialized.as("reduced")).toStream().to("out-reduced");
        numbers(windowed(grouped.windowedBy(TimeWindows.ofSizeAndGrace(TEN, FIVE)).count(Materialized.as("tumbling"))), "out-tumbling");
        numbers(windowed(grouped.windowedBy(TimeWindows.ofSizeAndGrace(TEN, FIVE).advanceBy(FIVE)).count(Materialized.as("hopping"))), "out-hopping");
        numbers(windowed(grouped.windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(TEN, FIVE)).count(Materialized.as("sliding"))), "out-sliding");
        numbers(windowed(grouped.windowedBy(SessionWindows.ofInactivityGapAndGrace(FIVE, FIVE)).count(Materialized.as("sessions"))), "out-sessions");
        in.leftJoin(users, (v, user) -> v + "+" + user).to("out-greeted");
        in.leftJoin(prices, (v, price) -> v + "+" + price).to("out-priced");
        in.join(right, (v, w) -> v + "+" + w, JoinWindows.ofTimeDifferenceAndGrace(TEN, FIVE), StreamJoined.<String, String, String>as("paired").withStoreName("paired"))
            .to("out-paired");
        numbers(users.groupBy((k, v) -> KeyValue.pair(v, v)).count(Materialized.as("namesakes")).toStream(), "out-namesakes");
        users.leftJoin(b.<String, String>table("towns", Materialized.as("towns-table")), (user, town) -> user + "+" + town, Materialized.as("settled"))
            .toStream().to("out-settled");
        users.leftJoin(b.<String, String>table("meanings", Materialized.as("meanings-table")), v -> v, (user, meaning) -> user + "+" + meaning,
            TableJoined.as("named"), Materialized.as("named")).toStream().to("out-named");
    }

    static <V> KStream<String, V> windowed(KTable<Windowed<String>, V> table) {
        return table.toStream((at, v) -> at.key() + "@" + at.window().start() + "-" + at.window().end());
    }

    static void numbers(KStream<String, Long> stream, String topic) {
        stream.mapValues(number -> number == null ? null : number.toString()).to(topic);
    }
}
