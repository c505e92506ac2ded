"""Outputs written step by step, which the same command goes on with after it was killed.

Until they are whole, the files lie in a folder beside the first of them, with a state that says of what they are made
and how long each was at the end of the last step. Whatever is behind that, a kill cut off in the middle.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from redditgen import __version__
from redditgen.errors import InputError, OutputExists
from redditgen.files import locks
from redditgen.files.atomic import file_sha256, refuse_existing, sync_to_disk, write_errors

_STATE = "state.json"

_log = logging.getLogger(__name__)


class _State(TypedDict):
    """What stands in the state's file; `facts` and `sizes`, in bytes, are those at the end of the last step."""

    made_of: Mapping[str, Any]
    steps: int
    facts: dict[str, Any]
    sizes: list[int]
    whole: bool


class ResumableOutput:
    """The files of a `partial` block; `steps` and `facts` are those of the last whole step."""

    def __init__(self, folder: Path, files: Sequence[BinaryIO], state: _State) -> None:
        self._folder = folder
        self._files = files
        self._state = state

    @property
    def is_complete(self) -> bool:
        """Whether an earlier process wrote everything, and was killed before the files had their names."""
        return self._state["whole"]

    @property
    def steps(self) -> int:
        return self._state["steps"]

    @property
    def facts(self) -> dict[str, Any]:
        return self._state["facts"]

    def path(self, number: int) -> Path:
        """Where the file of a number lies until it has its name."""
        return self._folder / str(number)

    def read(self, number: int) -> str:
        """What the steps so far wrote to the file of a number."""
        return (self._folder / str(number)).read_text(encoding="utf8")

    def write_step(self, texts: Iterable[tuple[int, str]], facts: Mapping[str, Any]) -> None:
        """Write texts, each to the file of its number; they and `facts` are then there after whatever happens."""
        for number, text in texts:
            self._files[number].write(text.encode("utf8"))
        for number, file in enumerate(self._files):
            file.flush()
            sync_to_disk(self._folder / str(number))
        sizes = [file.tell() for file in self._files]
        self._state |= {"steps": self.steps + 1, "facts": dict(facts), "sizes": sizes}
        _write_state(self._folder, self._state)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Say that nothing more comes."""
        self._state |= {"facts": dict(facts), "whole": True}
        _write_state(self._folder, self._state)


@contextmanager
def resumable_output(
    outputs: Sequence[Path], made_of: Mapping[str, Any], *, overwrite: bool, extra_files: int = 0
) -> Iterator[ResumableOutput]:
    """Files that become `outputs` when they are finished; what an earlier process wrote of the same is gone on with.

    Behind them come `asides`, files for going on alone, which are deleted then.

    `made_of` is what the outputs depend on, as the function of that name gives it. An InputError in the block takes the
    files away; after anything else they wait for the next try. Raises OutputExists, and RedditgenError where another
    process is at it.
    """
    made_of = json.loads(json.dumps(made_of, default=str))
    with write_errors(outputs[0]), locks.locked_output(outputs[0]) as folder:
        try:
            refuse_existing(outputs[0], overwrite)
            state = _read_state(folder, made_of)
            for path in outputs[1:]:
                refuse_existing(path, overwrite or state["whole"])
            with ExitStack() as files:
                numbers = () if state["whole"] else range(len(outputs) + extra_files)
                yield ResumableOutput(folder, [_opened(files, folder, number, state) for number in numbers], state)
            _move(folder, outputs)
        except BaseException as error:
            _leave(folder, outputs[0], error)
            raise


def fingerprint(settings: Any, files: Iterable[Path], *, ignoring: Collection[str], **facts: Any) -> dict[str, Any]:
    """What outputs depend on: settings (a dataclass) but for some, what is in files, facts, and this version."""
    asked = {name: value for name, value in dataclasses.asdict(settings).items() if name not in ignoring}
    return {"redditgen": __version__, "settings": asked, "files": [file_sha256(path) for path in files], **facts}


def _read_state(folder: Path, made_of: Mapping[str, Any]) -> _State:
    """That of an earlier process, if it made the same; else the folder is emptied."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        state: _State = json.loads((folder / _STATE).read_text(encoding="utf8"))
        if state["made_of"] == made_of:
            return state
    for path in folder.iterdir():
        path.unlink()
    return {"made_of": made_of, "steps": 0, "facts": {}, "sizes": [], "whole": False}


def _write_state(folder: Path, state: _State) -> None:
    temporary = folder / f"{_STATE}.tmp"
    temporary.write_text(json.dumps(state), encoding="utf8")
    sync_to_disk(temporary)
    temporary.replace(folder / _STATE)
    sync_to_disk(folder)


def _opened(files: ExitStack, folder: Path, number: int, state: _State) -> BinaryIO:
    file = files.enter_context((folder / str(number)).open("ab"))
    file.truncate(state["sizes"][number] if state["sizes"] else 0)
    file.seek(0, os.SEEK_END)
    return file


def _move(folder: Path, outputs: Sequence[Path]) -> None:
    """The first output comes last: where it is, all are."""
    for number, path in reversed(list(enumerate(outputs))):
        with contextlib.suppress(FileNotFoundError):  # moved by a process that was killed at it
            (folder / str(number)).replace(path)
    sync_to_disk(outputs[0].parent)
    shutil.rmtree(folder)


def _leave(folder: Path, output: Path, error: BaseException) -> None:
    is_begun = (folder / _STATE).exists() and (folder / "0").exists()  # which gets the last of the names
    if isinstance(error, InputError) or not is_begun:
        shutil.rmtree(folder, ignore_errors=True)
    elif not isinstance(error, OutputExists):
        _log.warning("%s: not whole yet; the same command goes on with it", output)
