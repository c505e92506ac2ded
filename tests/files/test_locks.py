"""Locks on folders: who holds one, and that none outlives its holder."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redditgen.errors import InputError, RedditgenError
from redditgen.files.locks import exclusive_lock, locked_output
from tests.support.fixture_types import Redditgen

HOLD = """
import sys
from pathlib import Path
from redditgen.files.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "holding it"):
    print("held", flush=True)
    sys.stdin.read()
    Path(sys.argv[1], "done").touch()
"""

# A command that writes each kind of output, and its first file or its folder.
COMMANDS = {
    "fetch --from sample --overwrite --out new/titles.csv": "new/titles.csv",
    "decode DATASET --overwrite --out new/titles.jsonl": "new/titles.jsonl",
    "tokenize DATASET --model tiny --model-dir MODELS --overwrite --out new/tokens.npz": "new/tokens.npz",
    "evaluate --run trained --checkpoint-dir RUNS --against DATASET -n 5 --overwrite --out new": "new/evaluation.json",
    "export --run trained --checkpoint-dir RUNS --overwrite --out new/exported": "new/exported",
}


@contextmanager
def holder(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds a folder's lock until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a lock")
def test_who_holds_a_lock_is_said(tmp_path: Path) -> None:
    with holder(tmp_path) as process, pytest.raises(RedditgenError) as raised, exclusive_lock(tmp_path, "at it"):
        pass
    said = f"{tmp_path}: another redditgen (process {process.pid}) is at it; wait until it ends"
    assert str(raised.value) == said


def test_without_the_systems_list_it_is_said_without_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redditgen.files.locks._LOCKS", tmp_path / "absent")
    with holder(tmp_path), pytest.raises(RedditgenError) as raised, exclusive_lock(tmp_path, "at it"):
        pass
    assert str(raised.value) == f"{tmp_path}: another redditgen is at it; wait until it ends"


def test_the_lock_of_a_killed_process_is_nobodys(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with exclusive_lock(tmp_path, "at it"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_one_may_wait_for_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with holder(tmp_path) as process:
        assert process.stdin is not None
        waiting = "import sys, time; time.sleep(1)"
        with subprocess.Popen([sys.executable, "-c", waiting], stdout=process.stdin):
            process.stdin.close()
            with exclusive_lock(tmp_path, "at it", wait=True):
                assert (tmp_path / "done").exists()
    [said] = caplog.messages
    assert said.endswith(" is at it; waiting until it is done")


def test_a_lock_of_a_folder_that_its_last_holder_deleted_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened when the folder was still there, and locked when it no longer was."""
    opened = os.open

    def open_and_delete(path: Path, flags: int) -> int:
        handle = opened(path, flags)
        path.rmdir()
        return handle

    monkeypatch.setattr(os, "open", open_and_delete)
    (tmp_path / "folder").mkdir()
    for _ in ("deleted after it was opened", "and before"):
        with pytest.raises(RedditgenError) as raised, exclusive_lock(tmp_path / "folder", "at it"):
            pass
        assert str(raised.value) == f"{tmp_path}/folder: another redditgen is at it; wait until it ends"


def test_an_output_is_written_by_one_process_that_leaves_only_what_it_made(tmp_path: Path) -> None:
    out = tmp_path / "a/b/out"
    with locked_output(out), pytest.raises(RedditgenError) as raised, locked_output(out):
        pass
    assert str(raised.value).endswith(f" is writing {out}; wait until it ends")
    assert list(tmp_path.iterdir()) == []
    with locked_output(out):
        out.touch()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["out"]
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_leaves_an_output_alone_that_another_process_writes(
    command: str, dataset: Path, model_dir: Path, checkpoint_dir: Path, tmp_path: Path, redditgen: Redditgen
) -> None:
    named = {"DATASET": dataset, "MODELS": model_dir, "RUNS": checkpoint_dir}
    words = [named.get(word, word) for word in command.split()]
    out = tmp_path / COMMANDS[command]
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(parents=True)
    with holder(folder) as process:
        ended = redditgen(*words)
        assert list(out.parent.iterdir()) == [folder]
    said = f"is writing {COMMANDS[command]}; wait until it ends"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].endswith(said)
    assert sys.platform != "linux" or f"(process {process.pid})" in ended.stderr
    # What a kill leaves is nobody's.
    (folder / "done").unlink()
    assert redditgen(*words).returncode == 0
    assert out.exists()
    assert not folder.exists()
    # The same where there is nothing to do.
    folder.mkdir()
    again = redditgen(*words, "--skip-existing")
    assert (again.returncode, "skipped" in again.stderr) == (0, True)
    assert not folder.exists()


def test_a_folder_that_can_not_be_made_is_told_by_the_outputs_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file/titles.csv"
    with pytest.raises(InputError, match=f"^{re.escape(str(output))}: can't be written: "), locked_output(output):
        pass
