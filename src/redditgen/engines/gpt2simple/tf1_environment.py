"""The Python 3.7 environment that TensorFlow 1.15 and gpt-2-simple live in: where it is, how it is made.

It lies in the user's cache folder, made by venv and pip from the requirements beside the worker. Its scripts hold
absolute paths, so it is made in place; a marker with the requirements' hash, written last, says that it is whole.
"""

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from redditgen.engines.gpt2simple import interpreters
from redditgen.errors import InputError, Interrupted, MissingError, RedditgenError
from redditgen.files import user_folders
from redditgen.files.atomic import atomic_write, make_folder
from redditgen.runtime.progress import Progress
from redditgen.runtime.signals import signals_raise_keyboard_interrupt

PYTHON_VARIABLE = "REDDITGEN_TF1_PYTHON"
INSTALL_COMMAND = "redditgen doctor --install tf1"
_DOWNLOAD, _ON_DISK, _FREE = 150, 600, 1000  # megabytes; pip's own cache takes the difference
_WORKER = Path(__file__).parent / "engines" / "worker"
_REQUIREMENTS = [_WORKER / "requirements-build.txt", _WORKER / "requirements.txt"]  # in the order to install them
_PIP_OPTIONS = ["--require-hashes", "--no-deps", "--no-build-isolation", "--no-user"]
_MARKER = "redditgen-whole"
_WANTED = {"tensorflow": "1.15.", "gpt-2-simple": "0.7."}  # what the versions begin with
_VERSIONS = """
import json, os, platform
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow, gpt_2_simple, pkg_resources
versions = {name: pkg_resources.get_distribution(name).version for name in ("gpt-2-simple", "numpy", "protobuf")}
print(json.dumps(dict(versions, tensorflow=tensorflow.__version__, python=platform.python_version())))
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InstalledEnvironment:
    path: Path
    """The interpreter."""
    seconds: float
    megabytes: float


@dataclass(frozen=True)
class CheckedPython:
    """What an interpreter has: versions by package, and `python`'s; and why it can't run the engine, if so."""

    versions: dict[str, str]
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or "TensorFlow {tensorflow}, gpt-2-simple {gpt-2-simple}, Python {python}".format_map(
            self.versions
        )


def environment_folder() -> Path:
    return user_folders.cache_folder() / "tf1"


def find_python(given: Path | None = None) -> Path:
    """The interpreter that runs gpt-2-simple: `given`, else the one that the variable names, else the installed one.

    Raises MissingError where none is installed, InputError where the named one is no Python 3.7.
    """
    named = given or os.environ.get(PYTHON_VARIABLE)
    if named:
        path = interpreters.absolute_path(Path(named))
        if reason := interpreters.why_unsuitable(path):
            raise InputError(
                f"{'--tf1-python' if given else PYTHON_VARIABLE}: {path}: {reason}; this makes one: {INSTALL_COMMAND}"
            )
        return path
    place = environment_folder()
    if what := missing_part(place):
        raise MissingError(
            f"Python 3.7 with TensorFlow 1.15: {place} {what}; make it with: {INSTALL_COMMAND} "
            f"(or name an interpreter that has them with --tf1-python or {PYTHON_VARIABLE})"
        )
    return interpreters.python_in_environment(place)


def check_python(python: Path) -> CheckedPython:
    """Import TensorFlow and gpt-2-simple in that interpreter; takes some seconds."""
    try:
        versions = interpreters.run_code(python, _VERSIONS)
    except interpreters.InterpreterError as error:
        return CheckedPython({}, str(error))
    for name, start in _WANTED.items():
        if not versions[name].startswith(start):
            return CheckedPython(versions, f"has {name} {versions[name]}, not {start}x")
    return CheckedPython(versions)


def install_environment(python: Path | None = None) -> InstalledEnvironment:
    """Make the environment with a Python 3.7, the given one or one that is looked for; does nothing if it is whole.

    Raises MissingError where there is no Python 3.7, RedditgenError with the log's name where pip fails; nothing that
    `find` accepts is left then.
    """
    place, started = environment_folder(), time.monotonic()
    with _alone(place), signals_raise_keyboard_interrupt():
        has = "is there already, and whole; delete that folder to make it anew"
        if missing_part(place):
            with (place.parent / "tf1-install.log").open("w", encoding="utf8") as log:
                base = interpreters.require_python_3_7(python) if python else interpreters.find_python_3_7(log)
                has = str(_make(place, base, log))
        done = InstalledEnvironment(
            interpreters.python_in_environment(place), time.monotonic() - started, _megabytes(place)
        )
    _log.info("%s: %s; %.0f MB, %.0f s", place, has, done.megabytes, done.seconds)
    return done


def _make(place: Path, base: Path, log: TextIO) -> CheckedPython:
    _require_disk(place.parent)
    _log.info(
        "%s: installing with %s; downloads %d MB from the package index, takes %d MB", place, base, _DOWNLOAD, _ON_DISK
    )
    try:
        shutil.rmtree(place, ignore_errors=True)  # what an installation that was killed has left
        interpreters.run_logged([base, "-I", "-m", "venv", place], log)
        python = interpreters.python_in_environment(place)
        _install_packages(python, log)
        checked = check_python(python)
        if checked.reason:
            raise RedditgenError(f"{place}: was installed, but {python} {checked}; the whole log is {log.name}")
        with atomic_write(place / _MARKER) as temporary:
            temporary.write_text(_digest(), encoding="utf8")
    except BaseException as error:
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"{place}: interrupted, so nothing is kept; the same command starts anew") from error
        raise
    return checked


def _install_packages(python: Path, log: TextIO) -> None:
    texts = [path.read_text(encoding="utf8") for path in _REQUIREMENTS]
    total = sum(len(re.findall(r"^\w", text, re.MULTILINE)) for text in texts)
    with Progress("install tf1", unit="packages", total=total) as progress:

        def show(line: str) -> None:
            if line.startswith("Collecting "):
                progress.update(1, line.split()[1])

        for path in _REQUIREMENTS:
            interpreters.run_logged(
                [python, "-I", "-m", "pip", "install", *_PIP_OPTIONS, "--requirement", path], log, show
            )


def missing_part(place: Path) -> str:
    """What an environment lacks; empty if it is whole."""
    if not place.exists():
        return "is not there"
    marker = place / _MARKER
    if not marker.exists():
        return "is unfinished"
    if marker.read_text(encoding="utf8") != _digest():
        return "was made by another version of redditgen"
    if not interpreters.python_in_environment(place).exists():
        return "has lost the Python 3.7 that it was made with"
    return ""


def _digest() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _REQUIREMENTS)).hexdigest()


def _megabytes(place: Path) -> float:
    return sum(path.lstat().st_size for path in place.rglob("*")) / 1e6


def _require_disk(place: Path) -> None:
    free = shutil.disk_usage(place).free / 1e6
    if free < _FREE:
        raise RedditgenError(f"{place}: {free:.0f} MB of disk are free and {_FREE} are needed; make room")


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other installations out, on Windows too, where `locks` does not.

    The system lets the lock go when its process ends, however that happens.
    """
    from filelock import FileLock, Timeout

    make_folder(place.parent)
    lock = FileLock(place.with_name("tf1.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RedditgenError(f"{place}: another {INSTALL_COMMAND} is making it; wait until that is done") from error
    except OSError as error:
        raise InputError(f"{place.parent}: can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
