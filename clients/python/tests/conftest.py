"""Runs every test with the client that blocks and with the one of asyncio, if it asks."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import taskyard
from scripted import Scripted
from taskyard.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self


class Blocking:
    """Something of `taskyard.aio`, whose coroutines run in a loop on another thread."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._call(value) if callable(value) else value

    def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            async def run() -> Any:
                value = method(*args, **options)
                return await value if inspect.isawaitable(value) else value

            value = asyncio.run_coroutine_threadsafe(run(), self._loop).result()
            wrap = isinstance(value, (taskyard.aio.Client, taskyard.aio.Watcher))
            return Blocking(value, self._loop) if wrap else value

        return call

    @property
    def tasks(self) -> Any:
        return Blocking(self._inner.tasks, self._loop)

    def __enter__(self) -> Self:
        enter = type(self._inner).__aenter__
        self._call(enter)(self._inner)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> Any:
        async def following() -> Any:
            return await anext(self._inner, None)

        seen = self._call(following)()
        if seen is None:
            raise StopIteration
        return seen


@pytest.fixture(params=["python", "python-asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a kind of client."""
    return str(request.param)


@pytest.fixture
def make_client(kind: str) -> Iterator[Callable[[str], Any]]:
    """Makes clients of that kind; both are used in the same way."""
    if kind == "python":
        yield taskyard.Client
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def make(address: str) -> Any:
        async def client() -> Any:
            return taskyard.aio.Client(address)

        made = asyncio.run_coroutine_threadsafe(client(), loop).result()
        return Blocking(made, loop)

    yield make
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[int, Scripted]]]:
    """Serves a script, on the port that is returned."""
    with contextlib.ExitStack() as stack:

        def serve(*script: Any) -> tuple[int, Scripted]:
            scripted = Scripted(*script)  # type: ignore[abstract]
            server = grpc.server(stack.enter_context(ThreadPoolExecutor()))
            add_TaskServiceServicer_to_server(scripted, server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(lambda: server.stop(None).wait())
            return port, scripted

        yield serve


@pytest.fixture
def play(serve: Any, make_client: Callable[[str], Any]) -> Iterator[Callable[..., Any]]:
    """Serves a script, and makes a client of it."""
    with contextlib.ExitStack() as stack:

        def play(*script: Any) -> tuple[Any, Scripted]:
            port, scripted = serve(*script)
            client = make_client(f"127.0.0.1:{port}")
            stack.callback(client.close)
            return client, scripted

        yield play
