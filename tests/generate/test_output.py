"""Titles in files: what a kill, Ctrl-C or a full disk leaves, and how it is gone on with."""

import itertools
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from redditgen.engines.base import SamplerOptions, Sampling, WriteTexts
from redditgen.errors import InputError, OutputExists
from redditgen.files.resume import ResumableOutput
from redditgen.files.sidecar import sidecar_path
from redditgen.generate.output import write_titles
from redditgen.generate.rounds import BLOCKS_PER_PORTION
from redditgen.generate.session import ENGINE_WRITERS
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import GenerateSettings
from redditgen.titles.record import END_TOKEN
from tests.support.fixture_types import Generating, Scripted

NAMES = ["a.txt", "a.csv", "a.jsonl"]


class Broken(Exception):
    """What a test ends a command with."""


Engine = Callable[[ModelDir, Sampling, SamplerOptions], AbstractContextManager[WriteTexts]]


def engine_of(write: WriteTexts) -> Engine:
    return lambda run, sampling, options: nullcontext(write)


def drawn(prompts: Sequence[str], seed: int) -> Generator[str]:
    """An engine by the seed alone; of its texts one in seven is no title, and some come twice."""
    rng = random.Random(seed)
    for prompt in prompts:
        number = rng.randrange(400)
        yield prompt if number % 7 == 6 else f"{prompt}cats~^~@Title {number}{END_TOKEN}"


def broken_at(at: int) -> WriteTexts:
    """The same, ended after so many texts."""
    left = itertools.count(at, -1)

    def write(prompts: Sequence[str], seed: int) -> Generator[str]:
        for text in drawn(prompts, seed):
            if not next(left):
                raise Broken
            yield text

    return write


def without_settings(settings: GenerateSettings) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(sidecar_path(settings.out or Path()).read_text(encoding="utf8"))
    del facts["settings"]
    return facts


@pytest.mark.parametrize("name", NAMES)
def test_what_was_cut_short_is_gone_on_with(
    generating: Generating, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Window by window; the titles are those of an undisturbed command."""
    settings = {"n": 150, "unique": True, "batch_size": "4", "sample_delim": "--\n", "seed": 3}
    whole, cut = generating(**settings, out=tmp_path / "whole" / name), generating(**settings, out=tmp_path / name)
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(ENGINE_WRITERS, "torch", engine_of(drawn))
    assert write_titles(whole) == 150
    for _ in range(2):
        monkeypatch.setitem(ENGINE_WRITERS, "torch", engine_of(broken_at(85)))
        with pytest.raises(Broken):
            write_titles(cut)
        assert not (tmp_path / name).exists()
    monkeypatch.setitem(ENGINE_WRITERS, "torch", engine_of(drawn))
    assert write_titles(cut) == 150
    assert re.findall("goes on behind (.*) titles of an interrupted run", caplog.text) == ["64", "96"]
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert without_settings(cut) == without_settings(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.meta.json", "whole"]


def test_a_new_seed_is_kept_for_going_on(
    generating: Generating, engine: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = BLOCKS_PER_PORTION * 2

    def broken(prompt: str, place: int) -> str:
        if place == size + 1:
            raise Broken
        return f"{prompt}cats~^~@{place}{END_TOKEN}"

    settings = generating(n=2 * size, batch_size="2", seed=None, out=tmp_path / "a.jsonl")
    scripted = engine(broken)
    with pytest.raises(Broken):
        write_titles(settings)
    assert "the same command goes on with it" in caplog.text
    first = scripted.asked[0][1]
    scripted = engine(lambda prompt, place: f"{prompt}cats~^~@{size + place}{END_TOKEN}")
    assert write_titles(generating(**(vars(settings) | {"resume": True}))) == 2 * size
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf8").splitlines()]
    assert [row["title"] for row in rows] == [str(number) for number in range(2 * size)]
    assert {row["seed"] for row in rows} == {first}
    facts = json.loads((tmp_path / "a.jsonl.meta.json").read_text(encoding="utf8"))
    assert facts["settings"]["seed"] == first


def test_other_settings_begin_anew(generating: Generating, engine: Scripted, tmp_path: Path) -> None:
    def broken(prompt: str, place: int) -> str:
        if place == 20:
            raise Broken
        return f"{prompt}cats~^~@Old {place}{END_TOKEN}"

    engine(broken)
    with pytest.raises(Broken):
        write_titles(generating(n=30, batch_size="1", out=tmp_path / "a.txt"))
    engine(lambda prompt, place: f"{prompt}cats~^~@New {place}{END_TOKEN}")
    write_titles(generating(n=30, batch_size="1", temperature=0.8, out=tmp_path / "a.txt"))
    assert "Old" not in (tmp_path / "a.txt").read_text(encoding="utf8")


def test_a_whole_output_is_kept_also_by_resume(generating: Generating, tmp_path: Path) -> None:
    write_titles(generating(n=1, out=tmp_path / "a.txt"))
    before = (tmp_path / "a.txt").read_bytes()
    with pytest.raises(OutputExists, match=r"a\.txt: already exists; pass --overwrite"):
        write_titles(generating(n=1, seed=2, resume=True, out=tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_bytes() == before


def test_a_full_disk_is_one_line_and_what_was_written_waits(
    generating: Generating, engine: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = BLOCKS_PER_PORTION * 2
    scripted = engine(lambda prompt, place: f"{prompt}cats~^~@{place}{END_TOKEN}")
    step = ResumableOutput.write_step

    def full(self: ResumableOutput, *arguments: Any) -> None:
        if self.steps:
            raise OSError(28, "No space left on device")
        step(self, *arguments)

    settings = generating(n=3 * size, batch_size="2", out=tmp_path / "a.txt")
    with monkeypatch.context() as patch:
        patch.setattr(ResumableOutput, "write_step", full)
        with pytest.raises(InputError, match=r"^[^\n]*a\.txt: can't be written: No space left on device$"):
            write_titles(settings)
    assert scripted.closed == len(scripted.asked)
    assert [path.name for path in tmp_path.iterdir()] == [".a.txt.partial"]
    engine(lambda prompt, place: f"{prompt}cats~^~@{size + place}{END_TOKEN}")
    assert write_titles(settings) == 3 * size
    assert (tmp_path / "a.txt").read_text(encoding="utf8").split() == [str(number) for number in range(3 * size)]


def command(folder: Path, out: str, *options: str) -> list[str]:
    words = ["generate", "--run=trained", f"--checkpoint-dir={folder}", "--no-novel", "--batch-size=4", "--seed=7"]
    return [sys.executable, "-m", "redditgen", *words, "--temperature=1.5", f"--out={out}", *options]


@pytest.mark.slow
def test_of_killed_commands_no_title_is_lost_and_none_comes_twice(checkpoint_dir: Path, tmp_path: Path) -> None:
    """Killed at any moment, again and again, they write what an undisturbed one writes."""
    shutil.copytree(checkpoint_dir, tmp_path / "runs")
    options = ["-n600", "--resume"]
    subprocess.run(command(tmp_path / "runs", "whole.jsonl", *options), cwd=tmp_path, check=True, capture_output=True)
    kills = 0
    while not (tmp_path / "a.jsonl").exists():
        process = subprocess.Popen(
            command(tmp_path / "runs", "a.jsonl", *options), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        state = tmp_path / ".a.jsonl.partial/state.json"
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None:
            if kills < 4 and state.exists() and state.stat().st_mtime_ns != before:
                time.sleep(0.05 * kills)
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
    assert kills == 4
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf8").splitlines()]
    assert len({row["title"].casefold() for row in rows}) == len(rows) == 600


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_written(checkpoint_dir: Path, tmp_path: Path) -> None:
    words = command(checkpoint_dir, "a.csv", "-n5000", "--no-unique")
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    state = tmp_path / ".a.csv.partial/state.json"
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "a.csv: not whole yet; the same command goes on with it" in messages
    assert "Traceback" not in messages
    assert not (tmp_path / "a.csv").exists()
