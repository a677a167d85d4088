package main

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klamm/foreign/steps"
)

func (s *scenario) transaction() error {
	to := s.prefix + "-tx"
	producer, err := s.client(kgo.TransactionalID(to))
	if err != nil {
		return err
	}
	defer producer.Close()
	ctx, cancel := bounded()
	defer cancel()
	for _, start := range []int{0, 6, 3} {
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		for number := start; number < start+3; number++ {
			record := &kgo.Record{Topic: to, Value: fmt.Appendf(nil, "value-%d", number)}
			if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
				return err
			}
		}
		if err := producer.EndTransaction(ctx, kgo.TransactionEndTry(start != 6)); err != nil {
			return err
		}
	}
	reader, err := s.client(kgo.ConsumeTopics(to), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer reader.Close()
	seen := steps.NewSeen()
	for seen.WaitsFor(6) {
		if err := poll(reader, seen); err != nil {
			return err
		}
	}
	return seen.Expect(0, 6)
}

// transactionOffsets reads what Klamm wrote in transactions of a group's session, the first of which is aborted.
func (s *scenario) transactionOffsets() error {
	group := s.prefix + "-tx-offsets"
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(s.bootstrap), kgo.TransactionalID(group),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(s.prefix+"-from-klamm"), kgo.RequireStableFetchOffsets(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := bounded()
	defer cancel()
	aborted, read := 0, 0
	for read < 500 && ctx.Err() == nil {
		fetches := session.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return err
		}
		if err := session.Begin(); err != nil {
			return err
		}
		committed, err := session.End(ctx, kgo.TransactionEndTry(aborted > 0))
		switch {
		case err != nil:
			return err
		case committed:
			read += fetches.NumRecords()
		default:
			aborted++
		}
	}
	if err := steps.Check(aborted > 0 && read == 500, "%d aborted, %d read", aborted, read); err != nil {
		return err
	}
	var sum int64
	for deadline := time.Now().Add(15 * time.Second); sum != 500 && time.Now().Before(deadline); {
		if sum, err = s.committedBy(group); err != nil {
			return err
		}
	}
	return steps.Check(sum == 500, "committed: %d", sum)
}
