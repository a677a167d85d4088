import java.io.*;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.*;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.*;
import org.apache.kafka.streams.test.TestRecord;

/**
 * The pipelines of tests/tests/it/foreign/judge, in Kafka Streams' own test driver. On standard input a line `case NAME` and the records of
 * the case, `TOPIC KEY VALUE TIMESTAMP` separated by tabs, `-` for null; on standard output the same line, and for each record a line `record`
 * and what came to the topic `out`.
 */
public class Judge {
    static final Duration TEN = Duration.ofSeconds(10), FIVE = Duration.ofSeconds(5), THREE = Duration.ofSeconds(3);

    public static void main(String[] a) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8)) {
            String pipeline = null;
            List<String[]> records = new ArrayList<>();
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                if (line.startsWith("case ")) {
                    if (pipeline != null) run(pipeline, records, a[0], out);
                    pipeline = line.substring(5);
                    records.clear();
                } else {
                    records.add(line.split("\t"));
                }
            }
            if (pipeline != null) run(pipeline, records, a[0], out);
        }
    }

    static void run(String pipeline, List<String[]> records, String directory, PrintStream out) {
        Properties settings = new Properties();
        settings.put("application.id", "judge");
        settings.put("bootstrap.servers", "nowhere:1");
        settings.put("state.dir", directory);
        settings.put("default.key.serde", Serdes.String().getClass());
        settings.put("default.value.serde", Serdes.String().getClass());
        settings.put("statestore.cache.max.bytes", "0");
        settings.put("dsl.store.suppliers.class", BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        // Otherwise windows that close within a second of each other are told together, by the wall clock.
        settings.put("__emit.interval.ms.kstreams.windowed.aggregation__", 0L);
        settings.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        StreamsBuilder builder = new StreamsBuilder();
        pipeline(pipeline, builder);
        out.println("case " + pipeline);
        try (var driver = new TopologyTestDriver(builder.build(), settings, Instant.EPOCH)) {
            Map<String, TestInputTopic<String, String>> topics = new HashMap<>();
            var written = driver.createOutputTopic("out", new StringDeserializer(), new StringDeserializer());
            for (String[] record : records) {
                var topic = topics.computeIfAbsent(record[0], name -> driver.createInputTopic(name, new StringSerializer(), new StringSerializer()));
                topic.pipeInput(nullable(record[1]), nullable(record[2]), Long.parseLong(record[3]));
                out.println("record");
                while (!written.isEmpty()) {
                    TestRecord<String, String> told = written.readRecord();
                    out.println(shown(told.key()) + "\t" + shown(told.value()) + "\t" + told.timestamp());
                }
            }
        }
    }

    static String nullable(String text) { return text.equals("-") ? null : text; }

    static String shown(String text) { return text == null ? "-" : text; }

    static void pipeline(String name, StreamsBuilder b) {
        switch (name) {
            case "word-count" -> b.<String, String>stream("left").flatMapValues(v -> Arrays.asList(v.split("-"))).groupBy((k, v) -> v)
                .count().toStream().mapValues(Judge::text).to("out");
            case "branches" -> {
                var branches = b.<String, String>stream("left").split(Named.as("by-"))
                    .branch((k, v) -> v.length() < 4, Branched.as("short")).branch((k, v) -> v.startsWith("b"), Branched.as("b")).defaultBranch(Branched.as("rest"));
                branches.get("by-short").merge(branches.get("by-rest").mapValues(v -> v + "!")).filterNot((k, v) -> k.equals("a")).to("out");
            }
            case "reduce" -> b.<String, String>stream("left").selectKey((k, v) -> v.substring(0, 1)).groupByKey().reduce((x, y) -> x + y).toStream().to("out");
            case "table-view" -> b.<String, String>table("left").filter((k, v) -> v.length() > 3).mapValues(v -> v.toUpperCase()).toStream().to("out");
            case "table-kept" -> b.<String, String>table("left").filter((k, v) -> v.length() > 3, Materialized.as("kept")).toStream().to("out");
            case "regroup" -> b.<String, String>table("left").groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v))
                .aggregate(() -> "", (k, v, all) -> all + v + ";", (k, v, all) -> remove(all, v)).toStream().to("out");
            case "regroup-count" -> b.<String, String>table("left").groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v)).count().toStream().mapValues(Judge::text).to("out");
            case "tumbling" -> windowed(grouped(b).windowedBy(TimeWindows.ofSizeAndGrace(TEN, THREE)).count(kept()));
            case "tumbling-close" -> windowed(grouped(b).windowedBy(TimeWindows.ofSizeAndGrace(TEN, THREE)).emitStrategy(EmitStrategy.onWindowClose()).count(kept()));
            case "hopping" -> windowed(grouped(b).windowedBy(TimeWindows.ofSizeAndGrace(TEN, FIVE).advanceBy(THREE)).reduce((x, y) -> x + y, kept()));
            case "hopping-close" -> windowed(grouped(b).windowedBy(TimeWindows.ofSizeAndGrace(TEN, FIVE).advanceBy(THREE)).emitStrategy(EmitStrategy.onWindowClose()).reduce((x, y) -> x + y, kept()));
            case "sliding" -> windowed(grouped(b).windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(FIVE, THREE)).reduce((x, y) -> x + y, kept()));
            case "sliding-close" -> windowed(grouped(b).windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(FIVE, THREE)).emitStrategy(EmitStrategy.onWindowClose()).count(kept()));
            case "sessions" -> windowed(sessions(b).aggregate(() -> "", (k, v, all) -> all + v, (k, x, y) -> x + y));
            case "sessions-close" -> windowed(sessions(b).emitStrategy(EmitStrategy.onWindowClose()).aggregate(() -> "", (k, v, all) -> all + v, (k, x, y) -> x + y, kept()));
            case "stream-join" -> left(b).join(right(b), (x, y) -> x + "+" + y, JoinWindows.ofTimeDifferenceAndGrace(FIVE, THREE)).to("out");
            case "stream-join-after" -> left(b).join(right(b), (x, y) -> x + "+" + y, JoinWindows.ofTimeDifferenceAndGrace(Duration.ZERO, THREE).after(FIVE)).to("out");
            case "stream-left-join" -> left(b).leftJoin(right(b), (x, y) -> x + "+" + y, JoinWindows.ofTimeDifferenceAndGrace(FIVE, THREE)).to("out");
            case "stream-outer-join" -> left(b).outerJoin(right(b), (x, y) -> x + "+" + y, JoinWindows.ofTimeDifferenceAndGrace(FIVE, THREE)).to("out");
            case "lookup" -> left(b).join(b.<String, String>table("right"), (x, y) -> x + "+" + y).to("out");
            case "left-lookup" -> left(b).leftJoin(b.<String, String>table("right"), (x, y) -> x + "+" + y).to("out");
            case "global-lookup" -> left(b).leftJoin(b.<String, String>globalTable("right"), (k, v) -> k, (x, y) -> x + "+" + y).to("out");
            case "table-join" -> b.<String, String>table("left").join(b.<String, String>table("right"), (x, y) -> x + "+" + y).toStream().to("out");
            case "table-left-join" -> b.<String, String>table("left").leftJoin(b.<String, String>table("right"), (x, y) -> x + "+" + y).toStream().to("out");
            case "table-outer-join" -> b.<String, String>table("left").outerJoin(b.<String, String>table("right"), (x, y) -> x + "+" + y).toStream().to("out");
            case "foreign-key-join" -> b.<String, String>table("left").join(b.<String, String>table("right"), v -> v.substring(0, 1), (x, y) -> x + "+" + y).toStream().to("out");
            case "foreign-key-left-join" -> b.<String, String>table("left").leftJoin(b.<String, String>table("right"), v -> v.substring(0, 1), (x, y) -> x + "+" + y).toStream().to("out");
            case "cogroup" -> grouped(b).<String>cogroup((k, v, all) -> all + "l" + v).cogroup(right(b).groupByKey(), (k, v, all) -> all + "r" + v).aggregate(() -> "").toStream().to("out");
            case "cogroup-windows" -> windowed(grouped(b).<String>cogroup((k, v, all) -> all + "l" + v).cogroup(right(b).groupByKey(), (k, v, all) -> all + "r" + v)
                .windowedBy(TimeWindows.ofSizeAndGrace(TEN, THREE)).aggregate(() -> "", kept()));
            case "suppress-close" -> windowed(grouped(b).windowedBy(TimeWindows.ofSizeAndGrace(TEN, THREE)).count(kept()).suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded())));
            case "suppress-time" -> b.<String, String>table("left").suppress(Suppressed.untilTimeLimit(FIVE, Suppressed.BufferConfig.maxRecords(3))).toStream().to("out");
            case "versioned-lookup" -> left(b).leftJoin(versions(b, "right"), (x, y) -> x + "+" + y).to("out");
            case "versioned-lookup-grace" -> left(b).leftJoin(versions(b, "right"), (x, y) -> x + "+" + y,
                Joined.with(Serdes.String(), Serdes.String(), Serdes.String(), "waiting", THREE)).to("out");
            case "versioned-table" -> versions(b, "left").toStream().to("out");
            case "punctuate" -> {
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("latest"), Serdes.String(), Serdes.String()));
                b.<String, String>stream("left").process(Latest::new, "latest").to("out");
            }
            default -> throw new IllegalArgumentException("no pipeline " + name);
        }
    }

    /** Remembers the latest value of each key, and tells all of them every ten seconds of the records' time. */
    static class Latest implements Processor<String, String, String, String> {
        private KeyValueStore<String, String> latest;

        public void init(ProcessorContext<String, String> context) {
            latest = context.getStateStore("latest");
            context.schedule(TEN, PunctuationType.STREAM_TIME, now -> {
                try (var all = latest.all()) { all.forEachRemaining(row -> context.forward(new Record<>(row.key, row.value, now))); }
            });
        }

        public void process(Record<String, String> record) { latest.put(record.key(), record.value()); }
    }

    static KStream<String, String> left(StreamsBuilder b) { return b.stream("left"); }

    static KStream<String, String> right(StreamsBuilder b) { return b.stream("right"); }

    static KTable<String, String> versions(StreamsBuilder b, String topic) {
        return b.table(topic, Materialized.as(Stores.persistentVersionedKeyValueStore("versions", Duration.ofHours(1))));
    }

    static KGroupedStream<String, String> grouped(StreamsBuilder b) { return left(b).groupByKey(); }

    static SessionWindowedKStream<String, String> sessions(StreamsBuilder b) {
        return grouped(b).windowedBy(SessionWindows.ofInactivityGapAndGrace(FIVE, THREE));
    }

    /** Unless it is said, windows in memory are forgotten before they are told, once a record comes that is much later. */
    static <V, S extends StateStore> Materialized<String, V, S> kept() {
        return Materialized.<String, V, S>with(Serdes.String(), null).withRetention(Duration.ofDays(1));
    }

    static <V> void windowed(KTable<Windowed<String>, V> table) {
        table.toStream((w, v) -> w.key() + "@" + w.window().start() + "-" + w.window().end()).mapValues(Judge::text).to("out");
    }

    static String text(Object value) { return value == null ? null : value.toString(); }

    static String remove(String all, String value) {
        int at = all.indexOf(value + ";");
        return all.substring(0, at) + all.substring(at + value.length() + 1);
    }
}
