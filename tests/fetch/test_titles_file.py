"""What goes in comes out: any text through every kind of file that is read and every kind that is written."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.errors import InputError
from redditgen.fetch import titles_file
from redditgen.fetch.command import fetch
from tests.support.posts import APRIL_2023, JSON, SOURCES, Post, expected, fetched, one_post, read_rows, setup_for

HOSTILE = [
    *(
        "<|startoftext|>~`cats~^a b~@title<|endoftext|>",
        "a, \"b\" and 'c'",
        '"',
        "'",
        '""',
        ";\t|",
        "\\",
        "\\n",
        "NULL",
    ),
    *("a\nb", "a\r\nb", "a\rb", "\n", "\r", "\r\n", " a ", "a\u2028b\u2029c\x85d", "a\x00b", "\x00", "\x1a", "\x7f"),
    *(
        "\u200fשלום\u202e abc\u202c",
        "\ufeffa",
        "\ufffd",
        "\ufffe",
        "\U0010ffff",
        "e\u0301",
        "👩‍🚀",
        "{}",
        "null",
        "#",
        "=1+1",
    ),
    *("&amp;lt;", "None", "0", "1e5", "true", "z" * 10_000_000, "é,\n" * 2_000_000),
]
# Halves of surrogate pairs, which UTF-8 does not have and JSON has as \ud83d, and what is read in their places.
HALVES = {
    "\ud83d": "\ufffd",
    "a\udc00b": "a\ufffdb",
    "\ude00\ud83d": "\ufffd\ufffd",
    "\ud83d\ud83d\ude00": "\ufffd😀",
    "\\\ud83d": "\\\ufffd",
    "\\ud83d": "\\ud83d",
}
QUERY = "SELECT id, title FROM `fh-bigquery.reddit_posts.posts` ORDER BY id\n"


def through(folder: Path, read: str, written: str, titles: list[str]) -> list[Any]:
    """The titles after a query without any cleaning, from one kind of file to another."""
    made: list[Post] = [one_post(id=f"{number:06}", title=title) for number, title in enumerate(titles)]
    SOURCES[read](folder / f"posts{read}", made)
    (folder / "own.sql").write_text(QUERY)
    setup = setup_for(folder, folder / f"posts{read}", sql=folder / "own.sql", out=f"titles{written}", overwrite=True)
    fetch(setup)
    rows = read_rows(setup.out)
    assert [id for id, _ in rows] == [post["id"] for post in made]
    return [title for _, title in rows]


@pytest.mark.parametrize("read", SOURCES)
@pytest.mark.parametrize("written", titles_file.SUFFIXES)
def test_hostile_titles(tmp_path: Path, read: str, written: str) -> None:
    halves = HALVES if read in JSON else {}
    assert through(tmp_path, read, written, [*HOSTILE, *halves]) == [*HOSTILE, *halves.values()]


@pytest.mark.slow
@pytest.mark.parametrize("read", SOURCES)
@pytest.mark.parametrize("written", [".csv", ".parquet", ".ndjson"])
def test_the_rules_clean_hostile_titles_alike_everywhere(tmp_path: Path, read: str, written: str) -> None:
    titles = [*HOSTILE, *(HALVES if read in JSON else ())]
    dated = [(title, date) for title in titles for date in (APRIL_2023 - 1, APRIL_2023)]
    made = [one_post(id=f"{place}", title=title, created_utc=date) for place, (title, date) in enumerate(dated)]
    SOURCES[read](tmp_path / f"posts{read}", made)
    setup = setup_for(
        tmp_path, tmp_path / f"posts{read}", out=f"titles{written}", min_length=1, per_subreddit=len(made)
    )
    rows = fetched(setup)
    assert rows == expected(made, setup)
    assert len(rows) > 30


@pytest.mark.parametrize("read", [".parquet", ".ndjson", ".csv", ".zst"])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), min_size=1, max_size=30))
@settings(max_examples=15, deadline=None)
def test_any_title(tmp_path_factory: pytest.TempPathFactory, read: str, titles: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for written in (".csv", ".parquet", ".ndjson"):
        assert through(folder, read, written, titles) == titles


@pytest.mark.parametrize("suffix", titles_file.SUFFIXES)
def test_values_of_other_types(tmp_path: Path, suffix: str) -> None:
    rows = [("a", None, True, 1, 1.5), ("b", "x\ry", None, None, None), (None, "", False, 2**53 + 1, -0.5)]
    columns = ("subreddit", "title", "over_18", "score", "ratio")
    assert titles_file.write_titles(tmp_path / f"x{suffix}", suffix, columns, iter(rows)) == (3, 3)
    if suffix == ".csv":
        assert (tmp_path / "x.csv").read_bytes().decode() == (
            'subreddit,title,over_18,score,ratio\na,,true,1,1.5\nb,"x\ry",,,\n,,false,9007199254740993,-0.5\n'
        )
    else:
        assert read_rows(tmp_path / f"x{suffix}") == rows


def test_parquet_types(tmp_path: Path) -> None:
    columns = ("score", "over_18", "title", "other", "when", "sum")
    rows = [(None, None, None, None, datetime.date(2019, 8, 1), Decimal("1.5"))] * 2
    titles_file.write_titles(tmp_path / "x.parquet", ".PARQUET", columns, rows)
    types = [str(field.type) for field in pq.read_schema(tmp_path / "x.parquet")]
    assert types == ["int64", "bool", "string", "string", "date32[day]", "decimal128(2, 1)"]


def test_a_column_of_several_types_is_refused_by_parquet_alone(tmp_path: Path) -> None:
    rows = [(1,)] * 20_000 + [("x",)]
    with pytest.raises(InputError, match=r"column mixed: .*CAST"):
        titles_file.write_titles(tmp_path / "x.parquet", ".parquet", ("mixed",), rows)
    with pytest.raises(InputError, match=r"column mixed: .*CAST"):
        titles_file.write_titles(tmp_path / "x.parquet", ".parquet", ("mixed",), [(1,), ("x",)])
    assert titles_file.write_titles(tmp_path / "x.ndjson", ".ndjson", ("mixed",), rows) == (0, 20_001)


def test_lines_end_alike_everywhere(tmp_path: Path) -> None:
    for suffix in (".csv", ".ndjson"):
        titles_file.write_titles(tmp_path / f"x{suffix}", suffix, ("title",), [("a",), ("b",)])
        assert b"\r" not in (tmp_path / f"x{suffix}").read_bytes()
