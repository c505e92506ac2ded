"""Finds, checks and installs the Python 3.7 environment in which TensorFlow 1.15 and gpt-2-simple run.

The environment is in the user's cache folder. venv creates it, and pip installs into it the requirements that are next
to the worker's scripts. An environment contains absolute paths, so it can't be written atomically, under a temporary
name. Instead a marker file with the hash of the requirements is written last, and tells that it is complete.
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
_DOWNLOAD_MB, _DISK_MB, _FREE_DISK_MB = 150, 600, 1000  # megabytes; pip's cache needs the difference
_WORKER = Path(__file__).parent / "worker"
_REQUIREMENTS = [_WORKER / "requirements-build.txt", _WORKER / "requirements.txt"]  # in the order to install them
_PIP_OPTIONS = ["--require-hashes", "--no-deps", "--no-build-isolation", "--no-user"]
_MARKER = "redditgen-whole"  # in a complete environment
_REQUIRED_VERSIONS = {"tensorflow": "1.15.", "gpt-2-simple": "0.7."}  # how the versions must begin
_VERSIONS_PROGRAM = """
import json, os, platform
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow, gpt_2_simple, pkg_resources
versions = {name: pkg_resources.get_distribution(name).version for name in ("gpt-2-simple", "numpy", "protobuf")}
print(json.dumps(dict(versions, tensorflow=tensorflow.__version__, python=platform.python_version())))
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InstalledEnvironment:
    """An environment that can be used, with the time that the installation took and the space on the disk."""

    path: Path
    """The interpreter."""
    seconds: float
    megabytes: float


@dataclass(frozen=True)
class CheckedPython:
    """The versions of an interpreter's packages and of `python`, and the reason why it can't run the engine, if any."""

    versions: dict[str, str]
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or "TensorFlow {tensorflow}, gpt-2-simple {gpt-2-simple}, Python {python}".format_map(
            self.versions
        )


def environment_folder() -> Path:
    return user_folders.cache_folder() / "tf1"


def find_python(given: Path | None = None) -> Path:
    """Return the interpreter that runs gpt-2-simple: `given`, else that of PYTHON_VARIABLE, else the installed one.

    Raises MissingError where none is installed, and InputError where the one that is named is not a Python 3.7.
    """
    named = given or os.environ.get(PYTHON_VARIABLE)
    if named:
        path = interpreters.absolute_path(Path(named))
        if reason := interpreters.why_unsuitable(path):
            raise InputError(
                f"{'--tf1-python' if given else PYTHON_VARIABLE}: {path}: {reason}; this makes one: {INSTALL_COMMAND}"
            )
        return path
    folder = environment_folder()
    if problem := missing_part(folder):
        raise MissingError(
            f"Python 3.7 with TensorFlow 1.15: {folder} {problem}; make it with: {INSTALL_COMMAND} "
            f"(or name an interpreter that has them with --tf1-python or {PYTHON_VARIABLE})"
        )
    return interpreters.python_in_environment(folder)


def check_python(python: Path) -> CheckedPython:
    """Import TensorFlow and gpt-2-simple in an interpreter, which takes some seconds, and check their versions."""
    try:
        versions = interpreters.run_code(python, _VERSIONS_PROGRAM)
    except interpreters.InterpreterError as error:
        return CheckedPython({}, str(error))
    for name, start in _REQUIRED_VERSIONS.items():
        if not versions[name].startswith(start):
            return CheckedPython(versions, f"has {name} {versions[name]}, not {start}x")
    return CheckedPython(versions)


def install_environment(python: Path | None = None) -> InstalledEnvironment:
    """Install the environment with `python`, or with a Python 3.7 found on this machine; keep a complete one.

    Raises MissingError where there is no Python 3.7, InputError where `python` is not one, Interrupted on Ctrl-C, and
    RedditgenError, which names the log, where pip fails. After an error no environment is left that `find_python`
    accepts.
    """
    folder, started = environment_folder(), time.monotonic()
    with _exclusive_installation(folder), signals_raise_keyboard_interrupt():
        outcome = "is there already, and whole; delete that folder to make it anew"
        if missing_part(folder):
            with (folder.parent / "tf1-install.log").open("w", encoding="utf8") as log:
                base = interpreters.require_python_3_7(python) if python else interpreters.find_python_3_7(log)
                outcome = str(_create(folder, base, log))
        environment = InstalledEnvironment(
            interpreters.python_in_environment(folder), time.monotonic() - started, _megabytes(folder)
        )
    _log.info("%s: %s; %.0f MB, %.0f s", folder, outcome, environment.megabytes, environment.seconds)
    return environment


def _create(folder: Path, base: Path, log: TextIO) -> CheckedPython:
    """Create the environment and return its versions; delete it where that fails."""
    _require_disk(folder.parent)
    _log.info(
        "%s: installing with %s; downloads %d MB from the package index, takes %d MB",
        folder,
        base,
        _DOWNLOAD_MB,
        _DISK_MB,
    )
    try:
        shutil.rmtree(folder, ignore_errors=True)  # left by an installation that was killed
        interpreters.run_logged([base, "-I", "-m", "venv", folder], log)
        python = interpreters.python_in_environment(folder)
        _install_packages(python, log)
        checked = check_python(python)
        if checked.reason:
            raise RedditgenError(f"{folder}: was installed, but {python} {checked}; the whole log is {log.name}")
        with atomic_write(folder / _MARKER) as temporary:
            temporary.write_text(_requirements_hash(), encoding="utf8")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"{folder}: interrupted, so nothing is kept; the same command starts anew") from error
        raise
    return checked


def _install_packages(python: Path, log: TextIO) -> None:
    """Install the requirements with pip; a bar counts the packages."""
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
    """Return why an environment can't be used, as the end of a message; empty where it is complete."""
    if not place.exists():
        return "is not there"
    marker = place / _MARKER
    if not marker.exists():
        return "is unfinished"
    if marker.read_text(encoding="utf8") != _requirements_hash():
        return "was made by another version of redditgen"
    if not interpreters.python_in_environment(place).exists():
        return "has lost the Python 3.7 that it was made with"
    return ""


def _requirements_hash() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _REQUIREMENTS)).hexdigest()


def _megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


def _require_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free / 1e6
    if free < _FREE_DISK_MB:
        raise RedditgenError(f"{folder}: {free:.0f} MB of disk are free and {_FREE_DISK_MB} are needed; make room")


@contextmanager
def _exclusive_installation(folder: Path) -> Iterator[None]:
    """Keep other processes from installing at the same time; raises RedditgenError where one is installing.

    Unlike `files.locks` it works on Windows too. The system releases the lock when the process ends in any way.
    """
    from filelock import FileLock, Timeout

    make_folder(folder.parent)
    lock = FileLock(folder.with_name("tf1.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RedditgenError(f"{folder}: another {INSTALL_COMMAND} is making it; wait until that is done") from error
    except OSError as error:
        raise InputError(f"{folder.parent}: can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
