// Reads a topic on a client for Go, as ../../README.md has it.
// usage: reader sarama|franz-go BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	bootstrap, topic := os.Args[2], os.Args[3]
	partitions, fetchBytes := number(os.Args[4]), number(os.Args[5])
	var err error
	if os.Args[1] == "sarama" {
		err = readSarama(bootstrap, topic, partitions, fetchBytes)
	} else {
		err = readFranzGo(bootstrap, topic, partitions, fetchBytes)
	}
	fmt.Println("ended", err)
}

func number(text string) int32 {
	parsed, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		panic(err)
	}
	return int32(parsed)
}

func readSarama(bootstrap, topic string, partitions, fetchBytes int32) error {
	config := sarama.NewConfig()
	config.Consumer.Fetch.Default = fetchBytes
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	config.Consumer.Retry.Backoff = 50 * time.Millisecond
	config.Metadata.Retry.Backoff = 50 * time.Millisecond
	config.Metadata.Retry.Max = 100
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	messages := make(chan *sarama.ConsumerMessage)
	for partition := range partitions {
		reading, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		if err != nil {
			return err
		}
		go func() {
			for message := range reading.Messages() {
				messages <- message
			}
		}()
	}
	for message := range messages {
		fmt.Println("record", message.Partition, message.Offset)
	}
	return nil
}

func readFranzGo(bootstrap, topic string, partitions, fetchBytes int32) error {
	from := map[int32]kgo.Offset{}
	for partition := range partitions {
		from[partition] = kgo.NewOffset().AtStart()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.FetchMaxPartitionBytes(fetchBytes),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return err
	}
	for {
		client.PollFetches(context.Background()).EachRecord(func(record *kgo.Record) {
			fmt.Println("record", record.Partition, record.Offset)
		})
	}
}
