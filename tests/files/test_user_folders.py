import pwd
from pathlib import Path

import pytest

from redditgen.engines.gpt2simple import tf1_environment
from redditgen.errors import InputError
from redditgen.files import user_folders


def nobody_known(number: int) -> pwd.struct_passwd:
    raise KeyError(number)


def test_the_home_folder_is_put_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_folders.expand_home(Path("~/posts.csv")) == tmp_path / "posts.csv"
    assert user_folders.expand_home(Path("posts~.csv")) == Path("posts~.csv")
    assert user_folders.cache_folder() == tmp_path / ".cache/redditgen"


def test_without_a_home_folder_the_error_is_one_that_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "REDDITGEN_TF1_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody_known)
    with pytest.raises(InputError, match=r"^~/posts\.csv: no such home folder is known; set HOME, or give"):
        user_folders.expand_home(Path("~/posts.csv"))
    with pytest.raises(InputError, match=r"^no home folder is known, nor one for caches; set HOME or XDG_CACHE_HOME$"):
        tf1_environment.find_python()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folders.cache_folder() == tmp_path / "redditgen"
