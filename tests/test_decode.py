import csv
import io
import json
import logging
import tracemalloc
from collections import Counter, deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redditgen.decode import decode, lines
from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.markup import END, START, Record, build
from redditgen.records import records, records_in
from redditgen.rows import write_rows
from redditgen.settings import DecodeSettings

CATS = Record(category="cats", keywords="nap sun", title="A nap\nin the sun")
DOGS = Record(category="dogs", keywords="", title='Say "hi", ~@dog', body="It's\r\nlong")
SEPARATOR = "=" * 20 + "\n"


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    path = tmp_path / "encoded.txt"
    path.write_text(f"{build(CATS)}\n{build(DOGS)}\n", encoding="utf8", newline="")
    return path


def read(path: Path, text: str) -> list[Record]:
    path.write_text(text, encoding="utf8", newline="")
    return list(records(path))


def test_txt_holds_a_title_a_line(encoded: Path, tmp_path: Path) -> None:
    counts = decode(DecodeSettings(input=encoded, out=tmp_path / "titles.txt"))
    assert counts == {"records": 2, "broken": 0, "rows": 2}
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
    assert list(lines(DecodeSettings(input=encoded))) == ["A nap in the sun", 'Say "hi", ~@dog']
    several = lines(DecodeSettings(input=encoded, sections="category,title"))
    assert [json.loads(line) for line in several][1] == {"category": "dogs", "title": DOGS.title}


def test_samples_of_gpt_2_simple_are_read_across_lines(tmp_path: Path) -> None:
    text = (
        f"{START}~@one\r\ntwo{END}\n{SEPARATOR}\n{SEPARATOR}{START}~`c~^~@three{END}\ntail of a text {END}{SEPARATOR}"
    )
    assert read(tmp_path / "samples.txt", text) == [
        Record(title="one\r\ntwo"),
        Record(category="c", keywords="", title="three"),
    ]


def test_unfinished_and_malformed_records_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "samples.txt"
    path.write_text(
        f"{START}~@cut off\n{START}~@whole{END}\n{START}before ~@title{END}\n"
        f"{START}~@first\n{SEPARATOR}second{END}\n{START}~@last",
        encoding="utf8",
    )
    counts: Counter[str] = Counter()
    with caplog.at_level(logging.WARNING):
        assert list(records(path, counts)) == [Record(title="whole")]
    assert counts == {"records": 1, "broken": 4}
    assert "4 unfinished or malformed" in caplog.text


titles = st.text(st.characters(codec="utf8"), min_size=1, max_size=5) | st.sampled_from([START, END, "~@", "a\r\nb"])
some_records = st.lists(
    st.builds(Record, title=titles, category=st.none() | titles)
    | st.builds(Record, title=titles, marked=st.just(False)),
    max_size=8,
)


@given(some_records, st.sampled_from(["\n", "\r\n", "", "\n" + SEPARATOR]))
def test_a_files_first_record_says_whether_its_records_have_marks(made: list[Record], between: str) -> None:
    text = "".join(build(record) + between for record in made)
    counts: Counter[str] = Counter()
    if not made:
        with pytest.raises(InputError, match=r"a\.txt: holds no record"):
            list(records_in(io.StringIO(text), Path("a.txt"), counts))
        return
    kept = [record for record in made if record.marked == made[0].marked]
    assert list(records_in(io.StringIO(text, newline=""), Path("a.txt"), counts)) == kept
    assert (counts["records"], counts["broken"]) == (len(kept), len(made) - len(kept))


def test_a_record_without_marks_among_others_is_malformed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path / "a.txt", f"{build(CATS)}\n{START}a slip of the model{END}\n{build(DOGS)}\n")
    assert found == [CATS, DOGS]
    assert "a.txt: 1 unfinished or malformed records left out" in caplog.text


def test_records_without_marks_are_titles(tmp_path: Path) -> None:
    path = tmp_path / "titles.txt"
    path.write_text(f"{START}One{END}\n{START}Two,\\nthree{END}\n", encoding="utf8")
    assert list(lines(DecodeSettings(input=path))) == ["One", "Two, three"]
    with pytest.raises(InputError, match="no record has a section category"):
        list(lines(DecodeSettings(input=path, sections="category")))


@pytest.mark.parametrize("filler", [65_536 - 5, 65_536 - len(START) - 2, 65_536 - 30])
def test_tokens_may_lie_across_the_edges_of_what_is_read(tmp_path: Path, filler: int) -> None:
    record = Record(title="title")
    assert read(tmp_path / "a.txt", "." * filler + build(record) + "." * 65_530 + build(record)) == [record, record]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redditgen.records._LONGEST", 100_000)
    path = tmp_path / "big.txt"
    with path.open("w", encoding="utf8") as file:
        file.writelines(build(DOGS) for _ in range(20_000))  # one line of 2 MB
        file.write(START + "~@never ends " * 200_000)
        file.write(build(CATS))
    counts: Counter[str] = Counter()
    tracemalloc.start()
    try:
        [last] = deque(records(path, counts), maxlen=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last == CATS
    assert counts == {"records": 20_001, "broken": 1}
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize(
    "text", ["", "just text\n", f"{START}{END}", f"{START}before ~@title{END}", f"{START}~@unfinished"]
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


def test_text_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(build(CATS).encode() + b"\n\ncaf\xe9")
    with pytest.raises(InputError, match=r"line 3, byte 4 \(0xe9\)"):
        list(records(path))


def test_rows_keep_numbers_and_truth_values_in_jsonl(tmp_path: Path) -> None:
    rows = [{"title": "é\u2028x", "seed": 3, "synthetic": True, "extra": "not asked for"}]
    assert write_rows(tmp_path / "a.jsonl", rows, ["title", "seed", "synthetic"]) == 1
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf8")) == {
        "title": "é\u2028x", "seed": 3, "synthetic": True,
    }  # fmt: skip
    assert write_rows(tmp_path / "a.TXT", rows, ["title"]) == 1
    assert (tmp_path / "a.TXT").read_text(encoding="utf8") == "é x\n"
