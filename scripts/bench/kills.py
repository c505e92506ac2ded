#!/usr/bin/env python3
"""Kill a finetuning at random moments and go on with it: does it go on each time, and to the losses of one left alone?

    scripts/bench/kills.py [--kills 50] [--model mini] [DATASET]

A run is finetuned undisturbed. Then others are, by the same command, each killed by SIGKILL and started again until it
has ended. Of five kills one comes at a moment drawn from all the time that the undisturbed run took, two at one drawn
from that in which it learned, and two shortly after a file of a checkpoint has begun to be written. Without DATASET the
titles that come with redditgen are learned.
Exits 1 where a command fails, or where an ended run is not the undisturbed one, bit for bit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS, SAVE_EVERY, VAL_EVERY = 40, 2, 10
AIMS = ("anywhere", "learning", "saving", "learning", "saving")
SOON = 0.05  # seconds after a file has begun to be written
WAIT = 600.0  # seconds for a command, and for a file to be begun


@dataclass(frozen=True)
class Runs:
    """Finetunings by one command, but for the name of the run."""

    folder: Path
    options: list[str]

    def start(self, run: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "redditgen", "finetune", *self.options]
        command += [f"--run={run}", f"--checkpoint-dir={self.folder / 'checkpoint'}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # another number of threads adds in another order
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def path(self, run: str) -> Path:
        return self.folder / "checkpoint" / run

    def learned(self, run: str) -> tuple[Any, ...]:
        """What two runs must have in common to be the same one."""
        keys = ("step", "loss", "val_loss", "val_bits_per_char", "lr")
        reports = [tuple(report[key] for key in keys) for report in self.reports(run)]
        return reports, {path.name: path.read_bytes() for path in sorted(self.path(run).glob("model-*"))}

    def reports(self, run: str) -> list[dict[str, Any]]:
        path = self.path(run) / "metrics.jsonl"
        lines = path.read_text(encoding="utf8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def begun(self, run: str) -> int:
        """How many commands have begun to learn."""
        return len(list(self.path(run).glob("events.*")))

    def writes(self, run: str) -> int:
        """How many files of a checkpoint are being written."""
        there = self.path(run)
        return sum(any(there.glob(f".{name}*.tmp")) for name in ("optimizer-", "model-", "counter", "checkpoint"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="mini", help="name of a base model, or its folder")
    parser.add_argument("--model-dir", default="models")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = asked.dataset or sample_titles(folder)
        runs = Runs(folder, [*options(dataset), f"--model={asked.model}", f"--model-dir={asked.model_dir}"])
        try:
            spans = undisturbed(runs)
            return killed_again_and_again(runs, asked.kills, spans, random.Random(asked.seed))
        except Failed as error:
            print(f"kills: {error}; its last words:", *last_words(folder), sep="\n  ", file=sys.stderr)
            return 1


class Failed(Exception):
    """A command that was not killed did not end well."""


def sample_titles(folder: Path) -> Path:
    out = folder / "titles.csv"
    subprocess.run([sys.executable, "-m", "redditgen", "fetch", f"--out={out}", "--columns=title"], check=True)
    return out


def options(dataset: Path) -> list[str]:
    numbers = {"steps": STEPS, "batch-size": 8, "save-every": SAVE_EVERY, "val-every": VAL_EVERY, "print-every": 3}
    return [str(dataset), *(f"--{name}={number}" for name, number in numbers.items()), "--sample-every=0"]


def undisturbed(runs: Runs) -> dict[str, float]:
    """Seconds that the run and its learning take, the second time: the first one reads everything from the disk."""
    end(runs.start("warm"), "warm")
    began = time.monotonic()
    process = runs.start("undisturbed")
    wait_until(lambda: runs.begun("undisturbed") > 0, process)
    learns = time.monotonic()
    end(process, "undisturbed")
    took = time.monotonic() - began
    print(f"undisturbed: {STEPS} steps, {STEPS // SAVE_EVERY} saves, {took:.1f} s", flush=True)
    return {"anywhere": took, "learning": time.monotonic() - learns, "saving": SOON}


def end(process: "subprocess.Popen[bytes]", run: str) -> None:
    if code := process.wait(WAIT):
        raise Failed(f"the command of run {run} ended with {code}")


def killed_again_and_again(runs: Runs, kills: int, spans: dict[str, float], rng: random.Random) -> int:
    counts: Counter[str] = Counter()
    wanted = runs.learned("undisturbed")
    while counts["kills"] < kills:
        counts["runs"] += 1
        name = f"killed-{counts['runs']}"
        is_resume = False
        while counts["kills"] < kills and not is_ended(runs, name):
            moment = disturb(runs, name, AIMS[counts["kills"] % len(AIMS)], spans, rng)
            counts.update({moment: 1, "kills": moment != "ended", "resumes": is_resume})
            is_resume = True
            print(f"{counts['kills']:4}: {name}, {moment}", flush=True)
        end(runs.start(name), name)
        counts["resumes"] += is_resume
        counts["equal"] += runs.learned(name) == wanted
    print(
        f"{counts['kills']} kills: {counts['early']} before a command had begun to learn, "
        f"{counts['learning']} while it learned, {counts['saving']} while it saved"
    )
    print(
        f"{counts['resumes']} resumes, all of which went on; {counts['runs']} runs ended, "
        f"{counts['equal']} of them with the undisturbed run's losses and weights, bit for bit"
    )
    return 0 if counts["equal"] == counts["runs"] else 1


def is_ended(runs: Runs, run: str) -> bool:
    counter = runs.path(run) / "counter"
    return counter.exists() and counter.read_text(encoding="utf8") == f"{STEPS}\n"


def disturb(runs: Runs, run: str, aim: str, spans: dict[str, float], rng: random.Random) -> str:
    """Start the command and kill it; gives what it was at, or `ended` if it was faster."""
    begun = runs.begun(run)
    process = runs.start(run)
    if aim != "anywhere":
        wait_until(lambda: runs.begun(run) > begun, process)
    if aim == "saving":
        for _ in range(rng.randint(1, 6)):
            wait_until(lambda: runs.writes(run) == 0, process)
            wait_until(lambda: runs.writes(run) > 0, process)
    time.sleep(rng.uniform(0, spans[aim]))
    is_saving = runs.writes(run) > 0
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise Failed(f"the command of run {run} ended with {code}")
    if code == 0:
        return "ended"
    return "saving" if is_saving else "learning" if runs.begun(run) > begun else "early"


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """At most until the process has ended."""
    limit = time.monotonic() + WAIT
    while not holds() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)


def last_words(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text(encoding="utf8", errors="replace").splitlines()[-5:]


if __name__ == "__main__":
    sys.exit(main())
