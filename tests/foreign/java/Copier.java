// Copies records in transactions on kafka-clients, as ../README.md has it.
// usage: java Copier BOOTSTRAP GROUP TRANSACTIONAL_ID INPUT OUTPUT SEED

import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class Copier {
    final String bootstrap;
    final String group;
    final String id;
    final String input;
    final String output;
    final Random random;

    Copier(String[] args) {
        bootstrap = args[0];
        group = args[1];
        id = args[2];
        input = args[3];
        output = args[4];
        random = new Random(Long.parseLong(args[5]));
    }

    public static void main(String[] args) {
        Copier copier = new Copier(args);
        while (true) copier.live();
    }

    /** Until something fails that an abort does not mend. */
    void live() {
        KafkaConsumer<byte[], byte[]> consumer = consumer();
        KafkaProducer<byte[], byte[]> producer = producer();
        try {
            producer.initTransactions();
            consumer.subscribe(List.of(input));
            while (true) copy(consumer, producer);
        } catch (RuntimeException failed) {
            System.out.println("anew " + failed);
        } finally {
            producer.close(Duration.ZERO);
            consumer.close(Duration.ofMillis(500));
        }
    }

    /** What one poll gave, in transactions. Between two of them nobody else can have been given its partitions. */
    void copy(KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer) {
        Iterator<ConsumerRecord<byte[], byte[]>> records = consumer.poll(Duration.ofMillis(100)).iterator();
        while (records.hasNext()) {
            try {
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                int wanted = 1 + random.nextInt(30);
                int copied = 0;
                for (; copied < wanted && records.hasNext(); copied++) {
                    ConsumerRecord<byte[], byte[]> record = records.next();
                    producer.send(new ProducerRecord<>(output, record.key(), record.value()));
                    TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                    offsets.put(partition, new OffsetAndMetadata(record.offset() + 1));
                }
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                if (random.nextInt(10) == 0) throw new KafkaException("by chance");
                producer.commitTransaction();
                System.out.println("commit " + copied);
            } catch (KafkaException failed) {
                // Throws where the producer is of no use any more.
                producer.abortTransaction();
                System.out.println("abort " + failed);
                rewind(consumer);
                return;
            }
        }
    }

    static void rewind(KafkaConsumer<byte[], byte[]> consumer) {
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(consumer.assignment());
        for (TopicPartition partition : consumer.assignment()) {
            OffsetAndMetadata offset = committed.get(partition);
            if (offset == null) consumer.seekToBeginning(List.of(partition));
            else consumer.seek(partition, offset);
        }
    }

    KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap,
            "group.id", group,
            "client.id", id,
            "isolation.level", "read_committed",
            "enable.auto.commit", false,
            "auto.offset.reset", "earliest",
            "max.poll.records", 60));
        settings.put("partition.assignment.strategy", RangeAssignor.class.getName());
        settings.put("session.timeout.ms", 2_000);
        settings.put("heartbeat.interval.ms", 200);
        settings.put("fetch.max.wait.ms", 100);
        settings.put("reconnect.backoff.max.ms", 200);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    KafkaProducer<byte[], byte[]> producer() {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap,
            "transactional.id", id,
            "transaction.timeout.ms", 3_000,
            "reconnect.backoff.max.ms", 200));
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }
}
