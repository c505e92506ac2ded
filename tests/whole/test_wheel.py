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


# Each command with what it makes; every one of the program's commands is among them.
COMMANDS = {
    "fetch --from sample --top-subreddits 4 --per-subreddit 40": "data/reddit_titles.csv",
    "encode data/reddit_titles.csv --repeat 2": "data/reddit_titles_encoded.txt",
    "tokenize data/reddit_titles_encoded.txt": "data/reddit_titles_encoded.npz",
    "finetune data/reddit_titles_encoded.txt --steps 4 --sample-every 0": "checkpoint/run1/model-4.index",
    "generate -n 5 --seed 1 --temperature 0.9 --out new.jsonl": "new.jsonl",
    "decode data/reddit_titles_encoded.txt --out titles.txt": "titles.txt",
    "evaluate --against data/reddit_titles_encoded.txt -n 20": "checkpoint/run1/evaluation/evaluation.html",
    "export --to ct2": "exports/run1-ct2/model.bin",
    "doctor": "",
    "download 124M --base-url http://127.0.0.1:9": "",
}


@pytest.mark.slow
def test_all_commands_work_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    program = python.with_name("redditgen")

    def run(line: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program, *line.split()], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=200
        )

    listed = run("--help").stdout.partition("Commands:")[2].splitlines()
    names = {line.split()[0] for line in listed if line.startswith("  ") and not line.startswith("   ")}
    assert names == {line.split()[0] for line in COMMANDS}
    for line, made in COMMANDS.items():
        done = run(line)
        if line.startswith("download"):  # nobody listens on port 9
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
            assert done.stderr.splitlines()[-1].startswith("redditgen: http://127.0.0.1:9/models/124M/checkpoint: ")
            continue
        assert done.returncode == 0, done.stderr
        assert (tmp_path / made).exists()


@pytest.mark.slow
def test_mini_comes_along(python: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from redditgen.gpt2.find import find_model; "
        "model = find_model('mini', Path('models')); model.tensors(); model.tokenizer(); print(model.path)"
    )
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert Path(found.strip()).is_relative_to(python.parents[1])
