import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import InputError, OutputExists, RedditgenError
from redditgen.files.locks import delete_leftover_lock_folder
from redditgen.files.resume import ResumableOutput, resumable_output
from tests.support.paths import ROOT

MADE_OF = {"seed": 1, "input": "abc"}


def lines(step: int) -> list[tuple[int, str]]:
    return [(part, f"step {step} part {part} ä\n") for part in (0, 1)]


def write(outputs: list[Path], steps: int = 3, made_of: Any = MADE_OF, *, overwrite: bool = False) -> list[int]:
    """Write the steps that are not there yet and give their numbers."""
    done = []
    with resumable_output(outputs, made_of, overwrite=overwrite) as output:
        for step in range(output.steps, steps):
            output.write_step(lines(step), {"last": step})
            done.append(step)
        output.finish({"last": steps})
    return done


def killed(outputs: list[Path], code: str) -> None:
    """Run a block that ends itself by SIGKILL, in a process of its own."""
    program = f"""
import os, signal, sys
sys.path[:0] = {[str(ROOT)]!r}
from pathlib import Path
from redditgen.files import resume as module
from tests.files.test_resume import MADE_OF, lines, resumable_output
outputs = [Path(name) for name in {list(map(str, outputs))!r}]
def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
with resumable_output(outputs, MADE_OF, overwrite=False) as output:
{code}
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.fixture
def outputs(tmp_path: Path) -> list[Path]:
    return [tmp_path / "out.txt", tmp_path / "out.val.txt"]


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[bytes]:
    there = [tmp_path / "whole" / name for name in ("out.txt", "out.val.txt")]
    write(there)
    return [path.read_bytes() for path in there]


def test_outputs_appear_when_all_is_written(outputs: list[Path]) -> None:
    with resumable_output(outputs, MADE_OF, overwrite=False) as output:
        output.write_step(lines(0), {})
        assert not any(path.exists() for path in outputs)
        output.finish({})
    assert [path.read_text(encoding="utf8") for path in outputs] == ["step 0 part 0 ä\n", "step 0 part 1 ä\n"]
    assert sorted(outputs[0].parent.iterdir()) == sorted(outputs)


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("    kill()", [0, 1, 2]),
        ("    output.write_step(lines(0), {'last': 0}); kill()", [1, 2]),
        # In the middle of a step, with half of it in the file.
        (
            "    output.write_step(lines(0), {})\n"
            "    output._files[0].write(b'half a li'); output._files[0].flush(); kill()",
            [1, 2],
        ),
        ("    output.write_step(lines(0), {}); module._write_state = kill; output.write_step(lines(1), {})", [1, 2]),
    ],
)
def test_what_a_killed_process_wrote_is_gone_on_with(
    outputs: list[Path], undisturbed: list[bytes], code: str, left: list[int]
) -> None:
    killed(outputs, code)
    assert not any(path.exists() for path in outputs)
    assert write(outputs) == left
    assert [path.read_bytes() for path in outputs] == undisturbed


def test_a_kill_while_the_files_get_their_names_loses_nothing(outputs: list[Path], undisturbed: list[bytes]) -> None:
    code = """
    for step in range(3):
        output.write_step(lines(step), {})
    output.finish({"last": 3})
    replace = Path.replace
    def once(self, target):
        replace(self, target)
        if target.name == "out.val.txt":
            kill()
    Path.replace = once
"""
    killed(outputs, code)
    assert [path.exists() for path in outputs] == [False, True]
    with resumable_output(outputs, MADE_OF, overwrite=False) as output:
        assert output.is_complete
        assert output.facts == {"last": 3}
    assert [path.read_bytes() for path in outputs] == undisturbed


def test_the_names_are_on_the_disk_before_what_was_gone_on_with_is_deleted(
    outputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, list[bool]]] = []
    monkeypatch.setattr(
        "redditgen.files.resume.sync_to_disk",
        lambda path: synced.append((path, [output.exists() for output in outputs])),
    )
    folder = outputs[0].parent
    write(outputs, steps=1)
    part = folder / ".out.txt.partial"
    step = [part / "0", part / "1", part / "state.json.tmp", part]
    assert synced == [*((path, [False, False]) for path in (*step, *step[2:])), (folder, [True, True])]


@pytest.mark.parametrize("state", [None, "", "{", "[]", '{"made_of": 1}'])
def test_what_was_made_of_something_else_is_begun_anew(outputs: list[Path], state: str | None) -> None:
    killed(outputs, "    output.write_step([(0, 'other')], {}); kill()")
    if state is not None:
        (outputs[0].parent / ".out.txt.partial/state.json").write_text(state)
    assert write(outputs, made_of=MADE_OF if state is not None else {"seed": 2}) == [0, 1, 2]
    assert "other" not in outputs[0].read_text(encoding="utf8")


def test_existing_outputs_are_kept_unless_they_may_be_replaced(outputs: list[Path]) -> None:
    for path in outputs:
        path.write_text("mine")
        with pytest.raises(OutputExists, match=path.name):
            write(outputs)
        assert path.read_text() == "mine"
        assert list(path.parent.iterdir()) == [path]
        path.unlink()
    outputs[1].write_text("mine")
    write(outputs, overwrite=True)
    assert outputs[1].read_text(encoding="utf8").startswith("step 0")


def test_an_interruption_leaves_the_part_and_says_so(outputs: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt), resumable_output(outputs, MADE_OF, overwrite=False) as output:
        output.write_step(lines(0), {})
        raise KeyboardInterrupt
    assert "out.txt: not whole yet; the same command goes on with it" in caplog.text
    assert write(outputs) == [1, 2]


def test_an_interruption_behind_the_last_name_leaves_nothing_and_does_not_call_it_unfinished(
    outputs: list[Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = shutil.rmtree

    def interrupted(folder: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", delete)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(outputs)
    assert caplog.messages == []
    assert sorted(outputs[0].parent.iterdir()) == sorted(outputs)


def test_bad_input_leaves_nothing(outputs: list[Path]) -> None:
    with pytest.raises(InputError, match="line 7"), resumable_output(outputs, MADE_OF, overwrite=False) as output:
        output.write_step(lines(0), {})
        raise InputError("line 7")
    assert list(outputs[0].parent.iterdir()) == []


def test_a_full_disk_is_said_and_what_is_whole_stays(outputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(InputError, match=r"out\.txt: can't be written: No space left on device"),
        resumable_output(outputs, MADE_OF, overwrite=False) as output,
    ):
        output.write_step(lines(0), {"last": 0})
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            output.write_step(lines(1), {"last": 1})
    state = json.loads((outputs[0].parent / ".out.txt.partial/state.json").read_text())
    assert (state["steps"], state["facts"]) == (1, {"last": 0})
    assert write(outputs) == [1, 2]


def test_two_processes_do_not_write_the_same(outputs: list[Path]) -> None:
    with resumable_output(outputs, MADE_OF, overwrite=False) as output:
        with pytest.raises(RedditgenError, match=r"another redditgen .*is writing .*out\.txt"):
            write(outputs)
        assert isinstance(output, ResumableOutput)
        output.write_step(lines(0), {})
        output.finish({})
    assert outputs[0].read_text(encoding="utf8") == "step 0 part 0 ä\n"


def test_a_file_aside_is_there_for_going_on_and_deleted_at_the_end(outputs: list[Path]) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        resumable_output(outputs[:1], MADE_OF, overwrite=False, extra_files=1) as output,
    ):
        assert output.read(1) == ""
        output.write_step([(0, "title\n"), (1, "kéy\n")], {})
        output._files[1].write(b"cut off")
        raise ZeroDivisionError
    with resumable_output(outputs[:1], MADE_OF, overwrite=False, extra_files=1) as output:
        assert output.read(1) == "kéy\n"
        output.finish({})
    assert [path.name for path in outputs[0].parent.iterdir()] == [outputs[0].name]
    assert outputs[0].read_text(encoding="utf8") == "title\n"


def test_a_folder_that_was_left_behind_its_outputs_is_deleted_if_no_process_is_at_it(tmp_path: Path) -> None:
    output, folder = tmp_path / "out", tmp_path / ".out.partial"
    with resumable_output([output], MADE_OF, overwrite=False) as writing:
        writing.write_step([(0, "text")], {})
        delete_leftover_lock_folder(output)
        assert folder.exists()
    folder.mkdir()
    (folder / "state.json").write_text("{}", encoding="utf8")
    delete_leftover_lock_folder(output)
    delete_leftover_lock_folder(output)
    assert list(tmp_path.iterdir()) == [output]
