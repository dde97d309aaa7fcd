package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverSystem is River on PostgreSQL.
type riverSystem struct {
	load   load
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

// riverTask is a task with its payload; River stores it as JSON.
type riverTask struct {
	Payload string `json:"payload"`
}

// Kind is its name in the store.
func (riverTask) Kind() string { return "noop" }

type riverWorker struct {
	river.WorkerDefaults[riverTask]
	begun func(string)
}

// Work does nothing.
func (w *riverWorker) Work(_ context.Context, job *river.Job[riverTask]) error {
	w.begun(job.Args.Payload)
	return nil
}

// eagerFetch is the least that River allows between two fetches.
const eagerFetch = time.Millisecond

func openRiver(ctx context.Context, url string, load load) (system, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	// The clients' connections, and those of the workers besides.
	config.MaxConns = int32(load.clients + load.workers)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	client, err := river.NewClient(driver, &river.Config{Logger: quiet()})
	return &riverSystem{load: load, pool: pool, client: client}, err
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (r *riverSystem) hold(context.Context, string) error { return nil }

func (r *riverSystem) submit(ctx context.Context, _ int, queue, payload string) error {
	_, err := r.client.Insert(ctx, riverTask{payload}, &river.InsertOpts{Queue: queue})
	return err
}

// submitFor uses the faster one of River's two, which goes by COPY.
func (r *riverSystem) submitFor(
	ctx context.Context, _ int, queue string, more func() bool, payload string,
) (int, error) {
	batch := make([]river.InsertManyParams, r.load.batch)
	for i := range batch {
		batch[i] = river.InsertManyParams{
			Args: riverTask{payload}, InsertOpts: &river.InsertOpts{Queue: queue},
		}
	}
	submitted := 0
	for more() {
		inserted, err := r.client.InsertManyFast(ctx, batch)
		if err != nil {
			return submitted, err
		}
		submitted += inserted
	}
	return submitted, nil
}

func (r *riverSystem) work(ctx context.Context, queue string, begun func(string)) (func(), error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{begun: begun})
	config := &river.Config{
		Logger:  quiet(),
		Queues:  map[string]river.QueueConfig{queue: {MaxWorkers: r.load.workers}},
		Workers: workers,
	}
	if r.load.eager {
		config.FetchCooldown, config.FetchPollInterval = eagerFetch, eagerFetch
	}
	client, err := river.NewClient(riverpgxv5.New(r.pool), config)
	if err != nil {
		return nil, err
	}
	stop := func() { _ = client.Stop(context.WithoutCancel(ctx)) }
	return stop, client.Start(ctx)
}

func (r *riverSystem) unfinished(ctx context.Context, queue string) (int, error) {
	unfinished := 0
	err := r.pool.QueryRow(ctx, `SELECT count(*) FROM river_job WHERE queue = $1 AND state
		IN ('available', 'running', 'pending', 'retryable', 'scheduled')`, queue).Scan(&unfinished)
	return unfinished, err
}

func (r *riverSystem) close() { r.pool.Close() }
