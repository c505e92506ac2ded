"""The local files that --from names, their columns and their months."""

import gzip
import os
from pathlib import Path
from typing import Any

import duckdb
import pytest

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.fetch.command import fetch
from redditgen.fetch.local import files
from redditgen.fetch.local.files import find_posts_files
from redditgen.files import bundled
from tests.support.posts import (
    WRITERS,
    expected,
    fails,
    fetched,
    gzipped,
    left_out,
    one_post,
    posts,
    read_rows,
    setup_for,
    write_csv,
    write_ndjson,
    write_parquet,
)


def test_several_sources_are_one(tmp_path: Path) -> None:
    made = posts(seed=4)
    (tmp_path / "month").mkdir()
    write_parquet(tmp_path / "month" / "a.parquet", made[:800])
    gzipped(write_csv)(tmp_path / "month" / "b.csv.gz", made[800:1600])
    write_ndjson(tmp_path / "month" / "b.csv.meta.json", [{"not": "posts"}])
    write_ndjson(tmp_path / "c1.jsonl", made[1600:2000])
    write_ndjson(tmp_path / "c2.jsonl", made[2000:])
    setup = setup_for(tmp_path, tmp_path / "month", tmp_path / "c?.jsonl", tmp_path / "c1.jsonl")
    assert fetched(setup) == expected(made, setup)
    assert [file.table for file in find_posts_files(setup.source)] == ["a", "b", "c1", "c2"]


def test_a_path_is_not_a_pattern_to_duckdb(tmp_path: Path) -> None:
    write_csv(tmp_path / "it's [1] of *.csv", [one_post(title="This one it is")])
    write_csv(tmp_path / "it's 1 of 2.csv", [one_post(title="It is not this one")])
    assert fetched(setup_for(tmp_path, tmp_path / "it's [1] of *.csv")) == [("aww", "This one it is")]


def test_columns_of_other_types_names_and_order(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text(
        "\ufeffTitle,over_18,column 0, Score,SUBREDDIT,title\r\n"
        "Cat one is here,False,x,5.0,aww,other\r\nCat two is here,1,x,7,aww,other\r\nCat three,,x,,aww,other\r\n",
        encoding="utf8",
    )
    assert fetched(setup_for(tmp_path, tmp_path / "posts.csv")) == [("aww", "Cat one is here"), ("aww", "Cat three")]
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'aww' AS Subreddit, 'A cat, asleep' AS title, 7::UTINYINT AS score, 'false' AS over_18, "
            f"12 AS id) TO '{tmp_path / 'posts.parquet'}'"
        )
    assert fetched(setup_for(tmp_path, tmp_path / "posts.parquet", overwrite=True)) == [("aww", "A cat, asleep")]


@pytest.mark.parametrize("written", [1546300800, "1546300800", 1546300800.0, "2019-01-01", "2019-01-01T02:00:00+02:00"])
def test_forms_of_a_date(tmp_path: Path, written: Any) -> None:
    made = [one_post(created_utc=written), one_post(id="b", title="Another cat", created_utc=None)]
    for suffix in (".csv", ".ndjson"):
        WRITERS[suffix](tmp_path / f"posts{suffix}", made)
        setup = setup_for(
            tmp_path, tmp_path / f"posts{suffix}", overwrite=True, out="titles.ndjson", columns="created_utc"
        )
        assert fetched(setup) == [(1546300800,), (None,)]


@pytest.mark.parametrize("type", ["DATE", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMPTZ"])
def test_dates_of_parquet(tmp_path: Path, type: str) -> None:
    path = tmp_path / "posts.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        title = "SELECT 'aww' AS subreddit, 'A cat, asleep' AS title"
        connection.execute(f"COPY ({title}, '2019-01-01'::{type} AS created_utc) TO '{path}'")
    assert fetched(setup_for(tmp_path, path, columns="created_utc")) == [("1546300800",)]


def test_flags_that_the_first_lines_lack(tmp_path: Path) -> None:
    made = [one_post(id=f"{number:04}", title=f"A cat, asleep {number}") for number in range(1200)]
    write_ndjson(tmp_path / "posts.ndjson", [*made, one_post(promoted=True, score=99)])
    assert fetch(setup_for(tmp_path, tmp_path / "posts.ndjson")).left_out["promoted"] == 1


# --- --map ---


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_with_other_names(tmp_path: Path, suffix: str) -> None:
    made = [
        {"headline": "A cat, asleep", "category": "pets", "title": "Dr", "likes": 7},
        {"headline": "A dog, awake", "category": "pets", "title": "Mr", "likes": 9},
    ]
    writers = {**WRITERS, ".parquet": _write_parquet_of_any_columns}
    writers[suffix](tmp_path / f"posts{suffix}", made)
    mapping = ("title=headline", "subreddit = category", "score=likes")
    setup = setup_for(tmp_path, tmp_path / f"posts{suffix}", mapping=mapping, columns="subreddit,title,score")
    assert fetched(setup) == [("pets", "A dog, awake", "9"), ("pets", "A cat, asleep", "7")]


def _write_parquet_of_any_columns(path: Path, made: Any) -> None:
    write_ndjson(path.with_suffix(".tmp"), made)
    duckdb.execute(f"COPY (FROM read_json('{path.with_suffix('.tmp')}')) TO '{path}'")


def test_a_column_with_another_name_is_no_longer_what_its_own_says(tmp_path: Path) -> None:
    write_csv(tmp_path / "posts.csv", [{"subreddit": "aww", "title": "Mr", "url": "A cat, asleep"}])
    setup = setup_for(tmp_path, tmp_path / "posts.csv", mapping=("title=url",))
    assert fetched(setup) == [("aww", "A cat, asleep")]
    with pytest.raises(InputError, match="no column url"):
        fetch(setup_for(tmp_path, tmp_path / "posts.csv", mapping=("title=url",), columns="url", overwrite=True))


@pytest.mark.parametrize("mapping", [("title",), ("=x",), ("title=",), ("name of=x",), ("title=a", "title=b")])
def test_mapping_that_says_nothing(mapping: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--map"):
        files.parse_mapping(mapping)
    with pytest.raises(UsageError, match="a second time"):
        files.parse_mapping(("title=a", "author=a"))


# --- --months ---


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("2017_01.parquet", "2017_01"),
        ("RS_2017-01.ndjson.gz", "2017_01"),
        ("reddit_posts_2017_01.csv", "2017_01"),
        ("2017-01-15.csv.gz", "2017_01"),
        ("full_corpus_201509.csv", "full_corpus_201509"),
        ("2017_13.csv", "2017_13"),
        ("12017_01.csv", "12017_01"),
        ("Cats & dogs.of *.jsonl", "Cats _ dogs_of _"),
    ],
)
def test_names_of_tables(tmp_path: Path, name: str, table: str) -> None:
    (tmp_path / name.removesuffix(".gz")).write_text(
        "title,subreddit\n" if ".csv" in name else '{"title": 1, "subreddit": 2}'
    )
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress((tmp_path / name.removesuffix(".gz")).read_bytes()))
    if name.endswith(".parquet"):
        write_parquet(path, [one_post()])
    assert [file.table for file in find_posts_files([str(path)])] == [table]


def test_only_the_months_files_are_looked_at(tmp_path: Path) -> None:
    for month in ("2018_12", "2019_01", "2019-02", "2019_03"):
        write_ndjson(tmp_path / f"{month}.ndjson", [one_post(id=month, title=f"A cat of {month}", subreddit=month)])
    (tmp_path / "2018_12.ndjson").write_text("broken")
    (tmp_path / "other.ndjson").write_text("broken")
    titles = fetched(setup_for(tmp_path, tmp_path, months="2019_01:2019_02"))
    assert titles == [("2019-02", "A cat of 2019-02"), ("2019_01", "A cat of 2019_01")]
    assert fetched(setup_for(tmp_path, tmp_path, months="2019-03", overwrite=True)) == [("2019_03", "A cat of 2019_03")]


def test_months_that_no_file_has(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post()])
    fails(setup_for(tmp_path, tmp_path, months="2019_01"), InputError, "2019_01 to 2019_01", "RS_2019-08.parquet")
    write_ndjson(tmp_path / "2018_12.ndjson", [one_post()])
    fails(setup_for(tmp_path, tmp_path, months="2019_01"), InputError, "there are 2018_12 to 2018_12", "--months")
    fails(setup_for(tmp_path, tmp_path, months="January"), UsageError, "--months")
    fails(setup_for(tmp_path, tmp_path, months="2019_02:2019_01"), UsageError, "--months")


# --- what can go wrong ---


def test_sample_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "path", lambda name: tmp_path / name)
    with pytest.raises(MissingError, match="make-sample"):
        find_posts_files(["sample"])


def test_source_that_is_not_there(tmp_path: Path) -> None:
    fails(setup_for(tmp_path, tmp_path / "nope.csv"), InputError, "nope.csv", "no such file", "--from")
    fails(setup_for(tmp_path, tmp_path / "*.csv"), InputError, "*.csv", "no file matches")
    fails(setup_for(tmp_path, "https://example.org/posts.csv"), InputError, "no such file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme.txt").write_text("")
    fails(setup_for(tmp_path, tmp_path / "folder"), InputError, "folder", "*.ndjson")


@pytest.mark.parametrize("name", ["posts.txt", "posts.parquet.gz", "posts"])
def test_kind_of_file_that_is_not_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("subreddit,title\naww,cat\n")
    fails(setup_for(tmp_path, tmp_path / name), InputError, name, "*.parquet")


CSV_HEADER = b"subreddit,title,score\n"
LATIN = b"aww,caf\xe9,5\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"", ["Parquet"]),
        ("a.parquet", b"this is not a Parquet file", ["Parquet"]),
        ("a.csv", b"", ["empty", "header"]),
        ("a.csv", b"subreddit,name\naww,cat\n", ["no column 'title'", "subreddit, name", "--map title=COLUMN"]),
        ("a.csv", b"subreddit;title\naww;cat\n", ["no column 'subreddit'", "subreddit;title"]),
        ("a.csv", CSV_HEADER, ["no posts"]),
        ("a.csv", CSV_HEADER + b"aww,cat,5\naww,dog\n", ["Line: 3", "aww,dog"]),
        ("a.csv", CSV_HEADER + b"aww,cat,five\n", ["Line: 2", "score", "five"]),
        ("a.csv", CSV_HEADER + b'aww,cat,5\naww,"never closed,5\naww,dog,5\n', ["Line: 3", "unterminated quote"]),
        ("a.csv", CSV_HEADER + LATIN, ["a.csv: line 2, byte 8 (0xe9) is not UTF-8; save the file as UTF-8"]),
        ("a.csv", CSV_HEADER + b"aww,cat,5\n" * 100_000 + LATIN, ["a.csv: line 100002, byte 8 (0xe9) is not UTF-8"]),
        ("a.csv.gz", gzip.compress(CSV_HEADER + LATIN, mtime=0), ["line 2, byte 8 (0xe9) is not UTF-8; save the file"]),
        ("a.csv", "subreddit,title\naww,cat\n".encode("utf-16"), ["a.csv: line 1, byte 1 (0xff) is not UTF-8"]),
        ("a.csv.gz", b"subreddit,title\naww,cat\n", ["CSV"]),
        ("a.csv.gz", gzip.compress(b"subreddit,title\n" + b"aww,cat\n" * 9000, mtime=0)[:-20], ["a.csv.gz"]),
        ("a.csv.gz", gzip.compress(CSV_HEADER + b'aww,cat,5\naww,"never closed,5\n', mtime=0), ["unterminated quote"]),
        ("a.ndjson", b"", ["empty"]),
        ("a.ndjson", b'{"subreddit": "aww"}\n', ["no column 'title'", "subreddit"]),
        ("a.ndjson", b'[{"subreddit": "aww", "title": "cat"}]\n', ["line 1", "a line"]),
        ("a.ndjson", b"[" * 100_000, ["line 1: nested too deep"]),
        ("a.ndjson", b"{}\n\xff", ["line 2: not UTF-8 at byte 0"]),
        ("a.ndjson", b'{"subreddit": "aww", "title": "cat"}\n{"subreddit": "a\n', ["line 2", "not JSON"]),
        ("a.ndjson", b'{"subreddit": "aww", "title": "cat"}\n' * 2000 + b'{"subreddit": "a\n', ["line 2001: not JSON"]),
        ("a.jsonl.gz", gzip.compress(b'{"subreddit": "aww", "title": "cat"}\n' * 9000, mtime=0)[:-20], ["a.jsonl.gz"]),
    ],
)
def test_broken_file(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    fails(setup_for(tmp_path, tmp_path / name), InputError, name, *words)


# Each can make DuckDB lose the lines behind it, or all, where it is let go on after an error.
BROKEN_LINES = {
    "open brackets": (b"[[[", "not JSON: Expecting value at character 3"),
    "a post with open brackets": (b'{"a": [[[', "not JSON: Expecting value at character 9"),
    "very deep": (b"[" * 100_000, "nested too deep"),
    "a post, very deep": (b'{"title": ' + b"[" * 100_000, "nested too deep"),
    "deep and whole": (b"[" * 200 + b"]" * 200, "not a JSON object"),
    "cut": (b'{"subreddit": "aww", "title": "A c', "not JSON: Unterminated string starting at character 30"),
    "two posts": (b'{"id": "x"}{"id": "y"}', "not JSON: Extra data at character 11"),
    "no UTF-8": (b'{"subreddit": "aww", "title": "caf\xe9"}', "not UTF-8 at byte 34"),
    "half a pair, raw": (b'{"subreddit": "aww", "title": "caf\xed\xa0\xbd"}', "not UTF-8 at byte 34"),
}


@pytest.mark.parametrize("suffix", [".ndjson", ".jsonl.gz"])
@pytest.mark.parametrize("broken", BROKEN_LINES.items(), ids=lambda item: item[0])
def test_a_broken_line_amid_good_ones_is_named(
    tmp_path: Path, suffix: str, broken: tuple[str, tuple[bytes, str]]
) -> None:
    line, complaint = broken[1]
    WRITERS[suffix](tmp_path / f"posts{suffix}", posts(seed=6))
    setup = setup_for(tmp_path, insert_line(tmp_path / f"posts{suffix}", 1500, b"\n \n" + line))
    fails(setup, InputError, f"posts{suffix}: line 1502: {complaint}")


def insert_line(path: Path, place: int, line: bytes) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        lines = file.readlines()
    with opener(path, "wb") as file:
        file.writelines([*lines[: place - 1], line + b"\n", *lines[place - 1 :]])
    return path


def test_a_broken_line_that_a_later_thread_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    made = [one_post(id=f"{number}", selftext="x" * 30_000) for number in range(2000)]
    write_ndjson(tmp_path / "posts.ndjson", made)  # some buffers of DuckDB's
    fails(setup_for(tmp_path, insert_line(tmp_path / "posts.ndjson", 1900, b"[[[")), InputError, "line 1900: not JSON")


def test_a_broken_line_beside_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", posts(seed=6))
    write_ndjson(tmp_path / "b.ndjson", [*posts(seed=6), one_post(title="A cat \ud83d")])
    insert_line(tmp_path / "b.ndjson", 2600, b"[[[")
    fails(setup_for(tmp_path, tmp_path / "?.ndjson"), InputError, f"{tmp_path}/b.ndjson: line 2502: not JSON")


def test_a_value_of_another_type_is_named(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", posts(seed=6))
    setup = setup_for(tmp_path, insert_line(tmp_path / "posts.ndjson", 1500, b'{"score": "five"}'))
    fails(setup, InputError, "posts.ndjson: can't be read", "line 1500", '"five"')


@pytest.mark.parametrize("suffix", [".ndjson", ".jsonl.gz"])
def test_lines_that_are_odd_but_whole_cost_no_other(tmp_path: Path, suffix: str) -> None:
    made = posts(seed=6)
    WRITERS[suffix](tmp_path / f"posts{suffix}", made)
    deep = b'{"id": "%i", "subreddit": "aww", "title": "As deep as a lake", "score": 99, "preview": ' + b"[" * 50_000
    for line in (b"null", b"{}", deep % 1 + b"]" * 50_000 + b"}", b'{"title": {"a": [[]]}, "subreddit": "aww"}'):
        insert_line(tmp_path / f"posts{suffix}", 1500, line)
    lines = [one_post(id="1", title="As deep as a lake", score=99), {"subreddit": "aww", "title": '{"a":[[]]}'}, {}, {}]
    keys = dict.fromkeys(made[0])
    setup = setup_for(tmp_path, tmp_path / f"posts{suffix}", top_subreddits=60, sfw=False)
    counts = fetch(setup)
    read = made + [keys | line for line in lines]
    assert read_rows(setup.out) == expected(read, setup)
    assert counts.posts == len(read)
    assert {rule: count for rule, count in counts.left_out.items() if count} == left_out(read, setup)


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz"])
@pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5])
def test_a_gzip_file_that_is_damaged(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"posts{suffix}"
    WRITERS[suffix](path, posts(seed=5))
    content = path.read_bytes()
    place = int(part * len(content))
    path.write_bytes(content[:place] + b"\xff" * 20 + content[place + 20 :])
    fails(setup_for(tmp_path, path), InputError, f"{path}: ")


def test_a_line_that_a_gzip_file_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl.gz"
    gzipped(write_ndjson)(path, posts(seed=5))
    path.write_bytes(path.read_bytes()[:-100])
    fails(setup_for(tmp_path, path), InputError, str(path))


def test_parquet_broken_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "posts.parquet"
    write_parquet(path, posts(seed=5))
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :])
    fails(setup_for(tmp_path, path), InputError, "posts.parquet", "can't be read")


def test_the_broken_file_of_several_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "whole.csv", [one_post()])
    (tmp_path / "ragged.csv").write_text("subreddit,title\naww,cat\naww\n")
    with pytest.raises(InputError, match=r"^\S*ragged\.csv: can't be read"):
        fetch(setup_for(tmp_path, tmp_path / "*.csv"))


def test_mapped_column_that_is_not_there(tmp_path: Path) -> None:
    write_csv(tmp_path / "posts.csv", [one_post()])
    setup = setup_for(tmp_path, tmp_path / "posts.csv", mapping=("title=headline",))
    fails(setup, InputError, "no column 'headline', which --map title= names; it has id, subreddit")


def test_no_column_of_a_dump_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "RS_2019-08.zst").write_bytes(b"")
    with pytest.raises(UsageError, match=r"--map: .*RS_2019-08\.zst is a dump, whose columns are Reddit's own"):
        find_posts_files([str(tmp_path)], names={"title": "headline"})
    assert [path.name for path in tmp_path.iterdir()] == ["RS_2019-08.zst"]
