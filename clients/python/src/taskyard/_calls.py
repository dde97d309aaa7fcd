"""Submitting and waiting, so that a lost connection or a restart of the server does not
matter.

Written once, as generators that yield what is to be done, for the client that blocks and
for the one of asyncio. Must not call or sleep by themselves.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from ._errors import Error
from ._retry import Tries
from .v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_SUCCEEDED,
    Task,
    TaskState,
)
from .v1.task_service_pb2 import SubmitRequest, SubmitResponse, WaitTaskRequest

ONE_WAIT = 300.0
"""How long one call waits for the end of a task: short enough that proxies and firewalls
on the way keep the connection."""
GRACE = 10.0
"""What a call that waits is given beyond its wait. The server answers by itself; this is
for one that hangs."""


@dataclass(frozen=True)
class Call:
    """Call this method of the task service, and send back the answer or throw the error."""

    method: str
    request: Any
    timeout: float | None


@dataclass(frozen=True)
class Rest:
    """Do nothing for so many seconds."""

    seconds: float


T = TypeVar("T")
Steps: TypeAlias = Generator[Call | Rest, Any, T]


def is_terminal(state: TaskState) -> bool:
    """Whether a task in this state has ended."""
    return state in (TASK_STATE_SUCCEEDED, TASK_STATE_FAILED, TASK_STATE_CANCELLED)


def identified(request: SubmitRequest) -> SubmitRequest:
    """The request, so that it can be repeated."""
    copy = SubmitRequest()
    copy.CopyFrom(request)
    copy.request_id = request.request_id or str(uuid.uuid4())
    return copy


def duration(seconds: float) -> Duration:
    """Seconds as the wire has them. What no server takes is refused by the server."""
    nanos = round(seconds * 1e9)
    whole = abs(nanos) // 10**9
    sign = -1 if nanos < 0 else 1
    return Duration(seconds=sign * whole, nanos=nanos - sign * whole * 10**9)


def end_of(timeout: float | None) -> float | None:
    """When so many seconds have passed; None is never."""
    if timeout is None:
        return None
    if not isinstance(timeout, Real):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    return time.monotonic() + float(timeout)


def submit(request: SubmitRequest, timeout: float | None) -> Steps[SubmitResponse]:
    """The tries of one submission."""
    request = identified(request)
    tries = Tries(end_of(timeout))
    while True:
        begun = time.monotonic()
        call = Call("Submit", request, tries.left(begun))
        try:
            answer: SubmitResponse = yield call
            return answer
        except Error as error:
            rest = tries.rest(error, time.monotonic(), begun=begun)
        yield Rest(rest)


def wait(task_id: str, timeout: float | None) -> Steps[Task]:
    """As many calls as it takes, over outages of the server."""
    deadline = end_of(timeout)
    tries = Tries(deadline)
    while True:
        left = ONE_WAIT if deadline is None else deadline - time.monotonic()
        one = max(0.0, min(left, ONE_WAIT))
        request = WaitTaskRequest(task_id=task_id, timeout=duration(one))
        begun = time.monotonic()
        try:
            answer = yield Call("WaitTask", request, one + GRACE)
        except Error as error:
            now = time.monotonic()
            is_late = error.code is grpc.StatusCode.DEADLINE_EXCEEDED and deadline is None
            if is_late and now - begun >= one:
                # A server that hangs is asked again.
                tries = Tries()
                continue
            yield Rest(tries.rest(error, now, begun=begun, is_early=is_late))
            # No try begins after the deadline.
            if deadline is not None and time.monotonic() >= deadline:
                raise
            continue
        task: Task = answer.task
        tries = Tries(deadline)
        is_over = deadline is not None and time.monotonic() >= deadline
        if is_terminal(task.state) or is_over:
            return task


def submit_and_wait(request: SubmitRequest, timeout: float | None) -> Steps[Task]:
    """Both in one. A task that has not ended in time is an error, which names it."""
    deadline = end_of(timeout)
    task_id = (yield from submit(request, timeout)).task_id
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        task = yield from wait(task_id, left)
    except Error as error:
        is_late = error.code is grpc.StatusCode.DEADLINE_EXCEEDED and not error.reason
        if deadline is None or not is_late:
            raise
        raise not_done(task_id) from None
    if not is_terminal(task.state):
        raise not_done(task_id)
    return task


def not_done(task_id: str) -> Error:
    """The error of a task that was to end in time, and has not."""
    late = f"the task {task_id} was not done in time"
    error = Error(grpc.StatusCode.DEADLINE_EXCEEDED, late)
    error.metadata = {"task_id": task_id}
    return error
