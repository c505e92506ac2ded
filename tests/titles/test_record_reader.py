import io
import logging
import tracemalloc
from collections import Counter, deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.errors import InputError
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, build, format_sections
from redditgen.titles.record_reader import read_records, read_records_from
from tests.titles.test_record import records_of, writable

CATS = Record(category="cats", keywords="nap sun", title="A nap\nin the sun")
DOGS = Record(category="dogs", keywords="", title='Say "hi", ~@dog', body="It's\r\nlong")
LINE = "=" * 20
SEPARATOR = LINE + "\n"

some_records = st.lists(records_of(writable), max_size=8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


def read(path: Path, text: str) -> list[Record]:
    path.write_text(text, encoding="utf8", newline="")
    return list(read_records(path))


@settings(max_examples=300, deadline=None)
@given(some_records.filter(bool), st.sampled_from(["\n", "\r\n", "\n\n"]), st.integers(1, 60))
def test_records_come_back_from_a_file(folder: Path, made: list[Record], newline: str, chunk: int) -> None:
    """Whatever they hold, and wherever the file is cut when it is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redditgen.titles.record_reader._CHUNK", chunk)
        for kept in ([record for record in made if record.has_sections == kind] for kind in (True, False)):
            if kept:
                assert read(folder / "made.txt", "".join(build(record) + newline for record in kept)) == kept


@pytest.mark.parametrize("title", [LINE, f"{LINE}\n", f"a\n{LINE}\nb"])
def test_a_title_may_look_like_what_stands_between_samples(tmp_path: Path, title: str) -> None:
    for record in (Record(title=title), Record(title=title, has_sections=False)):
        assert read(tmp_path / "a.txt", build(record) + "\n") == [record]


def test_a_record_may_be_long(tmp_path: Path) -> None:
    made = [CATS, Record(title="x" * 10_000_000, body="\n" * 1_000_000), DOGS]
    assert read(tmp_path / "a.txt", "".join(build(record) + "\n" for record in made)) == made


def test_samples_of_gpt_2_simple_are_read_across_lines(tmp_path: Path) -> None:
    text = f"{START_TOKEN}~@one\r\ntwo{END_TOKEN}\n{SEPARATOR}\n{SEPARATOR}"
    text += f"{START_TOKEN}~`c~^~@three{END_TOKEN}\ntail of a text {END_TOKEN}{SEPARATOR}"
    assert read(tmp_path / "samples.txt", text) == [
        Record(title="one\r\ntwo"),
        Record(category="c", keywords="", title="three"),
    ]


def test_unfinished_and_malformed_records_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "samples.txt"
    path.write_text(
        f"{START_TOKEN}~@cut off\n{START_TOKEN}~@whole{END_TOKEN}\n{START_TOKEN}before ~@title{END_TOKEN}\n"
        f"{START_TOKEN}~@first\n{SEPARATOR}second{END_TOKEN}\n{START_TOKEN}~@last",
        encoding="utf8",
    )
    left_out: Counter[str] = Counter()
    with caplog.at_level(logging.WARNING):
        assert list(read_records(path, left_out)) == [Record(title="whole")]
    assert left_out == {"records": 1, "partial": 0, "unfinished": 3, "malformed": 1}
    assert caplog.messages == [f"{path}: 3 unfinished and 1 malformed records left out"]

    counts: Counter[str] = Counter()
    titles = [record.title for record in read_records(path, counts, partial=True)]
    assert titles == ["cut off", "whole", "first", "last"]
    assert counts == {"records": 1, "partial": 3, "unfinished": 0, "malformed": 1}
    assert caplog.messages[1:] == [f"{path}: 0 unfinished and 1 malformed records left out"]


@pytest.mark.parametrize(
    ("behind", "title"),
    [
        ("", "cut \n off"),
        ("\n", "cut \n off"),
        ("\r\n", "cut \n off"),
        ("\n" + LINE, "cut \n off"),
        ("\r\n" + LINE + "\r\nnothing of it", "cut \n off"),
        ("\n" + LINE + "=\n", f"cut \n off\n{LINE}="),
        ("~", "cut \n off"),
        ("<|endof", "cut \n off"),
        ("<|endof\n" + SEPARATOR, "cut \n off"),
        ("~\n" + START_TOKEN, "cut \n off"),
        ("\n" + build(Record(title="the next")), "cut \n off"),
    ],
)
def test_an_unfinished_record_goes_as_far_as_it_goes(tmp_path: Path, behind: str, title: str) -> None:
    path = tmp_path / "samples.txt"
    path.write_text(f"{START_TOKEN}~`c~^k~@cut \\n off{behind}", encoding="utf8", newline="")
    assert next(read_records(path, partial=True)) == Record(category="c", keywords="k", title=title)


@settings(max_examples=300)
@given(records_of(writable), st.data())
def test_a_file_cut_anywhere_loses_no_whole_record(cut: Record, data: st.DataObject) -> None:
    content = format_sections(cut)
    text = build(CATS) + "\n" + START_TOKEN + content[: data.draw(st.integers(0, len(content)))]
    for partial in (False, True):
        counts: Counter[str] = Counter()
        found = list(read_records_from(io.StringIO(text, newline=""), Path("a.txt"), counts, partial=partial))
        assert found[0] == CATS
        assert len(found) == 1 + counts["partial"]
        assert counts["partial"] + counts["unfinished"] == 1
        assert partial or not counts["partial"]


def test_a_cut_record_does_not_decide_whether_there_are_marks(tmp_path: Path) -> None:
    path = tmp_path / "samples.txt"
    path.write_text(f"{START_TOKEN}a slip\n{build(CATS)}\n{START_TOKEN}a slip", encoding="utf8")
    counts: Counter[str] = Counter()
    assert list(read_records(path, counts, partial=True)) == [Record(title="a slip", has_sections=False), CATS]
    assert counts == {"records": 1, "partial": 1, "unfinished": 1, "malformed": 0}


def test_a_file_of_unfinished_records_says_how_to_read_them(tmp_path: Path) -> None:
    path = tmp_path / "samples.txt"
    path.write_text(f"{START_TOKEN}~@one\n{START_TOKEN}~@two", encoding="utf8")
    with pytest.raises(
        InputError, match=r"samples\.txt: holds no record that has an end token, and 2 without; .*--par"
    ):
        list(read_records(path))
    assert [record.title for record in read_records(path, partial=True)] == ["one", "two"]


@given(some_records, st.sampled_from(["\n", "\r\n", "", "\n" + SEPARATOR]))
def test_a_files_first_record_says_whether_its_records_have_marks(made: list[Record], between: str) -> None:
    text = "".join(build(record) + between for record in made)
    counts: Counter[str] = Counter()
    if not made:
        with pytest.raises(InputError, match=r"a\.txt: holds no record"):
            list(read_records_from(io.StringIO(text), Path("a.txt"), counts))
        return
    kept = [record for record in made if record.has_sections == made[0].has_sections]
    assert list(read_records_from(io.StringIO(text, newline=""), Path("a.txt"), counts)) == kept
    assert (counts["records"], counts["malformed"]) == (len(kept), len(made) - len(kept))


def test_a_record_without_marks_among_others_is_malformed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path / "a.txt", f"{build(CATS)}\n{START_TOKEN}a slip of the model{END_TOKEN}\n{build(DOGS)}\n")
    assert found == [CATS, DOGS]
    assert "a.txt: 0 unfinished and 1 malformed records left out" in caplog.text


@pytest.mark.parametrize("filler", [65_536 - 5, 65_536 - len(START_TOKEN) - 2, 65_536 - 30])
def test_tokens_may_lie_across_the_edges_of_what_is_read(tmp_path: Path, filler: int) -> None:
    record = Record(title="title")
    assert read(tmp_path / "a.txt", "." * filler + build(record) + "." * 65_530 + build(record)) == [record, record]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redditgen.titles.record_reader._LONGEST", 100_000)
    path = tmp_path / "big.txt"
    with path.open("w", encoding="utf8") as file:
        file.writelines(build(DOGS) for _ in range(20_000))  # one line of 2 MB
        file.write(START_TOKEN + "~@never ends " * 200_000)
        file.write(build(CATS))
    counts: Counter[str] = Counter()
    tracemalloc.start()
    try:
        [last] = deque(read_records(path, counts), maxlen=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last == CATS
    assert counts == {"records": 20_001, "partial": 0, "unfinished": 1, "malformed": 0}
    assert peak < path.stat().st_size / 4


def test_text_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(build(CATS).encode() + b"\n\ncaf\xe9")
    with pytest.raises(InputError, match=r"line 3, byte 4 \(0xe9\)"):
        list(read_records(path))
