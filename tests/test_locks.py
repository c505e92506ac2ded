"""Locks on folders: who holds one, and that none outlives its holder."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redditgen.errors import RedditgenError
from redditgen.locks import alone

HOLD = """
import sys
from pathlib import Path
from redditgen.locks import alone
with alone(Path(sys.argv[1]), "holding it"):
    print("held", flush=True)
    sys.stdin.read()
    Path(sys.argv[1], "done").touch()
"""


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
    with holder(tmp_path) as process, pytest.raises(RedditgenError) as raised, alone(tmp_path, "at it"):
        pass
    said = f"{tmp_path}: another redditgen (process {process.pid}) is at it; wait until it ends"
    assert str(raised.value) == said


def test_without_the_systems_list_it_is_said_without_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redditgen.locks._LOCKS", tmp_path / "absent")
    with holder(tmp_path), pytest.raises(RedditgenError) as raised, alone(tmp_path, "at it"):
        pass
    assert str(raised.value) == f"{tmp_path}: another redditgen is at it; wait until it ends"


def test_the_lock_of_a_killed_process_is_nobodys(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with alone(tmp_path, "at it"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_one_may_wait_for_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with holder(tmp_path) as process:
        assert process.stdin is not None
        waiting = "import sys, time; time.sleep(1)"
        with subprocess.Popen([sys.executable, "-c", waiting], stdout=process.stdin):
            process.stdin.close()
            with alone(tmp_path, "at it", wait=True):
                assert (tmp_path / "done").exists()
    [said] = caplog.messages
    assert said.endswith(" is at it; waiting until it is done")
