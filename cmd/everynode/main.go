// Command everynode keeps exactly one copy of every agent on every node: control plane, node agent
// and kubectl in one program. See `everynode --help`, or internal/cli for what it consists of.
package main

import (
	"os"

	"github.com/everynode/everynode/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args))
}
