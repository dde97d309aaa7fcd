"""The real server, as a process."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self


class Server:
    """`taskyard serve`, which is killed in the end."""

    def __init__(self, data: Path, settings: list[str], listen: str = "127.0.0.1:0") -> None:
        workers = [] if "--workers" in settings else ["--workers", "2"]
        names = {name: text for name, text in os.environ.items() if "TASKYARD" not in name}
        command = [os.environ.get("TASKYARD", "taskyard"), "serve", "--listen", listen]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data), *workers, *settings],
            env={**names, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = self._address()
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _address(self) -> str:
        assert self.process.stderr is not None
        seen = ""
        for line in self.process.stderr:
            seen += line
            _, found, rest = line.partition("listening on ")
            if found:
                return rest.split()[0]
        raise AssertionError(f"it ended before it listened: {seen}")

    def _drain(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for _ in log:
                pass

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int) -> None:
        self.signal(number)
        self.wait()

    def wait(self) -> None:
        """Waits for its end, which something else brings about."""
        self.process.wait(timeout=60)
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
