import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from redditgen.errors import InputError
from redditgen.files.atomic import (
    atomic_folder,
    atomic_write,
    file_sha256,
    leftover_temporaries,
    refuse_unwritable,
    temporary_name,
    write_errors,
)

Whole = Callable[[Path], AbstractContextManager[Path]]


def fill(place: Path) -> None:
    """With a file, or in a folder one below another."""
    if place.is_dir():
        (place / "inner").mkdir()
        place /= "inner/file"
    place.write_text("new", encoding="utf8")


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf8") for path in files}


@pytest.mark.parametrize(("make", "name"), [(atomic_write, "a/b/out"), (atomic_folder, "a/b/out/inner/file")])
def test_an_output_has_its_name_when_the_block_ends(tmp_path: Path, make: Whole, name: str) -> None:
    with make(tmp_path / "a/b/out") as temporary:
        fill(temporary)
        assert not (tmp_path / "a/b/out").exists()
    assert content(tmp_path) == {name: "new"}
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["out"]


@pytest.mark.parametrize("make", [atomic_write, atomic_folder])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, make: Whole) -> None:
    (tmp_path / "out").write_text("old", encoding="utf8")
    with pytest.raises(ZeroDivisionError), make(tmp_path / "out") as temporary:
        fill(temporary)
        raise ZeroDivisionError
    assert content(tmp_path) == {"out": "old"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("make", [atomic_write, atomic_folder])
def test_what_can_not_be_written_is_one_line_and_leaves_nothing(tmp_path: Path, make: Whole) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf8")
    with pytest.raises(InputError, match=r"^\S*file/out: can't be written: \S[^\n]*$"), make(tmp_path / "file/out"):
        pass
    full = pytest.raises(InputError, match=r"^\S*/out: can't be written: No space left on device$")
    with full, make(tmp_path / "out") as temporary:
        fill(temporary)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert content(tmp_path) == {"file": "mine"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("make", "before"), [(atomic_write, 1), (atomic_folder, 3)])
def test_all_of_an_output_is_on_the_disk_before_it_has_its_name_and_the_name_then(
    tmp_path: Path, make: Whole, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file; or a folder, the one in it and the file in that."""
    named: list[bool] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        named.append((tmp_path / "out").exists())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with make(tmp_path / "out") as temporary:
        fill(temporary)
    assert named == [False] * before + [True]


def test_an_error_without_words_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/x: can't be written: odd$"), write_errors(tmp_path / "x"):
        raise OSError("odd")


def test_where_nothing_can_be_written_is_seen_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf8")
    for name in ("file/out.csv", "file/new/out.csv"):
        with pytest.raises(InputError, match=r"out\.csv: can't be written: .*/file is no folder; give another name"):
            refuse_unwritable(tmp_path / name)
    refuse_unwritable(tmp_path / "new/folder/out.csv")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(InputError, match=rf"can't be written: {tmp_path} may not be written to; give another folder"):
        refuse_unwritable(tmp_path / "new/folder/out.csv")
    assert content(tmp_path) == {"file": "mine"}


def test_what_a_killed_process_left_is_deleted_and_what_another_is_writing_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = by(tmp_path / "x.csv", ended.pid)
    left.mkdir()
    (left / "part").touch()
    by(tmp_path / "x.csv", os.getpid()).mkdir()  # by a process of the same number, as containers have them
    others = [
        by(tmp_path / "x.csv", os.getppid()),
        by(tmp_path / "y.csv", ended.pid),
        by(tmp_path / "x.csv.gz", ended.pid),
        tmp_path / ".x.csv.z.tmp",
        tmp_path / f".x.csv.mine.{ended.pid}.tmp",
    ]
    for other in others:
        other.touch()
    with atomic_write(tmp_path / "x.csv") as temporary:
        temporary.write_text("new")
    assert set(tmp_path.iterdir()) == {tmp_path / "x.csv", *others}


def by(path: Path, process: int) -> Path:
    """The temporary name that another process of this machine takes."""
    own = temporary_name(path)
    return own.with_name(own.name.replace(f".{os.getpid()}.", f".{process}."))


@pytest.mark.parametrize(("name", "namespace"), [("other", None), (None, "pid:[7]")])
def test_what_another_machine_may_be_writing_is_left_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, namespace: str | None
) -> None:
    """Its processes, and those of another container, are not to be found here, whatever their numbers."""
    with monkeypatch.context() as elsewhere:
        if name:
            elsewhere.setattr("platform.node", lambda: name)
        if namespace:
            elsewhere.setattr(Path, "readlink", lambda path: Path(namespace or ""))
        theirs = temporary_name(tmp_path / "x.csv")
    folder = theirs.with_name(theirs.name.replace(".x.", ".y."))
    theirs.touch()
    folder.mkdir()
    (folder / "part").touch()
    a_week_ago = time.time() - 7.1 * 86_400
    os.utime(folder, (a_week_ago, a_week_ago))  # since when it gets no more files, but more in the one that it has
    for path in (tmp_path / "x.csv", tmp_path / "y.csv"):
        with atomic_write(path) as temporary:
            temporary.touch()
    assert {theirs, folder} < set(tmp_path.iterdir())
    for path in (theirs, folder / "part"):
        os.utime(path, (a_week_ago, a_week_ago))
    assert leftover_temporaries(tmp_path / "x.csv") == [theirs]
    assert leftover_temporaries(tmp_path / "y.csv") == [folder]


def test_what_can_not_be_read_has_no_hash(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "absent", "No such file or directory")):
        with pytest.raises(InputError, match=rf"^{path}: can't be read: {why}; check the path and who may use it$"):
            file_sha256(path)
