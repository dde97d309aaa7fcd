import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Pool(_message.Message):
    __slots__ = ("size", "workers")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    size: int
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, size: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker", "leaving", "execution", "finished", "busy_share")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    BUSY_SHARE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    leaving: bool
    execution: Execution
    finished: int
    busy_share: float
    def __init__(self, worker: _Optional[str] = ..., leaving: bool = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., finished: _Optional[int] = ..., busy_share: _Optional[float] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("task_id", "queue", "kind", "attempt", "start_time", "running_for")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FOR_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    queue: str
    kind: str
    attempt: int
    start_time: _timestamp_pb2.Timestamp
    running_for: _duration_pb2.Duration
    def __init__(self, task_id: _Optional[str] = ..., queue: _Optional[str] = ..., kind: _Optional[str] = ..., attempt: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., running_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
