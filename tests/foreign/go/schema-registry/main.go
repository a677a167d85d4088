// A schema registry that we did not write, franz-go's own for tests, on a free port of this machine. Prints
// `ready URL` and ends with its standard input.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func main() {
	registry := srfake.New()
	defer registry.Close()
	fmt.Println("ready", registry.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
