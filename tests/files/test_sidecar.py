"""Outputs that are there already, made of the same, and those that only look so."""

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from redditgen.files.sidecar import find_up_to_date, sidecar_path, write_sidecar
from redditgen.settings.options import argument, command_settings, option
from tests.support.fixture_types import Redditgen

Change = Callable[[Path], None]


@command_settings
class Settings:
    dataset: Path = argument("What is read.")
    top_words: int = option(3, "How many.")
    source: tuple[str, ...] = option(("a",), "From where.", "--from")
    overwrite: bool = option(False, "Replace.")


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(**{"dataset": folder / "in.txt"} | changes)  # type: ignore[arg-type]  # as typer gives them


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output with its sidecar, and its input beside it."""
    (tmp_path / "in.txt").write_text("in")
    path = tmp_path / "out.txt"
    path.write_text("out")
    write_sidecar(path, settings(tmp_path), inputs=[tmp_path / "in.txt"], written=path, counts={"rows": 3}, step=7)
    return path


def again(output: Path, **changes: object) -> dict[str, object] | None:
    folder = output.parent
    return find_up_to_date(
        output, settings(folder, **changes), inputs=[folder / "in.txt"], ignoring=("overwrite",), facts={"step": 7}
    )


def test_an_output_of_the_same_is_known_again(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = again(output, overwrite=True)
    assert found is not None and found["counts"] == {"rows": 3}
    assert caplog.messages == [f"{output}: is there already, made of the same; skipped"]


def test_an_input_may_have_a_name_that_is_no_utf8(output: Path) -> None:
    path = output.parent / "L\udcc3.txt"
    path.write_text("in")
    asked = settings(output.parent, dataset=path)
    write_sidecar(output, asked, inputs=[path], written=output)
    assert find_up_to_date(output, asked, inputs=[path], ignoring=()) is not None


def replaced(before: str, after: str) -> Change:
    def change(output: Path) -> None:
        text = sidecar_path(output).read_text()
        assert before in text
        sidecar_path(output).write_text(text.replace(before, after))

    return change


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda output: sidecar_path(output).unlink(), "no sidecar says what it was made of"),
        (lambda output: sidecar_path(output).write_text("{"), "no sidecar says what it was made of"),
        (lambda output: sidecar_path(output).write_text("[]"), "no sidecar says what it was made of"),
        (replaced('"settings": {', '"settings": [], "other": {'), "no sidecar says what it was made of"),
        (lambda output: sidecar_path(output).write_text("[" * 100_000), "no sidecar says what it was made of"),
        (lambda output: output.write_text("OUT"), "it has changed since it was made"),
        (lambda output: (output.parent / "in.txt").write_text("IN"), "{folder}/in.txt has changed"),
        (replaced('"redditgen": "', '"redditgen": "9.'), 'redditgen was "9.'),
        (replaced('"top_words": 3', '"top_words": 4'), "--top-words was 4 and is 3"),
        (replaced('"top_words": 3,', ""), "--top-words was null and is 3"),
        (replaced('"a"', '"b"'), '--from was ["b"] and is ["a"]'),
        (replaced('in.txt",', 'other.txt",'), 'DATASET was "{folder}/other.txt" and is "{folder}/in.txt"'),
        (replaced('"step": 7', '"step": 8'), "step was 8 and is 7"),
    ],
)
def test_what_differs_is_said(output: Path, caplog: pytest.LogCaptureFixture, change: Change, difference: str) -> None:
    change(output)
    assert again(output) is None
    [message] = caplog.messages
    assert message.startswith(f"{output}: not skipped, since {difference.format(folder=output.parent)}")


def test_what_is_not_there_is_not_said_to_differ(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    output.unlink()
    assert again(output) is None
    assert not caplog.messages


# The commands


@pytest.fixture
def chain(redditgen: Redditgen, tmp_path: Path) -> Callable[..., "list[subprocess.CompletedProcess[str]]"]:
    """Runs all stages with --skip-existing, each with further options."""

    def run(**more: list[str]) -> "list[subprocess.CompletedProcess[str]]":
        return [
            redditgen(command, *arguments, *more.get(command, ()), "--skip-existing")
            for command, arguments in STAGES.items()
        ]

    return run


STAGES: dict[str, list[str]] = {
    "fetch": ["--top-subreddits", "3", "--per-subreddit", "40"],
    "encode": ["data/reddit_titles.csv", "--split", "val=0.2"],
    "tokenize": ["data/reddit_titles_encoded.txt"],
    "finetune": ["data/reddit_titles_encoded.txt", "--steps", "30", "--sample-every", "0", "--batch-size", "8"],
    "generate": ["-n", "5", "--out", "titles.jsonl", "--length", "20", "--prefix", ""],
    "decode": ["data/reddit_titles_encoded.txt", "--out", "decoded.csv"],
    "export": [],
    "evaluate": ["--val", "data/reddit_titles_encoded.val.txt", "-n", "40"],
}


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_every_stage_skips_what_is_there(
    chain: Callable[..., "list[subprocess.CompletedProcess[str]]"], tmp_path: Path
) -> None:
    assert [done.stderr for done in chain() if done.returncode] == []
    before = files(tmp_path)
    for done in chain():
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert all(line.endswith(": is there already, made of the same; skipped") for line in done.stderr.splitlines())
    after = files(tmp_path)
    assert after == before
    other = {"fetch": ["--min-length", "9"], "generate": ["--temperature", "0.8"], "finetune": ["--window", "99"]}
    refused = [done for done in chain(**other) if done.returncode]
    assert [done.returncode for done in refused] == [1, 1, 1]
    said = [done.stderr.splitlines() for done in refused]
    assert said[0][0] == "data/reddit_titles.csv: not skipped, since --min-length was 8 and is 9"
    assert said[0][1].startswith("redditgen: data/reddit_titles.csv: already exists; pass --overwrite")
    assert said[1][0] == "checkpoint/run1: not skipped, since --window was 256 and is 99"
    assert files(tmp_path) == before


def test_titles_for_the_terminal_are_nothing_to_skip(redditgen: Redditgen) -> None:
    for command in (["generate"], ["decode", "a.txt"]):
        done = redditgen(*command, "--skip-existing")
        assert done.returncode == 2
        assert done.stderr == "redditgen: --skip-existing: is about a file; name one with --out\n"


def test_the_hash_is_that_of_the_output(output: Path) -> None:
    import hashlib

    said = json.loads(sidecar_path(output).read_text())
    assert said["sha256"] == hashlib.sha256(b"out").hexdigest()
