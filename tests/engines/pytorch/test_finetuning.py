"""How a finetuning ends, what it keeps and what it shows."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import MissingError, RedditgenError, UsageError
from redditgen.files.locks import exclusive_lock
from redditgen.finetune.command import finetune
from redditgen.gpt2.find import find_run
from redditgen.gpt2.model_dir import ModelDir
from redditgen.hub.export import export
from redditgen.settings import ExportSettings, FinetuneSettings
from redditgen.titles.record import build
from redditgen.titles.record_reader import read_records
from tests.support.fixture_types import Redditgen, Settings
from tests.support.paths import ROOT

KILLS = ROOT / "scripts/bench/kills.py"


def run_of(settings: FinetuneSettings) -> ModelDir:
    return ModelDir(settings.checkpoint_dir / settings.run)


def metrics(settings: FinetuneSettings) -> list[dict[str, Any]]:
    path = run_of(settings).path / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def steps(settings: FinetuneSettings) -> list[int]:
    """Those whose checkpoints are there."""
    return sorted(int(path.stem.partition("-")[2]) for path in run_of(settings).path.glob("model-*.index"))


@pytest.fixture
def worsening(finetuning: Settings, checkpoint_dir: Path, tmp_path: Path) -> Settings:
    """A trained run that learns other titles, so that it does worse and worse on those that it knew."""
    others = tmp_path / "others.txt"
    known = finetuning().dataset
    changed = (replace(record, title=(record.title or "")[::-1]) for record in read_records(known))
    others.write_text("".join(build(record) + "\n" for record in changed), encoding="utf8")

    def make(**changes: Any) -> FinetuneSettings:
        given = {"dataset": others, "val": known, "model": None, "restore_from": str(checkpoint_dir / "trained")}
        return finetuning(**(given | {"steps": 12, "val_every": 2, "learning_rate": 0.005, "run": "worse"} | changes))

    return make


def test_the_best_checkpoint_is_kept_besides_the_newest_and_read_by_its_name(
    worsening: Settings, redditgen: Redditgen, tmp_path: Path
) -> None:
    settings = worsening(keep_best=True)
    finetune(settings)
    measured = {line["step"]: line["val_loss"] for line in metrics(settings) if line["val_loss"] and line["step"]}
    lowest = min(measured, key=lambda step: measured[step])
    assert lowest < 12
    assert steps(settings) == [lowest, 12]
    assert find_run("worse", settings.checkpoint_dir, "best").step() == lowest
    place = ("--run", "worse", "--checkpoint-dir", settings.checkpoint_dir)
    ended = redditgen(
        "generate", *place, "--step", "best", "--prefix", "", "-n", "1", "--seed", "0", "--out", "1.jsonl"
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "1.jsonl").read_text(encoding="utf8"))["step"] == lowest
    exporting = ExportSettings(
        run="worse", checkpoint_dir=settings.checkpoint_dir, to="tf", step="best", out=tmp_path / "best"
    )
    exported, best = ModelDir(export(exporting)).tensors(), ModelDir(run_of(settings).path, lowest).tensors()
    assert {name: array.tobytes() for name, array in exported.items()} == {
        name: array.tobytes() for name, array in best.items()
    }


def test_what_is_learned_does_not_depend_on_what_is_kept(finetuning: Settings) -> None:
    plain, best = finetuning(run="plain", val_every=2), finetuning(run="best", val_every=2, keep_best=True)
    for settings in (plain, best):
        finetune(settings)
    losses = [[(line["loss"], line["val_loss"]) for line in metrics(settings)] for settings in (plain, best)]
    assert losses[0] == losses[1]
    assert steps(best) == [6]  # the last is the best


def test_without_a_measurement_there_is_no_best(finetuning: Settings) -> None:
    finetune(finetuning(val_fraction=0.0))
    with pytest.raises(MissingError, match=r"no held-out loss of a checkpoint that is there \(steps 6\)"):
        find_run("run1", finetuning().checkpoint_dir, "best")


def test_a_run_ends_when_it_becomes_no_better(worsening: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """The loss before the first step is the lowest already."""
    settings = worsening(early_stop=2, restore_from=str(worsening().restore_from), learning_rate=0.02)
    with caplog.at_level(logging.INFO):
        assert finetune(settings) == 4
    assert "saved at step 4, by --early-stop 2" in caplog.text
    assert [line["step"] for line in metrics(settings)] == [0, 1, 2, 3, 4]
    before = content(settings.checkpoint_dir)
    again = replace(settings, restore_from="latest", dataset=Path("gone.txt"))
    with caplog.at_level(logging.INFO):
        assert finetune(again) == 4
    assert "run worse was stopped early at step 4; --more N goes on" in caplog.text
    assert content(settings.checkpoint_dir) == before
    more = replace(settings, restore_from="latest", more=8)
    assert finetune(more) == 8  # two more measurements
    assert finetune(replace(settings, restore_from="latest", early_stop=9)) == 12


def test_a_run_that_becomes_better_does_not_end_early(finetuning: Settings) -> None:
    assert finetune(finetuning(early_stop=1, val_every=2, learning_rate=0.01)) == 6


def test_a_time_limit_saves_and_the_same_command_goes_on(
    finetuning: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings, reached = finetuning(steps=1_000_000, time_limit="1s", save_every=0, print_every=0), 0
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            step = finetune(settings)
        assert reached < step < 1_000_000
        assert (run_of(settings).step(), metrics(settings)[-1]["step"]) == (step, step)
        assert f"saved at step {step}, by --time-limit 1s" in caplog.text
        assert metrics(settings)[-1]["val_loss"] is not None
        reached = step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stop": 0}, "--early-stop must be 1 or more, not 0"),
        ({"time_limit": "8"}, "--time-limit must be a time like 8h, 90m or 1h30m, not '8'"),
        ({"time_limit": "0s"}, "--time-limit must be a time like 8h, 90m or 1h30m, not '0s'"),
        ({"time_limit": ""}, "--time-limit must be a time like 8h, 90m or 1h30m, not ''"),
        ({"keep_best": True, "val_every": 0}, "--keep-best: needs held-out titles, measured by --val-every"),
        ({"early_stop": 1, "val_fraction": 0.0}, "--early-stop: needs held-out titles, measured by --val-every"),
        ({"keep_best": True, "engine": "gpt-2-simple"}, "--keep-best: is for --engine torch alone; leave it out"),
        ({"time_limit": "8h", "engine": "gpt-2-simple"}, "--time-limit: is for --engine torch alone; leave it out"),
    ],
)
def test_an_end_that_can_not_be_is_named(finetuning: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        finetuning(**changes)


@pytest.mark.parametrize(("text", "seconds"), [("8h", 28800), ("90m", 5400), ("1h30m", 5400), (" 30S ", 30)])
def test_a_time_limit_is_hours_minutes_and_seconds(finetuning: Settings, text: str, seconds: int) -> None:
    assert finetuning(time_limit=text).time_limit_seconds == seconds


@pytest.mark.parametrize("rate", [30.0, 1e30])
@pytest.mark.parametrize("save_every", [1, 4, 0])
def test_a_loss_that_goes_up_for_good_ends_the_run_at_its_last_good_checkpoint(
    finetuning: Settings, rate: float, save_every: int
) -> None:
    settings = finetuning(learning_rate=0.01)
    finetune(settings)
    before = content(run_of(settings).path)
    bad = replace(settings, learning_rate=rate, steps=60, save_every=save_every)
    message = (
        r"run1: the loss is \S+ at step \d+, after .* at first.*; the checkpoint of step 6 is kept; lower --learning"
    )
    with pytest.raises(RedditgenError, match=message) as raised:
        finetune(bad)
    assert "\n" not in str(raised.value)
    after = content(run_of(settings).path)
    # The sidecars tell of the command that has begun last.
    kept = {name for name in before if not name.startswith(("metrics", "events", "begun", "finetune"))}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert finetune(replace(settings, steps=8)) == 8


def test_a_run_that_has_saved_nothing_says_so(finetuning: Settings) -> None:
    settings = finetuning(learning_rate=1e30, optimizer="sgd", steps=60, val_fraction=0.0)
    with pytest.raises(
        RedditgenError, match=r"the loss is nan at step \d+, .*; nothing was saved; lower --learning-rate"
    ):
        finetune(settings)
    assert finetune(finetuning()) == 6


def test_one_finetuning_at_a_time_writes_to_a_run_and_others_may_read_it(finetuning: Settings) -> None:
    settings = finetuning()
    finetune(settings)
    before = content(settings.checkpoint_dir)
    with exclusive_lock(run_of(settings).path, "finetuning this run"):
        for changes in ({"more": 2}, {"restore_from": "fresh", "overwrite": True}, {}):
            with pytest.raises(RedditgenError, match=r"run1: another redditgen .*is finetuning this run; wait"):
                finetune(replace(settings, **changes))
        assert content(settings.checkpoint_dir) == before
        assert set(find_run("run1", settings.checkpoint_dir).tensors()) == set(
            run_of(settings).hyperparameters().tensor_shapes()
        )
    assert finetune(replace(settings, more=2)) == 8


def test_a_command_that_fails_at_once_leaves_no_empty_folder(finetuning: Settings) -> None:
    with pytest.raises(MissingError):
        finetune(finetuning(dataset=Path("gone.txt")))
    assert not finetuning().checkpoint_dir.exists()


def test_speeds_and_memory_are_reported(finetuning: Settings) -> None:
    settings = finetuning(steps=4, print_every=2, accumulate_gradients=2)
    finetune(settings)
    first, *lines = metrics(settings)
    assert (first["tokens_per_second"], first["titles_per_second"]) == (None, None)
    assert [line["step"] for line in lines] == [2, 4]
    for line, tokens in zip(lines, (lines[0]["tokens"], lines[1]["tokens"] - lines[0]["tokens"]), strict=True):
        # Of the same seconds: those of 2 steps of 2 batches of 8 titles.
        assert line["titles_per_second"] / line["tokens_per_second"] == pytest.approx(32 / tokens, rel=0.01)
        assert line["tokens_per_second"] >= tokens / line["seconds"]
        assert 10**8 < line["memory_bytes"] < 10**11


def test_a_save_is_reported_so_that_nothing_is_lost_behind_it(finetuning: Settings) -> None:
    settings = finetuning(steps=12, save_every=5, print_every=4, val_every=0)
    finetune(settings)
    assert [line["step"] for line in metrics(settings)] == [0, 4, 5, 8, 10, 12]


def test_tensorboard_shows_what_was_reported_without_what_came_twice(finetuning: Settings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = finetuning(steps=8, val_every=3, save_every=4)
    killed = subprocess.run(command_line(settings, kill_at=6), env=os.environ, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [first] = run_of(settings).path.glob("events.out.tfevents.*")
    first.rename(first.with_name("events.out.tfevents.4000000000.host.1"))  # the clock may have been set since then
    finetune(settings)
    assert len(list(run_of(settings).path.glob("events.out.tfevents.*"))) == 2
    shown = EventAccumulator(str(run_of(settings).path)).Reload()
    lines = metrics(settings)
    for key in ("loss", "val_loss", "val_bits_per_char", "lr", "tokens_per_second", "titles_per_second"):
        found = [(event.step, event.value) for event in shown.Scalars(key)]
        wanted = [(line["step"], pytest.approx(line[key])) for line in lines if line[key] is not None]
        assert found == wanted
    finetune(replace(settings, restore_from="fresh", overwrite=True))
    assert len(list(run_of(settings).path.glob("events.out.tfevents.*"))) == 1


# The command line, killed as soon as a report of a step has been logged.
KILLED = """
import logging, os, signal, sys
from redditgen.cli.app import main

_, start, *arguments = sys.argv

class Kill(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith(start):
            os.kill(os.getpid(), signal.SIGKILL)

logging.getLogger("redditgen").addHandler(Kill())
sys.argv[:] = ["redditgen", *arguments]
main()
"""


def command_line(settings: FinetuneSettings, kill_at: int) -> list[str]:
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(settings).items()
        if name != "dataset" and value is not None and not isinstance(value, bool)
    ]
    return [sys.executable, "-c", KILLED, f"[{kill_at} |", "finetune", str(settings.dataset), *options]


def test_the_losses_are_drawn_through_all_sessions(finetuning: Settings) -> None:
    settings = finetuning(steps=4)
    finetune(settings)
    picture = run_of(settings).path / "loss.png"
    assert not picture.exists()
    finetune(replace(settings, plot=True, steps=4))  # nothing is left to learn, but to draw
    first = picture.read_bytes()
    finetune(replace(settings, plot=True, steps=8))
    assert first[:4] == picture.read_bytes()[:4] == b"\x89PNG"
    assert first != picture.read_bytes()
    finetune(replace(settings, restore_from="fresh", overwrite=True))
    assert not picture.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", [0.0, 2.0])
def test_an_interruption_of_the_long_imports_is_one_line(
    finetuning: Settings, number: signal.Signals, wait: float
) -> None:
    settings = finetuning(steps=100_000)
    command = [*command_line(settings, kill_at=-1)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if line == "loading PyTorch\n":
                time.sleep(wait)
                process.send_signal(number)
    assert process.returncode == 130, said
    assert "Traceback" not in "".join(said)
    assert said[-1].startswith("redditgen: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_at_random_moments_is_the_undisturbed_one(model_dir: Path, dataset: Path) -> None:
    options = [str(dataset), "--kills", "6", "--model", "tiny", "--model-dir", str(model_dir), "--seed", "1"]
    ended = subprocess.run([sys.executable, str(KILLS), *options], capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stderr
    assert "6 kills: " in ended.stdout
    runs = re.search(r"(\d+) runs ended, (\d+) of them with the undisturbed run's losses and weights", ended.stdout)
    assert runs and runs[1] == runs[2] != "0"
