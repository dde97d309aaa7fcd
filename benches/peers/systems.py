"""The systems: what starts a server of each, and what it is set to.

What a system does not name is stock.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from machine import fail, found, output, program

HERE = Path(__file__).resolve().parent
LOCALHOST = "127.0.0.1"
LOAD_SECONDS = 600
"""More than any load takes: a system that hangs ends the run."""

QUEUES = ("submit", "batch", "lives", "latency")
"""As the load generator names them."""


class System:
    """A server to start, and what to load it with."""

    name = ""
    title = ""
    needs = ()
    needs_package = ""
    settings = ""
    generator = ""
    """What the load generator calls it."""
    eager = False
    """Whether its workers poll each 1 ms rather than as in stock."""

    def __init__(self, options):
        self.options = options

    def prepare(self, home):
        """Makes what the server needs in its directory."""

    def command(self, home, port):
        raise NotImplementedError

    def address(self, port):
        return f"{LOCALHOST}:{port}"

    def version(self):
        raise NotImplementedError

    def load(self, generator, port):
        return run_generator(generator, self, port)


class Taskyard(System):
    name = generator = "taskyard"
    title = "Taskyard, its Go client, SubmitBatch"
    settings = "durability = fsync; queue_max_tasks and queue_max_bytes raised"

    def prepare(self, home):
        queues = "".join(f"[queues.{name}]\n" for name in QUEUES)
        (home / "config.toml").write_text(
            f'durability = "fsync"\nworkers = {self.options.workers}\nlog = "warn"\n'
            'queue_max_tasks = 100000000\nqueue_max_bytes = "64GiB"\n' + queues)

    def command(self, home, port):
        return [self.options.taskyard, "serve", "--config", home / "config.toml",
                "--data-dir", home / "data", "--listen", self.address(port)]

    def version(self):
        return output([self.options.taskyard, "--version"])


class TaskyardGenerated(Taskyard):
    name = generator = "taskyard-grpc"
    title = "Taskyard, plain gRPC, SubmitStream"


class Redis(System):
    needs = ("redis-server", "redis-benchmark")
    needs_package = "redis-server"
    settings = "appendonly yes; appendfsync always; save off; maxmemory-policy noeviction"

    def command(self, home, port):
        return ["redis-server", "--bind", LOCALHOST, "--port", str(port), "--dir", home,
                "--appendonly", "yes", "--appendfsync", "always", "--save", "",
                "--maxmemory-policy", "noeviction"]

    def version(self):
        return "Redis " + found(r"v=(\S+)", output(["redis-server", "--version"]))


class Asynq(Redis):
    name = generator = "asynq"
    title = "asynq on Redis"

    def version(self):
        return f"{super().version()}, asynq {module_version('github.com/hibiken/asynq')}"


class AsynqEager(Asynq):
    name = "asynq-eager"
    title = "asynq, TaskCheckInterval 1 ms"
    eager = True


class RedisBare(Redis):
    name = "redis"
    title = "Redis alone, LPUSH: a limit, no task queue"

    def load(self, generator, port):
        return {"submits_per_second": self.lpush(port, 1), "batched_per_second": self.lpush(port, 64)}

    def lpush(self, port, pipelined):
        """As many as fill about the time that the others have."""
        def rate(requests):
            answer = output([
                "redis-benchmark", "-h", LOCALHOST, "-p", str(port), "-t", "lpush", "--csv", "-d", "200",
                "-c", str(self.options.clients), "-P", str(pipelined), "-n", str(requests)])
            return float(found(r'"LPUSH[^"]*","([\d.]+)"', answer))
        return rate(max(10_000, int(rate(10_000) * self.options.seconds)))


class Beanstalkd(System):
    name = generator = "beanstalkd"
    title = "beanstalkd"
    needs = ("beanstalkd",)
    needs_package = "beanstalkd"
    settings = "-b (write-ahead log) -f0 (fsync at each write)"

    def prepare(self, home):
        (home / "log").mkdir()

    def command(self, home, port):
        return ["beanstalkd", "-l", LOCALHOST, "-p", str(port), "-b", home / "log", "-f0"]

    def version(self):
        return output(["beanstalkd", "-v"])


class River(System):
    name = generator = "river"
    title = "River on PostgreSQL, InsertManyFast"
    needs = ("initdb", "postgres")
    needs_package = "postgresql"
    settings = "fsync = on; synchronous_commit = on; full_page_writes = on; max_connections = 200"

    def prepare(self, home):
        self.own(home)
        subprocess.run(
            self.as_user([program("initdb"), "-D", home / "data", "-U", "peers", "--auth=trust",
                          "--encoding=UTF8", "--locale=C"]),
            check=True, stdout=subprocess.DEVNULL, cwd=home)

    def command(self, home, port):
        settings = [
            f"listen_addresses={LOCALHOST}", f"port={port}", f"unix_socket_directories={home}",
            "fsync=on", "synchronous_commit=on", "full_page_writes=on", "max_connections=200"]
        flags = [part for setting in settings for part in ("-c", setting)]
        return self.as_user([program("postgres"), "-D", home / "data", *flags])

    @staticmethod
    def own(home):
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")

    @staticmethod
    def as_user(command):
        """PostgreSQL refuses to run as root."""
        return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command

    def address(self, port):
        return f"postgres://peers@{LOCALHOST}:{port}/postgres?sslmode=disable"

    def version(self):
        postgres = found(r"PostgreSQL\) (\S+)", output([program("postgres"), "--version"]))
        return f"PostgreSQL {postgres}, River {module_version('github.com/riverqueue/river')}"


class RiverEager(River):
    name = "river-eager"
    title = "River, FetchCooldown and FetchPollInterval 1 ms"
    eager = True


BY_NAME = {system.name: system for system in (
    Taskyard, TaskyardGenerated, Asynq, AsynqEager, River, RiverEager, Beanstalkd, RedisBare)}


def run_generator(generator, system, port):
    options = system.options
    command = [
        generator, "-system", system.generator, "-address", system.address(port),
        "-clients", options.clients,
        "-workers", options.workers, "-seconds", options.seconds, "-tasks", options.tasks,
        "-samples", options.samples]
    if system.eager:
        command.append("-eager")
    answer = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, timeout=LOAD_SECONDS)
    if answer.returncode != 0:
        fail(f"the load generator failed for {system.name}; above it says why")
    return json.loads(answer.stdout)


def module_version(module):
    return found(rf"(?m)^\s*(?:require )?{re.escape(module)} (\S+)", (HERE / "go.mod").read_text())
