// A member of a group on kafka-clients, as ../README.md has it. usage: java Member BOOTSTRAP TOPIC GROUP PROTOCOL

import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Member implements ConsumerRebalanceListener {
    static final Map<String, Class<?>> ASSIGNORS =
        Map.of("range", RangeAssignor.class, "cooperative-sticky", CooperativeStickyAssignor.class);

    final KafkaConsumer<String, String> consumer;
    /** By partition, where to go on behind what was processed and not committed. */
    final Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
    volatile boolean leaving;

    Member(String bootstrap, String group, String protocol) {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap,
            "group.id", group,
            "auto.offset.reset", "earliest",
            "enable.auto.commit", false,
            "fetch.max.wait.ms", 100));
        if (ASSIGNORS.containsKey(protocol)) {
            settings.put("partition.assignment.strategy", ASSIGNORS.get(protocol).getName());
            settings.put("session.timeout.ms", 5_000);
            settings.put("heartbeat.interval.ms", 500);
        } else {
            settings.put("group.protocol", protocol);
        }
        consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    public static void main(String[] args) throws Exception {
        Member member = new Member(args[0], args[2], args[3]);
        Thread end = new Thread(member::waitForEnd);
        end.setDaemon(true);
        end.start();
        member.run(args[1]);
    }

    void run(String topic) {
        consumer.subscribe(List.of(topic), this);
        while (!leaving) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
            for (ConsumerRecord<String, String> record : records) {
                say("record " + record.partition() + " " + record.offset() + " " + record.value());
                done.put(
                    new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
            commit();
        }
        consumer.close();
    }

    void waitForEnd() {
        try {
            System.in.readAllBytes();
        } catch (IOException gone) {
            // Whoever started this is no more.
        }
        leaving = true;
    }

    void commit() {
        if (done.isEmpty()) {
            return;
        }
        done.forEach((at, offset) -> say("commit " + at.partition() + " " + offset.offset()));
        try {
            consumer.commitSync(done);
            done.forEach((at, offset) -> say("committed " + at.partition() + " " + offset.offset()));
            done.clear();
        } catch (KafkaException refused) {
            System.err.println(refused);
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        say("assigned", partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit();
        done.keySet().removeAll(partitions);
        say("revoked", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        done.keySet().removeAll(partitions);
        say("lost", partitions);
    }

    static void say(String what, Collection<TopicPartition> partitions) {
        if (!partitions.isEmpty()) {
            say(what + " "
                + partitions.stream().map(at -> String.valueOf(at.partition())).collect(Collectors.joining(",")));
        }
    }

    static void say(String words) {
        System.out.println(ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now()) + " " + words);
    }
}
