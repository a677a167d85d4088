package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"klamm/foreign/steps"
)

// asked does one step within a bound of time.
func asked(name string, action func(context.Context) error) {
	steps.Run(name, func() error {
		ctx, cancel := bounded()
		defer cancel()
		return action(ctx)
	})
}

// first is the first error that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) topics() {
	asked("create-topic", func(ctx context.Context) error {
		created, err := s.admin.CreateTopic(ctx, 4, 1, nil, s.topic)
		return first(err, created.Err)
	})
	asked("metadata-all", func(ctx context.Context) error {
		topics, err := s.admin.ListTopics(ctx)
		if err != nil {
			return err
		}
		return steps.Check(topics.Has(s.topic) && topics.Has(s.prefix+"-from-klamm"), "topics: %v", topics.Names())
	})
	asked("metadata-one", func(ctx context.Context) error {
		topics, err := s.admin.ListTopics(ctx, s.topic)
		if err != nil {
			return err
		}
		return steps.Check(len(topics) == 1 && len(topics[s.topic].Partitions) == 4, "topics: %v", topics)
	})
}

func (s *scenario) groups() {
	steps.Run("group-of-two", s.groupOfTwo)
	steps.Run("commit", s.commit)
	steps.Run("resume", s.resume)
	defer s.resumed.Close()
	asked("list-groups", func(ctx context.Context) error {
		listed, err := s.admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		_, there := listed[s.group]
		return steps.Check(there, "groups: %v", listed.Groups())
	})
	asked("describe-group", func(ctx context.Context) error {
		described, err := s.admin.DescribeGroups(ctx, s.group)
		if err != nil {
			return err
		}
		group := described[s.group]
		return steps.Check(group.State == "Stable" && len(group.Members) == 1, "described: %+v", group)
	})
	steps.Run("group-offsets", func() error { return s.committed(110) })
}

func (s *scenario) administration() {
	asked("delete-topic", func(ctx context.Context) error {
		deleted, err := s.admin.DeleteTopic(ctx, s.prefix+"-acks-all")
		if err := first(err, deleted.Err); err != nil {
			return err
		}
		topics, err := s.admin.ListTopics(ctx)
		return first(err, steps.Check(!topics.Has(s.prefix+"-acks-all"), "still listed"))
	})
	steps.Run("transaction", s.transaction)
	steps.Run("transaction-offsets", s.transactionOffsets)
	asked("describe-cluster", func(ctx context.Context) error {
		metadata, err := s.admin.BrokerMetadata(ctx)
		return first(err, steps.Check(len(metadata.Brokers) == 1, "brokers: %v", metadata.Brokers))
	})
	asked("describe-configs", func(ctx context.Context) error {
		described, err := s.admin.DescribeTopicConfigs(ctx, s.topic)
		if err != nil {
			return err
		}
		_, err = described.On(s.topic, func(config *kadm.ResourceConfig) error { return config.Err })
		return err
	})
	asked("alter-configs", func(ctx context.Context) error {
		value := "1000"
		set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}
		altered, err := s.admin.AlterTopicConfigs(ctx, set, s.topic)
		if err != nil {
			return err
		}
		return altered[0].Err
	})
	asked("create-partitions", func(ctx context.Context) error {
		grown, err := s.admin.UpdatePartitions(ctx, 8, s.topic)
		return first(err, grown.Error())
	})
	asked("delete-records", func(ctx context.Context) error {
		var offsets kadm.Offsets
		offsets.AddOffset(s.topic, 0, 1, -1)
		deleted, err := s.admin.DeleteRecords(ctx, offsets)
		return first(err, deleted.Error())
	})
	asked("delete-group-offsets", func(ctx context.Context) error {
		var topics kadm.TopicsSet
		topics.Add(s.topic, 0)
		deleted, err := s.admin.DeleteOffsets(ctx, s.group, topics)
		return first(err, deleted.Error())
	})
	asked("delete-group", func(ctx context.Context) error {
		deleted, err := s.admin.DeleteGroups(ctx, s.group)
		return first(err, deleted.Error())
	})
	asked("describe-acls", func(ctx context.Context) error {
		everything := kadm.NewACLs().AnyResource().Topics().Allow().AllowHosts().Deny().DenyHosts().Operations()
		described, err := s.admin.DescribeACLs(ctx, everything)
		if err != nil || len(described) == 0 {
			return fmt.Errorf("there are no rules, and nobody said so: %w", err)
		}
		if err := described[0].Err; !errors.Is(err, kerr.SecurityDisabled) {
			return fmt.Errorf("told %w", err)
		}
		return nil
	})
	steps.Run("consumer-protocol", s.consumerProtocol)
}
