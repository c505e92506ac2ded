"""Resumable outputs: written in steps, so that the same command continues them after it was killed.

Until they are complete, the files are in a folder next to the first output, `.NAME.partial`, under numbers instead of
names. The file `state.json` there records the fingerprint of the inputs and settings, and the size of each file at the
end of the last step. A process that resumes truncates each file to that size, since a kill may have cut off what
follows. When all are complete, the files are renamed to the outputs, the first output last.
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

_STATE_FILE = "state.json"

_log = logging.getLogger(__name__)


class _State(TypedDict):
    """The content of the state file; `facts` and `sizes`, in bytes, are those at the end of the last step."""

    made_of: Mapping[str, Any]
    steps: int
    facts: dict[str, Any]
    sizes: list[int]
    whole: bool


class ResumableOutput:
    """The files of a `resumable_output` block, with the state at the end of the last complete step."""

    def __init__(self, folder: Path, files: Sequence[BinaryIO], state: _State) -> None:
        self._folder = folder
        self._files = files
        self._state = state

    @property
    def is_complete(self) -> bool:
        """Whether an earlier process wrote everything and was killed before all files were renamed to the outputs."""
        return self._state["whole"]

    @property
    def steps(self) -> int:
        """How many steps are complete."""
        return self._state["steps"]

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that the last complete step saved; empty before the first step."""
        return self._state["facts"]

    def path(self, number: int) -> Path:
        """Return the path of a file until it is renamed to its output; `number` counts from 0."""
        return self._folder / str(number)

    def read(self, number: int) -> str:
        """Return the text that the complete steps wrote to a file."""
        return (self._folder / str(number)).read_text(encoding="utf8")

    def write_step(self, texts: Iterable[tuple[int, str]], facts: Mapping[str, Any]) -> None:
        """Append texts, given as (file number, text), to the files, and save them with `facts` as one step.

        When this returns, the step is on the disk and survives a kill or a power cut.
        """
        for number, text in texts:
            self._files[number].write(text.encode("utf8"))
        for number, file in enumerate(self._files):
            file.flush()
            sync_to_disk(self._folder / str(number))
        sizes = [file.tell() for file in self._files]
        self._state |= {"steps": self.steps + 1, "facts": dict(facts), "sizes": sizes}
        _write_state(self._folder, self._state)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Record that the files are complete."""
        self._state |= {"facts": dict(facts), "whole": True}
        _write_state(self._folder, self._state)


@contextmanager
def resumable_output(
    outputs: Sequence[Path], made_of: Mapping[str, Any], *, overwrite: bool, extra_files: int = 0
) -> Iterator[ResumableOutput]:
    """Yield files that are renamed to `outputs` when the block ends.

    `made_of` is everything that the outputs depend on, as `fingerprint` returns it. If an earlier process left files
    with the same fingerprint, they are continued; files with another fingerprint are deleted. `extra_files` is the
    number of files, after those of the outputs, that hold data only for resuming; they are deleted at the end.

    An InputError in the block deletes the files; after any other error they are kept for the next call. Raises
    OutputExists where an output exists and `overwrite` is false, RedditgenError where another process writes it.
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
                yield ResumableOutput(folder, [_open(files, folder, number, state) for number in numbers], state)
            _rename_to_outputs(folder, outputs)
        except BaseException as error:
            _keep_or_delete(folder, outputs[0], error)
            raise


def fingerprint(settings: Any, files: Iterable[Path], *, ignoring: Collection[str], **facts: Any) -> dict[str, Any]:
    """Return what outputs depend on: settings (a dataclass), the hashes of files, `facts`, and redditgen's version.

    Leaves out the settings named in `ignoring`. Raises InputError where a file can't be read.
    """
    relevant = {name: value for name, value in dataclasses.asdict(settings).items() if name not in ignoring}
    return {"redditgen": __version__, "settings": relevant, "files": [file_sha256(path) for path in files], **facts}


def _read_state(folder: Path, made_of: Mapping[str, Any]) -> _State:
    """Return the state of an earlier process with the same fingerprint.

    If there is none, empties the folder and returns a new state.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        state: _State = json.loads((folder / _STATE_FILE).read_text(encoding="utf8"))
        if state["made_of"] == made_of:
            return state
    for path in folder.iterdir():
        path.unlink()
    return {"made_of": made_of, "steps": 0, "facts": {}, "sizes": [], "whole": False}


def _write_state(folder: Path, state: _State) -> None:
    temporary = folder / f"{_STATE_FILE}.tmp"
    temporary.write_text(json.dumps(state), encoding="utf8")
    sync_to_disk(temporary)
    temporary.replace(folder / _STATE_FILE)
    sync_to_disk(folder)


def _open(files: ExitStack, folder: Path, number: int, state: _State) -> BinaryIO:
    """Open a file for appending, truncated to its size at the end of the last step."""
    file = files.enter_context((folder / str(number)).open("ab"))
    file.truncate(state["sizes"][number] if state["sizes"] else 0)
    file.seek(0, os.SEEK_END)
    return file


def _rename_to_outputs(folder: Path, outputs: Sequence[Path]) -> None:
    """Rename the files to the outputs, the first output last: if it exists, all do. Deletes the folder."""
    for number, path in reversed(list(enumerate(outputs))):
        with contextlib.suppress(FileNotFoundError):  # an earlier process renamed it, and was killed then
            (folder / str(number)).replace(path)
    sync_to_disk(outputs[0].parent)
    shutil.rmtree(folder)


def _keep_or_delete(folder: Path, output: Path, error: BaseException) -> None:
    """Delete the files after an InputError or before the first step; or else log that they can be continued."""
    has_steps = (folder / _STATE_FILE).exists() and (folder / "0").exists()  # file 0 is renamed last
    if isinstance(error, InputError) or not has_steps:
        shutil.rmtree(folder, ignore_errors=True)
    elif not isinstance(error, OutputExists):
        _log.warning("%s: not whole yet; the same command goes on with it", output)
