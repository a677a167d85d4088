// A spring-kafka service: it makes dead letters, answers requests, and asks.
//
// usage: java -cp JARS Spring.java ADDRESS
//   prints "ready"; then for every line on standard input what came of it:
//   "heal"       its listeners fail no more, and print "handled TOPIC VALUE"
//   "ask TEXT"   asks the topic klamm-questions, and prints "reply TEXT"
//   ends at the end of standard input.
import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;
import org.springframework.context.annotation.*;
import org.springframework.kafka.annotation.*;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.*;
import org.springframework.kafka.listener.*;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import org.springframework.messaging.handler.annotation.SendTo;
import org.springframework.scheduling.TaskScheduler;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;
import org.springframework.util.backoff.FixedBackOff;

public class Spring {
    static String address;
    static volatile boolean ill = true;

    static void handle(ConsumerRecord<String, String> record) {
        if (ill) throw new IllegalStateException("no such order: " + record.value());
        System.out.println("handled " + record.topic() + " " + record.value());
    }

    public static class Listeners {
        @KafkaListener(id = "orders", topics = "spring-orders", groupId = "spring-billing")
        public void order(ConsumerRecord<String, String> record) { handle(record); }

        @RetryableTopic(attempts = "2", backOff = @BackOff(delay = 100), kafkaTemplate = "kafkaTemplate")
        @KafkaListener(id = "payments", topics = "spring-payments", groupId = "spring-paying")
        public void payment(ConsumerRecord<String, String> record) { handle(record); }

        @KafkaListener(id = "questions", topics = "spring-questions", groupId = "spring-answering")
        @SendTo
        public String answer(String text) { return text + text; }
    }

    @Configuration @EnableKafkaRetryTopic
    public static class Config {
        @Bean ProducerFactory<String, String> producerFactory() {
            return new DefaultKafkaProducerFactory<>(Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, address),
                new StringSerializer(), new StringSerializer());
        }
        @Bean ConsumerFactory<String, String> consumerFactory() {
            return new DefaultKafkaConsumerFactory<>(Map.of(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, address,
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest"), new StringDeserializer(), new StringDeserializer());
        }
        @Bean @Primary KafkaTemplate<String, String> kafkaTemplate(ProducerFactory<String, String> producers) {
            return new KafkaTemplate<>(producers);
        }
        @Bean KafkaAdmin admin() { return new KafkaAdmin(Map.of("bootstrap.servers", address)); }
        @Bean TaskScheduler taskScheduler() { return new ThreadPoolTaskScheduler(); }
        @Bean ConcurrentKafkaListenerContainerFactory<String, String> kafkaListenerContainerFactory(
                ConsumerFactory<String, String> consumers, KafkaTemplate<String, String> template) {
            var factory = new ConcurrentKafkaListenerContainerFactory<String, String>();
            factory.setConsumerFactory(consumers);
            factory.setReplyTemplate(template);
            factory.setCommonErrorHandler(
                new DefaultErrorHandler(new DeadLetterPublishingRecoverer(template), new FixedBackOff(0, 0)));
            return factory;
        }
        @Bean ReplyingKafkaTemplate<String, String, String> asking(ProducerFactory<String, String> producers,
                ConsumerFactory<String, String> consumers) {
            var properties = new ContainerProperties("klamm-questions-replies");
            properties.setGroupId("spring-asking");
            var asking = new ReplyingKafkaTemplate<>(producers,
                new ConcurrentMessageListenerContainer<String, String>(consumers, properties));
            asking.setDefaultReplyTimeout(Duration.ofSeconds(30));
            return asking;
        }
        @Bean Listeners listeners() { return new Listeners(); }
    }

    @SuppressWarnings("unchecked")
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 1) { System.err.println("usage: Spring ADDRESS"); System.exit(2); }
        address = arguments[0];
        if (address.equals("--version")) { System.out.println(KafkaTemplate.class.getPackage().getImplementationVersion()); return; }
        try (var context = new AnnotationConfigApplicationContext(Config.class)) {
            var asking = (ReplyingKafkaTemplate<String, String, String>) context.getBean("asking");
            asking.waitForAssignment(Duration.ofSeconds(60));
            System.out.println("ready");
            for (var lines = new Scanner(System.in); lines.hasNextLine();) {
                String line = lines.nextLine();
                if (line.equals("heal")) { ill = false; System.out.println("healed"); }
                if (line.startsWith("ask ")) {
                    var asked = asking.sendAndReceive(new ProducerRecord<>("klamm-questions", line.substring(4)));
                    System.out.println("reply " + asked.get(30, TimeUnit.SECONDS).value());
                }
            }
        }
    }
}
