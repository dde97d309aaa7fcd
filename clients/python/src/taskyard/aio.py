"""The client of asyncio. It has the names of the one that blocks, `taskyard.Client`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio

from . import _address, _calls, _channel
from ._errors import Error
from ._watch import Events, Rules, Seen, Start
from .v1.admin_service_pb2_grpc import AdminServiceStub
from .v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from typing_extensions import Self

    from .v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from .v1.event_pb2 import Event, EventFilter
    from .v1.task_pb2 import Task
    from .v1.task_service_pb2 import SubmitRequest, SubmitResponse, WatchEventsResponse
    from .v1.task_service_pb2_grpc import TaskServiceAsyncStub

T = TypeVar("T")


class Client:
    """As `taskyard.Client`. It belongs to the event loop in which it was made."""

    tasks: TaskServiceAsyncStub
    """The generated client of tasks and events. Its errors are those of gRPC:
    `Error.from_rpc` takes them apart."""
    admin: AdminServiceAsyncStub
    """The generated client for operators."""

    def __init__(self, address: str | None = None) -> None:
        """As `taskyard.Client`."""
        self._target = _address.parse(address)
        self._channels = _channel.Channels(grpc.aio.insecure_channel, self._target)
        self._channel = self._channels.make()
        self.tasks = TaskServiceStub(self._channel)
        self.admin = AdminServiceStub(self._channel)

    async def connect(self) -> Self:
        """As `taskyard.Client.connect`."""
        self._channels.check()
        probe: Any = self._channel.unary_unary(_channel.PROBE)
        try:
            await probe(_channel.PROBE_REQUEST, timeout=_channel.CONNECT_TIMEOUT)
        except grpc.RpcError as error:
            if nobody := _channel.nobody(self._target, error):
                raise nobody from None
        return self

    async def close(self) -> None:
        """As `taskyard.Client.close`."""
        for channel in self._channels.end():
            await channel.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.connect()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def submit(
        self, request: SubmitRequest, timeout: float | None = None
    ) -> SubmitResponse:
        """As `taskyard.Client.submit`."""
        return await self._run(_calls.submit(request, timeout))

    async def wait(self, task_id: str, timeout: float | None = None) -> Task:
        """As `taskyard.Client.wait`."""
        return await self._run(_calls.wait(task_id, timeout))

    async def submit_and_wait(
        self, request: SubmitRequest, timeout: float | None = None
    ) -> Task:
        """As `taskyard.Client.submit_and_wait`."""
        return await self._run(_calls.submit_and_wait(request, timeout))

    def submit_and_watch(self, request: SubmitRequest, timeout: float | None = None) -> Watcher:
        """As `taskyard.Client.submit_and_watch`."""
        rules = Rules(follow=request, deadline=_calls.end_of(timeout))
        return Watcher(self.tasks, self._channels, rules)

    def watch(
        self,
        start: Start = "live",
        *,
        after: str | None = None,
        filter: EventFilter | None = None,  # noqa: A002
        until_caught_up: bool = False,
        over_gaps: bool = False,
        heartbeat: float = 15.0,
        max_outage: float = 60.0,
    ) -> Watcher:
        """As `taskyard.Client.watch`."""
        rules = Rules(
            start=start,
            after=after,
            filter=filter,
            until_caught_up=until_caught_up,
            over_gaps=over_gaps,
            heartbeat=heartbeat,
            max_outage=max_outage,
        )
        return Watcher(self.tasks, self._channels, rules)

    async def _run(self, steps: _calls.Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._do(step)
                except grpc.RpcError as error:
                    self._channels.check()
                    step = steps.throw(Error.from_rpc(error))
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return cast("T", end.value)
        except Error as error:
            raise error from None

    async def _do(self, step: _calls.Call | _calls.Rest) -> Any:
        if isinstance(step, _calls.Rest):
            return await asyncio.sleep(step.seconds)
        self._channels.check()
        call = getattr(self.tasks, step.method)(step.request, timeout=step.timeout)
        try:
            return await call
        except (grpc.aio.UsageError, asyncio.CancelledError):
            # That of a call which ended with the channel is not that of this task.
            if not _is_cancelled():
                self._channels.check()
            raise


def _is_cancelled() -> bool:
    """Whether somebody cancels this task, as far as Python tells: 3.10 does not."""
    task: Any = asyncio.current_task()
    return hasattr(task, "cancelling") and task.cancelling() > 0


class Watcher:
    """A watch under way: an iterator of what is seen. Connects when it is first asked.

    After an error it has ended. Whoever stops waiting for the next thing, as with
    `asyncio.timeout`, loses nothing. Not for several tasks at a time.
    """

    def __init__(
        self,
        tasks: TaskServiceAsyncStub,
        channels: _channel.Channels[grpc.aio.Channel],
        rules: Rules,
    ) -> None:
        self._tasks = tasks
        self._channels = channels
        self._own: grpc.aio.Channel | None = None
        self._rules = rules
        self._stream: _Stream | None = None

    @property
    def cursor(self) -> str | None:
        """The cursor to resume after; None until the server has told one, and while a
        snapshot is not complete."""
        return self._rules.cursor

    async def events(self) -> AsyncIterator[Event]:
        """Only the events, one by one."""
        async for seen in self:
            if isinstance(seen, Events):
                for event in seen.events:
                    yield event

    async def close(self) -> None:
        """Ends the watch."""
        self._rules.is_over = True
        self._hang_up()
        if self._own is not None:
            await self._own.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Seen:
        """What comes next; raises Error when going on is of no use or an outage too long."""
        try:
            while (seen := self._rules.tell()) is None:
                if self._rules.is_over:
                    await self.close()
                    raise StopAsyncIteration
                await self._go_on()
        except Error as error:
            await self.close()
            raise error from None
        return seen

    async def _go_on(self) -> None:
        try:
            message = await self._message()
        except Error as error:
            is_silent = self._stream is not None and self._stream.is_silent
            self._hang_up()
            self._channels.check()
            # Where it was raised is of no use to anybody, and keeps the call.
            self._rules.lose(error.with_traceback(None), time.monotonic())
            if is_silent:
                await self._connect_anew()
        else:
            if message is not None:
                self._rules.take(message, time.monotonic())
            else:
                self._hang_up()
                self._rules.end(time.monotonic())

    async def _connect_anew(self) -> None:
        old, self._own = self._own, self._channels.make()
        self._tasks = TaskServiceStub(self._own)
        if old is not None:
            await old.close()

    async def _message(self) -> WatchEventsResponse | None:
        if self._stream is None:
            self._channels.check()
            await asyncio.sleep(max(0.0, self._rules.rest_until - time.monotonic()))
            self._channels.check()
            left = self._rules.left(time.monotonic())
            method, request, limit = self._rules.opening(time.monotonic())
            call = getattr(self._tasks, method)(request, timeout=left)
            self._stream = _Stream(call, limit)
        if not self._stream.has_begun:
            await self._stream.begin()
        return await self._stream.read(self._rules.silence)

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Stream:
    """A call, of which what is under way is kept when whoever waits for it goes."""

    def __init__(self, call: Any, limit: float | None) -> None:
        self.has_begun = False
        self.is_silent = False
        """It ended without a word: its connection cannot be trusted any more."""
        self._call = call
        self._limit = limit
        self._pending: asyncio.Future[Any] | None = None
        self._since = 0.0

    async def begin(self) -> None:
        """Waits for the beginning of the answer."""
        await self._next(self._call.initial_metadata, self._limit, "the server does not answer")
        self.has_begun = True

    async def read(self, limit: float | None) -> WatchEventsResponse | None:
        """The next message; None is the end."""
        message = await self._next(self._call.read, limit, "the server has gone silent")
        return None if message is grpc.aio.EOF else cast("WatchEventsResponse", message)

    async def _next(self, read: Any, limit: float | None, why: str) -> Any:
        if self._pending is None:
            self._pending = asyncio.ensure_future(read())
            self._pending.add_done_callback(_retrieve)
            self._since = time.monotonic()
        left = None if limit is None else self._since + limit - time.monotonic()
        await asyncio.wait({self._pending}, timeout=left)
        if not self._pending.done():
            self.is_silent = True
            raise Error(grpc.StatusCode.UNAVAILABLE, why)
        pending, self._pending = self._pending, None
        try:
            return pending.result()
        except grpc.RpcError as error:
            raise Error.from_rpc(error) from None
        except asyncio.CancelledError:
            lost = "the connection was closed"
            raise Error(grpc.StatusCode.CANCELLED, lost) from None
        finally:
            # Its error knows this frame: neither is to keep the other, and the call.
            del pending

    def close(self) -> None:
        self._call.cancel()
        if self._pending is not None:
            self._pending.cancel()


def _retrieve(pending: asyncio.Future[Any]) -> None:
    """Keeps asyncio from logging an error that nobody waits for any more."""
    if not pending.cancelled():
        pending.exception()
