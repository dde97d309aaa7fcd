"""Both clients against clients/scenarios.json, which every client's tests run.

clients/README.md says what the steps mean.
"""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import json_format

import taskyard
from server import Server
from taskyard.v1.task_service_pb2 import CancelTaskRequest, SubmitStreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = Path(__file__).parents[2] / "scenarios.json"
SCENARIOS = json.loads(TABLE.read_text())["scenarios"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_scenario(
    kind: str, scenario: Any, make_client: Callable[[str], Any], tmp_path: Path
) -> None:
    outcome = "failed"
    try:
        play(scenario, make_client, tmp_path / "data")
        outcome = "ok"
    finally:
        if report := os.environ.get("SCENARIO_REPORT"):
            with Path(report).open("a") as file:
                file.write(f"{kind}\t{scenario['name']}\t{outcome}\n")


def play(scenario: Any, make_client: Callable[[str], Any], data: Path) -> None:
    settings = scenario.get("server", [])
    server = Server(data, settings)
    with ThreadPoolExecutor() as threads, server, make_client(server.address) as client:
        stage = Stage(data, settings, server, client, threads)
        try:
            for step in scenario["steps"]:
                ((name, about),) = step.items()
                begun = time.monotonic()
                getattr(stage, name)(about)
                bound = seconds(about.get("timeout", about.get("deadline")))
                assert bound is None or time.monotonic() - begun <= bound + 5.0
        finally:
            stage.server.__exit__()
            for seeing in stage.watches.values():
                seeing.watcher.close()


@dataclass
class Seeing:
    """A watch, and what it saw so far that no step has looked at."""

    watcher: Any
    is_filtered: bool
    unread: list[taskyard.Event] = field(default_factory=list)
    last: int = 0
    count: int = 0


@dataclass
class Stage:
    data: Path
    settings: list[str]
    server: Server
    client: Any
    threads: ThreadPoolExecutor
    submitted: dict[str, taskyard.SubmitResponse] = field(default_factory=dict)
    background: dict[str, Future[Any]] = field(default_factory=dict)
    watches: dict[str, Seeing] = field(default_factory=dict)

    def task(self, about: Any) -> str:
        if "task_id" in about:
            return str(about["task_id"])
        return self.submitted[about["task"]].task_id

    def submit(self, about: Any) -> None:
        request, timeout = submission(about["request"]), seconds(about.get("deadline"))
        future = self.threads.submit(self.client.submit, request, timeout)
        if about.get("background"):
            self.background[about["as"]] = future
        else:
            self.check_submission(about.get("as", ""), about, future)

    def finish(self, about: Any) -> None:
        name = about["submit"]
        self.check_submission(name, about, self.background.pop(name))

    def check_submission(self, name: str, about: Any, answer: Future[Any]) -> None:
        if "error" in about:
            check_error(lambda: answer.result(60), about["error"])
            return
        submitted = answer.result(60)
        expect = about.get("expect", {})
        assert submitted.existing == expect.get("existing", submitted.existing)
        if "same_task_as" in expect:
            assert submitted.task_id == self.submitted[expect["same_task_as"]].task_id
        self.submitted[name] = submitted

    def submit_and_wait(self, about: Any) -> None:
        task = self.client.submit_and_wait(submission(about["request"]))
        check_task(task, about["expect"])

    def submit_and_watch(self, about: Any) -> None:
        first, *rest = list(self.client.submit_and_watch(submission(about["request"])))
        assert isinstance(first, taskyard.Submitted)
        events = [
            event for seen in rest if isinstance(seen, taskyard.Events) for event in seen.events
        ]
        assert {event.task_id for event in events} == {first.response.task_id}
        assert types_of(events) == about["expect"]

    def submit_stream(self, about: Any) -> None:
        requests = [
            SubmitStreamRequest(sequence=sequence, request=submission(request))
            for sequence, request in enumerate(about["requests"], 1)
        ]
        acks = [ack for answer in stream(self.client, requests) for ack in answer.acks]
        assert [ack.sequence for ack in acks] == [each["sequence"] for each in about["expect"]]
        for ack, expect in zip(acks, about["expect"], strict=True):
            assert ack.HasField("error") == ("code" in expect)
            if "code" in expect:
                error = taskyard.Error.from_status(ack.error)
                check_error(partial(throw, error), expect)

    def wait(self, about: Any) -> None:
        call = partial(self.client.wait, self.task(about), seconds(about.get("timeout")))
        if "error" in about:
            check_error(call, about["error"])
        else:
            check_task(call(), about["expect"])

    def cancel(self, about: Any) -> None:
        request = CancelTaskRequest(task_id=self.task(about))

        def call() -> Any:
            try:
                return self.client.tasks.CancelTask(request)
            except grpc.RpcError as error:
                raise taskyard.Error.from_rpc(error) from None

        if "error" in about:
            check_error(call, about["error"])
        else:
            check_task(call().task, about.get("expect", {}))

    def watch(self, about: Any) -> None:
        after = about.get("after")
        if "after_task" in about:
            after = self.submitted[about["after_task"]].cursor
        has_filter = "filter" in about
        watcher = self.client.watch(
            about.get("start", "LIVE").lower(),
            after=after,
            filter=json_format.ParseDict(about.get("filter", {}), taskyard.EventFilter()),
            max_outage=60.0 if "max_outage" not in about else seconds(about["max_outage"]),
        )
        if about.get("start") == "LIVE":
            # From here on nothing is missed.
            assert next(watcher) == taskyard.Started()
        self.watches[about["as"]] = Seeing(watcher, has_filter)

    def watch_until(self, about: Any) -> None:
        seeing, task = self.watches[about["watch"]], self.task(about)
        last = f"EVENT_TYPE_{about['type']}"

        def is_last(event: taskyard.Event) -> bool:
            return event.task_id == task and event.type == taskyard.EventType.Value(last)

        while not any(map(is_last, seeing.unread)):
            for event in next(events(seeing.watcher)):
                follows = event.seq == seeing.last + 1 or seeing.last == 0
                assert follows or (seeing.is_filtered and event.seq > seeing.last)
                seeing.last = event.seq
                seeing.count += 1
                seeing.unread.append(event)
        of_task = [event for event in seeing.unread if event.task_id == task]
        assert types_of(of_task) == about["expect"]
        assert seeing.count == about.get("expect_all", seeing.count)
        seeing.unread = [event for event in seeing.unread if event.task_id != task]

    def watch_error(self, about: Any) -> None:
        watcher = self.watches[about["watch"]].watcher
        check_error(lambda: list(watcher), about["error"])

    def stop(self, about: Any) -> None:
        self.server.stop(signal.Signals[f"SIG{about['signal']}"])

    def drain(self, _about: Any) -> None:
        self.server.signal(signal.SIGTERM)

    def start(self, _about: Any) -> None:
        self.server.wait()
        self.server = Server(self.data, self.settings, self.server.address)

    def restart(self, about: Any) -> None:
        self.stop(about)
        self.start(about)

    def freeze(self, _about: Any) -> None:
        self.server.signal(signal.SIGSTOP)

    def thaw(self, _about: Any) -> None:
        self.server.signal(signal.SIGCONT)


def stream(client: Any, requests: list[SubmitStreamRequest]) -> Any:
    """The answers of the generated call, which is not of the same form in both clients."""
    if isinstance(client, taskyard.Client):
        return client.tasks.SubmitStream(iter(requests))

    async def answers() -> Any:
        return [answer async for answer in client._inner.tasks.SubmitStream(iter(requests))]

    return client._call(answers)()


def throw(error: Exception) -> None:
    raise error


def events(watcher: Any) -> Iterator[Any]:
    return (seen.events for seen in watcher if isinstance(seen, taskyard.Events))


def seconds(text: str | None) -> float | None:
    return None if text is None else float(text.removesuffix("s"))


def submission(request: Any) -> taskyard.SubmitRequest:
    return json_format.ParseDict(request, taskyard.SubmitRequest())


def types_of(events: list[taskyard.Event]) -> list[str]:
    names = [taskyard.EventType.Name(event.type) for event in events]
    return [name.removeprefix("EVENT_TYPE_") for name in names]


def check_task(task: taskyard.Task, expect: Any) -> None:
    state = taskyard.TaskState.Name(task.state).removeprefix("TASK_STATE_")
    known = {
        "state": state,
        "attempt": task.attempt,
        "priority": task.priority,
        "labels": dict(task.labels),
        "error": task.error.reason,
    }
    assert {name: known[name] for name in expect} == expect


def check_error(call: Callable[[], Any], expect: Any) -> None:
    with pytest.raises(taskyard.Error) as caught:
        call()
    error = caught.value
    assert error.code is grpc.StatusCode[expect["code"]], error
    assert error.reason == expect.get("reason", error.reason)
    if "violations" in expect:
        fields = sorted({violation.subject for violation in error.violations})
        assert fields == expect["violations"]
    assert set(expect.get("metadata", [])) <= set(error.metadata)
    assert (error.retry_after is not None) >= expect.get("retry_after", False)
    # It is one clear sentence, and nothing of the inside.
    told = str(error)
    assert told
    assert "\n" not in told
    assert not any(part in told for part in ("grpc_status", "StatusCode", "<_", "{"))
