"""The sample posts that ship with redditgen: made by scripts/make-sample, marked synthetic, no real titles."""

import csv
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.support.paths import ROOT, SHARED_DATA

SAMPLE = ROOT / "data/sample_posts.parquet"
REAL = SHARED_DATA


def test_script_makes_the_committed_sample(tmp_path: Path) -> None:
    made = tmp_path / "sample.parquet"
    subprocess.run([sys.executable, ROOT / "scripts/make-sample", "--out", made], check=True, capture_output=True)
    differing = duckdb.execute(
        "SELECT count(*) FROM (FROM read_parquet(?) EXCEPT ALL FROM read_parquet(?))", [str(made), str(SAMPLE)]
    ).fetchone()
    assert differing == (0,)


def test_is_marked_synthetic_in_every_row_and_in_the_file() -> None:
    assert duckdb.execute("SELECT count(*), bool_and(synthetic) FROM read_parquet(?)", [str(SAMPLE)]).fetchone() == (
        10_000,
        True,
    )
    metadata = duckdb.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(SAMPLE)]).fetchall()
    assert (b"synthetic", b"true") in metadata


def test_no_title_is_a_real_one() -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real titles are not at {REAL}")
    ours = {
        title.casefold() for (title,) in duckdb.execute("SELECT title FROM read_parquet(?)", [str(SAMPLE)]).fetchall()
    }
    posts = duckdb.execute("SELECT title FROM read_parquet(?)", [str(REAL / "reddit_posts_2013.parquet")]).fetchall()
    with (REAL / "reddit_titles.csv").open(encoding="utf8") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    assert ours.isdisjoint(title.casefold() for title in [*titles, *(title for (title,) in posts)])
