"""What went wrong, in words for programs and for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

# How gRPC begins what it says of a stream that broke under it. A server's own answer
# carries a reason besides.
_BROKEN = ("Received RST_STREAM", "RST_STREAM", "Stream removed", "GOAWAY", "Missing")
_BROKEN_CODES = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
)
# How it begins when there is no connection at all.
_NOBODY = ("failed to connect", "errors resolving", "DNS resolution", "no server answers")
TOO_LATE = "the deadline passed before the server answered"


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a request, or with the state of what it is about."""

    subject: str
    """The field, such as `retry.max_attempts`, or the thing in question, such as a task."""
    description: str
    """What is wrong with it."""


class Error(Exception):
    """Why a call failed: the status of the server, or of the way to it, taken apart.

    Its text is one line.
    """

    __module__ = "taskyard"  # What a traceback calls it is what it is imported by.

    code: grpc.StatusCode
    """The gRPC code. A lost connection is UNAVAILABLE, whatever became of it on the way."""
    reason: str
    """The server's reason, such as `QUEUE_FULL`: stable, to be compared by programs.
    Empty if no Taskyard answered."""
    metadata: dict[str, str]
    """What goes with the reason, by name: such as the `cursor` to go on after."""
    violations: tuple[Violation, ...]
    """Everything that is wrong with the request."""
    retry_after: float | None
    """How many seconds the server asks to wait before another try."""
    may_retry: bool
    """False if the server asks for no other try."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code
        self.reason = ""
        self.metadata = {}
        self.violations = ()
        self.retry_after = None
        self.may_retry = True

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> Error:
        """The error that a call of the generated code raised."""
        call: Any = error
        details = call.details() or ""
        trailers = [(str(key), value) for key, value in call.trailing_metadata() or ()]
        status = status_pb2.Status()
        for key, value in trailers:
            if key == "grpc-status-details-bin":
                status = _parsed(value)
        made = cls._taken_apart(call.code(), details, status)
        for key, value in trailers:
            if key == "grpc-retry-pushback-ms":
                _push_back(made, str(value).strip())
        return made

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> Error:
        """The status of one task in a batch or in a stream."""
        code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
        return cls._taken_apart(code, status.message, status)

    @classmethod
    def _taken_apart(
        cls, code: grpc.StatusCode, message: str, status: status_pb2.Status
    ) -> Error:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        request = error_details_pb2.BadRequest()
        state = error_details_pb2.PreconditionFailure()
        for detail in status.details:
            for kind in (info, retry, request, state):
                try:
                    detail.Unpack(kind)
                except DecodeError:
                    continue
        if not info.reason:
            code, message = _without_reason(code, message)
        name = f" ({info.reason})" if info.reason else ""
        error = cls(code, (message.strip() or f"the server answered {code.name}") + name)
        error.reason = info.reason
        error.metadata = dict(info.metadata)
        error.violations = tuple(_violations(request, state))
        if retry.HasField("retry_delay"):
            delay = retry.retry_delay
            error.retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
        return error


def is_lost(error: Error) -> bool:
    """Whether there was no answer, so that another try is worth it."""
    return error.code is grpc.StatusCode.UNAVAILABLE


def _push_back(error: Error, value: str) -> None:
    if value.isascii() and value.isdigit():
        error.retry_after = int(value) / 1000
    else:
        error.retry_after, error.may_retry = None, False


def _parsed(value: str | bytes) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(value if isinstance(value, bytes) else b"")
    except DecodeError:
        return status_pb2.Status(code=code_pb2.UNKNOWN)


def _violations(
    request: error_details_pb2.BadRequest, state: error_details_pb2.PreconditionFailure
) -> Iterable[Violation]:
    for field in request.field_violations:
        yield Violation(field.field, field.description)
    for thing in state.violations:
        yield Violation(thing.subject, thing.description)


def _without_reason(code: grpc.StatusCode, message: str) -> tuple[grpc.StatusCode, str]:
    """What happened on this side or on the way, told as what it is."""
    if code in _BROKEN_CODES and message.startswith(_BROKEN):
        return grpc.StatusCode.UNAVAILABLE, f"the connection to the server was lost: {message}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return code, TOO_LATE
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return code, f"what answers is no Taskyard, or one of another version: {message}"
    if code is grpc.StatusCode.UNAVAILABLE:
        cause = root_cause(message)
        if message.startswith(_NOBODY):
            return code, f"no server answers: {cause}"
        return code, f"the connection to the server was lost: {cause}"
    return code, message


def root_cause(message: str) -> str:
    """The end of gRPC's own chain of causes, which is the part that says something."""
    if "timed out before receiving SETTINGS" in message:
        return "it takes the connection and says nothing"
    if "Failed parsing HTTP/2" in message:
        return "what it says is not gRPC"
    chain = re.sub(r"\s*\{.*\}\s*$", "", message, flags=re.DOTALL).rstrip("]")
    chain = re.sub(r"^Stream removed \((.*)\)$", r"\1", chain)
    cause = chain.rpartition(": ")[2].rpartition("recvmsg:")[2].rpartition("sendmsg:")[2]
    return re.sub(r" \(\d+\)$", "", cause) or "without a reason"
