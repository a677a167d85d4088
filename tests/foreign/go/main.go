// The scenario of tests/foreign/README.md on franz-go.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var bootstrap string

func check(holds bool, format string, arguments ...any) {
	if !holds {
		fmt.Printf("failed: "+format+"\n", arguments...)
		os.Exit(1)
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap), kgo.AllowAutoTopicCreation())...)
	check(err == nil, "client: %v", err)
	return made
}

func produce(topic string, codec kgo.CompressionCodec, first, count int) {
	producer := client(kgo.ProducerBatchCompression(codec))
	defer producer.Close()
	context, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	records := make([]*kgo.Record, 0, count)
	for i := first; i < first+count; i++ {
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i), Value: fmt.Appendf(nil, "value-%d", i)})
	}
	err := producer.ProduceSync(context, records...).FirstErr()
	check(err == nil, "%s: %v", topic, err)
}

// collect polls until `enough` says so, at most a minute; a value seen twice is a failure.
func collect(members []*kgo.Client, commit bool, enough func(seen map[string]bool) bool) map[string]bool {
	seen := map[string]bool{}
	deadline := time.Now().Add(time.Minute)
	for !enough(seen) && time.Now().Before(deadline) {
		for _, member := range members {
			waiting, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			fetches := member.PollFetches(waiting)
			cancel()
			fetches.EachRecord(func(record *kgo.Record) {
				check(!seen[string(record.Value)], "twice: %s", record.Value)
				seen[string(record.Value)] = true
			})
			if commit {
				err := member.CommitUncommittedOffsets(context.Background())
				check(err == nil, "commit: %v", err)
			}
			member.AllowRebalance()
		}
	}
	return seen
}

func expect(seen map[string]bool, first, count int, who string) {
	check(len(seen) == count, "%s saw %d of %d records", who, len(seen), count)
	for i := first; i < first+count; i++ {
		check(seen[fmt.Sprintf("value-%d", i)], "%s missed value-%d", who, i)
	}
}

func member(topic, group string, owned *int) *kgo.Client {
	count := func(sign int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { *owned += sign * len(partitions[topic]) }
	}
	return client(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(count(1)), kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1)))
}

func main() {
	bootstrap = os.Args[1]
	prefix := os.Args[2]

	reader := client(kgo.ConsumeTopics(prefix+"-from-klamm"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	expect(collect([]*kgo.Client{reader}, false, func(seen map[string]bool) bool { return len(seen) >= 500 }), 0, 500, "the reader")
	reader.Close()

	admin := kadm.NewClient(client())
	created, err := admin.CreateTopic(context.Background(), 4, 1, nil, prefix+"-none")
	check(err == nil && created.Err == nil, "create: %v %v", err, created.Err)
	admin.Close()
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		produce(prefix+"-"+name, codec, 0, 100)
	}

	topic, group := prefix+"-none", prefix+"-group"
	var ownedByOne, ownedByTwo int
	one, two := member(topic, group, &ownedByOne), member(topic, group, &ownedByTwo)
	seen := collect([]*kgo.Client{one, two}, true, func(seen map[string]bool) bool {
		return len(seen) >= 100 && ownedByOne == 2 && ownedByTwo == 2
	})
	expect(seen, 0, 100, "the group")
	check(ownedByOne == 2 && ownedByTwo == 2, "two members own two partitions each, not %d and %d", ownedByOne, ownedByTwo)
	one.Close()
	two.Close()

	produce(topic, kgo.NoCompression(), 100, 10)
	var owned int
	resumed := member(topic, group, &owned)
	expect(collect([]*kgo.Client{resumed}, true, func(seen map[string]bool) bool { return len(seen) >= 10 }), 100, 10, "the new member")
	resumed.Close()
	fmt.Println("ok")
}
