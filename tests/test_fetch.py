"""fetch over real files, against an oracle in plain Python that knows no SQL."""

import csv
import gzip
import json
import logging
import os
import random
import signal
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen import bundled
from redditgen.errors import InputError, MissingError, OutputExists, UsageError
from redditgen.fetch import FetchCounts, fetch, query
from redditgen.fetch.duckdb import LocalPosts
from redditgen.fetch.files import find
from redditgen.output import sha256, sidecar_path
from redditgen.settings import FetchSettings

Post = dict[str, Any]
Row = tuple[str, str]
Write = Callable[[Path, list[Post]], None]

COLUMNS = ("id", "subreddit", "author", "title", "score", "num_comments", "over_18")
REAL_POSTS = Path(__file__).parents[2] / "shared/data/reddit_posts_2013.parquet"

PIECES = (
    *("a", "B", "é", "ß", "日本", "😀", "👩‍🚀", " ", "  ", "\t", "\n", "\r\n", "\u2028", "\u00a0", "\x85", "\x1f"),
    *('"', '""', "'", ",", ";", "|", "\\", "\\n", "~@", "~`", "~^", "<|endoftext|>", "$", "%", "{", "#", "NULL"),
    *("&amp;", "&lt;", "&gt;", "&amp;lt;", "&amp;amp;", "&", "&quot;", "\ufffd"),
)
EMPTY_TITLES = (None, "", " ", "\n", "\ufffd", " \ufffd\u3000\r\n")


# --- the oracle ---


def clean(title: str) -> str:
    for written, meant in (("\ufffd", ""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        title = title.replace(written, meant)
    blank = {"Cc", "Zs", "Zl", "Zp"}
    words = "".join(" " if unicodedata.category(char) in blank else char for char in title).split(" ")
    return " ".join(word for word in words if word)


def top_subreddits(posts: list[Post], setup: FetchSettings) -> set[str]:
    block = set(query.blocked(setup.block))
    authors: dict[str, set[str]] = defaultdict(set)
    for post in posts:
        if post["score"] >= setup.min_score and post["subreddit"].lower() not in block:
            authors[post["subreddit"]] |= {post["author"]} - {None}
    return set(sorted(authors, key=lambda name: (-len(authors[name]), name))[: setup.top_subreddits])


def expected(posts: list[Post], setup: FetchSettings) -> list[Row]:
    posts = [post for post in posts if post["subreddit"] and not (setup.sfw and post["over_18"])]
    top = top_subreddits(posts, setup)
    titled: dict[str, list[Post]] = defaultdict(list)
    for post in posts:
        if post["subreddit"] in top and clean(post["title"] or ""):
            titled[post["subreddit"]].append(post)
    return [
        (name, clean(post["title"]))
        for name in sorted(titled)
        for post in sorted(titled[name], key=lambda post: (-post["score"], post["id"]))[: setup.per_subreddit]
    ]


# --- files of posts ---


def hostile_posts(seed: int, count: int = 2500) -> list[Post]:
    rng = random.Random(seed)
    names = [f"sub_{number}" for number in range(40)] + ["ME_IRL", "anime_irl", "AskReddit", "askreddit2"]
    return [
        {
            "id": f"{number * 7919 % count:05x}",
            "subreddit": rng.choice(names) if rng.random() > 0.01 else None,
            "author": rng.choice((None, "[deleted]", *(f"user{rng.randrange(60)}" for _ in range(8)))),
            "title": rng.choice(EMPTY_TITLES) if rng.random() < 0.05 else hostile_title(rng),
            "score": rng.randrange(12),
            "num_comments": rng.randrange(100),
            "over_18": rng.choice((True, False, False, False, None)),
        }
        for number in range(count)
    ]


def hostile_title(rng: random.Random) -> str:
    return "".join(rng.choices(PIECES, k=rng.randrange(1, 12)))


def write_ndjson(path: Path, posts: list[Post]) -> None:
    path.write_text("".join(json.dumps(post) + "\n" for post in posts), encoding="utf8")


def write_csv(path: Path, posts: list[Post]) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(posts[0]))
        writer.writeheader()
        writer.writerows(posts)


def write_parquet(path: Path, posts: list[Post]) -> None:
    ndjson = path.with_suffix(".tmp.ndjson")
    write_ndjson(ndjson, posts)
    types = {"score": "INTEGER", "num_comments": "INTEGER", "over_18": "BOOLEAN"}
    columns = str({column: types.get(column, "VARCHAR") for column in posts[0]})
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_json('{ndjson}', format = 'nd', columns = {columns})) TO '{path}' "
            "(FORMAT parquet, ROW_GROUP_SIZE 2048)"
        )
    ndjson.unlink()


def gzipped(write: Write) -> Write:
    def write_gzipped(path: Path, posts: list[Post]) -> None:
        write(path, posts)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_gzipped


WRITERS: dict[str, Write] = {
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".csv.gz": gzipped(write_csv),
    ".ndjson": write_ndjson,
    ".jsonl.gz": gzipped(write_ndjson),
}


def read_titles(path: Path) -> list[Row]:
    with path.open(encoding="utf8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["subreddit", "title"]
    return [(subreddit, title) for subreddit, title in rows]


def setup_for(folder: Path, *sources: Path | str, **options: Any) -> FetchSettings:
    return FetchSettings(source=tuple(map(str, sources)), out=folder / "out" / "titles.csv", **options)


def fetched(setup: FetchSettings) -> list[Row]:
    fetch(setup)
    return read_titles(setup.out)


def one_post(**fields: Any) -> Post:
    default = {"id": "a1", "subreddit": "aww", "author": "x", "title": "A cat", "score": 9, "over_18": False}
    return {**default, **fields}


# --- the titles ---


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_titles_equal_the_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, threads: int) -> None:
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda config=None: connect(config={**(config or {}), "threads": threads}))
    posts = hostile_posts(seed=1)
    WRITERS[suffix](tmp_path / f"posts{suffix}", posts)
    setup = setup_for(tmp_path, tmp_path / f"posts{suffix}", top_subreddits=25)
    assert fetched(setup) == expected(posts, setup)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sfw": False},
        {"min_score": 11, "per_subreddit": 3},
        {"min_score": -1, "top_subreddits": 3, "per_subreddit": 1000},
        {"block": ""},
        {"block": "r/askreddit, /r/Sub_3,SUB_4/"[:-1]},
    ],
)
def test_options_equal_the_oracle(tmp_path: Path, options: dict[str, Any]) -> None:
    posts = hostile_posts(seed=2)
    write_ndjson(tmp_path / "posts.ndjson", posts)
    setup = setup_for(tmp_path, tmp_path / "posts.ndjson", **options)
    titles = fetched(setup)
    assert titles == expected(posts, setup)
    assert titles


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_any_title_comes_out_clean_and_on_one_line(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    posts = [one_post(id=f"{number:03}", title=title) for number, title in enumerate([*titles, "last"])]
    write_ndjson(folder / "posts.ndjson", posts)
    setup = setup_for(folder, folder / "posts.ndjson", per_subreddit=100)
    rows = fetched(setup)
    assert rows == expected(posts, setup)
    assert all(len(title.splitlines()) == 1 and title == title.strip() for _, title in rows)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Q&amp;A", "Q&A"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ("1 &lt; 2 &gt; 0", "1 < 2 > 0"),
        ("bro\ufffdken", "broken"),
        ("&\ufffdlt;", "<"),
        (" two\r\n lines\u2028here\u00a0", "two lines here"),
        ('"quoted", it said', '"quoted", it said'),
    ],
)
def test_a_title_is_cleaned(tmp_path: Path, written: str, meant: str) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(title=written)])
    assert fetched(setup_for(tmp_path, tmp_path / "posts.ndjson")) == [("aww", meant)]


def test_the_csv_is_plain(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(title='a, "b"'), one_post(id="a2", title="日本")])
    setup = setup_for(tmp_path, tmp_path / "posts.ndjson")
    fetch(setup)
    assert setup.out.read_bytes() == 'subreddit,title\naww,"a, ""b"""\naww,日本\n'.encode()


def test_ties_go_by_id_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    posts = [one_post(id=f"{number:03}", title=f"title {number:03}") for number in range(50)]
    for seed in range(3):
        random.Random(seed).shuffle(posts)
        write_csv(tmp_path / "posts.csv", posts)
        titles = fetched(setup_for(tmp_path, tmp_path / "posts.csv", overwrite=True))
        assert titles == [("aww", f"title {number:03}") for number in range(18)]


def test_empty_titles_take_no_rank(tmp_path: Path) -> None:
    empty = [one_post(id=str(number), title=title, score=99) for number, title in enumerate(EMPTY_TITLES)]
    write_parquet(tmp_path / "posts.parquet", [*empty, one_post(id="z", title="seen", score=5)])
    assert fetched(setup_for(tmp_path, tmp_path / "posts.parquet", per_subreddit=1)) == [("aww", "seen")]


def test_block_list_in_a_file(tmp_path: Path) -> None:
    posts = hostile_posts(seed=3)
    write_ndjson(tmp_path / "posts.ndjson", posts)
    (tmp_path / "block.txt").write_text("\ufeffsub_1\n\n r/Sub_2 \nSUB_3", encoding="utf8")
    setup = setup_for(tmp_path, tmp_path / "posts.ndjson", block=str(tmp_path / "block.txt"))
    titles = fetched(setup)
    assert not {"sub_1", "sub_2", "sub_3"} & {subreddit for subreddit, _ in titles}
    assert titles == expected(posts, setup)


def test_block_names_a_subreddit_with_a_dot() -> None:
    assert query.blocked("reddit.com,Funny") == ["reddit.com", "funny"]


# --- the sources ---


def test_several_sources_are_one(tmp_path: Path) -> None:
    posts = hostile_posts(seed=4)
    (tmp_path / "month").mkdir()
    write_parquet(tmp_path / "month" / "a.parquet", posts[:800])
    write_csv(tmp_path / "month" / "b.csv", posts[800:1600])
    write_ndjson(tmp_path / "month" / "b.csv.meta.json", [{"not": "posts"}])
    write_ndjson(tmp_path / "c1.jsonl", posts[1600:2000])
    write_ndjson(tmp_path / "c2.jsonl", posts[2000:])
    setup = setup_for(tmp_path, tmp_path / "month", tmp_path / "c?.jsonl", tmp_path / "c1.jsonl")
    assert fetched(setup) == expected(posts, setup)


def test_a_path_is_not_a_pattern_to_duckdb(tmp_path: Path) -> None:
    write_csv(tmp_path / "it's [1] of *.csv", [one_post(title="this one")])
    write_csv(tmp_path / "it's 1 of 2.csv", [one_post(title="not this one")])
    assert fetched(setup_for(tmp_path, tmp_path / "it's [1] of *.csv")) == [("aww", "this one")]


def test_only_subreddit_and_title(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    posts = [{"subreddit": "b" if number % 3 else "a", "title": f"title {number}"} for number in range(3000)]
    for suffix, write in WRITERS.items():
        caplog.clear()
        write(tmp_path / f"posts{suffix}", posts)
        titles = fetched(setup_for(tmp_path, tmp_path / f"posts{suffix}", top_subreddits=1, overwrite=True))
        assert titles == [("b", f"title {number}") for number in range(27) if number % 3]
        assert [warning.split(":")[1] for warning in caplog.messages] == [
            " no column 'score'",
            " no column 'author'",
            " no column 'over_18'",
        ]


def test_columns_of_other_types_names_and_order(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text(
        "\ufeffTitle,over_18,column 0, Score,SUBREDDIT,title\r\n"
        "one,False,x,5.0,aww,other\r\ntwo,1,x,7,aww,other\r\nthree,,x,,aww,other\r\n",
        encoding="utf8",
    )
    assert fetched(setup_for(tmp_path, tmp_path / "posts.csv")) == [("aww", "one"), ("aww", "three")]
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'aww' AS Subreddit, 'a' AS title, 7::UTINYINT AS score, 'false' AS over_18, 12 AS id) "
            f"TO '{tmp_path / 'posts.parquet'}'"
        )
    assert fetched(setup_for(tmp_path, tmp_path / "posts.parquet", overwrite=True)) == [("aww", "a")]


def test_sample(tmp_path: Path) -> None:
    if not bundled.path("data/sample_posts.parquet").exists():
        pytest.skip("data/sample_posts.parquet is not there; scripts/make-sample makes it")
    counts = fetch(setup_for(tmp_path, "sample"))
    assert counts.titles > counts.subreddits > 0


def test_sample_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "path", lambda name: tmp_path / name)
    with pytest.raises(MissingError, match="make-sample"):
        find(["sample"])


@pytest.mark.skipif(not REAL_POSTS.exists(), reason=f"{REAL_POSTS} is not there")
def test_real_posts(tmp_path: Path) -> None:
    setup = setup_for(tmp_path, REAL_POSTS)
    assert fetch(setup) == FetchCounts(posts=1_131_438, subreddits=1000, titles=18_000)
    with duckdb.connect() as connection:
        result = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM read_parquet(?)", [str(REAL_POSTS)])
        posts = [dict(zip(COLUMNS, row, strict=True)) for row in result.fetchall()]
    assert read_titles(setup.out) == expected(posts, setup)


# --- the sidecar and the log ---


def test_sidecar_and_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="redditgen")
    path = tmp_path / "posts.csv"
    posts = [one_post(title="one"), one_post(id="a2", title=None), one_post(id="a3", subreddit="b", title="two")]
    write_csv(path, posts)
    setup = setup_for(tmp_path, path, block="x,Y")
    assert fetch(setup) == FetchCounts(posts=3, subreddits=2, titles=2)
    assert caplog.messages == [f"{setup.out}: 2 titles from 2 subreddits"]
    sidecar = json.loads(sidecar_path(setup.out).read_text(encoding="utf8"))
    assert sidecar["command"] == "fetch"
    assert sidecar["settings"]["min_score"] == 5
    assert sidecar["inputs"] == {str(path): sha256(path)}
    assert sidecar["source"] == [{"file": str(path), "format": "CSV", "absent": []}]
    assert sidecar["sql"] == query.text()
    assert sidecar["parameters"] == {
        "min_score": 5,
        "top_subreddits": 1000,
        "per_subreddit": 18,
        "block": ["x", "y"],
        "sfw": True,
    }
    assert sidecar["counts"] == {"posts": 3, "subreddits": 2, "titles": 2}


# --- what can go wrong ---


def fails(setup: FetchSettings, error: type[Exception], *words: str) -> None:
    """The fetch fails on one line that holds the words, and leaves nothing behind."""
    with pytest.raises(error) as caught:
        fetch(setup)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert not setup.out.parent.exists() or not list(setup.out.parent.iterdir())


def test_source_that_is_not_there(tmp_path: Path) -> None:
    fails(setup_for(tmp_path, tmp_path / "nope.csv"), InputError, "nope.csv", "no such file", "--from")
    fails(setup_for(tmp_path, tmp_path / "*.csv"), InputError, "*.csv", "no file matches")
    fails(setup_for(tmp_path, "https://example.org/posts.csv"), InputError, "no such file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme.txt").write_text("")
    fails(setup_for(tmp_path, tmp_path / "folder"), InputError, "folder", "*.ndjson")


@pytest.mark.parametrize("name", ["posts.txt", "posts.parquet.gz", "posts", "RS_2019-08.zst"])
def test_kind_of_file_that_is_not_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("subreddit,title\naww,cat\n")
    fails(setup_for(tmp_path, tmp_path / name), InputError, name, "*.parquet")


CSV_HEADER = b"subreddit,title,score\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"", ["Parquet"]),
        ("a.parquet", b"this is not a Parquet file", ["Parquet"]),
        ("a.csv", b"", ["empty", "header"]),
        ("a.csv", b"subreddit,name\naww,cat\n", ["no column 'title'", "subreddit, name"]),
        ("a.csv", b"subreddit;title\naww;cat\n", ["no column 'subreddit'", "subreddit;title"]),
        ("a.csv", CSV_HEADER, ["no posts"]),
        ("a.csv", CSV_HEADER + b"aww,cat,5\naww,dog\n", ["Line: 3", "aww,dog"]),
        ("a.csv", CSV_HEADER + b"aww,cat,five\n", ["Line: 2", "score", "five"]),
        ("a.csv", CSV_HEADER + b'aww,cat,5\naww,"never closed,5\naww,dog,5\n', ["Line: 3", "unterminated quote"]),
        ("a.csv", CSV_HEADER + "aww,caf\xe9,5\n".encode("latin1"), ["can't be read"]),
        ("a.csv.gz", b"subreddit,title\naww,cat\n", ["CSV"]),
        ("a.csv.gz", gzip.compress(b"subreddit,title\n" + b"aww,cat\n" * 9000)[:-20], ["a.csv.gz"]),
        ("a.csv.gz", gzip.compress(CSV_HEADER + b'aww,cat,5\naww,"never closed,5\n'), ["unterminated quote"]),
        ("a.ndjson", b"", ["empty"]),
        ("a.ndjson", b'{"subreddit": "aww"}\n', ["no column 'title'", "subreddit"]),
        ("a.ndjson", b'[{"subreddit": "aww", "title": "cat"}]\n', ["line 1", "a line"]),
        ("a.ndjson", b'{"subreddit": "aww", "title": "cat"}\n{"subreddit": "a\n', ["line 2", "not JSON"]),
        ("a.ndjson", b'{"subreddit": "aww", "title": "cat"}\n' * 2000 + b'{"subreddit": "a\n', ["Malformed JSON"]),
    ],
)
def test_broken_file(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    fails(setup_for(tmp_path, tmp_path / name), InputError, name, *words)


def test_parquet_broken_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "posts.parquet"
    write_parquet(path, hostile_posts(seed=5))
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :])
    fails(setup_for(tmp_path, path), InputError, "posts.parquet", "can't be read")


def test_the_broken_file_of_several_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "whole.csv", [one_post()])
    (tmp_path / "ragged.csv").write_text("subreddit,title\naww,cat\naww\n")
    with pytest.raises(InputError, match=r"^\S*ragged\.csv: can't be read"):
        fetch(setup_for(tmp_path, tmp_path / "*.csv"))


def test_no_title_left(tmp_path: Path) -> None:
    posts = [one_post(score=4), one_post(subreddit="b", over_18=True), one_post(subreddit="c", title=" ")]
    write_csv(tmp_path / "posts.csv", posts)
    fails(setup_for(tmp_path, tmp_path / "posts.csv"), InputError, "no title left of 3 posts", "--min-score")


@pytest.mark.parametrize("block", ["no/such/list", "subreddits.txt", "funny,lists/a"])
def test_block_list_that_is_not_there(tmp_path: Path, block: str) -> None:
    write_csv(tmp_path / "posts.csv", [one_post()])
    fails(setup_for(tmp_path, tmp_path / "posts.csv", block=block), UsageError, "--block", "file")


def test_block_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "block.txt").write_bytes(b"\xff\xfe\x00")
    fails(setup_for(tmp_path, "sample", block=str(tmp_path / "block.txt")), InputError, "block.txt")


def test_output_that_exists(tmp_path: Path) -> None:
    setup = setup_for(tmp_path, tmp_path / "no-such-source.csv")
    setup.out.parent.mkdir()
    setup.out.write_text("mine")
    with pytest.raises(OutputExists, match="--overwrite"):
        fetch(setup)
    write_csv(tmp_path / "posts.csv", [one_post(score=1)])
    with pytest.raises(InputError, match="no title left"):
        fetch(setup_for(tmp_path, tmp_path / "posts.csv", overwrite=True))
    assert setup.out.read_text() == "mine"
    assert [path.name for path in setup.out.parent.iterdir()] == ["titles.csv"]


def test_output_that_is_an_input(tmp_path: Path) -> None:
    write_csv(tmp_path / "titles.csv", [one_post()])
    setup = FetchSettings(source=(str(tmp_path),), out=tmp_path / "titles.csv", overwrite=True)
    with pytest.raises(UsageError, match="both read and written"):
        fetch(setup)


def test_ctrl_c_ends_a_long_query(tmp_path: Path) -> None:
    write_csv(tmp_path / "posts.csv", [one_post()])
    with LocalPosts(find([str(tmp_path / "posts.csv")]), min_score=5) as posts:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        endless = "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 1000000)) a, UNNEST(GENERATE_ARRAY(1, 1000000)) b"
        with pytest.raises(KeyboardInterrupt):
            list(posts.run(f"{endless} WHERE MOD(a * b, 7) = 3", {}))
