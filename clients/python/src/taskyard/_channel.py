"""How a connection is made, and how it is seen that nobody answers."""

from __future__ import annotations

import threading
import weakref
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from ._errors import Error, root_cause

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C")

CONNECT_TIMEOUT = 5.0
MAX_ANSWER = 256 << 20
"""The longest answer that is read: a task carries a payload and a result, and an operator
may have raised the server's limits on both."""
PROBE = "/grpc.health.v1.Health/Check"
_SERVICE = b"taskyard.v1.TaskService"
PROBE_REQUEST = bytes([0x0A, len(_SERVICE)]) + _SERVICE
"""A HealthCheckRequest of this service, which only a Taskyard knows."""


def options() -> list[tuple[str, Any]]:
    """What both kinds of channels are made with."""
    try:
        release = version("taskyard")
    except PackageNotFoundError:
        release = "unknown"
    return [
        ("grpc.primary_user_agent", f"taskyard-python/{release}"),
        ("grpc.max_receive_message_length", MAX_ANSWER),
        # Finds out within 40 s that the machine at the other end has gone.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # This package rests between its tries. The channel must not add rests of its own,
        # of up to two minutes; the least rest is also the time to connect in.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT * 1000)),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Clients must not share a broken connection, and a private network has no proxy.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]


class Channels(Generic[C]):
    """The channels of a client: its own, and those that its watches make after a silence.

    One that nobody has any more is none of them.
    """

    def __init__(self, make: Callable[..., C], target: str) -> None:
        self._make = make
        self._target = target
        self._lock = threading.Lock()
        self._made: weakref.WeakSet[C] = weakref.WeakSet()
        self._is_closed = False

    def make(self) -> C:
        """One more, with a connection of its own; raises Error (CANCELLED) after the end."""
        with self._lock:
            self.check()
            channel = self._make(self._target, options=options())
            self._made.add(channel)
            return channel

    def check(self) -> None:
        """Raises Error (CANCELLED) after the end."""
        if self._is_closed:
            raise Error(grpc.StatusCode.CANCELLED, "the client is closed")

    def end(self) -> list[C]:
        """All of them, to be closed. There will be no more."""
        with self._lock:
            self._is_closed = True
            return list(self._made)


def nobody(target: str, error: grpc.RpcError) -> Error | None:
    """The error if the probe found no Taskyard. One that answers with a reason is there."""
    if Error.from_rpc(error).reason:
        return None
    call: Any = error
    code, said = call.code(), call.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        code, said = grpc.StatusCode.UNAVAILABLE, f"it said nothing for {CONNECT_TIMEOUT:.0f} s"
    elif code is grpc.StatusCode.UNAVAILABLE:
        said = root_cause(said)
    else:
        return Error(code, f"no Taskyard answers at http://{target}: {said or code.name}")
    return Error(code, f"no server answers at http://{target}: {said}")
