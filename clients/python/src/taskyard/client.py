"""The client that blocks. The one of asyncio, with the same names, is `taskyard.aio`."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from . import _address, _calls, _channel
from ._errors import Error
from ._watch import Events, Rules, Seen, Start
from .v1.admin_service_pb2_grpc import AdminServiceStub
from .v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from .v1.event_pb2 import Event, EventFilter
    from .v1.task_pb2 import Task
    from .v1.task_service_pb2 import SubmitRequest, SubmitResponse, WatchEventsResponse

T = TypeVar("T")


class Client:
    """A connection to a server, which it makes anew by itself when it breaks.

    Threads may share it. As a context manager it checks that a server answers, and closes
    the connection in the end.
    """

    tasks: TaskServiceStub
    """The generated client of tasks and events. Its errors are those of gRPC:
    `Error.from_rpc` takes them apart."""
    admin: AdminServiceStub
    """The generated client for operators."""

    def __init__(self, address: str | None = None) -> None:
        """Takes `http://host:port`, `host:port` or `host`.

        Without an address it is that of the variable TASKYARD_SERVER, or
        http://127.0.0.1:50051. What is no address raises ValueError. The connection is
        made by the first call, or by `connect`.
        """
        self._target = _address.parse(address)
        self._channels = _channel.Channels(grpc.insecure_channel, self._target)
        self._channel = self._channels.make()
        self.tasks = TaskServiceStub(self._channel)
        self.admin = AdminServiceStub(self._channel)

    def connect(self) -> Self:
        """Sees whether a server answers within 5 s; raises Error (UNAVAILABLE) if not.

        What answers and is no Taskyard raises Error as well, with the code that it answered.
        """
        self._channels.check()
        probe: Any = self._channel.unary_unary(_channel.PROBE)
        try:
            probe(_channel.PROBE_REQUEST, timeout=_channel.CONNECT_TIMEOUT)
        except grpc.RpcError as error:
            if nobody := _channel.nobody(self._target, error):
                raise nobody from None
        return self

    def close(self) -> None:
        """Ends the connection, all calls on it, and the watches.

        They raise Error (CANCELLED), and so does what is begun later.
        """
        for channel in self._channels.end():
            channel.close()

    def __enter__(self) -> Self:
        try:
            return self.connect()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, request: SubmitRequest, timeout: float | None = None) -> SubmitResponse:
        """Submits a task, as often as it takes to know the outcome.

        A server that drains or has gone is looked for for 1 min. The task is given a random
        `request_id` if it has none, so that it is enqueued once. The call ends after
        `timeout` seconds in any case, also while it waits for room in its queue: the outcome
        is then unknown, unless the error has the reason DEADLINE, which means that nothing
        was enqueued.
        """
        return self._run(_calls.submit(request, timeout))

    def wait(self, task_id: str, timeout: float | None = None) -> Task:
        """Waits for the end of a task, or for `timeout` seconds, and answers it as it stands.

        A server that hangs is given 10 s more. A task that FAILED or was CANCELLED is no
        error of the call.
        """
        return self._run(_calls.wait(task_id, timeout))

    def submit_and_wait(self, request: SubmitRequest, timeout: float | None = None) -> Task:
        """`submit`, then `wait` for the rest of the time.

        A task that has not ended by then goes on, and is an Error (DEADLINE_EXCEEDED) with
        its id as the metadata `task_id`.
        """
        return self._run(_calls.submit_and_wait(request, timeout))

    def submit_and_watch(self, request: SubmitRequest, timeout: float | None = None) -> Watcher:
        """Submits a task and follows it, over outages, to its end.

        First comes Submitted, then this task's events, each once, then nothing. Leaving
        does not cancel the task. If it has not ended `timeout` seconds from now it goes on,
        and the watcher raises the Error of `submit_and_wait`.
        """
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
        """Watches events, over outages of the server and of the way to it.

        It begins with the next event ("live"), with the oldest that is kept ("oldest"),
        with the tasks and workers as they stand ("snapshot"), or `after` a cursor. With
        `until_caught_up` it ends once it has told what had happened when it was last
        opened. With `over_gaps` it goes on after events that are no longer kept, with Gap,
        rather than end with CURSOR_EXPIRED. `heartbeat` is the silence in seconds before
        the server says that it is there (0.1 to 3,600), and `max_outage` the longest outage
        that is waited for; with 0 the first one ends the watch.
        """
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

    def _run(self, steps: _calls.Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._do(step)
                except grpc.RpcError as error:
                    self._channels.check()
                    step = steps.throw(Error.from_rpc(error))
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return cast("T", end.value)
        except Error as error:
            raise error from None

    def _do(self, step: _calls.Call | _calls.Rest) -> Any:
        if isinstance(step, _calls.Rest):
            return time.sleep(step.seconds)
        self._channels.check()
        try:
            return getattr(self.tasks, step.method)(step.request, timeout=step.timeout)
        except ValueError:
            self._channels.check()  # It may have been closed in this moment.
            raise


class Watcher:
    """A watch under way: an iterator of what is seen. Connects when it is first asked.

    After an error it has ended. Not for several threads at a time.
    """

    def __init__(
        self, tasks: TaskServiceStub, channels: _channel.Channels[grpc.Channel], rules: Rules
    ) -> None:
        self._tasks = tasks
        self._channels = channels
        self._own: grpc.Channel | None = None
        self._rules = rules
        self._stream: _Stream | None = None

    @property
    def cursor(self) -> str | None:
        """The cursor to resume after; None until the server has told one, and while a
        snapshot is not complete."""
        return self._rules.cursor

    def events(self) -> Iterator[Event]:
        """Only the events, one by one."""
        for seen in self:
            if isinstance(seen, Events):
                yield from seen.events

    def close(self) -> None:
        """Ends the watch."""
        self._rules.is_over = True
        self._hang_up()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Seen:
        """What comes next; raises Error when going on is of no use or an outage too long."""
        try:
            while (seen := self._rules.tell()) is None:
                if self._rules.is_over:
                    self.close()
                    raise StopIteration
                self._go_on()
        except Error as error:
            self.close()
            raise error from None
        return seen

    def _go_on(self) -> None:
        try:
            message = self._message()
        except Error as error:
            is_silent = self._stream is not None and self._stream.is_silent
            self._hang_up()
            self._channels.check()
            # Where it was raised is of no use to anybody, and keeps the call.
            self._rules.lose(error.with_traceback(None), time.monotonic())
            if is_silent:
                self._connect_anew()
        else:
            if message is not None:
                self._rules.take(message, time.monotonic())
            else:
                self._hang_up()
                self._rules.end(time.monotonic())

    def _connect_anew(self) -> None:
        old, self._own = self._own, self._channels.make()
        self._tasks = TaskServiceStub(self._own)
        if old is not None:
            old.close()

    def _message(self) -> WatchEventsResponse | None:
        if self._stream is None:
            self._channels.check()
            time.sleep(max(0.0, self._rules.rest_until - time.monotonic()))
            left = self._rules.left(time.monotonic())
            method, request, limit = self._rules.opening(time.monotonic())
            self._stream = _Stream(self._call(method, request, left), limit)
        if not self._stream.has_begun:
            self._stream.begin()
        return self._stream.read(self._rules.silence)

    def _call(self, method: str, request: Any, timeout: float | None) -> Any:
        self._channels.check()
        try:
            return getattr(self._tasks, method)(request, timeout=timeout)
        except ValueError:
            self._channels.check()  # It may have been closed in this moment.
            raise

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Stream:
    """A call that is read on a thread of its own, so that whoever listens can give up.

    The thread reads a message only when it is asked for one: what is not read is not
    fetched. It must not refer to this object, whose end is its end.
    """

    def __init__(self, call: Any, limit: float | None) -> None:
        self.has_begun = False
        self._call = call
        self._limit = limit
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_asking = False
        self.is_silent = False
        """It ended without a word: its connection cannot be trusted any more."""
        threading.Thread(
            target=_read,
            args=(call, self._asked, self._answers),
            name="taskyard-watch",
            daemon=True,
        ).start()

    def begin(self) -> None:
        """Waits for the beginning of the answer."""
        self._next(self._limit, "the server does not answer")
        self.has_begun = True

    def read(self, limit: float | None) -> WatchEventsResponse | None:
        """The next message; None is the end."""
        answer = self._next(limit, "the server has gone silent")
        return cast("WatchEventsResponse | None", answer)

    def _next(self, limit: float | None, why: str) -> Any:
        # Who was interrupted in it asks for the same again.
        if not self._is_asking:
            self._asked.put(True)
            self._is_asking = True
        try:
            answer = self._answers.get(timeout=limit)
        except queue.Empty:
            self.is_silent = True
            raise Error(grpc.StatusCode.UNAVAILABLE, why) from None
        self._is_asking = False
        if isinstance(answer, grpc.RpcError):
            raise Error.from_rpc(answer)
        return answer

    def close(self) -> None:
        self._call.cancel()
        self._asked.put(False)

    def __del__(self) -> None:
        self.close()


def _read(call: Any, asked: queue.SimpleQueue[bool], answers: queue.SimpleQueue[Any]) -> None:
    has_begun = False
    while asked.get():
        try:
            answers.put(next(call) if has_begun else call.initial_metadata())
        except StopIteration:
            answers.put(None)
        except grpc.RpcError as error:
            answers.put(error)
        has_begun = True
