"""The rules of a watch that stands up again, without any input or output.

Owns the cursor, and with it the promise to go on exactly where a broken stream ended. The
rules are those of the Rust client, `crates/client/src/watch/mod.rs`:

1. The cursor of every message that has one replaces the one before. Until there is one, a
   broken watch begins as it began at first, and tells that instead of Restored.
2. While a snapshot is told no message has a cursor: a broken one is told anew.
3. Nothing for two heartbeats and 5 s is an outage, and so is a call that has no answer for
   5 s: a connection that died without a word does not end by itself. It is tried again on a
   new connection.
4. An outage is a lost connection, UNAVAILABLE, an end without a status and, once a stream
   has stood, TOO_MANY_WATCHERS: the place that was its own may be taken for a moment. Its
   tries rest as the server asks, or back off; after `max_outage` it ends the watch. It is
   over once a stream has stood for 1 s, so that one that is accepted and dropped, again
   and again, is still an outage. A try is not waited for beyond the longest outage.
5. WATCH_LIFETIME and WATCH_STALLED are no outage. The watch is opened again, after the
   rest that the server asks for.
6. A task that is followed is submitted again, by the same `request_id`, until it was told
   that it is submitted; that may wait for room, so no try of it is cut off. From then on a
   broken stream is opened as a watch of this one task after the cursor, which ends with
   the task: the server may have forgotten the `request_id` with the task, and would run it
   again. If the task had ended before it was submitted, its end may not be among the events
   that are kept: that watch ends once it has caught up.
7. Everything else ends the watch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

import grpc

from ._calls import duration, not_done
from ._errors import TOO_LATE, Error
from ._followed import Followed
from ._outage import Outages
from .v1.event_pb2 import Event, EventFilter
from .v1.pool_pb2 import Worker
from .v1.task_pb2 import Task
from .v1.task_service_pb2 import (
    GAP_POLICY_CONTINUE,
    GAP_POLICY_FAIL,
    WATCH_START_LIVE,
    WATCH_START_OLDEST,
    SubmitRequest,
    SubmitResponse,
    WatchEventsRequest,
    WatchEventsResponse,
)

GRACE = 5.0
"""Silence beyond two heartbeats that is taken for an outage, in seconds: the server, or
the way to it, may be slow."""

Start: TypeAlias = Literal["live", "oldest", "snapshot"]


@dataclass(frozen=True)
class Submitted:
    """The task that is followed was submitted, or had been. Told once."""

    response: SubmitResponse


@dataclass(frozen=True)
class Started:
    """The stream stands.

    Also after an outage before there was a cursor: then the watch begins anew, and a live
    one does not know what happened in between.
    """


@dataclass(frozen=True)
class Events:
    """Events that arrived together, at least one."""

    events: tuple[Event, ...]
    """In commit order."""
    before: str
    """Resume after it, and these events come again; empty at the very start."""
    after: str
    """Resume after it, and what follows comes next."""


@dataclass(frozen=True)
class SnapshotBegun:
    """A snapshot begins, perhaps again: what an earlier one told is void."""


@dataclass(frozen=True)
class Snapshot:
    """A part of the snapshot."""

    tasks: tuple[Task, ...]
    """Tasks that have not ended, in the order of submission."""
    workers: tuple[Worker, ...]
    """The pool, in the first parts."""


@dataclass(frozen=True)
class SnapshotEnded:
    """The snapshot is complete; what follows are events."""


@dataclass(frozen=True)
class CaughtUp:
    """What had happened when the watch was opened has been seen."""


@dataclass(frozen=True)
class Heartbeat:
    """Nothing has happened that the filter lets through; the cursor went on."""


@dataclass(frozen=True)
class Gap:
    """Events are missing here, as they are no longer kept."""

    from_cursor: str
    to_cursor: str
    missing_events: int


@dataclass(frozen=True)
class Draining:
    """The server began to drain; the stream is about to be lost."""


@dataclass(frozen=True)
class Lost:
    """The stream broke. It is tried again; told once, until it stands."""

    error: Error


@dataclass(frozen=True)
class Restored:
    """The watch goes on, exactly where it had stopped. Instead of Started."""


Seen: TypeAlias = (
    Submitted
    | Started
    | Events
    | SnapshotBegun
    | Snapshot
    | SnapshotEnded
    | CaughtUp
    | Heartbeat
    | Gap
    | Draining
    | Lost
    | Restored
)
"""What a watcher sees."""


class Rules:
    """What a watch asks for, what it tells, and what it does when its stream breaks.

    Times are those of one steady clock, in seconds.
    """

    def __init__(
        self,
        *,
        start: Start = "live",
        after: str | None = None,
        filter: EventFilter | None = None,  # noqa: A002
        until_caught_up: bool = False,
        over_gaps: bool = False,
        heartbeat: float = 15.0,
        max_outage: float = 60.0,
        follow: SubmitRequest | None = None,
        deadline: float | None = None,
    ) -> None:
        if start not in ("live", "oldest", "snapshot"):
            raise ValueError(f"start is {start!r}, not 'live', 'oldest' or 'snapshot'")
        if after is not None and start != "live":
            raise ValueError("a watch begins at a start or after a cursor, not at both")
        self.cursor = after
        """The cursor to resume after; None until the server has told one, and while a
        snapshot is not complete."""
        self.is_over = False
        self._told: deque[Seen] = deque()
        # What came after an outage, to be told after Restored.
        self._untold: WatchEventsResponse | None = None
        self._start = start
        self._request = WatchEventsRequest(
            heartbeat_interval=duration(heartbeat),
            filter=filter,
            stop_when_caught_up=until_caught_up,
            gap_policy=GAP_POLICY_CONTINUE if over_gaps else GAP_POLICY_FAIL,
        )
        self._silence = 2 * heartbeat + GRACE
        self._outages = Outages(max_outage)
        self._deadline = deadline
        self._is_caught_up = False
        self._followed = None if follow is None else Followed(follow)
        # The task that is followed is watched by its id, no longer by its submission.
        self._is_resumed = False

    def opening(
        self, now: float
    ) -> tuple[str, SubmitRequest | WatchEventsRequest, float | None]:
        """The method, its request, and how long the server may take to begin the answer."""
        self._is_caught_up = False
        request = WatchEventsRequest()
        request.CopyFrom(self._request)
        if self._followed is not None:
            task_id = self._followed.task_id
            if task_id is None or self.cursor is None:
                # It may wait for room; keep-alive notices a server that has gone.
                return "SubmitAndWatch", self._followed.request, None
            self._is_resumed = True
            request.filter.task_ids.append(task_id)
            request.stop_when_caught_up = self._followed.had_ended
        if self.cursor is not None:
            request.after_cursor = self.cursor
        elif self._start == "snapshot":
            request.include_snapshot = True
        else:
            is_oldest = self._start == "oldest"
            request.start = WATCH_START_OLDEST if is_oldest else WATCH_START_LIVE
        # A server that takes the connection and says nothing must not hold it up.
        return "WatchEvents", request, self._outages.grace(now, GRACE)

    @property
    def rest_until(self) -> float:
        """The stream is not opened before."""
        if self._deadline is None:
            return self._outages.rest_until
        return min(self._outages.rest_until, self._deadline)

    def left(self, now: float) -> float | None:
        """Seconds that a stream may take in all; None is for ever."""
        if self._deadline is None:
            return None
        if now >= self._deadline:
            raise Error(grpc.StatusCode.DEADLINE_EXCEEDED, TOO_LATE)
        return self._deadline - now

    @property
    def silence(self) -> float | None:
        """For how long a stream that stands may be listened to in vain; None is for ever.

        How long the heartbeat of a submission that is followed is, the server says:
        keep-alive alone notices one that has gone.
        """
        return self._silence if self._followed is None or self._is_resumed else None

    def take(self, message: WatchEventsResponse, now: float) -> None:
        """Takes a message over, once everything before it was told."""
        is_news = self._outages.stands(now)
        # Without a cursor it begins anew, and Started or SnapshotBegun says so.
        goes_on = self.cursor is not None or self._followed is not None
        if is_news and goes_on:
            self._told.append(Restored())
            self._untold = message
        else:
            self._note(message, restored=False)

    def tell(self) -> Seen | None:
        """What is to be told before the next message is read."""
        if not self._told and self._untold is not None:
            message, self._untold = self._untold, None
            self._note(message, restored=True)
        if self._told:
            return self._told.popleft()
        # The stream of a submission ends by itself; a watch does not.
        self.is_over = self.is_over or (self._is_resumed and self._end_is_told)
        return None

    def _note(self, message: WatchEventsResponse, *, restored: bool) -> None:
        """Notes what a message tells, if anything. From then on its cursor counts."""
        is_telling = self._start == "snapshot" and self.cursor is None
        before = self.cursor or ""
        if message.cursor:
            self.cursor = message.cursor
        seen = self._seen(message, before, is_telling)
        if seen is not None and not (restored and isinstance(seen, Started)):
            self._told.append(seen)

    def _seen(self, message: WatchEventsResponse, before: str, is_telling: bool) -> Seen | None:
        match message.WhichOneof("control"):
            case "started":
                return SnapshotBegun() if is_telling else Started()
            case "snapshot":
                part = message.snapshot
                return Snapshot(tuple(part.tasks), tuple(part.workers))
            case "snapshot_end":
                return SnapshotEnded()
            case "caught_up":
                self._is_caught_up = True
                return CaughtUp()
            case "heartbeat":
                return Heartbeat()
            case "gap":
                gap = message.gap
                return Gap(gap.from_cursor, gap.to_cursor, gap.missing_events)
            case "draining":
                return Draining()
            case "submitted" if self._followed and self._followed.submit(message.submitted):
                return Submitted(message.submitted)
        events = tuple(message.events)
        if self._followed is not None:
            events = self._followed.unknown(events)
        return Events(events, before, message.cursor) if events else None

    @property
    def _end_is_told(self) -> bool:
        return self._followed is not None and self._followed.end_is_told

    def end(self, now: float) -> None:
        """Notes that the server ended the stream well: the watch is over, or it is lost."""
        if self._followed is not None:
            has_all = self._is_resumed and self._followed.had_ended
            self.is_over = self._followed.has_ended or has_all
        else:
            self.is_over = self._request.stop_when_caught_up and self._is_caught_up
        if not self.is_over:
            error = Error(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
            self.lose(error, now)

    def lose(self, error: Error, now: float) -> None:
        """Notes that there is no stream; raises the error if it is of no use to wait."""
        if self._end_is_told:
            self.is_over = True
            return
        is_late = error.code is grpc.StatusCode.DEADLINE_EXCEEDED and not error.reason
        if is_late and self._followed is not None and self._followed.task_id is not None:
            self.is_over = True
            raise not_done(self._followed.task_id)
        try:
            is_news = self._outages.lose(error, now)
        except Error:
            self.is_over = True
            raise
        if is_news:
            self._told.append(Lost(error))
