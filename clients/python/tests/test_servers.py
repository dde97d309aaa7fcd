"""Both clients against servers that do what the real one seldom does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.server
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import taskyard
from scripted import UNAVAILABLE, ack, event, hangs, names, refuse, sends, started
from taskyard import SubmitRequest, _calls, _channel, _retry, _watch
from taskyard.v1 import task_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

NOOP = SubmitRequest(kind="noop")


def test_a_submission_is_repeated_as_it_was(play: Any) -> None:
    client, scripted = play(refuse(pushback="0"), refuse(pushback="0"), ack)
    assert client.submit(NOOP).task_id == "t1"
    first, second, third = scripted.requests
    assert first == second == third
    assert len(first.request_id) == 36


def test_a_negative_pushback_ends_the_tries(play: Any) -> None:
    client, scripted = play(refuse(pushback="-1"), ack)
    with pytest.raises(taskyard.Error):
        client.submit(NOOP)
    assert len(scripted.requests) == 1


def test_repeating_has_an_end(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retry, "MAX_ELAPSED", 0.5)
    client, scripted = play(refuse(pushback="100"))
    with pytest.raises(taskyard.Error, match="no"):
        client.submit(NOOP)
    assert 2 <= len(scripted.requests) <= 6


def test_an_answer_is_not_repeated(play: Any) -> None:
    client, scripted = play(refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"), ack)
    with pytest.raises(taskyard.Error) as caught:
        client.submit(NOOP)
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.__suppress_context__
    assert len(scripted.requests) == 1


def test_a_deadline_bounds_the_rest_too(play: Any) -> None:
    client, _ = play(refuse(pushback="20000"))
    with within(0.3, 4.0), pytest.raises(taskyard.Error) as caught:
        client.submit(NOOP, 0.3)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_wait_that_hangs_ends(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calls, "GRACE", 0.3)
    client, _ = play(hangs)
    with within(0.4, 4.0), pytest.raises(taskyard.Error) as caught:
        client.wait("t1", 0.1)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_task_that_is_not_done_in_time_is_no_answer(play: Any) -> None:
    running = taskyard.Task(task_id="t1", state="TASK_STATE_RUNNING")

    def waited(_context: Any) -> Any:
        time.sleep(0.2)
        return pb.WaitTaskResponse(task=running)

    client, _ = play(ack, waited)
    with within(0.1, 4.0), pytest.raises(taskyard.Error) as caught:
        client.submit_and_wait(NOOP, timeout=0.1)
    assert str(caught.value) == "the task t1 was not done in time"
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.metadata == {"task_id": "t1"}
    assert client.wait("t1", timeout=0.1) == running


def test_a_wait_looks_for_a_server_no_longer_than_it_waits(play: Any) -> None:
    client, scripted = play(refuse())
    with within(0.3, 4.0), pytest.raises(taskyard.Error) as caught:
        client.wait("t1", 0.3)
    assert caught.value.code is UNAVAILABLE
    assert 2 <= len(scripted.requests) <= 6


def test_a_watch_goes_on_after_its_lifetime_untold(play: Any) -> None:
    lifetime = refuse(reason="WATCH_LIFETIME")
    client, scripted = play(
        sends(started("c0"), event("c1", 1), then=lifetime),
        sends(started("c1"), event("c2", 2), then=refuse(grpc.StatusCode.OUT_OF_RANGE, "X")),
    )
    watcher = client.watch(max_outage=0.0)
    seen = [next(watcher) for _ in range(4)]
    assert names(seen) == ["Started", "Events", "Started", "Events"]
    assert [request.after_cursor for request in scripted.requests] == ["", "c1"]
    with pytest.raises(taskyard.Error) as caught:
        next(watcher)
    assert caught.value.reason == "X"
    assert watcher.cursor == "c2"
    assert list(watcher) == []


def test_an_end_without_a_status_is_an_outage(play: Any) -> None:
    client, scripted = play(
        sends(started("c0"), event("c1", 1)),
        refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"),
        sends(started("c1"), event("c2", 2), then=hangs),
    )
    watcher = client.watch("oldest")
    seen = [next(watcher) for _ in range(5)]
    assert names(seen) == ["Started", "Events", "Lost", "Restored", "Events"]
    assert [request.after_cursor for request in scripted.requests] == ["", "c1", "c1"]
    watcher.close()
    assert list(watcher) == []


def test_a_task_is_followed_over_a_break(play: Any) -> None:
    submitted = pb.WatchEventsResponse(cursor="c0", submitted=pb.SubmitResponse(task_id="t1"))
    end = taskyard.Event(seq=2, type=taskyard.EventType.EVENT_TYPE_SUCCEEDED)
    client, scripted = play(
        refuse(),
        sends(submitted, event("c1", 1)),
        # A watch does not end with the task.
        sends(started("c1"), pb.WatchEventsResponse(cursor="c2", events=[end]), then=hangs),
    )
    with within(0.0, 4.0):
        seen = list(client.submit_and_watch(NOOP))
    followed = ["Lost", "Restored", "Submitted", "Events", "Lost", "Restored", "Events"]
    assert names(seen) == followed
    first, second, resumed = scripted.requests
    assert first == second
    assert first.request_id
    assert (resumed.after_cursor, list(resumed.filter.task_ids)) == ("c1", ["t1"])
    assert scripted.ended.wait(5)


@pytest.mark.parametrize("then", [hangs, refuse(pushback="20000")])
def test_a_task_may_be_followed_for_a_time(play: Any, then: Any) -> None:
    submitted = pb.WatchEventsResponse(cursor="c0", submitted=pb.SubmitResponse(task_id="t1"))
    client, _ = play(sends(submitted, event("c1", 1), then=then))
    watcher = client.submit_and_watch(NOOP, timeout=0.5)
    seen = []
    with within(0.1, 4.0), pytest.raises(taskyard.Error, match="t1 was not done in") as caught:
        for each in watcher:
            seen.append(each)  # noqa: PERF402 They are wanted in spite of the error.
    assert names(seen)[:2] == ["Submitted", "Events"]
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.metadata == {"task_id": "t1"}
    assert list(watcher) == []


def test_a_task_that_is_not_submitted_in_time_has_no_id(play: Any) -> None:
    client, _ = play(sends(then=hangs))
    with within(0.1, 4.0), pytest.raises(taskyard.Error) as caught:
        next(client.submit_and_watch(NOOP, timeout=0.2))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.metadata == {}


def test_silence_is_an_outage(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "GRACE", 0.2)
    client, scripted = play(
        sends(started("c0"), then=hangs), sends(started("c0"), event("c1", 1), then=hangs)
    )
    watcher = client.watch(heartbeat=0.1)
    assert names([next(watcher)]) == ["Started"]
    with within(0.4, 4.0):
        lost = next(watcher)
    assert str(lost.error) == "the server has gone silent"
    assert names([next(watcher), next(watcher)]) == ["Restored", "Events"]
    assert scripted.ended.wait(5)
    watcher.close()


def test_an_answer_that_never_begins_is_an_outage(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watch, "GRACE", 0.2)
    client, _ = play(sends(then=hangs))
    with within(0.2, 4.0), pytest.raises(taskyard.Error, match="the server does not answer"):
        list(client.watch(max_outage=0.0))


def test_a_try_is_not_waited_for_beyond_the_longest_outage(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server goes earlier, which would be told otherwise.
    monkeypatch.setattr(_watch, "GRACE", 60.0)
    client, scripted = play(refuse(), sends(then=hangs))
    watcher = client.watch(max_outage=0.5)
    assert names([next(watcher)]) == ["Lost"]
    with pytest.raises(taskyard.Error, match="the server does not answer"):
        next(watcher)
    assert len(scripted.requests) == 2


def test_a_watcher_that_is_left_ends_its_stream(play: Any) -> None:
    client, scripted = play(sends(started("c0"), then=hangs))
    watcher = client.watch()
    next(watcher)
    if isinstance(client, taskyard.Client):
        del watcher
        gc.collect()
    else:
        watcher.close()
    assert scripted.ended.wait(5)


def test_many_messages_are_read_only_when_asked_for(play: Any) -> None:
    sent = []

    def floods(_context: Any) -> Any:
        yield started("c0")
        for seq in range(1, 2000):
            sent.append(seq)
            labels = {"a": "b" * 50_000}
            events = [taskyard.Event(seq=seq, labels=labels)]
            yield pb.WatchEventsResponse(cursor=f"c{seq}", events=events)

    client, _ = play(floods)
    watcher = client.watch()
    for _ in range(3):
        next(watcher)
    before = -1
    while len(sent) != before:
        before = len(sent)
        time.sleep(0.2)
    assert before < 1000
    watcher.close()


def begins_slowly(begin: threading.Event, go_on: threading.Event) -> Any:
    """A watch that waits for the one before it begins, and for the other before its event."""

    def waits(context: Any) -> Any:
        begin.wait(10)
        yield started("c0")
        go_on.wait(10)
        yield event("c1", 1)
        hangs(context)

    return waits


@pytest.mark.parametrize("kind", ["python-asyncio"], indirect=True)
def test_who_stops_waiting_loses_nothing(play: Any) -> None:
    begin, go_on = threading.Event(), threading.Event()
    client, scripted = play(begins_slowly(begin, go_on))

    async def impatient() -> list[str]:
        async def in_vain() -> None:
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(watcher), 0.05)

        watcher = client._inner.watch()
        await in_vain()
        begin.set()
        seen = [await anext(watcher)]
        await in_vain()
        go_on.set()
        seen.append(await anext(watcher))
        await in_vain()
        await watcher.close()
        return names(seen)

    assert client._call(impatient)() == ["Started", "Events"]
    assert len(scripted.requests) == 1


@contextlib.contextmanager
def within(least: float, most: float) -> Iterator[None]:
    since = time.monotonic()
    yield
    assert least - 0.02 <= time.monotonic() - since < most


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def web() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def other_grpc(*handlers: grpc.GenericRpcHandler) -> Iterator[str]:
    with ThreadPoolExecutor() as threads:
        server = grpc.server(threads, list(handlers))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


NOBODY = [
    (refusing, r"no server answers at http://127\.0\.0\.1:\d+: Connection refused"),
    (silent, r"no server answers at http://127\.0\.0\.1:\d+: .* (nothing|nothing for .* s)"),
    (web, r"no server answers at http://127\.0\.0\.1:\d+: what it says is not gRPC"),
]


@pytest.mark.parametrize(("place", "told"), NOBODY)
def test_nobody_is_told_in_a_line(
    place: Any, told: str, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channel, "CONNECT_TIMEOUT", 0.5)
    with place() as address, pytest.raises(taskyard.Error) as caught, within(0.0, 4.0):
        make_client(address).__enter__()
    assert caught.value.code is UNAVAILABLE
    assert re.fullmatch(told, str(caught.value)), caught.value


@pytest.mark.parametrize("place", [refusing, silent, web])
def test_nothing_hangs_where_nobody_answers(
    place: Any, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channel, "CONNECT_TIMEOUT", 1.0)
    with place() as address:
        client = make_client(address)
        with within(0.5, 4.0), pytest.raises(taskyard.Error) as caught:
            client.submit(NOOP, 0.5)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        with within(0.0, 4.0), pytest.raises(taskyard.Error) as caught:
            list(client.watch(max_outage=0.1))
        assert caught.value.code is UNAVAILABLE
        assert "\n" not in str(caught.value)
        client.close()


def test_another_server_is_told_as_what_it_is(make_client: Any) -> None:
    with other_grpc() as address:
        client = make_client(address)
        calls = (client.connect, lambda: client.submit(NOOP), lambda: list(client.watch()))
        for call in calls:
            with pytest.raises(taskyard.Error, match="no Taskyard") as caught:
                call()
            assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
            assert caught.value.reason == ""
        client.close()


@pytest.mark.parametrize(("reason", "is_there"), [("", False), ("TOO_MANY_CONNECTIONS", True)])
def test_what_knows_no_such_service_is_no_taskyard(
    reason: str, is_there: bool, make_client: Any
) -> None:
    asked = []

    def check(request: bytes, context: Any) -> bytes:
        asked.append(request)
        refuse(grpc.StatusCode.NOT_FOUND, reason)(context)
        return b""

    handlers: Any = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers)
    with other_grpc(health) as address:
        client = make_client(address)
        if is_there:
            client.connect()
        else:
            told = r"no Taskyard answers at http://127\.0\.0\.1:\d+: no"
            with pytest.raises(taskyard.Error, match=told) as caught:
                client.connect()
            assert caught.value.code is grpc.StatusCode.NOT_FOUND
        client.close()
    assert asked == [b"\x0a\x17taskyard.v1.TaskService"]


def test_after_its_end_a_client_does_nothing(play: Any) -> None:
    client, scripted = play(ack)
    client.submit(NOOP)
    client.close()
    for call in (client.connect, lambda: client.submit(NOOP), lambda: client.wait("t1")):
        check_is_closed(call)
    assert len(scripted.requests) == 1


def test_a_client_that_is_closed_between_tries_tries_no_more(play: Any) -> None:
    client, scripted = play(refuse(pushback="500"))
    check_is_closed(lambda: client.submit(NOOP), closing=client, scripted=scripted)
    assert len(scripted.requests) == 1


def test_a_client_that_is_closed_ends_its_calls(play: Any) -> None:
    client, scripted = play(hangs)
    call = lambda: client.wait("t1")  # noqa: E731
    check_is_closed(call, closing=client, scripted=scripted)


def check_is_closed(call: Any, closing: Any = None, scripted: Any = None) -> None:
    with ThreadPoolExecutor() as threads, within(0.0, 4.0):
        calling = threads.submit(call)
        if closing is not None:
            while not scripted.requests:
                time.sleep(0.01)
            closing.close()
        with pytest.raises(taskyard.Error, match=r"^the client is closed$") as caught:
            calling.result(4)
    assert caught.value.code is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("kind", ["python"], indirect=True)
def test_who_is_interrupted_loses_nothing(play: Any) -> None:
    begin, go_on = threading.Event(), threading.Event()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    client, scripted = play(begins_slowly(begin, go_on))
    watcher = client.watch()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for moment, seen in ((begin, "Started"), (go_on, "Events")):
            for _ in range(2):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(KeyboardInterrupt):
                    next(watcher)
            moment.set()
            assert names([next(watcher)]) == [seen]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(scripted.requests) == 1
    watcher.close()
