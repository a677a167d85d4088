// Copies records in transactions on franz-go, as ../../README.md has it.
// usage: franz-go-copier BOOTSTRAP GROUP TRANSACTIONAL_ID INPUT OUTPUT SEED
package main

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type copier struct {
	bootstrap, group, id, input, output string
	random                              *rand.Rand
}

func main() {
	seed, err := strconv.ParseInt(os.Args[6], 10, 64)
	if err != nil {
		panic(err)
	}
	c := &copier{os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], rand.New(rand.NewSource(seed))}
	for {
		fmt.Println("anew", c.live())
	}
}

// live copies until something fails that an abort does not mend.
func (c *copier) live() error {
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(c.bootstrap), kgo.ClientID(c.id), kgo.DefaultProduceTopic(c.output),
		kgo.TransactionalID(c.id), kgo.TransactionTimeout(3*time.Second),
		kgo.ConsumerGroup(c.group), kgo.ConsumeTopics(c.input), kgo.Balancers(kgo.RangeBalancer()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.SessionTimeout(2*time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer session.Close()
	for {
		if err := c.copy(session); err != nil {
			return err
		}
	}
}

// copy is one transaction.
func (c *copier) copy(session *kgo.GroupTransactSession) error {
	ctx := context.Background()
	fetches := session.PollRecords(ctx, 1+c.random.Intn(40))
	for _, failed := range fetches.Errors() {
		fmt.Println("fetch", failed.Partition, failed.Err)
	}
	if fetches.NumRecords() == 0 {
		return nil
	}
	if err := session.Begin(); err != nil {
		return err
	}
	first := kgo.AbortingFirstErrPromise(session.Client())
	fetches.EachRecord(func(record *kgo.Record) {
		session.Produce(ctx, &kgo.Record{Key: record.Key, Value: record.Value}, first.Promise())
	})
	produced := first.Err() == nil
	committed, err := session.End(ctx, kgo.TransactionEndTry(produced && c.random.Intn(10) != 0))
	if committed {
		fmt.Println("commit", fetches.NumRecords())
	} else {
		fmt.Println("abort", produced, err)
	}
	return err
}
