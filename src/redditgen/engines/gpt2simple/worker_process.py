"""A worker process of the gpt-2-simple engine, as its parent sees it; the other side is worker/gpt2simple_worker.py.

    FOLDER/models/124M/   the model to start from, laid there by `put_model`
    FOLDER/job.json       what to do
    FOLDER/events.jsonl   what happens, a line each, read here while it grows
    FOLDER/result.json    {} or {"error": "one line"}; not there if the worker crashed

What the worker prints goes to a log and is no part of this. Its standard input is open for as long as the parent lives.
"""

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redditgen.engines.gpt2simple import interpreters
from redditgen.errors import InputError, RedditgenError
from redditgen.gpt2.formats import tf_checkpoint
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.model_dir import AnyModelDir, ModelDir
from redditgen.gpt2.run_info import RunInfo

LOG_FILE = "gpt-2-simple.log"  # in the run's folder

_WORKER = Path(__file__).parent / "worker" / "gpt2simple_worker.py"
_POLL = 0.1  # seconds
_TELLING = 200  # characters of the log's last line that a message shows
_KILLED = -9  # the return code of a process that SIGKILL ended, as the system does where memory is short


def link_model(weights: AnyModelDir, folder: Path) -> None:
    """Lay a model into a worker's folder, as its base model 124M.

    Under the model's own path TensorFlow would not find one with [ ] in it, which it takes for a pattern. And its
    messages on a damaged one name no file; those of InputError, raised here, do.
    """
    model = ModelDir(folder / "models/124M")
    if isinstance(weights, HuggingFaceDir):
        model.write_base(weights.hyperparameters(), weights.tokenizer(), weights.tensors())
        return
    prefix = weights.checkpoint_prefix()
    tf_checkpoint.read_matching_index(prefix, weights.hyperparameters().tensor_shapes())
    tf_checkpoint.verify_checksums(prefix)
    model.start_run(weights, RunInfo())
    for name in (
        path.name
        for path in prefix.parent.iterdir()
        if path.name.startswith((f"{prefix.name}.index", f"{prefix.name}.data-"))
    ):
        _link(prefix.with_name(name).absolute(), model.path / name.replace(prefix.name, "model.ckpt", 1))
    (model.path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n', encoding="utf8")


def _link(file: Path, name: Path) -> None:
    try:
        name.symlink_to(file)
    except OSError:  # Windows lets only some users do that
        shutil.copyfile(file, name)


@contextmanager
def worker_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder for a worker, deleted afterwards: in `within`, or where the system keeps temporary files.

    What was left `within` by a process that was killed together with its worker is deleted before.
    """
    try:
        if within:
            for left in within.glob(".gpt-2-simple-*"):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".gpt-2-simple-", dir=within)).absolute()
    except OSError as error:
        raise InputError(f"{within or tempfile.gettempdir()}: can't be written: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WorkerProcess:
    """A running worker; the end of the `with` block ends it."""

    def __init__(self, python: Path, folder: Path, log: Path, job: dict[str, Any]) -> None:
        """Start it with a job, whose `if_memory_is_short` says what to do then; what it prints is added to `log`."""
        self._folder, self._log, self._job = folder, log, job
        (folder / "job.json").write_text(json.dumps(job), encoding="utf8")
        (folder / "events.jsonl").touch()
        try:
            with log.open("ab") as output:
                title = f"=== {job['command']}, {time.strftime('%Y-%m-%d %H:%M:%S')}, {python}\n"
                output.write(title.encode("utf8", "replace"))
                self._log_start = output.tell()
                output.flush()
                self._process = subprocess.Popen(
                    [python, "-I", "-X", "utf8", "-u", _WORKER, folder],
                    env=interpreters.clean_environment(),
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # the terminal's Ctrl-C is for the parent alone
                )
        except OSError as error:
            raise InputError(f"{error.filename or python}: {error.strerror or error}") from error

    def events(self) -> Iterator[dict[str, Any] | None]:
        """What happens, as it happens, until the worker has ended; None after each look for it."""
        rest = b""
        with (self._folder / "events.jsonl").open("rb") as file:
            has_ended = False
            while not has_ended:
                has_ended = self._has_ended()
                *lines, rest = (rest + file.read()).split(b"\n")
                yield from map(json.loads, lines)
                yield None

    def _has_ended(self) -> bool:
        try:
            self._process.wait(_POLL)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Let it save and end; it may have ended already."""
        try:
            if self._process.stdin:
                self._process.stdin.write(b".")
        except OSError:
            pass

    def check(self) -> None:
        """Raise RedditgenError, with the reason and the log's name, if the worker that has ended did not do its job."""
        try:
            result = json.loads((self._folder / "result.json").read_text(encoding="utf8"))
        except (OSError, ValueError):
            result = {"error": self._crash()}
        if "error" in result:
            raise RedditgenError(f"gpt-2-simple {result['error']}; its log is {self._log}")

    def _crash(self) -> str:
        code = self._process.returncode
        if code == _KILLED:
            short = self._job["if_memory_is_short"]
            return f"was killed, as the system does with what takes too much memory; {short}"
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode("utf8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{how} ({said[:_TELLING]})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
