package taskyard

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// TestTheRulesOfTheWatch reads each watch to its end.
func TestTheRulesOfTheWatch(t *testing.T) {
	for name, one := range map[string]struct {
		watch   Watch
		follow  bool
		streams [][]any
		// asked is what the streams were asked for, if it can be known.
		asked string
		seen  string
		// ends is the reason of the error, or its code; "EOF" if there is none.
		ends string
		// least and most are how long it took.
		least, most time.Duration
	}{
		"a cursor replaces the one before, also without events": {
			streams: [][]any{
				{message("a", started), message("b", 1), message("c", heartbeat), message("d", nil), unavailable},
				{message("d", started), message("e", 2), expired},
			},
			asked: "live|after d",
			seen:  "Started a<1>b Heartbeat Lost Restored d<2>e", ends: "CURSOR_EXPIRED",
			least: 50 * time.Millisecond, most: 100 * time.Millisecond,
		},
		"without a cursor it begins as at first": {
			watch:   Watch{Start: Oldest},
			streams: [][]any{{unavailable}, {unavailable}, {message("a", started), expired}},
			asked:   "oldest|oldest|oldest",
			seen:    "Lost Started", ends: "CURSOR_EXPIRED",
			least: 150 * time.Millisecond, most: 300 * time.Millisecond,
		},
		"a live watch without a cursor tells that it begins anew": {
			streams: [][]any{
				{message("", started), unavailable},
				{message("a", started), unavailable},
				{message("a", started), expired},
			},
			asked: "live|live|after a",
			seen:  "Started Lost Started Lost Restored", ends: "CURSOR_EXPIRED",
			least: 150 * time.Millisecond, most: 300 * time.Millisecond,
		},
		"a broken snapshot is told anew": {
			watch: Watch{Start: WithSnapshot},
			streams: [][]any{
				{message("", started), message("", part), unavailable},
				{message("", started), message("", part), message("a", partsEnd), message("b", 7), unavailable},
				{message("b", started), expired},
			},
			asked: "snapshot|snapshot|after b",
			seen: "SnapshotBegun Snapshot Lost SnapshotBegun Snapshot SnapshotEnded a<7>b " +
				"Lost Restored",
			ends: "CURSOR_EXPIRED", least: 150 * time.Millisecond, most: 300 * time.Millisecond,
		},
		"silence of two heartbeats and 5 s is an outage": {
			watch: Watch{Heartbeat: 2 * time.Second},
			streams: [][]any{
				{message("a", started), rest(8 * time.Second), message("b", heartbeat), rest(time.Hour)},
				{message("b", started), expired},
			},
			asked: "live|after b",
			seen:  "Started Heartbeat Lost Restored", ends: "CURSOR_EXPIRED",
			least: 17 * time.Second, most: 17*time.Second + 100*time.Millisecond,
		},
		"a server that does not answer is an outage": {
			streams: [][]any{{deaf{}}, {message("a", started), expired}},
			asked:   "live|live",
			seen:    "Lost Started", ends: "CURSOR_EXPIRED",
			least: 5 * time.Second, most: 5*time.Second + 100*time.Millisecond,
		},
		"an end without a status is an outage": {
			streams: [][]any{{message("a", started), io.EOF}, {expired}},
			asked:   "live|after a",
			seen:    "Started Lost", ends: "CURSOR_EXPIRED",
			least: 50 * time.Millisecond, most: 100 * time.Millisecond,
		},
		"an outage is bounded": {
			watch: Watch{MaxOutage: 10 * time.Second},
			seen:  "Lost", ends: "Unavailable",
			least: 5 * time.Second, most: 10 * time.Second,
		},
		"a try is not waited for beyond the longest outage": {
			watch:   Watch{MaxOutage: 7 * time.Second},
			streams: [][]any{{unavailable}, {deaf{}}, {deaf{}}},
			asked:   "live|live|live", seen: "Lost", ends: "Unavailable",
			least: 7 * time.Second, most: 7 * time.Second,
		},
		"a try at the end of the longest outage is given a little": {
			watch:   Watch{MaxOutage: time.Second},
			streams: [][]any{{pushed("DRAINING", "1000")}, {deaf{}}},
			asked:   "live|live", seen: "Lost", ends: "Unavailable",
			least: time.Second + leastTry, most: time.Second + leastTry,
		},
		"an outage that is over bounds no try": {
			watch: Watch{MaxOutage: 2 * time.Second},
			streams: [][]any{
				{message("a", started), unavailable},
				{message("a", started), rest(20 * time.Second), pushed("WATCH_LIFETIME", "0")},
				{deaf{}},
				{expired},
			},
			asked: "live|after a|after a|after a",
			seen:  "Started Lost Restored Lost", ends: "CURSOR_EXPIRED",
			least: 25*time.Second + 100*time.Millisecond, most: 25*time.Second + 300*time.Millisecond,
		},
		"only a stream that stands ends an outage": {
			watch: Watch{MaxOutage: 2 * time.Second},
			streams: [][]any{
				{message("a", started), unavailable},
				// It stands for a moment, then there is none for long.
				{message("a", started), rest(100 * time.Millisecond), pushed("WATCH_LIFETIME", "1500")},
				{pushed("DRAINING", "500")},
			},
			asked: "live|after a|after a",
			seen:  "Started Lost Restored", ends: "DRAINING",
			least: 1650 * time.Millisecond, most: 1700 * time.Millisecond,
		},
		"the first outage ends it if none is waited for": {
			watch:   Watch{MaxOutage: -1},
			streams: [][]any{{message("a", started), unavailable}},
			asked:   "live", seen: "Started", ends: "Unavailable",
		},
		"TOO_MANY_WATCHERS ends a watch that begins": {
			streams: [][]any{{crowded}},
			asked:   "live", ends: "TOO_MANY_WATCHERS",
		},
		"TOO_MANY_WATCHERS in an outage is part of it": {
			streams: [][]any{{message("a", started), unavailable}, {crowded}, {message("a", started), expired}},
			asked:   "live|after a|after a",
			seen:    "Started Lost Restored", ends: "CURSOR_EXPIRED",
			least: 150 * time.Millisecond, most: 300 * time.Millisecond,
		},
		"TOO_MANY_WATCHERS after its lifetime is an outage": {
			streams: [][]any{
				{message("a", started), pushed("WATCH_LIFETIME", "0")},
				{crowded},
				{message("a", started), expired},
			},
			asked: "live|after a|after a",
			seen:  "Started Lost Restored", ends: "CURSOR_EXPIRED",
			least: 50*time.Millisecond + leastRest, most: 100*time.Millisecond + leastRest,
		},
		"to be accepted and dropped is an outage that ends": {
			// Three rests that double are surely over by then, and a fourth is not.
			watch:   Watch{MaxOutage: 725 * time.Millisecond},
			streams: slices.Repeat([][]any{{message("a", started), unavailable}}, 100),
			asked:   "live|after a|after a|after a",
			seen:    "Started Lost Restored Lost Restored Lost Restored", ends: "Unavailable",
			least: 350 * time.Millisecond, most: 700 * time.Millisecond,
		},
		"a stream that stood for 1 s ends the outage": {
			watch: Watch{MaxOutage: 1100 * time.Millisecond},
			streams: [][]any{
				{message("a", started), unavailable},
				{message("a", started), rest(time.Second), unavailable},
				{message("a", started), rest(time.Second), unavailable},
				{message("a", started), rest(999 * time.Millisecond), unavailable},
			},
			asked: "live|after a|after a|after a",
			seen:  "Started Lost Restored Lost Restored Lost Restored", ends: "Unavailable",
			least: 3149 * time.Millisecond, most: 3299 * time.Millisecond,
		},
		"WATCH_LIFETIME and WATCH_STALLED are none": {
			watch: Watch{MaxOutage: -1},
			streams: [][]any{
				{message("a", started), refusal(codes.Unavailable, "WATCH_LIFETIME")},
				{message("a", started), refusal(codes.ResourceExhausted, "WATCH_STALLED")},
				{message("a", started), message("b", 3), expired},
			},
			asked: "live|after a|after a",
			seen:  "Started Started Started a<3>b", ends: "CURSOR_EXPIRED",
			least: 2 * leastRest, most: 2 * leastRest,
		},
		"WATCH_LIFETIME and WATCH_STALLED may ask for a rest": {
			streams: [][]any{
				{message("a", started), pushed("WATCH_LIFETIME", "3000")},
				{message("a", started), pushed("WATCH_STALLED", "0")},
				{message("a", started), expired},
			},
			asked: "live|after a|after a",
			seen:  "Started Started Started", ends: "CURSOR_EXPIRED",
			least: 3*time.Second + leastRest, most: 3*time.Second + leastRest,
		},
		"WATCH_LIFETIME ends it if it is not to be opened again": {
			streams: [][]any{{message("a", started), pushed("WATCH_LIFETIME", "-1")}},
			asked:   "live",
			seen:    "Started", ends: "WATCH_LIFETIME",
		},
		"WATCH_STALLED ends it if it is not to be opened again": {
			streams: [][]any{{message("a", started), pushed("WATCH_STALLED", "-1")}},
			asked:   "live",
			seen:    "Started", ends: "WATCH_STALLED",
		},
		"the server's pushback is honoured": {
			streams: [][]any{
				{message("a", started), refusal(codes.Unavailable, "DRAINING",
					&errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Second)})},
				{asError(unavailable, metadata.Pairs("grpc-retry-pushback-ms", "-1"))},
			},
			asked: "live|after a",
			seen:  "Started Lost", ends: "Unavailable",
			least: 7 * time.Second, most: 7 * time.Second,
		},
		"until caught up": {
			watch: Watch{Start: After("x"), UntilCaughtUp: true},
			streams: [][]any{
				{message("x", started), message("y", []int{1, 2}), message("y", caughtUp), unavailable},
				// A new stream must catch up anew.
				{message("y", started), io.EOF},
				{message("y", started), message("y", caughtUp), io.EOF},
			},
			asked: "after x|after y|after y",
			seen:  "Started x<1,2>y CaughtUp Lost Restored Lost Restored CaughtUp", ends: "EOF",
			least: 150 * time.Millisecond, most: 300 * time.Millisecond,
		},
		"gap and draining": {
			watch: Watch{OverGaps: true},
			streams: [][]any{{
				message("a", started), message("b", &taskyardv1.WatchGap{}),
				message("b", &taskyardv1.WatchDraining{}), expired,
			}},
			asked: "live", seen: "Started Gap Draining", ends: "CURSOR_EXPIRED",
		},
		"a task is followed over an outage as a watch, which ends with it": {
			follow: true,
			streams: [][]any{
				{message("a", submitted), message("b", []int{4, 5}), unavailable},
				{message("b", started), message("c", 6), message("d", succeeded), rest(time.Hour)},
			},
			asked: "once|after b of t1",
			seen:  "Submitted a<4,5>b Lost Restored b<6>c c<9>d", ends: "EOF",
			least: 50 * time.Millisecond, most: 100 * time.Millisecond,
		},
		"a task is submitted again until it was told that it is submitted, for however long": {
			follow: true,
			streams: [][]any{
				{unavailable},
				{rest(time.Hour), message("a", submitted), message("c", succeeded), io.EOF},
			},
			asked: "once|once",
			seen:  "Lost Restored Submitted a<9>c", ends: "EOF",
			least: time.Hour + 50*time.Millisecond, most: time.Hour + 100*time.Millisecond,
		},
		"a task without a cursor is submitted again, and told once": {
			follow: true,
			streams: [][]any{
				{message("", submitted), unavailable},
				{message("", submitted), message("b", []int{4, 5}), message("c", succeeded), io.EOF},
			},
			asked: "once|once",
			seen:  "Submitted Lost Restored <4,5>b b<9>c", ends: "EOF",
			least: 50 * time.Millisecond, most: 100 * time.Millisecond,
		},
		"the stream of a task may not end before it": {
			follow: true,
			streams: [][]any{
				{message("a", submitted), message("b", []int{4, 5}), io.EOF},
				{message("b", started), message("c", succeeded)},
			},
			asked: "once|after b of t1",
			seen:  "Submitted a<4,5>b Lost Restored b<9>c", ends: "EOF",
			least: 50 * time.Millisecond, most: 100 * time.Millisecond,
		},
		"a stream that breaks after the end of its task is no outage": {
			follow:  true,
			streams: [][]any{{message("a", submitted), message("b", succeeded), unavailable}},
			asked:   "once", seen: "Submitted a<9>b", ends: "EOF",
		},
		"a watch of a task has the terms of every watch": {
			follow: true,
			streams: [][]any{
				{message("a", submitted), unavailable},
				{deaf{}},
				{message("a", started), rest(time.Hour)},
				{expired},
			},
			asked: "once|after a of t1|after a of t1|after a of t1",
			seen:  "Submitted Lost Restored Lost", ends: "CURSOR_EXPIRED",
			least: 40*time.Second + 150*time.Millisecond, most: 40*time.Second + 500*time.Millisecond,
		},
		"a task that ended long ago may have no events": {
			follow: true,
			streams: [][]any{{
				message("a", &taskyardv1.SubmitResponse{State: taskyardv1.TaskState_TASK_STATE_FAILED}), io.EOF,
			}},
			asked: "once", seen: "Submitted", ends: "EOF",
		},
		"a task that had ended is watched until that has caught up": {
			follow: true,
			streams: [][]any{
				{message("a", hadFailed), message("b", 4), unavailable},
				// Its end is no longer kept.
				{message("b", started), message("c", 5), message("c", caughtUp), io.EOF},
			},
			asked: "once|after b of t1 until caught up",
			seen:  "Submitted a<4>b Lost Restored b<5>c CaughtUp", ends: "EOF",
			least: 50 * time.Millisecond, most: 100 * time.Millisecond,
		},
		"a task may be silent for long": {
			follow: true,
			streams: [][]any{{
				message("a", submitted), rest(time.Hour), message("c", succeeded), io.EOF,
			}},
			asked: "once", seen: "Submitted a<9>c", ends: "EOF",
			least: time.Hour, most: time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &script{streams: one.streams}
				client := &Client{Tasks: server}
				watcher := client.Watch(one.watch)
				if one.follow {
					watcher = client.SubmitAndWatch(&taskyardv1.SubmitRequest{RequestId: "once"})
				}
				start, ends := time.Now(), "EOF"
				var words []string
				for seen, err := range watcher.All(t.Context()) {
					var failed *Error
					if errors.As(err, &failed) {
						ends = failed.Reason
						if ends == "" {
							ends = failed.Code.String()
						}
						break
					}
					words = append(words, inAWord(seen))
				}
				if is := strings.Join(words, " "); is != one.seen {
					t.Errorf("seen  %s\nnot   %s", is, one.seen)
				}
				if is := strings.Join(server.asked, "|"); one.asked != "" && is != one.asked {
					t.Errorf("asked %s\nnot   %s", is, one.asked)
				}
				if ends != one.ends {
					t.Errorf("ends with %s, not %s", ends, one.ends)
				}
				if took := time.Since(start); took < one.least || took > one.most {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestAContextThatEndsLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &script{streams: [][]any{{
			message("a", started), rest(3 * time.Second), message("b", 1), rest(13 * time.Second), message("c", 2),
		}}}
		watcher := (&Client{Tasks: server}).Watch(Watch{Heartbeat: time.Second})
		defer watcher.Close()
		var words []string
		for len(words) < 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			seen, err := watcher.Next(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			words = append(words, inAWord(seen))
		}
		// The silence was counted over all of the waiting.
		if !slices.Equal(words, []string{"Started", "a<1>b", "Lost"}) || len(server.asked) != 1 {
			t.Errorf("%v, %v", words, server.asked)
		}
		if watcher.Cursor() != "b" {
			t.Errorf("it stands at %s", watcher.Cursor())
		}
	})
}

func TestAnEndedWatchStaysEnded(t *testing.T) {
	watcher := (&Client{Tasks: &script{streams: [][]any{{expired}}}}).Watch(Watch{})
	for range 2 {
		if _, err := watcher.Next(t.Context()); !errors.Is(err, error(expired)) {
			t.Error(err)
		}
	}
	watcher = (&Client{Tasks: &script{streams: [][]any{{message("a", started)}}}}).Watch(Watch{})
	if seen, err := watcher.Next(t.Context()); seen != (Started{}) || err != nil {
		t.Errorf("%v, %v", seen, err)
	}
	watcher.Close()
	if _, err := watcher.Next(t.Context()); err != io.EOF {
		t.Error(err)
	}
}

func TestTheCursorIsBehindWhatWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// No server of today does it, but events may be the first message.
		server := &script{streams: [][]any{{message("a", started), unavailable}, {message("b", 2)}}}
		watcher := (&Client{Tasks: server}).Watch(Watch{})
		defer watcher.Close()
		for _, expected := range []string{"Started at a", "Lost at a", "Restored at a", "a<2>b at b"} {
			seen, err := watcher.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if is := inAWord(seen) + " at " + watcher.Cursor(); is != expected {
				t.Errorf("%s, not %s", is, expected)
			}
		}
	})
}
