"""A connection to ray: to a cluster that is there, which is left as it is, or to processes started here for a while."""

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

_OBJECT_STORE = 128 << 20  # bytes; a batch and its records are far smaller
_PATIENCE = 12  # seconds for a cluster to answer in; ray itself tries for two minutes, and then ends the process
_TRIES = 3
_AT_IMPORT = {
    # What it names, ray prints to standard output beside its error, whatever it was told.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker died|memory pressure|marked dead|Raylet is terminated",
    # Seconds that each of three attempts to reach ray:// may take.
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "4",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "4",
}
_REMEDY = (
    "`ray start --head` starts a cluster on port 6379 (ray://host:10001 for clients); without --ray-address all "
    "is done on this machine"
)
# Whatever ray has to say is in what it raises; its C++ parts write to standard error besides.
_TRY = """
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
    """The module ray, connected to the cluster of an address, or without one to `cpus` processes of this machine.

    A connection that this process has already is used and left. Raises RedditgenError where there is no connecting,
    with `otherwise`, what to pass to do without ray, in its message.
    """
    for name, value in _AT_IMPORT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by init; its own processes inherit it
    with _options(address, cpus) as options:
        try:
            _init(ray, without_ray, **options, log_to_driver=False, configure_logging=False)
            yield ray
        finally:
            with _own_signals():
                ray.shutdown()


@contextmanager
def _options(address: str | None, cpus: int | None) -> Iterator[dict[str, Any]]:
    """Of ray.init; inside the block the folder is there that they name."""
    if address:
        if not _is_for_clients(address):
            _try(address)
        yield {"address": address}
        return
    # Else ray writes a token to the home folder, and each `ray start` from then on asks for it. This process keeps the
    # first token for as long as it lives.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # By itself ray puts its workers last in line (nice 15); encode is as much in the foreground as other programs.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Sockets lie in it, whose paths may not be longer than 107 bytes; macOS's temporary folder is half of that.
    above = os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "darwin" else None)
    with TemporaryDirectory(prefix="ray-", dir=above, ignore_cleanup_errors=True) as folder:
        yield {
            "address": "local",
            "num_cpus": cpus or os.cpu_count() or 1,
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
            "_temp_dir": folder,
        }


def _init(ray: Any, without_ray: str, address: str, **options: Any) -> None:
    try:
        with _own_signals(), warnings.catch_warnings(action="ignore"):
            _patiently(ray.init, address, **options)
    except SystemExit as error:
        raise KeyboardInterrupt from error
    except Exception as error:  # ray raises most kinds, Exception itself too
        if address == "local":
            raise RedditgenError(f"ray does not start: {last_line(error)}; {without_ray} does without ray") from error
        raise InputError(f"--ray-address {address}: {' '.join(str(error).split())}; {_REMEDY}") from error


def _patiently(init: Callable[..., Any], address: str, **options: Any) -> None:
    """A cluster starts a process for each client at ray://, and may lose it while it is itself just starting."""
    for tries_left in reversed(range(_TRIES)):
        try:
            init(address=address, **options)
            return
        except ConnectionAbortedError:
            if not tries_left:
                raise
            _log.info("--ray-address %s: the cluster could not start its server for this client; once more", address)


def _is_for_clients(address: str) -> bool:
    return address.startswith("ray://")


@contextmanager
def _own_signals() -> Iterator[None]:
    """ray.init makes SIGTERM an exit by 15; what was set before is set again."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _try(address: str) -> None:
    """Connect in a process of its own: where nobody answers, ray (not its client) can't be told to give up in time."""
    try:
        tried = subprocess.run(
            [sys.executable, "-P", "-c", _TRY, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf8",
            errors="replace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"--ray-address {address}: no ray answers there within {_PATIENCE} s; {_REMEDY}") from error
    if tried.returncode:
        cause = tried.stdout.strip().rstrip(".") or f"ray ended with {tried.returncode}"
        raise InputError(f"--ray-address {address}: {cause}; {_REMEDY}")


def last_line(error: BaseException) -> str:
    """The last line of ray's message that says something; the others are where and when."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def cpus_per_worker(nodes: Sequence[int], count: int) -> int:
    """How many CPUs each of so many workers can have on nodes with these numbers of them; 0 if there are too few."""
    fit = (each for each in range(max(nodes, default=0), 0, -1) if sum(cpus // each for cpus in nodes) >= count)
    return next(fit, 0)


def missing_module(error: BaseException) -> str | None:
    """The name of what a node could not import."""
    found = re.search(r"No module named '([\w.]+)'", str(error))
    return found[1] if found else None
