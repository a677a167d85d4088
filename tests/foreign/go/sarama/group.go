package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"klamm/foreign/steps"
)

// member is a consumer in a group; sarama calls it for each partition that it is given.
type member struct {
	group    sarama.ConsumerGroup
	cancel   context.CancelFunc
	ended    chan error
	owned    atomic.Int32
	messages chan<- *sarama.ConsumerMessage
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	for _, partitions := range session.Claims() {
		m.owned.Store(int32(len(partitions)))
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.owned.Store(0)
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.messages <- message
		session.MarkMessage(message, "")
		// Committed before the claim ends: what moves to the other member must not be read there again.
		if len(claim.Messages()) == 0 {
			session.Commit()
		}
	}
	return nil
}

func (s *scenario) join(messages chan<- *sarama.ConsumerMessage) (*member, error) {
	group, err := sarama.NewConsumerGroup([]string{s.bootstrap}, s.group, config())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	joined := &member{group: group, cancel: cancel, ended: make(chan error, 1), messages: messages}
	go func() {
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{s.topic}, joined); err != nil {
				joined.ended <- err
				return
			}
		}
		joined.ended <- nil
	}()
	return joined, nil
}

func (m *member) leave() error {
	m.cancel()
	err := <-m.ended
	if closed := m.group.Close(); err == nil {
		err = closed
	}
	return err
}

func (s *scenario) groupOfTwo() error {
	messages := make(chan *sarama.ConsumerMessage, 1000)
	for range 2 {
		joined, err := s.join(messages)
		if err != nil {
			return err
		}
		s.members = append(s.members, joined)
	}
	seen, settled := steps.NewSeen(), false
	for seen.WaitsFor(100) || !settled {
		if !seen.WaitsFor(1_000_000) {
			return fmt.Errorf("partitions by member: %d and %d", s.members[0].owned.Load(), s.members[1].owned.Load())
		}
		select {
		case message := <-messages:
			seen.Add(message.Value)
		case <-time.After(50 * time.Millisecond):
		}
		settled = s.members[0].owned.Load() == 2 && s.members[1].owned.Load() == 2
	}
	return seen.Expect(0, 100)
}

func (s *scenario) commit() error {
	for _, joined := range s.members {
		if err := joined.leave(); err != nil {
			return err
		}
	}
	return s.committed(100)
}

func (s *scenario) committed(wanted int64) error {
	offsets, err := s.admin.ListConsumerGroupOffsets(s.group, nil)
	if err != nil {
		return err
	}
	var sum int64
	for _, block := range offsets.Blocks[s.topic] {
		sum += block.Offset
	}
	return steps.Check(sum == wanted, "committed %d, not %d", sum, wanted)
}

func (s *scenario) resume() (err error) {
	if err := s.produce(s.topic, 100, 10, func(*sarama.Config) {}); err != nil {
		return err
	}
	messages := make(chan *sarama.ConsumerMessage, 1000)
	if s.resumed, err = s.join(messages); err != nil {
		return err
	}
	seen := steps.NewSeen()
	for seen.WaitsFor(10) {
		select {
		case message := <-messages:
			seen.Add(message.Value)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return seen.Expect(100, 10)
}

func (s *scenario) groups() {
	steps.Run("list-groups", func() error {
		listed, err := s.admin.ListConsumerGroups()
		if err != nil {
			return err
		}
		_, there := listed[s.group]
		return steps.Check(there, "groups: %v", listed)
	})
	steps.Run("describe-group", func() error {
		described, err := s.admin.DescribeConsumerGroups([]string{s.group})
		if err != nil {
			return err
		}
		return steps.Check(described[0].State == "Stable" && len(described[0].Members) == 1, "described: %+v", described[0])
	})
	// What the handler has marked last is committed for certain when the member has left.
	steps.Run("group-offsets", func() error {
		if err := s.resumed.leave(); err != nil {
			return err
		}
		return s.committed(110)
	})
}
