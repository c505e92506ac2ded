import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from redditgen.encode.command import encode
from redditgen.encode.decode import decode
from redditgen.engines.data.dataset import Dataset
from redditgen.engines.data.examples import DynamicExamples, Examples
from redditgen.errors import InputError, UsageError
from redditgen.finetune.dataset.json_records import read_json_records
from redditgen.finetune.dataset.load import read_dataset
from redditgen.finetune.tokenize import tokenize
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, RunInfo
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import DecodeSettings, EncodeSettings, TokenizeSettings
from redditgen.titles.keyword_draws import KeywordPool, draw_keywords
from redditgen.titles.record import Record, build, parse_sections
from redditgen.titles.record_reader import read_records
from tests.support.fixture_types import Settings
from tests.support.tiny_model import N_CTX

CAT = {"category": "cats", "keywords": ["cat", "old", "the-sofa"], "title": "My old cat on the sofa"}
DOG = {"category": "dogs", "keywords": ["dog"], "title": "A dog"}

Read = Callable[..., Dataset]


@pytest.fixture(scope="module")
def tokenizer(tiny: ModelDir) -> Tokenizer:
    return tiny.tokenizer()


@pytest.fixture
def read(finetuning: Settings, tokenizer: Tokenizer) -> Read:
    """Reads a dataset for a new run, with nothing held out."""

    def read(path: Path, **changes: Any) -> Dataset:
        settings = finetuning(dataset=path, **({"val_fraction": 0.0} | changes))
        return read_dataset(settings, RunInfo(record_tokens=COMPACT_TOKENS, model="tiny"), tokenizer, N_CTX)

    return read


def write(path: Path, *objects: Any) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects), encoding="utf8")
    return path


def records_in(made: Examples, tokenizer: Tokenizer) -> list[Record | None]:
    rows = [made.sequences[number].tolist() for number in range(len(made))]
    return [parse_sections(tokenizer.decode(row[1:-1])) for row in rows]


# Lines


def test_a_list_of_keywords_is_drawn_from_and_a_text_is_not(tmp_path: Path) -> None:
    lists = write(
        tmp_path / "a.jsonl", CAT, {"keywords": [], "title": ""}, {"title": "None"}, {"keywords": None, **DOG}
    )
    assert list(read_json_records(lists)) == [
        KeywordPool(category="cats", keywords="cat old the-sofa", title="My old cat on the sofa"),
        KeywordPool(keywords="", title=""),
        Record(title="None"),
        KeywordPool(category="dogs", keywords="dog", title="A dog"),
    ]
    made = write(tmp_path / "b.jsonl", {"keywords": "cat old", "title": "T"}, {"keywords": "", "body": "B\nb"})
    assert list(read_json_records(made)) == [Record(keywords="cat old", title="T"), Record(keywords="", body="B\nb")]


def test_blank_lines_and_absent_sections_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff\n{"title": "One", "body": null, "score": null}\r\n  \n{"category": "c"}'.encode())
    assert list(read_json_records(path)) == [Record(title="One"), Record(category="c")]


def test_a_keyword_is_one_word_and_half_a_character_is_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"keywords": ["the  old\\ncat", " ", "x"], "title": "\\ud83d \\ud83d\\ude00"}\n', encoding="utf8")
    assert list(read_json_records(path)) == [KeywordPool(keywords="the-old-cat x", title="\ufffd 😀")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"is no JSON: Expecting"),
        ("[" * 100_000, r"is no JSON: "),
        ("title", r"is no JSON: "),
        ('["title"]', r"is no JSON object of sections$"),
        ("{}", r"has none of the sections category, keywords, title, body$"),
        ('{"title": null}', r"has none of the sections"),
        ('{"title": 7}', r"title must be a text, not 7$"),
        ('{"title": ["a"]}', r'title must be a text, not \["a"\]$'),
        ('{"title": "T", "keywords": {"a": 1}}', r'keywords must be a text, not \{"a": 1\}$'),
        ('{"title": "T", "keywords": ["a", 1]}', r"a keyword must be a text, not 1$"),
        ('{"title": "T", "subreddit": "cats"}', r"'subreddit' is no section; .* redditgen encode FILE$"),
        ('{"title": "T", "keywords": "a b"}', r"its keywords are no list and those of the first line a list; put"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_number(
    read: Read, tmp_path: Path, line: str, message: str
) -> None:
    path = write(tmp_path / "a.jsonl", CAT)
    path.write_text(path.read_text(encoding="utf8") + f"\n{line}\n", encoding="utf8")
    with pytest.raises(InputError, match=rf"a\.jsonl, line 3: {message}"):
        read(path)


def test_a_list_behind_a_text_is_refused(read: Read, tmp_path: Path) -> None:
    for first in ({"title": "T"}, {"title": "T", "keywords": "a b"}):
        with pytest.raises(InputError, match=r"line 2: its keywords are a list and those of the first line no list"):
            read(write(tmp_path / "a.jsonl", first, CAT))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(read: Read, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jsonl: is empty; `redditgen encode --dynamic` makes"):
        read(tmp_path / "a.jsonl")


def test_text_that_is_not_utf8_is_refused_with_its_place(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"title": "T"}\n{"title": "T\xe4tig"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl: line 2, byte 13 \(0xe4\) is not UTF-8"):
        read(tmp_path / "a.jsonl")


# What our own commands write


def titles_csv(path: Path) -> Path:
    rows = [f"cats,My cat number {number},cat; number; the sofa\n" for number in range(90)]
    path.write_text("subreddit,title,words\n" + "".join(rows), encoding="utf8")
    return path


def test_what_encode_writes_is_read(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    table = titles_csv(tmp_path / "t.csv")
    encode(EncodeSettings(input=table, keywords_field="words", keyword_sep=";", dynamic=True, split="val=0.2"))
    data = read(tmp_path / "t_encoded.jsonl", val=tmp_path / "t_encoded.val.jsonl")
    assert isinstance(data.train, DynamicExamples)
    assert len(data.train) + len(data.held_out) == 90
    assert len(data.held_out) > 5
    assert {record.keywords for record in data.train.records} == {"cat number the-sofa"}
    assert data.run_info.sections == ("category", "keywords", "title")
    assert data.run_info.categories == {"cats": len(data.train)}


def test_what_decode_writes_is_the_file_that_it_read(
    read: Read, finetuning: Settings, dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    decode(DecodeSettings(input=dataset, out=path, sections="title,keywords,category"))
    made, wanted = read(path), read(dataset)
    assert isinstance(made.train, Examples) and isinstance(wanted.train, Examples)
    assert made.train.sequences.ids.tolist() == wanted.train.sequences.ids.tolist()
    assert made.run_info == wanted.run_info


# Draws


def test_held_out_records_have_one_draw(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({**CAT, "title": f"Cat {number}"} for number in range(200)))
    data = read(path, val_fraction=0.3, min_keywords=1, max_keywords=2, seed=4)
    assert isinstance(data.train, DynamicExamples)
    assert (data.train.min_keywords, data.train.max_keywords, data.train.seed) == (1, 2, 4)
    found = records_in(data.held_out, tokenizer)
    drawn = [draw_keywords(Random(f"4 held out {number}"), CAT["keywords"], 1, 2) for number in range(len(found))]
    assert [record.keywords for record in found if record] == drawn
    again = read(path, val_fraction=0.3, min_keywords=1, max_keywords=2, seed=4)
    assert again.held_out.sequences.ids.tolist() == data.held_out.sequences.ids.tolist()
    assert not {record.title for record in found if record} & {record.title for record in data.train.records}


def test_from_0_to_3_keywords_are_drawn_if_nothing_is_asked(read: Read, tmp_path: Path) -> None:
    train = read(write(tmp_path / "a.jsonl", CAT)).train
    assert isinstance(train, DynamicExamples) and (train.min_keywords, train.max_keywords) == (0, 3)
    train = read(write(tmp_path / "a.jsonl", CAT), max_keywords=0).train
    assert isinstance(train, DynamicExamples) and (train.min_keywords, train.max_keywords) == (0, 0)


def test_files_of_several_kinds_are_learned_together(read: Read, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", CAT, DOG)
    write(tmp_path / "b.jsonl", {"title": "Fixed", "keywords": "of old"})
    (tmp_path / "c.txt").write_text(build(Record(category="fish", keywords="fin", title="A fish")), encoding="utf8")
    (tmp_path / "d.csv").write_text("A bird\n", encoding="utf8")
    data = read(tmp_path, min_keywords=3)
    assert isinstance(data.train, DynamicExamples)
    cat, *others = records_in(data.train.pool(0, range(5)), tokenizer)
    assert cat and sorted((cat.keywords or "").split()) == sorted(CAT["keywords"])
    assert others == [
        Record(category="dogs", keywords="dog", title="A dog"),
        Record(keywords="of old", title="Fixed"),
        Record(category="fish", keywords="fin", title="A fish"),
        Record(title="A bird", has_sections=False),
    ]
    assert data.run_info.categories == {"cats": 1, "dogs": 1, "fish": 1}


@pytest.mark.parametrize("flag", ["--min-keywords", "--max-keywords"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "plain.txt"])
def test_keywords_are_asked_for_only_where_some_are_drawn(read: Read, tmp_path: Path, name: str, flag: str) -> None:
    path = tmp_path / name
    text = {"a.txt": build(Record(title="A")), "a.jsonl": '{"title": "A", "keywords": "b"}\n'}.get(name, "A " * 200)
    path.write_text(text, encoding="utf8")
    with pytest.raises(UsageError, match=rf"{flag}: .*{name} was not made by encode --dynamic, so nothing is drawn"):
        read(path, **{flag.removeprefix("--").replace("-", "_"): 3}, window=8)


def test_records_that_a_draw_may_make_too_long_are_said(
    read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.jsonl", CAT, {**CAT, "keywords": ["z" * 90, "a"]})
    read(path)
    assert "a.jsonl: 1 records are longer than 64 tokens and were cut" in caplog.text
    caplog.clear()
    read(path, max_keywords=0)
    assert "cut" not in caplog.text


# Tokens alone


def test_drawn_keywords_are_not_tokenized_once(model_dir: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", CAT)
    for record_tokens in ("compact", "literal"):
        settings = TokenizeSettings(dataset=path, model="tiny", model_dir=model_dir, record_tokens=record_tokens)
        with pytest.raises(InputError, match=r"a\.jsonl: its keywords are drawn anew every epoch; encode without"):
            tokenize(settings)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("record_tokens", ["compact", "literal"])
def test_fixed_ones_are_tokenized_as_their_text_is(
    dataset: Path, model_dir: Path, tmp_path: Path, record_tokens: str
) -> None:
    path, given = tmp_path / "a.jsonl", tmp_path / "a.txt"
    given.write_bytes(dataset.read_bytes())
    decode(DecodeSettings(input=dataset, out=path, sections="title,keywords,category"))
    made = []
    for file, out in ((path, "json.npz"), (given, "text.npz")):
        settings = TokenizeSettings(
            dataset=file, out=tmp_path / out, model="tiny", model_dir=model_dir, record_tokens=record_tokens, combine=1
        )
        tokenize(settings)
        with np.load(tmp_path / out) as arrays:
            made.append([arrays[name].tolist() for name in arrays.files])
    assert made[0] == made[1]
    assert sum(1 for _ in read_records(given)) == 320
