// The rate-limit service that Envoy's makers publish, as tests run it: the service itself, unchanged, and in place of
// Redis a store in this process. Its settings are environment variables, as for the service.
package main

import (
	"fmt"
	"os"

	"github.com/alicebob/miniredis/v2"
	"github.com/envoyproxy/ratelimit/src/service_cmd/runner"
	"github.com/envoyproxy/ratelimit/src/settings"
)

func main() {
	store, err := miniredis.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	chosen := settings.NewSettings()
	chosen.RedisUrl = store.Addr()
	chosen.RedisSocketType = "tcp"
	service := runner.NewRunner(chosen)
	service.Run()
}
