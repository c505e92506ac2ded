import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from redditgen.encode.decode import decode, decode_lines
from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.files.rows import write_rows
from redditgen.files.sidecar import sidecar_path
from redditgen.settings import DecodeSettings
from redditgen.titles.record import END_TOKEN, SECTIONS, START_TOKEN, Record, build
from tests.support.fixture_types import Redditgen
from tests.support.paths import SHARED_DATA
from tests.titles.test_record import records_of, writable

DATA = SHARED_DATA
CATS = Record(category="cats", keywords="nap sun", title="A nap\nin the sun")
DOGS = Record(category="dogs", keywords="", title='Say "hi", ~@dog', body="It's\r\nlong")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decode")


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    path = tmp_path / "encoded.txt"
    path.write_text(f"{build(CATS)}\n{build(DOGS)}\n", encoding="utf8", newline="")
    return path


def test_txt_holds_a_title_a_line(encoded: Path, tmp_path: Path) -> None:
    counts = decode(DecodeSettings(input=encoded, out=tmp_path / "titles.txt"))
    assert counts == {"records": 2, "partial": 0, "unfinished": 0, "malformed": 0, "rows": 2}
    assert (tmp_path / "titles.txt").read_text(encoding="utf8") == 'A nap in the sun\nSay "hi", ~@dog\n'
    facts = json.loads((tmp_path / "titles.txt.meta.json").read_text(encoding="utf8"))
    assert (facts["command"], facts["counts"]) == ("decode", counts)


def test_csv_and_jsonl_hold_the_sections_in_the_order_asked(encoded: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl"):
        decode(DecodeSettings(input=encoded, out=tmp_path / f"out.{suffix}", sections="title, body,category"))
    with (tmp_path / "out.csv").open(encoding="utf8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["title", "body", "category"],
            [CATS.title, "", "cats"],
            [DOGS.title, DOGS.body, "dogs"],
        ]
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf8").splitlines()]
    assert rows == [
        {"title": CATS.title, "body": None, "category": "cats"},
        {"title": DOGS.title, "body": DOGS.body, "category": "dogs"},
    ]
    assert list(rows[0]) == ["title", "body", "category"]


def test_without_a_file_there_are_lines_to_print(encoded: Path) -> None:
    assert list(decode_lines(DecodeSettings(input=encoded))) == ["A nap in the sun", 'Say "hi", ~@dog']
    several = decode_lines(DecodeSettings(input=encoded, sections="category,title"))
    assert [json.loads(line) for line in several][1] == {"category": "dogs", "title": DOGS.title}


def test_text_holds_the_section_asked(encoded: Path, tmp_path: Path) -> None:
    decode(DecodeSettings(input=encoded, out=tmp_path / "out.txt", sections="body"))
    assert (tmp_path / "out.txt").read_text(encoding="utf8") == "It's long\n"


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(records_of(writable).filter(lambda record: record.has_sections), min_size=1, max_size=5), st.data())
def test_sections_come_back_from_tables(folder: Path, made: list[Record], data: st.DataObject) -> None:
    """Every string, in whatever order the sections are asked."""
    names = data.draw(st.permutations(SECTIONS))
    encoded, table, objects = folder / "a.txt", folder / "a.csv", folder / "a.jsonl"
    encoded.write_text("".join(build(record) + "\n" for record in made), encoding="utf8", newline="\n")
    for out in (table, objects):
        decode(DecodeSettings(input=encoded, out=out, sections=",".join(names), overwrite=True))
    wanted = [[getattr(record, name) for name in names] for record in made]
    with table.open(encoding="utf8", newline="") as file:
        assert list(csv.reader(file, strict=True)) == [names, *([cell or "" for cell in row] for row in wanted)]
    rows = [json.loads(line) for line in objects.read_bytes().splitlines()]
    assert [list(row.items()) for row in rows] == [list(zip(names, row, strict=True)) for row in wanted]


def test_partial_decodes_what_is_unfinished_and_counts_it(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "samples.txt").write_text(
        f"{build(CATS)}\n{START_TOKEN}~`dogs~^~@Half a dog~\n{'=' * 20}\n"
        f"{START_TOKEN}~@twice~@title{END_TOKEN}\n{START_TOKEN}~`owls~^who<|end",
        encoding="utf8",
    )
    decoding = ("decode", "samples.txt", "--sections", "title,category", "--overwrite", "--out", "a.csv")
    done = redditgen(*decoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "samples.txt: 2 unfinished and 1 malformed records left out",
        "a.csv: 1 rows of 1 records",
    ]
    counts = {"records": 1, "partial": 0, "unfinished": 2, "malformed": 1, "rows": 1}
    assert json.loads(sidecar_path(tmp_path / "a.csv").read_text(encoding="utf8"))["counts"] == counts

    done = redditgen(*decoding, "--partial")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "samples.txt: 0 unfinished and 1 malformed records left out",
        "a.csv: 3 rows of 1 records and 2 unfinished ones",
    ]
    with (tmp_path / "a.csv").open(encoding="utf8", newline="") as file:
        assert list(csv.reader(file))[1:] == [["A nap\nin the sun", "cats"], ["Half a dog", "dogs"], ["", "owls"]]
    facts = json.loads(sidecar_path(tmp_path / "a.csv").read_text(encoding="utf8"))
    assert facts["counts"] == {"records": 1, "partial": 2, "unfinished": 0, "malformed": 1, "rows": 3}
    assert facts["settings"]["partial"]
    assert redditgen("decode", "samples.txt", "--partial").stdout == "A nap in the sun\nHalf a dog\n"


def test_records_without_marks_are_titles(tmp_path: Path) -> None:
    path = tmp_path / "titles.txt"
    path.write_text(f"{START_TOKEN}One{END_TOKEN}\n{START_TOKEN}Two,\\nthree{END_TOKEN}\n", encoding="utf8")
    assert list(decode_lines(DecodeSettings(input=path))) == ["One", "Two, three"]
    with pytest.raises(InputError, match="no record has a section category"):
        list(decode_lines(DecodeSettings(input=path, sections="category")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text\n",
        f"{START_TOKEN}{END_TOKEN}",
        f"{START_TOKEN}before ~@title{END_TOKEN}",
        f"{START_TOKEN}~@unfinished",
    ],
)
def test_a_file_without_a_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "none.txt"
    path.write_text(text, encoding="utf8")
    with pytest.raises(InputError, match=r"none\.txt: holds no record"):
        decode(DecodeSettings(input=path, out=tmp_path / "out.txt"))
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_section_that_no_record_has_is_refused(encoded: Path, tmp_path: Path) -> None:
    encoded.write_text(build(CATS), encoding="utf8")
    with pytest.raises(InputError, match="no record has a section body"):
        decode(DecodeSettings(input=encoded, out=tmp_path / "out.txt", sections="body"))
    assert sorted(tmp_path.iterdir()) == [encoded]


def test_wrong_use_is_said_before_any_work(encoded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'titel'; there are category, keywords, title, body"):
        DecodeSettings(input=encoded, sections="titel")
    with pytest.raises(UsageError, match=r"\.txt, \.csv or \.jsonl"):
        decode(DecodeSettings(input=encoded, out=tmp_path / "out.xlsx"))
    with pytest.raises(UsageError, match="one column"):
        decode(DecodeSettings(input=encoded, out=tmp_path / "out.txt", sections="title,body"))
    with pytest.raises(UsageError, match="--out"):
        decode(DecodeSettings(input=encoded))
    with pytest.raises(MissingError, match=r"no\.txt: no such file"):
        decode(DecodeSettings(input=tmp_path / "no.txt", out=tmp_path / "out.txt"))
    with pytest.raises(OutputExists):
        decode(DecodeSettings(input=encoded, out=encoded))
    assert sorted(tmp_path.iterdir()) == [encoded]


def test_rows_keep_numbers_and_truth_values_in_jsonl(tmp_path: Path) -> None:
    rows = [{"title": "é\u2028x", "seed": 3, "synthetic": True, "extra": "not asked for"}]
    assert write_rows(tmp_path / "a.jsonl", rows, ["title", "seed", "synthetic"], suffix=".jsonl") == 1
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf8")) == {
        "title": "é\u2028x", "seed": 3, "synthetic": True,
    }  # fmt: skip
    assert write_rows(tmp_path / "a.TXT", rows, ["title"], suffix=".TXT") == 1
    assert (tmp_path / "a.TXT").read_text(encoding="utf8") == "é x\n"


# The whole of a file


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    small, large = (peak(tmp_path / f"{megabytes}.txt", megabytes) for megabytes in (20, 200))
    assert large <= 1.2 * small


def peak(path: Path, megabytes: int) -> int:
    """The most memory, in KiB, that decode takes in a process of its own for a file of this size."""
    block = "".join(
        build(Record(category="c", title=f"Title {number} \n{'word ' * 9}")) + "\n" for number in range(10_000)
    )
    with path.open("w", encoding="utf8") as file:
        while file.tell() < megabytes * 1_000_000:
            file.write(block)
    # Not getrusage: its peak is inherited, and this process may have had a larger one.
    code = (
        "import sys; from redditgen.cli.app import main\ntry:\n    main()\nfinally:\n"
        "    print('VmHWM', open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "decode", path, "--sections", "title,category", "--out", path.with_suffix(".csv")],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads(sidecar_path(path.with_suffix(".csv")).read_text(encoding="utf8"))["counts"]["rows"]
    assert rows == path.stat().st_size // len(block) * 10_000
    return int(done.stdout.split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the titles of ../shared/data")
@pytest.mark.parametrize(
    ("name", "header", "options"),
    [
        ("reddit_titles.csv", "", ["--keywords-field", "subreddit"]),
        ("SFW.askreddit_titles.csv", "title\n", ["--category-field", "", "--keywords-field", "title"]),
    ],
)
def test_every_real_title_comes_back(tmp_path: Path, name: str, header: str, options: list[str]) -> None:
    """Through both commands; without spaCy, which has no part in the titles."""
    table, encoded, out = tmp_path / name, tmp_path / "encoded.txt", tmp_path / "decoded.csv"
    table.write_text(header + (DATA / name).read_text(encoding="utf8"), encoding="utf8", newline="")
    fixed = ["--workers", "1", "--seed", "1", "--repeat", "1"]
    encoding: list[str | Path] = ["encode", table, "--out", encoded, *fixed, *options]
    decoding: list[str | Path] = ["decode", encoded, "--out", out]
    for command in (encoding, decoding):
        subprocess.run([sys.executable, "-m", "redditgen", *command], check=True, capture_output=True, timeout=120)
    given_titles, titles = (titles_of(path) for path in (table, out))
    assert sum(titles.values()) > 15_000
    assert titles == given_titles


def titles_of(path: Path) -> Counter[str]:
    with path.open(encoding="utf8", newline="") as file:
        return Counter(row["title"] for row in csv.DictReader(file) if row["title"].strip())
