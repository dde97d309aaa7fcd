"""Where a server is."""

from __future__ import annotations

import os
import re

DEFAULT_ADDRESS = "http://127.0.0.1:50051"
DEFAULT_PORT = 50051

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[^:]*))?")


def parse(text: str | None) -> str:
    """The target `host:port` of a URL, of `host:port` or of `host`.

    None is what TASKYARD_SERVER says, or the address that a server has by itself.
    """
    if text is None:
        text = os.environ.get("TASKYARD_SERVER") or DEFAULT_ADDRESS
    scheme, separator, rest = text.strip().rpartition("://")
    if scheme == "https":
        raise _bad(text, "asks for TLS, which is not supported")
    if separator and scheme != "http":
        raise _bad(text, f"has the unknown scheme {scheme!r}")
    parts = _AUTHORITY.fullmatch(rest.rstrip("/"))
    if parts is None:
        raise _bad(text, "is not an address")
    port = parts["port"]
    if port is None:
        return f"{parts['host']}:{DEFAULT_PORT}"
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise _bad(text, "has no valid port")
    return f"{parts['host']}:{int(port)}"


def _bad(text: str, why: str) -> ValueError:
    form = f"{DEFAULT_ADDRESS} or host:port"
    return ValueError(f"the address {text!r} {why}; it looks like {form}")
