// The scenario of ../README.md on kafka-clients, Apache Kafka's own. usage: java Scenario.java BOOTSTRAP PREFIX

import static java.util.concurrent.TimeUnit.SECONDS;

import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.AppInfoParser;

public class Scenario {
    /** What is known not to work, and what it waits for. */
    static final Map<String, String> NEEDS = new TreeMap<>(Map.of(
        "consumer-protocol", "ConsumerGroupHeartbeat"));
    static final Set<Integer> KEYLESS = Set.of(3, 7);

    final String bootstrap;
    final String prefix;
    final String topic;
    final String group;
    final List<TopicPartition> partitions;
    Admin admin;
    final List<KafkaConsumer<String, String>> members = new ArrayList<>();

    Scenario(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
        topic = prefix + "-none";
        group = prefix + "-group";
        partitions = partitions(topic);
    }

    public static void main(String[] args) {
        say("client kafka-clients " + AppInfoParser.getVersion());
        NEEDS.forEach((step, what) -> say("needs " + step + " " + what));
        new Scenario(args[0], args[1]).run();
    }

    void run() {
        step("connect", () -> {
            admin = Admin.create(config("default.api.timeout.ms", 10_000, "request.timeout.ms", 5_000));
            check(await(admin.describeCluster().nodes()).size() == 1, "not one broker");
        });
        step("create-topic", () -> await(admin.createTopics(List.of(new NewTopic(topic, 4, (short) 1))).all()));
        step("metadata-all", () -> {
            Set<String> topics = await(admin.listTopics().names());
            check(topics.containsAll(List.of(topic, prefix + "-from-klamm")), "topics: " + topics);
        });
        step("metadata-one", () -> {
            TopicDescription described = await(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
            check(described.partitions().size() == 4, "described: " + described);
        });
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            step("produce-" + codec, () -> produce(prefix + "-" + codec, 0, 100, "compression.type", codec));
        }
        for (String acks : List.of("0", "1", "all")) {
            step("acks-" + acks, () ->
                produce(prefix + "-acks-" + acks, 0, 10, "acks", acks, "enable.idempotence", false));
        }
        step("idempotence", () -> produce(prefix + "-idempotence", 0, 10, "enable.idempotence", true));
        step("record-errors", this::recordErrors);
        step("list-offsets", this::listOffsets);
        step("read-klamm", this::readKlamm);
        step("subscribe-pattern", this::subscribePattern);
        step("group-of-two", this::groupOfTwo);
        step("commit", this::commit);
        step("resume", this::resume);
        step("list-groups", () -> {
            Collection<GroupListing> listed = await(admin.listGroups().all());
            check(listed.stream().anyMatch(one -> one.groupId().equals(group)), "groups: " + listed);
        });
        step("describe-group", () -> {
            ConsumerGroupDescription described = await(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            boolean stable = described.groupState() == GroupState.STABLE;
            check(stable && described.members().size() == 1, "described: " + described);
        });
        step("group-offsets", () -> {
            var offsets = await(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
            check(sum(offsets.values()) == 110, "offsets: " + offsets);
        });
        members.forEach(KafkaConsumer::close);
        step("delete-topic", () -> {
            await(admin.deleteTopics(List.of(prefix + "-acks-all")).all());
            check(!await(admin.listTopics().names()).contains(prefix + "-acks-all"), "still listed");
        });
        step("transaction", this::transaction);
        step("transaction-offsets", this::transactionOffsets);
        administration();
        admin.close();
    }

    void administration() {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        step("describe-cluster", () -> await(admin.describeCluster().nodes()));
        step("describe-configs", () -> await(admin.describeConfigs(List.of(resource)).all()));
        step("alter-configs", () -> {
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "1000"), AlterConfigOp.OpType.SET);
            await(admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all());
        });
        step("create-partitions", () ->
            await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(8))).all()));
        step("delete-records", () ->
            await(admin.deleteRecords(Map.of(partitions.get(0), RecordsToDelete.beforeOffset(1))).all()));
        step("delete-group-offsets", () ->
            await(admin.deleteConsumerGroupOffsets(group, Set.of(partitions.get(0))).all()));
        step("delete-group", () -> await(admin.deleteConsumerGroups(List.of(group)).all()));
        step("describe-acls", () -> {
            try {
                await(admin.describeAcls(AclBindingFilter.ANY).values());
                check(false, "there are no rules, and nobody said so");
            } catch (ExecutionException told) {
                check(told.getCause() instanceof SecurityDisabledException, "told " + told.getCause());
            }
        });
        step("consumer-protocol", () -> {
            var reader = consumer(prefix + "-next", "group.protocol", "consumer");
            reader.subscribe(List.of(prefix + "-from-klamm"));
            readFrom(reader);
        });
    }

    void produce(String to, int first, int count, Object... more) throws Exception {
        Map<String, Object> config = config("linger.ms", 50);
        config.putAll(config(more));
        try (var producer = producer(config)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = first; number < first + count; number++) {
                sent.add(producer.send(new ProducerRecord<>(to, "key-" + number, "value-" + number)));
            }
            for (var one : sent) one.get(15, SECONDS);
        }
    }

    /** Of ten records in a batch two lack the key that a compacted topic wants: each is told what is wrong with it. */
    void recordErrors() throws Exception {
        String to = prefix + "-compacted";
        NewTopic compacted = new NewTopic(to, 1, (short) 1).configs(Map.of("cleanup.policy", "compact"));
        await(admin.createTopics(List.of(compacted)).all());
        try (var producer = producer(config("linger.ms", 500))) {
            producer.partitionsFor(to); // The records shall wait for one another, not for metadata.
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < 10; number++) {
                String key = KEYLESS.contains(number) ? null : "key";
                sent.add(producer.send(new ProducerRecord<>(to, key, "value-" + number)));
            }
            for (int number = 0; number < 10; number++) {
                try {
                    sent.get(number).get(15, SECONDS);
                    check(false, number + " was taken");
                } catch (ExecutionException error) {
                    boolean invalid = error.getCause() instanceof InvalidRecordException;
                    boolean another = error.getCause().getMessage().contains("part of a batch");
                    check(KEYLESS.contains(number) ? invalid : another && !invalid, number + ": " + error.getCause());
                }
            }
        }
    }

    void listOffsets() {
        try (var reader = consumer(null)) {
            var ends = reader.endOffsets(partitions);
            check(ends.values().stream().mapToLong(end -> end).sum() == 100, "ends: " + ends);
        }
    }

    void readKlamm() {
        var reader = consumer(null);
        List<TopicPartition> written = partitions(prefix + "-from-klamm");
        reader.assign(written);
        reader.seekToBeginning(written);
        readFrom(reader);
    }

    void subscribePattern() {
        var reader = consumer(prefix + "-pattern");
        reader.subscribe(Pattern.compile(prefix + "-from-.*"));
        readFrom(reader);
    }

    /** Reads the five hundred records that Klamm wrote, and closes the reader. */
    void readFrom(KafkaConsumer<String, String> reader) {
        try (reader) {
            Seen seen = new Seen();
            while (seen.waitsFor(500)) seen.addAll(reader.poll(Duration.ofMillis(200)));
            seen.expect(0, 500);
        }
    }

    void groupOfTwo() {
        for (int number = 0; number < 2; number++) {
            members.add(consumer(group));
            members.get(number).subscribe(List.of(topic));
        }
        Seen seen = new Seen();
        Supplier<List<Integer>> owned = () -> members.stream().map(member -> member.assignment().size()).toList();
        while (seen.waitsFor(100) || !owned.get().equals(List.of(2, 2))) {
            check(seen.waitsFor(Integer.MAX_VALUE), "partitions by member: " + owned.get());
            for (var member : members) {
                seen.addAll(member.poll(Duration.ofMillis(100)));
                // Committed at once: what moves to the other member must not be read there again.
                member.commitSync();
            }
        }
        seen.expect(0, 100);
    }

    void commit() {
        var committed = members.get(0).committed(Set.copyOf(partitions));
        members.forEach(KafkaConsumer::close);
        members.clear();
        check(sum(committed.values()) == 100, "committed: " + committed);
    }

    void resume() throws Exception {
        produce(topic, 100, 10);
        var member = consumer(group);
        members.add(member);
        member.subscribe(List.of(topic));
        Seen seen = new Seen();
        while (seen.waitsFor(10)) seen.addAll(member.poll(Duration.ofMillis(200)));
        seen.expect(100, 10);
        member.commitSync();
    }

    void transaction() throws Exception {
        String to = prefix + "-tx";
        try (var producer = transactional(to)) {
            for (int first : List.of(0, 6, 3)) {
                producer.beginTransaction();
                for (int number = first; number < first + 3; number++) {
                    producer.send(new ProducerRecord<>(to, "value-" + number)).get(15, SECONDS);
                }
                if (first == 6) producer.abortTransaction();
                else producer.commitTransaction();
            }
        }
        try (var reader = consumer(null, "isolation.level", "read_committed")) {
            reader.assign(partitions(to));
            reader.seekToBeginning(partitions(to));
            Seen seen = new Seen();
            while (seen.waitsFor(6)) seen.addAll(reader.poll(Duration.ofMillis(200)));
            seen.expect(0, 6);
        }
    }

    void transactionOffsets() {
        String id = prefix + "-tx-offsets";
        TopicPartition partition = partitions.get(0);
        try (var producer = transactional(id); var reader = consumer(id, "isolation.level", "read_committed")) {
            for (long offset : List.of(2, 5, 3)) {
                producer.beginTransaction();
                var offsets = Map.of(partition, new OffsetAndMetadata(offset));
                producer.sendOffsetsToTransaction(offsets, reader.groupMetadata());
                if (offset == 5) producer.abortTransaction();
                else producer.commitTransaction();
                // Who reads committed records waits for what is not decided.
                long committed = reader.committed(Set.of(partition)).get(partition).offset();
                check(committed == (offset == 5 ? 2 : offset), offset + " was sent, committed: " + committed);
            }
        }
    }

    KafkaProducer<String, String> transactional(String id) {
        var producer = producer(config("transactional.id", id, "max.block.ms", 15_000));
        producer.initTransactions();
        return producer;
    }

    static KafkaProducer<String, String> producer(Map<String, Object> config) {
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    KafkaConsumer<String, String> consumer(String group, Object... more) {
        Map<String, Object> config = config("auto.offset.reset", "earliest", "enable.auto.commit", false);
        config.put("metadata.max.age.ms", 1_000);
        config.putAll(config(more));
        if (group != null) config.put("group.id", group);
        // Members of the new protocol are told both by the broker.
        if (!config.containsKey("group.protocol")) {
            config.putAll(Map.of("session.timeout.ms", 6_000, "heartbeat.interval.ms", 500));
        }
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    Map<String, Object> config(Object... settings) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap));
        for (int index = 0; index < settings.length; index += 2) {
            config.put((String) settings[index], settings[index + 1]);
        }
        return config;
    }

    static List<TopicPartition> partitions(String topic) {
        return IntStream.range(0, 4).mapToObj(number -> new TopicPartition(topic, number)).toList();
    }

    static long sum(Collection<OffsetAndMetadata> offsets) {
        return offsets.stream().filter(Objects::nonNull).mapToLong(OffsetAndMetadata::offset).sum();
    }

    static <T> T await(KafkaFuture<T> future) throws Exception {
        return future.get(15, SECONDS);
    }

    /** The values that were read; none may come twice. */
    static class Seen {
        final Set<String> values = new HashSet<>();
        final long deadline = System.nanoTime() + SECONDS.toNanos(30);

        void addAll(ConsumerRecords<String, String> records) {
            for (var record : records) check(values.add(record.value()), "twice: " + record.value());
        }

        boolean waitsFor(int count) {
            return values.size() < count && System.nanoTime() < deadline;
        }

        void expect(int first, int count) {
            var wanted = IntStream.range(first, first + count).mapToObj(number -> "value-" + number);
            boolean same = values.equals(wanted.collect(Collectors.toSet()));
            check(same, values.size() + " seen, or others than the " + count + " wanted");
        }
    }

    // How it reports: one line for each step, in the words of ../README.md.

    interface Action {
        void run() throws Exception;
    }

    static void step(String name, Action action) {
        try {
            action.run();
            say("step " + name + " ok");
        } catch (Exception error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            say("step " + name + " failed " + cause);
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new IllegalStateException(what);
    }

    static void say(String line) {
        System.out.println(line.replaceAll("\\s+", " "));
    }
}
