"""A campaign of faults: whatever happens to a stage, nothing is torn, and the same command ends as if left alone.

REDDITGEN_FAULTS says how many trials there are, and `scripts/test --faults` runs four of each fault at each stage.
"""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from redditgen.finetune.command import finetune
from redditgen.settings import FinetuneSettings
from tests.support.paths import ROOT
from tests.whole.faults.stages import STAGES, Content, Stage, content

pytestmark = pytest.mark.slow

DISTURBED = Path(__file__).with_name("disturbed.py")
SAMPLE = ROOT / "data/sample_posts.parquet"
TRIALS = int(os.environ.get("REDDITGEN_FAULTS", "30"))
LIMIT = 250  # seconds a command

# What makes the system refuse root's processes what it refuses others.
AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
CLOSED = ("sh", "-c", 'exec "$@" >&-', "sh")


Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Ended:
    """A process that has: its exit code, and what it said to standard error."""

    code: int
    said: str


@dataclass(frozen=True)
class Alone:
    """What a command does that nobody disturbs."""

    before: Content
    after: Content
    touches: int
    seconds: float

    @property
    def outputs(self) -> Content:
        return {name: text for name, text in self.after.items() if name.startswith("out/") and name not in self.before}


def start(folder: Path, command: str, *before: str, stdout: Any = subprocess.PIPE, **how: Any) -> Process:
    return subprocess.Popen(
        [*before, sys.executable, str(DISTURBED), json.dumps(how), *command.split(), *_skipping(command)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # another number of threads adds in another order
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def _skipping(command: str) -> list[str]:
    return ["--skip-existing"] if "out" in command.split() or "--out" in command.split() else []


def end(process: Process) -> Ended:
    """Raises AssertionError for what no process may say at its end."""
    with process:
        _, said = process.communicate(timeout=LIMIT)
    ended = Ended(process.returncode, said)
    assert "Traceback" not in said, ended
    lines = said.splitlines()
    own = [line for line in lines if line.startswith("redditgen: ")]
    assert own == (lines[-1:] if ended.code in (1, 2, 130) else []), ended
    return ended


class Workshop:
    """What the stages read, in two versions, and what each stage makes of either."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def version(self, name: str) -> Path:
        return self._folder / name

    def change(self, folder: Path) -> None:
        """Put the other version in the place of what is read."""
        for name in ("data", "checkpoint"):
            shutil.copytree(self.version("changed") / name, folder / name, dirs_exist_ok=True)

    @functools.cache  # noqa: B019 - one object a session
    def alone(self, stage: str, version: str) -> Alone:
        folder, count = self._folder / f"{stage}-{version}", self._folder / "count"
        shutil.copytree(self.version(version), folder)
        before, began = content(folder), time.monotonic()
        ended = end(start(folder, STAGES[stage].command, count=str(count)))
        assert ended.code == 0, ended
        touches = int(count.read_text(encoding="utf8"))
        return Alone(before, content(folder), touches, time.monotonic() - began)


@pytest.fixture(scope="session")
def workshop(
    dataset: Path, model_dir: Path, checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    made = Workshop(tmp_path_factory.mktemp("faults"))
    records = dataset.read_text(encoding="utf8").splitlines(keepends=True)
    for name, share in (("usual", 1.0), ("changed", 0.8)):
        folder = made.version(name)
        for part in ("data", "out"):
            (folder / part).mkdir(parents=True)
        (folder / "out/other.txt").write_text("an earlier output of another command\n", encoding="utf8")
        (folder / "data/records.txt").write_text("".join(records[: int(share * len(records))]), encoding="utf8")
        (folder / "data/titles.csv").write_text("".join(_titles(int(share * 40_000))), encoding="utf8")
        _write_posts(folder / "data/posts.parquet", share)
        shutil.copytree(model_dir / "tiny", folder / "models/tiny")
        shutil.copytree(checkpoint_dir / "trained", folder / "checkpoint/trained", ignore=_CACHE)
    _learn_more(made.version("changed"))
    return made


_CACHE = shutil.ignore_patterns("ctranslate2-*", "events.*")


def _titles(number: int) -> Iterator[str]:
    yield "subreddit,title,keywords\n"
    for row in range(number):
        yield f'cats,My cat number {row} sleeps on the sofa,"cat {row},sofa,number"\n'


def _write_posts(path: Path, share: float) -> None:
    import pyarrow.parquet

    posts = pyarrow.parquet.read_table(SAMPLE)
    pyarrow.parquet.write_table(posts.slice(0, int(share * len(posts))), path)


def _learn_more(folder: Path) -> None:
    """The run of the same name at the same step with other weights."""
    trained = folder / "checkpoint/trained"
    finetune(
        FinetuneSettings(
            dataset=folder / "data/records.txt", model="tiny", model_dir=folder / "models", run="trained",
            checkpoint_dir=folder / "checkpoint", steps=120, batch_size=32, learning_rate=0.02, loss_on="record",
            val_fraction=0.1, sample_every=0, precision="float32", restore_from="fresh", overwrite=True, seed=1,
        )
    )  # fmt: skip
    for path in trained.glob("events.*"):
        path.unlink()


@dataclass(frozen=True)
class Trial:
    """A stage in a folder of its own, which is about to be disturbed."""

    workshop: Workshop
    name: str
    folder: Path
    number: int
    rng: Random
    before: Content

    @property
    def stage(self) -> Stage:
        return STAGES[self.name]

    @property
    def alone(self) -> Alone:
        return self.workshop.alone(self.name, "usual")

    def start(self, *before: str, **how: Any) -> Process:
        return start(self.folder, self.stage.command, *before, **how)

    def signalled(self, number: int) -> Ended:
        """After a signal at a moment of the work: one in four is drawn from all of its time."""
        if self.number % 4 == 3:
            return end(self.start(signal=number, seconds=self.rng.uniform(0, self.alone.seconds)))
        return end(self.start(signal=number, touch=self.rng.randint(1, self.alone.touches)))


def killed(trial: Trial) -> None:
    _expect(trial.signalled(signal.SIGKILL), -signal.SIGKILL, 0)


def terminated(trial: Trial) -> None:
    _expect(trial.signalled(signal.SIGTERM), 130, 0, *([-signal.SIGTERM] if trial.number % 4 == 3 else []))


def interrupted(trial: Trial) -> None:
    _expect(trial.signalled(signal.SIGINT), 130, 0)


def no_stdout(trial: Trial) -> None:
    """Closed from the beginning, or by a reader that has gone; only what has results for it may mind."""
    command = trial.stage.shows if trial.stage.shows and trial.number % 4 < 2 else trial.stage.command
    shows = command == trial.stage.shows or trial.name == "evaluate"
    if trial.number % 2:
        _expect(end(start(trial.folder, command, *CLOSED)), 1 if shows else 0)
        return
    reader, writer = os.pipe()
    os.close(reader)
    process = start(trial.folder, command, stdout=writer)
    os.close(writer)
    _expect(end(process), 141 if shows else 0)


def disk_full(trial: Trial) -> None:
    """At some byte of one of the files."""
    sizes = [len(text) for text in trial.alone.outputs.values() if text]
    _expect(end(trial.start(largest=trial.rng.randrange(trial.rng.choice(sizes)))), 1)


def read_only(trial: Trial) -> None:
    out = trial.folder / "out"
    out.chmod(0o555)
    try:
        _expect(end(trial.start(*_as_others())), 1)
    finally:
        out.chmod(0o755)


def unreadable(trial: Trial) -> None:
    """Nobody may read it, or it is a folder, or not there, or noise."""
    path = trial.folder / trial.rng.choice(trial.stage.reads)
    content, before = path.read_bytes(), _as_others() if trial.number % 4 == 0 else ()
    if before or trial.number % 4 == 0:
        path.chmod(0o000)
    else:
        path.unlink()
    if trial.number % 4 == 1:
        path.mkdir()
    elif trial.number % 4 == 3:
        path.write_bytes(trial.rng.randbytes(len(content)))
    try:
        _expect(end(trial.start(*before)), 1)
    finally:
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def two_at_once(trial: Trial) -> None:
    with ExitStack() as stack:
        first = trial.start()
        stack.callback(first.kill)
        time.sleep(trial.rng.uniform(0, trial.alone.seconds))
        second = end(trial.start())
        ended = [end(first), second]
    assert 0 in {one.code for one in ended}, ended
    for one in ended:
        assert one.code == 0 or (one.code == 1 and "wait until it ends" in one.said), one


FAULTS: Mapping[str, Callable[[Trial], None]] = {
    "SIGKILL": killed,
    "SIGTERM": terminated,
    "SIGINT": interrupted,
    "stdout closed": no_stdout,
    "disk full": disk_full,
    "read-only target": read_only,
    "unreadable input": unreadable,
    "two at once": two_at_once,
    "input changed": killed,  # and what it reads is another before it goes on
}


def _expect(ended: Ended, *codes: int) -> None:
    assert ended.code in codes, ended


def _as_others() -> tuple[str, ...]:
    if not AS_OTHERS or (shutil.which(AS_OTHERS[0]) and subprocess.run([*AS_OTHERS, "true"]).returncode == 0):
        return AS_OTHERS
    pytest.skip("root may read and write everything here, and can't give that up (setpriv)")


def _check(trial: Trial) -> None:
    """Nothing is torn: what was there is, or the new output is in its place, whole, as is each that was not there."""
    there, alone = content(trial.folder), trial.alone.after
    for name, text in trial.before.items():
        assert there.get(name) in (text, alone.get(name)) or name in _aside(there), name
    if trial.stage.whole:
        assert trial.stage.whole(trial.folder)
        return
    for name in there.keys() - trial.before:
        is_temporary = any(part.startswith(".") for part in Path(name).parts)
        assert is_temporary or there[name] == alone.get(name), name


def _aside(there: Content) -> set[str]:
    """The names of what waits beside its place for a whole folder to be put there."""
    return {re.sub(r"/\.([^/]+)\.[0-9a-f]+\.\d+\.old/", r"/\1/", name) for name in there}


@pytest.fixture(scope="session")
def survived(request: pytest.FixtureRequest) -> Iterator["Counter[tuple[str, str, bool]]"]:
    """Trials by stage, fault and whether they were survived; a table of them is shown at the end."""
    counts: Counter[tuple[str, str, bool]] = Counter()
    yield counts
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    assert reporter is not None
    reporter.write_line("")
    reporter.write_line(f"{'survived of trials':18}" + "".join(f"{stage:>10}" for stage in STAGES))
    for fault in FAULTS:
        cells = [(counts[stage, fault, True], counts[stage, fault, False]) for stage in STAGES]
        reporter.write_line(f"{fault:18}" + "".join(f"{f'{good}/{good + bad}':>10}" for good, bad in cells))
    every = sum(counts.values())
    reporter.write_line(f"{sum(n for key, n in counts.items() if key[2])} of {every} trials survived")


# Eight stages and nine faults: stepping through both at once meets each pair once in 72 trials.
CELLS = [(list(STAGES)[trial % len(STAGES)], list(FAULTS)[trial % len(FAULTS)], trial) for trial in range(TRIALS)]


@pytest.mark.parametrize(("name", "fault", "seed"), CELLS, ids=lambda value: str(value).replace(" ", "-"))
def test_a_fault_tears_nothing_and_the_same_command_goes_on(
    workshop: Workshop, name: str, fault: str, seed: int, tmp_path: Path, survived: "Counter[tuple[str, str, bool]]"
) -> None:
    folder, rng = tmp_path / "folder", Random(seed)
    shutil.copytree(workshop.version("usual"), folder)
    for output, text in STAGES[name].replaces.items() if rng.random() < 0.5 else ():
        (folder / output).parent.mkdir(exist_ok=True)
        (folder / output).write_text(text, encoding="utf8")
    # Each kind of a fault comes at each stage once in four trials.
    number = seed + seed // len(STAGES) // len(FAULTS)
    trial = Trial(workshop, name, folder, number, rng, content(folder))
    survived[name, fault, False] += 1
    FAULTS[fault](trial)
    _check(trial)
    is_changed = fault == "input changed"
    if is_changed:
        workshop.change(folder)
    ended = end(trial.start())
    if is_changed and any(told in ended.said for told in trial.stage.keeps):
        assert trial.stage.whole and trial.stage.whole(folder)
    else:
        assert ended.code == 0, ended
        wanted = workshop.alone(name, "changed" if is_changed else "usual").after
        assert trial.stage.same(content(folder)) == trial.stage.same(wanted)
    survived.subtract([(name, fault, False)])
    survived[name, fault, True] += 1
