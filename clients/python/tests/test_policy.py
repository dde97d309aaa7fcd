"""The retry policy that is published for generated clients."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from scripted import UNAVAILABLE, ack, refuse
from taskyard import Error, SubmitRequest, _retry
from taskyard._outage import Outages
from taskyard._retry import Tries
from taskyard.v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLISHED = (Path(__file__).parents[2] / "service-config.json").read_text()


def test_the_figures_are_those_that_are_published() -> None:
    (config,) = json.loads(PUBLISHED)["methodConfig"]
    policy = config["retryPolicy"]
    expected = seconds(policy["initialBackoff"])
    for failures in range(1, 20):
        assert _retry.longest_backoff(failures) == pytest.approx(expected)
        expected = min(expected * policy["backoffMultiplier"], seconds(policy["maxBackoff"]))
    assert expected == seconds(policy["maxBackoff"])
    for code in grpc.StatusCode:
        is_published = code.name in policy["retryableStatusCodes"]
        assert goes_on(Tries().rest, code) == is_published, code
        assert goes_on(Outages(max_outage=60.0).lose, code) == is_published, code


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def goes_on(after: Callable[[Error, float], object], code: grpc.StatusCode) -> bool:
    try:
        after(Error(code, "no"), 0.0)
    except Error:
        return False
    return True


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_generated_client_retries_by_what_is_published(serve: Any, kind: str) -> None:
    port, scripted = serve(
        attempt(None, refuse(UNAVAILABLE)),
        attempt("1", refuse(pushback="1")),
        attempt("2", ack),
    )
    target, options = f"127.0.0.1:{port}", [("grpc.service_config", PUBLISHED)]
    request = SubmitRequest(kind="noop", request_id="once")

    async def submit() -> Any:
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            return await TaskServiceStub(channel).Submit(request)

    if kind == "asyncio":
        answer = asyncio.run(submit())
    else:
        with grpc.insecure_channel(target, options=options) as channel:
            answer = TaskServiceStub(channel).Submit(request)
    assert answer.task_id == "t1"
    assert len(scripted.requests) == 3


def attempt(previous: str | None, part: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As this part, if it is gRPC itself that has made so many attempts before."""

    def checked(context: Any) -> Any:
        told = dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts")
        if told != previous:
            context.abort(grpc.StatusCode.INTERNAL, f"there were {told} attempts")
        return part(context)

    return checked
