import com.sun.management.OperatingSystemMXBean;
import java.io.File;
import java.lang.management.ManagementFactory;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;

/** Kafka Streams' part of the comparison: what bench/src/bin/streams-load/pipelines.rs does, with the same meter. */
public class Streams {
    static final OperatingSystemMXBean OS = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    static final AtomicLong COUNT = new AtomicLong();
    static final int PARTITIONS = 4;

    public static void main(String[] a) {
        try {
            if (a[0].equals("restore")) restore(a);
            else run(a);
        } catch (Throwable e) {
            // Its threads would go on, and whoever waits for the figures with them.
            e.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    static void run(String[] a) throws Exception {
        if (a.length != 7) throw new IllegalArgumentException("usage: HOST:PORT WORK GUARANTEE CACHE-BYTES TOPICS STEPS COMMIT-INTERVAL-MS");
        String work = a[1], application = "java-" + work + "-" + ProcessHandle.current().pid(), out = application + "-out";
        Properties p = new Properties();
        p.put("bootstrap.servers", a[0]);
        p.put("application.id", application);
        p.put("processing.guarantee", a[2].equals("exactly-once") ? "exactly_once_v2" : "at_least_once");
        p.put("statestore.cache.max.bytes", a[3]);
        p.put("commit.interval.ms", a[6]);
        p.put("state.dir", System.getProperty("java.io.tmpdir"));
        p.put("auto.offset.reset", "earliest");
        p.put("internal.leave.group.on.close", true);
        p.put("default.key.serde", Serdes.String().getClass());
        p.put("default.value.serde", Serdes.String().getClass());
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]))) {
            admin.createTopics(List.of(new NewTopic(out, PARTITIONS, (short) 1))).all().get();
            KafkaStreams streams = new KafkaStreams(topology(work, a[4].split(","), out), p);
            streams.setUncaughtExceptionHandler(e -> { e.printStackTrace(); Runtime.getRuntime().halt(1); return null; });
            streams.start();
            String figures = watch(Long.parseLong(a[5]));
            if (!streams.close(Duration.ofSeconds(60))) throw new IllegalStateException("did not close");
            System.out.println(figures + " rss=" + peakMib() + " out=" + end(admin, out));
        }
        Utils.delete(new File(p.getProperty("state.dir"), application));
    }

    static Topology topology(String work, String[] topics, String out) {
        StreamsBuilder b = new StreamsBuilder();
        Produced<String, Long> counts = Produced.with(Serdes.String(), Serdes.Long());
        Duration ten = Duration.ofSeconds(10);
        switch (work) {
            case "stateless" -> counted(b, topics[0]).mapValues(v -> v.toUpperCase()).filter((k, v) -> v.charAt(9) != '0').to(out);
            case "count", "many-keys" -> counted(b, topics[0]).groupByKey().count(Materialized.as("counts")).toStream().to(out, counts);
            case "window" -> counted(b, topics[0]).groupByKey().windowedBy(TimeWindows.ofSizeWithNoGrace(ten)).count(Materialized.as("windows"))
                .toStream((w, c) -> w.key() + "@" + w.window().start()).to(out, counts);
            case "join" -> counted(b, topics[0]).join(counted(b, topics[1]), (l, r) -> l.substring(0, 10) + r, JoinWindows.ofTimeDifferenceWithNoGrace(ten)).to(out);
            case "foreign-key" -> b.<String, String>table(topics[0])
                .join(b.<String, String>table(topics[1]), order -> order.substring(0, 6), (order, customer) -> customer + " " + order)
                .toStream().peek((k, v) -> COUNT.incrementAndGet()).to(out);
            case "words" -> b.<String, String>stream(topics[0])
                .flatMap((k, v) -> Arrays.stream(v.split(" ")).map(w -> KeyValue.pair(w, "")).collect(Collectors.toList()))
                .repartition().peek((k, v) -> COUNT.incrementAndGet()).groupByKey().count(Materialized.as("counts")).toStream().to(out, counts);
            default -> throw new IllegalArgumentException("no work " + work);
        }
        return b.build();
    }

    /** From nothing to running, as bench/src/bin/streams-load/restore.rs does it. */
    static void restore(String[] a) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", a[1]);
        p.put("application.id", "restore");
        p.put("state.dir", a[5]);
        p.put("num.stream.threads", 2);
        p.put("auto.offset.reset", "earliest");
        p.put("internal.leave.group.on.close", true);
        p.put("default.key.serde", Serdes.String().getClass());
        p.put("default.value.serde", Serdes.String().getClass());
        StreamsBuilder b = new StreamsBuilder();
        b.<String, String>table(a[2], Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as(a[3]));
        KafkaStreams streams = new KafkaStreams(b.build(), p);
        streams.setUncaughtExceptionHandler(e -> { e.printStackTrace(); Runtime.getRuntime().halt(1); return null; });
        AtomicLong restored = new AtomicLong();
        streams.setGlobalStateRestoreListener(new StateRestoreListener() {
            public void onRestoreStart(TopicPartition t, String store, long from, long to) {}
            public void onBatchRestored(TopicPartition t, String store, long to, long count) {}
            public void onRestoreEnd(TopicPartition t, String store, long count) { restored.addAndGet(count); }
        });
        long begun = System.nanoTime(), cpu = OS.getProcessCpuTime();
        streams.start();
        // It may run for a moment before it has its tasks.
        while (restored.get() < Long.parseLong(a[4]) || streams.state() != KafkaStreams.State.RUNNING) {
            Thread.sleep(2);
            if (System.nanoTime() - begun > 280e9) throw new IllegalStateException(restored.get() + " after 280 s");
        }
        double took = (System.nanoTime() - begun) / 1e9, count = restored.get();
        System.out.println(String.format(Locale.ROOT, "rate=%.0f cpu=%.3f rss=%d ready=%.3f restored=%.0f", count / took,
            (OS.getProcessCpuTime() - cpu) / 1e3 / count, peakMib(), took, count));
        if (!streams.close(Duration.ofSeconds(60))) throw new IllegalStateException("did not close");
    }

    static KStream<String, String> counted(StreamsBuilder b, String topic) {
        return b.<String, String>stream(topic).peek((k, v) -> COUNT.incrementAndGet());
    }

    /** The second half, when the JVM is warm. */
    static String watch(long steps) throws Exception {
        await(steps / 2);
        long half = System.nanoTime(), cpu = OS.getProcessCpuTime(), seen = COUNT.get();
        await(steps);
        double done = steps - seen;
        return String.format(Locale.ROOT, "rate=%.0f cpu=%.3f", done / ((System.nanoTime() - half) / 1e9), (OS.getProcessCpuTime() - cpu) / 1e3 / done);
    }

    static void await(long steps) throws Exception {
        long begun = System.nanoTime();
        while (COUNT.get() < steps) {
            Thread.sleep(2);
            if (System.nanoTime() - begun > 240e9) throw new IllegalStateException(COUNT.get() + " of " + steps + " after 240 s");
        }
    }

    static long peakMib() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status")))
            if (line.startsWith("VmHWM")) return Long.parseLong(line.replaceAll("\\D", "")) / 1024;
        return -1;
    }

    static long end(Admin admin, String topic) throws Exception {
        Map<TopicPartition, OffsetSpec> request = IntStream.range(0, PARTITIONS).boxed()
            .collect(Collectors.toMap(i -> new TopicPartition(topic, i), i -> OffsetSpec.latest()));
        return admin.listOffsets(request).all().get().values().stream().mapToLong(ListOffsetsResult.ListOffsetsResultInfo::offset).sum();
    }
}
