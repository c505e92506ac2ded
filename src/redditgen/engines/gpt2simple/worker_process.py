"""The parent's side of a worker process of the gpt-2-simple engine; the worker's is worker/gpt2simple_worker.py.

The two exchange files in a folder:

    FOLDER/models/124M/   the model to start from, from `link_model`
    FOLDER/job.json       the job: which command, with which values
    FOLDER/events.jsonl   events, one JSON object per line; the parent reads it while it grows
    FOLDER/result.json    {} or {"error": "one line"}; missing where the worker crashed

The worker's output is written to a log. Its standard input is open as long as the parent lives; a byte there asks it to
save and stop.
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

_WORKER_SCRIPT = Path(__file__).parent / "worker" / "gpt2simple_worker.py"
_POLL_INTERVAL = 0.1  # seconds
_MAX_REASON = 200  # characters of the log's last line in a message
_KILLED = -9  # the return code of a process that SIGKILL ended, with which the system frees memory


def link_model(weights: AnyModelDir, folder: Path) -> None:
    """Put links to a model into a worker's folder, as its base model 124M.

    Where links aren't possible, files are copied; a model in Hugging Face's layout is converted.
    TensorFlow can't open a model whose path contains [ ], which it reads as a pattern; the link's path has none. The
    checkpoint is checked here, since TensorFlow's messages about a damaged one name no file. Raises MissingError or
    InputError, which do.
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
    except OSError:  # Windows lets only some users create links
        shutil.copyfile(file, name)


@contextmanager
def worker_folder(within: Path | None = None) -> Iterator[Path]:
    """Yield a new folder for a worker, in `within` or the system's folder of temporary files; delete it at the end.

    Folders that processes killed together with their workers left in `within` are deleted first. Raises InputError
    where the folder can't be created.
    """
    try:
        if within:
            for leftover in within.glob(".gpt-2-simple-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".gpt-2-simple-", dir=within)).absolute()
    except OSError as error:
        raise InputError(f"{within or tempfile.gettempdir()}: can't be written: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WorkerProcess:
    """A running worker process, which is killed at the end of the `with` block."""

    def __init__(self, python: Path, folder: Path, log: Path, job: dict[str, Any]) -> None:
        """Start the worker with a job; its output is appended to `log`.

        `job["if_memory_is_short"]` is the advice in the message of a worker that runs out of memory. Raises InputError
        where the interpreter can't be started.
        """
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
                    [python, "-I", "-X", "utf8", "-u", _WORKER_SCRIPT, folder],
                    env=interpreters.clean_environment(),
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that Ctrl-C reaches only the parent, which asks the worker to stop
                )
        except OSError as error:
            raise InputError(f"{error.filename or python}: {error.strerror or error}") from error

    def events(self) -> Iterator[dict[str, Any] | None]:
        """Yield events as they are written, until the worker has ended, and None after each look into the file."""
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
            self._process.wait(_POLL_INTERVAL)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Ask the worker to save and end; does nothing where it has ended."""
        try:
            if self._process.stdin:
                self._process.stdin.write(b".")
        except OSError:
            pass

    def check(self) -> None:
        """Raise RedditgenError, with the reason and the log's name, where the job of the ended worker has failed."""
        try:
            result = json.loads((self._folder / "result.json").read_text(encoding="utf8"))
        except (OSError, ValueError):
            result = {"error": self._crash_reason()}
        if "error" in result:
            raise RedditgenError(f"gpt-2-simple {result['error']}; its log is {self._log}")

    def _crash_reason(self) -> str:
        """Return why a worker ended without a result: how it ended, and the last line of its output."""
        code = self._process.returncode
        if code == _KILLED:
            remedy = self._job["if_memory_is_short"]
            return f"was killed, as the system does with what takes too much memory; {remedy}"
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode("utf8", "replace").split("\n")
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{how} ({last_line[:_MAX_REASON]})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
