"""scripts/audit, with what pip-audit 2.10 says in its place: real advisories can't be had in tests."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

AUDIT = ROOT / "scripts/audit"
SKIPPED = (
    "No known vulnerabilities found\\nName Skip Reason\\nx Dependency not found on PyPI and could not be audited: x"
)
OFFLINE = "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed"
NONE = "No known vulnerabilities found"
FOUND = "Found 2 known vulnerabilities in 1 package\\nname 1.0 PYSEC-2022-42986 1.1"
LEFT_OUT = "Known vulnerabilities were not looked for: no advisories can be had from here.\n"


def audited(folder: Path, first: str, whole: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where pip-audit answers so for one package and for all, and fails unless it found none."""
    shutil.copytree(AUDIT.parent, folder / "scripts")
    (folder / "constraints.txt").write_text("certifi==1\nname==1.0\n", encoding="utf8")
    tool = folder / ".venv/bin/pip-audit"
    tool.parent.mkdir(parents=True)
    tool.write_text(
        '#!/bin/sh\nfor last in "$@"; do :; done\n'
        f'if grep -q name "$last"; then said="{whole}"; else said="{first}"; fi\n'
        'printf "$said\\n"\ncase $said in No*) ;; *) exit 1 ;; esac\n',
        encoding="utf8",
    )
    tool.chmod(0o755)
    return subprocess.run([folder / "scripts/audit"], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("first", [NONE, FOUND])
def test_a_version_that_is_known_to_be_vulnerable_fails_and_is_named(tmp_path: Path, first: str) -> None:
    done = audited(tmp_path, first, FOUND)
    assert (done.returncode, done.stdout) == (1, "")
    assert "name 1.0 PYSEC-2022-42986" in done.stderr


@pytest.mark.parametrize("whole", [NONE, SKIPPED])
def test_no_known_vulnerability_says_nothing(tmp_path: Path, whole: str) -> None:
    done = audited(tmp_path, NONE, whole)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("first", "whole"), [(SKIPPED, FOUND), (OFFLINE, FOUND), (NONE, OFFLINE)])
def test_where_nobody_can_be_asked_one_line_says_so(tmp_path: Path, first: str, whole: str) -> None:
    done = audited(tmp_path, first, whole)
    assert (done.returncode, done.stderr) == (0, LEFT_OUT)
