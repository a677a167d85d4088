// Reads a topic on kafka-clients, as ../README.md has it. usage: java Reader BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES

import java.time.Duration;
import java.util.*;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Reader {
    public static void main(String[] args) {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", args[0],
            "max.partition.fetch.bytes", Integer.parseInt(args[3]),
            "fetch.max.wait.ms", 100,
            "reconnect.backoff.max.ms", 200);
        var bytes = new ByteArrayDeserializer();
        IntStream indexes = IntStream.range(0, Integer.parseInt(args[2]));
        List<TopicPartition> partitions = indexes.mapToObj(index -> new TopicPartition(args[1], index)).toList();
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes);
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        while (true) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                System.out.println("record " + record.partition() + " " + record.offset());
            }
        }
    }
}
