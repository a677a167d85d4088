// The scenario of ../../README.md on sarama. usage: sarama BOOTSTRAP PREFIX
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"

	"klamm/foreign/steps"
)

var needs = map[string]string{}

var lacks = map[string]string{
	"subscribe-pattern": "topics are named one by one",
	"record-errors":     "a batch fails as a whole",
	"consumer-protocol": "classic groups only",
}

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

var levels = map[string]sarama.RequiredAcks{"0": sarama.NoResponse, "1": sarama.WaitForLocal, "all": sarama.WaitForAll}

// scenario holds what the steps share.
type scenario struct {
	bootstrap, prefix, topic, group string
	client                          sarama.Client
	admin                           sarama.ClusterAdmin
	members                         []*member
	resumed                         *member
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	config.Producer.Timeout = 10 * time.Second
	config.Producer.Retry.Backoff = 100 * time.Millisecond
	config.Metadata.RefreshFrequency = time.Second
	config.Admin.Timeout = 10 * time.Second
	config.Admin.Retry.Max = 1
	// A commit shares its connection with a waiting fetch, and its answer comes after that one's.
	config.Consumer.MaxWaitTime = 50 * time.Millisecond
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return config
}

func (s *scenario) produce(topic string, first, count int, change func(*sarama.Config)) error {
	config := config()
	config.Producer.RequiredAcks = sarama.WaitForAll
	change(config)
	producer, err := sarama.NewSyncProducer([]string{s.bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	messages := make([]*sarama.ProducerMessage, 0, count)
	for number := first; number < first+count; number++ {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(fmt.Sprintf("key-%d", number)),
			Value: sarama.StringEncoder(fmt.Sprintf("value-%d", number)),
		})
	}
	return producer.SendMessages(messages)
}

func (s *scenario) listOffsets() error {
	var sum int64
	for partition := range int32(4) {
		end, err := s.client.GetOffset(s.topic, partition, sarama.OffsetNewest)
		if err != nil {
			return err
		}
		sum += end
	}
	return steps.Check(sum == 100, "ends: %d", sum)
}

func (s *scenario) readKlamm() error {
	seen, err := read(s.client, s.prefix+"-from-klamm", 500)
	if err != nil {
		return err
	}
	return seen.Expect(0, 500)
}

// read waits for so many records of a topic with four partitions.
func read(client sarama.Client, topic string, count int) (*steps.Seen, error) {
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	messages := make(chan *sarama.ConsumerMessage)
	for partition := range int32(4) {
		reader, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		go func() {
			for message := range reader.Messages() {
				messages <- message
			}
		}()
		defer reader.AsyncClose()
	}
	seen := steps.NewSeen()
	for seen.WaitsFor(count) {
		select {
		case message := <-messages:
			seen.Add(message.Value)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return seen, nil
}

func main() {
	prefix := os.Args[2]
	s := &scenario{bootstrap: os.Args[1], prefix: prefix, topic: prefix + "-none", group: prefix + "-group"}
	steps.Begin("sarama", "github.com/IBM/sarama", needs, lacks)
	steps.Run("connect", s.connect)
	s.topics()
	for _, codec := range steps.Codecs {
		steps.Run("produce-"+codec, func() error {
			return s.produce(prefix+"-"+codec, 0, 100, func(config *sarama.Config) {
				config.Producer.Compression = codecs[codec]
			})
		})
	}
	for acks, level := range levels {
		steps.Run("acks-"+acks, func() error {
			return s.produce(prefix+"-acks-"+acks, 0, 10, func(config *sarama.Config) {
				config.Producer.RequiredAcks = level
			})
		})
	}
	steps.Run("idempotence", func() error {
		return s.produce(prefix+"-idempotence", 0, 10, func(config *sarama.Config) {
			config.Producer.Idempotent = true
			config.Net.MaxOpenRequests = 1
		})
	})
	steps.Run("list-offsets", s.listOffsets)
	steps.Run("read-klamm", s.readKlamm)
	steps.Run("group-of-two", s.groupOfTwo)
	steps.Run("commit", s.commit)
	steps.Run("resume", s.resume)
	s.groups()
	steps.Run("transaction", s.transaction)
	steps.Run("transaction-offsets", s.transactionOffsets)
	s.administration()
}

func (s *scenario) connect() (err error) {
	if s.client, err = sarama.NewClient([]string{s.bootstrap}, config()); err != nil {
		return err
	}
	s.admin, err = sarama.NewClusterAdminFromClient(s.client)
	return err
}
