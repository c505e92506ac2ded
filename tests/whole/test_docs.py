"""The commands that README and docs show, each run in the order it stands there, in a folder of the page's own.

A command that neither runs nor is named with a reason in NOT_RUN fails. Where a page shows what a command says, that
is what it says, but for what VARIES; where commands take long, SHORTER or USUAL has them do less.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from redditgen.cli import config_file
from redditgen.gpt2.model_dir import ModelDir
from redditgen.hub.download import MAX_FILE_BYTES
from tests.support.arctic_shift_server import ArcticShift
from tests.support.bigquery_emulator import PROJECT, Emulator
from tests.support.local_server import serving
from tests.support.model_mirror import Mirror
from tests.support.paths import ROOT
from tests.support.posts import posts, write_ndjson, write_parquet

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    r"scripts/(demo|test)\b": "the first is the page's own commands again, the second runs this very test",
    r"scripts/overnight": "tests/test_overnight.py runs them",
    r"scripts/bench/keywords.py": "it needs the report's listing",
    r"pip install": "it asks the network; tests/test_wheel.py installs offline",
    r"gcloud ": "Google's own program",
    r"redditgen --install-completion": "it asks which shell has called it; tests/test_cli.py tries what it installs",
}
SHORTER = {
    r"--steps \d+": "--steps 5",
    r"^steps = \d+": "steps = 5",
    r"-n 100\b": "-n 5",
    r"^n = 20": "n = 5",
    r"^per-subreddit = \d+": "per-subreddit = 5",
}
USUAL: dict[str, dict[str, Any]] = {
    # A page fetches from one source after another, to the same file.
    "fetch": {"overwrite": True},
    "encode": {"overwrite": True},
    "finetune": {"steps": 5, "batch-size": 4, "val-every": 0, "sample-every": 0, "memory": "4GB"},
    "evaluate": {"n": 20},
}
VARIES = {
    r"\d+ s$": "time",
    r"^plan: .*": "memory, and how the CPU computes",
    r"^\[\d+ \| .*": "steps, losses and speed",
    r"^\.\.\.$": "left out",
}
"""What a line says otherwise each time, and why."""

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Block:
    place: str
    kind: str
    text: str

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each with the lines that the page shows below it."""
        if self.kind == "sh":
            return [(line.split("  #")[0].strip(), []) for line in self.text.splitlines() if line.strip()]
        commands: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            elif line.strip():
                commands[-1][1].append(line)
        return commands


def blocks(page: Path) -> Iterator[Block]:
    """Its fenced blocks; "" for a heading, at which what a block of TOML says comes to its end."""
    fence, kind, lines = None, "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf8").splitlines(), start=1):
        found = re.match(r"( *)```(\w*)$", line)
        if found and fence is None:
            fence, kind, lines = found[1], found[2], []
        elif found:
            yield Block(f"{page.name}:{number - len(lines)}", kind or "text", "\n".join(lines))
            fence = None
        elif fence is not None:
            lines.append(line.removeprefix(fence))
        elif line.startswith("#"):
            yield Block(f"{page.name}:{number}", "heading", line)


def shown(page: Path) -> Iterator[tuple[str, str, list[str]]]:
    """The page's commands, each with its place and the lines below it."""
    for block in blocks(page):
        if block.kind in ("sh", "console"):
            for command, said in block.commands():
                yield block.place, command, said


def is_run(command: str) -> bool:
    return not any(re.match(pattern, command) for pattern in NOT_RUN)


def asks_bigquery(command: str) -> bool:
    return "--from bigquery" in command


def shortened(text: str) -> str:
    for pattern, instead in SHORTER.items():
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def test_every_block_is_of_a_known_kind() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.kind in ("sh", "console", "toml", "text", "heading"), block.place
            if block.kind == "text":
                assert not re.search(r"^(\$|redditgen|pip) ", block.text, flags=re.MULTILINE), block.place


def test_nothing_is_left_out_that_no_page_shows() -> None:
    commands = [command for page in PAGES for _, command, _ in shown(page)]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command) for command in commands), pattern
    for pattern in SHORTER:
        assert any(re.search(pattern, page.read_text(encoding="utf8"), flags=re.MULTILINE) for page in PAGES), pattern


# --- what the commands find ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files that the pages take for granted."""
    some = posts(7, 300)
    write_parquet(tmp_path / "posts.parquet", some)
    (tmp_path / "dumps").mkdir()
    for month in ("2017-01", "2019-01"):
        write_parquet(tmp_path / f"dumps/RS_{month}.parquet", some)
    for month in ("2017-02", "2019-02"):
        _write_dump(tmp_path / f"dumps/RS_{month}.zst", some)
    _write_dump(tmp_path / "RS_2019-08.zst", some)
    titles = [f"What did you {verb} in the {place}?" for verb in ("see", "learn", "lose") for place in _PLACES]
    (tmp_path / "SFW.askreddit_titles.csv").write_text("".join(f"{title}\n" for title in titles), encoding="utf8")
    rows = "".join(f"{place},{title}\n" for place in ("plants", "weather") for title in titles)
    (tmp_path / "my_titles.csv").write_text(f"flair,headline\n{rows}", encoding="utf8")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


_PLACES = [
    f"{colour} {what}" for colour in ("old", "green", "quiet") for what in ("garden", "rain", "school", "harbour")
]


def _write_dump(path: Path, some: list[dict[str, Any]]) -> None:
    lines = path.with_suffix(".ndjson")
    write_ndjson(lines, some)
    path.write_bytes(zstandard.ZstdCompressor().compress(lines.read_bytes()))
    lines.unlink()


@pytest.fixture
def servers(tiny: ModelDir, no_proxy: None) -> Iterator[dict[str, str]]:
    """The addresses of Arctic Shift's and OpenAI's stand-ins, by what a command for each begins with."""
    files = {path.name: path.read_bytes() for path in tiny.path.iterdir() if path.name in MAX_FILE_BYTES}
    seen = [
        {"id": f"p{number}", "subreddit": name, "title": f"Title {number} of {name}", "author": "a", "score": number}
        | {"created_utc": 1704067200 + number}
        for name in ("cats", "AskReddit")
        for number in range(40)
    ]
    mirror = serving(Mirror(files | {"model.ckpt.meta": b"a graph that nobody reads"}))
    with mirror as models, serving(ArcticShift(seen)) as subreddits:
        yield {"redditgen fetch --from arctic-shift": subreddits.url, "redditgen download": models.url}


@pytest.fixture
def run(folder: Path) -> Run:
    """Runs a command in the folder with bash; what it says on standard error stands before its results."""
    programs = folder / ".programs"
    programs.mkdir()
    for name, arguments in (("redditgen", "-m redditgen "), ("python3", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n', encoding="utf8")
        (programs / name).chmod(0o755)

    def run_it(command: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
        shell = ["bash", "-c", command]
        return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)

    return run_it


# --- running them ---


def put_usual(folder: Path) -> None:
    tables = [
        f"[{name}]\n" + "".join(f"{key} = {config_file.to_toml(value)}\n" for key, value in options.items())
        for name, options in USUAL.items()
    ]
    (folder / "redditgen.toml").write_text("\n".join(tables), encoding="utf8")


def run_page(page: Path, folder: Path, run: Run, servers: dict[str, str]) -> None:
    put_usual(folder)
    for block in blocks(page):
        if block.kind == "heading":
            put_usual(folder)
        elif block.kind == "toml":
            (folder / "redditgen.toml").write_text(shortened(block.text), encoding="utf8")
        elif block.kind != "text":
            for command, said in block.commands():
                if is_run(command) and not asks_bigquery(command):
                    address = next((url for start, url in servers.items() if command.startswith(start)), "")
                    given = f"{shortened(command)} --base-url {address}" if address else shortened(command)
                    check(block.place, run(given), said)


def check(place: str, done: "subprocess.CompletedProcess[str]", said: list[str]) -> None:
    command = f"{place}: {done.args[-1]}"
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if not said:
        return
    if " generate " in command and "--print-config" not in command:  # what a model writes is its own
        assert len(done.stdout.splitlines()) == len(said), command
        return
    patterns = [_pattern(line) for line in shortened("\n".join(said)).splitlines()]
    lines = (done.stderr + done.stdout).splitlines()
    wanted = [pattern for pattern in patterns if pattern]
    assert len([line for line in lines if any(re.fullmatch(pattern, line) for pattern in wanted)]) == len(wanted), (
        f"{command}\nshown: {said}\nsaid: {lines}"
    )


def _pattern(line: str) -> str:
    """What a line that is shown looks like each time; empty where that is anything."""
    if any(re.fullmatch(pattern, line) for pattern in VARIES):
        return ""
    return re.sub(r"\d+ s$", r"\\d+ s", re.escape(line).replace(r"\ ", " "))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page: Path, folder: Path, run: Run, servers: dict[str, str]) -> None:
    if page.name == "troubleshooting.md":  # it is about what others have made
        assert run("redditgen fetch --per-subreddit 5").returncode == 0
    run_page(page, folder, run, servers)


@pytest.mark.slow
@pytest.mark.bigquery
@pytest.mark.timeout(900)
def test_the_commands_for_bigquery_ask_it(
    folder: Path, run: Run, bigquery_emulator: Emulator, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bigquery_emulator.load("2019_08", folder / "posts.parquet")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    put_usual(folder)
    asked = [command for page in PAGES for _, command, _ in shown(page) if asks_bigquery(command)]
    assert len(asked) > 2
    for command in asked:
        done = run(command.replace("YOUR-PROJECT", PROJECT))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "BigQuery" in done.stderr


# --- messages ---


def test_the_messages_in_troubleshooting_are_those_of_the_code() -> None:
    said = [part.strip(" :;,.()%`") for path in (ROOT / "src").rglob("*.py") for part in _texts(path)]
    long_enough = [part for part in said if len(part) > 9]
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf8")
    headings = re.findall(r"^\*\*(.*)\*\*\\?$", page, flags=re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading) if " " in message]
    assert len(messages) > 25
    for message in messages:
        assert any(part in message or message in part for part in long_enough), message


def _texts(path: Path) -> Iterator[str]:
    """The texts in a module, those around the values in them each by itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.split(r"%[a-z0-9.]+", node.value.replace("`", ""))
