"""Queries of the user's own: --sql."""

import json
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.fetch.command import FetchCounts, fetch
from redditgen.fetch.sql.user_query import read_user_query
from redditgen.files import bundled
from redditgen.files.sidecar import sidecar_path
from redditgen.settings import FetchSettings
from tests.support.posts import Row, one_post, posts, read_rows, setup_for, write_ndjson, write_parquet

T = "`fh-bigquery.reddit_posts.2019_08`"
REPORTS_OWN = f"""
#standardSQL
WITH
  subreddits AS (
  SELECT subreddit FROM {T}
  WHERE score >= 5 AND subreddit NOT IN ("me_irl", "2meirl4meirl", "anime_irl", "furry_irl", "cursedimages")
  GROUP BY subreddit ORDER BY APPROX_COUNT_DISTINCT(author) DESC LIMIT 1000 )
SELECT
  subreddit,
  REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(title, '&amp;', '&'), '&lt;', '<'), '&gt;', '>'), '\\uFFFD', '') as title
FROM (
  SELECT subreddit, title, ROW_NUMBER() OVER (PARTITION BY subreddit ORDER BY score DESC) AS score_rank
  FROM {T} WHERE subreddit IN (SELECT subreddit FROM subreddits) )
WHERE score_rank <= 18
ORDER BY subreddit
"""  # noqa: E501  # as the report has it, but for line breaks


def own(folder: Path, sql: str, *sources: Path | str, **options: Any) -> FetchSettings:
    (folder / "own.sql").write_text(sql, encoding="utf8")
    return setup_for(folder, *sources, sql=folder / "own.sql", **options)


def ran(folder: Path, sql: str, posts: list[dict[str, Any]], **options: Any) -> list[Row]:
    write_ndjson(folder / "2019_08.ndjson", posts)
    setup = own(folder, sql, folder / "2019_08.ndjson", out="rows.ndjson", **options)
    fetch(setup)
    return read_rows(setup.out)


def notes(folder: Path, sql: str) -> list[str]:
    """The orders that are said to leave ties open."""
    setup = own(folder, sql, "sample")
    assert setup.sql
    return read_user_query(setup.sql, setup)[1]


def test_the_reports_own_query_on_the_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not bundled.path("data/sample_posts.parquet").exists():
        pytest.skip("data/sample_posts.parquet is not there; scripts/make-sample makes it")
    counts = fetch(own(tmp_path, REPORTS_OWN, "sample"))
    assert counts.titles == 18 * counts.subreddits > 0
    [note] = caplog.messages
    assert note.startswith(f"{tmp_path / 'own.sql'}: ties are open in: ORDER BY ")
    assert "ORDER BY APPROX_COUNT_DISTINCT(author) DESC" in note


def test_it_is_run_as_it_is_written(tmp_path: Path) -> None:
    made = [one_post(title=" &amp;  shit "), one_post(id="b", title=None, over_18=True)]
    assert ran(tmp_path, f"SELECT id, title FROM {T} ORDER BY id", made) == [("a1", " &amp;  shit "), ("b", None)]


def test_parameters_and_sidecar(tmp_path: Path) -> None:
    write_ndjson(
        tmp_path / "2019_08.ndjson", [one_post(), one_post(id="b", subreddit="cats"), one_post(id="c", score=4)]
    )
    sql = (
        f"SELECT id AS ids FROM {T} WHERE score >= @min_score AND LOWER(subreddit) NOT IN UNNEST(@block) ORDER BY id\n"
    )
    setup = own(tmp_path, sql, tmp_path / "2019_08.ndjson", block="Cats", sfw=False)
    assert fetch(setup) == FetchCounts(titles=1, subreddits=0)
    assert setup.out.read_text() == "ids\na1\n"
    sidecar = json.loads(sidecar_path(setup.out).read_text(encoding="utf8"))
    assert sidecar["sql"] == sql
    assert sidecar["parameters"] == {"min_score": 5, "block": ["cats"]}


def test_months_stand_in_for_the_reports_table(tmp_path: Path) -> None:
    for month in ("2018_12", "2019_01", "2019_02"):
        write_parquet(tmp_path / f"{month}.parquet", [one_post(id=month)])
    setup = own(tmp_path, f"SELECT id FROM {T} ORDER BY id", tmp_path, months="2019_01:2019_02")
    fetch(setup)
    assert read_rows(setup.out) == [("2019_01",), ("2019_02",)]


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT id FROM {T} ORDER BY score DESC, id",
        f"SELECT subreddit FROM {T} GROUP BY subreddit ORDER BY COUNT(*) DESC, subreddit LIMIT 3",
        f"SELECT MAX(score) AS best FROM {T}",
        f"SELECT COUNT(DISTINCT author) + 1 AS n FROM {T} LIMIT 1",
        f"SELECT subreddit, ROW_NUMBER() OVER (PARTITION BY subreddit ORDER BY id) AS n FROM {T} ORDER BY n, subreddit",
        f"SELECT subreddit, RANK() OVER (PARTITION BY subreddit ORDER BY score) AS n FROM {T} ORDER BY id",
        bundled.path("sql/titles.sql").read_text(encoding="utf8"),
    ],
)
def test_orders_without_ties(tmp_path: Path, sql: str) -> None:
    assert notes(tmp_path, sql) == []


@pytest.mark.parametrize(
    ("sql", "orders"),
    [
        (f"SELECT id FROM {T}", ["what has no ORDER BY"]),
        (f"SELECT id FROM {T} ORDER BY score DESC", ["ORDER BY score DESC"]),
        (f"SELECT id FROM (SELECT id FROM {T} LIMIT 3) ORDER BY id", ["what has no ORDER BY"]),
        (f"SELECT subreddit FROM {T} GROUP BY subreddit ORDER BY COUNT(*) LIMIT 3", ["ORDER BY COUNT(*)"]),
        (
            f"SELECT id, ROW_NUMBER() OVER (PARTITION BY subreddit ORDER BY score) AS n FROM {T} ORDER BY id",
            ["ORDER BY score"],
        ),
        (f"SELECT id, ROW_NUMBER() OVER () AS n FROM {T} ORDER BY id", ["what has no ORDER BY"]),
        (f"SELECT id FROM {T} UNION ALL SELECT id FROM {T}", ["what has no ORDER BY"]),
    ],
)
def test_orders_with_ties(tmp_path: Path, sql: str, orders: list[str]) -> None:
    assert notes(tmp_path, sql) == orders


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (f"DROP TABLE {T}", "one SELECT"),
        (f"SELECT id FROM {T}; SELECT 1 AS x", "one SELECT"),
        (f"CREATE TABLE x AS SELECT id FROM {T}", "one SELECT"),
        ("SELECT id FROM", "no BigQuery SQL"),
        ("", "one SELECT"),
        (f"SELECT * FROM {T} ORDER BY id", "need names"),
        (f"SELECT COUNT(*) FROM {T}", "need names"),
        (f"SELECT id, title AS ID FROM {T} ORDER BY id", "2 columns id"),
        (f"SELECT id FROM {T} WHERE score > @least ORDER BY id", "no parameter @least; there are @sfw"),
    ],
)
def test_queries_that_can_not_be(tmp_path: Path, sql: str, words: str) -> None:
    setup = own(tmp_path, sql, "sample")
    with pytest.raises(InputError, match=rf"own\.sql: .*{words}") as caught:
        fetch(setup)
    assert len(str(caught.value).splitlines()) == 1
    assert not setup.out.parent.exists()


@pytest.mark.parametrize(
    "options",
    [
        {"min_score": 9},
        {"top_subreddits": 3},
        {"per_subreddit": 3},
        {"min_length": 9},
        {"block": ""},
        {"words": Path()},
    ],
)
def test_option_that_the_query_does_not_use(tmp_path: Path, options: dict[str, Any]) -> None:
    setup = own(tmp_path, f"SELECT id FROM {T} WHERE @sfw ORDER BY id", "sample", **options)
    [name] = options
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(UsageError) as caught:
        fetch(setup)
    path = tmp_path / "own.sql"
    assert str(caught.value) == (f"{flag}: {path} does not use @{name}; write it into the query, or leave out {flag}")
    assert not setup.out.parent.exists()


def test_query_that_fails_or_gives_nothing(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "2019_08.ndjson", posts(seed=1, n=20))
    for sql, words in (
        (f"SELECT id FROM {T} WHERE FALSE ORDER BY id", "gives no rows"),
        (f"SELECT nope FROM {T}", 'can\'t be run: Binder Error: Referenced column "nope" not found'),
        ("SELECT id FROM `fh-bigquery.reddit_posts.2019_07`", "the local tables are 2019_08"),
    ):
        setup = own(tmp_path, sql, tmp_path / "2019_08.ndjson")
        with pytest.raises(InputError, match=words):
            fetch(setup)
        assert not setup.out.parent.exists()


def test_file_that_is_no_query(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"nope\.sql: no such file; --sql needs a file with a query$"):
        fetch(setup_for(tmp_path, "sample", sql=tmp_path / "nope.sql"))
    (tmp_path / "own.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"own\.sql: line 1, byte 1 \(0xff\) is not UTF-8; save the file as UTF-8$"):
        fetch(setup_for(tmp_path, "sample", sql=tmp_path / "own.sql"))
    with pytest.raises(UsageError, match="--review"):
        setup_for(tmp_path, "sample", sql=tmp_path / "own.sql", review=True)
