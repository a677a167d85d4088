package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"klamm/foreign/steps"
)

// transactions does work in a transaction for each number; that of the largest is aborted.
func (s *scenario) transactions(name string, numbers []int, work func(sarama.SyncProducer, int) error) error {
	config := config()
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Transaction.ID = name
	config.Producer.Transaction.Retry.Max = 5
	config.Net.MaxOpenRequests = 1
	producer, err := sarama.NewSyncProducer([]string{s.bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, number := range numbers {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
		if err := work(producer, number); err != nil {
			return err
		}
		end := producer.CommitTxn
		if number == slices.Max(numbers) {
			end = producer.AbortTxn
		}
		if err := end(); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) transaction() error {
	to := s.prefix + "-tx"
	err := s.transactions(to, []int{0, 6, 3}, func(producer sarama.SyncProducer, start int) error {
		for number := start; number < start+3; number++ {
			value := sarama.StringEncoder(fmt.Sprintf("value-%d", number))
			if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: to, Value: value}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	config := config()
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	client, err := sarama.NewClient([]string{s.bootstrap}, config)
	if err != nil {
		return err
	}
	defer client.Close()
	seen, err := read(client, to, 6)
	if err != nil {
		return err
	}
	return seen.Expect(0, 6)
}

func (s *scenario) transactionOffsets() error {
	name := s.prefix + "-tx-offsets"
	err := s.transactions(name, []int{2, 5, 3}, func(producer sarama.SyncProducer, offset int) error {
		offsets := []*sarama.PartitionOffsetMetadata{{Partition: 0, Offset: int64(offset), LeaderEpoch: -1}}
		return producer.AddOffsetsToTxn(map[string][]*sarama.PartitionOffsetMetadata{s.topic: offsets}, name)
	})
	if err != nil {
		return err
	}
	committed := int64(-1)
	for deadline := time.Now().Add(15 * time.Second); committed != 3 && time.Now().Before(deadline); {
		found, err := s.admin.ListConsumerGroupOffsets(name, map[string][]int32{s.topic: {0}})
		if err != nil {
			return err
		}
		if block := found.GetBlock(s.topic, 0); block != nil {
			committed = block.Offset
		}
		if committed == 5 {
			break
		}
	}
	return steps.Check(committed == 3, "committed: %d", committed)
}
