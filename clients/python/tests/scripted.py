"""A server that does what is written, for each call."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2, status_pb2

import taskyard
from taskyard.v1 import task_service_pb2 as pb
from taskyard.v1.task_service_pb2_grpc import TaskServiceServicer

if TYPE_CHECKING:
    from collections.abc import Callable

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Scripted(TaskServiceServicer):
    """Answers each call by the next part of the script, and the last one for ever."""

    def __init__(self, *script: Callable[[grpc.ServicerContext], Any]) -> None:
        self.script = list(script)
        self.requests: list[Any] = []
        self.peers: list[str] = []
        """One for each call: those on one connection are the same."""
        self.ended = threading.Event()

    def _next(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.peers.append(context.peer())
        context.add_callback(self.ended.set)
        part = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return part(context)

    def Submit(self, request: Any, context: Any) -> Any:
        return self._next(request, context)

    def WaitTask(self, request: Any, context: Any) -> Any:
        return self._next(request, context)

    def SubmitAndWatch(self, request: Any, context: Any) -> Any:
        yield from self._next(request, context)

    def WatchEvents(self, request: Any, context: Any) -> Any:
        yield from self._next(request, context)


def refuse(
    code: grpc.StatusCode = UNAVAILABLE, reason: str = "", pushback: str | None = None
) -> Callable[[Any], Any]:
    def part(context: Any) -> Any:
        status = status_pb2.Status(code=code.value[0], message="no")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason))
        trailers = [("grpc-status-details-bin", status.SerializeToString())]
        if pushback is not None:
            trailers.append(("grpc-retry-pushback-ms", pushback))
        context.set_trailing_metadata(tuple(trailers))
        context.abort(code, "no")

    return part


def ack(_context: Any) -> pb.SubmitResponse:
    return pb.SubmitResponse(task_id="t1")


def sends(*messages: Any, then: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    def part(context: Any) -> Any:
        yield from messages
        if then is not None:
            then(context)

    return part


def hangs(context: Any) -> Any:
    """Until the caller goes."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(30)


def started(cursor: str) -> Any:
    return pb.WatchEventsResponse(cursor=cursor, started=pb.WatchStarted())


def event(cursor: str, seq: int) -> Any:
    return pb.WatchEventsResponse(cursor=cursor, events=[taskyard.Event(seq=seq)])


def names(seen: Any) -> list[str]:
    return [type(each).__name__ for each in seen]
