// Command peers puts one load on one task queue and prints what it measured, as one JSON
// object. The script run starts the servers and calls it.
//
//	peers -system NAME -address ADDRESS [OPTIONS]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// load is what a system is given to do; it is the same for all.
type load struct {
	clients int
	workers int
	// seconds are how long tasks are submitted for the rates of submission.
	seconds float64
	// tasks are those whose whole lives are measured.
	tasks int
	// samples are the tasks that are submitted to an idle system, perSecond of them.
	samples   int
	perSecond float64
	payload   int
	batch     int
	batchers  int
	// eager shortens the rests of workers that poll; stock otherwise.
	eager bool
}

// figures are what came of it. A rate of 0 means that the system does not offer it.
type figures struct {
	SubmitsPerSecond float64 `json:"submits_per_second"`
	BatchedPerSecond float64 `json:"batched_per_second"`
	LivesPerSecond   float64 `json:"lives_per_second"`
	LatencyP50Millis float64 `json:"latency_p50_ms"`
	LatencyP99Millis float64 `json:"latency_p99_ms"`
}

// limit bounds a whole run: a system that hangs fails it.
const limit = 10 * time.Minute

var systems = map[string]func(ctx context.Context, address string, load load) (system, error){
	"asynq":         openAsynq,
	"beanstalkd":    openBeanstalkd,
	"river":         openRiver,
	"taskyard":      openTaskyard,
	"taskyard-grpc": openTaskyardGenerated,
}

func main() {
	var load load
	name := flag.String("system", "", "`name` of the system: "+strings.Join(names(), ", "))
	address := flag.String("address", "", "`address` of its server: host:port, or a URL for river")
	flag.IntVar(&load.clients, "clients", 64, "clients that submit, each with a connection")
	flag.IntVar(&load.workers, "workers", 8, "tasks that run at a time")
	flag.Float64Var(&load.seconds, "seconds", 3, "how long to submit, for each rate of submission")
	flag.IntVar(&load.tasks, "tasks", 2_000, "tasks whose whole lives are measured")
	flag.IntVar(&load.samples, "samples", 200, "tasks that are submitted to the idle system")
	flag.Float64Var(&load.perSecond, "per-second", 20, "how many of them in a second")
	flag.IntVar(&load.payload, "payload", 200, "bytes of a task, at least 20")
	flag.IntVar(&load.batch, "batch", 1_000, "tasks of a batch")
	flag.IntVar(&load.batchers, "batchers", 4, "clients that submit batches")
	flag.BoolVar(&load.eager, "eager", false, "shorten the rests of workers that poll")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	measured, err := run(ctx, *name, *address, load)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(measured)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "peers: %s at %s: %v\n", *name, *address, err)
		os.Exit(1)
	}
}

func names() []string {
	var all []string
	for name := range systems {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func run(ctx context.Context, name, address string, load load) (figures, error) {
	open, known := systems[name]
	if !known {
		return figures{}, fmt.Errorf("no such system; there are %s", strings.Join(names(), ", "))
	}
	system, err := open(ctx, address, load)
	if err != nil {
		return figures{}, fmt.Errorf("connecting: %w", err)
	}
	defer system.close()
	return measure(ctx, system, load)
}
