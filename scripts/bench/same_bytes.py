#!/usr/bin/env python3
"""Check that two versions of redditgen write the same bytes, and that the new one continues the work of the old one.

    scripts/bench/same_bytes.py OLD_REDDITGEN NEW_REDDITGEN
    scripts/bench/same_bytes.py OLD_REDDITGEN NEW_REDDITGEN --only finetune --keep FOLDER

OLD_REDDITGEN and NEW_REDDITGEN are paths of two installed `redditgen` programs. The script prints one line per check
and then a line with the counts. It exits with 1 if a check finds a difference or a command fails, and with 0 otherwise.

Both versions run the same commands with the same relative paths, each in a temporary folder of its own. The old
version makes the inputs: titles, records, and a run of mini that has learned for 60 steps. All commands get
OMP_NUM_THREADS=1, because another number of threads adds floating-point numbers in another order.

The checks cover:

    same bytes     fetch, encode (with 1 process and with 2 of ray), tokenize, finetune, generate, decode, export and
                   evaluate
    continued      the new version adds steps to a run of the old version, and the old version adds them too
    killed         SIGKILL ends a command of the old version midway. The same command of the new version must end with
                   the bytes that the old version writes when nothing disturbs it. encode, generate and finetune must
                   also have kept what the old version had written; the other commands begin anew.
    skip-existing  the new version takes an output of the old version for up to date and does not touch it
    gpt-2-simple   the commands that need TensorFlow 1.15, and a run made by gpt-2-simple without redditgen. These
                   checks are left out where there is no interpreter that has TensorFlow 1.15.

After the commands of a check, all files in both folders are compared, and so is standard output unless a command was
killed. Most files must be equal byte by byte. These are the exceptions:

    *.meta.json, state.json, evaluation.json   compared as JSON, without the key `redditgen` (the version). The folders
                                               that the sample posts and mini lie in count as equal, because they are
                                               those of the installation.
    adapter_config.json                        the same, and its lists count as sets: peft writes a set there, in an
                                               order that changes from process to process
    metrics.jsonl                              compared without seconds, speeds and memory. After a kill the count of
                                               tokens is left out too, since it begins anew with each command.
    events.out.tfevents.*, *.log               not compared, because they contain times
    model-N.meta                               not compared. TensorFlow writes the graph of a run of gpt-2-simple there,
                                               in an order that changes from process to process.

Standard error, file modes and modification times are not compared. If the version numbers differ, the skip-existing
checks are left out, and so is the question whether encode and generate kept what was written: redditgen takes up only
what its own version number made. The README.md of an export then differs too, because it names the version.
"""

import argparse
import csv
import fnmatch
import functools
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TIMEOUT = 900.0  # seconds that a command may take
POLL_INTERVAL = 0.001  # seconds between two looks whether a command is midway
ROWS = 40_000  # of rows.csv. encode writes its state after every 16,384 rows.
KILL_TRIES = 5
KILL_DELAYS = (0.2, 0.1, 0.05, 0.02, 0.0)  # seconds between the first sign of an output and the kill, one per try
SHOWN_CHARACTERS = 60  # of a value in a message
MEASURED_KEYS = ("seconds", "tokens_per_second", "titles_per_second", "memory_bytes")  # in metrics.jsonl
COUNTED_PER_COMMAND = ("tokens",)  # in metrics.jsonl
NOT_COMPARED = ("events.out.tfevents.*", "*.log", "model-[0-9]*.meta")
ADAPTERS = "adapter_config.json"
INSTALLED_PATH = re.compile(r'"[^"]*/(data/sample_posts\.parquet|models/mini)"')

# gpt-2-simple as its README shows it. A Python 3.7 that has TensorFlow 1.15 runs this text.
PLAIN_GPT_2_SIMPLE = """
import sys
import gpt_2_simple as gpt2
session = gpt2.start_tf_sess()
gpt2.finetune(session, sys.argv[1], model_name="124M", run_name="plain", steps=2, accumulate_gradients=1,
              sample_length=10)
"""


class CommandFailed(Exception):
    """A command that nothing had killed did not exit with 0."""


class LeftOut(Exception):
    """A check can't be made here; the message says why."""


# --- Programs and the folders they run in ---


@dataclass(frozen=True)
class Workspace:
    """A folder for one program: `files` is the working folder, and beside it lies what the program printed."""

    path: Path

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def stderr(self) -> Path:
        return self.path / "stderr.log"


@dataclass(frozen=True)
class Command:
    """A command line of redditgen, the inputs it needs, and the file or folder that it makes last."""

    name: str
    line: str
    inputs: tuple[str, ...] = ()
    output: str = ""
    uses_ray: bool = False

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)


@dataclass(frozen=True)
class Program:
    """An installed redditgen, or another program that runs in a workspace."""

    path: Path

    def start(self, workspace: Workspace, words: list[str]) -> "subprocess.Popen[bytes]":
        workspace.files.mkdir(parents=True, exist_ok=True)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with (workspace.path / "stdout.txt").open("wb") as stdout, workspace.stderr.open("wb") as stderr:
            return subprocess.Popen(
                [self.path, *words],
                cwd=workspace.files,
                env={**variables, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    def run(self, workspace: Workspace, words: list[str]) -> None:
        """Run a command to its end. Raises CommandFailed unless it exits with 0."""
        process = self.start(workspace, words)
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self.path.name} {shlex.join(words)}: not done after {TIMEOUT:.0f} s") from error
        finally:
            process.kill()
            process.wait()
        if code:
            raise CommandFailed(f"{self.path.name} {shlex.join(words)}: exit code {code}: {last_line(workspace)}")

    def version(self) -> str:
        done = subprocess.run([self.path, "--version"], capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode:
            raise CommandFailed(f"{self.path} --version: exit code {done.returncode}")
        return done.stdout.strip()


def last_line(workspace: Workspace) -> str:
    lines = workspace.stderr.read_text(encoding="utf8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


# --- Inputs, which the old version makes when a check first needs them ---

RECORDS = "records.txt"
LEARNED = "checkpoint/learned"  # a run that ends most titles, and needs a second try for some
BEGUN = "checkpoint/begun"  # a run with the state of its optimizer
PLAIN = "checkpoint/plain"  # a run of gpt-2-simple without redditgen
MINI_FOR_PLAIN = "models/124M"  # mini, by the name under which gpt-2-simple looks for a model
SMALL_STEPS = "--batch-size 8 --val-every 3 --print-every 3 --sample-every 0 --memory 4GB"


class Inputs:
    """Files and folders that several checks read, each made at its first use."""

    def __init__(self, old: Program, folder: Path, tf1_python: Callable[[], Path]) -> None:
        self._old = old
        self._workspace = Workspace(folder)
        self._tf1_python = tf1_python
        self._makers: dict[str, Callable[[], None]] = {
            "titles.csv": lambda: self._run("fetch --from sample --per-subreddit 50 --out titles.csv"),
            "posts.parquet": self._copy_sample_posts,
            "rows.csv": self._write_rows,
            "prompts.csv": self._write_prompts,
            RECORDS: self._make_records,
            LEARNED: self._make_learned_run,
            BEGUN: lambda: self._finetune(f"--run begun --model mini --steps 4 {SMALL_STEPS}"),
            MINI_FOR_PLAIN: lambda: self._run(f"export --model mini --to tf --out {MINI_FOR_PLAIN}"),
            PLAIN: self._make_plain_run,
        }

    def path(self, name: str) -> Path:
        path = self._workspace.files / name
        if not path.exists():
            self._makers[name]()
        return path

    def copy_to(self, folder: Path, names: tuple[str, ...]) -> None:
        """Copy inputs into a folder, under the same names."""
        for name in names:
            source, target = self.path(name), folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)

    def _run(self, line: str) -> None:
        self._old.run(self._workspace, shlex.split(line))

    def _finetune(self, options: str) -> None:
        self.path(RECORDS)
        self._run(f"finetune {RECORDS} {options}")

    def _copy_sample_posts(self) -> None:
        """Copy the posts that come with the old version. The sidecar of titles.csv says where they lie."""
        sidecar = json.loads(self.path("titles.csv").with_name("titles.csv.meta.json").read_text(encoding="utf8"))
        [sample] = sidecar["inputs"]
        shutil.copyfile(sample, self._workspace.files / "posts.parquet")

    def _write_rows(self) -> None:
        """Write rows of random words, among them some that records must escape."""
        categories = ["moon", "sofa", "garden", "Zürich", "cat's"]
        escaped = ["a~`b", "~^", "~@", "🎉", '"quoted"', "<|endoftext|>", "&amp;"]
        words = [*categories, *escaped, *(f"word{number}" for number in range(500))]
        draws = random.Random(0)
        self._workspace.files.mkdir(parents=True, exist_ok=True)
        with (self._workspace.files / "rows.csv").open("w", encoding="utf8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["category", "title", "keywords"])
            for _ in range(ROWS):
                title = draws.choices(words, k=draws.randint(3, 15))
                writer.writerow([draws.choice(categories), " ".join(title), ",".join(draws.sample(title, 3))])

    def _write_prompts(self) -> None:
        self._workspace.files.mkdir(parents=True, exist_ok=True)
        with (self._workspace.files / "prompts.csv").open("w", encoding="utf8", newline="") as file:
            rows = (["category", "keywords", "n"], ["cats", "window", 5], ["space", "moon, telescope", 3], ["", "", 4])
            csv.writer(file).writerows(rows)

    def _make_records(self) -> None:
        self.path("titles.csv")
        self._run(f"encode titles.csv --workers 1 --out {RECORDS}")

    def _make_learned_run(self) -> None:
        """Train 60 steps, and leave out the state of the optimizer: only finetune reads it, and it is large."""
        options = "--steps 60 --batch-size 16 --learning-rate 1e-3 --sample-every 0 --memory 4GB"
        self._finetune(f"--run learned --model mini {options}")
        for path in (self._workspace.files / LEARNED).glob("optimizer-*"):
            path.unlink()

    def _make_plain_run(self) -> None:
        self.path(MINI_FOR_PLAIN)
        self.path(RECORDS)
        Program(self._tf1_python()).run(self._workspace, ["-I", "-c", PLAIN_GPT_2_SIMPLE, RECORDS])


# --- Comparing files ---


def folder_difference(old: Path, new: Path, unimportant: tuple[str, ...] = MEASURED_KEYS) -> str | None:
    """Describe the first difference between two folders, or return None if there is none.

    `unimportant` are the keys of metrics.jsonl that are not compared.
    """
    old_names, new_names = names_in(old), names_in(new)
    for name in sorted(old_names | new_names):
        if name not in new_names:
            return f"{name}: not there after the new version"
        if name not in old_names:
            return f"{name}: only there after the new version"
        if (old / name).is_file() and (found := file_difference(old / name, new / name, unimportant)):
            return f"{name}: {found}"
    return None


def names_in(folder: Path) -> set[str]:
    """Return the relative paths of all files and folders that are compared."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not is_ignored(path)}


def is_ignored(path: Path) -> bool:
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in NOT_COMPARED)


def file_difference(old: Path, new: Path, unimportant: tuple[str, ...]) -> str | None:
    if old.read_bytes() == new.read_bytes():
        return None
    if old.name.endswith(".meta.json") or old.name in ("state.json", "evaluation.json", ADAPTERS):
        return value_difference(json_of(old), json_of(new))
    if old.name == "metrics.jsonl":
        return value_difference(metrics_of(old, unimportant), metrics_of(new, unimportant))
    return byte_difference(old.read_bytes(), new.read_bytes())


def json_of(path: Path) -> Any:
    """Return a file's JSON without the version, and without the folder of what comes with the installation."""
    text = INSTALLED_PATH.sub(r'"\1"', path.read_text(encoding="utf8"))
    content = json.loads(text, object_hook=without_version)
    if path.name == ADAPTERS:
        return {key: sorted(value) if isinstance(value, list) else value for key, value in content.items()}
    return content


def without_version(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "redditgen"}


def metrics_of(path: Path, unimportant: tuple[str, ...]) -> list[dict[str, Any]]:
    reports = map(json.loads, path.read_text(encoding="utf8").splitlines())
    return [{key: value for key, value in report.items() if key not in unimportant} for report in reports]


def value_difference(old: Any, new: Any, place: str = "") -> str | None:
    """Describe the first key, in alphabetical order, whose values differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else f"key {place or '(top)'}: {shown(old)} became {shown(new)}"
    for key in sorted(old.keys() | new.keys()):
        inner = f"{place}.{key}" if place else str(key)
        if key not in new or key not in old:
            return f"key {inner}: only in the file of the {'old' if key in old else 'new'} version"
        if found := value_difference(old[key], new[key], inner):
            return found
    return None


def byte_difference(old: bytes, new: bytes) -> str:
    pairs = enumerate(zip(old, new, strict=False))
    place = next((number for number, (one, other) in pairs if one != other), min(len(old), len(new)))
    sizes = f"{len(old)} bytes" if len(old) == len(new) else f"{len(old)} and {len(new)} bytes"
    window = slice(max(0, place - 8), place + 24)
    return f"byte {place} of {sizes}: {old[window]!r} became {new[window]!r}"


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


# --- Kinds of checks ---


class Bench:
    """Two programs, the folder they work in, and their inputs.

    Each kind of check is a method that describes the first difference it finds, or returns None.
    """

    def __init__(self, old: Program, new: Program, root: Path, tf1_python: Callable[[], Path]) -> None:
        self.old, self.new = old, new
        self._root = root
        self._inputs = Inputs(old, root / "inputs", tf1_python)
        self._made_by_old: dict[Command, Workspace] = {}

    @functools.cached_property
    def versions(self) -> tuple[str, str]:
        return self.old.version(), self.new.version()

    @property
    def has_one_version_number(self) -> bool:
        return self.versions[0] == self.versions[1]

    def same_bytes(self, command: Command) -> str | None:
        """Run a command under both versions and compare what they wrote and printed."""
        for name in command.inputs:
            self._inputs.path(name)
        # Two clusters of ray at once would compete for processors and ports.
        with ThreadPoolExecutor(1 if command.uses_ray else 2) as pool:
            old = pool.submit(self._result_of_old, command)
            new = pool.submit(self._result, self.new, command, "new")
            return folder_difference(old.result().path, new.result().path)

    def killed(self, command: Command, interruption: "Interruption") -> str | None:
        """Kill a command of the old version midway, and let the new version run the same command to its end."""
        undisturbed = self._result_of_old(command)
        workspace = self._kill_midway(command, interruption)
        has_kept = interruption.remember(workspace, command)
        self.new.run(workspace, command.words)
        if not has_kept() and (self.has_one_version_number or not interruption.depends_on_version):
            return "the new version began anew instead of keeping what the old version had written"
        unimportant = MEASURED_KEYS + COUNTED_PER_COMMAND
        return folder_difference(undisturbed.files, workspace.files, unimportant)

    def skips(self, command: Command) -> str | None:
        """Let the new version find an output of the old version, and check that it touches no file."""
        if not self.has_one_version_number:
            raise LeftOut(f"the version numbers differ: {', '.join(self.versions)}")
        workspace = self._empty_workspace(command, "skipped")
        shutil.copytree(self._result_of_old(command).files, workspace.files)  # keeps the modification times
        before = snapshot(workspace.files)
        self.new.run(workspace, [*command.words, "--skip-existing"])
        after = snapshot(workspace.files)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                return f"{name}: the new version touched it"
        return None

    def _result_of_old(self, command: Command) -> Workspace:
        """Run a command under the old version, once for all checks that need the result."""
        if command not in self._made_by_old:
            self._made_by_old[command] = self._result(self.old, command, "old")
        return self._made_by_old[command]

    def _result(self, program: Program, command: Command, whose: str) -> Workspace:
        workspace = self._empty_workspace(command, whose)
        self._inputs.copy_to(workspace.files, command.inputs)
        program.run(workspace, command.words)
        return workspace

    def _empty_workspace(self, command: Command, whose: str) -> Workspace:
        path = self._root / command.name.replace(", ", "-").replace(" ", "-") / whose
        path.mkdir(parents=True)
        return Workspace(path)

    def _kill_midway(self, command: Command, interruption: "Interruption") -> Workspace:
        """Return the folder of a killed command. Raises LeftOut if each try ended before the kill."""
        for number, delay in enumerate(interruption.delays, start=1):
            workspace = self._empty_workspace(command, f"killed-{number}")
            self._inputs.copy_to(workspace.files, command.inputs)
            process = self.old.start(workspace, command.words)
            try:
                wait_until(functools.partial(interruption.is_midway, workspace, command), process)
                time.sleep(delay)
            finally:
                process.kill()
                code = process.wait()
            if code not in (0, -signal.SIGKILL):
                raise CommandFailed(f"{command.line}: exit code {code}: {last_line(workspace)}")
            if code and not (workspace.files / command.output).exists():
                return workspace
        raise LeftOut(f"the command was over before the kill in each of {len(interruption.delays)} tries")


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait until a condition holds, or the process has ended, or the time is up."""
    end = time.monotonic() + TIMEOUT
    while not holds() and process.poll() is None and time.monotonic() < end:
        time.sleep(POLL_INTERVAL)


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the modification time, in nanoseconds, and the hash of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


# --- When to kill, and how to tell that the new version continued ---


@dataclass(frozen=True)
class Interruption:
    """When a command is midway, and what shows that the next command kept what was there.

    `delays` has one element per try: the seconds from the first sight of `is_midway` to the kill. `remember` is called
    after the kill and returns a function that tells, after the next command, whether that one kept the work.
    """

    is_midway: Callable[[Workspace, Command], bool]
    remember: Callable[[Workspace, Command], Callable[[], bool]]
    delays: tuple[float, ...]
    depends_on_version: bool = False


def hidden_entries(workspace: Workspace, command: Command) -> Iterator[Path]:
    """Yield the temporary files and folders beside an output."""
    output = workspace.files / command.output
    return output.parent.glob(f".{output.name}.*")


def has_begun_to_write(workspace: Workspace, command: Command) -> bool:
    return any(hidden_entries(workspace, command))


def partial_folder(workspace: Workspace, command: Command) -> Path:
    output = workspace.files / command.output
    return output.with_name(f".{output.name}.partial")


def has_written_a_step(workspace: Workspace, command: Command) -> bool:
    try:
        state = json.loads((partial_folder(workspace, command) / "state.json").read_text(encoding="utf8"))
    except FileNotFoundError:
        return False
    return bool(state["steps"] >= 1)


def has_saved_a_checkpoint(workspace: Workspace, command: Command) -> bool:
    """Tell whether the file `checkpoint` is there, which is written last."""
    return (workspace.files / command.output).with_name("checkpoint").exists()


def remember_nothing(workspace: Workspace, command: Command) -> Callable[[], bool]:
    """An output that appears whole or not at all leaves nothing to keep."""
    return lambda: True


def remember_first_file(workspace: Workspace, command: Command) -> Callable[[], bool]:
    """Give the unfinished file a second name. The output must be the same file and not only an equal one."""
    second_name = workspace.path / "unfinished"
    os.link(partial_folder(workspace, command) / "0", second_name)
    return lambda: second_name.samefile(workspace.files / command.output)


def remember_first_report(workspace: Workspace, command: Command) -> Callable[[], bool]:
    """A run that was begun anew would have another time in its first report."""
    metrics = (workspace.files / command.output).with_name("metrics.jsonl")

    def first_report() -> bytes:
        return metrics.read_bytes().partition(b"\n")[0]

    before = first_report()
    return lambda: first_report() == before


ATOMIC = Interruption(has_begun_to_write, remember_nothing, KILL_DELAYS)
STEPWISE = Interruption(has_written_a_step, remember_first_file, (0.0,) * KILL_TRIES, depends_on_version=True)
TRAINING = Interruption(has_saved_a_checkpoint, remember_first_report, (0.0,) * KILL_TRIES)


# --- The commands ---

ENCODE_FORMS = {
    "default": "titles.csv",
    "repeat": "titles.csv --repeat 2 --seed 3",
    "dynamic": "titles.csv --dynamic",
    "compat listing": "titles.csv --compat listing",
    "split": "titles.csv --split val=0.1",
    "ready keywords": "rows.csv --category-field category --keywords-field keywords",
}
WRITE = f"generate --run {Path(LEARNED).name} --seed 1"
GENERATE_FORMS = {
    "jsonl": "-n 200 --out generated.jsonl",
    "csv": "-n 30 --out generated.csv",
    "txt": "-n 30 --label --out generated.txt",
    "required keywords": "-n 20 --category cats --keywords window --require-keywords --out generated.jsonl",
    "no-novel": "-n 30 --no-novel --no-unique --no-sfw --out generated.jsonl",
    "prompts": "--prompts prompts.csv --out generated.jsonl",
    "float32": "-n 10 --precision float32 --out generated.jsonl",
    "terminal": "-n 10 --category space",
    "prefix on the terminal": "-n 5 --prefix 'My cat' --include-prefix",
}
TRAIN = f"finetune {RECORDS} --model mini {SMALL_STEPS}"
DECODE_FORMS = {
    "txt": "--out decoded.txt",
    "csv": "--sections category,title --out decoded.csv",
    "jsonl": "--sections category,keywords,title --out decoded.jsonl",
    "terminal": "--sections keywords",
}
EXPORT = f"export --run {Path(LEARNED).name}"
EVALUATE = f"evaluate --run {Path(LEARNED).name} --against {RECORDS} -n 40"


def fetch_commands() -> Iterator[Command]:
    for ending in ("csv", "parquet", "ndjson"):
        yield Command(f"fetch, {ending}", f"fetch --from sample --per-subreddit 50 --out fetched.{ending}")
    yield Command("fetch, review", "fetch --from sample --review")


def encode_commands() -> Iterator[Command]:
    for workers in (1, 2):
        for form, words in ENCODE_FORMS.items():
            out = "encoded.jsonl" if form == "dynamic" else "encoded.txt"
            yield Command(
                f"encode, {form}, {workers} worker{'s' if workers > 1 else ''}",
                f"encode {words} --workers {workers} --out {out}",
                inputs=(words.split()[0],),
                uses_ray=workers > 1,
            )


def tokenize_commands() -> Iterator[Command]:
    for form in ("literal", "compact"):
        line = f"tokenize {RECORDS} --record-tokens {form} --out tokens.npz"
        yield Command(f"tokenize, {form}", line, (RECORDS,))


def finetune_commands() -> Iterator[Command]:
    yield Command("finetune, mini", f"{TRAIN} --steps 6", (RECORDS,))
    yield Command("finetune, lora", f"{TRAIN} --steps 6 --train lora", (RECORDS,))


def generate_commands() -> Iterator[Command]:
    for form, words in GENERATE_FORMS.items():
        yield Command(f"generate, {form}", f"{WRITE} {words}", (LEARNED, "prompts.csv"))


def decode_commands() -> Iterator[Command]:
    for form, words in DECODE_FORMS.items():
        yield Command(f"decode, {form}", f"decode {RECORDS} {words}", (RECORDS,))


def export_commands() -> Iterator[Command]:
    for layout in ("hf", "ct2", "tf"):
        yield Command(f"export, {layout}", f"{EXPORT} --to {layout} --out exported", (LEARNED,))


def single_commands() -> Iterator[Command]:
    yield from fetch_commands()
    yield from encode_commands()
    yield from tokenize_commands()
    yield from finetune_commands()
    yield from generate_commands()
    yield from decode_commands()
    yield from export_commands()
    yield Command("evaluate", EVALUATE, (LEARNED, RECORDS))


def continuing_commands() -> Iterator[Command]:
    line = f"finetune {RECORDS} --run begun --more 4 {SMALL_STEPS}"
    yield Command("continued, finetune", line, (RECORDS, BEGUN))


def killed_commands() -> Iterator[tuple[Command, Interruption]]:
    """Yield the commands that are killed. Each is also run once more with --skip-existing."""
    columns = "subreddit,title,score,created_utc,id,author,num_comments"
    fetch = f"fetch --from posts.parquet --per-subreddit 250 --columns {columns} --out fetched.parquet"
    encode = f"encode {ENCODE_FORMS['ready keywords']} --out encoded.txt"
    finetune = f"{TRAIN} --steps 12 --save-every 2 --run killed"
    evaluation = f"{LEARNED}/evaluation/evaluation.json"
    yield Command("fetch", fetch, ("posts.parquet",), "fetched.parquet"), ATOMIC
    yield Command("encode", encode, ("rows.csv",), "encoded.txt"), STEPWISE
    yield Command("tokenize", f"tokenize {RECORDS} --out tokens.npz", (RECORDS,), "tokens.npz"), ATOMIC
    yield Command("finetune", finetune, (RECORDS,), "checkpoint/killed/finetune.meta.json"), TRAINING
    yield Command("generate", f"{WRITE} -n 6000 --out many.jsonl", (LEARNED,), "many.jsonl"), STEPWISE
    yield Command("decode", f"decode {RECORDS} --out decoded.csv", (RECORDS,), "decoded.csv"), ATOMIC
    yield Command("export", f"{EXPORT} --to hf --out exports/learned", (LEARNED,), "exports/learned"), ATOMIC
    yield Command("evaluate", EVALUATE, (LEARNED, RECORDS), evaluation), ATOMIC


def tf1_commands() -> Iterator[Command]:
    """Yield the commands that need an interpreter that has TensorFlow 1.15, or a run that it made."""
    read = "generate --run plain --seed 1 -n 4 --length 20 --prefix '<|startoftext|>~`' --out generated.txt"
    more = f"finetune {RECORDS} --run plain --more 2 --sample-every 0 --val-every 0 --val-fraction 0.002"
    by_torch = f"{more} --batch-size 8 --memory 4GB"
    by_tensorflow = f"{more} --engine gpt-2-simple --window 64 --batch-size 2"
    yield Command("gpt-2-simple, generate", f"{WRITE} --engine gpt-2-simple -n 6 --out generated.jsonl", (LEARNED,))
    yield Command("gpt-2-simple, plain run is read", read, (PLAIN,))
    yield Command("gpt-2-simple, plain run continued by torch", by_torch, (RECORDS, PLAIN))
    yield Command("gpt-2-simple, plain run continued by gpt-2-simple", by_tensorflow, (RECORDS, PLAIN))


# --- The checks ---


@dataclass(frozen=True)
class Check:
    name: str
    find_difference: Callable[[], str | None]


def checks(bench: Bench, tf1_python: Callable[[], Path]) -> Iterator[Check]:
    for command in (*single_commands(), *continuing_commands()):
        yield Check(command.name, functools.partial(bench.same_bytes, command))
    for command, interruption in killed_commands():
        yield Check(f"killed, {command.name}", functools.partial(bench.killed, named("killed", command), interruption))
    for command, _ in killed_commands():
        yield Check(f"skip-existing, {command.name}", functools.partial(bench.skips, named("killed", command)))
    for command in tf1_commands():
        yield Check(command.name, functools.partial(same_bytes_with_tf1, bench, command, tf1_python))


def named(kind: str, command: Command) -> Command:
    return replace(command, name=f"{kind}, {command.name}")


def same_bytes_with_tf1(bench: Bench, command: Command, tf1_python: Callable[[], Path]) -> str | None:
    python = shlex.quote(str(tf1_python()))
    is_for_it = "--engine gpt-2-simple" in command.line
    return bench.same_bytes(replace(command, line=f"{command.line} --tf1-python {python}") if is_for_it else command)


@functools.cache
def find_tf1_python(given: Path | None) -> Path:
    """Find the Python 3.7 as redditgen does. Raises LeftOut where it can't import TensorFlow and gpt-2-simple."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named_by_user = given or os.environ.get("REDDITGEN_TF1_PYTHON")
    python = Path(named_by_user or cache / "redditgen/tf1/bin/python").absolute()
    if not python.exists():
        raise LeftOut(f"there is no {python}; `redditgen doctor --install tf1` makes one, --tf1-python names another")
    words = [str(python), "-I", "-c", "import tensorflow, gpt_2_simple"]
    if subprocess.run(words, capture_output=True, timeout=TIMEOUT).returncode:
        raise LeftOut(f"{python} can't import TensorFlow and gpt-2-simple")
    return python


def report(check: Check) -> str:
    """Make a check, print its line, and return the verdict."""
    try:
        difference = check.find_difference()
        verdict, detail = ("DIFFERENT", difference) if difference else ("same", "")
    except LeftOut as error:
        verdict, detail = "left out", f"{error}"
    except CommandFailed as error:
        verdict, detail = "FAILED", f"{error}"
    except (OSError, ValueError) as error:  # an output is not there, or is no JSON
        verdict, detail = "FAILED", f"{type(error).__name__}: {error}"
    print(f"{verdict}  {check.name}" + (f": {detail}" if detail else ""), flush=True)
    return verdict


@contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        yield Path(name)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD_REDDITGEN", help="path of the old version's program")
    parser.add_argument("new", metavar="NEW_REDDITGEN", help="path of the new version's program")
    parser.add_argument("--only", metavar="TEXT", default="", help="make only the checks whose name contains TEXT")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="work in this empty folder and keep all files")
    parser.add_argument(
        "--tf1-python", metavar="PATH", type=Path, help="Python 3.7 that has TensorFlow 1.15  [default: as redditgen]"
    )
    options = parser.parse_args()
    for name in (options.old, options.new):
        if not shutil.which(name):
            parser.error(f"{name}: is not a program")
    if options.keep and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep: {options.keep} is not empty")
    return options


def main() -> int:
    options = arguments()
    old, new = (Program(Path(shutil.which(name) or name).absolute()) for name in (options.old, options.new))
    tf1_python = functools.partial(find_tf1_python, options.tf1_python)
    with working_folder(options.keep) as root:
        bench = Bench(old, new, root, tf1_python)
        chosen = [check for check in checks(bench, tf1_python) if options.only in check.name]
        if not chosen:
            sys.exit(f"same_bytes: --only: no check has {options.only!r} in its name")
        counts = Counter(map(report, chosen))
    print(
        f"{len(chosen)} checks: {counts['same']} same, {counts['DIFFERENT']} different, {counts['FAILED']} failed, "
        f"{counts['left out']} left out"
    )
    return 1 if counts["DIFFERENT"] or counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
