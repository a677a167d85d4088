// The scenario of tests/foreign/README.md on Apache Kafka's own Java client.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class RoundTrip {
    static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        String prefix = args[1];
        readFromKlamm(prefix + "-from-klamm");
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(prefix + "-none", 4, (short) 1))).all().get();
            check(admin.describeTopics(List.of(prefix + "-none")).allTopicNames().get().get(prefix + "-none").partitions().size() == 4, "four partitions");
        }
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            produce(prefix + "-" + codec, codec, 0, 100);
        }
        String group = prefix + "-group";
        groupOfTwo(prefix + "-none", group);
        produce(prefix + "-none", "none", 100, 10);
        resume(prefix + "-none", group);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            long committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values().stream().mapToLong(OffsetAndMetadata::offset).sum();
            check(committed == 110, "110 records committed, not " + committed);
        }
        System.out.println("ok");
    }

    static void produce(String topic, String codec, int first, int count) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "compression.type", codec);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = first; i < first + count; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, "key-" + i, "value-" + i)));
            }
            for (Future<RecordMetadata> one : sent) one.get();
        }
    }

    static void readFromKlamm(String topic) {
        try (var consumer = new KafkaConsumer<>(consumerConfig(null), new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Set<String> seen = new HashSet<>();
            long deadline = System.nanoTime() + 30_000_000_000L;
            while (seen.size() < 500 && System.nanoTime() < deadline) {
                for (var record : consumer.poll(Duration.ofMillis(200))) check(seen.add(record.value()), "twice: " + record.value());
            }
            for (int i = 0; i < 500; i++) check(seen.contains("value-" + i), "missing from klamm: value-" + i);
        }
    }

    static void groupOfTwo(String topic, String group) {
        try (var one = new KafkaConsumer<>(consumerConfig(group), new StringDeserializer(), new StringDeserializer());
             var two = new KafkaConsumer<>(consumerConfig(group), new StringDeserializer(), new StringDeserializer())) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            Set<String> seen = new HashSet<>();
            boolean both = false;
            long deadline = System.nanoTime() + 60_000_000_000L;
            // A member that owned everything for a moment has its records committed before it shares them.
            while ((seen.size() < 100 || !both) && System.nanoTime() < deadline) {
                for (var consumer : List.of(one, two)) {
                    for (var record : consumer.poll(Duration.ofMillis(100))) check(seen.add(record.value()), "twice in the group: " + record.value());
                    consumer.commitSync();
                }
                both = one.assignment().size() == 2 && two.assignment().size() == 2;
            }
            check(seen.size() == 100, "the group saw " + seen.size() + " of 100");
            check(both, "two members own two partitions each");
        }
    }

    static void resume(String topic, String group) {
        try (var consumer = new KafkaConsumer<>(consumerConfig(group), new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            Set<String> seen = new TreeSet<>();
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (seen.size() < 10 && System.nanoTime() < deadline) {
                for (var record : consumer.poll(Duration.ofMillis(200))) seen.add(record.value());
            }
            for (int i = 100; i < 110; i++) check(seen.contains("value-" + i), "resumed without value-" + i);
            check(seen.size() == 10, "resumed with " + seen);
            consumer.commitSync();
        }
    }

    static Map<String, Object> consumerConfig(String group) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest", "enable.auto.commit", false));
        if (group != null) config.put("group.id", group);
        return config;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            System.out.println("failed: " + what);
            System.exit(1);
        }
    }
}
