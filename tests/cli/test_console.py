"""What a terminal, a pipe, a file and a closed stream get of real commands."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redditgen.titles.record import Record, build
from tests.support.fixture_types import Redditgen

LINE = [sys.executable, "-m", "redditgen"]
BARE = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
"""As cron has it: no HOME, no locale, no TERM."""


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    path = tmp_path / "encoded.txt"
    path.write_text((build(Record(category="cats", title="A nap")) + "\n") * 2, encoding="utf8")
    return path


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    path = tmp_path / "titles.csv"
    path.write_text("subreddit,title,tags\n" + "".join(f"cats,Nap {n},nap\n" for n in range(50)), encoding="utf8")
    return path


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `redditgen` is ours, with nothing else from the environment."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; redditgen() {{ {" ".join(LINE)} "$@"; }}; {command}'],
        cwd=folder, env={**BARE, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250,
    )  # fmt: skip


def on_terminal(arguments: list[str], folder: Path, **environment: str) -> str:
    """What a command writes to a terminal of its own."""
    reads, writes = pty.openpty()
    termios.tcsetwinsize(writes, (24, 80))  # a bar is as wide as that
    with subprocess.Popen(
        [*LINE, *arguments], cwd=folder, env={**os.environ, **environment}, stdin=writes, stdout=writes, stderr=writes
    ) as process:
        os.close(writes)
        shown = b"".join(_chunks(reads))
        os.close(reads)
    return f"{process.returncode}\n{shown.decode()}"


def _chunks(handle: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(handle, 4096)
        except OSError:  # how Linux says that nobody has the other end any more
            return
        if not chunk:
            return
        yield chunk


# Bars and lines.

ENCODE = ["encode", "titles.csv", "--keywords-field=tags", "--repeat=1", "--overwrite"]
ENCODED = re.compile(r"titles_encoded\.txt: 50 records of 50 titles in 1 categories, .*\n")


def test_a_bar_is_shown_on_a_terminal_alone(titles: Path, tmp_path: Path) -> None:
    shown = on_terminal(ENCODE, tmp_path)
    assert shown.startswith("0\n")
    assert re.search(r"\rencode: .*titles", shown)
    assert ENCODED.search(shown.replace("\r\n", "\n"))
    done = shell(f"redditgen {' '.join(ENCODE)}", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert ENCODED.fullmatch(done.stderr), done.stderr


def test_quiet_shows_no_bar_and_says_nothing(titles: Path, tmp_path: Path) -> None:
    assert on_terminal(["--quiet", *ENCODE], tmp_path) == "0\n"
    assert on_terminal([*ENCODE, "--quiet"], tmp_path) == "0\n"


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_nothing_is_coloured(titles: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    for arguments in (ENCODE, ["--help"], ["generate", "--help"], ["generate", "--nonsense"], ["generate"]):
        assert "\x1b" not in on_terminal(arguments, tmp_path, **environment)


# What is said: --quiet, --verbose, --log-json.


def test_quiet_leaves_warnings_and_errors(redditgen: Redditgen, encoded: Path) -> None:
    with encoded.open("a", encoding="utf8") as file:
        file.write("<|startoftext|>~@cut off")
    assert redditgen("decode", encoded, "--quiet").stderr == redditgen("--quiet", "decode", encoded).stderr
    assert redditgen("decode", encoded).stdout == redditgen("decode", encoded, "--quiet").stdout == "A nap\n" * 2
    assert redditgen("decode", "gone.txt", "--quiet").stderr.startswith("redditgen: gone.txt: no such file;")
    done = redditgen("--quiet", "decode", encoded, "--verbose")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "redditgen: --quiet and --verbose: say less, or say more; leave out one\n"


def test_verbose_says_what_was_chosen_and_when(redditgen: Redditgen, encoded: Path) -> None:
    done = redditgen("--verbose", "decode", encoded, "--out=titles.txt")
    assert done.returncode == 0
    assert all(re.match(r" *\d+\.\d{3} s  \S", line) for line in done.stderr.splitlines()), done.stderr
    assert re.search(r"s  redditgen [\d.]+, Python 3\.\d+", done.stderr)
    assert f's  decode: input "{encoded}" (command line), out "titles.txt" (command line)' in done.stderr
    assert "s  decode: done" in done.stderr


def test_other_libraries_speak_in_lines_of_ours(tmp_path: Path) -> None:
    code = (
        "import logging, sys, warnings; from redditgen.cli import console; from redditgen.settings import *\n"
        "console.open_streams(); console.set_up_logging(GeneralSettings(verbose='-v' in sys.argv))\n"
        "logging.getLogger('bakery').info('open'); logging.getLogger('bakery').warning('no\\n  bread')\n"
        "logging.getLogger('httpx').info('GET http://me:secret@here/x?key=1 (200 OK)')\n"
        "warnings.warn('no cake')"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"bakery: no bread\npy\.warnings: .*UserWarning: no cake.*\n", done.stderr), done.stderr
    done = subprocess.run([*run, "-v"], capture_output=True, text=True, timeout=60)
    assert re.match(r" *\d+\.\d{3} s  bakery: open\n", done.stderr), done.stderr
    assert "s  httpx: GET http://here/x (200 OK)\n" in done.stderr


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def test_messages_are_added_to_a_file_as_json(redditgen: Redditgen, titles: Path, tmp_path: Path) -> None:
    assert redditgen("--quiet", *ENCODE, "--log-json=logs/a.jsonl").stderr == ""
    [line] = logged(tmp_path / "logs/a.jsonl")
    assert ENCODED.fullmatch(line.pop("message") + "\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "info", "logger": "redditgen.encode.command"}
    done = redditgen("--log-json=logs/a.jsonl", "decode", "ünknown.txt")
    assert done.returncode == 1
    _, line = logged(tmp_path / "logs/a.jsonl")
    assert (line["level"], f"redditgen: {line['message']}\n") == ("error", done.stderr)
    redditgen("--verbose", "--log-json=logs/a.jsonl", "decode", "gone.txt")
    assert [line["level"] for line in logged(tmp_path / "logs/a.jsonl")] == ["info", "error", "debug", "debug", "error"]


@pytest.mark.parametrize(
    "line",
    [
        "decode --log-json logs/a.jsonl --zzz",
        "--log-json=logs/a.jsonl generate -n many",
        "--log-json logs/a.jsonl genrate",
        "decode --log-json=logs/a.jsonl",
        "decode x --quiet --verbose --log-json=logs/a.jsonl",
        "decode x --config=redditgen.toml --log-json=logs/a.jsonl",
        "generate -n 0 --log-json=logs/a.jsonl",
    ],
)
def test_what_is_wrong_with_a_command_line_is_in_the_file_that_it_names(
    redditgen: Redditgen, tmp_path: Path, line: str
) -> None:
    (tmp_path / "redditgen.toml").write_text("[decode]\nzzz = 1\n" if "--config" in line else "", encoding="utf8")
    done = redditgen(*line.split())
    assert done.returncode == 2
    [told] = logged(tmp_path / "logs/a.jsonl")
    assert (told["level"], f"redditgen: {told['message']}\n") == ("error", done.stderr)


@pytest.mark.parametrize(
    "line", ["decode --log-json", "decode --zzz --log-json", "decode --zzz -- --log-json=a", "-h --log-json=a"]
)
def test_no_log_is_made_that_is_not_named_or_not_needed(redditgen: Redditgen, tmp_path: Path, line: str) -> None:
    done = redditgen(*line.split())
    assert done.returncode == (0 if "-h" in line else 2)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cant_be_written_hides_no_wrong_command_line(redditgen: Redditgen) -> None:
    done = redditgen("decode", "--log-json=.", "--zzz")
    said = "redditgen: --zzz: no such option; see redditgen decode --help\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_log_that_cant_be_written_ends_no_work(redditgen: Redditgen, encoded: Path, tmp_path: Path) -> None:
    done = redditgen("--verbose", "--log-json=/dev/full", "decode", encoded)
    assert (done.returncode, done.stdout) == (0, "A nap\n" * 2)
    assert done.stderr.count("--log-json /dev/full: can't be written: [Errno 28] No space left on device") == 1
    assert "Traceback" not in done.stderr
    done = redditgen("--log-json=.", "decode", encoded)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "redditgen: .: can't be written: Is a directory\n"


# The other ends of standard output and error.

PRINTING = ["--version", "--help", "generate --help", "generate --print-config", "decode encoded.txt"]
PRINTING += ["fetch --review"]


@pytest.mark.parametrize("command", PRINTING)
def test_a_reader_that_is_gone_ends_a_command_without_a_word(encoded: Path, tmp_path: Path, command: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    line = [*LINE, "--quiet", *command.split()]
    done = subprocess.run(line, cwd=tmp_path, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_head_gets_what_it_wants_of_endless_titles(checkpoint_dir: Path, tmp_path: Path) -> None:
    asked = f"--run=trained --checkpoint-dir={checkpoint_dir} -n 1000000 --no-unique --no-novel --seed=1"
    done = shell(f"redditgen generate {asked} | head -n 1; echo ${{PIPESTATUS[*]}}", tmp_path)
    title, ended = done.stdout.splitlines()
    assert (bool(title), ended) == (True, "141 0")
    assert done.stderr == ""


@pytest.mark.parametrize("command", PRINTING)
@pytest.mark.parametrize(("place", "why"), [("> /dev/full", "No space left on device"), (">&-", "it is closed")])
def test_results_that_cant_be_written_are_an_error(
    encoded: Path, tmp_path: Path, command: str, place: str, why: str
) -> None:
    done = shell(f"redditgen {command} {place}", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"redditgen: standard output: can't be written: {why}"
    assert "Traceback" not in done.stderr


def test_with_all_streams_closed_outputs_are_written_whole(encoded: Path, titles: Path, tmp_path: Path) -> None:
    with encoded.open("a", encoding="utf8") as file:
        file.write("<|startoftext|>~@cut off")  # which is said
    done = shell("redditgen decode encoded.txt --out=o.txt <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "o.txt").read_text(encoding="utf8") == "A nap\n" * 2
    done = shell(f"redditgen {' '.join(ENCODE)} <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "titles_encoded.txt").read_text(encoding="utf8").count("\n") == 50
    assert shell("redditgen decode gone.txt <&- >&- 2>&-", tmp_path).returncode == 1


def test_messages_that_cant_be_written_are_lost_and_results_are_not(encoded: Path, tmp_path: Path) -> None:
    done = shell("redditgen --verbose decode encoded.txt 2> /dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (0, "A nap\n" * 2)
    done = shell("redditgen decode encoded.txt 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (0, "A nap\n" * 2)


def test_a_terminal_that_is_gone_ends_no_work(titles: Path, tmp_path: Path) -> None:
    reads, writes = pty.openpty()
    with subprocess.Popen([*LINE, *ENCODE], cwd=tmp_path, stdin=writes, stdout=writes, stderr=writes) as process:
        os.close(writes)
        os.close(reads)  # as an SSH session that drops does
    assert process.returncode == 0
    assert (tmp_path / "titles_encoded.txt").read_text(encoding="utf8").count("\n") == 50


# Under nohup, tee and cron.


def assert_plain(text: str) -> None:
    """Lines for a log: nothing moves the cursor, nothing comes from inside a library."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), text
    assert not re.search("Traceback|Warning|Errno", text), text


def test_logs_of_nohup_and_tee_are_plain(titles: Path, tmp_path: Path) -> None:
    command = " ".join(["redditgen", *ENCODE])
    assert shell(f"{command} 2>&1 | tee a.log > /dev/null", tmp_path).returncode == 0
    assert shell(f"nohup {' '.join(LINE)} {' '.join(ENCODE)} > b.log 2>&1", tmp_path).returncode == 0
    for name in ("a.log", "b.log"):
        text = (tmp_path / name).read_text(encoding="utf8").removeprefix("nohup: ignoring input\n")
        assert_plain(text)
        assert ENCODED.fullmatch(text)


def test_completion_that_cant_be_installed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    instead = "--show-completion prints what you may put where your shell reads it\n"
    done = shell("redditgen --install-completion", tmp_path, HOME=f"{tmp_path}/file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"redditgen: --install-completion: {tmp_path}/file: can't be written: File exists; {instead}"
    homeless = "from pathlib import Path; Path.home = lambda: Path('~no-such-user').expanduser()"
    argv = "import sys; sys.argv = ['', '--install-completion']"
    run = f"{homeless}; {argv}; from redditgen.cli.app import main; main()"
    done = shell(f'{sys.executable} -c "{run}"', tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"redditgen: --install-completion: no home folder is known; set HOME, or {instead}"


@pytest.mark.slow
def test_the_whole_chain_runs_under_cron(tmp_path: Path) -> None:
    for command, printed in (
        ("fetch --top-subreddits 5 --out titles.csv", 0),
        ("encode titles.csv --repeat 1", 0),
        ("finetune titles_encoded.txt --steps 2 --batch-size 4 --plot", 0),
        ("generate -n 2 --seed 1", 2),
        ("generate -n 2 --seed 1 --out titles.jsonl", 0),
        ("decode titles_encoded.txt", 90),
        ("evaluate --against titles_encoded.txt -n 4", 20),
        ("export --to ct2", 0),
        ("doctor", 10),
    ):
        done = shell(f"redditgen {command}", tmp_path)
        assert done.returncode == 0, done.stderr
        assert (len(done.stdout.splitlines()) >= printed) if printed else (done.stdout == "")
        assert_plain(done.stdout)
        assert_plain(done.stderr)


@pytest.mark.slow
def test_what_was_evaluated_is_kept_where_the_table_cant_be_printed(
    checkpoint_dir: Path, dataset: Path, tmp_path: Path
) -> None:
    asked = f"--run=trained --checkpoint-dir={checkpoint_dir} --against={dataset} --val-fraction=0.1 -n 4"
    done = shell(f"redditgen evaluate {asked} --out=e > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "redditgen: standard output: can't be written: No space left on device"
    assert sorted(path.name for path in (tmp_path / "e").glob("evaluation.*")) == ["evaluation.html", "evaluation.json"]
    done = shell(f"redditgen evaluate {asked} --out=f | true", tmp_path)
    assert done.returncode == 141
    assert (tmp_path / "f/evaluation.json").exists()
