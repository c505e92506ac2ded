"""fetch from each kind of source, through the command line."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from arctic_shift_server import serving
from bigquery_emulator import Emulator
from conftest import Redditgen
from posts import expected, write_parquet
from posts import posts as reddit_posts

from redditgen.errors import UsageError
from redditgen.fetch import fetch
from redditgen.settings import FetchSettings

Setup = Callable[..., FetchSettings]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    def make(*source: Path | str, **changes: Any) -> FetchSettings:
        return FetchSettings(source=tuple(map(str, source)), out=tmp_path / "titles.csv", **changes)

    return make


def titles(path: Path) -> list[list[str]]:
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.reader(file))[1:]


def write_dump(path: Path, number: int = 300) -> None:
    lines = [json.dumps(post) for post in reddit_posts(1, number)]
    path.write_bytes(zstandard.ZstdCompressor().compress("\n".join(lines).encode("utf8", "surrogatepass")))


def test_a_dump_is_imported_once_and_then_read(setup: Setup, tmp_path: Path) -> None:
    write_dump(tmp_path / "RS_2019-08.zst")
    settings = setup(tmp_path / "RS_2019-08.zst")
    fetch(settings)
    first = settings.out.read_bytes()
    made = (tmp_path / "RS_2019-08.parquet").stat().st_mtime_ns
    settings.out.unlink()
    fetch(settings)
    assert settings.out.read_bytes() == first
    assert (tmp_path / "RS_2019-08.parquet").stat().st_mtime_ns == made


def test_a_dump_and_its_parquet_in_one_folder_are_one_source(setup: Setup, tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    write_dump(folder / "RS_2019-08.zst")
    fetch(setup(folder))
    once = json.loads((tmp_path / "titles.csv.meta.json").read_text(encoding="utf8"))["counts"]
    fetch(setup(folder, overwrite=True))
    assert json.loads((tmp_path / "titles.csv.meta.json").read_text(encoding="utf8"))["counts"] == once
    assert 250 < once["posts"] <= 300


def test_a_dump_without_scores_loses_no_post_by_them(setup: Setup, tmp_path: Path) -> None:
    lines = (json.dumps({"subreddit": "cats", "title": f"A title of a cat, {n}", "id": f"{n}"}) for n in range(9))
    (tmp_path / "own.zst").write_bytes(zstandard.ZstdCompressor().compress("\n".join(lines).encode()))
    assert fetch(setup(tmp_path / "own.zst", cache=tmp_path / "cache")).titles == 9
    assert (tmp_path / "cache/own.parquet").exists()


def test_posts_come_from_arctic_shift(setup: Setup, tmp_path: Path) -> None:
    posts = [
        {
            "id": f"a{n}",
            "subreddit": "cats",
            "title": f"Cat number {n} sleeps",
            "score": 9,
            "created_utc": 1704067200 + n,
        }
        for n in range(40)
    ]
    with serving(posts) as server:
        asked = setup(
            "arctic-shift", subreddit=("cats",), after="2024-01-01", limit=30, cache=tmp_path / "cache",
            base_url=server.url.replace("//", "//me:secret@"),
        )  # fmt: skip
        assert fetch(asked).titles == 18
    assert {subreddit for subreddit, _ in titles(asked.out)} == {"cats"}
    assert "secret" not in "".join(path.read_text(encoding="utf8") for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ("bigquery", "sample")}, "--from bigquery does not go with other sources"),
        ({"source": ("arctic-shift",)}, "--from arctic-shift needs --subreddit and --after"),
        ({"dry_run": True}, "--dry-run is for --from bigquery alone"),
        ({"job": "x"}, "--job is for --from bigquery alone"),
        ({"after": "2024-01-01"}, "--after is for --from arctic-shift alone"),
    ],
)
def test_options_of_another_source_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FetchSettings(**changes)


def test_bigquery_without_a_login_names_the_command(redditgen: Redditgen, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "redditgen", "fetch", "--from=bigquery", "--dry-run"],
        env={**os.environ, "HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "gcloud auth application-default login" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.bigquery
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bigquery_gives_the_titles_that_its_table_has(
    bigquery_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redditgen: Redditgen
) -> None:
    posts = reddit_posts(7, 600)
    write_parquet(tmp_path / "posts.parquet", posts)
    bigquery_emulator.load("2019_09", tmp_path / "posts.parquet")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    table = "--table=fh-bigquery.reddit_posts.2019_09"
    dry = redditgen("fetch", "--from=bigquery", "--project=someone", table, "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, ""), dry.stderr
    assert not (tmp_path / "data").exists()
    done = redditgen("fetch", "--from=bigquery", "--project=someone", table, "--out=t.csv")
    assert done.returncode == 0, done.stderr
    assert [tuple(row) for row in titles(tmp_path / "t.csv")] == [
        row[:2] for row in expected(posts, FetchSettings(source=("bigquery",)))
    ]
    assert "someone" not in (tmp_path / "t.csv.meta.json").read_text(encoding="utf8")
