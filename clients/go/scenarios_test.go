package taskyard_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	taskyard "github.com/taskyard/taskyard/clients/go"
	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// patience is long enough that only a hang exceeds it.
const patience = time.Minute

// about is what a step says; each uses its part. What it does not know it refuses.
type about struct {
	Request  json.RawMessage   `json:"request"`
	Requests []json.RawMessage `json:"requests"`
	As       string            `json:"as"`
	// Expect is an object, or a list.
	Expect     json.RawMessage `json:"expect"`
	ExpectAll  *int            `json:"expect_all"`
	Error      *expectedError  `json:"error"`
	Background bool            `json:"background"`
	Deadline   span            `json:"deadline"`
	Timeout    *span           `json:"timeout"`
	MaxOutage  *span           `json:"max_outage"`
	Submit     string          `json:"submit"`
	Task       string          `json:"task"`
	TaskID     *string         `json:"task_id"`
	Watch      string          `json:"watch"`
	Type       string          `json:"type"`
	Start      string          `json:"start"`
	After      *string         `json:"after"`
	AfterTask  string          `json:"after_task"`
	Filter     json.RawMessage `json:"filter"`
	Signal     string          `json:"signal"`
}

type expectedError struct {
	Code       string   `json:"code"`
	Reason     string   `json:"reason"`
	Violations []string `json:"violations"`
	Metadata   []string `json:"metadata"`
	RetryAfter bool     `json:"retry_after"`
}

// span is a duration as protobuf's JSON writes it, which Go reads as well.
type span time.Duration

func (s *span) UnmarshalText(text []byte) error {
	duration, err := time.ParseDuration(string(text))
	*s = span(duration)
	return err
}

type stage struct {
	*testing.T
	ctx        context.Context
	dir        string
	settings   []string
	server     *server
	client     *taskyard.Client
	tasks      map[string]*taskyardv1.SubmitResponse
	background map[string]chan answer
	watches    map[string]*seeing
}

type answer struct {
	submitted *taskyardv1.SubmitResponse
	err       error
}

// seeing is a watch, and what it saw so far that no step has looked at.
type seeing struct {
	watcher  *taskyard.Watcher
	filtered bool
	unread   []*taskyardv1.Event
	last     uint64
	count    int
}

func TestScenarios(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "scenarios.json"))
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		Scenarios []struct {
			Name   string
			Server []string
			Steps  []map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Scenarios) <= 10 {
		t.Fatalf("only %d scenarios", len(table.Scenarios))
	}
	for _, scenario := range table.Scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			t.Cleanup(func() { report(t, scenario.Name) })
			play(t, scenario.Server, scenario.Steps)
		})
	}
}

// report appends how a scenario ended to the file that SCENARIO_REPORT names.
func report(t *testing.T, name string) {
	path := os.Getenv("SCENARIO_REPORT")
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	ended := "ok"
	if t.Failed() {
		ended = "failed"
	}
	_, err = fmt.Fprintf(file, "go\t%s\t%s\n", name, ended)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Error(err)
	}
}

func play(t *testing.T, settings []string, steps []map[string]json.RawMessage) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := &stage{
		T: t, ctx: ctx, dir: t.TempDir(), settings: settings,
		tasks:      map[string]*taskyardv1.SubmitResponse{},
		background: map[string]chan answer{},
		watches:    map[string]*seeing{},
	}
	s.start("127.0.0.1:0")
	client, err := taskyard.Connect(ctx, s.server.address)
	s.must(err)
	defer client.Close()
	s.client = client
	defer func() {
		for _, seeing := range s.watches {
			seeing.watcher.Close()
		}
	}()
	for number, step := range steps {
		for name, text := range step {
			t.Logf("%d: %s %s", number+1, name, text)
			var about about
			decoder := json.NewDecoder(strings.NewReader(string(text)))
			decoder.DisallowUnknownFields()
			s.must(decoder.Decode(&about))
			begun := time.Now()
			s.step(name, about)
			s.checkTime(about, time.Since(begun))
		}
	}
}

// checkTime: a step that says how long it may take ends about then.
func (s *stage) checkTime(about about, took time.Duration) {
	s.Helper()
	bound := time.Duration(about.Deadline)
	if about.Timeout != nil {
		bound = time.Duration(*about.Timeout)
	} else if bound == 0 {
		return
	}
	if took > bound+5*time.Second {
		s.Fatalf("it took %v", took)
	}
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *stage) step(name string, about about) {
	s.Helper()
	switch name {
	case "submit":
		s.submit(about)
	case "finish":
		ended := <-s.background[about.Submit]
		s.checkSubmitted(about.Submit, about, ended)
	case "submit_and_wait":
		task, err := s.client.SubmitAndWait(s.ctx, read(s, about.Request, &taskyardv1.SubmitRequest{}))
		s.must(err)
		s.checkTask(task, about.Expect)
	case "submit_and_watch":
		s.submitAndWatch(about)
	case "submit_stream":
		s.submitStream(about)
	case "wait":
		s.wait(about)
	case "cancel":
		s.cancel(about)
	case "watch":
		s.watch(about)
	case "watch_until":
		s.watchUntil(about)
	case "watch_error":
		for _, err := range s.watches[about.Watch].watcher.All(s.ctx) {
			if err != nil {
				s.checkError(err, about.Error)
				return
			}
		}
		s.Fatal("the watch ended without an error")
	case "stop":
		s.stop(about.Signal)
	case "drain":
		s.server.signal(syscall.SIGTERM)
	case "start":
		s.server.wait()
		s.start(s.server.address)
	case "restart":
		s.stop(about.Signal)
		s.start(s.server.address)
	case "freeze":
		s.server.signal(syscall.SIGSTOP)
	case "thaw":
		s.server.signal(syscall.SIGCONT)
	default:
		s.Fatalf("%s is no step", name)
	}
}

func (s *stage) start(listen string) {
	s.Helper()
	s.server = startServer(s, listen, filepath.Join(s.dir, "data"), s.settings...)
}

func (s *stage) stop(signal string) {
	s.server.end(map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}[signal])
}

func (s *stage) submit(about about) {
	s.Helper()
	request := read(s, about.Request, &taskyardv1.SubmitRequest{})
	deadline := cmp.Or(time.Duration(about.Deadline), patience)
	ended := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(s.ctx, deadline)
		defer cancel()
		submitted, err := s.client.Submit(ctx, request)
		ended <- answer{submitted, err}
	}()
	if about.Background {
		s.background[about.As] = ended
	} else {
		s.checkSubmitted(about.As, about, <-ended)
	}
}

func (s *stage) checkSubmitted(name string, about about, ended answer) {
	s.Helper()
	if about.Error != nil {
		s.checkError(ended.err, about.Error)
		return
	}
	s.must(ended.err)
	if about.Expect != nil {
		expect := into[struct {
			Existing   bool
			SameTaskAs string `json:"same_task_as"`
		}](s, about.Expect)
		if ended.submitted.GetExisting() != expect.Existing {
			s.Fatalf("existing is %v", ended.submitted.GetExisting())
		}
		if expect.SameTaskAs != "" && ended.submitted.GetTaskId() != s.tasks[expect.SameTaskAs].GetTaskId() {
			s.Fatalf("%v is another task than %v", ended.submitted, s.tasks[expect.SameTaskAs])
		}
	}
	s.tasks[name] = ended.submitted
}

func (s *stage) submitAndWatch(about about) {
	s.Helper()
	watcher := s.client.SubmitAndWatch(read(s, about.Request, &taskyardv1.SubmitRequest{}))
	var taskID string
	var types []string
	for seen, err := range watcher.All(s.ctx) {
		s.must(err)
		switch seen := seen.(type) {
		case taskyard.Submitted:
			taskID = seen.GetTaskId()
		case taskyard.Events:
			for _, event := range seen.Events {
				if event.GetTaskId() != taskID {
					s.Fatalf("%v is not of %s", event, taskID)
				}
				types = append(types, typeName(event))
			}
		}
	}
	s.same(types, into[[]string](s, about.Expect))
}

func (s *stage) submitStream(about about) {
	s.Helper()
	stream, err := s.client.Tasks.SubmitStream(s.ctx)
	s.must(err)
	for i, one := range about.Requests {
		request := read(s, one, &taskyardv1.SubmitRequest{})
		s.must(stream.Send(&taskyardv1.SubmitStreamRequest{Sequence: uint64(i + 1), Request: request}))
	}
	s.must(stream.CloseSend())
	var acks []*taskyardv1.SubmitAck
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			break
		}
		s.must(err)
		acks = append(acks, message.GetAcks()...)
	}
	expect := into[[]struct {
		Sequence uint64
		expectedError
	}](s, about.Expect)
	if len(acks) != len(expect) {
		s.Fatalf("%d acknowledgements", len(acks))
	}
	for i, ack := range acks {
		if ack.GetSequence() != expect[i].Sequence {
			s.Fatalf("%v is not number %d", ack, expect[i].Sequence)
		}
		if refused := taskyard.FromStatus(ack.GetError()); refused != nil {
			s.checkError(refused, &expect[i].expectedError)
		} else if ack.GetAck() == nil || expect[i].Code != "" {
			s.Fatalf("%v is not refused", ack)
		}
	}
}

func (s *stage) wait(about about) {
	s.Helper()
	var task *taskyardv1.Task
	var err error
	if about.Timeout == nil {
		task, err = s.client.Wait(s.ctx, s.taskID(about))
	} else {
		task, err = s.client.WaitUpTo(s.ctx, s.taskID(about), time.Duration(*about.Timeout))
	}
	if about.Error != nil {
		s.checkError(err, about.Error)
		return
	}
	s.must(err)
	s.checkTask(task, about.Expect)
}

func (s *stage) cancel(about about) {
	s.Helper()
	request := &taskyardv1.CancelTaskRequest{TaskId: s.taskID(about)}
	answer, err := s.client.Tasks.CancelTask(s.ctx, request)
	if about.Error != nil {
		s.checkError(err, about.Error)
		return
	}
	s.must(err)
	s.checkTask(answer.GetTask(), about.Expect)
}

func (s *stage) watch(about about) {
	s.Helper()
	watch := taskyard.Watch{MaxOutage: patience}
	switch {
	case about.After != nil:
		watch.Start = taskyard.After(*about.After)
	case about.AfterTask != "":
		watch.Start = taskyard.After(s.tasks[about.AfterTask].GetCursor())
	case about.Start == "OLDEST":
		watch.Start = taskyard.Oldest
	}
	if about.MaxOutage != nil {
		// None at all is said by a negative one.
		watch.MaxOutage = cmp.Or(time.Duration(*about.MaxOutage), -1)
	}
	if about.Filter != nil {
		watch.Filter = read(s, about.Filter, &taskyardv1.EventFilter{})
	}
	watcher := s.client.Watch(watch)
	s.watches[about.As] = &seeing{watcher: watcher, filtered: watch.Filter != nil}
	if watch.Start == taskyard.Live {
		// From here on nothing is missed.
		seen, err := watcher.Next(s.ctx)
		s.must(err)
		if seen != (taskyard.Started{}) {
			s.Fatalf("it begins with %T", seen)
		}
	}
}

func (s *stage) watchUntil(about about) {
	s.Helper()
	seeing, taskID := s.watches[about.Watch], s.taskID(about)
	isLast := func(event *taskyardv1.Event) bool {
		return event.GetTaskId() == taskID && typeName(event) == about.Type
	}
	for !slices.ContainsFunc(seeing.unread, isLast) {
		seen, err := seeing.watcher.Next(s.ctx)
		s.must(err)
		batch, _ := seen.(taskyard.Events)
		for _, event := range batch.Events {
			seq := event.GetSeq()
			if seq <= seeing.last || !seeing.filtered && seeing.last > 0 && seq != seeing.last+1 {
				s.Fatalf("%v after %d", event, seeing.last)
			}
			seeing.last = seq
			seeing.count++
			seeing.unread = append(seeing.unread, event)
		}
	}
	var types []string
	seeing.unread = slices.DeleteFunc(seeing.unread, func(event *taskyardv1.Event) bool {
		if event.GetTaskId() != taskID {
			return false
		}
		types = append(types, typeName(event))
		return true
	})
	s.same(types, into[[]string](s, about.Expect))
	if about.ExpectAll != nil && seeing.count != *about.ExpectAll {
		s.Fatalf("%d events in all", seeing.count)
	}
}

func (s *stage) taskID(about about) string {
	s.Helper()
	if about.TaskID != nil {
		return *about.TaskID
	}
	if s.tasks[about.Task] == nil {
		s.Fatalf("no task is called %q", about.Task)
	}
	return s.tasks[about.Task].GetTaskId()
}

func (s *stage) checkTask(task *taskyardv1.Task, expect json.RawMessage) {
	s.Helper()
	is := map[string]any{
		"state":    strings.TrimPrefix(task.GetState().String(), "TASK_STATE_"),
		"attempt":  task.GetAttempt(),
		"priority": task.GetPriority(),
		"labels":   task.GetLabels(),
		"error":    task.GetError().GetReason(),
	}
	if expect == nil {
		return
	}
	for name, value := range into[map[string]any](s, expect) {
		one, known := is[name]
		if !known {
			s.Fatalf("%s: this test does not check it yet", name)
		}
		s.same(one, value)
	}
}

func (s *stage) checkError(err error, expect *expectedError) {
	s.Helper()
	var failed *taskyard.Error
	if !errors.As(err, &failed) {
		s.Fatalf("%v (%T) is no *taskyard.Error", err, err)
	}
	s.same(codeName(failed.Code), expect.Code)
	if expect.Reason != "" {
		s.same(failed.Reason, expect.Reason)
	}
	if expect.Violations != nil {
		named := map[string]bool{}
		for _, violation := range failed.Violations {
			named[violation.Subject] = true
		}
		s.same(slices.Sorted(maps.Keys(named)), expect.Violations)
	}
	for _, name := range expect.Metadata {
		if failed.Metadata[name] == "" {
			s.Fatalf("no %s in %v", name, failed.Metadata)
		}
	}
	if _, asked := failed.RetryAfter(); expect.RetryAfter && !asked {
		s.Fatalf("%v does not tell when to come again", failed)
	}
	checkIsOneLine(s, failed)
}

// checkIsOneLine: one clear sentence, and nothing of the inside.
func checkIsOneLine(t testing.TB, err error) {
	t.Helper()
	for _, inside := range []string{"\n", "rpc error", "desc =", "transport:", "&{", "0x"} {
		if err.Error() == "" || strings.Contains(err.Error(), inside) {
			t.Fatalf("nobody wants to read %q", err.Error())
		}
	}
}

// same compares as JSON.
func (s *stage) same(is, expected any) {
	s.Helper()
	one, err := json.Marshal(is)
	s.must(err)
	other, err := json.Marshal(expected)
	s.must(err)
	if string(one) != string(other) {
		s.Fatalf("%s, not %s", one, other)
	}
}

func typeName(event *taskyardv1.Event) string {
	return strings.TrimPrefix(event.GetType().String(), "EVENT_TYPE_")
}

// codeName is the code as protobuf writes it: INVALID_ARGUMENT for InvalidArgument.
func codeName(code fmt.Stringer) string {
	var name strings.Builder
	for i, letter := range code.String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}

func into[T any](s *stage, text json.RawMessage) T {
	s.Helper()
	var value T
	s.must(json.Unmarshal(text, &value))
	return value
}

func read[M proto.Message](s *stage, text json.RawMessage, message M) M {
	s.Helper()
	s.must(protojson.Unmarshal(text, message))
	return message
}
