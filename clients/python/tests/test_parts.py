"""What needs no server: addresses, errors, and when to try again."""

from __future__ import annotations

import re
import traceback
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Detail
from google.rpc import error_details_pb2, status_pb2

from taskyard import Client, Error, SubmitRequest, Task, Violation, _address, _calls, _retry
from taskyard._retry import Tries
from taskyard.v1 import task_service_pb2 as pb

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Broken(grpc.RpcError):
    """What a call of the generated code raises."""

    def __init__(self, code: grpc.StatusCode, details: str, *trailers: tuple[str, Any]) -> None:
        super().__init__()
        self._all = (code, details, trailers)

    def code(self) -> grpc.StatusCode:
        return self._all[0]

    def details(self) -> str:
        return self._all[1]

    def trailing_metadata(self) -> Any:
        return self._all[2]


def status(code: int, message: str, *details: Any) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(Detail())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def unavailable(*trailers: tuple[str, Any]) -> Error:
    return Error.from_rpc(Broken(UNAVAILABLE, "", *trailers))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("http://127.0.0.1:50051", "127.0.0.1:50051"),
        ("127.0.0.1:7000", "127.0.0.1:7000"),
        (" localhost ", "localhost:50051"),
        ("http://example.org/", "example.org:50051"),
        ("[::1]:9", "[::1]:9"),
        ("[::1]", "[::1]:50051"),
    ],
)
def test_addresses_are_taken_as_people_write_them(text: str, target: str) -> None:
    assert _address.parse(text) == target


@pytest.mark.parametrize(
    "text",
    ["", "https://a:1", "ftp://a", "a b", "http://", "a:99999", "a:1/path", "a:", "u@a", "::1"],
)
def test_what_is_no_address_is_told_at_once(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"it looks like http://127\.0\.0\.1:50051 or host:port"
    ):
        Client(text)


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKYARD_SERVER", "there:7")
    assert _address.parse(None) == "there:7"
    monkeypatch.delenv("TASKYARD_SERVER")
    assert _address.parse(None) == "127.0.0.1:50051"


def test_an_error_has_a_name_for_everything() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="kind", description="is required")
    state = error_details_pb2.PreconditionFailure()
    state.violations.add(subject="t1", description="has ended")
    info = error_details_pb2.ErrorInfo(reason="A", domain="taskyard", metadata={"a": "b"})
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(7)
    told = status(3, "kind is\n  wrong", info, bad, state, retry)
    trailer = ("grpc-status-details-bin", told.SerializeToString())
    broken = Broken(grpc.StatusCode.INVALID_ARGUMENT, "kind is\n  wrong", trailer)
    for error in (Error.from_rpc(broken), Error.from_status(told)):
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert (error.reason, error.metadata) == ("A", {"a": "b"})
        assert error.violations == (
            Violation("kind", "is required"),
            Violation("t1", "has ended"),
        )
        assert error.retry_after == 0.007
        assert str(error) == "kind is wrong (A)"


def test_an_error_is_called_as_it_is_imported() -> None:
    (line,) = traceback.format_exception_only(Error(UNAVAILABLE, "no"))
    assert line == "taskyard.Error: no\n"


def test_a_timeout_that_is_no_number_is_told_at_once() -> None:
    request = SubmitRequest(kind="noop")
    client = Client("127.0.0.1:1")
    calls: list[Any] = [
        partial(client.submit, request),
        partial(client.wait, "t1"),
        partial(client.submit_and_wait, request),
        partial(client.submit_and_watch, request),
    ]
    for call in calls:
        for timeout in ("5", timedelta(seconds=5)):
            with pytest.raises(TypeError, match="a number of seconds or None, not "):
                call(timeout=timeout)
    client.close()


def test_details_that_cannot_be_read_do_no_harm() -> None:
    broken = Broken(grpc.StatusCode.INTERNAL, "why", ("grpc-status-details-bin", b"\xff"))
    assert str(Error.from_rpc(broken)) == "why"
    wrong = status(13, "why", error_details_pb2.ErrorInfo(reason="A"))
    wrong.details[0].value = b"\xff"
    assert Error.from_status(wrong).reason == ""
    assert str(Error.from_status(status(5, " "))) == "the server answered NOT_FOUND"
    assert Error.from_status(status(99, "new")).code is grpc.StatusCode.UNKNOWN


LOST = "the connection to the server was lost: "


@pytest.mark.parametrize(
    ("code", "details", "seen", "told"),
    [
        (14, "Stream removed (Socket closed)", 14, LOST + "Socket closed"),
        (14, "ipv4:1.2.3.4:5: recvmsg:Connection reset (104)", 14, LOST + "Connection reset"),
        (14, "Ping timeout {fd:7}", 14, LOST + "Ping timeout"),
        (14, "", 14, LOST + "without a reason"),
        (1, "Received RST_STREAM with error code 8", 14, LOST + "Received .* code 8"),
        (13, "Received RST_STREAM with error code 2", 14, LOST + "Received .* code 2"),
        (13, "a bug", 13, "a bug"),
        (1, "Locally cancelled by application!", 1, "Locally cancelled by application!"),
        (4, "Deadline Exceeded", 4, "the deadline passed before the server answered"),
        (14, "failed to connect; last error: A: b: Refused", 14, "no server answers: Refused"),
        (12, "Method not found!", 12, "what answers is no Taskyard.*"),
    ],
)
def test_what_happened_on_the_way_is_told_as_what_it_is(
    code: int, details: str, seen: int, told: str
) -> None:
    codes = {each.value[0]: each for each in grpc.StatusCode}
    error = Error.from_rpc(Broken(codes[code], details))
    assert (error.code, error.reason) == (codes[seen], "")
    assert re.fullmatch(told, str(error)), error


def test_a_deadline_that_the_server_tells_has_its_reason() -> None:
    late = status(4, "nothing was enqueued", error_details_pb2.ErrorInfo(reason="DEADLINE"))
    assert str(Error.from_status(late)) == "nothing was enqueued (DEADLINE)"


def test_rests_grow_and_are_bounded() -> None:
    longest = [_retry.longest_backoff(failures) for failures in (1, 2, 3, 6, 7, 1000)]
    assert longest == [0.1, 0.2, 0.4, 3.2, 5.0, 5.0]
    rests = [_retry.backoff(3) for _ in range(200)]
    assert 0.2 <= min(rests) < 0.25
    assert 0.35 < max(rests) <= 0.4


def test_repeating_ends() -> None:
    tries, now = Tries(), 100.0
    with pytest.raises(Error, match="lost"):
        while True:
            now += tries.rest(unavailable(), now)
    # The last rest, of 5 s at most, would have ended beyond it.
    assert 155.0 < now <= 160.0


def test_a_try_that_stood_for_long_ends_the_outage_before_it() -> None:
    tries, now = Tries(), 0.0
    for _ in range(4):
        for stood in (0.0, 0.0, 100.0):
            begun, now = now, now + stood
            now += tries.rest(unavailable(), now, begun=begun)


def test_a_drain_is_waited_for_and_its_end_is_noticed() -> None:
    """A server that drains for half a minute, and is back some seconds after."""
    tries, now = Tries(), 0.0
    while now < 40.0:
        pushback = [("grpc-retry-pushback-ms", "1000")] if now < 30.0 else []
        now += tries.rest(unavailable(*pushback), now)
    assert now <= 46.0


def test_only_lost_calls_are_repeated() -> None:
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
        with pytest.raises(Error):
            Tries().rest(Error(code, ""), 0.0)


@pytest.mark.parametrize(
    ("pushback", "rest"),
    [("700", 0.7), ("0", 0.01), ("30000", 30.0), ("30001", None), ("-1", None), ("x", None)],
)
def test_a_pushback_is_honoured(pushback: str, rest: float | None) -> None:
    error = unavailable(("grpc-retry-pushback-ms", pushback))
    if rest is not None:
        assert Tries().rest(error, 0.0) == rest
        return
    with pytest.raises(Error):
        Tries().rest(error, 0.0)


def test_retry_info_counts_where_there_is_no_pushback() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(300)
    details = ("grpc-status-details-bin", status(14, "", retry).SerializeToString())
    assert Tries().rest(unavailable(details), 0.0) == 0.3
    both = unavailable(details, ("grpc-retry-pushback-ms", "50"))
    assert Tries().rest(both, 0.0) == 0.05
    never = unavailable(details, ("grpc-retry-pushback-ms", "-1"))
    assert (never.retry_after, never.may_retry) == (None, False)


def test_a_deadline_bounds_all_tries() -> None:
    tries = Tries(deadline=10.0)
    assert tries.left(8.0) == 2.0
    assert tries.rest(unavailable(("grpc-retry-pushback-ms", "5000")), 9.0) == 1.0
    with pytest.raises(Error, match=r"the deadline passed .* before that: .*lost") as caught:
        tries.left(10.0)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_request_is_given_an_id_once_and_is_not_changed() -> None:
    request = SubmitRequest(kind="noop")
    steps = _calls.submit(request, None)
    first = next(steps)
    steps.throw(unavailable())
    second = next(steps)
    assert isinstance(first, _calls.Call)
    assert isinstance(second, _calls.Call)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first.request.request_id)
    assert first.request == second.request
    assert request.request_id == ""
    assert _calls.identified(SubmitRequest(request_id="mine")).request_id == "mine"


@pytest.mark.parametrize("value", [0.0, 0.1, 15.0, 300.5, -1.5])
def test_durations_are_those_of_the_wire(value: float) -> None:
    assert _calls.duration(value).ToTimedelta().total_seconds() == value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(_calls, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


LATE = Error(grpc.StatusCode.DEADLINE_EXCEEDED, "late")


@pytest.mark.parametrize(
    "steps", [_calls.submit(SubmitRequest(kind="noop"), None), _calls.wait("t1", None)]
)
def test_a_call_that_stood_for_long_is_repeated(clock: Any, steps: Any) -> None:
    call: Any = next(steps)
    for stood in (0.0, 100.0, 100.0):
        assert isinstance(call, _calls.Call)
        clock.now += stood
        rest = steps.throw(unavailable())
        assert isinstance(rest, _calls.Rest)
        clock.now += rest.seconds
        call = next(steps)


def test_a_long_wait_is_many_calls(clock: Any) -> None:
    steps = _calls.wait("t1", None)
    call = next(steps)
    for _ in range(20):
        assert isinstance(call, _calls.Call)
        assert (call.request.timeout.seconds, call.timeout) == (300, 310.0)
        clock.now += 310.0
        call = steps.throw(LATE)


def test_an_endless_wait_does_not_spin(clock: Any) -> None:
    steps = _calls.wait("t1", None)
    next(steps)
    failures = 0
    with pytest.raises(Error) as caught:
        while failures < 1000:
            failures += 1
            clock.now += 1.0
            rest = steps.throw(LATE)
            assert isinstance(rest, _calls.Rest)
            assert rest.seconds >= _retry.longest_backoff(failures) / 2
            clock.now += rest.seconds
            assert isinstance(next(steps), _calls.Call)
    assert caught.value is LATE
    assert 10 < failures < 40


def test_a_wait_keeps_its_timeout_over_its_repeats(clock: Any) -> None:
    steps = _calls.wait("t1", 1.0)
    call: Any = next(steps)
    lost = unavailable()
    with pytest.raises(Error) as caught:
        while True:
            assert clock.now < 1.0
            assert call.request.timeout == _calls.duration(1.0 - clock.now)
            rest: Any = steps.throw(lost)
            clock.now += rest.seconds
            call = next(steps)
    assert (caught.value, clock.now) == (lost, 1.0)


def test_a_task_that_is_not_done_in_time_is_told_with_its_id(clock: Any) -> None:
    def begun() -> Any:
        clock.now = 0.0
        steps: Any = _calls.submit_and_wait(SubmitRequest(kind="noop"), 1.0)
        assert next(steps).method == "Submit"
        assert steps.send(pb.SubmitResponse(task_id="t1")).method == "WaitTask"
        clock.now = 1.0
        return steps

    running = Task(task_id="t1", state="TASK_STATE_RUNNING")
    late = pytest.raises(Error, match=r"^the task t1 was not done in time$")
    with late as caught:
        begun().send(pb.WaitTaskResponse(task=running))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.metadata == {"task_id": "t1"}
    # Also where the server hangs; a server that has gone is told as that.
    with late as caught:
        begun().throw(LATE)
    assert caught.value.metadata == {"task_id": "t1"}
    steps = begun()
    steps.throw(unavailable())
    with pytest.raises(Error, match="lost"):
        next(steps)
