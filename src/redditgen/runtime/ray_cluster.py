"""Connects to ray: to an existing cluster, which is not changed, or to processes started on this machine.

The processes on this machine end with the connection.
"""

import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from redditgen.errors import InputError, RedditgenError

_OBJECT_STORE_BYTES = 128 << 20  # bytes; a batch and its records are far smaller
_ANSWER_TIMEOUT = 12  # seconds for a cluster to answer; ray itself tries for two minutes and then exits
_MAX_TRIES = 3
# Environment variables that ray reads when it is imported.
_ENVIRONMENT = {
    # Ray prints messages that match to standard output, in addition to its error, whatever its other settings.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker died|memory pressure|marked dead|Raylet is terminated",
    # Seconds that each of three attempts to reach ray:// may take.
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "4",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "4",
}
_REMEDY = (
    "`ray start --head` starts a cluster on port 6379 (ray://host:10001 for clients); without --ray-address all "
    "is done on this machine"
)
# Connects to a cluster and prints the error if that fails. The exception has all the information; what ray's C++ parts
# write to standard error is ignored.
_CONNECT_SCRIPT = """
import logging, sys, ray
logging.getLogger("ray").setLevel(logging.ERROR)
try:
    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
except Exception as error:
    print(" ".join(str(error).split()))
    sys.exit(1)
"""

_log = logging.getLogger(__name__)


@contextmanager
def ray_connection(address: str | None, cpus: int | None, *, without_ray: str) -> Iterator[Any]:
    """Yield the module ray, connected to the cluster at `address`, or if that is None to `cpus` new local processes.

    `cpus` None means all CPUs of this machine. Uses a connection that this process has already, and leaves it open.
    Raises InputError where the cluster can't be reached, and RedditgenError where local processes don't start;
    `without_ray` says in that message how to do without ray, for example "--workers 1".
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by init; its own processes inherit it
    with _init_options(address, cpus) as options:
        try:
            _init_ray(ray, without_ray, **options, log_to_driver=False, configure_logging=False)
            yield ray
        finally:
            with _keep_sigterm_handler():
                ray.shutdown()


@contextmanager
def _init_options(address: str | None, cpus: int | None) -> Iterator[dict[str, Any]]:
    """Yield the options of ray.init. For local processes, creates the temporary folder that they name.

    Raises InputError where no cluster answers at the address.
    """
    if address:
        if not _is_client_address(address):
            _check_cluster(address)
        yield {"address": address}
        return
    # Without this variable, ray writes a token to the home folder, and every later `ray start` asks for it. A process
    # keeps its first token as long as it lives.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # By default, ray gives its workers a low priority (nice 15); encode is to run like any other program.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # The folder holds sockets, whose paths are limited to 107 bytes; macOS's temporary folder takes half of them.
    parent = os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "darwin" else None)
    with TemporaryDirectory(prefix="ray-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield {
            "address": "local",
            "num_cpus": cpus or os.cpu_count() or 1,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": folder,
        }


def _init_ray(ray: Any, without_ray: str, address: str, **options: Any) -> None:
    """Call ray.init, and convert its errors to redditgen's."""
    try:
        with _keep_sigterm_handler(), warnings.catch_warnings(action="ignore"):
            _retry_init(ray.init, address, **options)
    except SystemExit as error:
        raise KeyboardInterrupt from error
    except Exception as error:  # ray raises many types, also plain Exception
        if address == "local":
            raise RedditgenError(f"ray does not start: {last_line(error)}; {without_ray} does without ray") from error
        raise InputError(f"--ray-address {address}: {' '.join(str(error).split())}; {_REMEDY}") from error


def _retry_init(init: Callable[..., Any], address: str, **options: Any) -> None:
    """Call ray.init up to three times where the connection is aborted.

    A cluster starts a server process for each client at ray://, which may die while the cluster itself is starting.
    """
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            init(address=address, **options)
            return
        except ConnectionAbortedError:
            if not tries_left:
                raise
            _log.info("--ray-address %s: the cluster could not start its server for this client; once more", address)


def _is_client_address(address: str) -> bool:
    return address.startswith("ray://")


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block, since ray.init installs one that exits with status 15."""
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, previous)


def _check_cluster(address: str) -> None:
    """Try to connect to a cluster from a separate process; raises InputError where that fails or takes too long.

    Where nobody answers, ray.init can't be told to give up in time, unless the address is one for clients.
    """
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", _CONNECT_SCRIPT, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf8",
            errors="replace",
            timeout=_ANSWER_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"--ray-address {address}: no ray answers there within {_ANSWER_TIMEOUT} s; {_REMEDY}"
        ) from error
    if result.returncode:
        cause = result.stdout.strip().rstrip(".") or f"ray ended with {result.returncode}"
        raise InputError(f"--ray-address {address}: {cause}; {_REMEDY}")


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message that is not empty.

    The lines before it in ray's messages say where and when the error happened.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def cpus_per_worker(nodes: Sequence[int], count: int) -> int:
    """Return how many CPUs each of `count` workers can have; 0 if there are fewer CPUs than workers.

    `nodes` are the numbers of CPUs of the nodes; the CPUs of a worker are on one node.
    """
    sizes = (size for size in range(max(nodes, default=0), 0, -1) if sum(cpus // size for cpus in nodes) >= count)
    return next(sizes, 0)


def missing_module(error: BaseException) -> str | None:
    """Return the name of the module that an error says can't be imported; None for other errors."""
    match = re.search(r"No module named '([\w.]+)'", str(error))
    return match[1] if match else None
