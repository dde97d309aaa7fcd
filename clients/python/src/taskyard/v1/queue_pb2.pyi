import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueueBlock(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUEUE_BLOCK_UNSPECIFIED: _ClassVar[QueueBlock]
    QUEUE_BLOCK_PAUSED: _ClassVar[QueueBlock]
    QUEUE_BLOCK_MAX_RUNNING: _ClassVar[QueueBlock]
    QUEUE_BLOCK_RATE_LIMIT: _ClassVar[QueueBlock]
    QUEUE_BLOCK_DRAINING: _ClassVar[QueueBlock]
QUEUE_BLOCK_UNSPECIFIED: QueueBlock
QUEUE_BLOCK_PAUSED: QueueBlock
QUEUE_BLOCK_MAX_RUNNING: QueueBlock
QUEUE_BLOCK_RATE_LIMIT: QueueBlock
QUEUE_BLOCK_DRAINING: QueueBlock

class QueueSettings(_message.Message):
    __slots__ = ("max_tasks", "max_bytes", "max_running", "rate_limit", "weight", "max_attempts", "initial_backoff", "max_backoff", "attempt_timeout")
    MAX_TASKS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    max_tasks: int
    max_bytes: int
    max_running: int
    rate_limit: RateLimit
    weight: int
    max_attempts: int
    initial_backoff: _duration_pb2.Duration
    max_backoff: _duration_pb2.Duration
    attempt_timeout: _duration_pb2.Duration
    def __init__(self, max_tasks: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_running: _Optional[int] = ..., rate_limit: _Optional[_Union[RateLimit, _Mapping]] = ..., weight: _Optional[int] = ..., max_attempts: _Optional[int] = ..., initial_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., attempt_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RateLimit(_message.Message):
    __slots__ = ("starts_per_second", "burst")
    STARTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    starts_per_second: float
    burst: int
    def __init__(self, starts_per_second: _Optional[float] = ..., burst: _Optional[int] = ...) -> None: ...

class TaskCounts(_message.Message):
    __slots__ = ("scheduled", "queued", "running", "succeeded", "failed", "cancelled")
    SCHEDULED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    scheduled: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    def __init__(self, scheduled: _Optional[int] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., cancelled: _Optional[int] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("queue", "settings", "overridden", "paused", "block", "counts", "waiting_bytes", "waiting_callers", "oldest_due_time", "configured")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDDEN_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAITING_CALLERS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    queue: str
    settings: QueueSettings
    overridden: _containers.RepeatedScalarFieldContainer[str]
    paused: bool
    block: QueueBlock
    counts: TaskCounts
    waiting_bytes: int
    waiting_callers: int
    oldest_due_time: _timestamp_pb2.Timestamp
    configured: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queue: _Optional[str] = ..., settings: _Optional[_Union[QueueSettings, _Mapping]] = ..., overridden: _Optional[_Iterable[str]] = ..., paused: bool = ..., block: _Optional[_Union[QueueBlock, str]] = ..., counts: _Optional[_Union[TaskCounts, _Mapping]] = ..., waiting_bytes: _Optional[int] = ..., waiting_callers: _Optional[int] = ..., oldest_due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., configured: _Optional[_Iterable[str]] = ...) -> None: ...
