"""What this machine has: programs, a disk, memory that processes take."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path


def program(name):
    """Where it is; Debian keeps PostgreSQL's servers out of PATH."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, reversed(servers))))


def output(command):
    return subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def found(pattern, text):
    match = re.search(pattern, text)
    if not match:
        fail(f"{pattern} is not in what was expected to have it:\n{text}")
    return match[1]


def cpu_model():
    match = re.search(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text())
    return match[1] if match else os.uname().machine


def file_system(path):
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    holding = [mount for mount in mounts if path.is_relative_to(mount[1])]
    device, _, kind, *_ = max(holding, key=lambda mount: len(mount[1]))
    return kind, device


def sync_millis(scratch):
    """What durability costs here at the least."""
    taken = []
    with (scratch / "synced").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e3


def memory_bytes(pid):
    """Of the process and its children: resident, with each shared page counted once."""
    kilobytes = 0
    for member in [pid, *descendants(pid)]:
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
        except PermissionError:
            return None
        kilobytes += int(found(r"(?m)^Pss:\s+(\d+)", rollup))
    return kilobytes * 1024


def descendants(pid):
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found_so_far = [pid]
    for parent in found_so_far:
        found_so_far.extend(children.get(parent, []))
    return found_so_far[1:]


def say(line):
    print(line, file=sys.stderr, flush=True)


def fail(message):
    sys.exit(f"peers: {message}")
