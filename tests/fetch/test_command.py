"""fetch over real files, against an oracle in plain Python that knows no SQL."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from redditgen.errors import InputError, Interrupted, OutputExists, UsageError
from redditgen.fetch.command import FetchCounts, fetch, review
from redditgen.fetch.local.files import find_posts_files
from redditgen.fetch.local.posts import LocalPosts
from redditgen.fetch.sql import query
from redditgen.fetch.sql.duckdb_dialect import translate
from redditgen.files import bundled, sidecar
from redditgen.files.atomic import file_sha256
from redditgen.files.sidecar import sidecar_path
from redditgen.runtime.signals import signals_raise_keyboard_interrupt
from redditgen.settings import FetchSettings
from tests.support.fixture_types import Redditgen
from tests.support.paths import SHARED_DATA
from tests.support.posts import (
    ENDLESS,
    FLAGS,
    SOURCES,
    Post,
    expected,
    fails,
    fetched,
    in_months,
    left_out,
    one_post,
    posts,
    read_rows,
    setup_for,
    write_csv,
    write_ndjson,
    write_parquet,
)

REAL_POSTS = SHARED_DATA / "reddit_posts_2013.parquet"
ALL_COLUMNS = "title,subreddit,score,created_utc,num_comments,id,over_18,author"
MONTHS = ("2018_12", "2019_01", "2019_08", "2020_01")
TITLES_SQL = bundled.path("sql/titles.sql")

needs_real_posts = pytest.mark.skipif(not REAL_POSTS.exists(), reason=f"{REAL_POSTS} is not there")


# --- the titles ---


@pytest.fixture(params=[1, 2, 8])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many has the local engine, whatever the machine has."""
    config = LocalPosts._config
    monkeypatch.setattr(LocalPosts, "_config", lambda posts: config(posts) | {"threads": request.param})


def write_months(folder: Path, suffix: str) -> dict[str, list[Post]]:
    dealt = dict(in_months(posts(seed=1), MONTHS))
    for month, of_month in dealt.items():
        SOURCES[suffix](folder / f"RS_{month.replace('_', '-')}{suffix}", of_month)
    return dealt


@pytest.mark.parametrize("suffix", SOURCES)
@pytest.mark.parametrize("months", [None, "2019_01:2020_01"])
@pytest.mark.usefixtures("threads")
def test_titles_equal_the_oracle(tmp_path: Path, suffix: str, months: str | None) -> None:
    dealt = write_months(tmp_path, suffix)
    read = [post for month in (MONTHS[1:] if months else MONTHS) for post in dealt[month]]
    setup = setup_for(tmp_path, tmp_path, months=months, top_subreddits=25, columns=ALL_COLUMNS, out="titles.parquet")
    counts = fetch(setup)
    assert read_rows(setup.out) == expected(read, setup)
    if suffix == ".zst":  # its import leaves out, and counts, what can never be a title
        read = [post for post in read if None not in (post["subreddit"], post["title"])]
    assert counts.posts == len(read)
    assert {rule: count for rule, count in counts.left_out.items() if count} == left_out(read, setup)


@pytest.mark.parametrize("suffix", SOURCES)
@pytest.mark.usefixtures("threads")
def test_the_text_of_the_query_as_it_stands_reads_the_one_table_that_it_names(tmp_path: Path, suffix: str) -> None:
    dealt = write_months(tmp_path, suffix)
    setup = setup_for(tmp_path, tmp_path, sql=TITLES_SQL, top_subreddits=25)
    rows = fetched(setup)
    assert rows == expected(dealt["2019_08"], setup)
    assert len(rows) > 100


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sfw": False},
        {"min_score": 11, "per_subreddit": 3},
        {"min_score": -1, "top_subreddits": 3, "per_subreddit": 1000},
        {"min_length": 1},
        {"block": ""},
        {"block": "r/askreddit, /r/Sub_3,SUB_4/"[:-1]},
        {"columns": "title"},
        {"columns": "author,num_comments,subreddit,id"},
    ],
)
def test_options_equal_the_oracle(tmp_path: Path, options: dict[str, Any]) -> None:
    made = posts(seed=2)
    write_ndjson(tmp_path / "posts.ndjson", made)
    setup = setup_for(tmp_path, tmp_path / "posts.ndjson", out="titles.ndjson", **options)
    rows = fetched(setup)
    assert rows == expected(made, setup)
    assert rows


@pytest.mark.parametrize("absent", [FLAGS, ("author",), ("score", "author", "created_utc"), ("num_comments",)])
@pytest.mark.parametrize("suffix", SOURCES)
def test_without_some_columns(tmp_path: Path, suffix: str, absent: tuple[str, ...]) -> None:
    made = [{name: value for name, value in post.items() if name not in absent} for post in posts(seed=3)]
    SOURCES[suffix](tmp_path / f"posts{suffix}", made)
    setup = setup_for(tmp_path, tmp_path / f"posts{suffix}", out="titles.parquet")
    assert fetched(setup) == expected(made, setup)


def test_one_statement_gives_what_two_give(tmp_path: Path) -> None:
    """The local engine keeps the judged posts in a table; run as it stands, the query gives the same."""
    made = posts(seed=4)
    write_parquet(tmp_path / "posts.parquet", made)
    setup = setup_for(tmp_path, tmp_path / "posts.parquet")
    with LocalPosts(find_posts_files(setup.source)) as source:
        asked = query.titles_query(setup, source.table, source.columns)
        kept = list(source.run(asked.sql, asked.parameters))
        whole = translate(asked.sql, {"posts"})
        assert not whole.kept
        with duckdb.connect() as connection:
            connection.execute("CREATE SCHEMA tables")
            connection.execute(f"CREATE VIEW tables.\"*\" AS FROM read_parquet('{tmp_path / 'posts.parquet'}')")
            assert connection.execute(whole.sql, asked.parameters).fetchall() == kept == expected(made, setup)


def test_ties_go_by_id_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    made = [one_post(id=f"{number:03}", title=f"title {number:03}") for number in range(50)]
    for step in (7, 11, 13):
        write_csv(tmp_path / "posts.csv", [made[place * step % 50] for place in range(50)])
        titles = fetched(setup_for(tmp_path, tmp_path / "posts.csv", overwrite=True))
        assert titles == [("aww", f"title {number:03}") for number in range(18)]


@pytest.mark.parametrize("suffix", SOURCES)
def test_only_subreddit_and_title(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    made = [{"subreddit": "b" if number % 3 else "a", "title": f"A title {number}"} for number in range(3000)]
    SOURCES[suffix](tmp_path / f"posts{suffix}", made)
    titles = fetched(setup_for(tmp_path, tmp_path / f"posts{suffix}", top_subreddits=1))
    assert titles == [("b", f"A title {number}") for number in range(27) if number % 3]
    assert [warning.split(":")[1] for warning in caplog.messages if "no column" in warning] == [
        " no column 'score'",
        " no column 'author'",
        " no column 'over_18'",
    ]


def test_a_post_in_two_files_is_one_title_of_one_author(tmp_path: Path) -> None:
    made = [one_post(id="a", author="x"), one_post(id="b", author="y", title="Another cat")]
    write_parquet(tmp_path / "2019_01.parquet", [{**post, "score": 3} for post in made])
    write_parquet(tmp_path / "2019_02.parquet", made)
    assert fetched(setup_for(tmp_path, tmp_path, columns="id,score")) == [("a", "9"), ("b", "9")]


@pytest.mark.parametrize("comments", [(3, 5, 4), (5, 4, 3)])
def test_of_equal_copies_the_further_columns_settle_which_is_written(tmp_path: Path, comments: tuple[int, ...]) -> None:
    for place, number in enumerate(comments):
        write_ndjson(tmp_path / f"{place}.ndjson", [one_post(num_comments=number), one_post(id="b", title="Other cat")])
    assert fetched(setup_for(tmp_path, tmp_path, columns="id,num_comments")) == [("a1", "3"), ("b", "")]


def test_sample(tmp_path: Path) -> None:
    if not bundled.path("data/sample_posts.parquet").exists():
        pytest.skip("data/sample_posts.parquet is not there; scripts/make-sample makes it")
    counts = fetch(setup_for(tmp_path, "sample"))
    assert counts.titles > counts.subreddits > 0


@needs_real_posts
@pytest.mark.slow
def test_real_posts(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (FROM read_parquet('{REAL_POSTS}') WHERE subreddit ^@ 'c') TO '{tmp_path / 'c.parquet'}'"
        )
    made = pq.read_table(tmp_path / "c.parquet").to_pylist()
    setup = setup_for(tmp_path, tmp_path / "c.parquet", top_subreddits=50)
    assert fetched(setup) == expected(made, setup)


@needs_real_posts
@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 8])
def test_memory_does_not_grow_with_the_posts(tmp_path: Path, threads: int) -> None:
    for month in range(1, 11):
        (tmp_path / f"2013_{month:02}.parquet").symlink_to(REAL_POSTS)
    code = (
        "import os; from pathlib import Path; from redditgen.fetch.command import fetch; "
        f"from redditgen.settings import FetchSettings; os.cpu_count = lambda: {threads}; "
        f"fetch(FetchSettings(source=({str(tmp_path)!r},), out=Path({str(tmp_path / 'titles.csv')!r}))); "
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    # Not getrusage: its peak is inherited, and this process may have had a larger one.
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert len(read_rows(tmp_path / "titles.csv")) == 18_000
    assert int(done.stdout) * 1024 < 1.1e9


# --- what is written and said ---


def test_the_csv_is_plain(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(title='cats, "dogs"'), one_post(id="a2", title="日本" * 4)])
    setup = setup_for(tmp_path, tmp_path / "posts.ndjson")
    fetch(setup)
    assert setup.out.read_bytes() == 'subreddit,title\naww,"cats, ""dogs"""\naww,日本日本日本日本\n'.encode()


def test_sidecar_and_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="redditgen")
    path = tmp_path / "posts.csv"
    write_csv(path, [one_post(), one_post(id="a2", title=None), one_post(id="a3", subreddit="b")])
    setup = setup_for(tmp_path, path, block="x,Y")
    counts = fetch(setup)
    assert counts.left_out == {**dict.fromkeys(query.RULES, 0), "incomplete": 1}
    assert counts == FetchCounts(posts=3, subreddits=2, titles=2, left_out=counts.left_out)
    assert caplog.messages == ["of 3 posts left out: 1 incomplete", f"{setup.out}: 2 titles from 2 subreddits"]
    sidecar = json.loads(sidecar_path(setup.out).read_text(encoding="utf8"))
    assert sidecar["command"] == "fetch"
    assert sidecar["settings"]["min_score"] == 5
    assert sidecar["inputs"] == {str(path): file_sha256(path)}
    assert sidecar["source"] == {"files": [{"file": str(path), "format": "CSV", "table": "posts", "map": {}}]}
    assert sidecar["sql"] == query.titles_query(setup, "fh-bigquery.reddit_posts.*", one_post()).sql
    assert sidecar["parameters"] == query.all_parameters(setup)
    assert sidecar["parameters"]["block"][:2] == ["x", "y"]
    assert sidecar["counts"] == {"posts": 3, "subreddits": 2, "titles": 2, "left_out": counts.left_out}


def test_review(tmp_path: Path) -> None:
    titles = ["What a shitty ASS day", "A nice day", "Fuck fuck fuck this"]
    made = [one_post(id=str(number), title=title) for number, title in enumerate(titles)]
    other = [one_post(subreddit="b", title="A nice night"), one_post(subreddit="c", title="Bullshit " * 30)]
    write_ndjson(tmp_path / "posts.ndjson", [*made, *other, one_post(subreddit="d", over_18=True)])
    header, aww, c = review(setup_for(tmp_path, tmp_path / "posts.ndjson"))
    assert header.split() == ["subreddit", "hits", "titles", "share", "example"]
    assert aww.split(maxsplit=4) == ["aww", "2", "3", "67%", "*** *** *** this"]
    assert c.split(maxsplit=4)[:4] == ["c", "1", "1", "100%"]
    assert c.endswith("*** ...")
    assert not (tmp_path / "out").exists()


def test_review_on_the_command_line(tmp_path: Path, redditgen: Redditgen) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(title="A shitty day")])
    done = redditgen("fetch", "--from", "posts.ndjson", "--review")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split() == ["aww", "1", "1", "100%", "A", "***", "day"]
    assert not (tmp_path / "data").exists()
    assert redditgen("fetch", "--review", "--no-sfw").returncode == 2


def test_review_without_hits_says_so(tmp_path: Path, redditgen: Redditgen) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(title="A nice day")])
    done = redditgen("fetch", "--from", "posts.ndjson", "--review")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "posts.ndjson: no title has a word of the list\n"


def test_review_of_no_posts_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("subreddit,title,score,author,over_18\n", encoding="utf8")
    with pytest.raises(InputError, match=r"posts\.csv: no posts in it; give another source with --from$"):
        list(review(setup_for(tmp_path, tmp_path / "posts.csv")))


# --- what can go wrong ---


def test_no_title_left(tmp_path: Path) -> None:
    made = [one_post(score=4, title="cat"), one_post(subreddit="b", over_18=True), one_post(subreddit="c", title=" ")]
    write_csv(tmp_path / "posts.csv", made)
    words = ["no title left", "of 3 posts left out: 1 incomplete, 1 over_18, 1 short", "--min-length"]
    fails(setup_for(tmp_path, tmp_path / "posts.csv"), InputError, *words)


def test_no_posts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="redditgen")
    (tmp_path / "posts.csv").write_text("subreddit,title,score,author,over_18\n", encoding="utf8")
    fails(setup_for(tmp_path, tmp_path / "posts.csv"), InputError, "posts.csv: no posts in it; give another source")
    assert not caplog.messages


def test_column_that_is_not_there(tmp_path: Path) -> None:
    write_csv(tmp_path / "posts.csv", [one_post()])
    fails(setup_for(tmp_path, tmp_path / "posts.csv", columns="title,url"), InputError, "no column url", "author")
    fails(setup_for(tmp_path, tmp_path / "posts.csv", columns="title,nope"), UsageError, "'nope'", "subreddit")
    fails(setup_for(tmp_path, tmp_path / "posts.csv", columns="title,title"), UsageError, "twice")


@pytest.mark.parametrize("name", ["titles.txt", "titles", "titles.csv.gz"])
def test_output_of_an_unknown_kind(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / "posts.csv", [one_post()])
    fails(setup_for(tmp_path, tmp_path / "posts.csv", out=name), UsageError, name, ".parquet")


@pytest.mark.parametrize("option", ["min_length", "top_subreddits", "per_subreddit"])
def test_number_out_of_range(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} must be 1 or more, not 0"):
        setup_for(Path(), "sample", **{option: 0})


def test_output_that_exists(tmp_path: Path) -> None:
    setup = setup_for(tmp_path, tmp_path / "no-such-source.csv")
    setup.out.parent.mkdir()
    setup.out.write_text("mine")
    with pytest.raises(OutputExists, match="--overwrite"):
        fetch(setup)
    write_csv(tmp_path / "posts.csv", [one_post(title="")])
    with pytest.raises(InputError, match="no title left"):
        fetch(setup_for(tmp_path, tmp_path / "posts.csv", overwrite=True))
    assert setup.out.read_text() == "mine"
    assert [path.name for path in setup.out.parent.iterdir()] == ["titles.csv"]


def test_folder_that_can_not_be_written_to_is_found_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in ("file", "file/new"):
        with pytest.raises(InputError, match=r"titles\.csv: can't be written: .*/file is no folder; give another name"):
            fetch(FetchSettings(source=("no-such-source.csv",), out=tmp_path / folder / "titles.csv"))
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    fails(setup_for(tmp_path, tmp_path / "no-such-source.csv"), InputError, f"{tmp_path} may not be written to; give")


def test_folder_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read anywhere
    with pytest.raises(InputError) as caught:
        fetch(setup_for(tmp_path, tmp_path))
    assert str(caught.value) == f"{tmp_path}: Permission denied; check the path and who may use it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    write_ndjson(tmp_path / "2019_08.ndjson", [one_post()])
    (tmp_path / "endless.sql").write_text(ENDLESS)
    setup = setup_for(tmp_path, tmp_path / "2019_08.ndjson", sql=tmp_path / "endless.sql")
    timer = threading.Timer(1, os.kill, (os.getpid(), number))
    with (
        pytest.raises(Interrupted, match=r"^fetch interrupted; nothing was written$"),
        signals_raise_keyboard_interrupt(),
    ):
        timer.start()
        fetch(setup)
    timer.join()
    assert not setup.out.parent.exists()


def test_interrupted_before_the_sidecar_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sidecar, "file_sha256", interrupt)
    write_ndjson(tmp_path / "posts.ndjson", [one_post()])
    fails(setup_for(tmp_path, tmp_path / "posts.ndjson"), Interrupted, "nothing was written")


def test_output_that_is_an_input(tmp_path: Path) -> None:
    write_csv(tmp_path / "titles.csv", [one_post()])
    setup = FetchSettings(source=(str(tmp_path),), out=tmp_path / "titles.csv", overwrite=True)
    with pytest.raises(UsageError, match="both read and written"):
        fetch(setup)
