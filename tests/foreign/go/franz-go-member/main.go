// A member of a group on franz-go, as ../../README.md has it. usage: franz-go-member BOOTSTRAP TOPIC GROUP PROTOCOL
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// member holds what was processed: by partition, where to go on behind what was processed and not committed.
type member struct {
	topic string
	done  map[int32]kgo.EpochOffset
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(bootstrap, topic, group, protocol string) error {
	m := &member{topic: topic, done: map[int32]kgo.EpochOffset{}}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(m.assigned), kgo.OnPartitionsRevoked(m.revoked), kgo.OnPartitionsLost(m.lost),
	}
	classic := []kgo.Opt{kgo.SessionTimeout(5 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond)}
	switch protocol {
	case "range":
		options = append(append(options, classic...), kgo.Balancers(kgo.RangeBalancer()))
	case "cooperative-sticky":
		options = append(append(options, classic...), kgo.Balancers(kgo.CooperativeStickyBalancer()))
	case "consumer":
		options = append(options, kgo.ServerSideBalancer())
	default:
		return fmt.Errorf("there is no protocol %s", protocol)
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	leaving, leave := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		leave()
	}()
	for leaving.Err() == nil {
		m.process(client, client.PollFetches(leaving))
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance()
	return nil
}

// process runs while rebalances wait.
func (m *member) process(client *kgo.Client, fetches kgo.Fetches) {
	fetches.EachError(func(_ string, _ int32, err error) { fmt.Fprintln(os.Stderr, err) })
	fetches.EachRecord(func(record *kgo.Record) {
		say("record", record.Partition, record.Offset, string(record.Value))
		m.done[record.Partition] = kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset + 1}
	})
	m.commit(client)
}

func (m *member) commit(client *kgo.Client) {
	if len(m.done) == 0 {
		return
	}
	for partition, at := range m.done {
		say("commit", partition, at.Offset)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	offsets := map[string]map[int32]kgo.EpochOffset{m.topic: m.done}
	client.CommitOffsetsSync(ctx, offsets, func(
		_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error,
	) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		for _, topic := range response.Topics {
			for _, answer := range topic.Partitions {
				if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
					fmt.Fprintln(os.Stderr, err)
					continue
				}
				say("committed", answer.Partition, m.done[answer.Partition].Offset)
				delete(m.done, answer.Partition)
			}
		}
	})
}

func (m *member) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	list("assigned", partitions[m.topic])
}

func (m *member) revoked(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	m.commit(client)
	m.forget("revoked", partitions[m.topic])
}

func (m *member) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	m.forget("lost", partitions[m.topic])
}

func (m *member) forget(what string, partitions []int32) {
	for _, partition := range partitions {
		delete(m.done, partition)
	}
	list(what, partitions)
}

func list(what string, partitions []int32) {
	if len(partitions) == 0 {
		return
	}
	words := make([]string, 0, len(partitions))
	for _, partition := range partitions {
		words = append(words, strconv.Itoa(int(partition)))
	}
	say(what, strings.Join(words, ","))
}

func say(words ...any) {
	fmt.Println(append([]any{time.Now().UnixMicro()}, words...)...)
}
