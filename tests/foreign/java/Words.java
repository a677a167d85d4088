// Kafka Streams' word count, exactly once. usage: java Words BOOTSTRAP INPUT OUTPUT STATE_DIR
// Counts the words of the lines in INPUT, writes each new count of a word to OUTPUT, and ends politely at the end of its
// standard input. A thread that fails is replaced. Prints `state STATE` when its state changes.

import java.time.Duration;
import java.util.*;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.*;

public class Words {
    public static void main(String[] args) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(args[1], Consumed.with(Serdes.String(), Serdes.String()))
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
            .count()
            .toStream()
            .mapValues(count -> Long.toString(count))
            .to(args[2], Produced.with(Serdes.String(), Serdes.String()));

        Properties settings = new Properties();
        settings.put("application.id", "words");
        settings.put("bootstrap.servers", args[0]);
        settings.put("state.dir", args[3]);
        settings.put("processing.guarantee", "exactly_once_v2");
        settings.put("commit.interval.ms", 50);
        settings.put("num.stream.threads", 2);
        // Each count is written, so that one too many or too few shows.
        settings.put("statestore.cache.max.bytes", 0);
        settings.put("auto.offset.reset", "earliest");
        // Whoever was killed is soon missed.
        settings.put("consumer.session.timeout.ms", 6_000);
        settings.put("reconnect.backoff.max.ms", 200);

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(failed -> {
            System.out.println("failed " + failed);
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        streams.start();
        System.in.readAllBytes();
        streams.close(Duration.ofSeconds(10));
    }
}
