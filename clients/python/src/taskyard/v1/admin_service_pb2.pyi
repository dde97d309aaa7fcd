import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from taskyard.v1 import event_pb2 as _event_pb2
from taskyard.v1 import pool_pb2 as _pool_pb2
from taskyard.v1 import queue_pb2 as _queue_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetPoolRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPoolResponse(_message.Message):
    __slots__ = ("pool", "drain_time_left")
    POOL_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    pool: _pool_pb2.Pool
    drain_time_left: _duration_pb2.Duration
    def __init__(self, pool: _Optional[_Union[_pool_pb2.Pool, _Mapping]] = ..., drain_time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ResizePoolRequest(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class ResizePoolResponse(_message.Message):
    __slots__ = ("pool",)
    POOL_FIELD_NUMBER: _ClassVar[int]
    pool: _pool_pb2.Pool
    def __init__(self, pool: _Optional[_Union[_pool_pb2.Pool, _Mapping]] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ("queue", "page_size", "page_token")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    queue: str
    page_size: int
    page_token: str
    def __init__(self, queue: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues", "next_page_token")
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[_queue_pb2.Queue]
    next_page_token: str
    def __init__(self, queues: _Optional[_Iterable[_Union[_queue_pb2.Queue, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateQueueRequest(_message.Message):
    __slots__ = ("queue", "settings", "update_mask")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    queue: str
    settings: _queue_pb2.QueueSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, queue: _Optional[str] = ..., settings: _Optional[_Union[_queue_pb2.QueueSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateQueueResponse(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: _queue_pb2.Queue
    def __init__(self, queue: _Optional[_Union[_queue_pb2.Queue, _Mapping]] = ...) -> None: ...

class PauseQueueRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class PauseQueueResponse(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: _queue_pb2.Queue
    def __init__(self, queue: _Optional[_Union[_queue_pb2.Queue, _Mapping]] = ...) -> None: ...

class ResumeQueueRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class ResumeQueueResponse(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: _queue_pb2.Queue
    def __init__(self, queue: _Optional[_Union[_queue_pb2.Queue, _Mapping]] = ...) -> None: ...

class ListWatchersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWatchersResponse(_message.Message):
    __slots__ = ("watchers", "newest_cursor")
    WATCHERS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_CURSOR_FIELD_NUMBER: _ClassVar[int]
    watchers: _containers.RepeatedCompositeFieldContainer[Watcher]
    newest_cursor: str
    def __init__(self, watchers: _Optional[_Iterable[_Union[Watcher, _Mapping]]] = ..., newest_cursor: _Optional[str] = ...) -> None: ...

class Watcher(_message.Message):
    __slots__ = ("watcher", "peer", "start_time", "cursor", "lag_events", "stalled_for", "reads_history", "sent_events", "filter", "follows_task_id")
    WATCHER_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LAG_EVENTS_FIELD_NUMBER: _ClassVar[int]
    STALLED_FOR_FIELD_NUMBER: _ClassVar[int]
    READS_HISTORY_FIELD_NUMBER: _ClassVar[int]
    SENT_EVENTS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    watcher: int
    peer: str
    start_time: _timestamp_pb2.Timestamp
    cursor: str
    lag_events: int
    stalled_for: _duration_pb2.Duration
    reads_history: bool
    sent_events: int
    filter: _event_pb2.EventFilter
    follows_task_id: str
    def __init__(self, watcher: _Optional[int] = ..., peer: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cursor: _Optional[str] = ..., lag_events: _Optional[int] = ..., stalled_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reads_history: bool = ..., sent_events: _Optional[int] = ..., filter: _Optional[_Union[_event_pb2.EventFilter, _Mapping]] = ..., follows_task_id: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("finished", "interrupted", "remaining", "complete")
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    finished: int
    interrupted: int
    remaining: int
    complete: bool
    def __init__(self, finished: _Optional[int] = ..., interrupted: _Optional[int] = ..., remaining: _Optional[int] = ..., complete: bool = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("target_wait",)
    TARGET_WAIT_FIELD_NUMBER: _ClassVar[int]
    target_wait: _duration_pb2.Duration
    def __init__(self, target_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("pool", "queues", "advice", "start_time", "time")
    POOL_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    pool: PoolStats
    queues: _containers.RepeatedCompositeFieldContainer[QueueStats]
    advice: SizingAdvice
    start_time: _timestamp_pb2.Timestamp
    time: _timestamp_pb2.Timestamp
    def __init__(self, pool: _Optional[_Union[PoolStats, _Mapping]] = ..., queues: _Optional[_Iterable[_Union[QueueStats, _Mapping]]] = ..., advice: _Optional[_Union[SizingAdvice, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PoolStats(_message.Message):
    __slots__ = ("workers", "busy_workers", "busy_share", "arrival_rate", "completion_rate", "mean_service", "mean_wait", "counts")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    BUSY_WORKERS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SHARE_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_RATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_RATE_FIELD_NUMBER: _ClassVar[int]
    MEAN_SERVICE_FIELD_NUMBER: _ClassVar[int]
    MEAN_WAIT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    workers: int
    busy_workers: int
    busy_share: float
    arrival_rate: float
    completion_rate: float
    mean_service: _duration_pb2.Duration
    mean_wait: _duration_pb2.Duration
    counts: _queue_pb2.TaskCounts
    def __init__(self, workers: _Optional[int] = ..., busy_workers: _Optional[int] = ..., busy_share: _Optional[float] = ..., arrival_rate: _Optional[float] = ..., completion_rate: _Optional[float] = ..., mean_service: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mean_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., counts: _Optional[_Union[_queue_pb2.TaskCounts, _Mapping]] = ...) -> None: ...

class QueueStats(_message.Message):
    __slots__ = ("queue", "arrival_rate", "completion_rate", "mean_service", "mean_wait", "busy_share", "counts", "wait_now", "block")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_RATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_RATE_FIELD_NUMBER: _ClassVar[int]
    MEAN_SERVICE_FIELD_NUMBER: _ClassVar[int]
    MEAN_WAIT_FIELD_NUMBER: _ClassVar[int]
    BUSY_SHARE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    WAIT_NOW_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    queue: str
    arrival_rate: float
    completion_rate: float
    mean_service: _duration_pb2.Duration
    mean_wait: _duration_pb2.Duration
    busy_share: float
    counts: _queue_pb2.TaskCounts
    wait_now: _duration_pb2.Duration
    block: _queue_pb2.QueueBlock
    def __init__(self, queue: _Optional[str] = ..., arrival_rate: _Optional[float] = ..., completion_rate: _Optional[float] = ..., mean_service: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mean_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., busy_share: _Optional[float] = ..., counts: _Optional[_Union[_queue_pb2.TaskCounts, _Mapping]] = ..., wait_now: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., block: _Optional[_Union[_queue_pb2.QueueBlock, str]] = ...) -> None: ...

class SizingAdvice(_message.Message):
    __slots__ = ("target_wait", "workers", "expected_wait", "current_expected_wait", "wait_probability", "offered_load", "summary")
    TARGET_WAIT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_FIELD_NUMBER: _ClassVar[int]
    CURRENT_EXPECTED_WAIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    OFFERED_LOAD_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    target_wait: _duration_pb2.Duration
    workers: int
    expected_wait: _duration_pb2.Duration
    current_expected_wait: _duration_pb2.Duration
    wait_probability: float
    offered_load: float
    summary: str
    def __init__(self, target_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., workers: _Optional[int] = ..., expected_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., current_expected_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wait_probability: _Optional[float] = ..., offered_load: _Optional[float] = ..., summary: _Optional[str] = ...) -> None: ...
