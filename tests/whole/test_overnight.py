"""The scripts that chain the stages: what ends them, the same command goes on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPTS = ROOT / "scripts"
SETTINGS = """
fetch=(--from sample --top-subreddits 4 --per-subreddit 60)
encode=(--split val=0.1)
finetune=(--steps 12 --batch-size 4 --save-every 3 --sample-every 0 --precision float32)
generate=(-n 60 --seed 1 --batch-size 2)
evaluate=(-n 40)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.sh"
    path.write_text(SETTINGS, encoding="utf8")
    return path


def start(folder: Path, script: str, *arguments: Path) -> "subprocess.Popen[str]":
    """A script in a folder, as the leader of a group of processes."""
    folder.mkdir(exist_ok=True)
    command = folder / "redditgen"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m redditgen "$@"\n', encoding="utf8")
    command.chmod(0o755)
    with (folder / "said").open("w", encoding="utf8") as said:
        return subprocess.Popen(
            [SCRIPTS / script, *arguments],
            cwd=folder,
            env={**os.environ, "REDDITGEN": str(command), "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=said,
            text=True,
            start_new_session=True,
        )


def ended(folder: Path, script: str, *arguments: Path) -> str:
    code = start(folder, script, *arguments).wait(timeout=280)
    said = (folder / "said").read_text(encoding="utf8")
    assert code == 0, said
    return said


def made(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What a night leaves, as far as it is the same each time."""
    for name in ("overnight.csv", "overnight.txt", "overnight.val.txt", "overnight_titles.jsonl"):
        yield name, (folder / "data" / name).read_bytes()
    evaluation = json.loads((folder / "checkpoint/overnight/evaluation/evaluation.json").read_bytes())
    yield "evaluation.json", json.dumps([evaluation["figures"], evaluation["titles"]]).encode()


@pytest.mark.slow
def test_a_night_is_logged_with_times_and_run_again_does_nothing(tmp_path: Path, settings: Path) -> None:
    folder = tmp_path / "night"
    said = ended(folder, "overnight", settings)
    log = folder / "logs/overnight.log"
    assert log.read_text(encoding="utf8") == said
    began = [line.partition("$ redditgen ")[2].split()[0] for line in said.splitlines() if "$ redditgen " in line]
    assert began == ["fetch", "encode", "finetune", "generate", "evaluate"]
    assert all(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in said.splitlines())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path != log}
    again = ended(folder, "overnight", settings)
    assert again.count("is there already, made of the same; skipped") == 6  # encode writes two files
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path != log}
    assert {path.name for path in after if after[path] != before.get(path)} == {"redditgen", "said"}
    assert log.read_text(encoding="utf8") == said + again


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_night_with_its_code(tmp_path: Path, settings: Path) -> None:
    settings.write_text(SETTINGS + "encode=(--split val=2)\n", encoding="utf8")
    assert start(tmp_path / "night", "overnight", settings).wait(timeout=120) == 2
    said = (tmp_path / "night/said").read_text(encoding="utf8")
    assert said.splitlines()[-1].partition("  ")[2].startswith("redditgen: --split")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_ends_with_what_one_left_alone_ends_with(tmp_path: Path, settings: Path) -> None:
    began = time.monotonic()
    ended(tmp_path / "alone", "overnight", settings)
    whole, rng = time.monotonic() - began, random.Random(0)
    kills, nights = 0, 0
    while kills < int(os.environ.get("REDDITGEN_KILLS", "3")):
        killed = tmp_path / f"killed-{nights}"
        process = start(killed, "overnight", settings)
        try:
            assert process.wait(rng.uniform(0, whole)) == 0
            assert dict(made(killed)) == dict(made(tmp_path / "alone"))
            nights += 1  # the next one begins anew
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    ended(killed, "overnight", settings)
    assert dict(made(killed)) == dict(made(tmp_path / "alone"))


@pytest.mark.slow
def test_a_second_run_begins_with_what_the_first_has_learned(tmp_path: Path) -> None:
    settings = tmp_path / "settings.sh"
    settings.write_text(
        SETTINGS.replace("fetch=", "fetch_first=").replace("finetune=", "finetune_first=")
        + "fetch_second=(--from sample --top-subreddits 2)\n"
        + "finetune_second=(--steps 6 --batch-size 4 --sample-every 0)\n",
        encoding="utf8",
    )
    folder = tmp_path / "night"
    said = ended(folder, "overnight-merge", settings)
    assert "--restore-from checkpoint/everything" in said
    assert (folder / "data/questions_titles.jsonl").read_text(encoding="utf8").count("\n") == 60
    assert ended(folder, "overnight-merge", settings).count("skipped") == 10
