"""Outputs that appear whole or not at all, each with a sidecar that says how it was made.

What has appeared is on the disk, so that a power cut leaves it as a kill does.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redditgen import __version__
from redditgen.errors import InputError, OutputExists


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputExists before any work is done, unless the output may be replaced."""
    if path.is_dir():
        raise OutputExists(f"{path}: is a folder; give a file name with --out")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path}: already exists; pass --overwrite to replace it, or --out for another name")


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are not there; raises InputError where that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; the file is renamed to `path` when the block ends, and deleted if it fails.

    The folder is made if it is not there. Raises InputError where it can't be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        settle(temporary)
        temporary.replace(path)
        settle(path.parent)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # not there any more, or never made
            temporary.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder that is not there yet."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for inside in (*temporary.rglob("*"), temporary):
            settle(inside)
        temporary.replace(path)
        settle(path.parent)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def settle(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk; raises OSError where they can't be."""
    if os.name == "nt":  # where a folder can't be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # those of file systems that have no such request
            raise
    finally:
        os.close(handle)


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".meta.json")


def write_sidecar(path: Path, settings: Any, *, inputs: list[Path], **facts: Any) -> None:
    """Write `<path>.meta.json`: settings (a dataclass), the inputs' hashes, the version, and whatever else is known."""
    content = {
        "redditgen": __version__,
        "command": type(settings).__name__.removesuffix("Settings").lower(),
        "settings": dataclasses.asdict(settings),
        "inputs": {str(name): sha256(name) for name in inputs},
        **facts,
    }
    with whole(sidecar_path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str, ensure_ascii=False) + "\n", encoding="utf8")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
