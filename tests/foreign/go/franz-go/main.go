// The scenario of ../../README.md on franz-go. usage: franz-go BOOTSTRAP PREFIX
package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"klamm/foreign/steps"
)

var needs = map[string]string{
	"consumer-protocol": "ConsumerGroupHeartbeat",
}

var lacks = map[string]string{
	"record-errors": "a batch fails as a whole",
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// scenario holds what the steps share.
type scenario struct {
	bootstrap, prefix, topic, group string
	admin                           *kadm.Client
	one, two, resumed               *member
}

func (s *scenario) client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(s.bootstrap), kgo.AllowAutoTopicCreation(),
		kgo.MetadataMaxAge(time.Second), kgo.MetadataMinAge(100*time.Millisecond))...)
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 15*time.Second)
}

func (s *scenario) produce(topic string, first, count int, options ...kgo.Opt) error {
	producer, err := s.client(append(options, kgo.ProducerLinger(50*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer producer.Close()
	ctx, cancel := bounded()
	defer cancel()
	records := make([]*kgo.Record, 0, count)
	for number := first; number < first+count; number++ {
		records = append(records, &kgo.Record{
			Topic: topic, Key: fmt.Appendf(nil, "key-%d", number), Value: fmt.Appendf(nil, "value-%d", number),
		})
	}
	return producer.ProduceSync(ctx, records...).FirstErr()
}

// poll reads what comes within 200 ms.
func poll(client *kgo.Client, seen *steps.Seen) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	fetches := client.PollFetches(ctx)
	fetches.EachRecord(func(record *kgo.Record) { seen.Add(record.Value) })
	if err := fetches.Err0(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// readKlamm reads the five hundred records with the given kind of consumer.
func (s *scenario) readKlamm(options ...kgo.Opt) error {
	reader, err := s.client(append(options, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return err
	}
	defer reader.Close()
	seen := steps.NewSeen()
	for seen.WaitsFor(500) {
		if err := poll(reader, seen); err != nil {
			return err
		}
	}
	return seen.Expect(0, 500)
}

// member is a consumer in a group that knows how much it owns.
type member struct {
	*kgo.Client
	owned atomic.Int32
}

func (s *scenario) join() (*member, error) {
	joined := &member{}
	count := func(sign int32) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			joined.owned.Add(sign * int32(len(partitions[s.topic])))
		}
	}
	var err error
	joined.Client, err = s.client(kgo.ConsumeTopics(s.topic), kgo.ConsumerGroup(s.group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(count(1)), kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1)))
	return joined, err
}

// consume polls and commits once.
func (joined *member) consume(seen *steps.Seen) error {
	defer joined.AllowRebalance()
	if err := poll(joined.Client, seen); err != nil {
		return err
	}
	ctx, cancel := bounded()
	defer cancel()
	return joined.CommitUncommittedOffsets(ctx)
}

func (s *scenario) groupOfTwo() (err error) {
	if s.one, err = s.join(); err != nil {
		return err
	}
	if s.two, err = s.join(); err != nil {
		return err
	}
	seen, settled := steps.NewSeen(), false
	for seen.WaitsFor(100) || !settled {
		if !seen.WaitsFor(1_000_000) {
			return fmt.Errorf("partitions by member: %d and %d", s.one.owned.Load(), s.two.owned.Load())
		}
		for _, joined := range []*member{s.one, s.two} {
			if err := joined.consume(seen); err != nil {
				return err
			}
		}
		settled = s.one.owned.Load() == 2 && s.two.owned.Load() == 2
	}
	return seen.Expect(0, 100)
}

func (s *scenario) committed(wanted int64) error {
	sum, err := s.committedBy(s.group)
	return first(err, steps.Check(sum == wanted, "committed %d, not %d", sum, wanted))
}

// committedBy is the sum of a group's committed offsets.
func (s *scenario) committedBy(group string) (sum int64, err error) {
	ctx, cancel := bounded()
	defer cancel()
	offsets, err := s.admin.FetchOffsets(ctx, group)
	offsets.Each(func(offset kadm.OffsetResponse) { sum += offset.At })
	return sum, err
}

func (s *scenario) commit() error {
	err := s.committed(100)
	s.one.Close()
	s.two.Close()
	return err
}

func (s *scenario) resume() (err error) {
	if err := s.produce(s.topic, 100, 10); err != nil {
		return err
	}
	if s.resumed, err = s.join(); err != nil {
		return err
	}
	seen := steps.NewSeen()
	for seen.WaitsFor(10) {
		if err := s.resumed.consume(seen); err != nil {
			return err
		}
	}
	return seen.Expect(100, 10)
}

func (s *scenario) consumerProtocol() error {
	group := s.prefix + "-next"
	if err := s.readKlamm(
		kgo.ServerSideBalancer(), kgo.ConsumerGroup(group), kgo.ConsumeTopics(s.prefix+"-from-klamm"),
	); err != nil {
		return err
	}
	// franz-go turns to a classic group by itself where the broker has no other, so the group is asked for by its kind.
	ctx, cancel := bounded()
	defer cancel()
	described, err := s.admin.DescribeConsumerGroups(ctx, group)
	return first(err, described.Error())
}

func main() {
	prefix := os.Args[2]
	s := &scenario{bootstrap: os.Args[1], prefix: prefix, topic: prefix + "-none", group: prefix + "-group"}
	steps.Begin("franz-go", "github.com/twmb/franz-go", needs, lacks)
	steps.Run("connect", func() error {
		client, err := s.client()
		if err != nil {
			return err
		}
		s.admin = kadm.NewClient(client)
		ctx, cancel := bounded()
		defer cancel()
		return client.Ping(ctx)
	})
	defer s.admin.Close()
	s.topics()
	s.records()
	s.groups()
	s.administration()
}

func (s *scenario) records() {
	for _, codec := range steps.Codecs {
		steps.Run("produce-"+codec, func() error {
			return s.produce(s.prefix+"-"+codec, 0, 100, kgo.ProducerBatchCompression(codecs[codec]))
		})
	}
	for acks, setting := range map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()} {
		steps.Run("acks-"+acks, func() error {
			return s.produce(s.prefix+"-acks-"+acks, 0, 10, kgo.RequiredAcks(setting), kgo.DisableIdempotentWrite())
		})
	}
	steps.Run("idempotence", func() error { return s.produce(s.prefix+"-idempotence", 0, 10) })
	steps.Run("list-offsets", func() error {
		ctx, cancel := bounded()
		defer cancel()
		ends, err := s.admin.ListEndOffsets(ctx, s.topic)
		if err != nil {
			return err
		}
		var sum int64
		ends.Each(func(end kadm.ListedOffset) { sum += end.Offset })
		return steps.Check(sum == 100, "ends: %v", ends)
	})
	steps.Run("read-klamm", func() error { return s.readKlamm(kgo.ConsumeTopics(s.prefix + "-from-klamm")) })
	steps.Run("subscribe-pattern", func() error {
		pattern := kgo.ConsumeTopics("^" + s.prefix + "-from-.*")
		return s.readKlamm(kgo.ConsumeRegex(), pattern, kgo.ConsumerGroup(s.prefix+"-pattern"))
	})
}
