"""Python interpreters other than this one: asked what they are, searched for a 3.7, run without this one's settings."""

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

_PATIENCE = 120  # seconds to answer in; importing TensorFlow from a cold disk takes a while
_SIGILL = -int(signal.SIGILL)
# What pip needs to reach the index. Its other variables say where and what to install, which is not the caller's here.
_PIP_KEPT = re.compile(
    r"PIP_(CONFIG_FILE|.*INDEX.*|FIND_LINKS|.*CERT|PROXY|TRUSTED_HOST|.*TIMEOUT|RETRIES|.*CACHE.*|DISABLE_.*)"
)
# Any version of Python can run it.
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
    """An interpreter can't be run, or not what it was asked to; the message says why."""


def clean_environment() -> dict[str, str]:
    """This process's variables less those that would lead another Python, or its pip, to other packages or places."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PIP_", "__PYVENV")) or _PIP_KEPT.fullmatch(name)
    }


def absolute_path(path: Path) -> Path:
    """An interpreter's path, found on PATH if it is a plain name; links are kept, since an environment's is one."""
    path = user_folders.expand_home(path)
    return Path(shutil.which(path) or path).absolute()


def python_in_environment(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def why_unsuitable(python: Path, *, makes_environments: bool = False) -> str:
    """Why an interpreter is none for TensorFlow 1.15; empty if it is one."""
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
    """Run code that prints JSON last in another interpreter, and give that value; raises NoAnswer."""
    if not python.is_file():
        raise InterpreterError("no such file")
    try:
        done = subprocess.run(
            [python, "-I", "-c", code],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf8",
            errors="replace",
            timeout=_PATIENCE,
        )
    except OSError as error:
        raise InterpreterError(f"can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise InterpreterError(f"gave no answer in {_PATIENCE} s") from error
    if done.returncode:
        raise InterpreterError(f"can't be run: {_cause(done.returncode, done.stderr.splitlines())}")
    try:
        return json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError as error:
        raise InterpreterError("is no Python: it printed something else than it was asked to") from error


def run_logged(command: Sequence[Path | str], log: TextIO, show: Callable[[str], None] | None = None) -> list[str]:
    """Run a command and give the lines it writes, which also go to the log; raises RedditgenError where it fails."""
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
        raise RedditgenError(f"{name}: {_cause(process.returncode, lines)}; the whole log is {log.name}")
    return lines


def _cause(code: int, lines: Sequence[str]) -> str:
    """The line that tells why a command failed: its last that speaks of an error, else its first."""
    if code == _SIGILL:
        return "it met an instruction that this processor lacks; TensorFlow 1.15 needs one with AVX"
    texts = [line.strip() for line in lines if line.strip()]
    errors = [text for text in texts if "error" in text.lower()]
    return (errors[-1:] or texts[:1] or [f"it ended with {code}"])[0]


def find_python_3_7(log: TextIO) -> Path:
    """The first Python 3.7 that can make environments: on PATH, of pyenv's, or one that uv fetches."""
    passed_over = []
    try:
        for path in _candidates(log):
            reason = why_unsuitable(path, makes_environments=True)
            if not reason:
                return path
            passed_over.append(f"{path}: {reason}")
    except RedditgenError as error:
        passed_over.append(str(error))
    raise MissingError(
        "no Python 3.7: looked for python3.7 on PATH, in pyenv's versions and for uv to fetch one"
        + "".join(f"; {line}" for line in passed_over)
        + "; install one (pyenv install 3.7), or name one with --python"
    )


def require_python_3_7(given: Path) -> Path:
    """The interpreter that --python names; raises InputError where it is no Python 3.7 that can make environments."""
    path = absolute_path(given)
    if reason := why_unsuitable(path, makes_environments=True):
        raise InputError(f"--python: {path}: {reason}")
    return path


def _candidates(log: TextIO) -> Iterator[Path]:
    for place in os.get_exec_path():
        if found := shutil.which("python3.7", path=place):
            yield Path(found)
    versions = user_folders.expand_home(Path(os.environ.get("PYENV_ROOT") or "~/.pyenv")) / "versions"
    patches = {path.name.removeprefix("3.7."): path for path in versions.glob("3.7.*")}
    for patch in sorted((patch for patch in patches if patch.isdigit()), key=int, reverse=True):
        yield python_in_environment(patches[patch])
    if uv := shutil.which("uv"):
        yield from _of_uv(uv, log)


def _of_uv(uv: str, log: TextIO) -> Iterator[Path]:
    _log.info(
        "no Python 3.7 on PATH or in pyenv's versions: asking uv, which downloads one (20 to 40 MB) if it has none"
    )
    run_logged([uv, "python", "install", "3.7"], log)
    # Warnings of interpreters that uv could not use stand between.
    paths = map(Path, run_logged([uv, "python", "find", "3.7"], log))
    yield from (path for path in paths if path.is_file())
