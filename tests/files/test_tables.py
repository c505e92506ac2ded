import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redditgen.errors import InputError, MissingError
from redditgen.files.tables import open_table

ROWS = [("cats", 'A "cat", and\nmore'), ("dogs", ""), ("ünï", "日本語 🎉\u2028\x85 end")]
KINDS = ("csv", "parquet", "ndjson", "jsonl")


def write(path: Path, rows: list[tuple[Any, ...]], names: tuple[str, ...] = ("subreddit", "title")) -> Path:
    columns = dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    else:
        objects = (dict(zip(names, row, strict=True)) for row in rows)
        path.write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf8")
    return path


def read(path: Path, *names: str) -> list[tuple[str, ...]]:
    with open_table(path, made_by="fetch makes one") as opened:
        return list(opened.rows(names))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"titles.{kind}", ROWS)
    assert read(path, "subreddit", "title") == ROWS
    assert read(path, "title", "subreddit", "title") == [(title, name, title) for name, title in ROWS]
    with open_table(path, made_by="") as opened:
        assert list(opened.columns) == ["subreddit", "title"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_text_comes_back(tmp_path: Path, texts: list[str]) -> None:
    for kind in KINDS:
        path = write(tmp_path / f"any.{kind}", [("a", text) for text in texts])
        assert read(path, "title") == [(text,) for text in texts]


def test_a_title_of_ten_million_characters_is_read(tmp_path: Path) -> None:
    for kind in KINDS:
        path = write(tmp_path / f"long.{kind}", [("a", "x" * 10_000_000)])
        assert [len(title) for (title,) in read(path, "title")] == [10_000_000]


def test_other_values_become_texts(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [(1, True, None), (2, False, "x")]
    wanted = [("1", "True", ""), ("2", "False", "x")]
    for kind in ("parquet", "ndjson"):
        assert read(write(tmp_path / f"typed.{kind}", rows, ("n", "flag", "text")), "n", "flag", "text") == wanted
    path = tmp_path / "nested.jsonl"
    path.write_text('{"a": ["x", 1]}\n\n{"b": 2}\n')
    assert read(path, "a", "b") == [('["x", 1]', ""), ("", "2")]


def test_half_a_character_is_replaced_and_a_whole_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "half.ndjson"
    path.write_text('{"title": "a \\ud83d b \\ud83d\\ude00"}\n')
    assert read(path, "title") == [("a \ufffd b 😀",)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty; a CSV with a header line is needed"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2 has 3 fields, the header 2"),
        ("a.csv", b'a\n"open\n', "is a quote left open"),
        ("a.csv", b"a\n\xff\n", r"line 2, byte 1 \(0xff\) is not UTF-8"),
        ("a.ndjson", b"\n", "is empty; a JSON object a line is needed"),
        ("a.ndjson", b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ("a.ndjson", b'{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        ("a.ndjson", b"[" * 100_000, "line 1 is no JSON"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"line 1, byte 8 \(0xff\) is not UTF-8"),
        ("a.parquet", b"", "can't be read as Parquet"),
        ("a.parquet", b"PAR1 no more of it PAR1", "can't be read as Parquet"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read(path, "a")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MissingError, match=rf"no\.{kind}: no such file; fetch makes one"):
        read(tmp_path / f"no.{kind}", "a")


def test_a_cut_parquet_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.parquet", [("a", f"title {n}") for n in range(1000)])
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cut\.parquet: can't be read as Parquet"):
        read(path, "title")
