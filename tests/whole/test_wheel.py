"""The wheel: installed outside the checkout it has everything that the commands need."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of a new environment with the wheel in it, and the dependencies of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    [packages] = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_commands_work_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    command = python.with_name("redditgen")
    help_text = subprocess.run([command, "--help"], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert "finetune" in help_text
    subprocess.run([command, "fetch", "--from", "sample"], check=True, capture_output=True, cwd=tmp_path)
    assert (tmp_path / "data/reddit_titles.csv").read_text(encoding="utf8").startswith("subreddit,title\n")


@pytest.mark.slow
def test_mini_comes_along(python: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from redditgen.gpt2.find import find_model; "
        "model = find_model('mini', Path('models')); model.tensors(); model.tokenizer(); print(model.path)"
    )
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert Path(found.strip()).is_relative_to(python.parents[1])
