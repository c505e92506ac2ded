import csv
import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redditgen.engines.data.dataset import Dataset
from redditgen.engines.data.examples import Examples
from redditgen.engines.data.token_stream import TokenStream
from redditgen.errors import InputError, MissingError, RedditgenError, UsageError
from redditgen.finetune.command import finetune
from redditgen.finetune.dataset.load import read_dataset
from redditgen.finetune.dataset.record_files import find_files
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS, RunInfo
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import FinetuneSettings
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, build
from tests.support.fixture_types import Settings
from tests.support.paths import SHARED_DATA
from tests.support.tiny_model import N_CTX

SFW = SHARED_DATA / "SFW.askreddit_titles.csv"
NEW = RunInfo(record_tokens=COMPACT_TOKENS, model="tiny")
TITLED = [Record(category="cats", keywords="one", title="One"), Record(category="cats", keywords="", title="Two")]
OF_RECORDS = RunInfo(record_tokens=COMPACT_TOKENS, model="tiny", sections=("title",))
OF_PLAIN_TEXT = RunInfo(record_tokens=NO_RECORDS, model="tiny", sections=())

Read = Callable[..., Dataset]


@pytest.fixture(scope="module")
def tokenizer(tiny: ModelDir) -> Tokenizer:
    return tiny.tokenizer()


@pytest.fixture
def read(finetuning: Settings, tokenizer: Tokenizer) -> Read:
    """Reads a dataset for a new run, with nothing held out."""

    def read(path: Path, run_info: RunInfo = NEW, **changes: Any) -> Dataset:
        return read_dataset(finetuning(dataset=path, **({"val_fraction": 0.0} | changes)), run_info, tokenizer, N_CTX)

    return read


def titles_of(data: Dataset, tokenizer: Tokenizer) -> list[str]:
    """The texts of compact records without marks."""
    assert isinstance(data.train, Examples)
    rows = [data.train.sequences[number].tolist() for number in range(len(data.train))]
    assert all(row[0] == row[-1] == tokenizer.end for row in rows)
    return [tokenizer.decode(row[1:-1]) for row in rows]


def text_of(data: Dataset, tokenizer: Tokenizer) -> list[str]:
    assert isinstance(data.train, TokenStream)
    return [tokenizer.decode(chunk.tolist()) for chunk in data.train.chunks]


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


# One column


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("One\nTwo\n", ["One", "Two"]),
        ("One\nTwo", ["One", "Two"]),
        ("title\nOne\nTwo\n", ["One", "Two"]),
        ("Titles\r\nOne\r\nTwo\r\n", ["One", "Two"]),
        ('" TEXT "\nOne\n', ["One"]),
        ("headline\nOne\n", ["One"]),
        ("post\nOne\n", ["One"]),
        ("My title\nOne\n", ["My title", "One"]),
        ("One\ntitle\n", ["One", "title"]),
        ('\n\ntitle\n\nOne\n  \n""\n\nTwo\n\n', ["One", "Two"]),
        ("\ufeffOne\nTwo\n", ["One", "Two"]),
        ("\ufefftitle\nOne\n", ["One"]),
        ('"A, b"\n"Say ""hi"""\nHe said "no"\n', ["A, b", 'Say "hi"', 'He said "no"']),
        ('"first\nsecond\r\nthird"\nOne\n', ["first\\nsecond\\r\\nthird", "One"]),
        ("~@ and ~`\n", ["~\\@ and ~\\`"]),
        ("日本 🎉\n", ["日本 🎉"]),
    ],
)
def test_a_row_of_one_column_is_a_title(
    read: Read, tokenizer: Tokenizer, tmp_path: Path, content: str, wanted: list[str]
) -> None:
    data = read(write(tmp_path / "titles.csv", content))
    assert titles_of(data, tokenizer) == wanted
    assert (data.run_info.record_tokens, data.run_info.sections, data.run_info.categories) == (COMPACT_TOKENS, (), {})


def test_a_header_that_is_left_out_is_named(read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(write(tmp_path / "titles.CSV", "Title\nOne\n"))
    assert "titles.CSV: 'Title' is taken for its header" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"subreddit,title\ncats,A cat\n", r"line 1: has 2 columns, .* redditgen encode .*titles\.csv$"),
        (b"One\nTwo\nThree, with a comma\n", r"line 3: has 2 columns, and finetune reads a CSV of one"),
        (b'One\n"Two\nThree\n', r"line \d: is no CSV: unexpected end of data"),
        (b'"One" and more\n', r"line 1: is no CSV: "),
        (b"One\nTwo\nT\xe4tig\n", r"line 3, byte 2 \(0xe4\) is not UTF-8; save the file as UTF-8"),
        (b"", r"holds no title"),
        (b"\n \n", r"holds no title"),
        (b"title\n", r"holds no title"),
    ],
)
def test_what_is_no_table_of_one_column_is_refused_with_its_place(
    read: Read, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "titles.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"titles\.csv(, |: ){message}"):
        read(path)


def test_a_title_of_any_length_is_read_and_cut(read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """csv itself gives up at 131,072 characters."""
    csv.field_size_limit(1 << 17)
    data = read(write(tmp_path / "a.csv", "One\n" + "x" * 200_000 + "\n"))
    assert isinstance(data.train, Examples)
    assert data.train.sequences.lengths.max() == N_CTX
    assert "a.csv: 1 records are longer than 64 tokens and were cut" in caplog.text


@pytest.mark.skipif(not SFW.exists(), reason=f"no {SFW.name} in ../shared/data")
def test_the_reports_own_titles_are_read_whole(read: Read, tokenizer: Tokenizer) -> None:
    """16,000: no header, and no line break behind the last. gpt-2-simple takes the first for a header."""
    data = read(SFW)
    assert isinstance(data.train, Examples)
    assert len(data.train) == 16_000
    with SFW.open(encoding="utf8", newline="") as file:
        [first] = next(csv.reader(file))
    row = data.train.sequences[0].tolist()
    assert first.startswith(tokenizer.decode(row[1:20]))
    assert len(tokenizer.decode(row[1:20])) > 20
    some_held_out = read(SFW, val_fraction=0.02)
    assert 200 < len(some_held_out.held_out) < 450


# Tokens


def save(path: Path, *arrays: Any) -> Path:
    np.savez(path, *arrays)
    return path


def test_the_records_of_an_npz_are_those_of_its_text(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    records = [Record(category="cats", title='My "cat" 🎉\nagain'), Record(category="dogs", title="My dog")]
    text = "".join(build(record) + "\n" for record in records)
    wanted = read(write(tmp_path / "a.txt", text))
    ids = tokenizer.encode([text])[0].ids
    compact = [
        token
        for record in records
        for token in (
            tokenizer.end,
            *tokenizer.encode([build(record)[len(START_TOKEN) : -len(END_TOKEN)]])[0].ids,
            tokenizer.end,
        )
    ]
    for arrays in ([ids], [np.array(ids, np.uint16)], [compact], [ids, compact]):
        found = read(save(tmp_path / "a.npz", *map(np.array, arrays)))
        assert isinstance(found.train, Examples) and isinstance(wanted.train, Examples)
        times = len(arrays)
        assert found.train.sequences.ids.tolist() == wanted.train.sequences.ids.tolist() * times
        assert found.train.title_starts.tolist() == wanted.train.title_starts.tolist() * times
        assert found.run_info.sections == ("category", "title")
        assert found.run_info.categories == {"cats": times, "dogs": times}


def test_a_title_in_an_npz_of_records_without_marks(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    end, one, two = tokenizer.end, *(encoding.ids for encoding in tokenizer.encode(["One", "Two"]))
    data = read(save(tmp_path / "a.npz", np.array([end, *one, end, end, *two, end])))
    assert titles_of(data, tokenizer) == ["One", "Two"]
    assert data.run_info.sections == ()


class _Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_objects_in_an_npz_are_not_run(read: Read, tmp_path: Path) -> None:
    came = tmp_path / "came"
    path = save(tmp_path / "a.npz", np.array([_Harmful(came)], dtype=object))
    with pytest.raises(InputError, match=r"a\.npz: is no \.npz of token arrays .*; make it with: redditgen tokenize$"):
        read(path)
    assert not came.exists()
    with np.load(path, allow_pickle=True) as arrays:  # it would have been
        arrays["arr_0"]
    assert came.exists()


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.array([], np.int32)],
        [np.array([1, 2]), np.array([3, 340])],
        [np.array([-1, 2])],
        [np.array([1.0, 2.0])],
        [np.array([[1, 2], [3, 4]])],
        [np.array(7)],
        [np.array(["a", "b"])],
        [np.array([True])],
    ],
)
def test_what_are_no_tokens_of_the_model_is_refused(read: Read, tmp_path: Path, arrays: list[Any]) -> None:
    with pytest.raises(InputError, match=r"a\.npz: holds no tokens of this model; tokenize .* with the same --model$"):
        read(save(tmp_path / "a.npz", *arrays))


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, np.arange(300))
    whole = buffer.getvalue()
    match kind:
        case "empty":
            return b""
        case "truncated":
            return whole[: len(whole) // 2]
        case "flipped":
            return whole[:100] + bytes([whole[100] ^ 0xFF]) + whole[101:]
        case "text":
            return b"just text"
        case "npy":
            array = io.BytesIO()
            np.save(array, np.arange(9))
            return array.getvalue()
        case _:
            foreign = io.BytesIO()
            with zipfile.ZipFile(foreign, "w") as archive:
                archive.writestr("readme.txt", "no array")
            return foreign.getvalue()


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "text", "npy", "foreign"])
def test_a_damaged_npz_is_refused(read: Read, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(damaged(kind))
    with pytest.raises(InputError, match=r"a\.npz: (is no \.npz of token arrays \(.+\)|holds no tokens of this model)"):
        read(path)


# Plain text


def words(count: int, word: str = "word") -> str:
    return "".join(f"{word}{number} " for number in range(count))


def test_text_without_a_record_is_learned_as_it_is(
    read: Read, tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = words(50) + "\n\nA line.\n"
    data = read(write(tmp_path / "a.txt", text), window=16)
    assert text_of(data, tokenizer) == [text + END_TOKEN]
    assert data.run_info == OF_PLAIN_TEXT
    assert len(data.held_out) == 0
    assert "a.txt: holds no record, so it is learned as plain text" in caplog.text


def test_line_breaks_of_plain_text_are_those_of_python(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.txt", "\ufeffone\r\ntwo\rthree\n" + words(30)), window=8)
    assert text_of(data, tokenizer) == ["one\ntwo\nthree\n" + words(30) + END_TOKEN]


def test_the_end_of_plain_text_is_held_out_in_windows(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", words(200))
    ids = tokenizer.encode([words(200) + END_TOKEN])[0].ids
    data = read(path, window=16, val_fraction=0.25)
    assert isinstance(data.train, TokenStream)
    cut = len(ids) - len(ids) // 4
    assert [chunk.tolist() for chunk in data.train.chunks] == [ids[:cut]]
    rows = [data.held_out.sequences[number].tolist() for number in range(len(data.held_out))]
    tail = [ids[at : at + 16] for at in range(cut, len(ids), 16)]
    assert rows == [row for row in tail if len(row) > 1]
    assert (data.held_out.title_starts == 1).all()
    assert data.held_out.title_ends.tolist() == [len(row) for row in rows]
    assert data.held_out.title_chars.tolist() == [len(tokenizer.decode(row[1:])) for row in rows]


def test_a_window_is_at_most_the_context(read: Read, tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.txt", words(500)), window=1024, val_fraction=0.5)
    assert data.held_out.sequences.lengths.max() == N_CTX


def test_text_shorter_than_a_window_is_refused_with_the_figures(
    read: Read, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path, length = write(tmp_path / "a.txt", words(4)), len(tokenizer.encode([words(4) + END_TOKEN])[0].ids)
    assert text_of(read(path, window=length), tokenizer) == [words(4) + END_TOKEN]
    message = rf"a\.txt: its longest text has {length} tokens to train on, and a window {length + 1}; lower --window"
    with pytest.raises(InputError, match=message):
        read(path, window=length + 1)
    with pytest.raises(InputError, match="lower --window, or --val-fraction"):
        read(path, window=length, val_fraction=0.5)


def test_files_are_joined_until_they_are_large_enough(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """And none is lost: gpt-2-simple's end token stands behind each but one that fills a chunk."""
    texts = {name: words(count, name) for name, count in (("a", 20), ("b", 30), ("c", 5), ("d", 60), ("e", 3))}
    for name, text in texts.items():
        write(tmp_path / f"{name}.txt", text)
    data = read(tmp_path, window=8, combine=190)
    assert text_of(data, tokenizer) == [
        texts["a"] + END_TOKEN + texts["b"],
        texts["c"] + END_TOKEN + texts["d"],
        texts["e"] + END_TOKEN,
    ]
    assert text_of(read(tmp_path, window=8), tokenizer) == ["".join(text + END_TOKEN for text in texts.values())]
    assert text_of(read(tmp_path, window=8, combine=1), tokenizer) == list(texts.values())


def test_the_arrays_of_an_npz_of_plain_text_stay_apart(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    chunks = [np.array(tokenizer.encode([words(30, word)])[0].ids) for word in ("a", "b", "c")]
    data = read(save(tmp_path / "a.npz", *chunks), window=8)
    assert isinstance(data.train, TokenStream)
    assert [chunk.tolist() for chunk in data.train.chunks] == [chunk.tolist() for chunk in chunks]
    assert {chunk.dtype for chunk in data.train.chunks} == {np.dtype(np.int32)}
    assert data.run_info == OF_PLAIN_TEXT


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
def test_an_empty_file_is_refused(read: Read, tmp_path: Path, content: str) -> None:
    write(tmp_path / "a.txt", words(100))
    write(tmp_path / "b.txt", content)
    for path in (tmp_path / "b.txt", tmp_path):
        with pytest.raises(InputError, match=r"b\.txt: is empty; `redditgen encode` makes a file of records"):
            read(path, window=8)


def test_text_that_is_not_utf8_is_refused_with_its_place(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(words(100).encode() + b"\nT\xe4tig\n")
    with pytest.raises(InputError, match=r"a\.txt: line 2, byte 2 \(0xe4\) is not UTF-8"):
        read(tmp_path / "a.txt", window=8)


# Several files


def test_a_path_a_folder_and_a_pattern_name_files(tmp_path: Path) -> None:
    made = [write(tmp_path / name, "x") for name in ("b.txt", "a.txt", "c[1].csv", "a.txt.meta.json", ".hidden")]
    (tmp_path / "deeper").mkdir()
    below = write(tmp_path / "deeper/z.txt", "x")
    b, a, c, _, hidden = made
    assert find_files(b) == [b]
    assert find_files(hidden) == [hidden]
    assert find_files(c) == [c]
    assert find_files(tmp_path) == [a, b, c, below]
    assert find_files(tmp_path / "*.txt") == [a, b]
    assert find_files(tmp_path / "**/*.txt") == [a, b, below]


def test_a_folder_with_a_patterns_letters_in_its_name_is_that_folder(tmp_path: Path) -> None:
    odd = tmp_path / "data [1]"
    odd.mkdir()
    assert find_files(write(odd / "a.txt", "x")) == find_files(odd) == [odd / "a.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.txt", r"gone\.txt: no such file; `redditgen encode` makes"),
        ("*.txt", r"\*\.txt: no such file"),
        ("empty", r"empty: no file in it"),
    ],
)
def test_nothing_to_read_is_said(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=message):
        find_files(tmp_path / name)


def test_files_of_records_are_learned_together(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "title\nOne\n")
    write(tmp_path / "b.csv", "Two\n")
    write(tmp_path / "c.txt", f"{START_TOKEN}Three{END_TOKEN}\n")
    save(tmp_path / "d.npz", np.array(tokenizer.encode([f"{START_TOKEN}Four{END_TOKEN}"])[0].ids))
    assert titles_of(read(tmp_path), tokenizer) == ["One", "Two", "Three", "Four"]
    assert titles_of(read(tmp_path / "*.csv"), tokenizer) == ["One", "Two"]


@pytest.mark.parametrize("other", ["b.txt", "b.csv", "b.npz"])
def test_files_of_records_and_of_plain_text_are_not_mixed(
    read: Read, tokenizer: Tokenizer, tmp_path: Path, other: str
) -> None:
    write(tmp_path / "a.txt", words(100))
    path = tmp_path / other
    if other == "b.npz":
        save(path, np.array(tokenizer.encode([build(Record(title="A"))])[0].ids))
    else:
        write(path, "A title\n" if other == "b.csv" else build(Record(title="A")))
    message = rf"{tmp_path}: {path} holds records and {tmp_path / 'a.txt'} none; finetune on them one by one"
    with pytest.raises(InputError, match=message):
        read(tmp_path)


# Runs


def test_a_run_goes_on_with_what_it_began_with(read: Read, tmp_path: Path) -> None:
    records = write(tmp_path / "records.txt", build(Record(category="cats", title="A title")))
    table, plain = write(tmp_path / "t.csv", "A title\n"), write(tmp_path / "plain.txt", words(100))
    for path in (records, table):
        with pytest.raises(UsageError, match=r": is records, which run run1 never saw; start another run$"):
            read(path, OF_PLAIN_TEXT)
    with pytest.raises(UsageError, match=r"plain\.txt: is plain text, which run run1 never saw; start another run$"):
        read(plain, OF_RECORDS, window=8)
    assert read(records, OF_RECORDS).run_info == RunInfo(
        COMPACT_TOKENS, "tiny", ("category", "title"), {"cats": 1}, "title"
    )
    assert read(plain, OF_PLAIN_TEXT, window=8).run_info == OF_PLAIN_TEXT


def test_a_foreign_run_takes_either(read: Read, tmp_path: Path) -> None:
    records, plain = write(tmp_path / "r.txt", build(Record(title="A"))), write(tmp_path / "p.txt", words(100))
    assert read(records, RunInfo()).run_info == RunInfo(
        record_tokens=LITERAL_TOKENS, sections=("title",), loss_on="title"
    )
    assert read(plain, RunInfo(), window=8).run_info == RunInfo(record_tokens=NO_RECORDS, sections=())


def test_a_file_whose_first_record_comes_late_is_plain_text(read: Read, tmp_path: Path) -> None:
    far = write(tmp_path / "far.txt", "x " * 40_000 + build(Record(title="A")))
    near = write(tmp_path / "near.txt", "x " * 20_000 + build(Record(title="A")))
    assert isinstance(read(far, window=8).train, TokenStream)
    assert isinstance(read(near).train, Examples)


def test_everything_held_out_is_refused(read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "".join(f"{number}\n" for number in range(5)))
    with pytest.raises(InputError, match=r"t\.csv: every title is held out and none left .*; lower --val-fraction"):
        read(path, val_fraction=1 - 1e-9)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.npz"])
def test_no_dataset_is_touched(read: Read, tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.npz":
        save(path, np.array(tokenizer.encode([build(Record(title="A"))])[0].ids))
    else:
        write(path, words(100) if name == "a.txt" else "One\n")
    before = path.read_bytes()
    read(path, window=8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_changed_byte_in_an_npz_is_no_crash(finetuning: Settings, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """An .npz with any byte changed is read or refused, never a crash."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, np.array(tokenizer.encode([build(Record(title="A"))])[0].ids))
    whole = buffer.getvalue()
    settings: FinetuneSettings = finetuning(dataset=tmp_path / "a.npz", val_fraction=0.0)
    rng, refused = np.random.default_rng(0), 0
    for place in rng.permutation(len(whole))[:150]:
        settings.dataset.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_dataset(settings, NEW, tokenizer, N_CTX)
        except RedditgenError:
            refused += 1
    assert refused > 50


# Held-out records of their own


def held_out_of(data: Dataset, tokenizer: Tokenizer) -> list[str]:
    rows = [data.held_out.sequences[number].tolist() for number in range(len(data.held_out))]
    return [tokenizer.decode(row[1:-1]) for row in rows]


@pytest.mark.parametrize("name", ["val.txt", "val.csv", "val.jsonl", "val.npz"])
def test_the_records_of_another_file_are_held_out(
    read: Read, tokenizer: Tokenizer, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing else; titles that stand in both are not learned."""
    path = write(tmp_path / "t.csv", "".join(f"Title {number}\n" for number in range(50)) + "Both\nBoth\n")
    match name:
        case "val.csv":
            write(tmp_path / name, "title\nOther\nBoth\n")
        case "val.jsonl":
            write(tmp_path / name, '{"title": "Other"}\n{"title": "Both"}\n')
        case "val.txt":
            write(tmp_path / name, f"{START_TOKEN}~@Other{END_TOKEN}\n{START_TOKEN}~`x~@Both{END_TOKEN}\n")
        case _:
            save(
                tmp_path / name,
                np.array(tokenizer.encode([f"{START_TOKEN}Other{END_TOKEN}{START_TOKEN}Both{END_TOKEN}"])[0].ids),
            )
    with caplog.at_level(logging.INFO):
        data = read(path, val=tmp_path / name, val_fraction=0.5)
    assert titles_of(data, tokenizer) == [f"Title {number}" for number in range(50)]
    assert [text.rpartition("~@")[2] for text in held_out_of(data, tokenizer)] == ["Other", "Both"]
    assert f"t.csv: 2 records left out whose titles {tmp_path / name} holds too" in caplog.text
    assert "t.csv: 50 records to train on, 2 held out" in caplog.text
    assert (data.run_info.sections, data.run_info.categories) == ((), {})


def test_held_out_records_may_stand_in_the_datasets_folder(
    read: Read, tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.csv", "One\nTwo\n")
    val = write(tmp_path / "a.val.csv", "Three\n")
    data = read(tmp_path, val=val)
    assert titles_of(data, tokenizer) == ["One", "Two"]
    assert held_out_of(data, tokenizer) == ["Three"]
    assert "left out" not in caplog.text
    for path in (val, tmp_path / "*.val.csv"):
        with pytest.raises(UsageError, match=r"--val: .*a\.val\.csv is the dataset itself; name another file"):
            read(path, val=val)


def test_files_that_hold_the_same_titles_leave_nothing_to_learn(read: Read, tmp_path: Path) -> None:
    path, val = write(tmp_path / "t.csv", "One\nTwo\n"), write(tmp_path / "val.csv", "Two\nOne\n")
    with pytest.raises(InputError, match=r"t\.csv: every title stands in --val too and none is left to train on"):
        read(path, val=val)


def test_held_out_records_that_are_none_are_refused(read: Read, tmp_path: Path) -> None:
    path, plain = write(tmp_path / "t.csv", "One\nTwo\n"), write(tmp_path / "plain.txt", words(100))
    with pytest.raises(InputError, match=r"plain\.txt: holds no record to measure on \(--val\); `redditgen encode`"):
        read(path, val=plain)
    with pytest.raises(MissingError, match=r"gone\.txt: no such file"):
        read(path, val=tmp_path / "gone.txt")
    with pytest.raises(UsageError, match=r"--val: .*plain\.txt is plain text, whose end is held out; use --val-frac"):
        read(plain, val=path, window=8)


def test_records_without_a_title_are_parted_by_their_body(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    records = [Record(category="c", body=f"body {number}") for number in range(200)]
    data = read(write(tmp_path / "a.txt", "".join(map(build, records))), val_fraction=0.2)
    assert 20 < len(data.held_out) < 60
    val = write(tmp_path / "val.txt", build(records[3]) + build(Record(keywords="k")))
    data = read(write(tmp_path / "b.txt", "".join(map(build, [*records, Record(keywords="k")]))), val=val)
    assert len(data.train) == 200 if isinstance(data.train, Examples) else False


# Titles alone


def test_records_without_a_title_teach_no_title(read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    untitled, titled = Record(category="cats", keywords="a"), Record(category="cats", title="")
    path = write(tmp_path / "a.txt", build(untitled) + build(titled))
    data = read(path, loss_on="title")
    assert isinstance(data.train, Examples) and len(data.train) == 1
    assert "a.txt: 1 records without a title left out (--loss-on)" in caplog.text
    with pytest.raises(InputError, match=r"b\.txt: holds no title to learn; leave out --loss-on title"):
        read(write(tmp_path / "b.txt", build(untitled)), loss_on="title")


@pytest.mark.parametrize(
    ("records", "of_run", "asked", "engine", "loss_on"),
    [
        (TITLED, None, None, "torch", "title"),
        (TITLED, None, "record", "torch", "record"),
        (TITLED, "record", None, "torch", "record"),
        (TITLED, "record", "title", "torch", "title"),
        ([*TITLED, Record(category="cats", body="b")], None, None, "torch", "record"),
        (TITLED[:1], None, None, "torch", "record"),
        (TITLED, None, None, "gpt-2-simple", "record"),
        (TITLED, "title", None, "gpt-2-simple", "record"),
    ],
)
def test_a_run_learns_titles_alone_where_it_can_be_asked_for_any(
    read: Read, tmp_path: Path, records: list[Record], of_run: str | None, asked: str | None, engine: str, loss_on: str
) -> None:
    path = write(tmp_path / "a.txt", "".join(map(build, records)))
    data = read(path, run_info=RunInfo(loss_on=of_run), loss_on=asked, engine=engine)
    assert data.run_info.loss_on == loss_on
    assert isinstance(data.train, TokenStream) or len(data.train) == len(records)


def test_plain_text_has_no_titles_to_learn_alone(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--loss-on title: .*a\.txt is plain text, which has no titles; leave it out"):
        read(write(tmp_path / "a.txt", words(100)), window=8, loss_on="title")


def test_what_is_left_out_of_a_file_is_said_once(
    finetuning: Settings, tmp_path: Path, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The titles that a run remembers come with what it learns, and not from reading the file again."""
    path = tmp_path / "cut.txt"
    path.write_text(dataset.read_text(encoding="utf8") + "<|startoftext|>~`cats~@My cat", encoding="utf8")
    finetune(finetuning(dataset=path, steps=1))
    assert caplog.text.count("1 unfinished and 0 malformed records left out") == 1
