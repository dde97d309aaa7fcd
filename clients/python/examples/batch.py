"""Submits the tasks of a file, one JSON object on each line, and follows them to the end.

    python examples/batch.py examples/tasks.ndjson

On a terminal it shows a progress bar, otherwise one line for each task. The exit code is 1
if a task failed, was cancelled or was refused, 2 if the file is wrong, 4 if the server
cannot be reached, and 130 after Ctrl-C, which the tasks do not notice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

from google.protobuf import json_format

import taskyard
from taskyard import SubmitRequest, TaskState, aio

IN_FLIGHT = 64
ENDS = ["EVENT_TYPE_SUCCEEDED", "EVENT_TYPE_FAILED", "EVENT_TYPE_CANCELLED"]


def read(path: Path) -> list[SubmitRequest]:
    """The tasks of the file; ValueError names the line that is none."""
    requests = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            request = json_format.Parse(line, SubmitRequest())
        except json_format.ParseError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        request.request_id = request.request_id or str(uuid.uuid4())
        requests.append(request)
    return requests


class Progress:
    """What has become of the tasks, and how it is shown."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended = 0
        self.bad = 0
        self._on_terminal = sys.stderr.isatty()
        self._since = time.monotonic()

    def end(self, state: str, about: str) -> None:
        """Counts and shows the end of one task."""
        self.ended += 1
        is_bad = state != "SUCCEEDED"
        self.bad += is_bad
        if not self._on_terminal:
            print(f"{self.ended}/{self.total} {state} {about}", flush=True)
            return
        if is_bad:
            print(f"\r\033[K{state} {about}", file=sys.stderr)
        self.show()

    def say(self, text: str) -> None:
        """Tells what happens besides, above the bar."""
        print(f"\r\033[K{text}" if self._on_terminal else text, file=sys.stderr, flush=True)
        self.show()

    def show(self) -> None:
        """Draws the bar again, on a terminal."""
        if self._on_terminal:
            done = 30 * self.ended // max(self.total, 1)
            bar = "━" * done + " " * (30 - done)
            bad = f", {self.bad} not well" if self.bad else ""
            text = f"\r\033[K{bar} {self.ended}/{self.total}{bad}"
            print(text, end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Says how it went."""
        took = time.monotonic() - self._since
        well = self.ended - self.bad
        if self._on_terminal:
            print(file=sys.stderr)
        print(f"{self.total} tasks: {well} succeeded, {self.bad} did not, in {took:.1f} s")

    def interrupt(self, running: int) -> None:
        """Says what becomes of those that have not ended."""
        if self._on_terminal:
            print(file=sys.stderr)
        text = f"interrupted: {running} submitted tasks have not ended, and go on"
        if others := self.total - self.ended - running:
            text += f"; {others} more were not submitted, or have no answer yet"
        print(text, file=sys.stderr)


class Batch:
    """The tasks of one run: those submitted that have not ended, and the ends of others.

    Lines with the same requestId are one task, which each of them counts.
    """

    def __init__(self, client: aio.Client, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self._running: Counter[str] = Counter()
        # A task may end before a submission of it is answered; until all are, every end is
        # kept, also of tasks of others.
        self._ends: dict[str, tuple[str, str]] = {}
        self._all_submitted = False
        self._places = asyncio.Semaphore(IN_FLIGHT)

    @property
    def is_over(self) -> bool:
        """All is submitted, and all has ended."""
        return self._all_submitted and not self._running

    @property
    def running(self) -> int:
        """How many have been submitted and have not ended."""
        return self._running.total()

    async def submit_all(self, requests: list[SubmitRequest]) -> None:
        """Submits them, a bounded number at a time."""
        submissions = set()
        for request in requests:
            await self._places.acquire()
            submission = asyncio.create_task(self._submit(request))
            submissions.add(submission)
            submission.add_done_callback(submissions.discard)
        await asyncio.gather(*submissions)
        self._all_submitted = True
        self._ends.clear()

    async def _submit(self, request: SubmitRequest) -> None:
        try:
            answer = await self._client.submit(request)
        except taskyard.Error as error:
            wrong = "".join(f"\n    {v.subject}: {v.description}" for v in error.violations)
            self._progress.end("REFUSED", f"{request.kind}: {error}{wrong}")
            return
        finally:
            self._places.release()
        if answer.task_id in self._ends:
            self._progress.end(*self._ends[answer.task_id])
        elif taskyard.is_terminal(answer.state):
            state = TaskState.Name(answer.state).removeprefix("TASK_STATE_")
            self._progress.end(state, f"{answer.task_id} {request.kind}, as before")
        else:
            self._running[answer.task_id] += 1

    def ended(self, event: taskyard.Event) -> None:
        """Takes the end of some task over."""
        name = taskyard.EventType.Name(event.type)
        why = f": {event.error.message}" if event.HasField("error") else ""
        told = (name.removeprefix("EVENT_TYPE_"), f"{event.task_id} {event.kind}{why}")
        for _ in range(self._running.pop(event.task_id, 0)):
            self._progress.end(*told)
        if not self._all_submitted:
            self._ends[event.task_id] = told


async def follow(watcher: aio.Watcher, batch: Batch, progress: Progress) -> None:
    """Reads the watch for as long as it is needed."""
    async for seen in watcher:
        match seen:
            case taskyard.Events():
                for event in seen.events:
                    batch.ended(event)
            case taskyard.Lost():
                progress.say(f"{seen.error}; trying again")
            case taskyard.Restored():
                progress.say("the server is back")
        if batch.is_over:
            return


async def run(server: str | None, requests: list[SubmitRequest]) -> int:
    """Submits and follows them; the exit code."""
    progress = Progress(len(requests))
    async with aio.Client(server) as client:
        batch = Batch(client, progress)
        ends = taskyard.EventFilter(types=ENDS)
        async with client.watch(filter=ends, max_outage=300.0) as watcher:
            while watcher.cursor is None:
                await anext(watcher)
            # From here on nothing is missed.
            progress.show()
            following = asyncio.create_task(follow(watcher, batch, progress))
            try:
                await batch.submit_all(requests)
                if batch.is_over:
                    following.cancel()
                await asyncio.gather(following, return_exceptions=batch.is_over)
            except asyncio.CancelledError:
                progress.interrupt(batch.running)
                raise
    progress.finish()
    return 1 if progress.bad else 0


def main() -> int:
    """Reads the command line and the file."""
    parser = argparse.ArgumentParser(description="Submits tasks and follows them to the end.")
    parser.add_argument("file", type=Path, help="one JSON object on each line")
    parser.add_argument("--server", help="host:port; TASKYARD_SERVER says it otherwise")
    options = parser.parse_args()
    try:
        requests = read(options.file)
        return asyncio.run(run(options.server, requests))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except taskyard.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
