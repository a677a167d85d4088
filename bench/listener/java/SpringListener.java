import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.listener.ContainerProperties.AckMode;
import org.springframework.kafka.support.Acknowledgment;
import org.springframework.kafka.support.serializer.JacksonJsonDeserializer;

/** The handlers as a user of spring-kafka writes them. usage: SpringListener BOOTSTRAP MODE RECORDS, with TOPIC in the environment */
public class SpringListener {
    /** Of a topic that is read as it is written, what came while the readers started says nothing. */
    static final int WARM_UP = 2_000;

    static String bootstrap, mode;
    static Meter meter;
    static volatile long sum; // what the handlers compute, so that they are not optimised away

    public record Order(long id, String user, double amount, String city, String note) {}

    public static class Text {
        @KafkaListener(topics = "${bench.topic}")
        public void on(String value) { sum = value.length(); meter.add(1); }
    }

    public static class AckNow {
        @KafkaListener(topics = "${bench.topic}")
        public void on(String value, Acknowledgment ack) { sum = value.length(); ack.acknowledge(); meter.add(1); }
    }

    public static class Batches {
        @KafkaListener(topics = "${bench.topic}", batch = "true")
        public void on(List<String> values) { sum = values.size(); meter.add(values.size()); }
    }

    public static class Orders {
        @KafkaListener(topics = "${bench.topic}")
        public void on(Order order) { sum = order.id(); meter.add(1); }
    }

    public static class Paced {
        @KafkaListener(topics = "${bench.topic}")
        public void on(String value) { meter.came(Long.parseLong(value.substring(0, value.indexOf(' ')))); }
    }

    @Configuration
    @EnableKafka
    public static class Config {
        @Bean
        ConcurrentKafkaListenerContainerFactory<String, Object> kafkaListenerContainerFactory() {
            boolean json = mode.equals("json");
            Map<String, Object> settings = new HashMap<>(Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
                ConsumerConfig.GROUP_ID_CONFIG, "spring-" + ProcessHandle.current().pid(),
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class,
                ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, json ? JacksonJsonDeserializer.class : StringDeserializer.class));
            if (json) settings.put(JacksonJsonDeserializer.VALUE_DEFAULT_TYPE, Order.class);
            var factory = new ConcurrentKafkaListenerContainerFactory<String, Object>();
            factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(settings));
            factory.setConcurrency(mode.equals("text4") ? 4 : 1);
            factory.getContainerProperties().setAckMode(switch (mode) {
                case "ack-record" -> AckMode.RECORD;
                case "ack-now" -> AckMode.MANUAL_IMMEDIATE;
                default -> AckMode.BATCH;
            });
            return factory;
        }

        @Bean
        Object listener() {
            return switch (mode) {
                case "ack-now" -> new AckNow();
                case "batch" -> new Batches();
                case "json" -> new Orders();
                case "latency" -> new Paced();
                default -> new Text();
            };
        }
    }

    /** From the first record handled to the last: time, processor time; or how late each record was. */
    static class Meter {
        static final OperatingSystemMXBean OS = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        final long expected;
        final AtomicLong seen = new AtomicLong();
        final CountDownLatch done = new CountDownLatch(1);
        final long[] lateMicros;
        volatile long first, last, cpuFirst, cpuLast;

        Meter(long expected) {
            this.expected = expected;
            lateMicros = new long[mode.equals("latency") ? (int) expected : 0];
        }

        void add(int records) {
            long now = seen.addAndGet(records);
            if (now == records) { first = System.nanoTime(); cpuFirst = OS.getProcessCpuTime(); }
            if (now >= expected && now - records < expected) { last = System.nanoTime(); cpuLast = OS.getProcessCpuTime(); done.countDown(); }
        }

        void came(long dueMicros) {
            var now = java.time.Instant.now();
            lateMicros[(int) seen.get()] = now.getEpochSecond() * 1_000_000 + now.getNano() / 1_000 - dueMicros;
            add(1);
        }

        String line() throws Exception {
            double seconds = (last - first) / 1e9, cpu = (cpuLast - cpuFirst) / 1e3 / expected;
            String line = String.format(Locale.ROOT, "rate=%.0f cpu=%.3f rss=%d", expected / seconds, cpu, peakMib());
            if (lateMicros.length <= WARM_UP) return line;
            long[] late = Arrays.copyOfRange(lateMicros, WARM_UP, lateMicros.length);
            Arrays.sort(late);
            return line + String.format(Locale.ROOT, " p50=%.3f p99=%.3f", late[(late.length - 1) / 2] / 1e3, late[(late.length - 1) * 99 / 100] / 1e3);
        }

        static long peakMib() throws Exception {
            for (String line : Files.readAllLines(Path.of("/proc/self/status")))
                if (line.startsWith("VmHWM")) return Long.parseLong(line.replaceAll("\\D", "")) / 1024;
            return -1;
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) { System.err.println("usage: SpringListener BOOTSTRAP MODE RECORDS"); System.exit(2); }
        bootstrap = arguments[0];
        mode = arguments[1];
        System.setProperty("bench.topic", System.getenv("TOPIC"));
        meter = new Meter(Long.parseLong(arguments[2]));
        try (var context = new AnnotationConfigApplicationContext(Config.class)) {
            if (!meter.done.await(240, TimeUnit.SECONDS)) throw new IllegalStateException("only " + meter.seen.get() + " of " + meter.expected);
            System.out.println(meter.line());
        }
    }
}
