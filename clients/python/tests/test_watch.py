"""The rules of the watch, step by step, by a clock that the test sets."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import taskyard
from taskyard import Error, SubmitRequest, _calls, _outage, _watch
from taskyard._watch import GRACE, Rules
from taskyard.v1 import task_service_pb2 as pb

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def message(cursor: str = "", *, seqs: tuple[int, ...] = (), **control: Any) -> Any:
    types = taskyard.EventType
    events = [
        # The ninth event is the last.
        taskyard.Event(
            seq=seq,
            task_id="t1",
            type=types.EVENT_TYPE_SUCCEEDED if seq == 9 else types.EVENT_TYPE_STARTED,
        )
        for seq in seqs
    ]
    return pb.WatchEventsResponse(cursor=cursor, events=events, **control)


def started(cursor: str = "c0") -> Any:
    return message(cursor, started=pb.WatchStarted())


def told(rules: Rules, *messages: Any, now: float = 0.0) -> list[Any]:
    seen: list[Any] = list(iter(rules.tell, None))
    for each in messages:
        rules.take(each, now)
        seen += iter(rules.tell, None)
    return ["lost" if isinstance(each, taskyard.Lost) else each for each in seen]


def broken(reason: str = "", code: grpc.StatusCode = UNAVAILABLE, **more: Any) -> Error:
    error = Error(code, "broken")
    error.reason = reason
    for name, value in more.items():
        setattr(error, name, value)
    return error


def asked(rules: Rules) -> Any:
    return rules.opening(0.0)[1]


def test_it_begins_again_as_it_began_until_there_is_a_cursor() -> None:
    rules = Rules(start="oldest", heartbeat=2.5)
    assert asked(rules).start == pb.WATCH_START_OLDEST
    rules.lose(broken(), 0.0)
    assert asked(rules).start == pb.WATCH_START_OLDEST
    assert asked(rules).heartbeat_interval.ToTimedelta().total_seconds() == 2.5
    rules.take(started(), 0.0)
    assert (asked(rules).start, asked(rules).after_cursor) == (0, "c0")


def test_the_cursor_of_every_message_counts() -> None:
    rules = Rules()
    assert rules.cursor is None
    assert told(rules, started("c1")) == [taskyard.Started()]
    assert told(rules, message("c2", heartbeat=pb.WatchHeartbeat())) == [taskyard.Heartbeat()]
    assert rules.cursor == "c2"
    (events,) = told(rules, message("c4", seqs=(3, 4)))
    assert (events.before, events.after) == ("c2", "c4")
    assert [event.seq for event in events.events] == [3, 4]
    assert told(rules, message("", caught_up=pb.WatchCaughtUp())) == [taskyard.CaughtUp()]
    assert told(rules, message("c5")) == []
    assert rules.cursor == "c5"
    gap = pb.WatchGap(from_cursor="c5", to_cursor="c9", missing_events=4)
    assert told(rules, message("c9", gap=gap)) == [taskyard.Gap("c5", "c9", 4)]
    assert told(rules, message("c9", draining=pb.WatchDraining())) == [taskyard.Draining()]


def test_a_watch_without_a_cursor_tells_that_it_begins_anew() -> None:
    rules = Rules()
    assert told(rules, started("")) == [taskyard.Started()]
    rules.lose(broken(), 0.0)
    assert told(rules, started("c0")) == ["lost", taskyard.Started()]
    rules.lose(broken(), 1.0)
    assert told(rules, started("c0")) == ["lost", taskyard.Restored()]


def test_the_cursor_is_behind_what_was_told() -> None:
    # No server of today does it, but events may be the first message.
    rules = Rules(after="c1")
    rules.lose(broken(), 0.0)
    assert told(rules) == ["lost"]
    rules.take(message("c2", seqs=(2,)), 1.0)
    assert (rules.tell(), rules.cursor) == (taskyard.Restored(), "c1")
    assert isinstance(rules.tell(), taskyard.Events)
    assert rules.cursor == "c2"


def test_a_broken_snapshot_is_told_anew() -> None:
    rules = Rules(start="snapshot")
    part = message(snapshot=pb.WatchSnapshot(tasks=[taskyard.Task(task_id="t1")]))
    begun, snapshot = told(rules, started(""), part)
    assert begun == taskyard.SnapshotBegun()
    assert [task.task_id for task in snapshot.tasks] == ["t1"]
    rules.lose(broken(), 0.0)
    assert asked(rules).include_snapshot
    again = told(rules, started(""), part, message("c7", snapshot_end=pb.WatchSnapshotEnd()))
    assert again == ["lost", begun, snapshot, taskyard.SnapshotEnded()]
    rules.lose(broken(), 1.0)
    assert not asked(rules).include_snapshot
    assert asked(rules).after_cursor == "c7"
    assert told(rules, started("c7")) == ["lost", taskyard.Restored()]


def test_an_outage_is_told_once_and_rests_longer_and_longer() -> None:
    rules = Rules()
    told(rules, started())
    for failures in range(1, 6):
        rules.lose(broken(), 100.0)
        assert_rest_after(failures, rules.rest_until - 100.0)
    assert told(rules) == ["lost"]
    assert told(rules, message("c1", seqs=(1,)), now=110.0)[0] == taskyard.Restored()
    rules.lose(broken(), 200.0)
    assert_rest_after(1, rules.rest_until - 200.0)
    assert told(rules) == ["lost"]


def assert_rest_after(failures: int, rest: float) -> None:
    whole = min(0.1 * 2 ** (failures - 1), 5.0)
    assert whole / 2 <= rest + 1e-9
    assert rest - 1e-9 <= whole


def test_to_be_accepted_and_dropped_is_one_outage() -> None:
    rules = Rules(max_outage=20.0)
    told(rules, started())
    rules.lose(broken(), 0.0)
    for failures in range(2, 6):
        # A stream stands for less than a second, again and again; each is told.
        begun = 2.0 * failures
        assert told(rules, started(), now=begun) == ["lost", taskyard.Restored()]
        assert told(rules, message("c1", seqs=(1,)), now=begun + 0.5) != []
        rules.lose(broken(), begun + 0.99)
        assert_rest_after(failures, rules.rest_until - begun - 0.99)
    # What had begun at 0 is still not over.
    told(rules, started(), now=19.5)
    with pytest.raises(Error, match="broken"):
        rules.lose(broken(), 20.1)


def test_a_stream_that_stood_for_a_second_ends_the_outage() -> None:
    rules = Rules(max_outage=1.0)
    told(rules, started())
    for begun in (10.0, 20.0, 30.0):
        rules.lose(broken(), begun)
        assert_rest_after(1, rules.rest_until - begun)
        assert told(rules, started(), now=begun + 0.5) == ["lost", taskyard.Restored()]
    rules.lose(broken(), 31.5)
    assert_rest_after(1, rules.rest_until - 31.5)


def test_the_server_may_ask_for_a_rest_or_for_none() -> None:
    rules = Rules()
    rules.lose(broken("DRAINING", retry_after=2.0), 10.0)
    assert rules.rest_until == 12.0
    rules.lose(broken("DRAINING", retry_after=0.0), 20.0)
    assert rules.rest_until == 20.01
    with pytest.raises(Error):
        rules.lose(broken(may_retry=False), 21.0)
    assert rules.is_over


def test_the_longest_outage_ends_the_watch() -> None:
    rules = Rules(max_outage=10.0)
    rules.lose(broken(), 0.0)
    rules.lose(broken(), 9.0)
    with pytest.raises(Error, match="broken"):
        rules.lose(broken(), 9.99)
    assert rules.is_over
    impatient = Rules(max_outage=0.0)
    impatient.take(started(), 0.0)
    with pytest.raises(Error, match="broken"):
        impatient.lose(broken(), 0.0)


def test_a_rest_beyond_the_longest_outage_is_not_begun() -> None:
    with pytest.raises(Error):
        Rules(max_outage=1.0).lose(broken(retry_after=2.0), 0.0)


def test_a_try_is_not_waited_for_beyond_the_longest_outage() -> None:
    rules = Rules(max_outage=7.0)
    assert grace(rules, 0.0) == GRACE
    rules.lose(broken(), 0.0)
    assert grace(rules, 1.0) == GRACE
    assert grace(rules, 5.0) == 2.0
    # A little, in any case.
    assert grace(rules, 7.0) == _outage.LEAST_TRY
    # A stream that stood for a moment has not ended it, whatever comes after.
    told(rules, started(), now=6.0)
    rules.lose(broken("WATCH_LIFETIME"), 6.5)
    assert grace(rules, 6.51) == 0.49
    assert grace(rules, 7.0) == _outage.LEAST_TRY
    # An outage that is over bounds nothing any more.
    told(rules, started(), now=7.0)
    rules.lose(broken("WATCH_LIFETIME"), 8.0)
    assert grace(rules, 8.01) == GRACE


def grace(rules: Rules, now: float) -> float:
    limit = rules.opening(now)[2]
    assert limit is not None
    return round(limit, 3)


def test_crowded_is_an_outage_once_a_stream_has_stood() -> None:
    crowded = broken("TOO_MANY_WATCHERS", grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(Error):
        Rules().lose(crowded, 0.0)
    never = Rules()
    never.lose(broken(), 0.0)
    with pytest.raises(Error):
        never.lose(crowded, 1.0)
    rules = Rules()
    told(rules, started())
    rules.lose(broken(), 0.0)
    rules.lose(crowded, 1.0)
    assert told(rules, started(), now=2.0) == ["lost", taskyard.Restored()]
    # Nor may it lose its place by leaving it when it was asked to.
    rules.lose(broken("WATCH_LIFETIME"), 10.0)
    rules.lose(crowded, 11.0)
    assert told(rules, started(), now=12.0) == ["lost", taskyard.Restored()]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("WATCH_LIFETIME", UNAVAILABLE),
        ("WATCH_STALLED", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_an_end_that_is_no_outage_is_not_told(reason: str, code: grpc.StatusCode) -> None:
    rules = Rules(max_outage=0.0)
    rules.take(started("c3"), 0.0)
    told(rules)
    rules.lose(broken(reason, code), 50.0)
    assert rules.rest_until == 50.01
    assert asked(rules).after_cursor == "c3"
    assert told(rules) == []
    rules.lose(broken(reason, code, retry_after=3.0), 50.0)
    assert rules.rest_until == 53.0
    with pytest.raises(Error):
        rules.lose(broken(reason, code, may_retry=False), 60.0)
    assert rules.is_over


@pytest.mark.parametrize(
    "reason", ["CURSOR_EXPIRED", "CURSOR_FROM_ANOTHER_STORE", "INVALID_FIELDS", ""]
)
def test_everything_else_ends_it(reason: str) -> None:
    rules = Rules()
    with pytest.raises(Error):
        rules.lose(broken(reason, grpc.StatusCode.OUT_OF_RANGE), 0.0)
    assert rules.is_over


def test_it_ends_well_only_where_it_may() -> None:
    rules = Rules()
    told(rules, started())
    rules.end(0.0)
    assert not rules.is_over
    assert told(rules) == ["lost"]
    rules = Rules(until_caught_up=True)
    rules.opening(0.0)
    told(rules, started())
    rules.end(0.0)
    assert not rules.is_over
    rules.opening(0.0)
    told(rules, message("", caught_up=pb.WatchCaughtUp()))
    rules.end(0.0)
    assert rules.is_over
    # A stream that broke after that has to catch up again.
    rules = Rules(until_caught_up=True)
    told(rules, message("", caught_up=pb.WatchCaughtUp()))
    rules.lose(broken(), 0.0)
    rules.opening(0.0)
    rules.end(1.0)
    assert not rules.is_over


def followed() -> Rules:
    return Rules(follow=SubmitRequest(kind="noop", request_id="r"))


SUBMITTED = message("c1", submitted=taskyard.SubmitResponse(task_id="t1"))


def test_a_task_is_submitted_until_it_is_told_and_then_watched_to_its_end() -> None:
    rules = followed()
    by_its_request = ("SubmitAndWatch", SubmitRequest(kind="noop", request_id="r"), None)
    assert rules.opening(0.0) == by_its_request
    rules.end(0.0)
    # It may wait for room for longer than an outage may last.
    assert rules.opening(70.0) == by_its_request
    lost, _, submitted, events = told(rules, SUBMITTED, message("c2", seqs=(1, 2)), now=80.0)
    assert (lost, submitted.response.task_id) == ("lost", "t1")
    assert [event.seq for event in events.events] == [1, 2]
    assert rules.silence is None
    rules.lose(broken(), 100.0)
    method, request, limit = rules.opening(101.0)
    assert method == "WatchEvents"
    assert request == pb.WatchEventsRequest(
        after_cursor="c2",
        filter=taskyard.EventFilter(task_ids=["t1"]),
        heartbeat_interval=_calls.duration(15.0),
        gap_policy=pb.GAP_POLICY_FAIL,
    )
    assert limit == GRACE
    silence: Any = rules.silence
    assert silence == 30.0 + GRACE
    seen = told(rules, started("c2"), message("c3", seqs=(2, 3)))
    assert seen[:2] == ["lost", taskyard.Restored()]
    assert [event.seq for event in seen[2].events] == [3]
    assert not rules.is_over
    (events,) = told(rules, message("c4", seqs=(9,)))
    assert [event.seq for event in events.events] == [9]
    assert rules.is_over


def test_a_task_without_a_cursor_is_submitted_again_and_told_once() -> None:
    rules = followed()
    submitted = message(submitted=taskyard.SubmitResponse(task_id="t1"))
    assert len(told(rules, submitted)) == 1
    rules.lose(broken(), 0.0)
    assert rules.opening(0.0)[0] == "SubmitAndWatch"
    assert told(rules, submitted) == ["lost", taskyard.Restored()]


def test_the_stream_of_a_task_may_not_end_before_it() -> None:
    rules = followed()
    told(rules, SUBMITTED, message("c2", seqs=(1, 2)), now=1.0)
    rules.end(1.0)
    assert not rules.is_over
    rules.opening(1.0)
    assert told(rules, message("c3", seqs=(9,)), now=3.0)[-1].events[0].seq == 9
    assert rules.is_over


def test_a_stream_that_breaks_after_the_end_of_its_task_is_no_outage() -> None:
    rules = followed()
    told(rules, SUBMITTED, message("c2", seqs=(9,)))
    assert not rules.is_over
    rules.lose(broken(), 0.0)
    assert rules.is_over
    assert told(rules) == []


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED"])
def test_a_task_that_ended_long_ago_may_have_no_events(state: str) -> None:
    rules = Rules(follow=SubmitRequest(kind="noop"))
    response = taskyard.SubmitResponse(state=f"TASK_STATE_{state}")
    told(rules, message("c1", submitted=response))
    rules.end(0.0)
    assert rules.is_over


def test_a_task_that_had_ended_is_watched_until_that_has_caught_up() -> None:
    rules = followed()
    response = taskyard.SubmitResponse(task_id="t1", state="TASK_STATE_FAILED")
    told(rules, message("c1", submitted=response), message("c2", seqs=(1,)))
    rules.lose(broken(), 0.0)
    request = asked(rules)
    assert (request.after_cursor, request.stop_when_caught_up) == ("c2", True)
    # Its end is no longer kept.
    told(rules, started("c2"), message("c3", seqs=(2,)))
    assert not rules.is_over
    rules.end(2.0)
    assert rules.is_over
    assert told(rules) == []


def test_silence_is_two_heartbeats_and_a_grace() -> None:
    assert Rules(heartbeat=3.0).silence == 6.0 + GRACE
    assert Rules().opening(0.0)[2] == GRACE == _watch.GRACE
    assert Rules(follow=SubmitRequest()).silence is None


@pytest.mark.parametrize(
    "options", [{"start": "yesterday"}, {"start": "oldest", "after": "c1"}]
)
def test_a_beginning_is_one_of_those_that_are(options: Any) -> None:
    with pytest.raises(ValueError, match="start"):
        Rules(**options)
