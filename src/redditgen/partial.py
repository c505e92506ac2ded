"""Outputs written step by step, which the same command goes on with after it was killed.

Until they are whole, the files lie in a folder beside the first of them, with a state that says of what they are made
and how long each was at the end of the last step. Whatever is behind that, a kill cut off in the middle.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from redditgen import locks
from redditgen.errors import InputError, OutputExists
from redditgen.output import make_folder, refuse_existing

_STATE = "state.json"

_log = logging.getLogger(__name__)


class Partial:
    """The files of a `partial` block; `steps` and `facts` are those of the last whole step."""

    def __init__(self, folder: Path, files: Sequence[BinaryIO], state: dict[str, Any]) -> None:
        self._folder = folder
        self._files = files
        self._state = state

    @property
    def is_whole(self) -> bool:
        """Whether an earlier process wrote everything, and was killed before the files had their names."""
        is_whole: bool = self._state["whole"]
        return is_whole

    @property
    def steps(self) -> int:
        steps: int = self._state["steps"]
        return steps

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._state["facts"]
        return facts

    def read(self, number: int) -> str:
        """What the steps so far wrote to the file of a number."""
        return (self._folder / str(number)).read_text(encoding="utf8")

    def step(self, texts: Iterable[tuple[int, str]], facts: Mapping[str, Any]) -> None:
        """Write texts, each to the file of its number; they and `facts` are then there after whatever happens."""
        for number, text in texts:
            self._files[number].write(text.encode("utf8"))
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        sizes = [file.tell() for file in self._files]
        self._state |= {"steps": self.steps + 1, "facts": dict(facts), "sizes": sizes}
        _write_state(self._folder, self._state)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Say that nothing more comes."""
        self._state |= {"facts": dict(facts), "whole": True}
        _write_state(self._folder, self._state)


@contextmanager
def partial(
    outputs: Sequence[Path], made_of: Mapping[str, Any], *, overwrite: bool, asides: int = 0
) -> Iterator[Partial]:
    """Files that become `outputs` when they are finished; what an earlier process wrote of the same is gone on with.

    Behind them come `asides`, files for going on alone, which are deleted then.

    `made_of` is what the outputs depend on, as JSON has it. An InputError in the block takes the files away; after
    anything else they wait for the next try. Raises OutputExists, and RedditgenError where another process is at it.
    """
    folder = outputs[0].with_name(f".{outputs[0].name}.partial")
    made_of = json.loads(json.dumps(made_of, default=str))
    refuse_existing(outputs[0], overwrite)
    make_folder(folder)
    with _as_input_error(outputs[0]), locks.alone(folder, f"writing {outputs[0]}"):
        try:
            state = _state(folder, made_of)
            for path in outputs[1:]:
                refuse_existing(path, overwrite or state["whole"])
            with ExitStack() as files:
                numbers = () if state["whole"] else range(len(outputs) + asides)
                yield Partial(folder, [_opened(files, folder, number, state) for number in numbers], state)
            _move(folder, outputs)
        except BaseException as error:
            _leave(folder, outputs[0], error)
            raise


def _state(folder: Path, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """That of an earlier process, if it made the same; else the folder is emptied."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf8"))
        if state["made_of"] == made_of:
            return state
    for path in folder.iterdir():
        path.unlink()
    return {"made_of": made_of, "steps": 0, "facts": {}, "sizes": [], "whole": False}


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    temporary = folder / f"{_STATE}.tmp"
    with temporary.open("w", encoding="utf8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _STATE)


def _opened(files: ExitStack, folder: Path, number: int, state: Mapping[str, Any]) -> BinaryIO:
    file = files.enter_context((folder / str(number)).open("ab"))
    file.truncate(state["sizes"][number] if state["sizes"] else 0)
    file.seek(0, os.SEEK_END)
    return file


def _move(folder: Path, outputs: Sequence[Path]) -> None:
    """The first output comes last: where it is, all are."""
    for number, path in reversed(list(enumerate(outputs))):
        with contextlib.suppress(FileNotFoundError):  # moved by a process that was killed at it
            (folder / str(number)).replace(path)
    shutil.rmtree(folder)


def _leave(folder: Path, output: Path, error: BaseException) -> None:
    if isinstance(error, InputError) or not (folder / _STATE).exists():
        shutil.rmtree(folder, ignore_errors=True)
    elif not isinstance(error, OutputExists):
        _log.warning("%s: not whole yet; the same command goes on with it", output)


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
