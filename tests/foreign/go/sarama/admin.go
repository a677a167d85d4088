package main

import (
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"klamm/foreign/steps"
)

func (s *scenario) topics() {
	steps.Run("create-topic", func() error {
		return s.admin.CreateTopic(s.topic, &sarama.TopicDetail{NumPartitions: 4, ReplicationFactor: 1}, false)
	})
	steps.Run("metadata-all", func() error {
		if err := s.client.RefreshMetadata(); err != nil {
			return err
		}
		topics, err := s.client.Topics()
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for _, topic := range topics {
			there[topic] = true
		}
		return steps.Check(there[s.topic] && there[s.prefix+"-from-klamm"], "topics: %v", topics)
	})
	steps.Run("metadata-one", func() error {
		described, err := s.admin.DescribeTopics([]string{s.topic})
		if err != nil {
			return err
		}
		return steps.Check(len(described) == 1 && len(described[0].Partitions) == 4, "topics: %v", described)
	})
}

func (s *scenario) administration() {
	steps.Run("delete-topic", func() error {
		deleted := s.prefix + "-acks-all"
		if err := s.admin.DeleteTopic(deleted); err != nil {
			return err
		}
		described, err := s.admin.DescribeTopics([]string{deleted})
		if err != nil {
			return err
		}
		return steps.Check(described[0].Err == sarama.ErrUnknownTopicOrPartition, "still there: %v", described[0].Err)
	})
	steps.Run("describe-cluster", func() error {
		brokers, _, err := s.admin.DescribeCluster()
		if err != nil {
			return err
		}
		return steps.Check(len(brokers) == 1, "brokers: %v", brokers)
	})
	steps.Run("describe-configs", func() error {
		_, err := s.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: s.topic})
		return err
	})
	steps.Run("alter-configs", func() error {
		value := "1000"
		entries := map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}
		return s.admin.IncrementalAlterConfig(sarama.TopicResource, s.topic, entries, false)
	})
	steps.Run("create-partitions", func() error { return s.admin.CreatePartitions(s.topic, 8, nil, false) })
	steps.Run("delete-records", func() error { return s.admin.DeleteRecords(s.topic, map[int32]int64{0: 1}) })
	steps.Run("delete-group-offsets", func() error {
		return s.admin.DeleteConsumerGroupOffset(s.group, s.topic, 0)
	})
	steps.Run("delete-group", func() error { return s.admin.DeleteConsumerGroup(s.group) })
	steps.Run("describe-acls", func() error {
		_, err := s.admin.ListAcls(sarama.AclFilter{
			ResourceType: sarama.AclResourceAny, ResourcePatternTypeFilter: sarama.AclPatternAny,
			Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny,
		})
		if !errors.Is(err, sarama.ErrSecurityDisabled) {
			return fmt.Errorf("there are no rules, and nobody said so: %w", err)
		}
		return nil
	})
}
