// Package steps is how the Go programs report: one line for each step, in the words of ../../README.md.
package steps

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Codecs are the compressions of Kafka, in the order of their numbers.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// ErrUnsupported says that the client has no such thing.
var ErrUnsupported = errors.New("unsupported")

func say(words ...string) {
	fmt.Println(strings.Join(strings.Fields(strings.Join(words, " ")), " "))
}

// Begin says who runs, what is known not to work and why, and what the client does not have.
func Begin(client, module string, needs, lacks map[string]string) {
	say("client", client, version(module))
	for _, step := range slices.Sorted(maps.Keys(needs)) {
		say("needs", step, needs[step])
	}
	for _, step := range slices.Sorted(maps.Keys(lacks)) {
		say("step", step, "unsupported", lacks[step])
	}
}

// version is the one of the module that was linked in.
func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return "unknown"
}

// Run does one step and says how it went.
func Run(name string, action func() error) {
	switch err := action(); {
	case err == nil:
		say("step", name, "ok")
	case errors.Is(err, ErrUnsupported):
		say("step", name, "unsupported", err.Error())
	default:
		say("step", name, "failed", err.Error())
	}
}

// Check is an error with what should have been when it does not hold.
func Check(holds bool, format string, arguments ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

// Seen collects the values that were read; none may come twice.
type Seen struct {
	values   map[string]bool
	twice    []string
	deadline time.Time
}

// NewSeen begins to wait for records.
func NewSeen() *Seen {
	return &Seen{values: map[string]bool{}, deadline: time.Now().Add(30 * time.Second)}
}

// Add takes a value.
func (seen *Seen) Add(value []byte) {
	if seen.values[string(value)] {
		seen.twice = append(seen.twice, string(value))
	}
	seen.values[string(value)] = true
}

// WaitsFor says whether to go on reading.
func (seen *Seen) WaitsFor(count int) bool {
	return len(seen.values) < count && time.Now().Before(seen.deadline)
}

// Expect is an error unless just the records from `first` on were seen, each once.
func (seen *Seen) Expect(first, count int) error {
	if len(seen.twice) > 0 {
		return fmt.Errorf("twice: %s", seen.twice[0])
	}
	for number := first; number < first+count; number++ {
		if value := fmt.Sprintf("value-%d", number); !seen.values[value] {
			return fmt.Errorf("%d seen, missing %s", len(seen.values), value)
		}
	}
	return Check(len(seen.values) == count, "%d seen, not %d", len(seen.values), count)
}
