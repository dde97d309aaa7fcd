"""A watch whose connection died without a word goes on over a new one, and leaves none."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import taskyard
from scripted import ack, event, hangs, names, sends, started
from taskyard import SubmitRequest, _watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAYS_NOTHING_MORE = sends(started("c0"), then=hangs)
SAYS_NOTHING = sends(then=hangs)
GOES_ON = sends(started("c0"), event("c1", 1), then=hangs)


class Way:
    """The way to a server, on which it is seen when a connection ends."""

    def __init__(self, port: int) -> None:
        self.ended: list[threading.Event] = []
        """One for each connection, in their order."""
        self._port = port
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                self.ended.append(threading.Event())
                self._pass_on(near, far, self.ended[-1].set)
                self._pass_on(far, near, lambda: None)

    def _pass_on(self, here: socket.socket, there: socket.socket, end: Any) -> None:
        def run() -> None:
            with contextlib.suppress(OSError):
                while data := here.recv(1 << 16):
                    there.sendall(data)
            end()
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_WR)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()


@pytest.fixture
def play_over_a_way(
    serve: Any, make_client: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """As `play`, with the way to the server; silence is short."""
    monkeypatch.setattr(_watch, "GRACE", 0.5)
    with contextlib.ExitStack() as stack:

        def play(*script: Any) -> Any:
            port, scripted = serve(*script)
            way = Way(port)
            stack.callback(way.close)
            client = make_client(way.address)
            stack.callback(client.close)
            return client, scripted, way

        yield play


def seen(watcher: Any, count: int) -> list[str]:
    return names(next(watcher) for _ in range(count))


def have_ended(connections: list[threading.Event]) -> bool:
    # With asyncio, a call that was given up before it was answered is a cycle of gRPC's own.
    tries = 0
    while not all(ended.wait(0.1) for ended in connections) and tries < 50:
        gc.collect()
        tries += 1
    return tries < 50


def test_a_connection_that_died_is_replaced(play_over_a_way: Any) -> None:
    client, scripted, way = play_over_a_way(SAYS_NOTHING_MORE, SAYS_NOTHING, GOES_ON, ack)
    watcher = client.watch(heartbeat=0.1)
    assert seen(watcher, 4) == ["Started", "Lost", "Restored", "Events"]
    assert len(set(scripted.peers)) == 3
    assert have_ended(way.ended[1:2])
    assert not way.ended[2].is_set()
    watcher.close()
    assert have_ended(way.ended[2:])
    # The client's own is still there.
    client.submit(SubmitRequest(kind="noop"))
    assert scripted.peers[3] == scripted.peers[0]
    assert len(way.ended) == 3


def test_a_watch_that_ends_closes_its_own_connection(play_over_a_way: Any) -> None:
    client, _, way = play_over_a_way(SAYS_NOTHING_MORE, SAYS_NOTHING)
    watcher = client.watch(heartbeat=0.1, max_outage=1.0)
    assert seen(watcher, 2) == ["Started", "Lost"]
    with pytest.raises(taskyard.Error, match="the server does not answer"):
        next(watcher)
    assert len(way.ended) > 1
    assert have_ended(way.ended[1:])
    assert not way.ended[0].is_set()


def test_a_client_that_is_closed_ends_its_watches(play_over_a_way: Any) -> None:
    client, _, way = play_over_a_way(SAYS_NOTHING_MORE, GOES_ON)
    watcher = client.watch(heartbeat=0.1)
    assert seen(watcher, 4) == ["Started", "Lost", "Restored", "Events"]
    client.close()
    with pytest.raises(taskyard.Error) as caught:
        next(watcher)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    del caught  # It knows where it was raised, and with that the call.
    assert have_ended(way.ended)


def test_a_client_that_is_closed_watches_nothing(play_over_a_way: Any) -> None:
    client, scripted, way = play_over_a_way(SAYS_NOTHING_MORE)
    watchers = [client.watch() for _ in range(2)]
    assert seen(watchers[0], 1) == ["Started"]
    client.close()
    for watcher in watchers:
        with pytest.raises(taskyard.Error) as caught:
            next(watcher)
        assert caught.value.code is grpc.StatusCode.CANCELLED
        assert list(watcher) == []
    assert (len(scripted.requests), len(way.ended)) == (1, 1)


@pytest.mark.parametrize("kind", ["python"], indirect=True)
def test_a_watcher_that_is_left_leaves_no_connection(play_over_a_way: Any) -> None:
    client, _, way = play_over_a_way(SAYS_NOTHING_MORE, GOES_ON)
    watcher = client.watch(heartbeat=0.1)
    assert seen(watcher, 4) == ["Started", "Lost", "Restored", "Events"]
    del watcher
    gc.collect()
    assert have_ended(way.ended[1:2])
