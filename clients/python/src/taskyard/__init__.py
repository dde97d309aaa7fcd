"""Client of Taskyard, a durable task service over gRPC.

A thin layer over the generated code, which is `taskyard.v1`; all its calls are at hand as
`Client.tasks` and `Client.admin`. The client of asyncio is `taskyard.aio.Client`.
"""

from . import aio
from ._calls import is_terminal
from ._errors import Error, Violation
from ._watch import (
    CaughtUp,
    Draining,
    Events,
    Gap,
    Heartbeat,
    Lost,
    Restored,
    Seen,
    Snapshot,
    SnapshotBegun,
    SnapshotEnded,
    Started,
    Submitted,
)
from .client import Client, Watcher
from .v1.event_pb2 import Event, EventFilter, EventType
from .v1.task_pb2 import RetryPolicy, Task, TaskState
from .v1.task_service_pb2 import SubmitRequest, SubmitResponse, WhenFull

__all__ = [
    "CaughtUp",
    "Client",
    "Draining",
    "Error",
    "Event",
    "EventFilter",
    "EventType",
    "Events",
    "Gap",
    "Heartbeat",
    "Lost",
    "Restored",
    "RetryPolicy",
    "Seen",
    "Snapshot",
    "SnapshotBegun",
    "SnapshotEnded",
    "Started",
    "SubmitRequest",
    "SubmitResponse",
    "Submitted",
    "Task",
    "TaskState",
    "Violation",
    "Watcher",
    "WhenFull",
    "aio",
    "is_terminal",
]
