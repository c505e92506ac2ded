"""Every script says what it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPTS = [path for path in sorted((ROOT / "scripts").rglob("*")) if path.is_file() and os.access(path, os.X_OK)]


def test_all_scripts_are_found() -> None:
    names = {path.name for path in SCRIPTS}
    assert {"check", "demo", "install", "make-sample", "mutants", "overnight", "test", "encode.py"} <= names


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_says_what_a_script_does(script: Path, tmp_path: Path) -> None:
    is_python = script.read_text(encoding="utf8").startswith("#!/usr/bin/env python3")
    command: list[str | Path] = [*([sys.executable] if is_python else []), script, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) > 8
    assert ("usage: " in done.stdout) == is_python
    assert list(tmp_path.iterdir()) == []
