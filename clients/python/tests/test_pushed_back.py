"""Flow control holds up who sends too fast, and ends no connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from server import Server
from taskyard.v1 import event_pb2
from taskyard.v1 import task_service_pb2 as messages
from taskyard.v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASKS = 10_000


@pytest.mark.parametrize("size", [0, 40, 300])
def test_a_stream_that_is_pushed_back_keeps_its_connection(tmp_path: Path, size: int) -> None:
    def requests() -> Iterator[messages.SubmitStreamRequest]:
        for sequence in range(TASKS):
            task = messages.SubmitRequest(kind="noop", data=bytes(size))
            yield messages.SubmitStreamRequest(sequence=sequence, request=task)

    settings = ["--queue-max-tasks", "100"]
    with Server(tmp_path, settings) as server, grpc.insecure_channel(server.address) as channel:
        stub = TaskServiceStub(channel)
        watch = stub.WatchEvents(messages.WatchEventsRequest(), timeout=120)
        assert next(watch).HasField("started")
        taken = [
            ack
            for message in stub.SubmitStream(requests(), timeout=120)
            for ack in message.acks
            if ack.HasField("ack")
        ]
        assert [ack.sequence for ack in taken] == list(range(TASKS))
        # The watch on the same connection has missed nothing.
        left = TASKS
        while left:
            events = next(watch).events
            left -= sum(event.type == event_pb2.EVENT_TYPE_SUCCEEDED for event in events)
