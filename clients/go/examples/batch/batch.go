package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	taskyard "github.com/taskyard/taskyard/clients/go"
	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// Why the watch is given up.
var (
	errDone        = errors.New("every task has ended")
	errInterrupted = errors.New("interrupted")
)

// batch is how the tasks stand, and what is told of them: a bar on a terminal, otherwise
// lines.
type batch struct {
	mutex  sync.Mutex
	cancel context.CancelCauseFunc
	out    *os.File
	bar    bool
	drawn  time.Time

	all       int
	succeeded int
	failed    int
	// waiting are tasks of the batch that have not ended, with their numbers: those with
	// the same request_id are one task.
	waiting map[string][]int
	// early are ends of tasks, as long as answers to submissions are on their way.
	early map[string]*taskyardv1.Event
	// answered is how many submissions have their answer.
	answered int
}

func newBatch(out *os.File, all int, cancel context.CancelCauseFunc) *batch {
	info, err := out.Stat()
	b := &batch{
		cancel: cancel, out: out, all: all,
		bar:     err == nil && info.Mode()&os.ModeCharDevice != 0,
		waiting: map[string][]int{}, early: map[string]*taskyardv1.Event{},
	}
	b.draw()
	return b
}

// submitted notes the answer to the submission of this number.
func (b *batch) submitted(number int, answer *taskyardv1.SubmitResponse, err error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	id := answer.GetTaskId()
	b.answered++
	switch event := b.early[id]; {
	case errors.Is(err, context.Canceled):
		// It is told why everything ends.
	case err != nil:
		b.count(number, "was refused: "+err.Error()+violations(err), false)
	case event != nil:
		b.note(number, event)
	case taskyard.IsTerminal(answer.GetState()):
		// Its request_id was known, and it has ended before the watch began.
		state := answer.GetState()
		b.count(number, id+" had ended: "+strings.TrimPrefix(state.String(), "TASK_STATE_"),
			state == taskyardv1.TaskState_TASK_STATE_SUCCEEDED)
	default:
		b.waiting[id] = append(b.waiting[id], number)
	}
	if b.answered == b.all {
		b.early = nil
	}
}

// violations are all that is wrong with a task, one line each.
func violations(err error) string {
	var lines strings.Builder
	if failed := (*taskyard.Error)(nil); errors.As(err, &failed) {
		for _, one := range failed.Violations {
			fmt.Fprintf(&lines, "\n    %s: %s", one.Subject, one.Description)
		}
	}
	return lines.String()
}

// ended notes an event that ends a task, perhaps of somebody else.
func (b *batch) ended(event *taskyardv1.Event) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	id := event.GetTaskId()
	for _, number := range b.waiting[id] {
		b.note(number, event)
	}
	delete(b.waiting, id)
	if b.answered < b.all {
		b.early[id] = event
	}
}

func (b *batch) note(number int, event *taskyardv1.Event) {
	told := event.GetTaskId() + " " + strings.TrimPrefix(event.GetType().String(), "EVENT_TYPE_")
	if failure := event.GetError(); failure != nil {
		told += fmt.Sprintf(" %s: %s", failure.GetReason(), failure.GetMessage())
	}
	b.count(number, told, event.GetType() == taskyardv1.EventType_EVENT_TYPE_SUCCEEDED)
}

func (b *batch) count(number int, told string, isWell bool) {
	if isWell {
		b.succeeded++
	} else {
		b.failed++
	}
	// Where there is a bar, it tells what went well.
	if !b.bar || !isWell {
		b.line(fmt.Sprintf("%d/%d: task %d: %s", b.succeeded+b.failed, b.all, number, told))
	}
	b.draw()
	if b.succeeded+b.failed == b.all {
		b.cancel(errDone)
	}
}

func (b *batch) say(line string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.line(line)
	b.draw()
}

func (b *batch) line(line string) {
	if b.bar {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.drawn = time.Time{}
	}
	fmt.Fprintln(b.out, line)
}

// draw draws the bar, at most every 50 ms and at the end.
func (b *batch) draw() {
	const width = 40
	ended := b.succeeded + b.failed
	if !b.bar || time.Since(b.drawn) < 50*time.Millisecond && ended < b.all {
		return
	}
	b.drawn = time.Now()
	full := width * ended / b.all
	fmt.Fprintf(b.out, "\r\x1b[K%s%s %d/%d, %d failed",
		strings.Repeat("━", full), strings.Repeat("╌", width-full), ended, b.all, b.failed)
}

// close tells the whole and how many tasks failed. It ended for this cause.
func (b *batch) close(cause error) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.bar {
		fmt.Fprintln(b.out)
	}
	switch {
	case errors.Is(cause, errDone):
		cause = nil
	case errors.Is(cause, errInterrupted):
		running := 0
		for _, numbers := range b.waiting {
			running += len(numbers)
		}
		fmt.Fprintf(b.out, "interrupted: %d submitted tasks have not ended, and go on", running)
		if others := b.all - b.succeeded - b.failed - running; others > 0 {
			fmt.Fprintf(b.out, "; %d more were not submitted, or have no answer yet", others)
		}
		fmt.Fprintln(b.out)
	}
	fmt.Fprintf(b.out, "%d tasks: %d succeeded, %d failed\n", b.all, b.succeeded, b.failed)
	return b.failed, cause
}
