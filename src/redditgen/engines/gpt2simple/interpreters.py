"""Runs other Python interpreters: checks their versions, finds a Python 3.7, runs their commands.

They run in an environment without the variables that are meant for this process's Python and pip.
"""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from redditgen.errors import InputError, MissingError, RedditgenError
from redditgen.files import user_folders

_TIMEOUT = 120  # seconds; importing TensorFlow from a cold disk takes a while
_SIGILL = -int(signal.SIGILL)  # the return code of a process that this signal ended
# pip's variables that are kept: those with which it reaches the package index. Others would change what it installs
# and where.
_KEPT_PIP_VARIABLES = re.compile(
    r"PIP_(CONFIG_FILE|.*INDEX.*|FIND_LINKS|.*CERT|PROXY|TRUSTED_HOST|.*TIMEOUT|RETRIES|.*CACHE.*|DISABLE_.*)"
)
# Runs under any version of Python.
_PROBE = """
import json, platform
try:
    import ensurepip
except ImportError:
    ensurepip = None
print(json.dumps([platform.python_version(), platform.machine(), ensurepip is not None]))
"""

_log = logging.getLogger(__name__)


class InterpreterError(Exception):
    """An interpreter can't be run, or the code can't be run in it; the message says why."""


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables that would configure another Python or its pip."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PIP_", "__PYVENV")) or _KEPT_PIP_VARIABLES.fullmatch(name)
    }


def absolute_path(path: Path) -> Path:
    """Return an interpreter's absolute path, looked up on PATH where it is a plain name.

    Links are not resolved, since the interpreter of a virtual environment is a link.
    """
    path = user_folders.expand_home(path)
    return Path(shutil.which(path) or path).absolute()


def python_in_environment(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def why_unsuitable(python: Path, *, makes_environments: bool = False) -> str:
    """Return why an interpreter can't run TensorFlow 1.15; empty where it can.

    With `makes_environments` it must be able to create virtual environments too.
    """
    try:
        version, machine, has_pip = run_code(python, _PROBE)
    except InterpreterError as error:
        return str(error)
    if not version.startswith("3.7."):
        return f"is Python {version}, but TensorFlow 1.15 needs 3.7"
    if machine.lower() not in ("x86_64", "amd64"):
        return f"is built for {machine}, but TensorFlow 1.15 for x86_64 only"
    if makes_environments and not has_pip:
        return "has no ensurepip; install the system's package of it (python3.7-venv)"
    return ""


def run_code(python: Path, code: str) -> Any:
    """Run code in another interpreter and return the JSON value that it prints last; raises InterpreterError."""
    if not python.is_file():
        raise InterpreterError("no such file")
    try:
        process = subprocess.run(
            [python, "-I", "-c", code],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf8",
            errors="replace",
            timeout=_TIMEOUT,
        )
    except OSError as error:
        raise InterpreterError(f"can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise InterpreterError(f"gave no answer in {_TIMEOUT} s") from error
    if process.returncode:
        raise InterpreterError(f"can't be run: {_failure_reason(process.returncode, process.stderr.splitlines())}")
    try:
        return json.loads(process.stdout.strip().rpartition("\n")[2])
    except ValueError as error:
        raise InterpreterError("is no Python: it printed something else than it was asked to") from error


def run_logged(command: Sequence[Path | str], log: TextIO, show: Callable[[str], None] | None = None) -> list[str]:
    """Run a command and return the lines that it prints, which are also written to `log` and passed to `show`.

    Raises RedditgenError, which names the log, where the command fails.
    """
    lines = []
    with subprocess.Popen(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                lines.append(line.rstrip())
                if show:
                    show(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        name = " ".join(map(str, command[:5]))
        raise RedditgenError(f"{name}: {_failure_reason(process.returncode, lines)}; the whole log is {log.name}")
    return lines


def _failure_reason(code: int, lines: Sequence[str]) -> str:
    """Return the line that tells why a command failed: the last one with the word error, else the first."""
    if code == _SIGILL:
        return "it met an instruction that this processor lacks; TensorFlow 1.15 needs one with AVX"
    texts = [line.strip() for line in lines if line.strip()]
    errors = [text for text in texts if "error" in text.lower()]
    return (errors[-1:] or texts[:1] or [f"it ended with {code}"])[0]


def find_python_3_7(log: TextIO) -> Path:
    """Return the first Python 3.7 that can create virtual environments: on PATH, of pyenv, or downloaded by uv.

    Raises MissingError, which says why each candidate was rejected, where there is none.
    """
    rejected = []
    try:
        for path in _candidates(log):
            reason = why_unsuitable(path, makes_environments=True)
            if not reason:
                return path
            rejected.append(f"{path}: {reason}")
    except RedditgenError as error:
        rejected.append(str(error))
    raise MissingError(
        "no Python 3.7: looked for python3.7 on PATH, in pyenv's versions and for uv to fetch one"
        + "".join(f"; {line}" for line in rejected)
        + "; install one (pyenv install 3.7), or name one with --python"
    )


def require_python_3_7(given: Path) -> Path:
    """Return the interpreter `given` with --python; raises InputError where it can't be used for the environment."""
    path = absolute_path(given)
    if reason := why_unsuitable(path, makes_environments=True):
        raise InputError(f"--python: {path}: {reason}")
    return path


def _candidates(log: TextIO) -> Iterator[Path]:
    for folder in os.get_exec_path():
        if python := shutil.which("python3.7", path=folder):
            yield Path(python)
    versions = user_folders.expand_home(Path(os.environ.get("PYENV_ROOT") or "~/.pyenv")) / "versions"
    patches = {path.name.removeprefix("3.7."): path for path in versions.glob("3.7.*")}
    for patch in sorted((patch for patch in patches if patch.isdigit()), key=int, reverse=True):
        yield python_in_environment(patches[patch])
    if uv := shutil.which("uv"):
        yield from _from_uv(uv, log)


def _from_uv(uv: str, log: TextIO) -> Iterator[Path]:
    _log.info(
        "no Python 3.7 on PATH or in pyenv's versions: asking uv, which downloads one (20 to 40 MB) if it has none"
    )
    run_logged([uv, "python", "install", "3.7"], log)
    # Some of the lines may be warnings about interpreters that uv can't use.
    paths = map(Path, run_logged([uv, "python", "find", "3.7"], log))
    yield from (path for path in paths if path.is_file())
