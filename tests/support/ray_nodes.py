"""ray for tests: in the process of the tests itself, or as a cluster of several nodes on loopback."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest


@contextmanager
def in_this_process() -> Iterator[Any]:
    """ray in this process, as a program has it that uses redditgen as a library."""
    import ray

    with (
        TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=folder,
        )
        try:
            yield ray
        finally:
            ray.shutdown()


@dataclass
class Cluster:
    environment: dict[str, str]
    address: str
    client_address: str
    nodes: list[subprocess.Popen[bytes]]

    def is_complete(self) -> bool:
        return all(node.poll() is None for node in self.nodes)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def cluster(nodes: int, **environment: str) -> Iterator[Cluster]:
    """Nodes that ray's own command starts on loopback, and that are killed at the end."""
    own = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", **environment}
    port, client_port = free_port(), free_port()
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1"]
    start += ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--include-dashboard=false"]
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True))
        found = Cluster(own, f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}", [])
        for number in range(nodes):
            more = [f"--address={found.address}"] if number else [*head, f"--temp-dir={folder}"]
            log = Path(folder, f"node{number}.log")
            with log.open("wb") as file:
                found.nodes.append(subprocess.Popen([*start, *more], env=own, stdout=file, stderr=subprocess.STDOUT))
            stack.callback(end, found.nodes[-1])
            wait_until(partial(has_started, log))
        yield found


def has_started(log: Path) -> bool:
    return b"Ray runtime started" in log.read_bytes()


def end(node: "subprocess.Popen[bytes]") -> None:
    """Kill a node with all that it started: asked to end, it waits 30 seconds for an actor that Ray Train leaves."""
    started = psutil.Process(node.pid).children(recursive=True)
    node.kill()
    node.wait(60)
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(started, timeout=60)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
