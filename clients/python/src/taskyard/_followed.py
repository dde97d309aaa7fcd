"""One task, followed from its submission to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import identified, is_terminal
from .v1.event_pb2 import EVENT_TYPE_CANCELLED, EVENT_TYPE_FAILED, EVENT_TYPE_SUCCEEDED, Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .v1.task_service_pb2 import SubmitRequest, SubmitResponse

_ENDS = (EVENT_TYPE_SUCCEEDED, EVENT_TYPE_FAILED, EVENT_TYPE_CANCELLED)


class Followed:
    """The task, and what was told of it.

    Until it was told that it is submitted, a stream that broke is opened by the same
    request, which finds the same task. From then on its events are watched: the server may
    have forgotten the `request_id` with the task, and would then run it again.
    """

    def __init__(self, request: SubmitRequest) -> None:
        self.request = identified(request)
        self.has_ended = False
        """By what was told, it has ended, so that the stream of its submission may."""
        self.had_ended = False
        """It had when it was submitted: what is kept of its events has happened, and its end
        may not be among them."""
        self.end_is_told = False
        """The last event that was told is its end: there is nothing more to watch."""
        self.task_id: str | None = None
        """None until it was told that it is submitted."""
        self._last = 0

    def submit(self, submitted: SubmitResponse) -> bool:
        """Notes that it is submitted, and answers whether that is news."""
        # Of a task that ended long ago there may be no events any more.
        self.has_ended = self.had_ended = is_terminal(submitted.state)
        is_news, self.task_id = self.task_id is None, submitted.task_id
        return is_news

    def unknown(self, events: Iterable[Event]) -> tuple[Event, ...]:
        """Those events that no earlier stream told."""
        left = tuple(event for event in events if event.seq > self._last)
        if left:
            self._last = left[-1].seq
            self.has_ended = self.end_is_told = left[-1].type in _ENDS
        return left
